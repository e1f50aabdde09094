"""What a notebook shows while it works, and what stays of it in the report."""

from __future__ import annotations

import contextlib
import html
import json
import os
import time
from pathlib import Path

from repro_lib.training import Progress, ProgressCallback

# The grid's worker names here a file in which it wants to read how far the training in its kernel is.
PROGRESS_FILE_VARIABLE = "REPRO_PROGRESS_FILE"
_SECONDS_BETWEEN_UPDATES = 0.4
_WIDTH, _HEIGHT = 640, 220
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


class LiveTraining:
    """A progress callback that draws a bar and the loss curves below the cell while training runs.

    It updates one plain HTML output instead of widgets, so that what remains in a saved notebook or a report is the
    finished picture and never a dead control. Under the grid it writes its progress to a file instead.
    """

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.last_update = 0.0
        self.curves: dict[int, list[tuple[int, float]]] = {}
        self.file = os.environ.get(PROGRESS_FILE_VARIABLE)
        self.handle = None

    def __call__(self, progress: Progress) -> None:
        self.curves.setdefault(progress.trial, []).append((progress.iteration, progress.train_loss))
        now = time.monotonic()
        finished = progress.done == progress.trials * progress.max_iters
        if now - self.last_update < _SECONDS_BETWEEN_UPDATES and not finished:
            return
        self.last_update = now
        if self.file:
            write_progress(Path(self.file), progress)
        if not self.file or finished:
            self._show(progress, now - self.started)

    def _show(self, progress: Progress, seconds: float) -> None:
        from IPython.display import HTML, display

        content = HTML(self._bar(progress, seconds) + self._curves(progress))
        if self.handle is None:
            self.handle = display(content, display_id=True)
        else:
            self.handle.update(content)

    def _bar(self, progress: Progress, seconds: float) -> str:
        # Trials that an earlier run left are not trained again, so the first one seen here need not be number 1.
        first = min(self.curves)
        to_train = progress.trials - first + 1
        done = progress.done - (first - 1) * progress.max_iters
        total = to_train * progress.max_iters
        left = seconds / done * (total - done)
        cell = html.escape(f"{progress.model} with {progress.activation}")
        if done == total:
            return f"<p>Trained {to_train} {'trial' if to_train == 1 else 'trials'} of {cell} in {seconds:.0f} s.</p>"
        val = "" if progress.val_loss is None else f", validation {progress.val_loss:.3f}"
        together = f" ({progress.together} at once)" if progress.together > 1 else ""
        return (
            f"<p><progress max='{total}' value='{done}' aria-label='training progress'></progress> {cell}, "
            f"trial {progress.trial} of {progress.trials}{together}, iteration {progress.iteration} of {progress.max_iters}: "
            f"loss {progress.train_loss:.3f}{val} nats; about {left:.0f} s left</p>"
        )

    def _curves(self, progress: Progress) -> str:
        """Training loss of every trial so far as one small SVG."""
        losses = [loss for curve in self.curves.values() for _, loss in curve]
        low, high = min(losses), max(losses)
        x_scale, y_scale = (_WIDTH - 60) / max(progress.max_iters, 1), (_HEIGHT - 50) / max(high - low, 1e-9)
        lines = []
        for trial, curve in self.curves.items():
            thinned = curve[:: max(1, len(curve) // 200)]
            points = " ".join(f"{50 + i * x_scale:.1f},{10 + (high - loss) * y_scale:.1f}" for i, loss in thinned)
            colour = _COLOURS[(trial - 1) % len(_COLOURS)]
            lines.append(f"<polyline points='{points}' fill='none' stroke='{colour}' stroke-width='1.5'/>")
        text = "font-family='sans-serif' font-size='12' fill='currentColor'"
        return (
            f"<svg viewBox='0 0 {_WIDTH} {_HEIGHT}' width='100%' style='max-width:{_WIDTH}px' role='img' "
            f"aria-label='Training loss by iteration, one line per trial, from {high:.2f} down to {low:.2f} nats'>"
            f"<text x='4' y='16' {text}>{high:.2f}</text><text x='4' y='{_HEIGHT - 40}' {text}>{low:.2f}</text>"
            f"<text x='50' y='{_HEIGHT - 8}' {text}>training loss (nats per character) by iteration, "
            f"0 to {progress.max_iters}; one line per trial</text>{''.join(lines)}</svg>"
        )


def write_progress_to(path: Path) -> ProgressCallback:
    """A progress callback that leaves each word about the training in a file, a few times a second."""
    last = 0.0

    def callback(progress: Progress) -> None:
        nonlocal last
        if time.monotonic() - last >= _SECONDS_BETWEEN_UPDATES:
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
        temporary.write_text(text)
        temporary.replace(path)
