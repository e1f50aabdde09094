"""What-ifs: their numbers are the library's own, their limits are right, and what is missing is said in a sentence."""

import json
import math
import shutil
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings, strategies as st
from kinds import Tiny
from test_study import make_result

from repro_lib.analysis.frames import METRICS, pair_matrix
from repro_lib.analysis.noise_sources import compare_sources
from repro_lib.analysis.notes import Note
from repro_lib.analysis.overviews import models_overview
from repro_lib.analysis.study import Study
from repro_lib.analysis.trajectories import trajectory
from repro_lib.metrics import prediction_difference
from repro_lib.metrics.hypothesis_tests import trials_needed
from repro_lib.metrics.uncertainty import Estimate, contrast, jackknife_pairwise
from repro_lib.models.registry import build_model
from repro_lib.store.schema import Result
from repro_lib.store.store import Store
from repro_lib.whatif.definition import WhatIf
from repro_lib.whatif.predictions import CellLogits, StoredPredictions, compare_trials, every_block, sampling_step
from repro_lib.whatif.questions import activation, ensembles, improbable, metric, noise, temperature, tradeoff, trials

OF_STUDY = (metric.metric_what_if, tradeoff.tradeoff_what_if, trials.trials_what_if)
OF_PREDICTIONS = (temperature.temperature_what_if, improbable.threshold_what_if, improbable.top_what_if)
OF_PREDICTIONS += (ensembles.ensembles_what_if,)
# float32, and as many digits as any of these numbers is shown with, and some more.
CLOSE = 2e-6


@pytest.fixture(scope="module")
def stored(what_if_folder: Path) -> Store:
    return Store(what_if_folder)


@pytest.fixture(scope="module")
def everything(stored: Store) -> list[Result]:
    """The sources of randomness and the short run too."""
    return [result for _, result in stored.load()[0]]


@pytest.fixture(scope="module")
def study(what_if_study: Study) -> Study:
    return what_if_study


@pytest.fixture(scope="module")
def predictions(stored: Store, study: Study) -> StoredPredictions:
    return StoredPredictions(stored, study)


def made(what_if: WhatIf | Note) -> WhatIf:
    assert isinstance(what_if, WhatIf), what_if
    return what_if


def ends(number: Estimate) -> tuple[float, float, float]:
    return number.value, number.low, number.high


def shown(what_if: WhatIf, measure: int = 0, **values: Any) -> dict[str, tuple[float, float, float]]:
    """(value, low, high) by label of one measure, at these values of the controls."""
    rows = what_if.at(**values)
    rows = rows[rows["measure"] == what_if.frame["measure"].unique()[measure]]
    return {row.label: (row.value, row.low, row.high) for row in rows.itertuples()}


def cell(study: Study, name: str, column: str) -> tuple[float, float, float]:
    return ends(Estimate.in_row(study.cells.set_index("activation").loc[name], column))


def test_every_what_if_can_be_drawn_and_says_something_at_every_position(
    stored: Store, study: Study, predictions: StoredPredictions, everything: list[Result]
) -> None:
    """Each position has one sentence and each row of the frame belongs to one; no number is called nan."""
    what_ifs = [activation.activation_what_if(activation.measured_inputs(stored, study))]
    what_ifs += [made(build(what)) for builds, what in ((OF_STUDY, study), (OF_PREDICTIONS, predictions)) for build in builds]
    what_ifs.append(made(noise.noise_what_if(stored, everything, study)))
    for what_if in what_ifs:
        names = [parameter.name for parameter in what_if.parameters]
        places = list(product(*(parameter.values for parameter in what_if.parameters)))
        said = pd.Series([what_if.sentence(**dict(zip(names, place, strict=True))) for place in places])
        assert said.str.endswith(".").all()
        assert not said.str.contains("nan").any()
        assert said.nunique() > len(said) / 2, "positions say the same"
        # What has a place on an axis reads like it; what has none says why.
        with_reading = what_if.frame.dropna(subset="reading")
        assert (with_reading["reading"].astype(str).str.match(r"-?\d") == with_reading["value"].notna()).all()
        (spec,) = (value for kind, value in what_if._repr_mimebundle_().items() if "vegalite.v5" in kind)
        assert len(spec["datasets"]) == 2
        assert "NaN" not in json.dumps(spec)


