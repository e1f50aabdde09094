"""Where a trial, or a stack of trials, is: all that decides how training goes on, as tensors and back.

One that is put back to a saved state ends with the same bits as one that was never stopped: weights, both moments of
the optimiser, the three random streams (and with them the position in the data), and everything measured so far.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from repro_lib.models.determinism import STREAM_NAMES, Streams

# Points kept of the training curve, each the mean over its stretch of iterations.
CURVE_POINTS = 100
_MOMENTS = ("exp_avg", "exp_avg_sq")
# How the names of those tensors begin that are one trial's own; all others are of the model and its optimiser.
_OF_HISTORY = ("streams.", "losses.", "kept")


class LossCurve:
    """The training loss, averaged over stretches so that a run of any length keeps about 100 points."""

    def __init__(self, iterations: int) -> None:
        self.stretch = math.ceil(iterations / CURVE_POINTS)
        self.means: list[float] = []
        self.rest: list[float] = []

    def add(self, loss: float) -> None:
        """The loss of the next iteration."""
        self.rest.append(loss)
        if len(self.rest) == self.stretch:
            self.means.append(float(np.mean(self.rest)))
            self.rest.clear()

    def points(self) -> list[tuple[int, float]]:
        """(last iteration of the stretch, its mean loss)."""
        whole = [((k + 1) * self.stretch, mean) for k, mean in enumerate(self.means)]
        done = len(self.means) * self.stretch + len(self.rest)
        return [*whole, (done, float(np.mean(self.rest)))] if self.rest else whole


@dataclass
class TrialHistory:
    """What is one trial's own while it trains: its random streams, and what was seen of it so far.

    ``kept``: the predictions (blocks, 256, V) after those of ``steps`` that are reached, the first from before training.
    ``val_losses``: one for each ``eval_interval`` iterations.
    """

    streams: Streams
    init_sha256: str
    steps: Sequence[int]
    eval_interval: int
    train_curve: LossCurve
    val_losses: list[float]
    kept: list[Tensor]

    @property
    def val_curve(self) -> list[tuple[int, float]]:
        """(iteration, nats) as far as it is known."""
        return [((k + 1) * self.eval_interval, loss) for k, loss in enumerate(self.val_losses)]

    def tensors(self) -> dict[str, Tensor]:
        """All of it as named tensors."""
        state = {f"streams.{name}": getattr(self.streams, name).get_state() for name in STREAM_NAMES}
        losses = {"means": self.train_curve.means, "rest": self.train_curve.rest, "validation": self.val_losses}
        # float64, as Python has them: a curve that was saved half-way is to the bit that of a trial that was not.
        state |= {f"losses.{name}": torch.tensor(values, dtype=torch.float64) for name, values in losses.items()}
        return state | {"kept": torch.stack(self.kept)}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put it to what ``tensors`` gave."""
        for name in STREAM_NAMES:
            getattr(self.streams, name).set_state(tensors[f"streams.{name}"])
        self.train_curve.means, self.train_curve.rest, self.val_losses = (
            tensors[f"losses.{name}"].tolist() for name in ("means", "rest", "validation")
        )
        self.kept = list(tensors["kept"])


@dataclass
class TrialState:
    """A trial after ``iteration`` steps; or, ``stacked``, several that train as one.

    In a stack every tensor has a dimension more in front, an entry for each trial; the count of the optimiser has not.
    ``histories``: what is each trial's own. ``seconds``: what the work took in processes that are gone.
    """

    model: nn.Module
    optimizer: torch.optim.AdamW
    histories: Sequence[TrialHistory]
    stacked: bool = False
    iteration: int = 0
    seconds: float = 0.0

    def tensors(self) -> dict[str, Tensor]:
        """The state as named tensors on the CPU; some are the trial's own, not copies."""
        state = {f"weights.{name}": tensor for name, tensor in self.model.state_dict().items()}
        for k, parameter in enumerate(self._parameters()):
            moments = self.optimizer.state[parameter]
            state |= {f"optimizer.{k}.{name}": moments[name] for name in ("step", *_MOMENTS)}
        own = [history.tensors() for history in self.histories]
        state |= {name: torch.stack([of[name] for of in own]) for name in own[0]} if self.stacked else own[0]
        return {name: tensor.detach().cpu() for name, tensor in state.items()}

    def largest_bytes(self) -> int:
        """What the tensors of this state take at most, at whatever iteration."""
        first = self.histories[0]
        weights_and_moments = 3 * sum(tensor.nbytes for tensor in self.model.state_dict().values())
        kept = len(first.steps) * first.kept[0].nbytes
        # Two numbers of 8 bytes for each iteration are more than all curves hold; the streams take 5 KB each.
        return weights_and_moments + len(self.histories) * (kept + 16 * first.steps[-1] + 2**16)

    def begins_like(self, tensors: Mapping[str, Tensor]) -> bool:
        """Whether a saved state began with the predictions that this one has before its first step, bit by bit.

        They hang on the initial weights and on how this machine rounds, which the name of its processor does not tell.
        """
        return all(torch.equal(self._own(tensors, k)["kept"][0], own.kept[0]) for k, own in enumerate(self.histories))

    def restore(self, tensors: Mapping[str, Tensor], iteration: int) -> None:
        """Put this state, as it was before its first step, to what ``tensors`` gave after ``iteration`` steps."""
        weights = {name.removeprefix("weights."): tensor for name, tensor in tensors.items() if name.startswith("weights.")}
        self.model.load_state_dict(weights)
        fresh = self.optimizer.state_dict()
        # Copies: the optimiser changes them in place, and what was read from a file stays as it was read.
        moments = {
            k: {name: tensors[f"optimizer.{k}.{name}"].clone() for name in ("step", *_MOMENTS)}
            for k in range(len(self._parameters()))
        }
        self.optimizer.load_state_dict({"state": moments, "param_groups": fresh["param_groups"]})
        for k, history in enumerate(self.histories):
            history.restore(self._own(tensors, k))
        self.iteration = iteration

    def _own(self, tensors: Mapping[str, Tensor], k: int) -> Mapping[str, Tensor]:
        """What the history of entry ``k`` of a stack, counted from 0, saved."""
        if not self.stacked:
            return tensors
        # Copies: torch 2.13 takes the memory of a view for that of the whole tensor when it sets a generator's state.
        return {name: tensor[k].clone() for name, tensor in tensors.items() if name.startswith(_OF_HISTORY)}

    def _parameters(self) -> list[nn.Parameter]:
        """In the optimiser's order."""
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
