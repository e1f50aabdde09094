"""What every Vega-Altair chart has in common: colours and letters that suit any page, and data in little room."""

import json
from collections.abc import Mapping
from typing import Any

import altair as alt
import pandas as pd

from repro_lib.analysis.notes import visible
from repro_lib.plots.style import PAGE_COLOUR

SEPARATOR = "|"
_FAINT = {"gridColor": PAGE_COLOUR, "gridOpacity": 0.15, "domainColor": PAGE_COLOUR, "tickColor": PAGE_COLOUR}
_AXIS = {"labelColor": PAGE_COLOUR, "titleColor": PAGE_COLOUR, "labelFontSize": 12, "titleFontSize": 12}
CONFIG = {
    "background": "transparent",
    "font": "system-ui, sans-serif",
    "view": {"stroke": "transparent"},
    "axis": _AXIS | _FAINT | {"titleFontWeight": "normal", "labelSeparation": 6},
    "legend": _AXIS | {"orient": "top", "title": None, "symbolType": "stroke", "symbolStrokeWidth": 2.5},
    "title": {"color": PAGE_COLOUR, "fontSize": 13, "anchor": "start"},
    "text": {"color": PAGE_COLOUR, "fontSize": 12},
}

# Altair's own size, for charts that say nothing of it.
_VIEW = {"view": {"continuousWidth": 300, "continuousHeight": 300} | CONFIG["view"]}


# A chart that a user makes looks like ours, wherever it is shown.
@alt.theme.register("repro", enable=True)
def _theme() -> Any:
    return {"config": CONFIG | _VIEW}


def _shown(spec: dict[str, Any], **_: Any) -> dict[str, Any]:
    # What Altair shows by itself fetches scripts. JupyterLab's own Vega-Lite 5 complains of a later minor version.
    spec = spec | {"$schema": "https://vega.github.io/schema/vega-lite/v5.json"}
    # Of a column of words Altair leaves NaN as it is, which is no JSON.
    spec = json.loads(json.dumps(spec), parse_constant=lambda _: None)
    datasets = spec.get("datasets")
    if datasets and not any(datasets.values()):  # JupyterLab's Vega never ends drawing nothing, and takes the page with it
        return {"text/plain": "No chart: there is no row to draw."}
    return {"application/vnd.vegalite.v5+json": spec, "text/plain": "A chart"}


alt.renderers.register("repro", _shown)
alt.renderers.enable("repro")


def packed(frame: pd.DataFrame, more: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Data and transform that give the rows of a frame: each column one text, of words the places in a list of them.

    That takes an eighth of the room of rows in JSON, of which a notebook writes each number into a line of its own.
    """
    texts, rows = {}, {}
    for name in frame.columns[frame.notna().any()]:
        values = [*map(short, frame[name])]
        rows[name] = f"toNumber(datum.{name})"
        if not pd.api.types.is_numeric_dtype(frame[name]):
            places = {word: str(place) for place, word in enumerate(dict.fromkeys(values))}
            texts[f"{name}_words"], values = SEPARATOR.join(places), [places[word] for word in values]
            rows[name] = f"datum.{name}_words[{rows[name]}]"
        texts[name] = SEPARATOR.join(values)
    apart = [_calculate(name, f"split(datum.{name}, '{SEPARATOR}')") for name in texts]
    last = [_calculate(name, expression) for name, expression in (more or {}).items()]
    typed = [_calculate(name, f"datum.{name} === '' || {row} === '' ? null : {row}") for name, row in rows.items()]
    return {"data": alt.InlineData(values=[texts]), "transform": [*apart, alt.FlattenTransform(flatten=[*rows]), *typed, *last]}


def _calculate(name: str, expression: str) -> alt.CalculateTransform:
    return alt.CalculateTransform(calculate=expression, **{"as": name})


def short(value: Any) -> str:
    if pd.isna(value):
        return ""
    return visible(value).replace(SEPARATOR, "\N{BROKEN BAR}") if isinstance(value, str) else f"{value:.6g}"
