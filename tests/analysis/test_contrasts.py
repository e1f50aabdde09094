"""Evidence across activations: by hand on results made up, against brute force, and on really trained cells."""

import math
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from test_study import digest, make_result

from repro_lib.analysis import contrasts as frames
from repro_lib.analysis.contrasts import (
    accuracy_variance,
    chances_of_being_best,
    contrasts_frame,
    cv_over_activations,
    needed_for,
    two_kinds_of_interval,
)
from repro_lib.analysis.evidence import Evidence
from repro_lib.analysis.study import METRICS, Study
from repro_lib.config import Config
from repro_lib.metrics.cells import coefficient_of_variation
from repro_lib.metrics.hypothesis_tests import permutation_test, smallest_p, trials_needed
from repro_lib.metrics.uncertainty import Estimate, jackknife
from repro_lib.store.schema import Result
from repro_lib.store.store import Store
from repro_lib.training.experiment import run_experiment

Tiny = Callable[..., Config]


def with_inits(result: Result, *marks: object) -> Result:
    trials = [t.model_copy(update={"init_sha256": digest("init", m)}) for t, m in zip(result.trials, marks, strict=True)]
    return result.model_copy(update={"trials": trials})


def of(*results: Result, activations: tuple[str, ...] = ("relu", "gelu")) -> Evidence:
    return Evidence.from_results(Study.of(results, ["charlm"], activations))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny: Tiny) -> tuple[Study, Evidence]:
    folder = tmp_path_factory.mktemp("evidence") / "results"
    for model in ("charlm", "tinylstm"):
        for activation in ("relu", "gelu", "swiglu"):
            run_experiment(model, activation, tiny(model, trials=4), results_dir=folder)
    store = Store(folder)
    study = Study.load(store, ["charlm", "tinylstm"], ["relu", "gelu", "swiglu"])
    return study, Evidence.load(store, study)


# --- by hand


def test_the_frame_has_a_row_per_pair_and_no_number_where_two_were_not_compared() -> None:
    evidence = of(make_result("charlm", "relu"), make_result("charlm", "gelu"))
    pairs = evidence.pairs
    assert len(pairs) == math.comb(6, 2)
    across = pairs["activation_1"] != pairs["activation_2"]
    assert pairs.loc[across, list(METRICS)].isna().all(axis=None)
    assert sorted(pairs.loc[~across, "relative_pd"]) == [0.4, 0.4, 0.5, 0.5, 0.6, 0.6]
    assert not pairs["identical"].any()
    assert evidence.matrix("charlm", ["relu"], "churn")[0].tolist() == [0.0, 0.4, 0.5]


def test_paired_only_where_every_seed_gave_the_same_initial_weights() -> None:
    relu = with_inits(make_result("charlm", "relu"), 1, 2, 3)
    gelu, two = make_result("charlm", "gelu"), make_result("charlm", "gelu", (0.6,))
    # The same weights under other numbers are no pairs.
    for other, paired in (((gelu, 1, 2, 3), True), ((gelu, 1, 2, 4), False), ((gelu, 2, 1, 3), False), ((two, 1, 2), False)):
        assert of(relu, with_inits(*other)).paired("charlm", "relu", "gelu") == paired


def test_contrast_with_the_numbers_of_the_jackknife() -> None:
    relu = with_inits(make_result("charlm", "relu"), 1, 2, 3)
    gelu = with_inits(make_result("charlm", "gelu", (0.5, 0.7, 0.9)), 4, 5, 6)
    row = contrasts_frame(of(relu, gelu)).iloc[0]
    assert (row["activation"], row["n"], row["n_reference"], row["paired"]) == ("gelu", 3, 3, False)
    assert row["difference"] == pytest.approx(0.2)
    assert row["per_cent"] == pytest.approx(40.0)
    # Pairs 12 13 23 of relu .4 .5 .6: without 1 .6, without 2 .5, without 3 .4, variance 2/3 (.01 + 0 + .01); of gelu four
    # times that. Welch and Satterthwaite: (v + 4 v)^2 / (v^2 / 2 + (4 v)^2 / 2) = 50 / 17.
    v = 2 / 3 * 0.02
    half = scipy.stats.t.ppf(0.975, 50 / 17) * math.sqrt(5 * v)
    assert (row["difference_low"], row["difference_high"]) == pytest.approx((0.2 - half, 0.2 + half))
    assert math.isnan(row["p"])
    assert not row["supported"]
    assert row["smallest_p"] == pytest.approx(0.1)
    # The trials to tell scale with the spread of one trial.
    # An error of .1 from 4 trials unpaired: each arm's unit has sd .1 sqrt(4 / 2); effect .2 / .1414.
    difference = Estimate(0.2, 0.0, 0.4, 4, 0.1, 6)
    assert needed_for(difference, paired=False) == trials_needed(0.2 / (0.1 * math.sqrt(2)), paired=False)
    assert needed_for(difference, paired=True) == trials_needed(0.2 / 0.2, paired=True)
    assert needed_for(Estimate(0.2, 0.2, 0.2, 4, 0.0, 3), paired=True) is None
    # Infinite and missing numbers give no evidence.
    lost = make_result("charlm", "gelu")
    numbers = dict(lost.reproducibility_metrics) | {"log_prob_pd_1_2": None, "log_prob_pd": None}
    evidence = of(make_result("charlm", "relu"), lost.model_copy(update={"reproducibility_metrics": numbers}))
    row = contrasts_frame(evidence, "log_prob_pd").iloc[0]
    assert row[["difference_low", "per_cent_low", "p"]].isna().all()
    assert not contrasts_frame(evidence)["difference"].isna().any()


