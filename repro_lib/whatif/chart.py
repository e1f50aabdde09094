"""The chart of a what-if, by Vega-Altair: its controls are bound to the chart itself, so that they move without a kernel."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from repro_lib.metrics.uncertainty import TRIALS_FOR_CLAIM
from repro_lib.plots.style import PAGE_COLOUR
from repro_lib.plots.vega import CONFIG, alt, packed, short
from repro_lib.whatif.wording import look_of

if TYPE_CHECKING:
    from repro_lib.whatif.definition import Parameter, WhatIf

# As wide as a cell of JupyterLab at the least; a page makes it as wide as itself.
WIDTH = 560
# Letters of 12 pixels in a line of it.
_LINE = 88
_VERDICT = f"datum.n < {TRIALS_FOR_CLAIM} ? 'none below {TRIALS_FOR_CLAIM} trials' : 'none, a what-if is not tested'"
_TOOLTIP = [
    alt.Tooltip("label:N", title=" "),
    alt.Tooltip("reading:N", title="value (95 % interval)"),
    alt.Tooltip("n:Q", title="N"),
    alt.Tooltip("verdict:N"),
]


def draw(what_if: WhatIf) -> alt.LayerChart:
    """Controls, marks, title and, as the last layer, the sentence of the chosen values."""
    measures = list(what_if.frame["measure"].dropna().unique())
    shown = alt.param("shown", value=measures[0], **_bound("Shown", measures, measures))
    bound = [alt.param(p.name, value=p.default, **_bound(p.label, p.values, p.texts)) for p in what_if.parameters]
    layers = _lines(what_if) if what_if.along else _rows(what_if)
    height = 260 if what_if.along else 36 * what_if.frame["label"].nunique()
    words = what_if.sentences.assign(sentence=what_if.sentences["sentence"].map(partial(textwrap.fill, width=_LINE)))
    # As many sentences as belong to these values, one below the other.
    below = alt.Chart(**packed(words)).transform_filter(_chosen(what_if.parameters)).transform_aggregate(all="values(sentence)")
    lines = alt.expr("split(join(pluck(datum.all, 'sentence'), '\\n'), '\\n')")
    said = below.mark_text(align="left", baseline="top", x=0, y={"expr": f"{height} + 48"}, text=lines, aria=False)
    head = alt.Title(alt.expr(f"[{json.dumps(what_if.title)}, shown]"))
    free = [p.name for p in what_if.parameters if p.name == what_if.along or not (what_if.along or isinstance(p.default, str))]
    measured = "(!isValid(datum.measure) || datum.measure == shown)"
    # Of the chosen values; and of all that the control can show whose way the chart draws.
    about_rows = {"here": _chosen(what_if.parameters), "way": _chosen(what_if.parameters, *free)}
    about_rows = {name: f"{measured} && {chosen}" for name, chosen in about_rows.items()}
    about_rows |= {"verdict": _VERDICT, "short": "isValid(datum.value) ? split(datum.reading, ' (')[0] : ''"}
    chart = alt.layer(*layers, said, **packed(what_if.frame, about_rows), title=head, width=WIDTH, height=height)
    # The longest of the sentences is not the first.
    chart = chart.properties(autosize=alt.AutoSizeParams(type="pad", resize=True))
    about = {"title": what_if.title, "sentence": what_if.sentence(), "rows": _table(what_if)}
    about["embedOptions"] = {"renderer": "svg", "actions": {"source": False, "compiled": False, "editor": False}}
    words = f"{what_if.title} A chart with controls; the sentence with it says what it shows."
    return chart.add_params(shown, *bound).properties(usermeta=about, description=words, config=CONFIG)


def _bound(label: str, values: Sequence[Any], texts: Sequence[str]) -> dict[str, Any]:
    if len(values) < 2:
        return {}
    # A slider writes its number beside it, so it is for numbers that read as they are and stand evenly.
    if not isinstance(values[0], str) and [*texts] == [*map(str, values)]:
        steps = {round(b - a, 9) for a, b in pairwise(values)}
        if len(steps) == 1:
            return {"bind": alt.binding_range(min=values[0], max=values[-1], step=steps.pop(), name=f"{label} ")}
    return {"bind": alt.binding_select(options=list(values), labels=list(texts), name=f"{label} ")}


def _table(what_if: WhatIf) -> list[list[Any]]:
    """Measure, label, reading and N of the rows at the defaults; none of curves, which are points without a name."""
    rows = what_if.at().dropna(subset="reading")
    return [[short(value) for value in row] for row in rows[["measure", "label", "reading", "n"]].to_numpy()]


def _chosen(parameters: Iterable[Parameter], *free: str) -> str:
    """The expression that a row belongs to the chosen values, whatever it has for the ``free`` parameters."""
    names = [parameter.name for parameter in parameters if parameter.name not in free]
    # A slider adds up steps in binary, so numbers are not asked to be equal.
    same = "(!isValid(datum.{0}) || datum.{0} == {0} || abs(datum.{0} - {0}) < 1e-9)"
    return " && ".join(["true", *(same.format(name) for name in names)])


def _looks(what_if: WhatIf) -> tuple[alt.Color, alt.StrokeDash]:
    names = list(what_if.frame.dropna(subset="value")["label"].unique())
    colours, dashes = zip(*(what_if.looks.get(name) or look_of(name) for name in names), strict=True)
    dashes = [[int(part) for part in dash.split()] or [1, 0] for dash in dashes]
    return alt.Color("label:N").scale(domain=names, range=colours), alt.StrokeDash("label:N").scale(domain=names, range=dashes)


def _rows(what_if: WhatIf) -> list[alt.Chart]:
    """A row per label with its number, interval and reading; in the background where it goes while the control moves."""
    colour = _looks(what_if)[0].legend(None)
    picked = alt.selection_point(fields=["label"])
    bright = alt.condition(picked, alt.value(1), alt.value(0.25))
    y = alt.Y("label:N", sort=None, title=None).axis(labelLimit=160, domain=False, ticks=False, grid=False)
    x = alt.X("value:Q", title=None).scale(zero=False, nice=True)
    path = alt.Chart().transform_filter("datum.way").encode(y=y, color=colour)
    # All that a control of numbers can show, so that the axis stays where it is while it moves.
    trail = path.mark_tick(opacity=0.3, thickness=1.5, size=10, aria=False).encode(x=x)
    here = path.transform_filter("datum.here")
    interval = here.mark_rule(strokeWidth=2.5, aria=False).encode(x=alt.X("low:Q"), x2="high:Q", opacity=bright)
    dot = here.mark_point(filled=True, size=110).encode(x=x, tooltip=_TOOLTIP, opacity=bright).add_params(picked)
    number = here.mark_text(dy=-12, aria=False).encode(x=x, text="short:N", color=alt.value(PAGE_COLOUR))
    gap = here.transform_filter("!isValid(datum.value)").mark_text(align="left", x=4, aria=False)
    return [trail, interval, dot, number, gap.encode(text="reading:N", color=alt.value(PAGE_COLOUR))]


def _lines(what_if: WhatIf) -> list[alt.Chart]:
    """A line per label along a column, a band of its intervals and, where the column is a control, its chosen place."""
    along, (colour, dash) = what_if.along, _looks(what_if)
    # Not as faint as the band, which comes first; on a phone there is no room for three names beside each other.
    colour = colour.legend(symbolOpacity=1, columns=alt.expr("width > 400 ? 3 : 2"))
    picked = alt.selection_point(fields=["label"], bind="legend")
    bright = alt.condition(picked, alt.value(1), alt.value(0.15))
    control = next((p for p in what_if.parameters if p.name == along), None)
    kind, title = ("O", control.label) if control else ("Q", along)
    x = alt.X(f"{along}:{kind}", title=title).axis(labelAngle=0, labelOverlap=True)
    y = alt.Y("value:Q", title=None).scale(zero=False)
    lines = alt.Chart().transform_filter("datum.way").encode(x=x, y=y, color=colour)
    band = lines.mark_area(opacity=0.12, aria=False).encode(y="low:Q", y2="high:Q")
    band = band.transform_filter("isValid(datum.low)").transform_filter(picked)
    line = lines.mark_line(point=False, strokeWidth=2, aria=False).encode(strokeDash=dash, opacity=bright).add_params(picked)
    drawn = [band, line] if what_if.frame["low"].notna().any() else [line]
    if control is None:
        return drawn
    here = lines.transform_filter("datum.here")
    place = here.transform_aggregate(groupby=[along]).mark_rule(strokeDash=[3, 3], opacity=0.6, aria=False)
    place = place.encode(x=x, y=alt.value(0), y2=alt.value(260), color=alt.value(PAGE_COLOUR))
    dots = lines.mark_point(filled=True, size=30).encode(tooltip=_TOOLTIP, opacity=bright)
    return [*drawn, place, dots, here.mark_point(filled=True, size=120, opacity=1).encode(tooltip=_TOOLTIP)]
