"""Training of S trials of a cell as one: a GPU that is far too large for one small model is filled by many.

Each trial has its own initial weights, data order, dropout masks, gradient clipping and optimiser state, all drawn as
``trainer`` draws them: initial weights are bit-equal to those of sequential training, everything later up to the rounding of
batched products. The same stack gives the same bits. The optional parts of ``Config.execution`` change what
training computes with: ``bfloat16`` (matrix products and attention under autocast; weights, optimiser and loss stay in
float32), ``compile`` (torch.compile). Predictions are made as in sequential training, in float32.

Built and tested on CPUs; never run on a GPU so far.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from repro_lib.config import Config
from repro_lib.data import Dataset, windows_at
from repro_lib.models.determinism import deterministic_arithmetic
from repro_lib.models.stacking import StackedModel
from repro_lib.training.checkpoints import TrialCheckpoints
from repro_lib.training.progress import ProgressCallback
from repro_lib.training.state import TrialState
from repro_lib.training.trainer import (
    TrainedTrial,
    check_loss,
    finished_trial,
    is_looked_at,
    learning_rate,
    look,
    make_optimizer,
    progress_of,
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
    checkpoints: TrialCheckpoints | None = None,
) -> list[TrainedTrial]:
    """Train the trials (numbered from 1) together and score each on the evaluation windows.

    As ``train_trial`` for each of them, save that ``seconds`` is an equal share of the time of all. Raises TrainingDiverged
    for the first trial whose loss is no number: no other is touched by it, but a cell without that trial is no result.
    Raises StackTooLarge where the device has too little memory.
    """
    started = time.perf_counter()
    try:
        with deterministic_arithmetic():
            stack = TrialStack(model_name, activation, config, dataset, trials)
            if checkpoints:
                checkpoints.resume(stack.state)
            _train(stack, progress, checkpoints, started)
            finished = [
                finished_trial(history, stack.model_of(k), model_name, activation, config, dataset, trials[k])
                for k, history in enumerate(stack.state.histories)
            ]
    except torch.OutOfMemoryError as error:
        raise StackTooLarge(
            f"{len(trials)} trials of {model_name} at once do not fit into the memory of the device; ask for fewer trials "
            "first and for more afterwards: those that are there are kept, and only the missing ones train together"
        ) from error
    seconds = (stack.state.seconds + time.perf_counter() - started) / len(trials)
    return [replace(trial, seconds=seconds, stack=list(trials)) for trial in finished]


class TrialStack:
    """S trials of a cell, numbered from 1, at some iteration of their training, ``state``."""

    def __init__(self, model_name: str, activation: str, config: Config, dataset: Dataset, trials: Sequence[int]) -> None:
        self.model_name, self.activation, self.config, self.trials = model_name, activation, config, trials
        self.dataset, self.text = dataset, dataset.train.to(config.device)
        begun = [untrained(model_name, activation, config, dataset, trial) for trial in trials]
        models, histories = [model for model, _ in begun], [history for _, history in begun]
        self.stacked = StackedModel(models, (config.batch_size, config.block_size))
        self.optimizer = make_optimizer(self.stacked, config, stacked=True)
        self.state = TrialState(self.stacked, self.optimizer, histories, stacked=True)
        self._viewer = models[0]
        self._losses, self._clip = self._mean_losses, clip_each
        if config.compiled:
            # The compiler keeps eight versions of a function at most and then leaves it uncompiled: a process that trains
            # one cell after another starts each with none. What was compiled stays in its cache on the disk.
            torch.compiler.reset()
            # Deterministic: no kernel is chosen by timing it, which would round one way in one process and another in the next.
            settings: dict[str, Any] = {"dynamic": False, "options": {"deterministic": True}}
            self._losses, self._clip = torch.compile(self._mean_losses, **settings), torch.compile(clip_each, **settings)

    def train(self, last: int) -> Tensor:
        """Do the iterations up to ``last``; the losses in nats before each step, (iterations, S), on the device."""
        iterations, shape = range(self.state.iteration + 1, last + 1), (self.config.batch_size, self.config.block_size)
        orders = [history.streams.order for history in self.state.histories]
        drawn = [torch.stack([self.dataset.offsets(*shape, order) for order in orders]) for _ in iterations]
        offsets = torch.stack(drawn).to(self.text.device)  # (iterations, S, B), moved at once
        losses = [self._step(iteration, own) for iteration, own in zip(iterations, offsets, strict=True)]
        self.state.iteration = last
        return torch.stack(losses)

    def model_of(self, k: int) -> nn.Module:
        """The k-th trial (0-based) as a model of its own, with the weights it has now; valid until the next call."""
        self._viewer.load_state_dict(self.stacked.weights_of(k))
        return self._viewer

    def _step(self, iteration: int, offsets: Tensor) -> Tensor:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(iteration, self.config)
        inputs, targets = windows_at(self.text, offsets, self.config.block_size)  # (S, B, T)
        self.stacked.draw_masks([history.streams.dropout for history in self.state.histories])
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


def _train(stack: TrialStack, progress: ProgressCallback | None, checkpoints: TrialCheckpoints | None, started: float) -> None:
    """What is left of all iterations, and what is seen on the way."""
    state, config = stack.state, stack.config
    end, every = config.max_iters, LOOK_EVERY[config.device]
    looks = (i for i in range(state.iteration + 1, end + 1) if i % every == 0 or i == end or is_looked_at(i, config))
    for last in looks:
        first = state.iteration + 1
        for iteration, losses in enumerate(stack.train(last).tolist(), first):
            for trial, history, loss in zip(stack.trials, state.histories, losses, strict=True):
                check_loss(loss, stack.model_name, stack.activation, trial, iteration)
                history.train_curve.add(loss)
            if is_looked_at(iteration, config):
                for k, history in enumerate(state.histories):
                    look(history, stack.model_of(k), iteration, config, stack.dataset)
            if progress:
                _report(stack, iteration, losses, progress)
        if checkpoints and last < end and checkpoints.due():
            checkpoints.save(state, state.seconds + time.perf_counter() - started)


def _report(stack: TrialStack, iteration: int, losses: Sequence[float], progress: ProgressCallback) -> None:
    """Tell of every trial of the stack where it is."""
    for trial, history, loss in zip(stack.trials, stack.state.histories, losses, strict=True):
        about = (stack.model_name, stack.activation, stack.config, trial, iteration, loss)
        progress(progress_of(history, *about, tuple(stack.trials)))
