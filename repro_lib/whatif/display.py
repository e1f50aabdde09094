"""What-ifs as readers see them: controls of a live kernel where a front end is there, precomputed HTML for everybody else.

In HTML every view is computed here and now; the script (static/what_if.js, some KB, no library) only swaps them. Where no
script runs there is no control either, just the picture and the sentence of the defaults: nothing that looks alive is dead.
Pictures have most pieces of their SVG in common, so each different piece is stored once.
"""

from __future__ import annotations

import base64
import html
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import ipywidgets
from IPython.core.getipython import get_ipython
from ipywidgets import Box, DOMWidget

from repro_lib.analysis.notes import Note
from repro_lib.analysis.study import Study
from repro_lib.data import CorpusError
from repro_lib.store.schema import ResultError
from repro_lib.store.store import Store
from repro_lib.whatif.charts import Panel
from repro_lib.whatif.definition import Parameter, View, WhatIf
from repro_lib.whatif.questions import writing

# Labels as wide as their words; ipywidgets would cut them at 80 pixels.
_WHOLE_LABEL = {"description_width": "initial"}
_STATIC = Path(__file__).parent / "static"


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


# --- HTML


def alive_html(what_if: WhatIf) -> str:
    """The what-if with its controls: the whole grid is computed."""
    # Escaped, so that no name of a model can end the script element.
    data = json.dumps(_data(what_if), separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
    return _section(
        what_if,
        '<form class="what-if-controls" autocomplete="off" hidden></form>',
        f'<script type="application/json" class="what-if-data">{data}</script>{_element("script", "what_if.js")}',
    )


def still_html(what_if: WhatIf) -> str:
    """Only the view of the defaults: for a notebook whose kernel answers, where the controls are another output."""
    return _section(what_if, "", "").replace('class="what-if"', 'class="what-if-recorded"', 1)


def recorded_html(title: str, content: str, sentence: str, how: str) -> str:
    """Something that needs a kernel, as it was once: ``content`` is HTML, the other texts are plain."""
    return (
        f'<section class="what-if-recorded" aria-label="{html.escape(title)}">{_style()}'
        f'<p class="what-if-title">{html.escape(title)}</p>{content}'
        f'<p class="what-if-sentence">{html.escape(sentence)}</p><p class="what-if-how">{html.escape(how)}</p></section>'
    )


def view_html(view: View) -> str:
    """Drawing and sentence of one view, as they are shown beside the controls of a live kernel."""
    return (
        f'{_style()}<div class="what-if-drawing">{"".join(map(svg, view.panels))}</div>'
        f'<p class="what-if-sentence">{html.escape(view.sentence)}</p>'
    )


def svg(panel: Panel) -> str:
    """A panel as an element of a page."""
    return "".join(panel.pieces())


def standalone_svg(panel: Panel) -> str:
    """A panel as a picture of its own: dark on white with a margin of 8, whatever the page looks like."""
    own = "xmlns='http://www.w3.org/2000/svg' style='color:#1a1f25;background:#fff'"
    width, height = (int(size) + 16 for size in re.findall(r" (?:width|height)='(\d+)'", panel.pieces()[0]))
    size = f"viewBox='-8 -8 {width} {height}' width='{width}' height='{height}'"
    return re.sub(r"<svg viewBox='[^']+' width='\d+' height='\d+'", f"<svg {own} {size}", svg(panel), count=1)


def picture(panel: Panel) -> str:
    """A panel as an image."""
    # Shown also where a notebook that is not trusted loses scripts and inline SVG.
    data = base64.b64encode(standalone_svg(panel).encode()).decode()
    return f'<img alt="{html.escape(panel.alt())}" src="data:image/svg+xml;base64,{data}">'


@cache
def _element(kind: str, file: str) -> str:
    # One of each would do for a page; a notebook's cells do not know of each other, so that each brings its own.
    return f'<{kind} class="what-if-{kind}">{(_STATIC / file).read_text(encoding="utf-8")}</{kind}>'


def _style() -> str:
    return _element("style", "what_if.css")


def _section(what_if: WhatIf, controls: str, scripts: str) -> str:
    view, title = what_if.view(), html.escape(what_if.title)
    return (
        f'<section class="what-if" data-what-if="{what_if.name}" aria-label="{title}">{_style()}'
        f'<p class="what-if-title">{title}</p>{controls}'
        f'<div class="what-if-drawing">{"".join(map(picture, view.panels))}</div>'
        f'<p class="what-if-sentence" aria-live="polite">{html.escape(view.sentence)}</p>{scripts}</section>'
    )


def _data(what_if: WhatIf) -> dict[str, object]:
    """What the script needs: controls, each different piece of SVG once, and per combination its pieces and sentence."""
    places: dict[str, int] = {}
    views, sentences = [], []
    for values in what_if.grid():
        view = what_if.view(**values)
        views.append([places.setdefault(piece, len(places)) for panel in view.panels for piece in panel.pieces()])
        sentences.append(view.sentence)
    controls = [
        {"label": p.label, "texts": p.texts, "kind": p.kind, "start": p.values.index(p.default)} for p in what_if.movable
    ]
    return {"controls": controls, "pieces": list(places), "views": views, "sentences": sentences}
