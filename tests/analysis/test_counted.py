"""The leading metrics over the most frequent characters, by brute force on a small trained store."""

import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from repro_lib.analysis.counted import CountedModel, count_model
from repro_lib.analysis.frames import pair_matrix
from repro_lib.analysis.notes import Note
from repro_lib.analysis.slices import pair_trials
from repro_lib.analysis.stored_models import corpus_of
from repro_lib.analysis.study import Study
from repro_lib.data import make_dataset
from repro_lib.metrics import prediction_difference as metrics
from repro_lib.metrics.uncertainty import Estimate, jackknife_pairwise
from repro_lib.plots.counted import frequent_view
from repro_lib.plots.style import Plot
from repro_lib.report.tables import summary_table
from repro_lib.store.store import Store
from repro_lib.whatif.definition import WhatIf
from repro_lib.whatif.predictions import StoredPredictions
from repro_lib.whatif.questions.frequent import frequent_what_if


@pytest.fixture(scope="module")
def both(what_if_folder: Path, what_if_study: Study) -> tuple[CountedModel, pd.DataFrame | Note]:
    return count_model(Store(what_if_folder), what_if_study, "charlm")


@pytest.fixture(scope="module")
def counted(both: tuple[CountedModel, pd.DataFrame | Note]) -> CountedModel:
    return both[0]


def test_over_all_characters_a_metric_is_the_stored_one_and_over_some_that_of_these(
    counted: CountedModel, what_if_folder: Path, what_if_study: Study
) -> None:
    store, result = Store(what_if_folder), what_if_study.results[1]
    vocabulary = counted.steps[-1]
    for metric in ("relative_pd", "total_variation"):
        assert counted.over("gelu", metric, vocabulary) == pytest.approx(pair_matrix(result, metric), rel=1e-9)
    dataset = make_dataset(corpus_of(result), result.config["train_split"], result.config["block_size"])
    counts = np.bincount(dataset.train.numpy(), minlength=vocabulary)
    first, second = (store.predictions(result, k).probabilities[:, np.argsort(-counts, kind="stable")[:10]] for k in (1, 3))
    assert counted.over("gelu", "relative_pd", 10)[0, 2] == pytest.approx(
        metrics.relative_differences(first, second).mean(), rel=1e-9
    )
    assert counted.over("gelu", "total_variation", 10)[2, 0] == pytest.approx(
        np.abs(first - second).sum(axis=1).mean() / 2, rel=1e-9
    )


def test_the_curve_is_the_jackknife_of_the_contrast_at_each_k(counted: CountedModel) -> None:
    curves = counted.curves.set_index(["activation", "metric", "k"])
    assert counted.steps[0] == 10
    assert len(curves) == 2 * 2 * len(counted.steps)
    means = [counted.over(name, "relative_pd", 15)[np.triu_indices(4, 1)].mean() for name in ("gelu", "relu")]
    row = curves.loc[("gelu", "relative_pd", 15)]
    assert row["per_cent"] == pytest.approx(100 * (means[0] / means[1] - 1))
    assert row["per_cent_low"] < row["per_cent"] < row["per_cent_high"]
    plot, (sentence, _) = frequent_view(counted), counted.sentences()
    assert isinstance(plot, Plot)
    # A line for each of the two activations, and the zero.
    assert [len(axes.lines) for axes in plot.figure.axes] == [3, 3]
    whole = Estimate.in_row(curves.loc[("gelu", "total_variation", counted.steps[-1])], "per_cent")
    assert f" {whole.value:+z.1f} % over all {counted.steps[-1]} (N" in sentence
    assert "(N = 4, 95 % intervals)" in sentence


def test_the_table_has_reference_lines_and_the_agreement_of_all_trials(
    both: tuple[CountedModel, pd.DataFrame | Note], what_if_folder: Path, what_if_study: Study
) -> None:
    store, result, (counted, table) = Store(what_if_folder), what_if_study.results[0], both
    trials = [store.predictions(result, k) for k in (1, 2, 3, 4)]
    # Some pair of trials differs wherever not all agree.
    agree = 1 - np.mean(pair_trials(trials).mean("churn") > 0)
    assert result.unanimity == pytest.approx(agree)
    assert what_if_study.cells["unanimity"].iloc[0] == result.unanimity
    assert summary_table(result).loc["Share where all trials agree"].item() == f"{agree:.4f}"
    assert not isinstance(table, Note)
    assert table.loc["relu", "All trials agree, %"] == f"{100 * agree:.1f}"
    width = counted.steps[-1]
    uniform = [metrics.kl_divergence(t.probabilities, np.full(t.logits.shape, 1 / width)) for t in trials]
    assert table.loc["relu", "to the uniform"] == f"{np.mean(uniform):.3f}"
    known = jackknife_pairwise(pair_matrix(result, "kl_divergence")).value
    assert str(table.loc["relu", "KL between trials, nats"]).startswith(f"{known:.4f}")


def test_what_cannot_be_counted_is_said(what_if_folder: Path, what_if_study: Study, tmp_path: Path) -> None:
    store = Store(shutil.copytree(what_if_folder, tmp_path / "results"))
    lost = what_if_study.results[0]
    store.trial_path("predictions", lost.model_name, lost.activation, lost.config_sha256, 2).unlink()
    found, table = count_model(store, what_if_study, "charlm")
    assert [*found.cells] == ["gelu", "swiglu"] == [*table.index]
    assert found.gaps[0].startswith("charlm with relu: ")
    assert "is missing; run the cell again" in found.gaps[0]
    assert found.sentences() == [
        "No contrast over the most frequent characters: charlm needs relu and another activation, each twice."
    ]
    assert isinstance(frequent_view(found), Note)
    assert isinstance(count_model(store, what_if_study, "convlm")[1], Note)
    same = CountedModel("tinylstm", found.cells, identical=True, reference="relu")
    assert "is bit-identical with every activation" in same.sentences()[0]
    # An older version stored no such number.
    assert math.isnan(replace(what_if_study, results=(lost.model_copy(update={"unanimity": None}),)).cells["unanimity"].iloc[0])


def test_the_what_if_gives_the_same_numbers(counted: CountedModel, what_if_folder: Path, what_if_study: Study) -> None:
    what_if = frequent_what_if(StoredPredictions(Store(what_if_folder), what_if_study))
    assert isinstance(what_if, WhatIf)
    rows = what_if.at(top=10).set_index(["measure", "label"])
    expected = counted.over("gelu", "total_variation", 10)[np.triu_indices(4, 1)].mean()
    assert rows.loc[("Total variation", "gelu"), "value"] == pytest.approx(expected, rel=2e-6)
    against = counted.against("gelu", "relative_pd", 10)
    assert f"against relu gelu {against:+z.1f %}, swiglu" in what_if.sentence(top=10)
    assert what_if.sentence(top=10).startswith("The 10 most frequent characters of the training text of charlm on ")