def test_at_its_defaults_a_what_if_shows_the_numbers_of_the_result_files(predictions: StoredPredictions, study: Study) -> None:
    """T = 1, all characters, single trials: relative PD with its interval, and what else has a number in the files."""
    what_ifs = [made(build(predictions)) for build in OF_PREDICTIONS]
    for what_if in what_ifs:
        for name, numbers in shown(what_if).items():
            assert numbers == pytest.approx(cell(study, name, "relative_pd"), rel=CLOSE)
    by_temperature, by_threshold, by_rank, _ = what_ifs
    for name, numbers in shown(by_temperature, 1).items():
        assert numbers == pytest.approx(cell(study, name, "total_variation"), rel=CLOSE)
    for what_if in (by_threshold, by_rank):
        assert all(share == pytest.approx(100) for measure in (1, 2) for share, _, _ in shown(what_if, measure).values())
    for of_cell in predictions.of("charlm").cells:
        p = prediction_difference.probabilities_from_logits(of_cell.logits.numpy())
        sampled = p[:, range(len(of_cell.labels)), of_cell.labels].mean()
        assert shown(by_temperature, 2)[of_cell.activation][0] == pytest.approx(100 * sampled, rel=CLOSE)
    assert f"on all {study.results[0].evaluation.tokens:,} evaluation characters" in by_temperature.sentence()
    assert f"lowest with {models_overview(study)['best'].iloc[0]}, " in by_temperature.sentence()


def test_what_a_study_lacks_is_named_with_the_command(stored: Store, study: Study) -> None:
    three = Study.of([make_result("charlm", "relu")], ["charlm"], ["relu"])
    needs = str(ensembles.ensembles_what_if(StoredPredictions(stored, three)))
    assert "It needs N >= 4 trials per cell, here N = 3; run: repro grid --trials 4" in needs
    # The study without the runs of one source each.
    assert "repro grid --noise-models charlm" in str(noise.noise_what_if(stored, study.results, study))
    alike = Study.of([make_result("tinylstm", name, same=True) for name in ("relu", "gelu")], ["tinylstm"], ["relu", "gelu"])
    assert "It needs a model with two activations" in str(tradeoff.tradeoff_what_if(alike)), "nothing to weigh"
    results = [make_result("charlm", "relu", (0.4, 0.5, 0.6)), make_result("charlm", "gelu", (0.3, 0.5, 0.4))]
    few = made(trials.trials_what_if(Study.of(results, ["charlm"], ["relu", "gelu"]))).sentence()
    assert "and below 10 trials there is no verdict" in few
    assert "The spread is rough" in few


def test_predictions_that_are_missing_are_named_with_the_command(what_if_folder: Path, tmp_path: Path, study: Study) -> None:
    copy = Store(shutil.copytree(what_if_folder, tmp_path / "copy"))
    for path in (copy.folder / "predictions").glob("charlm-gelu*"):
        path.unlink()
    partly = StoredPredictions(copy, study)
    sentences = [made(build(partly)).sentence() for build in OF_PREDICTIONS]
    shutil.rmtree(copy.folder / "predictions")
    shutil.rmtree(copy.folder / "weights")
    for sentence in sentences:
        assert "charlm with gelu is left out: predictions/charlm-gelu-" in sentence
        assert "run the cell again with --force" in sentence
        assert str(tmp_path) not in sentence, "a report says nothing about the machine"
    for build in OF_PREDICTIONS:
        nothing = str(build(StoredPredictions(copy, study)))
        assert "It needs the stored predictions" in nothing
        assert "run the cell again with --force" in nothing
    assert activation.measured_inputs(copy, study) == [], "without weights nothing lies under the curves"


