"""What-ifs in a notebook: controls of a live kernel where a front end is there, precomputed HTML for everybody else."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from IPython.core.getipython import get_ipython

from repro_lib.analysis.notes import Note
from repro_lib.analysis.study import Study
from repro_lib.store.store import Store
from repro_lib.whatif.controls import controls_over, writing_desk
from repro_lib.whatif.definition import WhatIf
from repro_lib.whatif.html import alive_html, recorded_html, still_html
from repro_lib.whatif.questions import writing

if TYPE_CHECKING:
    from ipywidgets import DOMWidget


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
