"""Training of S trials of a cell as one: a GPU that is far too large for one small model is filled by many.

Each trial has its own initial weights, data order, dropout masks, gradient clipping and optimiser state, all drawn as
``repro_lib.training`` draws them: initial weights are bit-equal to those of sequential training, everything later up to the
rounding of batched products. The same stack gives the same bits. The optional parts of ``Config.execution`` change what
training computes with: ``bfloat16`` (matrix products and attention under autocast; weights, optimiser and loss stay in
float32), ``compile`` (torch.compile). Predictions are made as in sequential training, in float32.

Built and tested on CPUs; never run on a GPU so far.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from repro_lib.config import Config
from repro_lib.data import Dataset, windows_at
from repro_lib.determinism import deterministic_arithmetic, sha256_of_tensors
from repro_lib.models.stacking import StackedModel
from repro_lib.training import (
    CURVE_BLOCK_STEP,
    KEPT_BLOCK_STEP,
    Course,
    LossCurve,
    Progress,
    ProgressCallback,
    TrainedTrial,
    check_loss,
    evaluate_loss,
    finished_trial,
    kept_steps,
    learning_rate,
    make_optimizer,
    predict_logits,
    untrained,
)

# Iterations between two looks at the losses. A look waits for a GPU, which otherwise is given work ahead.
LOOK_EVERY = {"cpu": 1, "cuda": 20}


class StackTooLarge(RuntimeError):
    """The trials do not fit into the memory of the device together; the message says what to do."""


def train_stack(
    model_name: str,
    activation: str,
    config: Config,
    dataset: Dataset,
    trials: Sequence[int],
    progress: ProgressCallback | None = None,
) -> list[TrainedTrial]:
    """Train the trials (0-based numbers) together and score each on the evaluation windows.

    As ``train_trial`` for each of them, save that ``seconds`` is an equal share of the time of all. Raises TrainingDiverged
    for the first trial whose loss is no number: no other is touched by it, but a cell without that trial is no result.
    Raises StackTooLarge where the device has too little memory.
    """
    started = time.perf_counter()
    config = config.resolved_for(model_name).with_corpus(dataset.vocab_size)
    try:
        with deterministic_arithmetic():
            stack = TrialStack(model_name, activation, config, dataset, trials)
            courses = _train(stack, progress, started)
            finished = [
                finished_trial(stack.model_of(k), model_name, activation, config, dataset, trial, courses[k])
                for k, trial in enumerate(trials)
            ]
    except torch.OutOfMemoryError as error:
        raise StackTooLarge(
            f"{len(trials)} trials of {model_name} at once do not fit into the memory of the device; ask for fewer trials "
            "first and for more afterwards: those that are there are kept, and only the missing ones train together"
        ) from error
    seconds = (time.perf_counter() - started) / len(trials)
    return [replace(trial, seconds=seconds) for trial in finished]


class TrialStack:
    """S trials of a cell at some iteration of their training. ``init_sha256``: digests of their initial weights."""

    def __init__(self, model_name: str, activation: str, config: Config, dataset: Dataset, trials: Sequence[int]) -> None:
        self.model_name, self.activation, self.config, self.trials = model_name, activation, config, trials
        self.dataset, self.text = dataset, dataset.train.to(config.device)
        models, self.streams = zip(*(untrained(model_name, activation, config, trial) for trial in trials), strict=True)
        self.init_sha256 = [sha256_of_tensors(dict(model.named_parameters())) for model in models]
        self.stacked = StackedModel(models, (config.batch_size, config.block_size))
        self.optimizer = make_optimizer(self.stacked, config, stacked=True)
        self._viewer = models[0]
        self._losses, self._clip = self._mean_losses, clip_each
        if config.compiled:
            # The compiler keeps eight versions of a function at most and then leaves it uncompiled: a process that trains
            # one cell after another starts each with none. What was compiled stays in its cache on the disk.
            torch.compiler.reset()
            self._losses = torch.compile(self._mean_losses, dynamic=False)
            self._clip = torch.compile(clip_each, dynamic=False)

    def train(self, first: int, last: int) -> Tensor:
        """Do iterations ``first`` to ``last``; the losses in nats before each step, (iterations, S), on the device."""
        iterations, shape = range(first, last + 1), (self.config.batch_size, self.config.block_size)
        drawn = [torch.stack([self.dataset.offsets(*shape, streams.order) for streams in self.streams]) for _ in iterations]
        offsets = torch.stack(drawn).to(self.text.device)  # (iterations, S, B), moved at once
        return torch.stack([self._step(iteration, offsets[iteration - first]) for iteration in iterations])

    def model_of(self, k: int) -> nn.Module:
        """The k-th trial (0-based) as a model of its own, with the weights it has now; valid until the next call."""
        self._viewer.load_state_dict(self.stacked.weights_of(k))
        return self._viewer

    def _step(self, iteration: int, offsets: Tensor) -> Tensor:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(iteration, self.config)
        inputs, targets = windows_at(self.text, offsets, self.config.block_size)  # (S, B, T)
        self.stacked.draw_masks([streams.dropout for streams in self.streams])
        losses = self._losses(inputs, targets)
        self.optimizer.zero_grad(set_to_none=True)
        losses.sum().backward()
        self._clip([p.grad for p in self.stacked.parameters() if p.grad is not None], self.config.grad_clip)
        self.optimizer.step()
        return losses.detach()

    def _mean_losses(self, inputs: Tensor, targets: Tensor) -> Tensor:
        with torch.autocast(self.config.device, torch.bfloat16, enabled=self.config.bfloat16):
            logits = self.stacked(inputs)  # (S, B, T, V)
        losses = F.cross_entropy(logits.float().flatten(0, 2), targets.flatten(), reduction="none")
        return losses.view(len(self.trials), -1).mean(dim=1)


def clip_each(gradients: list[Tensor], limit: float) -> None:
    """Scale the gradients of each of S models, stacked along the first dimension, to a norm of at most ``limit``, in place."""
    norms = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients]).norm(dim=0)  # (S,)
    # As torch.nn.utils.clip_grad_norm_ for one model.
    scales = (limit / (norms + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(scales.view(-1, *[1] * (gradient.ndim - 1)))


def _train(stack: TrialStack, progress: ProgressCallback | None, started: float) -> list[Course]:
    """All iterations, and what is seen on the way."""
    config, trials, windows = stack.config, stack.trials, stack.dataset.windows
    curve_windows, kept_windows = windows.every(CURVE_BLOCK_STEP), windows.every(KEPT_BLOCK_STEP)
    courses = [Course(init_sha256, LossCurve(config.max_iters), [], [], started) for init_sha256 in stack.init_sha256]
    kept_at, evaluated_at = (
        set(kept_steps(config.max_iters)[:-1]),
        range(config.eval_interval, config.max_iters, config.eval_interval),
    )

    def keep_predictions() -> None:
        for k, course in enumerate(courses):
            course.kept.append(predict_logits(stack.model_of(k), kept_windows, config.block_size))

    keep_predictions()  # step 0: before any training
    first = 1
    looks = {
        *kept_at,
        *evaluated_at,
        *range(LOOK_EVERY[config.device], config.max_iters, LOOK_EVERY[config.device]),
        config.max_iters,
    }
    for last in sorted(looks - {0}):
        for iteration, losses in enumerate(stack.train(first, last).tolist(), first):
            for trial, course, loss in zip(trials, courses, losses, strict=True):
                check_loss(loss, stack.model_name, stack.activation, trial, iteration)
                course.train_curve.add(loss)
            if iteration in evaluated_at:
                for k, course in enumerate(courses):
                    loss = evaluate_loss(stack.model_of(k), curve_windows, config.block_size)
                    course.val_curve.append((iteration, loss))
            if iteration in kept_at:
                keep_predictions()
            if progress:
                _report(stack, courses, iteration, losses, progress)
        first = last + 1
    return courses


def _report(
    stack: TrialStack, courses: Sequence[Course], iteration: int, losses: Sequence[float], progress: ProgressCallback
) -> None:
    """Tell of every trial of the stack where it is."""
    for trial, course, loss in zip(stack.trials, courses, losses, strict=True):
        where = (trial + 1, stack.config.trials, iteration, stack.config.max_iters)
        val_loss = course.val_curve[-1][1] if course.val_curve else None
        progress(Progress(stack.model_name, stack.activation, *where, loss, val_loss, together=len(stack.trials)))
