"""What would this model write? The one what-if whose answers cannot be computed beforehand: controls of a live kernel.

A report shows an example.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import ipywidgets

from repro_lib.analysis.notes import NO_RESULTS, Note
from repro_lib.analysis.study import Study
from repro_lib.data import CorpusError
from repro_lib.report.live_training import with_button
from repro_lib.report.text_views import Samples, samples
from repro_lib.store.schema import Result, ResultError
from repro_lib.store.store import Store
from repro_lib.training.progress import PROGRESS_FILE_VARIABLE

TITLE = "What would this model write?"
HOW = "Run this cell in JupyterLab to choose model, trials and prompt yourself: jupyter lab notebooks/50_what_if.ipynb"
LENGTH = 80


def writing_desk(store: Store, study: Study) -> WritingDesk | Note:
    """Choose a cell, two trials and a prompt, and compare what they write; where nobody can, the first that can write."""
    found = [result for result in study.results if len(result.trials) > 1 and not result.synthetic]
    cells = {f"{result.model_name} with {result.arm}": result for result in found}
    if not study.results:
        return Note(f"{TITLE} There are {NO_RESULTS}.")
    problem = "It needs two trials of a cell; run: repro grid --trials 2"
    # Weights may have been deleted to save room: whatever cell still has them will do.
    for k, result in enumerate(cells.values()):
        try:
            return WritingDesk(store, cells, samples(store, result, (1, 2)))
        except (ResultError, CorpusError) as error:
            # A report says nothing about the machine.
            problem = problem if k else f"Nothing now: {str(error).replace(f'{store.folder}/', '')}"
    return Note(f"{TITLE} {problem}")


@dataclass(frozen=True, repr=False)
class WritingDesk:
    """An output of a notebook: controls where a front end is there to move them, and an ``example`` for everybody else."""

    store: Store
    cells: dict[str, Result]
    example: Samples

    def __repr__(self) -> str:
        return repr(self.example)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        # Both halves: a notebook that is saved and opened again, or made a report, has the HTML when its widgets are dead.
        # Under the grid nobody is there to choose.
        widget = None if PROGRESS_FILE_VARIABLE in os.environ else self.controls()._repr_mimebundle_()
        head = f'<section class="recorded" aria-label="{TITLE}"><p><strong>{TITLE}</strong></p>'
        page = f"{head}{self.example._repr_html_()}<p>{HOW}</p></section>"
        return {**(widget or {}), "text/plain": repr(self), "text/html": page}

    def controls(self) -> ipywidgets.Box:
        """Choices of a cell, two of its trials and a prompt; the button lets both continue it."""
        whole = {"description_width": "initial"}  # labels as wide as their words; ipywidgets would cut them at 80 pixels
        # Any: ipywidgets gives every value the type of its whole union, None included.
        cell: Any = ipywidgets.Dropdown(options=list(self.cells.items()), description="Model", style=whole)
        first: Any = ipywidgets.Dropdown(description="Trial", layout={"width": "10em"})
        second: Any = ipywidgets.Dropdown(description="and trial", layout={"width": "10em"})
        words = ipywidgets.Textarea(self.example.prompt, description="Prompt", style=whole, layout={"width": "40em"})
        length = ipywidgets.IntSlider(LENGTH, 40, 400, 20, description="Characters", style=whole)

        def offer_trials(_: object = None) -> None:
            # Another cell may have other trials.
            first.options = second.options = numbers = [record.trial for record in cell.value.trials]
            first.value, second.value = numbers[:2]

        def forget(_: object) -> None:
            # What was written belongs to other values now.
            shown.value = ""

        def write(_: object) -> str:
            return samples(self.store, cell.value, (first.value, second.value), words.value, length.value)._repr_html_()

        offer_trials()
        cell.observe(offer_trials, "value")
        controls = [cell, first, second, words, length]
        desk = with_button(Note(TITLE), controls, "Write", write)
        *_, button, shown = desk.children
        for control in controls:
            control.observe(forget, "value")
        button.click()
        return desk
