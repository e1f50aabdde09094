"""What a researcher who types ``import repro_lib`` finds: names, tables with documented columns, short words for both."""

import pydoc

import pandas as pd
import pytest
from kinds import MakeResult

import repro_lib
from repro_lib import Study
from repro_lib.analysis.dictionary import WORDS, data_dictionary
from repro_lib.analysis.synthetic import ChosenPD, make_synthetic
from repro_lib.metrics.prediction_difference import PAIR_METRICS, Metric
from repro_lib.store.store import Store


@pytest.fixture
def study(store: Store, make_result: MakeResult) -> Study:
    for digit, (activation, value) in enumerate({"relu": 0.5, "gelu": 0.55, "swish": 0.45}.items()):
        made = make_result("charlm", activation, trials=3, pd=value)
        # With the digests of all alike the model would be the negative control.
        trials = [trial.model_copy(update={"weights_sha256": str(digit) * 64}) for trial in made.trials]
        store.save(made.model_copy(update={"trials": trials}))
    return repro_lib.load_study(store.folder)


def test_the_root_shows_what_a_researcher_needs_and_its_help_says_how_to_begin() -> None:
    assert [name for name in dir(repro_lib) if not name.startswith("__")] == sorted(repro_lib.__all__)
    assert {"load_study", "run_experiment", "Config", "Study", "metrics"} <= set(dir(repro_lib))
    said = pydoc.plain(pydoc.render_doc(repro_lib))
    assert said.index("load_study(") < said.index("run_experiment(") < said.index("PACKAGE CONTENTS")
    tables = pydoc.plain(pydoc.render_doc(Study))
    assert "One row per trained model" in tables
    assert "One row per leading metric, model and activation" in tables


def test_each_column_of_each_table_is_explained_and_no_other(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = study.tables
    assert list(tables) == ["cells", "trials", "pairs", "contrasts", "curves"]
    said = study.dictionary
    assert said.columns.tolist() == ["table", "column", "unit", "meaning"]
    assert list(zip(said["table"], said["column"], strict=True)) == [(n, c) for n, table in tables.items() for c in table]
    assert (said["meaning"].str.len() > 8).all()
    for name, words in WORDS.items():
        columns = set(tables[name]) if name != "every" else {c for table in tables.values() for c in table}
        assert set(words) <= columns, name
    assert set(WORDS) == {"every", *tables}
    with pytest.raises(KeyError, match="strange"):
        data_dictionary({"cells": pd.DataFrame(columns=["strange"])})
    # A metric that somebody registers explains itself.
    monkeypatch.setitem(PAIR_METRICS, "mine", Metric(lambda p, q: 0.0, 1.0, "Mine, nats", "mine"))
    mine = data_dictionary({"pairs": pd.DataFrame(columns=["mine"])})
    assert mine.to_numpy().tolist() == [["pairs", "mine", "nats", "Mine, nats, of this pair of trials"]]


def test_contrasts_are_those_of_both_leading_metrics(study: Study) -> None:
    rows = study.contrasts.set_index(["metric", "model", "activation"])
    assert rows["n"].unique().tolist() == [3, 0]
    assert rows.loc[("relative_pd", "charlm", "gelu"), "per_cent"] == pytest.approx(10)
    assert rows.loc[("total_variation", "charlm", "swish"), "difference"] == pytest.approx(-0.05 / 4)
    assert set(rows["verdict"]) == {"not decided"}


def test_a_study_and_a_result_are_one_line_and_a_short_table(study: Study, make_result: MakeResult) -> None:
    assert repr(study) == "Study(6 models x 5 activations: 3 of 30 cells, N = 3)"
    page = study._repr_html_()
    assert page.startswith(f"<p>{study!r}, relative PD:</p><table")
    assert "0.550" in page
    assert "NaN" not in page
    assert repr(study.results[0]) == "Result(charlm with relu, N = 3, relative PD 0.5000, loss 3.062 nats)"
    assert repr(make_result(trials=1)) == "Result(charlm with relu, N = 1, loss 3.062 nats)"
    made_up = make_synthetic(["charlm"], ["gelu"], ChosenPD.parse(["0.5"]), profile="smoke")
    assert repr(made_up[0]).endswith("nats, synthetic)")
    assert "N = 3, synthetic), relative PD:</p>" in Study.of(made_up)._repr_html_()
    assert repr(Study.of([])).startswith("Study(6 models x 5 activations: 0 of 30 cells, N = 0")
    assert Study.of([]).contrasts.columns.tolist() == study.contrasts.columns.tolist()
