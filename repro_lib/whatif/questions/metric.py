"""What if disagreement were measured another way? The ranking of a model's activations by each metric."""

import math
from collections.abc import Mapping

from repro_lib.analysis.frames import rows_of
from repro_lib.analysis.notes import Note
from repro_lib.analysis.study import Study
from repro_lib.metrics.prediction_difference import PAIR_METRICS, metric_names
from repro_lib.metrics.uncertainty import Estimate
from repro_lib.plots.figures import heading
from repro_lib.whatif.definition import Row, View, WhatIf, control
from repro_lib.whatif.wording import lowest_and_highest, ranking, reach, unanswered

TITLE = "What if disagreement were measured another way?"


def metric_what_if(study: Study) -> WhatIf | Note:
    """The activations of a model in the order of a metric, the lowest first."""
    study = study.measured
    models = [model for model in study.models if (study.cells[study.cells["model"] == model]["n"] > 1).any()]
    if not models:
        return unanswered(TITLE, study, "It needs two trials per cell; run: repro grid --trials 2")

    def see(metric: str, model: str) -> View:
        estimates = cell_estimates(study, model, metric)
        # What has no number stands last, so that it is seen to be missing.
        order = dict.fromkeys([*ranking(estimates), *estimates])
        why_none = {name: "not known" if math.isnan(e.value) else "infinite" for name, e in estimates.items()}
        why_none |= {name: ("missing", "one trial")[e.n] for name, e in estimates.items() if e.n < 2}
        return View([Row(x, estimates[x], missing=why_none[x]) for x in order], _sentence(study, model, metric, estimates))

    measures = control(
        "metric", "Measure", metric_names(), text=lambda name: heading(name).partition(" (")[0].partition(":")[0]
    )
    return WhatIf.of("metric", TITLE, (measures, control("model", "Model", models)), see)


def cell_estimates(study: Study, model: str, column: str) -> dict[str, Estimate]:
    """A number of ``Study.cells`` with its interval, by activation; NaN for a missing cell."""
    rows = rows_of(study.cells[study.cells["model"] == model])
    return {row["activation"]: Estimate.in_row(row, column) for row in rows}


def _sentence(study: Study, model: str, metric: str, estimates: Mapping[str, Estimate]) -> str:
    order, usual = ranking(estimates), ranking(cell_estimates(study, model, metric_names()[0]))
    sentence = f"By {PAIR_METRICS[metric].words}, {model} is {lowest_and_highest(estimates)}"
    if model in study.identical:
        sentence += ": this model cannot tell activations apart, so there is no winner"
    elif len(order) > 1 and metric != metric_names()[0] and usual:
        same = "does not change" if order[0] == usual[0] else f"changes: by relative PD it is {usual[0]}"
        moved = sum(a != b for a, b in zip(order, usual, strict=False))
        sentence += f"; the winner {same}, and {moved} of {len(order)} places are taken by another activation"
    return f"{sentence}. {reach(e.n for e in estimates.values())}"
