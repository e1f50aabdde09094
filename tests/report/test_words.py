"""Tables and sentences for people, on results made up by hand: computed, whole, and no bolder than N allows."""

import re

import numpy as np
import pandas as pd
import pytest
from test_study import make_result as full_result

from repro_lib.analysis.contrasts import leading_contrasts
from repro_lib.analysis.evidence import Evidence
from repro_lib.analysis.formatting import number
from repro_lib.analysis.frames import cells_frame
from repro_lib.analysis.study import Study
from repro_lib.plots.activations import activation_curves, derivatives, smelu_family
from repro_lib.report import contrast_tables as tables
from repro_lib.report.contrast_tables import contrasts_table
from repro_lib.report.sentences import about, cell_headlines, grid_headlines, missing, model_headlines, provenance
from repro_lib.report.tables import WordTable, config_table, markdown_table, overview_table, summary_table, trials_table
from repro_lib.store.schema import Result


def evidence_of(*results: Result) -> Evidence:
    return Evidence.from_results(Study.of(results, activations=["relu", "gelu"]))


@pytest.fixture(scope="module")
def three_trials() -> Evidence:
    return evidence_of(full_result("charlm", "relu"), full_result("charlm", "gelu", (0.5, 0.6, 0.7)))


def test_tables_have_a_row_per_contrast_and_a_dash_where_there_is_no_number(three_trials: Evidence) -> None:
    row = contrasts_table(three_trials, "charlm").loc["gelu"]
    # relu .5, gelu .6: 20 % more; the trials of one seed move together.
    assert row["Relative PD, % (95 % interval)"].startswith("+20.0 (")
    assert row[["N", "Verdict", "p (permutation)", "p (equality test)"]].tolist() == [3, "not decided", "0.25", "1"]
    cv = tables.cv_table(three_trials).loc["charlm"]
    assert cv["CV, %"] == "9.09"
    assert cv["Without noise, % (95 % interval)"].startswith("9.09 (")
    assert cv["By relative PD"] == "not decided"
    assert tables.intervals_table(three_trials, "charlm").loc["relu", "Over windows (these trials)"] == "–"
    assert list(tables.variance_table(three_trials)) == ["nothing to compare yet"]
    assert contrasts_table(three_trials).index.names == ["Model", "Activation"]
    chances = tables.chances_table(three_trials)
    # Every trial of relu is below its like; of convlm a cell is missing.
    assert (set(chances.loc["charlm"]), set(chances.loc["convlm"])) == ({"1.00", "0.00"}, {"–"})


def test_a_number_without_an_interval_says_why_and_a_difference_of_nothing_has_no_negative_zero() -> None:
    few = evidence_of(full_result("charlm", "relu", (0.5,)), full_result("charlm", "gelu", (0.6,)))
    assert contrasts_table(few, "charlm").loc["gelu", "Relative PD, % (95 % interval)"] == "+20.0 (none: N < 3)"
    close = evidence_of(full_result("charlm", "relu"), full_result("charlm", "gelu", (0.3999, 0.4999, 0.6)))
    cell = contrasts_table(close, "charlm").loc["gelu", "Relative PD, % (95 % interval)"]
    assert re.fullmatch(r"\+0\.0 \([+-]\d\.\d to [+-]\d\.\d\)", cell), cell


def test_a_table_in_markdown_shows_what_it_holds_and_does_nothing_else() -> None:
    frame = pd.DataFrame({"a": ["<b>", "x | y"]}, index=pd.Index(["*one*", "two"], name="Model"))
    head, rule, first, second = markdown_table(frame).splitlines()
    assert (head, rule) == ("| Model | a |", "| --- | --- |")
    assert first == "| &#42;one&#42; | &#60;b&#62; |"
    assert second.count("|") == 3
    wide = markdown_table(frame.set_index("a", append=True).assign(n=1))
    assert wide.splitlines()[0] == "| Model | a | n |"


