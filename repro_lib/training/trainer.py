"""Training of one trial: AdamW, linear warm-up, linear decay to zero, gradient clipping.

The recipe is the same for every activation of a model; that is the comparison. Deterministic on the CPU: the same
configuration and trial give the same bits.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from repro_lib.config import Config, ConfigError
from repro_lib.data import Dataset, EvaluationWindows
from repro_lib.metrics.prediction_difference import cross_entropy, error_rate
from repro_lib.models.determinism import deterministic_arithmetic, flip_one_bit, streams_for_trial
from repro_lib.models.registry import build_model
from repro_lib.store.tensors import sha256_of_tensors
from repro_lib.training.checkpoints import TrialCheckpoints
from repro_lib.training.progress import Progress, ProgressCallback
from repro_lib.training.state import LossCurve, TrialHistory, TrialState

# Predictions are kept at step 0 and at this many steps spread evenly on a log scale, for every 16th evaluation block:
# enough to see when the trials part, and small beside the final predictions.
KEPT_STEPS = 7
KEPT_BLOCK_STEP = 16
# The validation curve looks at every fourth evaluation block; the final numbers at all of them.
CURVE_BLOCK_STEP = 4


class TrainingDiverged(RuntimeError):
    """A loss became NaN or infinite; training the same configuration again would do the same."""


@dataclass(frozen=True)
class TrainedTrial:
    """What one trial leaves: curves of (iteration, nats), final numbers, logits (tokens, V), weights by name.

    ``step_logits``: (S, kept tokens, V), the predictions after each of ``steps`` iterations, the last being the final ones.
    ``stack``: the numbers of the trials that it was trained as one with, itself among them; None: by itself.
    """

    trial: int
    seed: int
    train_loss_curve: list[tuple[int, float]]
    val_loss_curve: list[tuple[int, float]]
    val_loss: float
    val_accuracy: float
    seconds: float
    init_sha256: str
    logits: Tensor
    steps: list[int]
    step_logits: Tensor
    weights: dict[str, Tensor]
    stack: list[int] | None = None


def train_trial(
    model_name: str,
    activation: str,
    config: Config,
    dataset: Dataset,
    trial: int = 1,
    progress: ProgressCallback | None = None,
    checkpoints: TrialCheckpoints | None = None,
) -> TrainedTrial:
    """Train trial ``trial`` (from 1) and score it on the evaluation windows.

    ``config`` is a complete one, as ``Config.for_model(...).with_corpus(dataset.vocab_size)`` gives it. With
    ``checkpoints`` it saves its state now and then, and goes on from the newest one that is there: to the same bits.
    ``val_loss`` in nats, ``val_accuracy`` in per cent, both over all evaluation windows. Raises TrainingDiverged, and
    ConfigError for a configuration that is not complete.
    """
    started = time.perf_counter()
    with deterministic_arithmetic():
        state = _begin(model_name, activation, config, dataset, trial)
        (history,) = state.histories
        if checkpoints:
            checkpoints.resume(state)
        state.model.train()
        for iteration in range(state.iteration + 1, config.max_iters + 1):
            loss = _iterate(state, iteration, config, dataset)
            check_loss(loss, model_name, activation, trial, iteration)
            if progress:
                progress(progress_of(history, model_name, activation, config, trial, iteration, loss))
            if checkpoints and iteration < config.max_iters and checkpoints.due():
                checkpoints.save(state, state.seconds + time.perf_counter() - started)
        trained = finished_trial(history, state.model, model_name, activation, config, dataset, trial)
    return replace(trained, seconds=state.seconds + time.perf_counter() - started)


def _begin(model_name: str, activation: str, config: Config, dataset: Dataset, trial: int) -> TrialState:
    """A trial before its first step."""
    model, history = untrained(model_name, activation, config, dataset, trial)
    return TrialState(model, make_optimizer(model, config), [history])


def untrained(model_name: str, activation: str, config: Config, dataset: Dataset, trial: int) -> tuple[nn.Module, TrialHistory]:
    """The model of trial ``trial`` (from 1) before its first step, and what is that trial's own beside it."""
    # A bare configuration would build the model with the model's values and train it with the general ones.
    if not config.is_complete_for(model_name):
        raise ConfigError(
            f"this configuration is not complete for {model_name!r}; make it with "
            f"Config.for_model({model_name!r}, ...).with_corpus(dataset.vocab_size)"
        )
    streams = streams_for_trial(config.seed, trial, config.vary_streams, config.device)
    model = build_model(model_name, config, activation, streams=streams)
    if config.flips_bit and trial > 1:
        flip_one_bit(model, config.seed + trial - 1)
    return model, TrialHistory(
        streams=streams,
        init_sha256=sha256_of_tensors(dict(model.named_parameters())),
        steps=kept_steps(config.max_iters),
        eval_interval=config.eval_interval,
        train_curve=LossCurve(config.max_iters),
        val_losses=[],
        kept=[predict_logits(model, dataset.windows.every(KEPT_BLOCK_STEP), config.block_size)],
    )


