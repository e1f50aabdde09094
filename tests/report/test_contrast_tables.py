"""Evidence in tables and sentences, and tables of words, on results made up by hand."""

from __future__ import annotations

import pandas as pd
import pytest
from test_study import make_result

from repro_lib.analysis.contrasts import contrasts_frame, cv_over_activations
from repro_lib.analysis.evidence import Evidence
from repro_lib.analysis.study import Study
from repro_lib.report.contrast_tables import (
    chances_table,
    contrast_sentences,
    contrasts_table,
    cv_sentences,
    cv_table,
    intervals_table,
    variance_table,
)
from repro_lib.report.tables import WordTable


def evidence_of(*results: object) -> Evidence:
    return Evidence.from_results(Study.of(results, activations=["relu", "gelu"]))  # pyright: ignore[reportArgumentType]


@pytest.fixture
def three_trials() -> Evidence:
    return evidence_of(make_result("charlm", "relu"), make_result("charlm", "gelu", (0.5, 0.6, 0.7)))


def test_tables_have_a_row_per_contrast_and_a_dash_where_there_is_no_number(three_trials: Evidence) -> None:
    table = contrasts_table(three_trials, "charlm")
    assert list(table.index) == ["gelu"]
    # relu .5, gelu .6: 20 % more; the initial weights are equal, so it is paired and the pair values move together.
    assert table.loc["gelu", "Difference, % (95 % interval)"].startswith("20.0 (")
    assert table.loc["gelu", "Paired"] == "yes"
    # Without predictions there is nothing to permute; what N could reach is known all the same.
    assert table.loc["gelu", "p"] == "–"
    assert table.loc["gelu", "Least p"] == "0.25"
    assert cv_table(three_trials).loc["charlm", "CV, % (95 % interval)"].startswith("9.09 (")
    assert intervals_table(three_trials, "charlm").loc["relu", "Over windows (these trials)"] == "–"
    assert list(variance_table(three_trials)) == ["nothing to compare yet"]
    assert contrasts_table(three_trials).index.names == ["Model", "Activation"]
    chances = chances_table(three_trials)
    assert set(chances.loc["charlm"]) <= {"1.00", "0.00"}  # every trial of relu is below its like
    assert set(chances.loc["convlm"]) == {"–"}, "a cell is missing"


def test_every_sentence_carries_n_and_an_interval(three_trials: Evidence) -> None:
    few = evidence_of(make_result("charlm", "relu", (0.5,)), make_result("charlm", "gelu", (0.6,)))
    missing = evidence_of(make_result("charlm", "relu"))
    assert (
        "charlm: gelu against relu: +20.0 % relative PD, not decided at N = 2, and no interval below 3 trials."
        in contrast_sentences(contrasts_frame(few))
    )
    assert contrasts_table(few, "charlm").loc["gelu", "Difference, % (95 % interval)"] == "20.0 (none: N < 3)"
    for evidence in (three_trials, few, missing):
        sentences = [*contrast_sentences(contrasts_frame(evidence)), *cv_sentences(cv_over_activations(evidence))]
        assert sentences
        assert all("N = " in sentence and "interval" in sentence for sentence in sentences)


def test_a_difference_of_nothing_has_no_negative_zero() -> None:
    frame = contrasts_frame(evidence_of(make_result("charlm", "relu"), make_result("charlm", "gelu")))
    frame.loc[frame["model"] == "charlm", ["per_cent", "per_cent_low", "per_cent_high"]] = [-0.0001, -0.02, 0.0]
    said = next(sentence for sentence in contrast_sentences(frame) if sentence.startswith("charlm"))
    assert "+0.0 % relative PD (95 % interval +0.0 to +0.0 %" in said


def test_a_small_p_alone_supports_nothing() -> None:
    frame = contrasts_frame(evidence_of(make_result("charlm", "relu"), make_result("charlm", "gelu", (0.5, 0.6, 0.7))))
    row = frame["model"] == "charlm"
    frame.loc[row, ["p", "p_holm"]] = 0.001
    assert not frame.loc[row, "supported"].any()  # the frame was made without a p: none is supported
    assert "not decided at N = 3" in next(said for said in contrast_sentences(frame) if said.startswith("charlm"))
    frame.loc[row, "supported"] = True
    assert "a difference supported at N = 3." in next(said for said in contrast_sentences(frame) if said.startswith("charlm"))


def test_a_model_without_any_pair_is_one_sentence() -> None:
    said = contrast_sentences(contrasts_frame(Evidence.from_results(Study.of([make_result("charlm", "relu")]))))
    assert "convlm: no contrast with relu at N = 0, and no interval: no cell has a pair of trials." in said
    assert sum(sentence.startswith("convlm") for sentence in said) == 1
    # relu alone is there: each of the others is named.
    assert sum(sentence.startswith("charlm") for sentence in said) == 4


def test_a_table_of_words_is_escaped_and_wraps() -> None:
    frame = pd.DataFrame({"Verdict": ["refuted at N = 10", "<b>"]}, index=["a & b", "c"])
    shown = WordTable(frame, "supported at N = 10: <claim>")._repr_html_()
    assert "a &amp; b" in shown
    assert "&lt;b&gt;" in shown
    assert '<strong style="white-space:nowrap">refuted</strong> at N = 10' in shown
    assert '<details><summary><strong style="white-space:nowrap">supported</strong> at N = 10: &lt;claim&gt;</summary>' in shown
    assert "details" not in WordTable(frame)._repr_html_()
    assert repr(WordTable(frame)).count("\n") == 2
    assert repr(WordTable(frame, "summary")) == "summary\n" + repr(WordTable(frame))
