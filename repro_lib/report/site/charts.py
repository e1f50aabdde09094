"""Charts by Vega-Altair in a page: a picture, its numbers and a sentence for everybody; controls where scripts run.

The script, ``charts.js``, is Vega with ours behind it, one file for the whole site.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any

import vl_convert

from repro_lib.report.site.page_parts import SCRIPT, TEMPLATES
from repro_lib.system.files import write_atomically

MIME_TYPE = re.compile(r"application/vnd\.vegalite\.v\d\+json")
# What a phone has room for, so that letters of 12 pixels stay that large.
_STILL_WIDTH = 320
SECTION = '<section class="chart" '
# In JSON, where all but ASCII is escaped; tab and the end of a line have other escapes.
_CONTROL = re.compile(r"((?<!\\)(?:\\\\)*)\\u00(?:[01][0-9a-f]|7f|[89][0-9a-f])")


def section_of(chart: Mapping[str, Any]) -> str:
    """A chart (its specification) as HTML: the state of its defaults, and what ``charts.js`` needs to bring it to life.

    ``usermeta`` holds its title, its sentence (of a chart that never says another: its ``note``), and rows (measure, label,
    reading, N) for a table.
    """
    # Vega's converter ends the whole process where a picture would hold a control character.
    chart = json.loads(_CONTROL.sub(r"\1\\ufffd", json.dumps(chart)))
    spec = {key: value for key, value in chart.items() if key not in ("$schema", "usermeta", "autosize")}
    about, sentences = chart.get("usermeta", {}), {}
    if "sentence" in about:
        # The page says title and sentence itself, in letters of its own that wrap and are read aloud.
        *spec["layer"], said = spec["layer"]
        sentences = spec["datasets"].pop(said["data"]["name"])[0]
        spec["title"] = spec["title"] | {"text": {"expr": "shown"}}
    still = spec | {"width": _STILL_WIDTH, "autosize": {"type": "fit-x", "contains": "padding"}, "padding": {"left": 18}}
    svg, words = picture(still), spec.get("description", "A chart")
    title, said = escape(about.get("title", "") or words), escape(about.get("sentence") or about.get("note", ""))
    # Escaped, so that no name of a model can end the script element.
    alive = {"spec": spec | {"width": "container"}, "sentences": sentences}
    data = json.dumps(alive, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
    return (
        f'{SECTION}aria-label="{title}"><p class="chart-title">{title}</p><div class="chart-controls"></div>'
        f'<div class="chart-drawing">{svg}</div><p class="chart-sentence" aria-live="polite">{said}</p>'
        f'{_table(about.get("rows", ()))}<script type="application/json">{data}</script></section>'
    )


def picture(spec: Mapping[str, Any]) -> str:
    """A chart (its specification, with a ``description``) as SVG."""
    # Nothing is fetched: a page shows what its notebook holds.
    still = {**spec, "config": spec.get("config", {}) | {"aria": False}}
    svg = vl_convert.vegalite_to_svg(still, allowed_base_urls=[])
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(spec.get("description", "A chart"))}" ', 1)


def _table(rows: Sequence[Sequence[Any]]) -> str:
    heads = "".join(f'<th scope="col">{name}</th>' for name in ("Shown", "", "Value (95 % interval)", "N"))
    lines = ["</td><td>".join(escape(str(cell)) if cell else "" for cell in row) for row in rows]
    body = "".join(f"<tr><td>{line}</td></tr>" for line in lines)
    table = f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"
    return f"<details><summary>The numbers</summary>{table}</details>" if rows else ""


def write_script(folder: Path) -> None:
    """``charts.js`` in a folder of pages, unless it is there as it should be."""
    ours, path = (TEMPLATES / "static" / "charts.js").read_text(encoding="utf-8"), folder / SCRIPT
    digest = hashlib.sha256(f"{version('vl-convert-python')}{ours}".encode()).hexdigest()
    head = f"/* source-sha256 {digest}; Vega, Vega-Lite and Vega-Embed: BSD-3-Clause, vega.github.io */\n"
    if not path.is_file() or not path.read_text(encoding="utf-8").startswith(head):
        vega = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
        write_atomically(path, f"{head}{vega}\n{ours}")
