"""What a notebook shows while it works, what one can move in a live kernel, and what stays of both in the report.

The only module that imports ipywidgets, and only where somebody can use them.
"""

from __future__ import annotations

import contextlib
import html
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro_lib.config import Config, ConfigError
from repro_lib.data import CorpusError
from repro_lib.experiment import run_experiment
from repro_lib.results import ResultError
from repro_lib.training import Progress, ProgressCallback, TrainingDiverged

if TYPE_CHECKING:
    from repro_lib.results import Store

if TYPE_CHECKING:
    # A grid imports this module for the progress of its workers; what follows takes seconds to import.
    from ipywidgets import Box, DOMWidget

    from repro_lib.analysis import Study
    from repro_lib.results import Store
    from repro_lib.what_ifs.definition import Parameter, WhatIf

# The grid's worker names here a file in which it wants to read how far the training in its kernel is.
PROGRESS_FILE_VARIABLE = "REPRO_PROGRESS_FILE"
_SECONDS_BETWEEN_UPDATES = 0.4
_WIDTH, _HEIGHT = 640, 220
# What the button of an empty store trains: two cells, so that there is something to compare.
FIRST_MODEL, FIRST_ACTIVATIONS = "charlm", ("relu", "gelu")
# One look per trial; the colour is that of the activation, as in every figure.
_DASHES = ("none", "7 3", "2 2", "9 3 2 3")


