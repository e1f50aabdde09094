"""Training of one trial: AdamW, linear warm-up, linear decay to zero, gradient clipping.

The recipe is the same for every activation of a model; that is the comparison. Deterministic on the CPU: the same
configuration and trial give the same bits."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

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
from repro_lib.training.progress import ProgressCallback
from repro_lib.training.remedies import Averaged, Earlier, Teachers, fork, losses, predicting, trained, with_remedies
from repro_lib.training.state import TrialHistory, TrialState, loss_curve

if TYPE_CHECKING:
    from repro_lib.training.stacked import TrialStack

# Predictions during training are kept of every 16th evaluation block.
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
    ``weights_sha256``: of an ensemble, which has no weights of its own, the digest over those of its members."""

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
    weights_sha256: str = ""


def train_trial(
    model_name: str,
    activation: str,
    config: Config,
    dataset: Dataset,
    trial: int = 1,
    progress: ProgressCallback | None = None,
    checkpoints: TrialCheckpoints | None = None,
    earlier: Earlier | None = None,
) -> TrainedTrial:
    """Train trial ``trial`` (from 1), or go on with the one in ``checkpoints``, and score it on the evaluation windows.

    ``earlier``: the weights of the models that teach it, or of that which it starts from, where ``config`` asks for some.
    ConfigError unless ``config`` is complete, as ``Config.for_model(...).with_corpus(dataset.vocab_size)`` gives it;
    TrainingDiverged. ``val_loss`` in nats, ``val_accuracy`` in per cent, both over all evaluation windows."""
    return carry_out(lambda: OneTrial(model_name, activation, config, dataset, trial, earlier), progress, checkpoints)[0]


class OneTrial:
    """A trial that trains alone, numbered from 1, at some iteration of its training, ``state``."""

    def __init__(
        self, model_name: str, activation: str, config: Config, dataset: Dataset, trial: int, earlier: Earlier | None = None
    ) -> None:
        earlier = earlier or {}
        start = next(iter(earlier.get("start", ())), None)
        model, self.history = untrained(model_name, activation, config, dataset, trial, start)
        self.model = with_remedies(model, self.history)
        self.teachers = Teachers(earlier["teacher"], self.history) if "teacher" in earlier else None
        self.state = TrialState(self.model, make_optimizer(nn.ModuleList(trained(self.model)), config), [self.history])

    def train(self, last: int) -> list[list[float]]:
        """Do the iterations up to ``last``; for each the loss in nats before it, in a list of one."""
        config, dataset, order = self.history.config, self.history.dataset, self.history.streams.order
        told = []
        for iteration in range(self.state.iteration + 1, last + 1):
            fork(trained(self.model)[0], self.history, iteration)
            batch = dataset.batch(config.batch_size, config.block_size, order)
            told.append([training_step(self.model, self.state.optimizer, *batch, iteration, config, self.teachers)])
        self.state.iteration = last
        return told

    def model_of(self, _: int) -> nn.Module:
        """The model that predicts, as a stack has several."""
        return predicting(self.model)


def carry_out(
    begin: Callable[[], OneTrial | TrialStack],
    progress: ProgressCallback | None,
    checkpoints: TrialCheckpoints | None,
    every: int = 1,
) -> list[TrainedTrial]:
    """Begin a trial or a stack, or go on with it, to its end. Losses are looked at after each ``every`` iterations."""
    started = time.perf_counter()
    with deterministic_arithmetic(), torch.enable_grad():
        work = begin()
        state, histories = work.state, work.state.histories
        if checkpoints:
            checkpoints.resume(state)
        config, end = histories[0].config, histories[0].config.max_iters
        stack = tuple(history.trial for history in histories) if state.stacked else ()
        # After these predictions are made. The end has its own, fuller evaluation.
        looked_at = {i for i in range(1, end) if i % config.eval_interval == 0 or i in histories[0].steps}
        for last in (i for i in range(state.iteration + 1, end + 1) if i % every == 0 or i == end or i in looked_at):
            first = state.iteration + 1
            for iteration, losses in enumerate(work.train(last), first):
                # All losses before anything else: who watches is told of an iteration only if it was finite in every trial.
                for history, loss in zip(histories, losses, strict=True):
                    check_loss(history, loss, iteration)
                    history.train_losses.append(loss)
                for k, history in enumerate(histories if iteration in looked_at else ()):
                    look(history, work.model_of(k), iteration)
                for history, loss in zip(histories, losses, strict=True):
                    if progress:
                        told = time.perf_counter()
                        progress(history.progress(iteration, loss, stack))
                        started += time.perf_counter() - told  # whoever watches may draw, which is no training
            if checkpoints and last < end and checkpoints.due():
                checkpoints.save(state, state.seconds + time.perf_counter() - started)
        trained = [finished_trial(history, work.model_of(k)) for k, history in enumerate(histories)]
    # Of a stack each has an equal share.
    seconds = (state.seconds + time.perf_counter() - started) / len(trained)
    return [replace(trial, seconds=seconds, stack=list(stack) or None) for trial in trained]


