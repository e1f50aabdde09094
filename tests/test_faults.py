"""The faults of the earlier study: each is a test that fails if the fault comes back.

A further one, t-tests on pairs that share models, is held by the tests of the statistics."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from kinds import MakeResult, Tiny
from torch import Tensor, nn

from repro_lib.analysis.selection import select_comparable
from repro_lib.config import ACTIVATIONS, MODEL_DEFAULTS, Config
from repro_lib.data import Corpus, Dataset
from repro_lib.metrics import prediction_difference
from repro_lib.models.activations import Activation, get_activation
from repro_lib.models.registry import build_model, model_names
from repro_lib.store.predictions import Predictions, compare
from repro_lib.store.schema import Result, ResultError, TrialRecord
from repro_lib.store.store import Store
from repro_lib.training.experiment import run_experiment, summarise

V = 17
CONTEXT = 48
MODELS = model_names()
UNPLUGGED = "tinylstm"
PLUGGED = [model for model in MODELS if model != UNPLUGGED]
UNGATED = [name for name in ACTIVATIONS if not get_activation(name).gated]

# The formulas once more, so that the right name with the wrong content is found out too.
FORMULAS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": lambda x: x.clamp(min=0),
    "gelu": lambda x: x * torch.special.ndtr(x),
    "swish": lambda x: x * x.sigmoid(),
    "swiglu": lambda x: x.chunk(2, -1)[0] * x.chunk(2, -1)[0].sigmoid() * x.chunk(2, -1)[1],
    "smelu_1": lambda x: torch.where(x.abs() <= 1, (x + 1) ** 2 / 4, x.clamp(min=0)),
    "smelu_05": lambda x: torch.where(x.abs() <= 0.5, (x + 0.5) ** 2 / 2, x.clamp(min=0)),
}
# Where the activation stands in models of this size; a new model needs no line.
PLACES = {name: {"blocks": 2} for name in ("charlm", "minigpt", "nanotransformer")} | {
    "convlm": {"blocks": 7},
    "hybridlm": {"convolutions": 4, "blocks": 2},
    "tinylstm_readout": {"readout": 1},
}


def small_config(model: str) -> Config:
    """Two layers of width 32 (seven for convlm: its full reach); a context of 48."""
    size: dict[str, Any] = {"n_layer": 7 if model == "convlm" else 2, "n_embd": 32, "block_size": CONTEXT, "vocab_size": V}
    if "n_head" in MODEL_DEFAULTS[model]:
        size["n_head"] = 2
    return Config.for_model(model, **size)


@torch.no_grad()
def lively_model(model: str, activation: str) -> nn.Module:
    """A model whose weights are all far from 0, so that nothing hides behind a small initial value."""
    built = build_model(model, small_config(model), activation).eval()
    generator = torch.Generator().manual_seed(11)
    for parameter in built.parameters():
        scale = parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 0.5
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return built


def some_tokens() -> Tensor:
    return torch.randint(V, (2, CONTEXT), generator=torch.Generator().manual_seed(3))


def activations_of(model: nn.Module) -> dict[str, Activation]:
    return {name: module for name, module in model.named_modules() if isinstance(module, Activation)}


# --- an activation object was passed where models compared strings, and the else branch built ReLU.


@pytest.mark.parametrize("name", ["ReLU", "leaky_relu", "", "gelu ", "silu", "smelu", "tanh"])
def test_an_unknown_activation_is_refused_everywhere_and_the_known_ones_are_listed(name: str, tmp_path: Path) -> None:
    known = "known: " + ", ".join(ACTIVATIONS)
    with pytest.raises(ValueError, match=known):
        get_activation(name)
    for model in MODELS:
        with pytest.raises(ValueError, match=known):
            build_model(model, small_config(model), name)
    with pytest.raises(ValueError, match=known):
        run_experiment("charlm", name, results_dir=tmp_path)


@pytest.mark.parametrize("thing", [nn.ReLU(), nn.GELU, get_activation("gelu"), torch.relu, None, 1])
def test_an_activation_that_is_not_given_by_its_name_is_a_type_error_everywhere(thing: Any, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="given by its name"):
        get_activation(thing)
    for model in MODELS:
        with pytest.raises(TypeError, match="given by its name"):
            build_model(model, small_config(model), thing)
    with pytest.raises(TypeError, match="given by its name"):
        run_experiment("charlm", thing, results_dir=tmp_path)


@torch.no_grad()
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("model", PLUGGED)
def test_the_named_activation_and_no_other_works_in_every_layer_of_the_forward_pass(model: str, activation: str) -> None:
    built = lively_model(model, activation)
    places = activations_of(built)
    assert places, "at least once"
    assert model not in PLACES or Counter(path.split(".")[0] for path in places) == PLACES[model]
    counter: Counter[Activation] = Counter()

    def count(module: Activation, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        counter[module] += 1
        torch.testing.assert_close(output, FORMULAS[activation](inputs[0]))

    for module in places.values():
        module.register_forward_hook(count)
    built(some_tokens())
    assert counter == dict.fromkeys(places.values(), 1)
    # torch's own activations have no business in a model: they would be a second one beside the named one.
    foreign = [module for module in built.modules() if type(module).__module__ == "torch.nn.modules.activation"]
    assert foreign == []


@torch.no_grad()
@pytest.mark.parametrize("model", PLUGGED)
def test_with_equal_weights_every_swap_of_the_activation_changes_the_logits(model: str) -> None:
    weights = lively_model(model, "relu").state_dict()
    logits = {}
    for activation in UNGATED:
        swapped = lively_model(model, activation)
        swapped.load_state_dict(weights)
        logits[activation] = swapped(some_tokens())
    for first, second in combinations(UNGATED, 2):
        assert (logits[first] - logits[second]).abs().max() > 1e-4, (first, second)


@torch.no_grad()
@pytest.mark.parametrize("activation", ["gelu", "swiglu"])
@pytest.mark.parametrize("model", PLUGGED)
def test_what_each_single_activation_gives_reaches_the_logits(model: str, activation: str) -> None:
    built = lively_model(model, activation)
    base = built(some_tokens())
    for path, module in activations_of(built).items():
        handle = module.register_forward_hook(lambda _module, _inputs, output: output * 1.5)
        assert (built(some_tokens()) - base).abs().max() > 1e-4, path
        handle.remove()


@torch.no_grad()
def test_tinylstm_has_no_activation_and_is_the_same_model_under_every_name() -> None:
    built = {name: build_model(UNPLUGGED, small_config(UNPLUGGED), name).eval() for name in ACTIVATIONS}
    first = built["relu"]
    for name, model in built.items():
        assert activations_of(model) == {}
        weights = model.state_dict()
        assert all(torch.equal(tensor, weights[key]) for key, tensor in first.state_dict().items()), name
        assert torch.equal(first(some_tokens()), model(some_tokens())), name


# --- the two models of a pair were scored on different random inputs.


def uniform_predictions(evaluation: str, tokens: int = 3) -> Predictions:
    return Predictions(np.zeros((tokens, V), np.float32), np.zeros(tokens, np.int64), evaluation)


def test_the_difference_of_predictions_on_different_windows_is_refused() -> None:
    first, same, other = uniform_predictions("a" * 64), uniform_predictions("a" * 64), uniform_predictions("b" * 64)
    assert compare(first, same)["relative_pd"] == 0.0
    with pytest.raises(ResultError, match=r"different evaluation windows \(aaaaaaaaaaaa and bbbbbbbbbbbb\)"):
        compare(first, other)


def test_every_model_and_trial_is_scored_on_the_same_characters(store: Store, tiny: Tiny, dataset: Dataset) -> None:
    for model, block_size in (("charlm", 32), ("charlm", 100), ("convlm", 64), ("tinylstm", 300)):
        result = run_experiment(model, "relu", tiny(model, block_size=block_size), results_dir=store.folder)
        assert result.evaluation.sha256 == dataset.windows.sha256
        assert result.evaluation.tokens == dataset.windows.tokens
        for trial in (1, 2):
            assert np.array_equal(store.predictions(result, trial).labels, dataset.windows.targets.flatten().numpy())


# --- "relative PD" meant two formulas.


@given(st.integers(1, 60))
def test_a_character_that_neither_model_expects_dilutes_relative_pd_and_leaves_total_variation_alone(extra: int) -> None:
    p, q = np.array([[0.5, 0.5]]), np.array([[0.2, 0.8]])
    nothing = np.zeros((1, extra))
    wide = np.hstack([p, nothing]), np.hstack([q, nothing])
    assert prediction_difference.total_variation(*wide) == pytest.approx(prediction_difference.total_variation(p, q))
    assert prediction_difference.relative_pd(*wide) == pytest.approx(prediction_difference.relative_pd(p, q) * 2 / (2 + extra))


def test_the_stored_relative_pd_is_the_one_of_metrics_for_every_pair(store: Store, tiny: Tiny) -> None:
    result = run_experiment("charlm", "gelu", tiny("charlm", trials=3), results_dir=store.folder)
    probabilities = [store.predictions(result, trial).probabilities for trial in (1, 2, 3)]
    labels = store.predictions(result, 1).labels
    stored, pairs = result.reproducibility_metrics, [(1, 2), (1, 3), (2, 3)]
    approx = partial(pytest.approx, rel=1e-12)  # sums are taken in another order
    for i, j in pairs:
        p, q = probabilities[i - 1], probabilities[j - 1]
        assert stored[f"pd_{i}_{j}"] == approx(np.mean(2 * np.abs(p - q) / (p + q)))
        assert stored[f"total_variation_{i}_{j}"] == approx(np.abs(p - q).sum(1).mean() / 2)
        assert stored[f"churn_{i}_{j}"] == np.mean(p.argmax(1) != q.argmax(1))
        assert stored[f"true_label_pd_{i}_{j}"] == approx(prediction_difference.true_label_pd(p, q, labels))
        assert stored[f"log_prob_pd_{i}_{j}"] == approx(prediction_difference.log_prob_pd(p, q, labels))
        assert stored[f"js_divergence_{i}_{j}"] == approx(prediction_difference.js_divergence(p, q))
    assert result.avg_relative_pd == pytest.approx(np.mean([stored[f"pd_{i}_{j}"] for i, j in pairs]))
    assert result.avg_relative_pd == stored["relative_pd"]
    assert result.mean_deviation_pd == prediction_difference.mean_deviation_pd(probabilities)
    assert result.pairs() == {(i, j): stored[f"pd_{i}_{j}"] for i, j in pairs}


# --- the convolutional model padded both sides and saw its own target.


@torch.no_grad()
@pytest.mark.parametrize("activation", ["gelu", "swiglu"])
@pytest.mark.parametrize("model", MODELS)
def test_changing_a_character_leaves_all_logits_before_it_bit_equal_and_no_others(model: str, activation: str) -> None:
    built = lively_model(model, activation)
    tokens = some_tokens()
    base = built(tokens)
    for t in (0, 1, 2, 7, 23, CONTEXT - 2, CONTEXT - 1):
        changed = tokens.clone()
        changed[:, t] = (changed[:, t] + 1) % V
        logits = built(changed)
        assert torch.equal(logits[:, :t], base[:, :t]), f"character {t} was seen before its time"
        assert (logits[:, t] != base[:, t]).any(-1).all(), f"character {t} is not seen where it stands"
        if t + 1 < CONTEXT:
            assert not torch.equal(logits[:, t + 1 :], base[:, t + 1 :]), f"character {t} is not seen afterwards"


# --- a constant predictor had PD 0 and was called perfectly reproducible.


def record(trial: int, val_loss: float, val_accuracy: float) -> TrialRecord:
    curves: dict[str, Any] = {name: [(1, 3.0)] for name in ("train_loss_curve", "val_loss_curve")}
    digests = dict.fromkeys(("init_sha256", "weights_sha256", "predictions_sha256"), f"{trial}" * 64)
    measured = {"val_loss": val_loss, "val_accuracy": val_accuracy, "seconds": 1.0}
    return TrialRecord(trial=trial, seed=41 + trial, **curves, **measured, **digests)


def flags_of(dataset: Dataset, logits: list[np.ndarray], accuracies: list[float] | None = None) -> tuple[Result, list[str]]:
    """The flags of a cell whose trials predict these logits (tokens, V); accuracies can be made up."""
    labels = dataset.windows.targets.flatten().numpy()
    predictions = [Predictions(array.astype(np.float32), labels, dataset.windows.sha256) for array in logits]
    truth = [100 * (1 - prediction_difference.error_rate(array, labels)) for array in logits]
    records = [
        record(k, prediction_difference.cross_entropy(array, labels), accuracy)
        for k, (array, accuracy) in enumerate(zip(logits, accuracies or truth, strict=True), start=1)
    ]
    config = Config.for_model("charlm", "smoke", trials=len(records)).with_corpus(dataset.vocab_size)
    digest = config.sha256(dataset.corpus.sha256)
    result = summarise("charlm", "relu", config, digest, dataset, list(zip(records, predictions, strict=True)))
    return result, result.flags


def unigram_logits(dataset: Dataset) -> np.ndarray:
    counts = np.bincount(dataset.train.numpy(), minlength=dataset.vocab_size) + 1.0
    return np.tile(np.log(counts / counts.sum()), (dataset.windows.tokens, 1))


def test_a_constant_predictor_is_flagged_although_its_pd_is_zero(dataset: Dataset) -> None:
    constant = np.zeros((dataset.windows.tokens, dataset.vocab_size))
    result, flags = flags_of(dataset, [constant, constant])
    assert result.avg_relative_pd == 0.0
    assert [flag for flag in flags if flag.startswith("untrained: trial 1")]
    assert [flag for flag in flags if flag.startswith("untrained: trial 2")]


def test_a_predictor_of_the_training_frequencies_is_flagged_and_one_that_knows_a_little_more_is_not(dataset: Dataset) -> None:
    labels = dataset.windows.targets.flatten().numpy()
    knows_less, knows_more = unigram_logits(dataset), unigram_logits(dataset)
    # A little worse than the unigrams rather than equal to them: logits are rounded to float32.
    knows_less[np.arange(len(labels)), labels] -= 1e-4
    knows_more[np.arange(len(labels)), labels] += 1e-4
    assert [flag[:18] for flag in flags_of(dataset, [knows_less] * 2)[1]] == ["untrained: trial 1", "untrained: trial 2"]
    assert flags_of(dataset, [knows_more] * 2)[1] == []


def test_churn_that_the_error_rates_do_not_allow_is_flagged(dataset: Dataset) -> None:
    first = unigram_logits(dataset)
    labels = dataset.windows.targets.flatten().numpy()
    first[np.arange(len(first)), labels] += 50  # always right
    second = first.copy()
    second[: len(second) // 2] = np.roll(second[: len(second) // 2], 1, axis=1)  # right in half of all places
    assert [flag for flag in flags_of(dataset, [first, second])[1] if "churn" in flag] == []
    # More churn than both are wrong together, and less than the difference of their errors.
    too_much = flags_of(dataset, [first, second], accuracies=[100.0, 90.0])[1]
    assert [flag for flag in too_much if flag.startswith("impossible churn") and "trials 1 and 2" in flag]
    too_little = flags_of(dataset, [first, first], accuracies=[100.0, 90.0])[1]
    assert [flag for flag in too_little if flag.startswith("impossible churn: 0.0000")]


def test_a_true_character_to_which_one_trial_gives_probability_zero_is_flagged(dataset: Dataset) -> None:
    first, second = unigram_logits(dataset), unigram_logits(dataset)
    second[0, dataset.windows.targets[0, 0]] = -2000.0
    result, flags = flags_of(dataset, [first, second])
    assert [flag for flag in flags if flag.startswith("infinite log_prob_pd: trials 1 and 2")]
    assert result.reproducibility_metrics["log_prob_pd_1_2"] is None
    assert result.pairs("log_prob_pd") == {(1, 2): float("inf")}
    assert Result.from_json(result.to_json()) == result


def test_a_single_trial_has_no_pd_rather_than_a_pd_of_zero(dataset: Dataset) -> None:
    result, flags = flags_of(dataset, [unigram_logits(dataset)])
    assert result.avg_relative_pd is None
    assert result.mean_deviation_pd is None
    assert [flag for flag in flags if flag.startswith("one trial only")]


# --- stale result files were averaged in, and missing cells were drawn as 0.


def test_of_several_results_of_a_cell_the_newest_is_chosen_in_any_order(make_result: MakeResult, store: Store) -> None:
    stale, newest = make_result(pd=0.9, minute=1), make_result(pd=0.3, minute=2)
    for result in (newest, stale):
        store.save(result)
    assert store.find("charlm", "relu", newest.config_sha256) == newest
    for stored in ([newest, stale], [stale, newest], [result for _, result in store.load()[0]]):
        assert select_comparable(stored) == [newest]


def test_of_results_made_in_the_same_second_the_one_saved_last_is_the_newest(make_result: MakeResult, store: Store) -> None:
    saved = [make_result(pd=k / 100) for k in range(12)]
    for result in saved:
        store.save(result)
    assert [result for _, result in store.load()[0]] == saved
    assert store.find("charlm", "relu", saved[0].config_sha256) == saved[-1]
    assert select_comparable([result for _, result in store.load()[0]]) == [saved[-1]]


def test_a_newer_result_with_too_few_trials_does_not_hide_a_complete_one(make_result: MakeResult, store: Store) -> None:
    complete, short = make_result(trials=3, minute=1), make_result(trials=2, minute=2)
    store.save(complete)
    store.save(short)
    assert store.find("charlm", "relu", complete.config_sha256, trials=3) == complete
    assert store.find("charlm", "relu", complete.config_sha256, trials=4) is None


def test_within_a_model_one_configuration_is_chosen_and_missing_cells_stay_missing(make_result: MakeResult) -> None:
    longer = Config.for_model("charlm", "smoke", max_iters=9)
    old = [make_result(activation=name, minute=1) for name in ("relu", "swish")]
    new = [make_result(activation=name, minute=2, config=longer) for name in ("relu", "gelu")]
    other_model = make_result("convlm", "swish", minute=0)
    chosen = select_comparable([*new, other_model, *old])
    assert sorted((r.model_name, r.activation) for r in chosen) == [("charlm", "gelu"), ("charlm", "relu"), ("convlm", "swish")]
    assert {result.config_sha256 for result in chosen if result.model_name == "charlm"} == {new[0].config_sha256}


def test_two_newer_cells_of_another_length_do_not_push_a_longer_row_aside(make_result: MakeResult) -> None:
    longer = Config.for_model("charlm", "smoke", max_iters=9)
    row = [make_result(activation=name, minute=1) for name in ("relu", "gelu", "swish")]
    newer = [make_result(activation=name, minute=2, config=longer) for name in ("relu", "gelu")]
    for stored in ([*row, *newer], [*newer, *row]):
        chosen = select_comparable(stored)
        assert sorted(result.activation for result in chosen) == ["gelu", "relu", "swish"]
        assert {result.config_sha256 for result in chosen} == {row[0].config_sha256}
    # Whoever names a configuration gets it.
    chosen = select_comparable([*row, *newer], configs=[newer[0].config_sha256])
    assert sorted(result.activation for result in chosen) == ["gelu", "relu"]


@pytest.mark.parametrize(
    "different",
    [
        {"profile": "quick"},
        {"corpus": "f" * 64},
        {"evaluation": "f" * 64},
        {"config": Config.for_model("charlm", "smoke", vary="init")},
        {"config": Config.for_model("charlm", "smoke", device="cuda")},
        {"config": Config.for_model("charlm", "smoke").model_copy(update={"execution": "stacked"})},
    ],
)
def test_results_that_are_not_comparable_are_not_mixed(different: dict[str, Any], make_result: MakeResult) -> None:
    ours, other = make_result(activation="relu", minute=2), make_result(activation="gelu", minute=1, **different)
    assert ours.comparison_key != other.comparison_key
    assert select_comparable([ours, other]) == [ours]
    assert select_comparable([ours, other], other.comparison_key) == [other]


def test_a_cell_trained_by_hand_does_not_push_a_finished_profile_aside(make_result: MakeResult) -> None:
    smoke = [make_result(activation=name, minute=1) for name in ("relu", "gelu")]
    quick = [make_result(activation=name, minute=2, config=Config.for_model("charlm", "quick")) for name in ("relu", "gelu")]
    by_hand = make_result(activation="swish", minute=3, config=Config.for_model("charlm", max_iters=3))
    everything = [*smoke, *quick, by_hand]
    assert select_comparable(everything) == quick
    assert select_comparable(everything, profile="smoke") == smoke
    assert select_comparable(everything, profile="full") == []
    assert select_comparable([by_hand]) == [by_hand]


def test_size_and_schedule_may_differ_between_models_of_one_comparison(make_result: MakeResult) -> None:
    charlm = make_result(config=Config.for_model("charlm", "smoke"))
    convlm = make_result("convlm", config=Config.for_model("convlm", "smoke", n_embd=64, learning_rate=1e-3, max_iters=7))
    assert charlm.comparison_key == convlm.comparison_key
    assert select_comparable([charlm, convlm]) == [charlm, convlm]


# --- interpolated ("synthetic") numbers filled gaps.


def test_a_synthetic_result_is_left_out_of_every_selection(make_result: MakeResult, store: Store) -> None:
    real, invented = make_result(minute=1), make_result(minute=2, synthetic=True)
    gap_filler = make_result(activation="gelu", minute=3, synthetic=True)
    for result in (real, invented, gap_filler):
        store.save(result)
    everything = [result for _, result in store.load()[0]]
    assert everything == [real, invented, gap_filler]
    assert select_comparable(everything) == [real]
    assert select_comparable([invented, gap_filler]) == []
    assert select_comparable(everything, invented.comparison_key) == []
    assert store.find("charlm", "relu", real.config_sha256) == real
    assert store.find("charlm", "gelu", gap_filler.config_sha256) is None


def test_training_takes_no_synthetic_result_as_done(make_result: MakeResult, store: Store, tiny: Tiny, corpus: Corpus) -> None:
    config = tiny("charlm", trials=1)
    invented = make_result(config=config, corpus=corpus.sha256, trials=1, synthetic=True)
    store.save(invented)
    trained = run_experiment("charlm", "relu", config, results_dir=store.folder)
    assert trained.config_sha256 == invented.config_sha256
    assert not trained.synthetic
    assert trained.trials[0].weights_sha256 != invented.trials[0].weights_sha256


def test_the_word_synthetic_is_stored_and_may_not_be_missing(make_result: MakeResult) -> None:
    result = make_result(synthetic=True)
    assert '"synthetic": true' in result.to_json()
    assert Result.from_json(result.to_json()).synthetic
    with pytest.raises(ValueError, match="synthetic"):
        Result(**{name: getattr(result, name) for name in Result.model_fields if name != "synthetic"})
