"""Training of one trial: the recipe's properties, the curves, what is recorded, and what stops it."""

import itertools
import math
import time

import pytest
import torch
from kinds import Tiny
from torch import nn

from repro_lib.config import MODEL_DEFAULTS, Config, ConfigError
from repro_lib.data import Dataset
from repro_lib.metrics import prediction_difference
from repro_lib.models.registry import build_model
from repro_lib.training.progress import Progress
from repro_lib.training.state import kept_steps
from repro_lib.training.trainer import evaluate_loss, learning_rate, make_optimizer, predict_logits, train_trial, training_step


def test_a_short_run_learns_more_than_the_frequencies_of_the_characters(dataset: Dataset, tiny: Tiny) -> None:
    config = tiny("charlm", max_iters=150, batch_size=16, learning_rate=6e-3, warmup_iters=10, eval_interval=50)
    trained = train_trial("charlm", "gelu", config, dataset)
    assert trained.val_loss < dataset.unigram_cross_entropy - 0.5
    assert trained.train_loss_curve[-1][1] < trained.train_loss_curve[0][1] - 0.5


def test_the_rate_warms_up_linearly_to_its_peak_and_decays_linearly_towards_zero() -> None:
    config = Config(max_iters=100, warmup_iters=20, learning_rate=0.5)
    rates = [learning_rate(iteration, config) for iteration in range(1, 101)]
    assert rates[0] == pytest.approx(0.5 / 20)
    assert max(rates) == pytest.approx(0.5)
    assert rates.index(max(rates)) in (19, 20)
    steps = [after - before for before, after in itertools.pairwise(rates)]
    up, down = steps[:19], [-step for step in steps[20:]]
    assert up == pytest.approx([0.5 / 20] * 19)
    assert max(down) == pytest.approx(min(down))
    assert 0 < rates[-1] < 0.5 / 50, "every step moves the weights, the last one least"


@pytest.mark.parametrize(("max_iters", "warmup"), [(1, 0), (1, 50), (2, 50), (10, 50), (10, 0)])
def test_the_rate_is_positive_and_bounded_also_in_runs_shorter_than_the_warm_up(max_iters: int, warmup: int) -> None:
    config = Config(max_iters=max_iters, warmup_iters=warmup, learning_rate=0.01)
    rates = [learning_rate(iteration, config) for iteration in range(1, max_iters + 1)]
    assert all(0 < rate <= 0.01 for rate in rates)
    assert max(rates) >= 0.005


@pytest.mark.parametrize("activation", ["relu", "swiglu"])
@pytest.mark.parametrize("model", MODEL_DEFAULTS)
def test_every_parameter_is_trained_and_only_matrices_decay(model: str, activation: str, tiny: Tiny) -> None:
    config = tiny(model, vocab_size=20, weight_decay=0.3)
    built = build_model(model, config, activation)
    optimizer = make_optimizer(built, config)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert set(decay) == {id(p) for p in built.parameters()}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(decay), "no parameter twice"
    for name, parameter in built.named_parameters():
        assert decay[id(parameter)] == (0.3 if parameter.ndim >= 2 else 0.0), name
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.defaults["betas"] == (config.beta1, config.beta2)


def test_gradients_are_clipped_to_the_given_norm(dataset: Dataset, tiny: Tiny) -> None:
    for clip in (1e-3, 1e6):
        config = tiny("charlm", grad_clip=clip)
        built = build_model("charlm", config, "gelu")
        inputs, targets = dataset.batch(4, 32, torch.Generator().manual_seed(0))
        training_step(built, make_optimizer(built, config), inputs, targets, 1, config)
        norm = torch.stack([p.grad.norm() for p in built.parameters() if p.grad is not None]).norm().item()
        if clip == 1e-3:
            assert norm == pytest.approx(clip, rel=1e-3)
        else:
            assert norm > 1e-2


def test_a_step_uses_the_rate_of_its_iteration(dataset: Dataset, tiny: Tiny) -> None:
    config = tiny("charlm", max_iters=10, warmup_iters=5)
    built = build_model("charlm", config, "gelu")
    optimizer = make_optimizer(built, config)
    batch = dataset.batch(4, 32, torch.Generator().manual_seed(0))
    for iteration in (1, 5, 10):
        training_step(built, optimizer, *batch, iteration, config)
        assert {group["lr"] for group in optimizer.param_groups} == {learning_rate(iteration, config)}


def test_the_curves_have_the_points_that_were_asked_for_and_end_at_the_last_iteration(dataset: Dataset, tiny: Tiny) -> None:
    trained = train_trial("tinylstm", "relu", tiny("tinylstm", max_iters=7, eval_interval=3), dataset)
    assert [iteration for iteration, _ in trained.train_loss_curve] == [1, 2, 3, 4, 5, 6, 7]
    assert [iteration for iteration, _ in trained.val_loss_curve] == [3, 6, 7]
    assert all(math.isfinite(loss) for _, loss in trained.train_loss_curve + trained.val_loss_curve)


