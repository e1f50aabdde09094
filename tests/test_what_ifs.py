"""What-ifs: their numbers are the library's own, their limits are right, and what is missing is said in a sentence."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_analysis import make_result

from repro_lib import metrics
from repro_lib.analysis import METRICS, Study, models_overview, pair_matrix
from repro_lib.config import Config
from repro_lib.experiment import run_experiment
from repro_lib.findings import Note
from repro_lib.models import build_model
from repro_lib.noise import noise_sources
from repro_lib.results import Store
from repro_lib.significance import trials_needed
from repro_lib.statistics import contrast, jackknife_pairwise
from repro_lib.trajectories import trajectory
from repro_lib.what_ifs import activation, ensembles, improbable, metric, noise, temperature, tradeoff, trials
from repro_lib.what_ifs.bars import BarPanel
from repro_lib.what_ifs.definition import View, WhatIf
from repro_lib.what_ifs.lines import LinePanel
from repro_lib.what_ifs.predictions import CellLogits, StoredPredictions, compare_trials, every_block, sampling_step
from repro_lib.what_ifs.svg import WIDTH

Tiny = Callable[..., Config]
# float32, and as many digits as any of these numbers is shown with, and some more.
CLOSE = 2e-6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny: Tiny) -> Path:
    """charlm with relu, gelu and swiglu, four trials each; a copy of gelu for each source of randomness, and a short run."""
    folder = tmp_path_factory.mktemp("what-ifs") / "results"
    for name in ("relu", "gelu", "swiglu"):
        run_experiment("charlm", name, tiny("charlm", trials=4, max_iters=8), results_dir=folder)
    for vary in ("init", "none"):
        run_experiment("charlm", "gelu", tiny("charlm", trials=3, max_iters=8, vary=vary), results_dir=folder)
    run_experiment("charlm", "gelu", tiny("charlm", trials=3, max_iters=4), results_dir=folder)
    return folder


@pytest.fixture(scope="module")
def stored(folder: Path) -> Store:
    return Store(folder)


@pytest.fixture(scope="module")
def study(stored: Store) -> Study:
    return Study.load(stored, models=["charlm"], activations=["relu", "gelu", "swiglu"])


@pytest.fixture(scope="module")
def predictions(stored: Store, study: Study) -> StoredPredictions:
    return StoredPredictions(stored, study)


def made(found: WhatIf | Note) -> WhatIf:
    assert isinstance(found, WhatIf), found
    return found


def bars(view: View, panel: int = 0) -> dict[str, tuple[float, float, float]]:
    """(value, low, high) by label of one bar panel."""
    found = view.panels[panel]
    assert isinstance(found, BarPanel)
    return {bar.label: (bar.value, bar.low, bar.high) for bar in found.bars}


def lines(view: View, panel: int) -> LinePanel:
    found = view.panels[panel]
    assert isinstance(found, LinePanel)
    return found


def cell(study: Study, name: str, column: str) -> tuple[float, float, float]:
    row = study.cells[study.cells["activation"] == name].iloc[0]
    return tuple(row[f"{column}{end}"] for end in ("", "_low", "_high"))


def all_of(stored: Store, study: Study, predictions: StoredPredictions) -> list[WhatIf]:
    """Every what-if over stored results."""
    everything = [result for _, result in stored.load()[0]]
    return [
        activation.activation_what_if(activation.measured_inputs(stored, study)),
        *map(
            made,
            (
                metric.metric_what_if(study),
                tradeoff.tradeoff_what_if(study),
                trials.trials_what_if(study),
                temperature.temperature_what_if(predictions),
                improbable.threshold_what_if(predictions),
                improbable.top_what_if(predictions),
                ensembles.ensembles_what_if(predictions),
                noise.noise_what_if(stored, everything, study),
            ),
        ),
    ]


# --- all of them


def test_every_view_of_every_what_if_can_be_drawn_and_says_something(
    stored: Store, study: Study, predictions: StoredPredictions
) -> None:
    """Nothing is drawn outside of its picture, no title is cut off, no number is called nan."""
    for what_if in all_of(stored, study, predictions):
        for values in what_if.grid():
            view = what_if.view(**values)
            assert view.sentence.endswith(".")
            assert "nan" not in view.sentence
            for panel in view.panels:
                assert "nan" not in "".join(panel.pieces())
                assert len(panel.title) * 7 < WIDTH, panel.title  # pyright: ignore[reportAttributeAccessIssue]
                assert panel.alt().startswith(panel.title)  # pyright: ignore[reportAttributeAccessIssue]


def test_a_view_is_computed_once_and_only_for_values_of_the_grid(predictions: StoredPredictions) -> None:
    what_if = made(temperature.temperature_what_if(predictions))
    assert what_if.view() is what_if.view(temperature=1.0, model="charlm")
    with pytest.raises(ValueError, match=r"temperature = 0\.123 is none of"):
        what_if.view(temperature=0.123)
    with pytest.raises(ValueError, match="no parameter temprature"):
        what_if.view(temprature=1.0)
    assert len(list(what_if.grid())) == len(temperature.TEMPERATURES)


@pytest.mark.parametrize("build", [metric.metric_what_if, tradeoff.tradeoff_what_if, trials.trials_what_if])
def test_without_results_a_sentence_says_what_to_run(build: Callable[[Study], WhatIf | Note]) -> None:
    assert "There are no results yet: run ./run_papermill.sh." in str(build(Study.of([])))


@pytest.mark.parametrize(
    "build",
    [
        temperature.temperature_what_if,
        improbable.threshold_what_if,
        improbable.top_what_if,
        ensembles.ensembles_what_if,
    ],
)
def test_predictions_that_are_missing_are_named_with_the_command(
    build: Callable[[StoredPredictions], WhatIf | Note], folder: Path, tmp_path: Path, study: Study
) -> None:
    assert "There are no results yet" in str(build(StoredPredictions(Store(tmp_path), Study.of([]))))
    copy = Store(shutil.copytree(folder, tmp_path / "copy"))
    for path in (copy.folder / "predictions").glob("charlm-gelu*"):
        path.unlink()
    sentence = made(build(StoredPredictions(copy, study))).view().sentence
    assert "charlm with gelu is left out: predictions/charlm-gelu-" in sentence
    assert "run the cell again with --force" in sentence
    assert str(tmp_path) not in sentence, "a report says nothing about the machine"
    shutil.rmtree(copy.folder / "predictions")
    nothing = str(build(StoredPredictions(copy, study)))
    assert "It needs the stored predictions" in nothing
    assert "run the cell again with --force" in nothing


# --- temperature


def test_at_temperature_1_everything_is_what_the_result_files_say(predictions: StoredPredictions, study: Study) -> None:
    view = made(temperature.temperature_what_if(predictions)).view()
    for panel, column in ((0, "relative_pd"), (1, "total_variation")):
        for name, numbers in bars(view, panel).items():
            assert numbers == pytest.approx(cell(study, name, column), rel=CLOSE)
    for found in predictions.of("charlm").cells:
        p = metrics.probabilities_from_logits(found.logits.numpy())
        sampled = p[:, range(len(found.labels)), found.labels].mean()
        assert bars(view, 2)[found.activation][0] == pytest.approx(100 * sampled, rel=CLOSE)
    tokens = study.results[0].evaluation.tokens
    assert f"on all {tokens:,} evaluation characters" in view.sentence
    assert f"lowest with {models_overview(study)['best'].iloc[0]}, " in view.sentence


@given(st.floats(0.05, 100.0))
def test_at_any_temperature_the_numbers_are_those_of_the_metrics(scale: float) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = 6 * torch.randn(3, 700, 20, generator=generator)
    labels = torch.randint(20, (700,), generator=generator)
    found = compare_trials(CellLogits("relu", logits, labels), scale)
    probabilities = [metrics.probabilities_from_logits(trial.double() / scale) for trial in logits]
    for i, j in combinations(range(3), 2):
        for name, matrix in (("relative_pd", found.relative_pd), ("total_variation", found.total_variation)):
            expected = metrics.PAIR_METRICS[name](probabilities[i], probabilities[j])
            assert matrix[i, j] == matrix[j, i] == pytest.approx(expected, rel=1e-5)
    assert found.true == pytest.approx([p[range(700), labels].mean() for p in probabilities], rel=1e-5)


def test_a_flat_softmax_has_no_difference_and_a_sharp_one_has_churn(predictions: StoredPredictions, study: Study) -> None:
    for found in predictions.of("charlm").cells:
        flat, sharp = (compare_trials(found, scale) for scale in (1e5, 1e-4))
        assert flat.relative_pd.max() < 1e-3
        assert flat.true == pytest.approx(1 / found.logits.shape[-1], rel=1e-3)
        result = study.result("charlm", found.activation)
        assert result is not None
        assert sharp.total_variation == pytest.approx(pair_matrix(result, "churn"), abs=2e-3)


def test_top1_accuracy_is_that_of_the_results(predictions: StoredPredictions, study: Study) -> None:
    for found in predictions.of("charlm").cells:
        result = study.result("charlm", found.activation)
        assert result is not None
        assert 100 * temperature.top1_accuracy(found) == pytest.approx(result.avg_val_accuracy)


# --- how much of the text


def test_the_text_is_thinned_only_where_a_redraw_would_take_long() -> None:
    assert sampling_step([3] * 5, 16_384, 80) == 1
    assert sampling_step([10] * 5, 16_384, 65) == 12
    assert sampling_step([500] * 5, 512, 65) == 2, "a block is left"
    values = torch.arange(5 * 256)
    assert every_block(values, 2).tolist() == [*range(256), *range(512, 768), *range(1024, 1280)]


def test_thinned_text_is_said(
    predictions: StoredPredictions, study: Study, stored: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("repro_lib.what_ifs.predictions.MOST_COMPARED", 500_000)
    thinned = StoredPredictions(stored, study)
    what_if = made(temperature.temperature_what_if(thinned))
    step = thinned.of("charlm").step
    assert step > 1
    assert f"(every {step}th block, so that it follows at once)" in what_if.view().sentence
    whole = predictions.of("charlm").cells[0]
    kept = CellLogits("relu", torch.stack([every_block(t, step) for t in whole.logits]), every_block(whole.labels, step))
    expected = jackknife_pairwise(compare_trials(kept).relative_pd).value
    assert bars(what_if.view())["relu"][0] == pytest.approx(expected, rel=CLOSE)


# --- ignore the improbable


@pytest.mark.parametrize("build", [improbable.threshold_what_if, improbable.top_what_if])
def test_when_all_characters_count_it_is_the_relative_pd(
    build: Callable[[StoredPredictions], WhatIf | Note], predictions: StoredPredictions, study: Study
) -> None:
    view = made(build(predictions)).view()
    for name, numbers in bars(view).items():
        assert numbers == pytest.approx(cell(study, name, "relative_pd"), rel=CLOSE)
    assert all(share == pytest.approx(100) for panel in (1, 2) for share, _, _ in bars(view, panel).values())


def by_hand() -> tuple[CellLogits, np.ndarray]:
    """Two trials at two places, three characters; and 2|p - q| / (p + q) of each."""
    p = torch.tensor([[[0.7, 0.2, 0.1], [0.5, 0.3, 0.2]], [[0.5, 0.3, 0.2], [0.5, 0.1, 0.4]]], dtype=torch.float64)
    relative = (2 * (p[0] - p[1]).abs() / (p[0] + p[1])).numpy()
    return CellLogits("relu", p.log().float(), torch.tensor([0, 1])), relative


def test_thresholds_by_hand() -> None:
    found, relative = by_hand()
    # Means over the trials: .6 .25 .15 at the first place, .5 .2 .3 at the second.
    classes = improbable.by_threshold(found, (0.0, 0.22, 0.4, 0.9))
    assert classes.kept(slice(0, None)).pd.value == pytest.approx(relative.mean(), rel=CLOSE)
    upper = classes.kept(slice(1, None))
    assert upper.pd.value == pytest.approx((relative[0, 0] + relative[0, 1] + relative[1, 0] + relative[1, 2]) / 4, rel=CLOSE)
    assert upper.share == pytest.approx(4 / 6)
    assert upper.mass == pytest.approx((0.85 + 0.8) / 2, rel=CLOSE)
    assert classes.kept(slice(2, None)).pd.value == pytest.approx((relative[0, 0] + relative[1, 0]) / 2, rel=CLOSE)
    assert math.isnan(classes.kept(slice(3, None)).pd.value), "nothing is that probable"


def test_ranks_by_hand() -> None:
    found, relative = by_hand()
    classes = improbable.by_rank(found, (1, 2))
    first, two = classes.kept(slice(1)), classes.kept(slice(2))
    assert first.pd.value == pytest.approx((relative[0, 0] + relative[1, 0]) / 2, rel=CLOSE)
    assert first.mass == pytest.approx((0.6 + 0.5) / 2, rel=CLOSE)
    assert two.pd.value == pytest.approx((relative[0, :2].sum() + relative[1, 0] + relative[1, 2]) / 4, rel=CLOSE)
    assert two.share == pytest.approx(2 / 3)
    assert classes.kept(slice(None)).pd.value == pytest.approx(relative.mean(), rel=CLOSE)


def test_more_ranks_than_characters() -> None:
    found, relative = by_hand()
    classes = improbable.by_rank(found, (1, 2, 30))
    assert classes.kept(slice(30)).pd.value == pytest.approx(relative.mean(), rel=CLOSE)
    assert classes.kept(slice(None)).share == pytest.approx(1)


# --- ensembles


def test_single_trials_are_the_relative_pd_with_its_interval(predictions: StoredPredictions, study: Study) -> None:
    view = made(ensembles.ensembles_what_if(predictions)).view()
    for name, numbers in bars(view).items():
        assert numbers == pytest.approx(cell(study, name, "relative_pd"), rel=CLOSE)


def test_averages_of_two_of_four_by_the_metric_itself(predictions: StoredPredictions) -> None:
    found = predictions.of("charlm").cells[0]
    p = metrics.probabilities_from_logits(found.logits.numpy())
    three = [((0, 1), (2, 3)), ((0, 2), (1, 3)), ((0, 3), (1, 2))]
    expected = np.mean([metrics.relative_pd(p[list(a)].mean(axis=0), p[list(b)].mean(axis=0)) for a, b in three])
    estimate = ensembles.difference_of_averages(found.probabilities(), 2)
    assert estimate.value == pytest.approx(expected, rel=CLOSE)
    assert not estimate.has_interval, "without any one trial there are no two groups of two"
    assert estimate.value < ensembles.difference_of_averages(found.probabilities(), 1).value


def test_equal_trials_have_equal_averages() -> None:
    same = np.tile(torch.rand(1, 300, 9).softmax(-1).numpy(), (5, 1, 1))
    estimate = ensembles.difference_of_averages(same, 2)
    assert (estimate.value, estimate.low, estimate.high) == (0, 0, 0)


@pytest.mark.parametrize(("n", "k", "ways"), [(4, 1, 6), (4, 2, 3), (6, 2, 45), (6, 3, 10), (10, 2, 45), (10, 5, 45)])
def test_splits_are_all_ways_or_a_sample_of_them(n: int, k: int, ways: int) -> None:
    found = ensembles.splits(n, k)
    assert len(found) == len(set(found)) == ways
    assert found == ensembles.splits(n, k), "the same sample each time"
    for first, second in found:
        assert len(first) == len(second) == k
        assert not set(first) & set(second)
        assert first < second


def test_ensembles_need_four_trials(stored: Store) -> None:
    three = Study.of([make_result("charlm", "relu")], ["charlm"], ["relu"])
    said = str(ensembles.ensembles_what_if(StoredPredictions(stored, three)))
    assert "It needs N >= 4 trials per cell, here N = 3; run: repro grid --trials 4" in said


# --- metric, trade-off, trials


@pytest.mark.parametrize("name", METRICS)
def test_the_ranking_follows_the_metric(name: str, study: Study) -> None:
    view = made(metric.metric_what_if(study)).view(metric=name)
    shown = bars(view)
    assert [value for value, _, _ in shown.values()] == sorted(value for value, _, _ in shown.values())
    for activation_name, numbers in shown.items():
        assert numbers == cell(study, activation_name, name)
    winner = next(iter(shown))
    usual = models_overview(study)["best"].iloc[0]
    if name != METRICS[0]:
        assert ("the winner does not change" in view.sentence) == (winner == usual)
    else:
        assert winner == usual


def test_what_has_no_number_is_last_and_says_why() -> None:
    results = [make_result("charlm", "relu", (0.4,)), make_result("charlm", "gelu", ())]
    view = made(metric.metric_what_if(Study.of(results, ["charlm"], ["gelu", "relu", "swish"]))).view()
    (panel,) = view.panels
    assert isinstance(panel, BarPanel)
    assert [(bar.label, bar.words) for bar in panel.bars][1:] == [("gelu", "one trial"), ("swish", "missing")]
    assert "relu has 0.400 (no interval, N = 2)" in view.sentence


def test_an_infinite_number_is_called_so() -> None:
    plain = make_result("charlm", "relu", (0.4,))
    numbers = {**plain.reproducibility_metrics, "log_prob_pd": None, "log_prob_pd_1_2": None}
    results = [make_result("charlm", name, (0.4,), reproducibility_metrics=numbers) for name in ("relu", "gelu")]
    view = made(metric.metric_what_if(Study.of(results, ["charlm"], ["relu", "gelu"]))).view(metric="log_prob_pd")
    assert "infinite" in "".join(view.panels[0].pieces())
    assert "there is no number" in view.sentence


POINTS = st.dictionaries(
    st.sampled_from(["relu", "gelu", "swish", "swiglu", "smelu_1"]),
    st.tuples(st.integers(0, 6).map(float), st.integers(0, 6).map(lambda k: k / 4)),
    min_size=1,
)


@given(POINTS, st.sampled_from(tradeoff.WEIGHTS))
def test_what_a_weight_picks_lies_on_the_pareto_front(points: dict[str, tuple[float, float]], weight: float) -> None:
    scores, front = tradeoff.weighed(points, weight), tradeoff.pareto_front(points)
    assert all(-1e-12 <= score <= 1 + 1e-12 for score in scores.values())
    if 0 < weight < 1:
        picked = min(scores, key=lambda name: scores[name])
        assert picked in front
    by_accuracy = [points[name] for name in front]
    assert [a for a, _ in by_accuracy] == sorted((a for a, _ in by_accuracy), reverse=True)
    assert [d for _, d in by_accuracy] == sorted((d for _, d in by_accuracy), reverse=True), "less accuracy buys less PD"


def test_the_ends_of_the_weight_are_the_best_of_each(study: Study) -> None:
    what_if = made(tradeoff.tradeoff_what_if(study))
    accuracy = study.cells.loc[study.cells["val_accuracy"].idxmax(), "activation"]
    assert f"charlm is given {accuracy}:" in what_if.view(weight=0.0).sentence
    assert f"charlm is given {models_overview(study)['best'].iloc[0]}:" in what_if.view(weight=1.0).sentence


def test_pareto_front_by_hand() -> None:
    points = {"relu": (30.0, 0.5), "gelu": (31.0, 0.6), "swish": (29.0, 0.55), "swiglu": (31.0, 0.7), "smelu_1": (28.0, 0.4)}
    assert tradeoff.pareto_front(points) == ["gelu", "relu", "smelu_1"]


def test_a_model_that_ignores_the_activation_is_not_weighed() -> None:
    alike = Study.of([make_result("tinylstm", name, same=True) for name in ("relu", "gelu")], ["tinylstm"], ["relu", "gelu"])
    assert "It needs a model with two activations" in str(tradeoff.tradeoff_what_if(alike))


def test_at_the_measured_n_width_and_chance_are_the_library_s(study: Study) -> None:
    what_if = made(trials.trials_what_if(study))
    matrices = {r.activation: pair_matrix(r) for r in study.results}
    found = trials.differences(study)
    assert {name for _, name in found} == {"gelu", "swiglu"}
    for (_, name), difference in found.items():
        expected = contrast(matrices[name], matrices["relu"], paired=difference.paired)
        assert difference.half_width(4) == pytest.approx((expected.high - expected.low) / 2, rel=1e-9)
        sentence = what_if.view(activation=name).sentence
        assert (
            f"{expected.value:+.3f}, has a 95 % interval of plus or minus {(expected.high - expected.low) / 2:.3f}" in sentence
        )
        widths = [difference.half_width(n) for n in trials.COUNTS]
        assert widths == sorted(widths, reverse=True)
        chances = [difference.chance(n) for n in trials.COUNTS]
        assert chances == sorted(chances)
        assert 0 <= chances[0] <= chances[-1] <= 1
    # Equal seeds give gelu the initial weights of relu, but not swiglu, whose layers have another shape.
    assert [difference.paired for difference in found.values()] == [True, False]


def test_the_chance_reaches_80_per_cent_where_the_library_says_so(study: Study) -> None:
    for difference in trials.differences(study).values():
        spread = difference.estimate.error * math.sqrt(difference.estimate.n * (1 if difference.paired else 0.5))
        needed = trials_needed(difference.estimate.value / spread, paired=difference.paired)
        assert needed is not None
        assert difference.chance(needed) >= 0.8
        assert needed == 2 or difference.chance(needed - 1) < 0.8


def test_three_trials_cannot_be_told_apart_by_an_exact_test() -> None:
    results = [make_result("charlm", "relu", (0.4, 0.5, 0.6)), make_result("charlm", "gelu", (0.3, 0.5, 0.4))]
    view = made(trials.trials_what_if(Study.of(results, ["charlm"], ["relu", "gelu"]))).view()
    assert "no exact test can tell them apart, for its p cannot be below 0.25" in view.sentence
    assert "This is the measured N" in view.sentence


# --- noise


def test_noise_at_the_last_step_is_the_end_of_the_trajectory(stored: Store, study: Study) -> None:
    everything = [result for _, result in stored.load()[0]]
    what_if = made(noise.noise_what_if(stored, everything, study))
    sources = noise_sources(everything, study, "charlm")
    assert sources is not None
    for name in ("total_variation", "relative_pd", "churn"):
        view = what_if.view(metric=name)
        shown = bars(view)
        for source, run in sources.trajectories(stored).items():
            last = run.frame().iloc[-1]
            assert shown[source] == pytest.approx(tuple(last[f"{name}{end}"] for end in ("", "_low", "_high")), nan_ok=True)
        assert shown["none"][0] == 0
        assert "with nothing different it is exactly 0" in view.sentence
    assert {"all", "init", "none"} <= set(sources.results)
    assert math.isnan(bars(what_if.view())["order"][0])


def test_noise_shows_runs_of_other_lengths_where_they_end(stored: Store, study: Study) -> None:
    everything = [result for _, result in stored.load()[0]]
    view = made(noise.noise_what_if(stored, everything, study)).view()
    short = next(r for r in everything if r.config["max_iters"] == 4)
    end = trajectory(stored, short).frame().iloc[-1]["total_variation"]
    (dot,) = lines(view, 1).dots
    ticks = {words: place for place, words in lines(view, 1).x.ticks}
    assert (dot.x, dot.y) == (ticks["4"], end)
    assert f"end at 4 steps {end:.4f}" in view.sentence


def test_noise_says_how_to_run_the_sources(stored: Store, study: Study) -> None:
    said = str(noise.noise_what_if(stored, study.results, study))
    assert "repro grid --noise-models charlm" in said


# --- activation


@pytest.mark.parametrize("beta", [0.05, 0.5, 1.0, 3.0])
def test_the_bend_of_smelu(beta: float) -> None:
    view = activation.activation_what_if().view(beta=beta)
    value, slope, curvature = (lines(view, k).lines[-1] for k in range(3))
    x = np.asarray(value.x)
    assert np.asarray(value.y)[x <= -beta] == pytest.approx(0, abs=1e-12)
    assert np.asarray(value.y)[x >= beta] == pytest.approx(x[x >= beta])
    assert np.asarray(slope.y)[len(x) // 2] == pytest.approx(0.5)
    inside = np.abs(x) < beta - 0.01
    assert np.asarray(curvature.y)[inside] == pytest.approx(1 / (2 * beta), rel=1e-6)
    assert f"a curvature of {1 / (2 * beta):.3g}" in view.sentence


def test_pre_activations_are_what_the_first_matrix_of_the_layer_gives(tiny: Tiny) -> None:
    labels = torch.randint(20, (4 * 256,), generator=torch.Generator().manual_seed(0))
    for name, gated in (("relu", False), ("swiglu", True)):
        network = build_model("charlm", tiny("charlm").with_corpus(20), name).eval()
        layer = network.blocks[0].feed_forward  # pyright: ignore[reportAttributeAccessIssue, reportIndexIssue]
        seen: list[torch.Tensor] = []
        hook = layer.expand.register_forward_hook(lambda _m, _i, output, seen=seen: seen.append(output))
        values = activation.pre_activations(network, labels, block_size=32)
        hook.remove()
        expected = seen[0].chunk(2, dim=-1)[0] if gated else seen[0]
        assert values is not None
        assert sorted(values.tolist()) == sorted(expected.flatten().tolist())
    control = build_model("tinylstm", Config.for_model("tinylstm").with_corpus(20), "relu")
    assert activation.pre_activations(control, labels, block_size=32) is None


def test_the_mass_in_the_bend_is_counted() -> None:
    mass = activation.distribution("x", np.array([-5, -0.5, -0.125, 0.125, 0.25, 2], dtype=np.float32))
    assert mass.within(0.25) == pytest.approx(3 / 6)
    assert mass.within(0.05) == 0
    assert mass.within(10) == 1
    # -5 lies outside of the curves and counts as a value all the same.
    assert mass.density.sum() / activation.BINS_PER_UNIT == pytest.approx(5 / 6)


def test_the_models_whose_inputs_are_shown(stored: Store, study: Study) -> None:
    what_if = activation.activation_what_if(activation.measured_inputs(stored, study))
    (model,) = [p for p in what_if.parameters if p.name == "model"]
    assert model.values == ("charlm with relu", "none")
    assert "of what the activations of charlm with relu (trial 1) are given" in what_if.view().sentence
    assert lines(what_if.view(), 0).area is not None
    assert lines(what_if.view(model="none"), 0).area is None


def test_without_weights_no_mass_is_shown(folder: Path, tmp_path: Path, study: Study) -> None:
    copy = Store(shutil.copytree(folder, tmp_path / "copy"))
    shutil.rmtree(copy.folder / "weights")
    assert activation.measured_inputs(copy, study) == []