def _iterate(state: TrialState, iteration: int, config: Config, dataset: Dataset) -> float:
    """One step and what is measured after it; the loss in nats. A loss that is no number changes nothing but the data order."""
    (history,) = state.histories
    inputs, targets = dataset.batch(config.batch_size, config.block_size, history.streams.order)
    loss = training_step(state.model, state.optimizer, inputs, targets, iteration, config)
    if math.isfinite(loss):
        state.iteration = iteration
        history.train_curve.add(loss)
        if is_looked_at(iteration, config):
            look(history, state.model, iteration, config, dataset)
    return loss


def is_looked_at(iteration: int, config: Config) -> bool:
    """Whether predictions are made after this iteration. The end has its own, fuller evaluation."""
    wanted = iteration % config.eval_interval == 0 or iteration in kept_steps(config.max_iters)
    return wanted and 0 < iteration < config.max_iters


def look(history: TrialHistory, model: nn.Module, iteration: int, config: Config, dataset: Dataset) -> None:
    """Make the predictions that are wanted of a trial after this iteration, by ``is_looked_at``."""
    if iteration % config.eval_interval == 0:
        history.val_losses.append(evaluate_loss(model, dataset.windows.every(CURVE_BLOCK_STEP), config.block_size))
    if iteration in history.steps:
        history.kept.append(predict_logits(model, dataset.windows.every(KEPT_BLOCK_STEP), config.block_size))


def progress_of(
    history: TrialHistory,
    model_name: str,
    activation: str,
    config: Config,
    trial: int,
    iteration: int,
    loss: float,
    stack: tuple[int, ...] = (),
) -> Progress:
    """Where trial ``trial`` (from 1) is after this iteration, its newest look included."""
    val_loss = history.val_losses[-1] if history.val_losses else None
    kept = history.kept[-1] if iteration in history.steps and iteration < config.max_iters else None
    return Progress(model_name, activation, trial, config.trials, iteration, config.max_iters, loss, val_loss, kept, stack)


def check_loss(loss: float, model_name: str, activation: str, trial: int, iteration: int, what: str = "loss became") -> None:
    """TrainingDiverged if a loss of trial ``trial`` (from 1) is no number."""
    if not math.isfinite(loss):
        raise TrainingDiverged(
            f"the {what} {loss} for {model_name} with {activation}, trial {trial}, iteration {iteration}; "
            "lower the learning rate"
        )


