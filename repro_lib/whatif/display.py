"""What-ifs in a notebook: controls of a live kernel where a front end is there, precomputed HTML for everybody else."""

from __future__ import annotations

import os
from collections.abc import Callable
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
    """A what-if to be displayed: ipywidgets in JupyterLab and Voila, precomputed and alive in a report.

    A note, which says why there is none, is passed on.
    """
    if isinstance(what_if, Note):
        return what_if
    return Shown(
        live=lambda: controls_over(what_if),
        beside=lambda: still_html(what_if),
        alone=lambda: alive_html(what_if),
        text=lambda: f"{what_if.title} {what_if.view().sentence}",
    )


def explore_writing(store: Store, study: Study) -> Shown | Note:
    """Choose a cell, two trials and a prompt, and compare what they write; in a report an example."""
    example = writing.recorded_continuations(store, study)
    if isinstance(example, Note):
        return example

    def report() -> str:
        return recorded_html(writing.TITLE, example.html(), example.sentence(), writing.HOW)

    return Shown(lambda: writing_desk(store, study, example.prompt), report, report, lambda: example.sentence())


class Shown:
    """An output of a notebook: controls where a front end is there to move them, and HTML for everybody else.

    ``live`` makes the controls, ``beside`` the HTML that is stored with them (they die with their kernel), ``alone`` the HTML
    where no front end is there; ``text`` says it in words.
    """

    def __init__(
        self, live: Callable[[], DOMWidget], beside: Callable[[], str], alone: Callable[[], str], text: Callable[[], str]
    ) -> None:
        self.live, self.beside, self.alone, self.text = live, beside, alone, text

    def __repr__(self) -> str:
        return self.text()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        if not live_front_end():
            return {"text/plain": self.text(), "text/html": self.alone()}
        # Both halves: a notebook that is saved and opened again, or made a report, has the HTML when its widgets are dead.
        widget = self.live()._repr_mimebundle_() or {}
        return {**widget, "text/plain": self.text(), "text/html": self.beside()}


def live_front_end() -> bool:
    """Whether somebody is there to move a control of this kernel.

    JupyterLab, Notebook and VS Code name the cell in their requests; papermill and nbconvert do not. Voila, which runs a
    notebook as they do, says so in the environment.
    """
    kernel = getattr(get_ipython(), "kernel", None)
    if kernel is None:
        return False
    request = kernel.get_parent("shell")
    return "cellId" in request.get("metadata", {}) or os.environ.get("SERVER_SOFTWARE", "").startswith("voila/")
