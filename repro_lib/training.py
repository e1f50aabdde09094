"""Training of one trial: AdamW, linear warm-up, linear decay to zero, gradient clipping.

The recipe is the same for every activation of a model; that is the comparison. Deterministic on the CPU: the same
configuration and trial give the same bits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from repro_lib.checkpoints import TrialCheckpoints
from repro_lib.config import Config
from repro_lib.data import Dataset, EvaluationWindows
from repro_lib.determinism import deterministic_arithmetic, flip_one_bit, sha256_of_tensors, streams_for_trial
from repro_lib.metrics import cross_entropy, error_rate
from repro_lib.models import build_model
from repro_lib.trial_state import LossCurve, TrialState

# Predictions are kept at step 0 and at this many steps spread evenly on a log scale, for every 16th evaluation block:
# enough to see when the trials part, and small beside the final predictions.
KEPT_STEPS = 7
KEPT_BLOCK_STEP = 16
# The validation curve looks at every fourth evaluation block; the final numbers at all of them.
CURVE_BLOCK_STEP = 4


class TrainingDiverged(RuntimeError):
    """A loss became NaN or infinite; training the same configuration again would do the same."""


@dataclass(frozen=True)
class Progress:
    """Where a trial is, for whoever watches. ``trial`` counts from 1; losses in nats per character.

    ``kept``: logits (kept blocks, 256, V), where predictions were kept after this iteration. A callback that raises ends the
    training.
    """

    model: str
    activation: str
    trial: int
    trials: int
    iteration: int
    max_iters: int
    train_loss: float
    val_loss: float | None
    kept: Tensor | None = field(default=None, repr=False, compare=False)


ProgressCallback = Callable[[Progress], None]


@dataclass(frozen=True)
class TrainedTrial:
    """What one trial leaves: curves of (iteration, nats), final numbers, logits (tokens, V), weights by name.

    ``step_logits``: (S, kept tokens, V), the predictions after each of ``steps`` iterations, the last being the final ones.
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


def train_trial(
    model_name: str,
    activation: str,
    config: Config,
    dataset: Dataset,
    trial: int = 0,
    progress: ProgressCallback | None = None,
    checkpoints: TrialCheckpoints | None = None,
) -> TrainedTrial:
    """Train trial ``trial`` (0-based) and score it on the evaluation windows.

    With ``checkpoints`` it saves its state now and then, and goes on from the newest one that is there: to the same bits.
    ``val_loss`` in nats, ``val_accuracy`` in per cent, both over all evaluation windows. Raises TrainingDiverged.
    """
    started = time.perf_counter()
    config = config.resolved_for(model_name).with_corpus(dataset.vocab_size)
    with deterministic_arithmetic():
        state = _begin(model_name, activation, config, dataset, trial)
        if checkpoints:
            checkpoints.resume(state)
        state.model.train()
        for iteration in range(state.iteration + 1, config.max_iters + 1):
            loss = _iterate(state, iteration, config, dataset)
            if not math.isfinite(loss):
                raise TrainingDiverged(
                    f"the loss became {loss} for {model_name} with {activation}, trial {trial + 1}, iteration {iteration}; "
                    "lower the learning rate"
                )
            if progress:
                where = (trial + 1, config.trials, iteration, config.max_iters)
                val_loss = state.val_losses[-1] if state.val_losses else None
                seen = state.kept[-1] if iteration in state.steps and iteration < config.max_iters else None
                progress(Progress(model_name, activation, *where, loss, val_loss, seen))
            if checkpoints and iteration < config.max_iters and checkpoints.due():
                checkpoints.save(state, state.seconds + time.perf_counter() - started)
        logits = predict_logits(state.model, dataset.windows, config.block_size)  # (blocks, 256, V)
    state.kept.append(logits[::KEPT_BLOCK_STEP])
    curve_labels = dataset.windows.every(CURVE_BLOCK_STEP).targets.flatten()
    curve_loss = cross_entropy(logits[::CURVE_BLOCK_STEP].flatten(0, 1), curve_labels)
    logits, labels = logits.flatten(0, 1), dataset.windows.targets.flatten()
    val_loss = cross_entropy(logits, labels)
    if not math.isfinite(val_loss):
        raise TrainingDiverged(
            f"the validation loss is {val_loss} for {model_name} with {activation}, trial {trial + 1}, iteration "
            f"{config.max_iters}; lower the learning rate"
        )
    return TrainedTrial(
        trial=trial + 1,
        seed=config.seed + trial,
        train_loss_curve=state.train_curve.points(),
        val_loss_curve=[*state.val_curve, (config.max_iters, curve_loss)],
        val_loss=val_loss,
        val_accuracy=100 * (1 - error_rate(logits, labels)),
        seconds=state.seconds + time.perf_counter() - started,
        init_sha256=state.init_sha256,
        logits=logits,
        steps=list(state.steps),
        step_logits=torch.stack(state.kept).flatten(1, 2),  # (S, blocks, 256, V) -> (S, tokens, V)
        weights={name: tensor.detach().cpu() for name, tensor in state.model.state_dict().items()},
    )


def _begin(model_name: str, activation: str, config: Config, dataset: Dataset, trial: int) -> TrialState:
    """A trial before its first step."""
    streams = streams_for_trial(config.seed, trial, config.vary_streams, config.device)
    model = build_model(model_name, config, activation, streams=streams)
    if config.flips_bit and trial > 0:
        flip_one_bit(model, config.seed + trial)
    return TrialState(
        model=model,
        optimizer=make_optimizer(model, config),
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
    inputs, targets = dataset.batch(config.batch_size, config.block_size, state.streams.order)
    loss = training_step(state.model, state.optimizer, inputs, targets, iteration, config)
    if not math.isfinite(loss):
        return loss
    state.iteration = iteration
    state.train_curve.add(loss)
    # The end has its own, fuller evaluation.
    if iteration < config.max_iters:
        if iteration % config.eval_interval == 0:
            curve_windows = dataset.windows.every(CURVE_BLOCK_STEP)
            state.val_losses.append(evaluate_loss(state.model, curve_windows, config.block_size))
        if iteration in state.steps:
            state.kept.append(predict_logits(state.model, dataset.windows.every(KEPT_BLOCK_STEP), config.block_size))
    return loss


def make_optimizer(model: nn.Module, config: Config) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only: biases, norms and other vectors are not decayed."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(config.beta1, config.beta2), fused=True)


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