@settings(max_examples=15)
@given(st.floats(0.05, 100.0))
def test_at_any_temperature_the_numbers_are_those_of_the_metrics(scale: float) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = 6 * torch.randn(3, 700, 20, generator=generator)
    labels = torch.randint(20, (700,), generator=generator)
    compared = compare_trials(CellLogits("relu", logits, labels), scale)
    probabilities = [prediction_difference.probabilities_from_logits(trial.double() / scale) for trial in logits]
    for i, j in combinations(range(3), 2):
        for name, matrix in (("relative_pd", compared.relative_pd), ("total_variation", compared.total_variation)):
            expected = prediction_difference.PAIR_METRICS[name](probabilities[i], probabilities[j])
            assert matrix[i, j] == matrix[j, i] == pytest.approx(expected, rel=1e-5)
    assert compared.true == pytest.approx([p[range(700), labels].mean() for p in probabilities], rel=1e-5)


def test_a_flat_softmax_has_no_difference_and_a_sharp_one_has_churn(predictions: StoredPredictions, study: Study) -> None:
    """And no temperature changes which character is the most probable one."""
    for of_cell in predictions.of("charlm").cells:
        flat, sharp = (compare_trials(of_cell, scale) for scale in (1e5, 1e-4))
        assert flat.relative_pd.max() < 1e-3
        assert flat.true == pytest.approx(1 / of_cell.logits.shape[-1], rel=1e-3)
        result = study.result("charlm", of_cell.activation)
        assert result is not None
        assert sharp.total_variation == pytest.approx(pair_matrix(result, "churn"), abs=2e-3)
        assert 100 * temperature.top1_accuracy(of_cell) == pytest.approx(result.avg_val_accuracy)


