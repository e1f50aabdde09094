"""Where a trial, or a stack of trials, is: all that decides how training goes on, as tensors and back.

One that is put back to a saved state ends with the same bits as one that was never stopped: weights, both moments of
the optimiser, the three random streams (and with them the position in the data), and everything measured so far."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from repro_lib.config import Config
from repro_lib.data import Dataset
from repro_lib.models.determinism import STREAM_NAMES, Streams
from repro_lib.training.progress import Progress

# Points kept of the training curve, each the mean over its stretch of iterations.
CURVE_POINTS = 100
# Predictions are kept at step 0 and at this many steps spread evenly on a log scale, for every 16th evaluation block:
# enough to see when the trials part, and small beside the final predictions.
KEPT_STEPS = 7
# What AdamW keeps of each parameter: its count of steps, and the moments.
_OF_PARAMETER = ("step", "exp_avg", "exp_avg_sq")
# How the names of those tensors begin that are one trial's own; all others are of the model and its optimiser.
_OF_HISTORY = ("streams.", "losses.", "kept")


@dataclass
class TrialHistory:
    """What is one trial's own while it trains: which it is (from 1), its random streams, and what was seen of it so far.

    ``kept``: the predictions (blocks, 256, V) after those of ``steps`` that are reached, the first from before training.
    Losses in nats: one for each iteration, and on the validation text one for each ``eval_interval`` iterations."""

    model_name: str
    activation: str
    config: Config
    dataset: Dataset
    trial: int
    streams: Streams
    init_sha256: str
    kept: list[Tensor]
    train_losses: list[float] = field(default_factory=list)
    val_losses: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.steps = kept_steps(self.config.max_iters)

    def progress(self, iteration: int, loss: float, stack: tuple[int, ...] = ()) -> Progress:
        """Where the trial is after this iteration, its newest look included."""
        val_loss, end = self.val_losses[-1] if self.val_losses else None, self.config.max_iters
        kept = self.kept[-1] if iteration in self.steps and iteration < end else None
        what = (self.model_name, self.activation, self.trial, self.config.trials)
        return Progress(*what, iteration, end, loss, val_loss, kept, stack)

    def tensors(self) -> dict[str, Tensor]:
        """All that changes in training, as named tensors."""
        state = {f"streams.{name}": getattr(self.streams, name).get_state() for name in STREAM_NAMES}
        # float64, as Python has them: a curve that was saved half-way is to the bit that of a trial that was not.
        for name in ("train_losses", "val_losses"):
            state[f"losses.{name}"] = torch.tensor(getattr(self, name), dtype=torch.float64)
        return state | {"kept": torch.stack(self.kept)}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put it to what ``tensors`` gave."""
        for name in STREAM_NAMES:
            getattr(self.streams, name).set_state(tensors[f"streams.{name}"])
        self.train_losses, self.val_losses = (tensors[f"losses.{name}"].tolist() for name in ("train_losses", "val_losses"))
        self.kept = list(tensors["kept"])


@dataclass
class TrialState:
    """A trial after ``iteration`` steps; or, ``stacked``, several that train as one.

    In a stack every tensor has a dimension more in front, an entry for each trial; the count of the optimiser has not.
    ``histories``: what is each trial's own. ``seconds``: what the work took in processes that are gone."""

    model: nn.Module
    optimizer: torch.optim.AdamW
    histories: Sequence[TrialHistory]
    stacked: bool = False
    iteration: int = 0
    seconds: float = 0.0

    def tensors(self) -> dict[str, Tensor]:
        """The state as named tensors on the CPU; some are the trial's own, not copies."""
        state = {f"weights.{name}": tensor for name, tensor in self.model.state_dict().items()}
        for k, moments in self.optimizer.state_dict()["state"].items():
            state |= {f"optimizer.{k}.{name}": moments[name] for name in _OF_PARAMETER}
        own = [history.tensors() for history in self.histories]
        state |= {name: torch.stack([of[name] for of in own]) for name in own[0]} if self.stacked else own[0]
        return {name: tensor.detach().cpu() for name, tensor in state.items()}

    def largest_bytes(self) -> int:
        """What the tensors of this state take at most, at whatever iteration."""
        first = self.histories[0]
        weights_and_moments = 3 * sum(tensor.nbytes for tensor in self.model.state_dict().values())
        kept = len(first.steps) * first.kept[0].nbytes
        # Two losses of 8 bytes for each iteration are the most there can be; the streams take 5 KB each.
        return weights_and_moments + len(self.histories) * (kept + 16 * first.steps[-1] + 2**16)

    def begins_like(self, tensors: Mapping[str, Tensor]) -> bool:
        """Whether a saved state began with the predictions that this one has before its first step, bit by bit."""
        # They hang on the initial weights and on how this machine rounds, which the name of its processor does not tell.
        return all(torch.equal(self._own(tensors, k)["kept"][0], own.kept[0]) for k, own in enumerate(self.histories))

    def restore(self, tensors: Mapping[str, Tensor], iteration: int) -> None:
        """Put this state, as it was before its first step, to what ``tensors`` gave after ``iteration`` steps."""
        weights = {name.removeprefix("weights."): tensor for name, tensor in tensors.items() if name.startswith("weights.")}
        self.model.load_state_dict(weights)
        groups = self.optimizer.state_dict()["param_groups"]
        # Copies: the optimiser changes them in place, and what was read from a file stays as it was read.
        moments = {
            k: {name: tensors[f"optimizer.{k}.{name}"].clone() for name in _OF_PARAMETER}
            for k in range(sum(len(group["params"]) for group in groups))
        }
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        for k, history in enumerate(self.histories):
            history.restore(self._own(tensors, k))
        self.iteration = iteration

    def _own(self, tensors: Mapping[str, Tensor], k: int) -> Mapping[str, Tensor]:
        # What the history of entry ``k`` of a stack, counted from 0, saved.
        if not self.stacked:
            return tensors
        # Copies: torch 2.13 takes the memory of a view for that of the whole tensor when it sets a generator's state.
        return {name: tensor[k].clone() for name, tensor in tensors.items() if name.startswith(_OF_HISTORY)}


def kept_steps(max_iters: int) -> list[int]:
    """The steps after which predictions are kept: 0, then evenly spread on a log scale from 1 to ``max_iters``."""
    return sorted({0} | {round(max_iters ** (k / (KEPT_STEPS - 1))) for k in range(KEPT_STEPS)})


def loss_curve(losses: Sequence[float], max_iters: int) -> list[tuple[int, float]]:
    """(last iteration of a stretch, its mean loss): a run of any length keeps about 100 points."""
    stretch = math.ceil(max_iters / CURVE_POINTS)
    ends = [*range(stretch, len(losses), stretch), len(losses)]
    return [(end, float(np.mean(losses[start:end]))) for start, end in zip([0, *ends], ends, strict=False)]
