"""What-ifs in a notebook: controls of a live kernel where a front end is there, precomputed HTML for everybody else."""

from __future__ import annotations

import html
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import ipywidgets
from IPython.core.getipython import get_ipython
from ipywidgets import Box, DOMWidget

from repro_lib.analysis.notes import Note
from repro_lib.analysis.study import Study
from repro_lib.data import CorpusError
from repro_lib.store.schema import ResultError
from repro_lib.store.store import Store
from repro_lib.whatif.definition import Parameter, WhatIf
from repro_lib.whatif.html import alive_html, recorded_html, still_html, view_html
from repro_lib.whatif.questions import writing

# Labels as wide as their words; ipywidgets would cut them at 80 pixels.
_WHOLE_LABEL = {"description_width": "initial"}


def explore(what_if: WhatIf | Note) -> Shown | Note:
    """A what-if to be displayed, alive in JupyterLab, Voila and a report; a note, which says why there is none, as it is."""
    if isinstance(what_if, Note):
        return what_if
    page_parts = (partial(still_html, what_if), partial(alive_html, what_if))
    return Shown(partial(controls_over, what_if), *page_parts, lambda: f"{what_if.title} {what_if.view().sentence}")


def explore_writing(store: Store, study: Study) -> Shown | Note:
    """Choose a cell, two trials and a prompt, and compare what they write; in a report an example."""
    example = writing.recorded_continuations(store, study)
    if isinstance(example, Note):
        return example
    report = partial(recorded_html, writing.TITLE, example.html(), example.sentence(), writing.HOW)
    return Shown(partial(writing_desk, store, study, example.prompt), report, report, example.sentence)


@dataclass(frozen=True, repr=False)
class Shown:
    """An output of a notebook: controls where a front end is there to move them, and HTML for everybody else."""

    live: Callable[[], DOMWidget]
    # The HTML that is stored with the controls, for they die with their kernel; and that where no front end is there.
    beside: Callable[[], str]
    alone: Callable[[], str]
    text: Callable[[], str]

    def __repr__(self) -> str:
        return self.text()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        if not live_front_end():
            return {"text/plain": self.text(), "text/html": self.alone()}
        # Both halves: a notebook that is saved and opened again, or made a report, has the HTML when its widgets are dead.
        widget = self.live()._repr_mimebundle_() or {}
        return {**widget, "text/plain": self.text(), "text/html": self.beside()}


def live_front_end() -> bool:
    """Whether somebody is there to move a control of this kernel."""
    kernel = getattr(get_ipython(), "kernel", None)
    if kernel is None:
        return False
    # JupyterLab, Notebook and VS Code name the cell in their requests; papermill and nbconvert do not. Voila, which runs a
    # notebook as they do, says so in the environment.
    named = "cellId" in kernel.get_parent("shell").get("metadata", {})
    return named or os.environ.get("SERVER_SOFTWARE", "").startswith("voila/")


def controls_over(what_if: WhatIf) -> Box:
    """Sliders and choices that redraw at once; every redraw is of all their values together."""
    controls = {parameter.name: _control(parameter) for parameter in what_if.movable}
    drawing = ipywidgets.HTML()

    def redraw(_: object = None) -> None:
        drawing.value = view_html(what_if.view(**{name: control.value for name, control in controls.items()}))

    for control in controls.values():
        control.observe(redraw, "value")
    redraw()
    return _framed(what_if.title, list(controls.values()), drawing)


def _control(parameter: Parameter) -> Any:
    slides = parameter.kind == "slider"
    return (ipywidgets.SelectionSlider if slides else ipywidgets.Dropdown)(
        options=list(zip(parameter.texts, parameter.values, strict=True)),
        value=parameter.default,
        description=parameter.label,
        style=_WHOLE_LABEL,
        layout={"width": "26em" if slides else "auto"},
    )


def _framed(title: str, controls: list[Any], below: DOMWidget) -> Box:
    # Escaped: a title may name a model, and a widget takes it for HTML.
    head = ipywidgets.HTML(f"<strong>{html.escape(title)}</strong>")
    return ipywidgets.VBox([head, Box(controls, layout={"flex_flow": "row wrap", "grid_gap": "4px 28px"}), below])


def writing_desk(store: Store, study: Study, prompt: str) -> Box:
    """Choose a cell, two of its trials and a prompt; the button lets both continue it."""
    cells = list(writing.cells_that_write(study).items())
    # Any: ipywidgets gives every value the type of its whole union, None included.
    cell: Any = ipywidgets.Dropdown(options=cells, description="Model", style=_WHOLE_LABEL)
    first: Any = ipywidgets.Dropdown(description="Trial", layout={"width": "10em"})
    second: Any = ipywidgets.Dropdown(description="and trial", layout={"width": "10em"})
    words = ipywidgets.Textarea(prompt, description="Prompt", style=_WHOLE_LABEL, layout={"width": "40em"})
    length = ipywidgets.IntSlider(writing.LENGTH, 40, 400, 20, description="Characters", style=_WHOLE_LABEL)
    button, shown = ipywidgets.Button(description="Write", button_style="primary"), ipywidgets.HTML()

    def offer_trials(_: object = None) -> None:
        # Another cell may have other trials.
        first.options = second.options = numbers = [record.trial for record in cell.value.trials]
        first.value, second.value = numbers[:2]

    def forget(_: object) -> None:
        # What was written belongs to other values now.
        shown.value = ""

    def write(_: object = None) -> None:
        button.disabled, shown.value = True, "<p>Writing ...</p>"
        try:
            written = writing.continuations(store, cell.value, words.value, (first.value, second.value), length.value)
            shown.value = f"<p>{html.escape(written.sentence())}</p>{written.html()}"
        except (ResultError, CorpusError) as problem:
            # Whoever typed the prompt reads it where the texts would stand; a traceback would go to the log of the kernel.
            shown.value = f"<p>{html.escape(str(problem))}</p>"
        finally:
            button.disabled = False

    offer_trials()
    cell.observe(offer_trials, "value")
    controls = [cell, first, second, words, length]
    for control in controls:
        control.observe(forget, "value")
    button.on_click(write)
    write()
    return _framed(writing.TITLE, [*controls, button], shown)
