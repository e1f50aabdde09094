"""Training of S trials of a cell as one: a GPU that is far too large for one small model is filled by many.

Each trial has its own initial weights, data order, dropout masks, gradient clipping and optimiser state, all drawn as
``trainer`` draws them: initial weights are bit-equal to those of sequential training, everything later up to the rounding of
batched products. The same stack gives the same bits. Built and tested on CPUs; never run on a GPU so far."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from repro_lib.config import Config
from repro_lib.data import Dataset, windows_at
from repro_lib.models.stacking import StackedModel
from repro_lib.training.checkpoints import TrialCheckpoints
from repro_lib.training.progress import ProgressCallback
from repro_lib.training.state import TrialState
from repro_lib.training.trainer import TrainedTrial, carry_out, learning_rate, make_optimizer, untrained

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
    Raises StackTooLarge where the device has too little memory."""
    try:
        stack_of = partial(TrialStack, model_name, activation, config, dataset, trials)
        return carry_out(stack_of, progress, checkpoints, LOOK_EVERY[config.device])
    except torch.OutOfMemoryError as error:
        raise StackTooLarge(
            f"{len(trials)} trials of {model_name} at once do not fit into the memory of the device; ask for fewer trials "
            "first and for more afterwards: those that are there are kept, and only the missing ones train together"
        ) from error


class TrialStack:
    """S trials of a cell, numbered from 1, at some iteration of their training, ``state``."""

    def __init__(self, model_name: str, activation: str, config: Config, dataset: Dataset, trials: Sequence[int]) -> None:
        self.config, self.dataset, self.text = config, dataset, dataset.train.to(config.device)
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

    def train(self, last: int) -> list[list[float]]:
        """Do the iterations up to ``last``; for each the S losses in nats before it."""
        iterations, shape = range(self.state.iteration + 1, last + 1), (self.config.batch_size, self.config.block_size)
        orders = [history.streams.order for history in self.state.histories]
        drawn = [torch.stack([self.dataset.offsets(*shape, order) for order in orders]) for _ in iterations]
        offsets = torch.stack(drawn).to(self.text.device)  # (iterations, S, B), moved at once
        losses = [self._step(iteration, own) for iteration, own in zip(iterations, offsets, strict=True)]
        self.state.iteration = last
        return torch.stack(losses).tolist()  # waits for a GPU, once

    def model_of(self, k: int) -> nn.Module:
        """The k-th trial (0-based) as a model of its own, with the weights it has now; valid until the next call."""
        self._viewer.load_state_dict(self.stacked.weights_of(k))
        return self._viewer

    def _step(self, iteration: int, offsets: Tensor) -> Tensor:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(iteration, self.config)
        inputs, targets = windows_at(self.text, offsets, self.config.block_size)  # (S, B, T)
        self.stacked.draw_masks([history.streams.dropout for history in self.state.histories])
        losses, labelled = self._losses(inputs, targets)
        self.optimizer.zero_grad(set_to_none=True)
        losses.sum().backward()
        self._clip([p.grad for p in self.stacked.parameters() if p.grad is not None], self.config.grad_clip)
        self.optimizer.step()
        return labelled.detach()

    def _mean_losses(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        # What each trial minimises, and its cross-entropy: (S,) and (S,).
        # Only products and attention, and only in training: weights, optimiser, loss and predictions stay in float32.
        with torch.autocast(self.config.device, torch.bfloat16, enabled=self.config.bfloat16):
            logits = self.stacked(inputs)  # (S, B, T, V)
        both = logits.float().flatten(0, 2), targets.flatten()
        kinds = (self.config.label_smoothing, 0.0) if self.config.label_smoothing else (0.0,)
        losses = [F.cross_entropy(*both, reduction="none", label_smoothing=kind) for kind in kinds]
        means = [loss.view(len(logits), -1).mean(dim=1) for loss in losses]
        return means[0], means[-1]


def clip_each(gradients: list[Tensor], limit: float) -> None:
    """Scale the gradients of each of S models, stacked along the first dimension, to a norm of at most ``limit``, in place."""
    norms = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients]).norm(dim=0)  # (S,)
    # As torch.nn.utils.clip_grad_norm_ for one model.
    scales = (limit / (norms + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(scales.view(-1, *[1] * (gradient.ndim - 1)))
