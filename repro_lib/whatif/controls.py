"""What one can move in a live kernel: sliders and choices over a what-if, and the writing desk."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # A grid imports this module for the progress of its workers; what follows takes seconds to import.
    from ipywidgets import Box, DOMWidget

    from repro_lib.analysis.study import Study
    from repro_lib.store.schema import Result
    from repro_lib.store.store import Store
    from repro_lib.whatif.definition import Parameter, WhatIf


# --- what-ifs in a live kernel

# Labels as wide as their words; ipywidgets would cut them at 80 pixels.
_WHOLE_LABEL = {"description_width": "initial"}


def controls_over(what_if: WhatIf) -> Box:
    """Sliders and choices that redraw at once; every redraw is of all their values together."""
    import ipywidgets

    from repro_lib.whatif.html import view_html

    controls = {parameter.name: _control(parameter) for parameter in what_if.movable}
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
        style=_WHOLE_LABEL,
        layout={"width": "26em" if parameter.kind == "slider" else "auto"},
    )


def _framed(title: str, controls: list[Any], *below: DOMWidget) -> Box:
    import ipywidgets

    head = ipywidgets.HTML(f"<strong>{html.escape(title)}</strong>")
    row = ipywidgets.Box(controls, layout={"flex_flow": "row wrap", "grid_gap": "4px 28px"})
    return ipywidgets.VBox([head, row, *below])


def writing_desk(store: Store, study: Study, prompt: str) -> Box:
    """Choose a cell, two of its trials and a prompt; the button lets both continue it."""
    return _WritingDesk(store, study, prompt).box


class _WritingDesk:
    """The controls of ``writing_desk``, and what they do."""

    def __init__(self, store: Store, study: Study, prompt: str) -> None:
        import ipywidgets

        from repro_lib.whatif.questions import writing

        self.store = store
        cells: list[tuple[str, Result]] = list(writing.cells_that_write(study).items())
        # Any: ipywidgets gives every value the type of its whole union, None included.
        self.cell: Any = ipywidgets.Dropdown(options=cells, description="Model", style=_WHOLE_LABEL)
        self.first: Any = ipywidgets.Dropdown(description="Trial", layout={"width": "10em"})
        self.second: Any = ipywidgets.Dropdown(description="and trial", layout={"width": "10em"})
        self.prompt = ipywidgets.Textarea(prompt, description="Prompt", style=_WHOLE_LABEL, layout={"width": "40em"})
        self.length = ipywidgets.IntSlider(writing.LENGTH, 40, 400, 20, description="Characters", style=_WHOLE_LABEL)
        self.button, self.shown = ipywidgets.Button(description="Write", button_style="primary"), ipywidgets.HTML()
        controls = [self.cell, self.first, self.second, self.prompt, self.length]
        self.box = _framed(writing.TITLE, [*controls, self.button], self.shown)
        self.offer_trials()
        self.cell.observe(self.offer_trials, "value")
        for control in controls:
            control.observe(self.forget, "value")
        self.button.on_click(self.write)
        self.write()

    def offer_trials(self, _: object = None) -> None:
        """Another cell may have other trials."""
        numbers = [record.trial for record in self.cell.value.trials]
        self.first.options, self.second.options = numbers, numbers
        self.first.value, self.second.value = numbers[:2]

    def forget(self, _: object = None) -> None:
        """What was written belongs to other values now."""
        self.shown.value = ""

    def write(self, _: object = None) -> None:
        """Let both trials continue the prompt; what goes wrong is shown in place of the texts."""
        from repro_lib.data import CorpusError
        from repro_lib.store.schema import ResultError
        from repro_lib.whatif.questions.writing import continuations

        self.button.disabled, self.shown.value = True, "<p>Writing ...</p>"
        try:
            trials = (self.first.value, self.second.value)
            written = continuations(self.store, self.cell.value, self.prompt.value, trials, self.length.value)
            self.shown.value = f"<p>{html.escape(written.sentence())}</p>{written.html()}"
        except (ResultError, CorpusError) as problem:
            self.shown.value = f"<p>{html.escape(str(problem))}</p>"
        finally:
            self.button.disabled = False