class LiveTraining:
    """A progress callback that draws a bar and the loss curves below the cell while training runs.

    It updates one plain HTML output instead of widgets, so that what remains in a saved notebook or a report is the
    finished picture and never a dead control. Under the grid it writes its progress to a file instead. ``show`` takes the
    HTML where it belongs elsewhere than below the cell.
    """

    def __init__(self, show: Callable[[str], object] | None = None) -> None:
        self.show = show
        self.started = time.monotonic()
        self.last_update = 0.0
        self.curves: dict[int, list[tuple[int, float]]] = {}
        self.file = os.environ.get(PROGRESS_FILE_VARIABLE)
        self.handle = None

    def __call__(self, progress: Progress) -> None:
        self.curves.setdefault(progress.trial, []).append((progress.iteration, progress.train_loss))
        now = time.monotonic()
        finished = _is_over(progress)
        if now - self.last_update < _SECONDS_BETWEEN_UPDATES and not finished:
            return
        self.last_update = now
        if self.file:
            write_progress(Path(self.file), progress)
        if not self.file or finished:
            self._show(progress, now - self.started)

    def _show(self, progress: Progress, seconds: float) -> None:
        from IPython.display import HTML, display

        bar, curves = self._bar(progress, seconds), self._curves(progress)
        # What follows in a notebook draws the finished curves with axes; these stay for who wants to see them.
        over = _is_over(progress)
        content = f"<details><summary>{bar}</summary>{curves}</details>" if over else f"<p>{bar}</p>{curves}"
        if self.show is not None:
            self.show(content)
        elif self.handle is None:
            self.handle = display(HTML(content), display_id=True)
        else:
            self.handle.update(HTML(content))

    def _bar(self, progress: Progress, seconds: float) -> str:
        # Trials that an earlier run left are not trained again, so the first one seen here need not be number 1.
        first = min(self.curves)
        to_train = progress.trials - first + 1
        done = progress.done - (first - 1) * progress.max_iters
        total = to_train * progress.max_iters
        left = seconds / done * (total - done)
        cell = html.escape(f"{progress.model} with {progress.activation}")
        if done == total:
            return f"Trained {to_train} {'trial' if to_train == 1 else 'trials'} of {cell} in {seconds:.0f} s."
        val = "" if progress.val_loss is None else f", validation {progress.val_loss:.3f}"
        together = f" ({progress.together} at once)" if progress.together > 1 else ""
        return (
            f"<progress max='{total}' value='{done}' aria-label='training progress'></progress> {cell}, "
            f"trial {progress.trial} of {progress.trials}{together}, iteration {progress.iteration} of {progress.max_iters}: "
            f"loss {progress.train_loss:.3f}{val} nats; about {left:.0f} s left"
        )

    def _curves(self, progress: Progress) -> str:
        """Training loss of every trial so far as one small SVG."""
        from repro_lib.plot_style import COLOURS

        colour = COLOURS.get(progress.activation, "currentColor")
        losses = [loss for curve in self.curves.values() for _, loss in curve]
        low, high = min(losses), max(losses)
        x_scale, y_scale = (_WIDTH - 60) / max(progress.max_iters, 1), (_HEIGHT - 50) / max(high - low, 1e-9)
        lines = []
        for trial, curve in self.curves.items():
            thinned = curve[:: max(1, len(curve) // 200)]
            points = " ".join(f"{50 + i * x_scale:.1f},{10 + (high - loss) * y_scale:.1f}" for i, loss in thinned)
            look = f"stroke='{colour}' stroke-width='1.5' stroke-dasharray='{_DASHES[(trial - 1) % len(_DASHES)]}'"
            lines.append(f"<polyline points='{points}' fill='none' {look}/>")
        text = "font-family='sans-serif' font-size='12' fill='currentColor'"
        return (
            f"<svg viewBox='0 0 {_WIDTH} {_HEIGHT}' width='100%' style='max-width:{_WIDTH}px' role='img' "
            f"aria-label='Training loss by iteration, one line per trial, from {high:.2f} down to {low:.2f} nats'>"
            f"<text x='4' y='16' {text}>{high:.2f}</text><text x='4' y='{_HEIGHT - 40}' {text}>{low:.2f}</text>"
            f"<text x='50' y='{_HEIGHT - 8}' {text}>training loss (nats per character) by iteration, "
            f"0 to {progress.max_iters}; one line per trial</text>{''.join(lines)}</svg>"
        )


def _is_over(progress: Progress) -> bool:
    return progress.done == progress.trials * progress.max_iters


def first_step(store: Store, corpus: str = "shakespeare", profile: str = "quick") -> Any:
    """What a notebook shows where there are no results: the command for the whole grid, and a button for the first two cells.

    Under the grid, where nobody is there to press it, the words alone.
    """
    from repro_lib.findings import NO_RESULTS, say

    words = say(f"{NO_RESULTS} in a terminal; it trains the whole grid and fills {store.folder}.")
    if PROGRESS_FILE_VARIABLE in os.environ:
        return words
    import ipywidgets

    names = " and ".join(FIRST_ACTIVATIONS)
    button = ipywidgets.Button(description=f"Train {FIRST_MODEL} with {names} now", button_style="primary")
    button.layout.width = "auto"
    shown = ipywidgets.HTML()

    def train(_: object) -> None:
        button.disabled, said = True, ""
        try:
            for activation in FIRST_ACTIVATIONS:
                follow = LiveTraining(show=lambda content, said=said: setattr(shown, "value", said + content))
                config = Config.for_model(FIRST_MODEL, profile, corpus=corpus)
                run_experiment(FIRST_MODEL, activation, config, results_dir=store.folder, progress=follow)
                said = shown.value
            shown.value += "<p>Done. Choose <em>Run &gt; Run All Cells</em> once more.</p>"
        except (CorpusError, ConfigError, ResultError, TrainingDiverged, OSError) as problem:
            shown.value = f"<p>{html.escape(str(problem))}</p>"
            button.disabled = False

    button.on_click(train)
    return ipywidgets.VBox([ipywidgets.HTML(words._repr_html_()), button, shown])


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


# --- what-ifs in a live kernel


def controls_over(what_if: WhatIf) -> Box:
    """Sliders and choices that redraw at once; every redraw is of all their values together."""
    import ipywidgets

    from repro_lib.what_if_html import view_html

    controls = {p.name: _control(p) for p in what_if.parameters if len(p.values) > 1}
    drawing = ipywidgets.HTML()

    def redraw(_: object = None) -> None:
        drawing.value = view_html(what_if.view(**{name: control.value for name, control in controls.items()}))

    for control in controls.values():
        control.observe(redraw, "value")
    redraw()
    return _framed(what_if.title, list(controls.values()), drawing)


def _control(parameter: Parameter) -> Any:
    import ipywidgets

    kind = ipywidgets.SelectionSlider if parameter.kind == "slider" else ipywidgets.Dropdown
    return kind(
        options=list(zip(parameter.texts, parameter.values, strict=True)),
        value=parameter.default,
        description=parameter.label,
        style={"description_width": "initial"},
        layout={"width": "26em" if parameter.kind == "slider" else "auto"},
    )


def _framed(title: str, controls: list[Any], *below: DOMWidget) -> Box:
    import ipywidgets

    head = ipywidgets.HTML(f"<strong>{html.escape(title)}</strong>")
    row = ipywidgets.Box(controls, layout={"flex_flow": "row wrap", "grid_gap": "4px 28px"})
    return ipywidgets.VBox([head, row, *below])


def writing_desk(store: Store, study: Study, prompt: str) -> Box:
    """Choose a cell, two of its trials and a prompt; the button lets both continue it."""
    import ipywidgets

    from repro_lib.data import CorpusError
    from repro_lib.results import ResultError
    from repro_lib.what_ifs import writing

    cells = writing.cells_that_write(study)
    wide = {"description_width": "initial"}
    # Any: ipywidgets gives every value the type of its whole union, None included.
    cell: Any = ipywidgets.Dropdown(options=list(cells.items()), description="Model", style=wide)
    first, second = _trial_choice("Trial"), _trial_choice("and trial")
    text = ipywidgets.Textarea(prompt, description="Prompt", style=wide, layout={"width": "40em"})
    length = ipywidgets.IntSlider(writing.LENGTH, 40, 400, 20, description="Characters", style=wide)
    button, shown = ipywidgets.Button(description="Write", button_style="primary"), ipywidgets.HTML()

    def offer_trials(_: object = None) -> None:
        numbers = [record.trial for record in cell.value.trials]
        first.options, second.options = numbers, numbers
        first.value, second.value = numbers[:2]

    def write(_: object = None) -> None:
        button.disabled, shown.value = True, "<p>Writing ...</p>"
        try:
            found = writing.continuations(store, cell.value, text.value, (first.value, second.value), length.value)
            shown.value = f"<p>{html.escape(found.sentence())}</p>{found.html()}"
        except (ResultError, CorpusError) as problem:
            shown.value = f"<p>{html.escape(str(problem))}</p>"
        finally:
            button.disabled = False

    def forget(_: object = None) -> None:
        # What was written belongs to other values now.
        shown.value = ""

    offer_trials()
    cell.observe(offer_trials, "value")
    for control in (cell, first, second, text, length):
        control.observe(forget, "value")
    button.on_click(write)
    write()
    return _framed(writing.TITLE, [cell, first, second, text, length, button], shown)


def _trial_choice(name: str) -> Any:
    import ipywidgets

    return ipywidgets.Dropdown(description=name, layout={"width": "10em"})
