"""What a training says of itself while it works, to whoever watches and to its user. A terminal reads it without torch."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

# The grid's worker names here a file in which it wants to read how far the training in its kernel is.
PROGRESS_FILE_VARIABLE = "REPRO_PROGRESS_FILE"
# A browser follows redraws this far apart without falling behind, and training does not wait for them.
SECONDS_BETWEEN_UPDATES = 0.4

# What a user should know of work that goes on, starts again or is not saved.
_logger = logging.getLogger("repro_lib")


@dataclass(frozen=True)
class Progress:
    """Where a trial is, for whoever watches. ``trial`` counts from 1; losses in nats per character.

    ``kept``: logits (kept blocks, 256, V), where predictions were kept after this iteration. ``stack``: the numbers of the
    trials that train as one, this one among them; empty where it trains alone. A callback that raises ends the training."""

    model: str
    activation: str
    trial: int
    trials: int
    iteration: int
    max_iters: int
    train_loss: float
    val_loss: float | None
    kept: Tensor | None = field(default=None, repr=False, compare=False)
    stack: tuple[int, ...] = ()

    @property
    def together(self) -> int:
        """How many trials train as one, this one among them."""
        return max(1, len(self.stack))

    @property
    def done(self) -> int:
        """Iterations of the cell that are through, those of all its trials counted, of trials x max_iters."""
        stack = self.stack or (self.trial,)
        before = (stack[0] - 1) * self.max_iters + len(stack) * (self.iteration - 1)
        return before + stack.index(self.trial) + 1


ProgressCallback = Callable[[Progress], None]


def tell(sentence: str) -> None:
    """Tell the user: a warning of the logger ``repro_lib``, or, where nobody has set up logging, printed."""
    if _logger.hasHandlers():
        _logger.warning("%s", sentence)
    else:
        # Not by logging's own last resort: that writes to stderr, which a notebook and its report show as an error.
        print(sentence, flush=True)


@contextlib.contextmanager
def listening() -> Iterator[list[str]]:
    """The sentences that are told within the block, for whoever passes them on himself."""
    heard: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())
    _logger.addHandler(handler)
    try:
        yield heard
    finally:
        _logger.removeHandler(handler)


def write_progress_to(path: Path) -> ProgressCallback:
    """A progress callback that leaves each word about the training in a file, a few times a second."""
    last = 0.0

    def callback(progress: Progress) -> None:
        nonlocal last
        if time.monotonic() - last >= SECONDS_BETWEEN_UPDATES:
            last = time.monotonic()
            write_progress(path, progress)

    return callback


def write_progress(path: Path, progress: Progress) -> None:
    """Leave the progress where the grid reads it; a grid that has gone away is no reason to stop training."""
    place = {name: getattr(progress, name) for name in ("trial", "trials", "iteration", "max_iters", "together", "done")}
    text = json.dumps(place | {"loss": progress.train_loss})
    if path.exists() and not path.is_file():
        return
    # Renamed into place, but not flushed to the disk as results are: nobody needs it after a crash.
    temporary = path.with_suffix(".tmp")
    with contextlib.suppress(OSError):
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)


def read_progress(file: Path) -> dict[str, Any]:
    """What the training in a kernel last said about itself; empty before its first word."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def progress_share(file: Path) -> float:
    """How much of its work the step that writes this file has done, 0 to 1."""
    place = read_progress(file)
    return place["done"] / (place["trials"] * place["max_iters"]) if place else 0.0