def test_the_text_is_thinned_only_where_a_redraw_would_take_long_and_that_is_said(
    predictions: StoredPredictions, study: Study, stored: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [sampling_step([n] * 5, 16_384, 65) for n in (2, 3, 10)] == [1, 2, 16]
    assert [sampling_step([n] * 5, 16_384, 65) for n in (20, 500)] == [16, 16], "four blocks are left"
    assert sampling_step([500] * 5, 512, 65) == 1
    assert every_block(torch.arange(5 * 256), 2).tolist() == [*range(256), *range(512, 768), *range(1024, 1280)]
    whole = predictions.of("charlm").cells[0]  # read before the limit falls
    monkeypatch.setattr("repro_lib.whatif.predictions.MOST_COMPARED", 500_000)
    thinned = StoredPredictions(stored, study)
    what_if = made(temperature.temperature_what_if(thinned))
    step = thinned.of("charlm").step
    assert step > 1
    assert f"(every {step}th block)" in what_if.sentence()
    kept = CellLogits("relu", torch.stack([every_block(t, step) for t in whole.logits]), every_block(whole.labels, step))
    expected = jackknife_pairwise(compare_trials(kept).relative_pd).value
    assert shown(what_if)["relu"][0] == pytest.approx(expected, rel=CLOSE)


@pytest.mark.parametrize("ranks", [(1, 2), (1, 2, 30)], ids=["fewer ranks than characters", "more"])
def test_thresholds_and_ranks_by_hand(ranks: tuple[int, ...]) -> None:
    """Two trials at two places, three characters."""
    p = torch.tensor([[[0.7, 0.2, 0.1], [0.5, 0.3, 0.2]], [[0.5, 0.3, 0.2], [0.5, 0.1, 0.4]]], dtype=torch.float64)
    of_cell = CellLogits("relu", p.log().float(), torch.tensor([0, 1]))
    relative, mean = (2 * (p[0] - p[1]).abs() / (p[0] + p[1])).numpy(), np.array([[0.6, 0.25, 0.15], [0.5, 0.2, 0.3]])
    above = improbable.kept_by(improbable.at_least((0.0, 0.22, 0.4, 0.9)), of_cell)
    ranked = improbable.kept_by(improbable.most_probable(ranks), of_cell)
    for least, kept in (*zip((0, 0.22, 0.4), above, strict=False), *zip((0.5, 0.22, 0), ranked, strict=False)):
        chosen = mean >= least
        assert kept.pd.value == pytest.approx(relative[chosen].mean(), rel=CLOSE)
        assert kept.share.value == pytest.approx(chosen.mean())
        assert kept.mass.value == pytest.approx(mean[chosen].sum() / 2, rel=CLOSE)
    assert math.isnan(above[3].pd.value), "nothing is that probable"


def test_averages_of_two_of_four_by_the_metric_itself(predictions: StoredPredictions) -> None:
    of_cell = predictions.of("charlm").cells[0]
    p = prediction_difference.probabilities_from_logits(of_cell.logits.numpy())
    three = [((0, 1), (2, 3)), ((0, 2), (1, 3)), ((0, 3), (1, 2))]
    expected = np.mean([prediction_difference.relative_pd(p[list(a)].mean(axis=0), p[list(b)].mean(axis=0)) for a, b in three])
    estimate = ensembles.difference_of_averages(of_cell.probabilities(), 2)
    assert estimate.value == pytest.approx(expected, rel=CLOSE)
    assert not estimate.has_interval, "without any one trial there are no two groups of two"
    assert estimate.value < ensembles.difference_of_averages(of_cell.probabilities(), 1).value
    # Equal trials have equal averages, also of what none thinks possible.
    same = np.tile(np.linspace(0, 1, 9, dtype=np.float32), (5, 300, 1))
    equal = ensembles.difference_of_averages(same, 2)
    assert (equal.value, equal.low, equal.high) == (0, 0, 0)


@pytest.mark.parametrize(("n", "k", "ways"), [(4, 1, 6), (4, 2, 3), (6, 2, 45), (10, 5, 45)])
def test_splits_are_all_ways_or_a_sample_of_them(n: int, k: int, ways: int) -> None:
    chosen = ensembles.splits(n, k)
    assert len(chosen) == len(set(chosen)) == ways
    assert chosen == ensembles.splits(n, k), "the same sample each time"
    for first, second in chosen:
        assert len({*first, *second}) == 2 * k == len(first) + len(second)
        assert first < second


def test_the_ranking_follows_the_metric(study: Study) -> None:
    what_if, usual = made(metric.metric_what_if(study)), models_overview(study)["best"].iloc[0]
    for name in METRICS:
        ranked = shown(what_if, metric=name)
        assert list(ranked.values()) == sorted(cell(study, activation_name, name) for activation_name in ranked)
        same = next(iter(ranked)) == usual
        assert ("the winner does not change" in what_if.sentence(metric=name)) == (same and name != "relative_pd")
        assert same or name != "relative_pd"


def test_what_has_no_number_is_last_and_says_why() -> None:
    results = [make_result("charlm", "relu", (0.4,)), make_result("charlm", "gelu", ())]
    what_if = made(metric.metric_what_if(Study.of(results, ["charlm"], ["gelu", "relu", "swish"])))
    readings = what_if.at()[["label", "reading"]].to_numpy().tolist()
    assert readings == [["relu", "0.400"], ["gelu", "one trial"], ["swish", "missing"]]
    assert "relu has 0.400 (no interval, N = 2)" in what_if.sentence()
    plain = make_result("charlm", "relu", (0.4,))
    numbers = {**plain.reproducibility_metrics, "log_prob_pd": None, "log_prob_pd_1_2": None}
    results = [make_result("charlm", name, (0.4,), reproducibility_metrics=numbers) for name in ("relu", "gelu")]
    what_if = made(metric.metric_what_if(Study.of(results, ["charlm"], ["relu", "gelu"])))
    assert set(what_if.at(metric="log_prob_pd")["reading"]) == {"infinite"}
    assert what_if.at(metric="log_prob_pd")["value"].isna().all(), "it has no place on an axis"
    assert "there is no number" in what_if.sentence(metric="log_prob_pd")


@given(
    st.dictionaries(st.sampled_from("abcde"), st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1),
    st.sampled_from(tradeoff.WEIGHTS),
)
def test_what_a_weight_picks_lies_on_the_pareto_front(points: dict[str, tuple[float, float]], weight: int) -> None:
    scores, front = tradeoff.weighed(points, weight / 100), tradeoff.pareto_front(points)
    assert all(-1e-12 <= score <= 1 + 1e-12 for score in scores.values())
    assert weight in (0, 100) or min(scores, key=lambda name: scores[name]) in front
    for column in zip(*(points[name] for name in front), strict=True):
        assert list(column) == sorted(column, reverse=True), "less accuracy buys less PD"


def test_the_ends_of_the_weight_are_the_best_of_each_and_the_front_is_that_by_hand(study: Study) -> None:
    what_if = made(tradeoff.tradeoff_what_if(study))
    accuracy = study.cells.set_index("activation")["val_accuracy"].idxmax()
    assert f"the choice for charlm is {accuracy}:" in what_if.sentence(weight=0)
    assert f"the choice for charlm is {models_overview(study)['best'].iloc[0]}:" in what_if.sentence(weight=100)
    points = {name: (worth["accuracy"], pd.value) for name, (worth, pd) in tradeoff.choices(study, "charlm").items()}
    found = {name: value for name, (value, _, _) in shown(what_if, weight=30).items()}
    assert found == pytest.approx(tradeoff.weighed(points, 0.3))
    points = {"relu": (30.0, 0.5), "gelu": (31.0, 0.6), "swish": (29.0, 0.55), "swiglu": (31.0, 0.7), "smelu_1": (28.0, 0.4)}
    assert tradeoff.pareto_front(points) == ["gelu", "relu", "smelu_1"]


def test_width_and_chance_are_those_of_the_library(study: Study) -> None:
    """At the measured N the interval is its own; the chance is 80 % from the N on that the library names."""
    what_if, differences = made(trials.trials_what_if(study)), trials.differences(study)
    matrices = {r.activation: pair_matrix(r) for r in study.results}
    assert [name for _, name in differences] == ["gelu", "swiglu"]
    for (_, name), difference in differences.items():
        expected = contrast(matrices[name], matrices["relu"])
        half = (expected.high - expected.low) / 2
        assert difference.half_width(4) == pytest.approx(half, rel=1e-9)
        assert shown(what_if, activation=name)[name][0] == pytest.approx(half)
        assert shown(what_if, 1, activation=name)[name][0] == pytest.approx(100 * difference.chance(4))
        sentence = what_if.sentence(activation=name)
        assert f"{expected.value:+.3f}, has a 95 % interval of plus or minus {half:.3f}" in sentence
        widths, chances = ([f(n) for n in trials.COUNTS] for f in (difference.half_width, difference.chance))
        assert widths == sorted(widths, reverse=True)
        assert [0, *chances, 1] == sorted([0, *chances, 1])
        needed = difference.needed or 0
        assert needed == trials_needed(difference.estimate, alpha=0.05 / difference.family)
        assert difference.chance(needed) >= 0.8
        assert needed == 10 or difference.chance(needed - 1) < 0.8


def test_noise_at_the_last_step_is_the_end_of_the_trajectory(stored: Store, study: Study, everything: list[Result]) -> None:
    what_if = made(noise.noise_what_if(stored, everything, study))
    sources = compare_sources(everything, study, "charlm")
    assert sources is not None
    assert {"all", "init", "none"} <= set(sources.results)
    for name in ("total_variation", "relative_pd", "churn"):
        found = shown(what_if, metric=name)
        for source, run in sources.trajectories(stored).items():
            for step, row in run.frame().set_index("step").iterrows():
                expected = tuple(row[f"{name}{end}"] for end in ("", "_low", "_high"))
                assert shown(what_if, metric=name, step=step)[source] == pytest.approx(expected, nan_ok=True)
            assert found[source][0] == row[name], "the last one"
        assert found["none"][0] == 0
        assert math.isnan(found["order"][0])
        assert "if nothing differs it is exactly 0" in what_if.sentence(metric=name)
    # Runs of other lengths stand where they end.
    short = next(r for r in everything if r.config["max_iters"] == 4)
    end = trajectory(stored, short).frame().iloc[-1]["total_variation"]
    assert shown(what_if, step=4)[noise.SHORTER][0] == end
    assert f"end at 4 steps {end:.4f}" in what_if.sentence()


@pytest.mark.parametrize("beta", [0.05, 3.0])
def test_the_bend_of_smelu(beta: float) -> None:
    """Value and slope by hand are in test_words.py."""
    what_if = activation.activation_what_if()
    rows = what_if.at(beta=beta)
    for label, function in (
        ("relu", lambda x: np.maximum(x, 0)),
        ("smelu", lambda x: np.clip(x + beta, 0, None) ** 2 / (4 * beta)),
    ):
        value, slope, curvature = (rows[(rows["label"] == label) & (rows["measure"] == name)] for name in activation.MEASURES)
        x = value["x"].to_numpy()
        by_hand = np.where(np.abs(x) < beta, function(x), np.maximum(x, 0))
        assert value["value"].to_numpy() == pytest.approx(by_hand, abs=1e-9)
        assert (slope["x"].iloc[[0, -1]].tolist(), slope["value"].iloc[[0, -1]].tolist()) == ([-3, 3], [0, 1])
    inside = curvature[curvature["x"].abs() < beta - 0.001]
    assert inside["value"].to_numpy() == pytest.approx(1 / (2 * beta), rel=1e-6)
    assert f"a curvature of {1 / (2 * beta):.3g}" in what_if.sentence(beta=beta)


def test_pre_activations_are_what_the_first_matrix_of_the_layer_gives(tiny: Tiny) -> None:
    labels = torch.arange(4 * 256) % 20
    for name, gated in (("relu", False), ("swiglu", True)):
        network = build_model("charlm", tiny("charlm"), name).eval()
        layer = network.blocks[0].feed_forward  # pyright: ignore[reportAttributeAccessIssue, reportIndexIssue]
        seen: list[torch.Tensor] = []
        hook = layer.expand.register_forward_hook(lambda _m, _i, output, seen=seen: seen.append(output))
        values = activation.pre_activations(network, labels, block_size=32)
        hook.remove()
        expected = seen[0].chunk(2, dim=-1)[0] if gated else seen[0]
        assert values is not None
        assert sorted(values.tolist()) == sorted(expected.flatten().tolist())
    control = build_model("tinylstm", tiny("tinylstm"), "relu")
    assert activation.pre_activations(control, labels, block_size=32) is None


def test_the_models_whose_inputs_are_shown_and_the_mass_in_the_bend(stored: Store, study: Study) -> None:
    what_if = activation.activation_what_if(activation.measured_inputs(stored, study))
    (model,) = [p for p in what_if.parameters if p.name == "model"]
    assert model.values == ("charlm with relu", "none")
    assert "of the inputs to the activations of charlm with relu (trial 1" in what_if.sentence()
    assert activation.INPUTS in set(what_if.at()["label"])
    assert activation.INPUTS not in set(what_if.at(model="none")["label"])
    mass = activation.PreActivations("x", np.array([-5, -0.5, -0.125, 0.125, 0.25, 2], dtype=np.float32))
    assert [mass.within(beta) for beta in (0.05, 0.25, 10)] == [0, 3 / 6, 1]
    # -5 lies outside of the curves and counts as a value all the same.
    assert mass.density.sum() / activation.BINS_PER_UNIT == pytest.approx(5 / 6)
