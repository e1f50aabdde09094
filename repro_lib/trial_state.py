"""Where a trial, or a stack of trials, is: all that decides how training goes on, as tensors and back.

One that is put back to a saved state ends with the same bits as one that was never stopped: weights, both moments of
the optimiser, the three random streams (and with them the position in the data), and everything measured so far.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from repro_lib.determinism import STREAM_NAMES, Streams

# Points kept of the training curve, each the mean over its stretch of iterations.
CURVE_POINTS = 100
_MOMENTS = ("exp_avg", "exp_avg_sq")
Layout = dict[str, tuple[torch.dtype, tuple[int, ...]]]


class StateError(ValueError):
    """A saved state that is not one of this trial; the message says what does not fit."""


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
class Course:
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
        """All of it as named tensors, as ``layout`` describes them."""
        state = {f"streams.{name}": getattr(self.streams, name).get_state() for name in STREAM_NAMES}
        losses = {"means": self.train_curve.means, "rest": self.train_curve.rest, "validation": self.val_losses}
        state |= {f"losses.{name}": torch.tensor(values, dtype=torch.float64) for name, values in losses.items()}
        return state | {"kept": torch.stack(self.kept)}

    def layout(self, iteration: int) -> Layout:
        """Type and shape of every tensor after ``iteration`` steps."""
        layout = {f"streams.{name}": _kind(getattr(self.streams, name).get_state()) for name in STREAM_NAMES}
        means, rest = divmod(iteration, self.train_curve.stretch)
        losses = {"means": means, "rest": rest, "validation": iteration // self.eval_interval}
        layout |= {f"losses.{name}": (torch.float64, (length,)) for name, length in losses.items()}
        kept = sum(step <= iteration for step in self.steps)
        return layout | {"kept": (torch.float32, (kept, *self.kept[0].shape))}

    def check(self, tensors: Mapping[str, Tensor]) -> None:
        """StateError if tensors of the right types and shapes cannot be those of this trial."""
        for name in STREAM_NAMES:
            try:
                torch.Generator(getattr(self.streams, name).device).set_state(tensors[f"streams.{name}"])
            except RuntimeError:
                raise StateError(f"the state of the random stream {name!r} is none that a generator can have") from None
        if not torch.equal(tensors["kept"][0], self.kept[0]):
            raise StateError("the predictions before training are others: it comes from another program or machine")

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put it to what ``tensors`` gave; they were checked."""
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
    ``courses``: what is each trial's own. ``seconds``: what the work took in processes that are gone.
    """

    model: nn.Module
    optimizer: torch.optim.AdamW
    courses: Sequence[Course]
    stacked: bool = False
    iteration: int = 0
    seconds: float = 0.0

    @property
    def init_sha256(self) -> str:
        """Digest of the initial weights, in a stack of those of all trials."""
        digests = [course.init_sha256 for course in self.courses]
        return hashlib.sha256("".join(digests).encode()).hexdigest() if self.stacked else digests[0]

    def tensors(self) -> dict[str, Tensor]:
        """The state as named tensors on the CPU, as ``layout`` describes them; some are the trial's own, not copies."""
        state = {f"weights.{name}": tensor for name, tensor in self.model.state_dict().items()}
        for k, parameter in enumerate(self._parameters()):
            moments = self.optimizer.state[parameter]
            state |= {f"optimizer.{k}.{name}": moments[name] for name in ("step", *_MOMENTS)}
        own = [course.tensors() for course in self.courses]
        state |= {name: torch.stack([of[name] for of in own]) for name in own[0]} if self.stacked else own[0]
        return {name: tensor.detach().cpu() for name, tensor in state.items()}

    def layout(self, iteration: int) -> Layout:
        """Type and shape of every tensor of this state after ``iteration`` steps."""
        layout = {f"weights.{name}": _kind(tensor) for name, tensor in self.model.state_dict().items()}
        for k, parameter in enumerate(self._parameters()):
            layout[f"optimizer.{k}.step"] = (torch.float32, ())
            layout |= {f"optimizer.{k}.{name}": _kind(parameter) for name in _MOMENTS}
        trials = (len(self.courses),) if self.stacked else ()
        own = self.courses[0].layout(iteration)
        return layout | {name: (dtype, (*trials, *shape)) for name, (dtype, shape) in own.items()}

    def largest_bytes(self) -> int:
        """What the tensors of this state take at most, at whatever iteration."""
        course = self.courses[0]
        last = self.layout(course.steps[-1])
        rest = 8 * course.train_curve.stretch * len(self.courses)
        return sum(dtype.itemsize * math.prod(shape) for dtype, shape in last.values()) + rest

    def restore(self, tensors: Mapping[str, Tensor], iteration: int) -> None:
        """Put this state, as it was before its first step, to a saved one after ``iteration`` steps.

        Raises StateError if it cannot be one of these trials, which then stay as they were.
        """
        self._check(tensors, iteration)
        weights = {name.removeprefix("weights."): tensor for name, tensor in tensors.items() if name.startswith("weights.")}
        self.model.load_state_dict(weights)
        fresh = self.optimizer.state_dict()
        # Copies: the optimiser changes them in place, and what was read from a file stays as it was read.
        moments = {
            k: {name: tensors[f"optimizer.{k}.{name}"].clone() for name in ("step", *_MOMENTS)}
            for k in range(len(self._parameters()))
        }
        self.optimizer.load_state_dict({"state": moments, "param_groups": fresh["param_groups"]})
        for k, course in enumerate(self.courses):
            course.restore(self._own(tensors, k))
        self.iteration = iteration

    def _check(self, tensors: Mapping[str, Tensor], iteration: int) -> None:
        last = self.courses[0].steps[-1]
        if not 1 <= iteration < last:
            raise StateError(f"iteration {iteration} is not within a training of {last} iterations")
        wanted = self.layout(iteration)
        for name in sorted(wanted.keys() | tensors.keys()):
            if name not in wanted or name not in tensors:
                raise StateError(f"the tensor {name!r} is {'unknown' if name in tensors else 'missing'}")
            if _kind(tensors[name]) != wanted[name]:
                raise StateError(f"the tensor {name!r} is of type and shape {_kind(tensors[name])}, expected {wanted[name]}")
            if not torch.isfinite(tensors[name]).all():
                raise StateError(f"the tensor {name!r} contains NaN or infinity")
            if name.endswith(".step") and tensors[name] != iteration:
                raise StateError(f"the optimiser counts {tensors[name].item():g} steps after iteration {iteration}")
            if name.endswith(".exp_avg_sq") and (tensors[name] < 0).any():
                raise StateError(f"the tensor {name!r} holds means of squares below 0")
        for k, course in enumerate(self.courses):
            course.check(self._own(tensors, k))

    def _own(self, tensors: Mapping[str, Tensor], k: int) -> Mapping[str, Tensor]:
        """What the course of the k-th trial (0-based) saved."""
        if not self.stacked:
            return tensors
        # Copies: torch 2.13 takes the memory of a view for that of the whole tensor when it sets a generator's state.
        return {name: tensors[name][k].clone() for name in self.courses[0].layout(1)}

    def _parameters(self) -> list[nn.Parameter]:
        """In the optimiser's order."""
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]


def _kind(tensor: Tensor) -> tuple[torch.dtype, tuple[int, ...]]:
    return tensor.dtype, tuple(tensor.shape)
