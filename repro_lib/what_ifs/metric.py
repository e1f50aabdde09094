"""What if disagreement were measured another way? The ranking of a model's activations by each metric."""

from __future__ import annotations

import math

from repro_lib.analysis import METRICS, Study
from repro_lib.metrics import METRIC_LIMITS
from repro_lib.notes import Note
from repro_lib.plots import TITLES
from repro_lib.statistics import Estimate
from repro_lib.what_ifs.bars import BarPanel
from repro_lib.what_ifs.definition import View, WhatIf, choice
from repro_lib.what_ifs.svg import nice_limit
from repro_lib.what_ifs.wording import bar, lowest_and_highest, nothing_yet, ranking, reach

TITLE = "What if disagreement were measured another way?"


def metric_what_if(study: Study) -> WhatIf | Note:
    """The activations of a model in the order of a metric, the lowest first."""
    study = study.measured
    models = [model for model in study.models if (study.cells[study.cells["model"] == model]["n"] > 1).any()]
    if not models:
        few = Note(f"{TITLE} It needs two trials per cell; run: repro grid --trials 2")
        return few if study.results else nothing_yet(TITLE)

    def see(metric: str, model: str) -> View:
        found = cell_estimates(study, model, metric)
        order = [*ranking(found), *(name for name in found if not math.isfinite(found[name].value))]
        ends = [e for name in order for e in (found[name].value, found[name].high) if math.isfinite(e)]
        bars = tuple(bar(name, found[name], words=_why_none(found[name])) for name in order)
        limit = nice_limit(min(max(ends, default=1.0), METRIC_LIMITS[metric]))
        return View((BarPanel(TITLES[metric], bars, limit),), _sentence(study, model, metric))

    parameters = (
        choice("metric", "Measure", METRICS, text=lambda name: TITLES[name].partition(" (")[0].partition(":")[0]),
        choice("model", "Model", models),
    )
    return WhatIf("metric", TITLE, parameters, see)


def cell_estimates(study: Study, model: str, column: str) -> dict[str, Estimate]:
    """A number of ``Study.cells`` with its interval, by activation; NaN for a missing cell."""
    rows = study.cells[study.cells["model"] == model].to_dict("records")
    return {
        row["activation"]: Estimate(row[column], row[f"{column}_low"], row[f"{column}_high"], int(row["n"])) for row in rows
    }


def _why_none(found: Estimate) -> str:
    return "missing" if found.n == 0 else "one trial" if found.n == 1 else "infinite"


def _sentence(study: Study, model: str, metric: str) -> str:
    found, primary = cell_estimates(study, model, metric), cell_estimates(study, model, METRICS[0])
    words, order, usual = metric.replace("_", " ").replace("pd", "PD"), ranking(found), ranking(primary)
    said = f"By {words}, {model} is {lowest_and_highest(found)}"
    if model in study.identical:
        said += ": this model cannot tell activations apart, so there is no winner"
    elif len(order) > 1 and metric != METRICS[0] and usual:
        same = "does not change" if order[0] == usual[0] else f"changes: by relative PD it is {usual[0]}"
        moved = sum(a != b for a, b in zip(order, usual, strict=False))
        said += f"; the winner {same}, and {moved} of {len(order)} places are taken by another activation"
    return f"{said}. {reach(e.n for e in found.values())}"