def test_a_table_of_words_is_escaped_and_wraps() -> None:
    frame = pd.DataFrame({"Verdict": ["refuted at N = 10", "<b>"]}, index=["a & b", "c"])
    shown = WordTable(frame, "supported at N = 10: <claim>")._repr_html_()
    bold = '<strong style="white-space:nowrap">{}</strong> at N = 10'
    folded = f"<details><summary>{bold.format('supported')}: &lt;claim&gt;</summary>"
    assert [part for part in ("a &amp; b", "&lt;b&gt;", bold.format("refuted"), folded) if part not in shown] == []
    assert "details" not in WordTable(frame)._repr_html_()
    assert repr(WordTable(frame, "summary")) == "summary\n" + repr(WordTable(frame)) == "summary\n" + frame.to_string()


def test_numbers_carry_their_interval_and_trials_and_configuration_are_shown_whole() -> None:
    assert number(np.nan, 2) == number(None, 2) == "–"
    table = overview_table(cells_frame([full_result("charlm", "relu")], ["charlm", "convlm"], ["relu", "gelu"]))
    assert (list(table.index), list(table.columns)) == (["charlm", "convlm"], ["relu", "gelu"])
    assert table.loc["charlm", "relu"].startswith("0.5000 (")
    assert set(table.loc["convlm"]) == {"–"}
    result = full_result("charlm", "relu", config_sources={"max_iters": "profile"})
    assert list(trials_table(result)["Seed"]) == [42, 43, 44]
    table = config_table(result)
    assert set(table.index) == set(result.config)
    assert table.loc["max_iters", "Set by"] == "profile"
    # The summary once looked at the first cell of the registry, which is missing where another was trained.
    summary = summary_table(full_result("convlm", "gelu"))["convlm with gelu"]
    assert summary["Relative PD"].startswith("0.5000 (0.")
    assert summary["Validation accuracy, %"].startswith("50.00 (")


def test_derivatives_agree_with_hand_worked_values_and_figures_of_them_say_what_they_show() -> None:
    points, value, slope, curvature = derivatives("smelu_1", 3.0)
    middle, two = np.abs(points).argmin(), np.abs(points - 2.0).argmin()
    assert (value[middle], slope[middle], curvature[middle]) == pytest.approx((0.25, 0.5, 0.5))
    assert (value[two], slope[two], curvature[two]) == pytest.approx((2.0, 1.0, 0.0))
    with pytest.raises(ValueError, match="draw an ungated activation"):
        derivatives("swiglu", 3.0)
    assert "relu, swish" in activation_curves(["relu", "swish"], 2.0).alt
    assert "beta 0.5, 2" in smelu_family([0.5, 2.0]).alt


def contrasts(*rows: tuple[str, str, float, float]) -> pd.DataFrame:
    """Contrasts with relu as ``leading_contrasts`` gives them: model, activation, per cent, Holm's p."""
    numbers = {"n": 10, "without_partner": 0, "difference_low": -0.1, "difference_high": 0.1, "trials_needed": 25.0}
    numbers |= {"per_cent_low": -20.0, "per_cent_high": 9.0, "margin": 3.0, "p_equal": 1.0}
    frame = pd.DataFrame(rows, columns=["model", "activation", "per_cent", "p"]).assign(**numbers)
    verdicts = frame["p"].map(lambda p: "supported" if p <= 0.05 else "not decided")
    frame = frame.assign(difference=frame["per_cent"] / 100, p_holm=frame["p"], verdict=verdicts, verdict_tv="not decided")
    frame = frame.assign(per_cent_tv=5.0, per_cent_low_tv=-1.0, per_cent_high_tv=11.0)
    one_length = {f"per_cent{end}{suffix}": np.nan for end in ("", "_low", "_high") for suffix in ("_at_loss", "_at_loss_tv")}
    return frame.assign(**one_length)


