"""The figure of the index: every difference from the reference in both leading metrics, with interval, margin and verdict."""

from __future__ import annotations

from typing import Any

import pandas as pd

from repro_lib.analysis.formatting import MINUS
from repro_lib.analysis.frames import rows_of
from repro_lib.analysis.verdicts import EQUAL, NOT_DECIDED, SUPPORTED
from repro_lib.metrics.uncertainty import Estimate
from repro_lib.plots.style import PAGE_COLOUR
from repro_lib.plots.vega import CONFIG, alt, packed

# Pixels of height for both metrics of a contrast.
_ROW = 18
_METRICS = {"relative PD": "", "total variation": "_tv"}
# A verdict is a colour and, for who sees none, a filling.
_COLOURS = {SUPPORTED: "#D55E00", "equal": "#009E73", NOT_DECIDED: "#8a8a8a"}
_TOOLTIP = {"label": " ", "measure": "metric", "reading": "difference (95 % interval)", "n": "N", "verdict": "verdict"}


def forest(contrasts: pd.DataFrame) -> dict[str, Any]:
    """The chart (a Vega-Lite specification, for ``charts.section_of``) of ``leading_contrasts``; empty where none is known."""
    rows = []
    several = contrasts["model"].nunique() > 1
    for row in rows_of(contrasts.dropna(subset=["per_cent"])):
        label = f"{row['model']} {row['activation']}" if several else row["activation"]
        for measure, suffix in _METRICS.items():
            value = Estimate.in_row(row, "per_cent", suffix)
            verdict = row[f"verdict{suffix}"].replace(EQUAL, "equal")
            about = {"n": int(row["n"]), "verdict": verdict, "reading": f"{value:+.1f %}".replace("-", MINUS)}
            rows.append({"label": label, "measure": measure, **value.columns("value"), **about})
    if not rows:
        return {}
    reference = contrasts["reference"].iloc[0]
    frame, margin = pd.DataFrame(rows), contrasts["margin"].iloc[0]
    verdicts = [name for name in _COLOURS if name in set(frame["verdict"])]
    y = alt.Y("label:N", sort=None, title=None).axis(labelLimit=190, domain=False, ticks=False, grid=False, labelFontSize=11)
    offset = alt.YOffset("measure:N", sort=list(_METRICS))
    colour = alt.Color("verdict:N").scale(domain=verdicts, range=[_COLOURS[name] for name in verdicts])
    shape = alt.Shape("measure:N").scale(domain=list(_METRICS), range=["circle", "diamond"])
    x = alt.X("value:Q", title=f"difference from {reference}, %").scale(zero=True, nice=True)
    picked = alt.selection_point(fields=["label"])
    bright = alt.condition(picked, alt.value(1), alt.value(0.25))
    base = alt.Chart()
    band = base.transform_aggregate(groupby=["one"]).mark_rect(opacity=0.13, color=_COLOURS["equal"], aria=False)
    band = band.encode(x=alt.XDatum(-margin), x2=alt.X2Datum(margin))
    zero = (
        base.transform_aggregate(groupby=["one"]).mark_rule(opacity=0.6, aria=False, color=PAGE_COLOUR).encode(x=alt.XDatum(0))
    )
    interval = base.transform_filter("isValid(datum.value_low)").mark_rule(strokeWidth=2, aria=False)
    interval = interval.encode(y=y, yOffset=offset, x=alt.X("value_low:Q"), x2="value_high:Q", color=colour, opacity=bright)
    dots = base.mark_point(filled=True, size=55, opacity=1)
    tooltip = [alt.Tooltip(f"{name}:N", title=words) for name, words in _TOOLTIP.items()]
    dots = dots.encode(y=y, yOffset=offset, x=x, color=colour, shape=shape, tooltip=tooltip, opacity=bright).add_params(picked)
    chart = alt.layer(band, zero, interval, dots, **packed(frame), height=_ROW * frame["label"].nunique())
    said = f"Difference from {reference} in per cent: left more reproducible, right less"
    note = f"Whiskers: 95 % intervals. Band: the margin of {margin:g} % within which two arms count as equal."
    about = {"title": said, "note": note, "rows": frame[["measure", "label", "reading", "n"]].to_numpy().tolist()}
    spec = chart.properties(description=f"{said}. {note}", usermeta=about, config=CONFIG).to_dict()
    # Below each other, and not beginning where the marks do: a phone has no room for them beside the names. Altair's schema
    # does not know what Vega-Lite hands on to Vega here.
    places = {"top": {"direction": "vertical", "anchor": "end"}}
    spec["config"]["legend"] |= {"symbolType": "square", "symbolBaseFillColor": PAGE_COLOUR, "layout": places}
    return spec
