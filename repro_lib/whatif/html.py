"""A what-if as HTML: the default view for everybody, and controls over the whole grid where a script may run.

The views are computed here and now; the script (static/what_if.js, some KB, no library) only swaps them. Where
no script runs there is no control either, just the picture and the sentence of the defaults: nothing that looks alive is
dead. Pictures have most pieces of their SVG in common, so each different piece is stored once.
"""

from __future__ import annotations

import base64
import functools
import html
import json
from pathlib import Path

from repro_lib.whatif.definition import View, WhatIf
from repro_lib.whatif.svg import Panel, standalone_svg, svg

_STATIC = Path(__file__).parent / "static"


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


def picture(panel: Panel) -> str:
    """A panel as an image."""
    # Shown also where a notebook that is not trusted loses scripts and inline SVG.
    data = base64.b64encode(standalone_svg(panel).encode()).decode()
    return f'<img alt="{html.escape(panel.alt())}" src="data:image/svg+xml;base64,{data}">'


@functools.cache
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