def finished_trial(
    history: TrialHistory, model: nn.Module, model_name: str, activation: str, config: Config, dataset: Dataset, trial: int
) -> TrainedTrial:
    """Score the trained model of trial ``trial`` (from 1) on all evaluation windows. Raises TrainingDiverged.

    Its ``seconds`` are left to whoever knows them.
    """
    logits = predict_logits(model, dataset.windows, config.block_size)  # (blocks, 256, V)
    kept = [*history.kept, logits[::KEPT_BLOCK_STEP]]
    curve_labels = dataset.windows.every(CURVE_BLOCK_STEP).targets.flatten()
    curve_loss = cross_entropy(logits[::CURVE_BLOCK_STEP].flatten(0, 1), curve_labels)
    logits, labels = logits.flatten(0, 1), dataset.windows.targets.flatten()
    val_loss = cross_entropy(logits, labels)
    check_loss(val_loss, model_name, activation, trial, config.max_iters, what="validation loss is")
    return TrainedTrial(
        trial=trial,
        seed=config.seed + trial - 1,
        train_loss_curve=history.train_curve.points(),
        val_loss_curve=[*history.val_curve, (config.max_iters, curve_loss)],
        val_loss=val_loss,
        val_accuracy=100 * (1 - error_rate(logits, labels)),
        seconds=0.0,
        init_sha256=history.init_sha256,
        logits=logits,
        steps=list(history.steps),
        step_logits=torch.stack(kept).flatten(1, 2),  # (S, blocks, 256, V) -> (S, tokens, V)
        # Copies: a stack shows its trials in one model, one after another.
        weights={name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()},
    )


def make_optimizer(model: nn.Module, config: Config, stacked: bool = False) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only: biases, norms and other vectors are not decayed.

    ``stacked``: the parameters of ``model`` have a dimension more in front, one entry for each model of a stack.
    """
    parameters, matrix = list(model.parameters()), 3 if stacked else 2
    groups = [
        {"params": [p for p in parameters if p.ndim >= matrix], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < matrix], "weight_decay": 0.0},
    ]
    # On the CPU the fused kernel rounds the last few numbers of a tensor otherwise than the rest (seen with torch 2.13), and
    # these all belong to the last trial of a stack: equal trials would end apart.
    kernel = {"foreach": True} if stacked and config.device == "cpu" else {"fused": True}
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(config.beta1, config.beta2), **kernel)


def kept_steps(max_iters: int) -> list[int]:
    """The steps after which predictions are kept: 0, then evenly spread on a log scale from 1 to ``max_iters``."""
    return sorted({0} | {round(max_iters ** (k / (KEPT_STEPS - 1))) for k in range(KEPT_STEPS)})


def learning_rate(iteration: int, config: Config) -> float:
    """Rate of iteration 1 ... max_iters: linear warm-up to the peak, then linear decay to zero."""
    warmup = min(config.warmup_iters, config.max_iters // 2)
    if iteration <= warmup:
        return config.learning_rate * iteration / warmup
    return config.learning_rate * (config.max_iters + 1 - iteration) / (config.max_iters + 1 - warmup)


def training_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, inputs: Tensor, targets: Tensor, iteration: int, config: Config
) -> float:
    """One step on inputs and targets (B, T); the loss in nats before the step. A bad loss leaves the weights alone."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(iteration, config)
    logits = model(inputs.to(config.device))  # (B, T, V)
    loss = F.cross_entropy(logits.flatten(0, 1), targets.to(config.device).flatten())
    value = loss.item()
    if math.isfinite(value):
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip)
        optimizer.step()
    return value


@torch.inference_mode()
def predict_logits(model: nn.Module, windows: EvaluationWindows, block_size: int) -> Tensor:
    """Logits (blocks, 256, V) in float32 on the CPU, at every position of the evaluation windows."""
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    pieces = [model(inputs.to(device)).float().cpu() for _, inputs in windows.pieces(block_size)]
    model.train(was_training)
    return torch.cat(pieces, dim=1)


def evaluate_loss(model: nn.Module, windows: EvaluationWindows, block_size: int) -> float:
    """Mean loss in nats over the windows."""
    logits = predict_logits(model, windows, block_size)
    return F.cross_entropy(logits.flatten(0, 1), windows.targets.flatten()).item()
