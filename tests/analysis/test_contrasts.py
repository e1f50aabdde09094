"""Evidence across activations: by hand on results made up, against brute force, and on really trained cells."""

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import scipy.stats
from kinds import Tiny
from test_study import make_result

from repro_lib.analysis import contrasts as frames
from repro_lib.analysis.contrasts import (
    accuracy_variance,
    chances_of_being_best,
    contrasts_frame,
    cv_over_activations,
    sensitivity,
    two_kinds_of_interval,
    verdict_on_extreme,
)
from repro_lib.analysis.evidence import Evidence
from repro_lib.analysis.study import Study
from repro_lib.analysis.verdicts import EQUAL, NOT_DECIDED, SUPPORTED
from repro_lib.metrics.cells import cv_beside_noise
from repro_lib.metrics.hypothesis_tests import p_equal, p_value, permutation_test
from repro_lib.metrics.uncertainty import contrast
from repro_lib.store.schema import Result
from repro_lib.store.store import Store
from repro_lib.training.experiment import run_experiment


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


def test_contrast_with_the_numbers_of_the_jackknife() -> None:
    relu, gelu = make_result("charlm", "relu"), make_result("charlm", "gelu", (0.5, 0.7, 0.9))
    row = contrasts_frame(of(relu, gelu)).iloc[0]
    assert (row["activation"], row["n"], row["without_partner"], row["margin"]) == ("gelu", 3, 0, 3.0)
    assert row["difference"] == pytest.approx(0.2)
    assert row["per_cent"] == pytest.approx(40.0)
    # Pairs 12 13 23 of relu .4 .5 .6, of gelu .5 .7 .9: without 1 the difference is .3, without 2 .2, without 3 .1.
    error = math.sqrt(2 / 3 * 0.02)
    half = scipy.stats.t.ppf(0.975, 2) * error
    assert (row["difference_low"], row["difference_high"]) == pytest.approx((0.2 - half, 0.2 + half))
    assert row["p"] == pytest.approx(2 * scipy.stats.t.sf(0.2 / error, 2)) == row["p_holm"]
    # Below ten trials there is no verdict, whatever the numbers.
    assert row["verdict"] == NOT_DECIDED
    # Infinite and missing numbers give no evidence.
    lost = make_result("charlm", "gelu")
    numbers = dict(lost.reproducibility_metrics) | {"log_prob_pd_1_2": None, "log_prob_pd": None}
    evidence = of(make_result("charlm", "relu"), lost.model_copy(update={"reproducibility_metrics": numbers}))
    row = contrasts_frame(evidence, "log_prob_pd").iloc[0]
    assert row[["difference_low", "per_cent_low", "p", "p_equal", "p_permutation"]].isna().all()
    assert row["verdict"] == NOT_DECIDED
    assert not contrasts_frame(evidence)["difference"].isna().any()


def test_trials_of_seeds_that_both_have_are_compared_and_the_others_counted() -> None:
    relu, more = make_result("charlm", "relu"), make_result("charlm", "gelu", (0.5, 0.7, 0.1, 0.9, 0.1, 0.1))
    row = contrasts_frame(of(relu, more)).iloc[0]
    assert (row["n"], row["without_partner"]) == (3, 1)
    # Of gelu's four trials the first three: pairs 12, 13 and 23.
    assert row["difference"] == pytest.approx(np.mean([more.pairs()[pair] for pair in ((1, 2), (1, 3), (2, 3))]) - 0.5)


def ten(activation: str, mean: float, spread: float = 0.01, seed: int = 0) -> Result:
    effects = np.random.default_rng(seed).normal(mean / 2, spread * mean, 10)
    return make_result("charlm", activation, tuple(effects[i] + effects[j] for i, j in combinations(range(10), 2)))


def test_three_verdicts_at_ten_trials_and_what_they_depend_on() -> None:
    def verdict(second: Result, margin: float = 3.0) -> str:
        study = replace(Study.of([ten("relu", 0.5, seed=1), second], ["charlm"], ["relu", "gelu"]), margin=margin)
        return contrasts_frame(Evidence.from_results(study))["verdict"].iloc[0]

    assert verdict(ten("gelu", 0.55, seed=2)) == SUPPORTED
    assert verdict(ten("gelu", 0.5, seed=3)) == EQUAL
    assert verdict(ten("gelu", 0.5, spread=0.1, seed=4)) == NOT_DECIDED
    # The same numbers with another margin.
    assert verdict(ten("gelu", 0.5, seed=3), margin=0.5) == NOT_DECIDED
    assert verdict(ten("gelu", 0.5, spread=0.1, seed=4), margin=50.0) == EQUAL
    nine = ten("gelu", 0.55, seed=2)
    nine = nine.model_copy(update={"trials": nine.trials[:9]})
    assert verdict(nine) == NOT_DECIDED