def test_whoever_watches_is_told_after_every_iteration_where_the_trial_is(dataset: Dataset, tiny: Tiny) -> None:
    seen, watched = list[Progress](), 0.0

    def watch(progress: Progress) -> None:
        nonlocal watched
        began = time.perf_counter()
        seen.append(progress)
        time.sleep(0.1)
        watched += time.perf_counter() - began

    began = time.perf_counter()
    trained = train_trial("charlm", "gelu", tiny("charlm", trials=5), dataset, trial=3, progress=watch)
    assert trained.seconds <= time.perf_counter() - began - watched, "what a watcher takes, who may draw, is no training"
    assert [now.iteration for now in seen] == [1, 2, 3, 4]
    assert {(now.model, now.activation, now.trial, now.trials, now.max_iters) for now in seen} == {("charlm", "gelu", 3, 5, 4)}
    assert [now.val_loss is None for now in seen] == [True, False, False, False]
    assert [(now.iteration, now.train_loss) for now in seen] == trained.train_loss_curve
    assert seen[1].val_loss == trained.val_loss_curve[0][1]


def test_the_final_numbers_are_those_of_the_logits_on_all_windows(dataset: Dataset, tiny: Tiny) -> None:
    trained = train_trial("charlm", "gelu", tiny("charlm"), dataset, trial=2)
    labels = dataset.windows.targets.flatten()
    assert trained.logits.shape == (dataset.windows.tokens, dataset.vocab_size)
    assert trained.logits.dtype == torch.float32
    assert trained.val_loss == pytest.approx(nn.functional.cross_entropy(trained.logits.double(), labels).item(), rel=1e-12)
    assert trained.val_accuracy == pytest.approx(100 * (trained.logits.argmax(-1) == labels).double().mean().item())
    assert (trained.trial, trained.seed) == (2, 43)
    assert trained.seconds > 0


def test_a_short_context_reads_the_same_characters_in_pieces(dataset: Dataset, tiny: Tiny) -> None:
    config = tiny("charlm", dropout=0.5)
    built = build_model("charlm", config, "gelu").train()
    logits = predict_logits(built, dataset.windows, 32)
    assert torch.equal(logits, predict_logits(built, dataset.windows, 32)), "predictions are made without dropout"
    assert built.training, "the model is given back as it was"
    assert logits.shape == (*dataset.windows.targets.shape, dataset.vocab_size)
    built.eval()
    with torch.no_grad():
        assert torch.equal(logits[:, 64:96], built(dataset.windows.inputs[:, 64:96]))
    expected = prediction_difference.cross_entropy(logits.flatten(0, 1), dataset.windows.targets.flatten())
    assert evaluate_loss(built, dataset.windows, 32) == pytest.approx(expected, rel=1e-5)


def test_predictions_are_kept_at_log_spaced_steps_and_end_in_the_final_ones(dataset: Dataset, tiny: Tiny) -> None:
    assert kept_steps(500) == [0, 1, 3, 8, 22, 63, 177, 500]
    assert kept_steps(4) == [0, 1, 2, 3, 4]
    assert kept_steps(1) == [0, 1]
    trained = train_trial("charlm", "gelu", tiny("charlm", max_iters=5), dataset)
    assert trained.steps == kept_steps(5)
    blocks = trained.logits.view(-1, 256, dataset.vocab_size)[::16]
    assert trained.step_logits.shape == (len(trained.steps), blocks.shape[0] * 256, dataset.vocab_size)
    assert torch.equal(trained.step_logits[-1], blocks.flatten(0, 1))
    # Step 0 is the model as it was initialised: a run of another length starts from the same predictions.
    other = train_trial("charlm", "gelu", tiny("charlm", max_iters=2), dataset)
    assert torch.equal(other.step_logits[0], trained.step_logits[0])
    assert not torch.equal(trained.step_logits[1], trained.step_logits[0])


def test_whoever_watches_sees_the_predictions_that_are_kept(dataset: Dataset, tiny: Tiny) -> None:
    shown: dict[int, torch.Tensor | None] = {}
    config = tiny("charlm", max_iters=9)
    trained = train_trial("charlm", "gelu", config, dataset, progress=lambda now: shown.update({now.iteration: now.kept}))
    steps = {step: logits.flatten(0, 1) for step, logits in shown.items() if logits is not None}
    assert list(steps) == trained.steps[1:-1], "those of step 0 are made before, the final ones after the last iteration"
    assert all(torch.equal(logits, trained.step_logits[trained.steps.index(step)]) for step, logits in steps.items())


def test_a_configuration_that_is_not_complete_is_refused_before_anything_is_trained(dataset: Dataset) -> None:
    """It would build the model with the model's values, and train it with the general ones."""
    bare = Config(vocab_size=dataset.vocab_size)
    for config in (bare, Config.for_model("charlm"), Config.for_model("convlm", vocab_size=dataset.vocab_size)):
        with pytest.raises(ConfigError, match=r"not complete for 'charlm'; make it with Config\.for_model\('charlm'"):
            train_trial("charlm", "gelu", config, dataset)