def untrained(
    model_name: str, activation: str, config: Config, dataset: Dataset, trial: int, start: Mapping[str, Tensor] | None = None
) -> tuple[nn.Module, TrialHistory]:
    """The model of trial ``trial`` (from 1) before its first step, with the weights of ``start`` if there is one, and what is
    that trial's own beside it."""
    # A bare configuration would build the model with the model's values and train it with the general ones.
    if not config.is_complete_for(model_name):
        raise ConfigError(
            f"this configuration is not complete for {model_name!r}; make it with "
            f"Config.for_model({model_name!r}, ...).with_corpus(dataset.vocab_size)"
        )
    # Before they fork all trials are the first.
    streams = streams_for_trial(config.seed, 1 if config.fork_share else trial, config.vary_streams, config.device)
    model = build_model(model_name, config, activation, streams=streams)
    if start:
        model.load_state_dict(start)
    # The first trial is the one that the others, a bit apart at the start, are compared with.
    if config.flips_bit and trial > 1 and not config.fork_share:
        flip_one_bit(model, config.seed + trial - 1)
    init_sha256 = sha256_of_tensors(dict(model.named_parameters()))
    kept = [predict_logits(model, dataset.windows.every(KEPT_BLOCK_STEP), config.block_size)]
    return model, TrialHistory(model_name, activation, config, dataset, trial, streams, init_sha256, kept)


def look(history: TrialHistory, model: nn.Module, iteration: int) -> None:
    """Make the predictions that are wanted of a trial after this iteration."""
    windows, block_size = history.dataset.windows, history.config.block_size
    if iteration % history.config.eval_interval == 0:
        history.val_losses.append(evaluate_loss(model, windows.every(CURVE_BLOCK_STEP), block_size))
    if iteration in history.steps:
        history.kept.append(predict_logits(model, windows.every(KEPT_BLOCK_STEP), block_size))


def check_loss(history: TrialHistory, loss: float, iteration: int, what: str = "loss became") -> None:
    """TrainingDiverged if a loss of this trial is no number."""
    if not math.isfinite(loss):
        place = f"{history.model_name} with {history.activation}, trial {history.trial}, iteration {iteration}"
        raise TrainingDiverged(f"the {what} {loss} for {place}; lower the learning rate")


def finished_trial(history: TrialHistory, model: nn.Module) -> TrainedTrial:
    """Score a trained model on all evaluation windows; ``seconds`` are left to the caller. Raises TrainingDiverged."""
    config, windows = history.config, history.dataset.windows
    logits = predict_logits(model, windows, config.block_size)  # (blocks, 256, V)
    kept = [*history.kept, logits[::KEPT_BLOCK_STEP]]
    curve_loss = cross_entropy(logits[::CURVE_BLOCK_STEP].flatten(0, 1), windows.every(CURVE_BLOCK_STEP).targets.flatten())
    logits, labels = logits.flatten(0, 1), windows.targets.flatten()
    val_loss = cross_entropy(logits, labels)
    # The last step was made after the last loss that was looked at.
    check_loss(history, val_loss, config.max_iters, what="validation loss is")
    val_curve = [((k + 1) * config.eval_interval, loss) for k, loss in enumerate(history.val_losses)]
    return TrainedTrial(
        trial=history.trial,
        seed=config.seed + history.trial - 1,
        train_loss_curve=loss_curve(history.train_losses, config.max_iters),
        val_loss_curve=[*val_curve, (config.max_iters, curve_loss)],
        val_loss=val_loss,
        val_accuracy=100 * (1 - error_rate(logits, labels)),
        seconds=0.0,
        init_sha256=history.init_sha256,
        logits=logits,
        steps=history.steps,
        step_logits=torch.stack(kept).flatten(1, 2),  # (S, blocks, 256, V) -> (S, tokens, V)
        # Copies: a stack shows its trials in one model, one after another.
        weights={name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()},
    )


def make_optimizer(model: nn.Module, config: Config, stacked: bool = False) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only: biases, norms and other vectors are not decayed.
    ``stacked``: the parameters of ``model`` have a dimension more in front, one entry for each model of a stack."""
    parameters, matrix = list(model.parameters()), 3 if stacked else 2
    groups = [
        {"params": [p for p in parameters if p.ndim >= matrix], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < matrix], "weight_decay": 0.0},
    ]
    # On the CPU the fused kernel rounds the last few numbers of a tensor otherwise than the rest (seen with torch 2.13), and
    # these all belong to the last trial of a stack: equal trials would end apart.
    kernel = {"foreach": True} if stacked and config.device == "cpu" else {"fused": True}
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(config.beta1, config.beta2), **kernel)


def learning_rate(iteration: int, config: Config) -> float:
    """Rate of iteration 1 ... max_iters: linear warm-up to the peak, then linear decay to zero."""
    warmup = min(config.warmup_iters, config.max_iters // 2)
    if iteration <= warmup:
        return config.learning_rate * iteration / warmup
    return config.learning_rate * (config.max_iters + 1 - iteration) / (config.max_iters + 1 - warmup)


def training_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    inputs: Tensor,
    targets: Tensor,
    iteration: int,
    config: Config,
    teachers: Teachers | None = None,
) -> float:
    """One step on inputs and targets (B, T); the cross-entropy in nats before the step, whatever is minimised."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(iteration, config)
    inputs, labels = inputs.to(config.device), targets.to(config.device).flatten()
    logits = [own(inputs).flatten(0, 1) for own in trained(model)]  # (B x T, V) each; of most trials one
    first, *others = losses(logits, labels, config, teachers(inputs) if teachers else None)
    optimizer.zero_grad(set_to_none=True)
    sum(others, first).backward()
    for own in trained(model):
        nn.utils.clip_grad_norm_(own.parameters(), config.grad_clip)
    optimizer.step()
    if isinstance(model, Averaged):
        model.follow(iteration)
    return (F.cross_entropy(logits[0].detach(), labels) if config.remedies else first).item()


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