def test_the_word_for_a_model_and_for_its_lowest_come_from_the_tests() -> None:
    def words(*results: Result) -> tuple[str, str]:
        evidence = of(*results, activations=tuple(r.activation for r in results))
        return sensitivity(evidence, "charlm"), verdict_on_extreme(evidence, "charlm", results[-1].activation)

    relu, close, low = (ten(name, mean, 0.005, k) for name, mean, k in (("relu", 0.5, 1), ("gelu", 0.5, 3), ("swish", 0.45, 5)))
    assert words(relu, close) == ("EQUAL WITHIN 3 %", EQUAL)
    assert words(relu, close, low) == ("SENSITIVE", SUPPORTED)
    assert words(relu, low, ten("swiglu", 0.449, 0.005, 6)) == ("SENSITIVE", EQUAL)
    assert words(relu, ten("gelu", 0.5, spread=0.1, seed=4)) == ("NOT DECIDED", NOT_DECIDED)
    assert words(relu) == ("NOT DECIDED", NOT_DECIDED)


def test_cells_of_several_models_are_left_out_trial_by_trial() -> None:
    results = [make_result(model, "relu", pairs) for model, pairs in (("charlm", (0.4, 0.5, 0.6)), ("convlm", (0.3, 0.7, 0.8)))]
    evidence = Evidence.from_results(Study.of(results, ["charlm", "convlm"], ["relu"]))
    cells = [("charlm", "relu"), ("convlm", "relu")]
    found = evidence.estimate(cells, np.mean, "relative_pd")
    # Bundles: without trial 1 (.6 + .8) / 2, without 2 (.5 + .7) / 2, without 3 (.4 + .3) / 2.
    left_out = np.array([0.7, 0.6, 0.35])
    error = math.sqrt(2 / 3 * np.square(left_out - left_out.mean()).sum())
    assert (found.value, found.error, found.n) == pytest.approx(((0.5 + 0.6) / 2, error, 3))
    assert math.isnan(evidence.estimate([("charlm", "gelu")], np.mean, "relative_pd").value)


def test_a_frame_is_computed_once_and_what_a_caller_does_to_it_stays_with_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(frames, "permutation_test", lambda *args: calls.append(1) or permutation_test(*args))
    evidence = of(make_result("charlm", "relu"), make_result("charlm", "gelu"))
    first = contrasts_frame(evidence)
    first["p_holm"] = 0.0
    again = contrasts_frame(evidence, metric="relative_pd")
    assert not (again["p_holm"] == 0.0).any()
    assert len(calls) == 1
    contrasts_frame(evidence, "churn")
    assert len(calls) == 2


def test_the_negative_control_is_left_out_by_digests(trained: tuple[Study, Evidence]) -> None:
    _, evidence = trained
    assert evidence.identical("tinylstm")
    assert evidence.candidates() == ("charlm",)
    assert set(contrasts_frame(evidence)["model"]) == {"charlm"}
    cv = cv_over_activations(evidence).set_index("model")
    assert (cv.loc["tinylstm", "cv"], cv.loc["tinylstm", "cv_corrected_high"]) == (0.0, 0.0)
    assert set(chances_of_being_best(evidence)["model"]) == {"charlm"}
    assert not evidence.gaps


def test_contrasts_and_cv_are_those_of_the_functions_of_arrays(trained: tuple[Study, Evidence]) -> None:
    _, evidence = trained
    frame = contrasts_frame(evidence).set_index("activation")
    relu, gelu, swiglu = (evidence.matrix("charlm", name, "relative_pd") for name in ("relu", "gelu", "swiglu"))
    # One rule for both, though gelu starts from relu's weights and swiglu, whose layers have other shapes, does not.
    for name, matrix in (("gelu", gelu), ("swiglu", swiglu)):
        expected = contrast(matrix, relu)
        assert frame.loc[name, "p"] == pytest.approx(p_value(expected))
        assert frame.loc[name, "p_permutation"] == permutation_test(matrix, relu)
        margins = (contrast(matrix, relu, times=times) for times in (0.97, 1.03))
        assert frame.loc[name, "p_equal"] == pytest.approx(min(2 * p_equal(*margins), 1))
    row = cv_over_activations(evidence).set_index("model").loc["charlm"]
    by_hand = cv_beside_noise([relu, gelu, swiglu])
    assert (row["cv"], row["cv_corrected_high"], row["p"]) == (by_hand.measured, by_hand.corrected.high, by_hand.p)


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
        assert row["both_low"] <= row["trials_low"]
        observed = np.var([trial.val_accuracy for trial in result.trials], ddof=1)
        assert (parts["model"], parts["activation"]) == (row["model"], row["activation"])
        assert parts["evaluation"] + parts["runs"] == pytest.approx(parts["observed"])
        assert parts["observed"] == pytest.approx(observed, rel=1e-6)
