"""What a notebook shows while it trains, and the button with which an empty store gets its first cells."""

import html
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from repro_lib.analysis.notes import NO_RESULTS, say
from repro_lib.config import Config
from repro_lib.plots.style import COLOURS
from repro_lib.store.store import Store, results_store
from repro_lib.training.experiment import run_experiment
from repro_lib.training.progress import PROGRESS_FILE_VARIABLE, SECONDS_BETWEEN_UPDATES, Progress, write_progress

_WIDTH, _HEIGHT = 640, 220
# More points than this on one curve are narrower than a pixel.
_POINTS = 200
# What the button of an empty store trains: two cells, so that there is something to compare.
FIRST_MODEL, FIRST_ACTIVATIONS = "charlm", ("relu", "gelu")
# One look per trial; the colour is that of the activation, as in every figure.
_DASHES = ("none", "7 3", "2 2", "9 3 2 3")


class LiveTraining:
    """A progress callback that draws a bar and the loss curves below the cell while training runs.

    Under the grid it writes its progress to a file instead. ``show`` takes the HTML where it belongs elsewhere.
    """

    # One plain HTML output instead of widgets, so that what remains in a saved notebook or a report is the finished picture
    # and never a dead control.
    def __init__(self, show: Callable[[str], object] | None = None) -> None:
        self.show = show or self._display
        self.started = time.monotonic()
        self.last_update = -math.inf
        self.curves: dict[int, list[tuple[int, float]]] = {}
        self.file = os.environ.get(PROGRESS_FILE_VARIABLE)
        self.handle = None

    def __call__(self, progress: Progress) -> None:
        self.curves.setdefault(progress.trial, []).append((progress.iteration, progress.train_loss))
        now = time.monotonic()
        over = progress.done == progress.trials * progress.max_iters
        if now - self.last_update < SECONDS_BETWEEN_UPDATES and not over:
            return
        self.last_update = now
        if self.file:
            write_progress(Path(self.file), progress)
        if over or not self.file:
            bar, curves = self._bar(progress, now - self.started), self._curves(progress)
            # What follows in a notebook draws the finished curves with axes; these stay for who wants to see them.
            self.show(f"<details><summary>{bar}</summary>{curves}</details>" if over else f"<p>{bar}</p>{curves}")

    def _display(self, content: str) -> None:
        from IPython.display import HTML, display

        if self.handle is None:
            self.handle = display(HTML(content), display_id=True)
        else:
            self.handle.update(HTML(content))

    def _bar(self, progress: Progress, seconds: float) -> str:
        # Trials that an earlier run left are not trained again, so the first one seen here need not be number 1.
        first = min(self.curves)
        to_train = progress.trials - first + 1
        done, total = progress.done - (first - 1) * progress.max_iters, to_train * progress.max_iters
        cell = html.escape(f"{progress.model} with {progress.activation}")
        if done == total:
            return f"Trained {to_train} {'trial' if to_train == 1 else 'trials'} of {cell} in {seconds:.0f} s."
        val = "" if progress.val_loss is None else f", validation {progress.val_loss:.3f}"
        together = f" ({progress.together} at once)" if progress.together > 1 else ""
        return (
            f"<progress max='{total}' value='{done}' aria-label='training progress'></progress> {cell}, "
            f"trial {progress.trial} of {progress.trials}{together}, iteration {progress.iteration} of {progress.max_iters}: "
            f"loss {progress.train_loss:.3f}{val} nats; about {seconds / done * (total - done):.0f} s left"
        )

    def _curves(self, progress: Progress) -> str:
        colour = COLOURS.get(progress.activation, "currentColor")
        losses = [loss for curve in self.curves.values() for _, loss in curve]
        low, high = min(losses), max(losses)
        x_scale, y_scale = (_WIDTH - 60) / max(progress.max_iters, 1), (_HEIGHT - 50) / max(high - low, 1e-9)
        lines = []
        for trial, curve in self.curves.items():
            thinned = curve[:: max(1, len(curve) // _POINTS)]
            points = " ".join(f"{50 + i * x_scale:.1f},{10 + (high - loss) * y_scale:.1f}" for i, loss in thinned)
            look = f"stroke='{colour}' stroke-width='1.5' stroke-dasharray='{_DASHES[(trial - 1) % len(_DASHES)]}'"
            lines.append(f"<polyline points='{points}' fill='none' {look}/>")
        text = "font-family='sans-serif' font-size='12' fill='currentColor'"
        return (
            f"<svg viewBox='0 0 {_WIDTH} {_HEIGHT}' width='100%' style='max-width:{_WIDTH}px' role='img' "
            f"aria-label='Training loss by iteration, one line per trial, from {high:.2f} down to {low:.2f} nats'>"
            f"<text x='4' y='16' {text}>{high:.2f}</text><text x='4' y='{_HEIGHT - 40}' {text}>{low:.2f}</text>"
            f"<text x='50' y='{_HEIGHT - 8}' {text}>training loss (nats per token) by iteration, "
            f"0 to {progress.max_iters}; one line per trial</text>{''.join(lines)}</svg>"
        )


def first_step(store: Store, corpus: str = "shakespeare", profile: str = "quick") -> Any:
    """What a notebook shows where there are no results: the command for the grid, and a button for the first two cells."""
    own = "" if store.folder.resolve() == results_store().folder.resolve() else f" --results-dir {store.folder}"
    words = say(f"{NO_RESULTS}{own} in a terminal; it trains the whole grid and fills {store.folder}.")
    # Under the grid nobody is there to press a button.
    if PROGRESS_FILE_VARIABLE in os.environ:
        return words
    # Here, because it takes 0.4 s to import, and every notebook that trains imports this module.
    import ipywidgets

    names = " and ".join(FIRST_ACTIVATIONS)
    button = ipywidgets.Button(description=f"Train {FIRST_MODEL} with {names} now", button_style="primary")
    button.layout.width = "auto"
    shown = ipywidgets.HTML()

    def train(_: object) -> None:
        button.disabled, trained = True, ""
        try:
            for activation in FIRST_ACTIVATIONS:
                # Bound now: the picture of the second cell goes below that of the first.
                follow = LiveTraining(show=lambda picture, above=trained: setattr(shown, "value", above + picture))
                config = Config.for_model(FIRST_MODEL, profile, corpus=corpus)
                run_experiment(FIRST_MODEL, activation, config, results_dir=store.folder, progress=follow)
                trained = shown.value
            shown.value += "<p>Done. Choose <em>Run &gt; Run All Cells</em> once more.</p>"
        except (ValueError, RuntimeError, OSError, KeyboardInterrupt) as problem:
            # An exception in a button's handler ends in a log that nobody reads. Of an interruption a note says where it was.
            shown.value = f"<p>{html.escape('; '.join(getattr(problem, '__notes__', [str(problem)])))}</p>"
            button.disabled = False

    button.on_click(train)
    return ipywidgets.VBox([ipywidgets.HTML(words._repr_html_()), button, shown])
