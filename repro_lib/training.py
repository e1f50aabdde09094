"""Training of one trial: AdamW, linear warm-up, linear decay to zero, gradient clipping.

The recipe is the same for every activation of a model; that is the comparison. Deterministic on the CPU: the same
configuration and trial give the same bits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from repro_lib.config import Config
from repro_lib.data import Dataset, EvaluationWindows
from repro_lib.determinism import Streams, deterministic_arithmetic, flip_one_bit, sha256_of_tensors, streams_for_trial
from repro_lib.metrics import cross_entropy, error_rate
from repro_lib.models import build_model

# Points kept of the training curve, each the mean over its stretch of iterations.
CURVE_POINTS = 100
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

    ``together``: how many trials train as one, this one among them: the last ones of the cell.
    """

    model: str
    activation: str
    trial: int
    trials: int
    iteration: int
    max_iters: int
    train_loss: float
    val_loss: float | None
    together: int = 1

    @property
    def done(self) -> int:
        """Iterations of the cell that are through, those of all its trials counted, of trials x max_iters."""
        first = self.trial if self.together == 1 else self.trials - self.together + 1
        return (first - 1) * self.max_iters + self.together * (self.iteration - 1) + self.trial - first + 1


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
) -> TrainedTrial:
    """Train trial ``trial`` (0-based) and score it on the evaluation windows.

    ``val_loss`` in nats, ``val_accuracy`` in per cent, both over all evaluation windows. Raises TrainingDiverged.
    """
    started = time.perf_counter()
    config = config.resolved_for(model_name).with_corpus(dataset.vocab_size)
    with deterministic_arithmetic():
        model, streams = untrained(model_name, activation, config, trial)
        init_sha256 = sha256_of_tensors(dict(model.named_parameters()))
        optimizer = make_optimizer(model, config)
        curve_windows, kept_windows = dataset.windows.every(CURVE_BLOCK_STEP), dataset.windows.every(KEPT_BLOCK_STEP)
        steps = kept_steps(config.max_iters)
        kept = [predict_logits(model, kept_windows, config.block_size)]  # step 0: before any training
        train_curve, val_curve = LossCurve(config.max_iters), list[tuple[int, float]]()
        model.train()
        for iteration in range(1, config.max_iters + 1):
            inputs, targets = dataset.batch(config.batch_size, config.block_size, streams.order)
            loss = training_step(model, optimizer, inputs, targets, iteration, config)
            check_loss(loss, model_name, activation, trial, iteration)
            train_curve.add(loss)
            if iteration % config.eval_interval == 0 and iteration < config.max_iters:
                val_curve.append((iteration, evaluate_loss(model, curve_windows, config.block_size)))
            if iteration in steps[:-1]:
                kept.append(predict_logits(model, kept_windows, config.block_size))
            if progress:
                where = (trial + 1, config.trials, iteration, config.max_iters)
                progress(Progress(model_name, activation, *where, loss, val_curve[-1][1] if val_curve else None))
        course = Course(init_sha256, train_curve, val_curve, kept, started)
        return finished_trial(model, model_name, activation, config, dataset, trial, course)


def untrained(model_name: str, activation: str, config: Config, trial: int) -> tuple[nn.Module, Streams]:
    """The model of trial ``trial`` (0-based) as it is before training, and the random streams of that trial."""
    streams = streams_for_trial(config.seed, trial, config.vary_streams, config.device)
    model = build_model(model_name, config, activation, streams=streams)
    if config.flips_bit and trial > 0:
        flip_one_bit(model, config.seed + trial)
    return model, streams


def check_loss(loss: float, model_name: str, activation: str, trial: int, iteration: int, what: str = "loss became") -> None:
    """TrainingDiverged if a loss of trial ``trial`` (0-based) is no number."""
    if not math.isfinite(loss):
        raise TrainingDiverged(
            f"the {what} {loss} for {model_name} with {activation}, trial {trial + 1}, iteration {iteration}; "
            "lower the learning rate"
        )


@dataclass(frozen=True)
class Course:
    """What was seen of a trial while it trained, for ``finished_trial``.

    ``val_curve``: (iteration, nats), the last one not yet; ``kept``: the predictions (blocks, 256, V) after each of
    ``kept_steps`` but the last; ``started``: when, by ``time.perf_counter``.
    """

    init_sha256: str
    train_curve: LossCurve
    val_curve: list[tuple[int, float]]
    kept: list[Tensor]
    started: float


def finished_trial(
    model: nn.Module, model_name: str, activation: str, config: Config, dataset: Dataset, trial: int, course: Course
) -> TrainedTrial:
    """Score the trained model of trial ``trial`` (0-based) on all evaluation windows. Raises TrainingDiverged."""
    curve_windows = dataset.windows.every(CURVE_BLOCK_STEP)
    logits = predict_logits(model, dataset.windows, config.block_size)  # (blocks, 256, V)
    kept = [*course.kept, logits[::KEPT_BLOCK_STEP]]
    curve_loss = cross_entropy(logits[::CURVE_BLOCK_STEP].flatten(0, 1), curve_windows.targets.flatten())
    logits, labels = logits.flatten(0, 1), dataset.windows.targets.flatten()
    val_loss = cross_entropy(logits, labels)
    check_loss(val_loss, model_name, activation, trial, config.max_iters, what="validation loss is")
    return TrainedTrial(
        trial=trial + 1,
        seed=config.seed + trial,
        train_loss_curve=course.train_curve.points(),
        val_loss_curve=[*course.val_curve, (config.max_iters, curve_loss)],
        val_loss=val_loss,
        val_accuracy=100 * (1 - error_rate(logits, labels)),
        seconds=time.perf_counter() - course.started,
        init_sha256=course.init_sha256,
        logits=logits,
        steps=kept_steps(config.max_iters),
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


class LossCurve:
    """The training loss, averaged over stretches so that a run of any length keeps about 100 points."""

    def __init__(self, iterations: int) -> None:
        self.stretch = math.ceil(iterations / CURVE_POINTS)
        self.losses: list[float] = []

    def add(self, loss: float) -> None:
        """The loss of the next iteration."""
        self.losses.append(loss)

    def points(self) -> list[tuple[int, float]]:
        """(last iteration of the stretch, its mean loss)."""
        starts = range(0, len(self.losses), self.stretch)
        stretches = [self.losses[start : start + self.stretch] for start in starts]
        return [(start + len(part), float(np.mean(part))) for start, part in zip(starts, stretches, strict=True)]