def test_cells_of_several_models_are_left_out_trial_by_trial() -> None:
    results = [make_result(model, "relu", pairs) for model, pairs in (("charlm", (0.4, 0.5, 0.6)), ("convlm", (0.3, 0.7, 0.8)))]
    evidence = Evidence.from_results(Study.of(results, ["charlm", "convlm"], ["relu"]))
    cells = [("charlm", "relu"), ("convlm", "relu")]
    found = evidence.estimate(cells, np.mean, "relative_pd")
    # Bundles: without trial 1 (.6 + .8) / 2, without 2 (.5 + .7) / 2, without 3 (.4 + .3) / 2.
    left_out = np.array([0.7, 0.6, 0.35])
    error = math.sqrt(2 / 3 * np.square(left_out - left_out.mean()).sum())
    assert (found.value, found.error, found.degrees) == pytest.approx(((0.5 + 0.6) / 2, error, 2))
    assert math.isnan(evidence.estimate([("charlm", "gelu")], np.mean, "relative_pd").value)


def test_a_frame_is_computed_once_and_what_a_caller_does_to_it_stays_with_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(frames, "permutation_test", lambda *args, **how: calls.append(1) or permutation_test(*args, **how))
    evidence = of(make_result("charlm", "relu"), make_result("charlm", "gelu"))
    first = contrasts_frame(evidence)
    first["p_holm"] = 0.0
    again = contrasts_frame(evidence, metric="relative_pd")
    assert not (again["p_holm"] == 0.0).any()
    assert len(calls) == 1
    contrasts_frame(evidence, "churn")
    assert len(calls) == 2


# --- on really trained cells


def test_the_negative_control_is_left_out_by_digests(trained: tuple[Study, Evidence], tmp_path: Path) -> None:
    _, evidence = trained
    assert evidence.identical("tinylstm")
    assert evidence.candidates() == ("charlm",)
    assert set(contrasts_frame(evidence)["model"]) == {"charlm"}
    cv = cv_over_activations(evidence).set_index("model")
    assert (cv.loc["tinylstm", "cv"], cv.loc["tinylstm", "cv_high"]) == (0.0, 0.0)
    assert set(chances_of_being_best(evidence)["model"]) == {"charlm"}
    assert not evidence.gaps
    # A frame alone gives the same numbers.
    evidence.pairs.to_csv(tmp_path / "pairs.csv", index=False)
    again = Evidence.of(pd.read_csv(tmp_path / "pairs.csv"))
    pd.testing.assert_frame_equal(contrasts_frame(again), contrasts_frame(evidence))


def test_permutation_p_by_brute_force(trained: tuple[Study, Evidence]) -> None:
    _, evidence = trained
    frame = contrasts_frame(evidence).set_index("activation")
    # GELU has the parameters of relu and starts from the same weights; SwiGLU's layers have other shapes.
    assert bool(frame.loc["gelu", "paired"])
    assert not frame.loc["swiglu", "paired"]
    joint = evidence.matrix("charlm", ["swiglu", "relu"], "relative_pd")

    def difference(rows: tuple[int, ...]) -> float:
        rest = [k for k in range(8) if k not in rows]
        means = [np.mean([joint[i, j] for i, j in combinations(part, 2)]) for part in (rows, rest)]
        return abs(means[0] - means[1])

    ways = [difference(rows) for rows in combinations(range(8), 4)]
    expected = np.mean([way >= ways[0] - 1e-12 for way in ways])
    found = frame.loc["swiglu", ["p", "permutations", "smallest_p"]].tolist()
    assert found == [pytest.approx(expected), 70, smallest_p(4, 4, paired=False)]
    assert not frame["supported"].any()
    # The CV, by the jackknife itself.
    row = cv_over_activations(evidence).set_index("model").loc["charlm"]
    matrices = [evidence.matrix("charlm", [name], "relative_pd") for name in ("relu", "gelu", "swiglu")]
    # relu and gelu share their initial weights, so their trials leave together.
    by_hand = jackknife(matrices, coefficient_of_variation, groups=[0, 0, 2], lower=0.0)
    assert (row["cv"], row["cv_low"], row["cv_high"]) == pytest.approx((by_hand.value, by_hand.low, by_hand.high))
    assert row["p"] > 0


def test_intervals_and_variances_are_of_the_numbers_in_the_results(trained: tuple[Study, Evidence]) -> None:
    study, evidence = trained
    intervals, variances = two_kinds_of_interval(evidence), accuracy_variance(evidence)
    assert len(intervals) == len(variances) == 6
    for row, parts in zip(intervals.to_dict("records"), variances.to_dict("records"), strict=True):
        result = study.result(row["model"], row["activation"])
        assert result is not None
        assert row["value"] == pytest.approx(result.avg_relative_pd)
        assert row["trials_low"] <= row["value"] <= row["trials_high"]
        assert row["windows_low"] < row["value"] < row["windows_high"]
        observed = np.var([trial.val_accuracy for trial in result.trials], ddof=1)
        assert (parts["model"], parts["activation"]) == (row["model"], row["activation"])
        assert parts["evaluation"] + parts["runs"] == pytest.approx(parts["observed"])
        assert parts["observed"] == pytest.approx(observed, rel=1e-6)
