"""What one can move in a live kernel: sliders and choices over a what-if, and the writing desk."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # A grid imports this module for the progress of its workers; what follows takes seconds to import.
    from ipywidgets import Box, DOMWidget

    from repro_lib.analysis.study import Study
    from repro_lib.store.store import Store
    from repro_lib.whatif.definition import Parameter, WhatIf

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
    import ipywidgets

    from repro_lib.data import CorpusError
    from repro_lib.store.schema import ResultError
    from repro_lib.whatif.questions import writing

    # Any: ipywidgets gives every value the type of its whole union, None included.
    cell: Any = ipywidgets.Dropdown(options=[*writing.cells_that_write(study).items()], description="Model", style=_WHOLE_LABEL)
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