def test_a_cell_says_how_much_it_disagrees_how_good_it_is_and_what_is_wrong() -> None:
    result = full_result("convlm", "gelu", (0.2, 0.25, 0.3), losses=(3.0, 3.1, 3.2), flags=["untrained: trial 2"])
    apart, learnt, flag = cell_headlines(result)
    size = r"convlm with gelu: relative PD 0\.2500 \(.* between 3 trials, on a scale from 0 to 2\."
    assert re.match(f"{size} .* different characters in 25.0 % of all places; each is wrong in 50.0 %", apart)
    # The unigrams have 3.3.
    assert "3.100 (2.852 to 3.348) nats, 0.20 below that of a model that knows only how frequent each character is" in learnt
    assert flag == "Flagged: untrained: trial 2."
    assert "0.30 ABOVE" in cell_headlines(full_result(losses=(3.5, 3.6, 3.7)))[1]
    assert cell_headlines(full_result(pairs=()))[0] == "charlm with relu: one trial, so there is no pair to compare."


def study_of(**about: object) -> Study:
    """charlm: relu 0.6, gelu 0.4, swish 0.5, three trials each."""
    pairs = {"relu": (0.5, 0.6, 0.7), "gelu": (0.3, 0.4, 0.5), "swish": (0.4, 0.5, 0.6)}
    return Study.of([full_result("charlm", *cell, **about) for cell in pairs.items()], ["charlm"], list(pairs))


def test_a_model_says_its_answer() -> None:
    frame = contrasts(("charlm", "gelu", -30.0, 0.2), ("charlm", "swish", -16.0, 0.01), ("convlm", "gelu", 90.0, 0.01))
    said = model_headlines(study_of(), "charlm", frame)
    assert said[0].startswith("It depends on the metric: none of 2 differences from relu is supported in both")
    assert said[1].startswith("3 of 3 cells")
    assert not re.search("90|flagged", "\n".join(said)), "another model's contrast, or a flag that nobody raised"
    # What has no number is not counted.
    frame = contrasts(("charlm", "gelu", np.nan, np.nan), ("charlm", "swish", -16.0, 0.4))
    assert "none of 1 difference" in grid_headlines(study_of(), frame)[0]


def test_a_grid_says_its_answer_and_what_is_wrong_and_an_empty_one_what_to_run() -> None:
    flagged = study_of(flags=["untrained: trial 1"])
    assert grid_headlines(flagged, leading_contrasts(Evidence.from_results(flagged)))[-1].startswith(
        "3 of 3 cells are flagged (untrained)"
    )
    hole = Study.of([full_result("charlm", "relu")], ["charlm"], ["relu", "gelu"])
    assert "Missing, and left blank everywhere: charlm with gelu." in grid_headlines(hole, contrasts())
    for said in (grid_headlines(Study.of([]), contrasts()), model_headlines(Study.of([]), "charlm", contrasts())):
        assert said == ["no results yet: run ./run_papermill.sh"]
    assert provenance(Study.of([])) == said == [about(Study.of([]))] == [missing(Study.of([]))]


def test_cells_of_several_kinds_of_machine_are_named() -> None:
    here = {"torch": "2.1", "device": "cpu", "cpu": "A", "instructions": "AVX2"}

    def said(other: dict[str, str]) -> str:
        kinds = {"relu": here, "gelu": here, "swish": other}
        results = [full_result("charlm", name).model_copy(update={"environment": kind}) for name, kind in kinds.items()]
        return about(Study.of(results))

    assert said(here).endswith(" evaluation characters.")
    result = full_result("charlm", "relu")
    cut = result.model_copy(update={"config": result.config | {"tokens": "bpe:300"}})
    assert about(Study.of([cut])).endswith(" evaluation tokens (bpe:300; what is said of characters is of these).")
    # An earlier version did not record the instructions.
    assert said({name: value for name, value in here.items() if name != "instructions"}) == said(here)
    kinds = "2.1, cpu, A, AVX2: charlm with relu, charlm with gelu; 2.1, cpu, B, AVX2: charlm with swish"
    assert said(here | {"cpu": "B"}).endswith(f" They come from 2 kinds of machine, which may round differently ({kinds}).")
