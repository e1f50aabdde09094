"""The arms of a study beside each other: disagreement over what it costs, with the Pareto front, and over the loss reached."""

from repro_lib.analysis.evidence import Evidence
from repro_lib.analysis.league import LEAGUE_METRICS, league, pareto_front
from repro_lib.analysis.notes import Note
from repro_lib.analysis.study import rows_of
from repro_lib.metrics.prediction_difference import PAIR_METRICS
from repro_lib.plots.style import Plot, colour_of, marker_of, new_figure, styled

_OVER = {
    "training": "training compute, times the reference's",
    "serving": "compute of a prediction, times the reference's",
    "val_loss": "validation loss, nats",
}


@styled
def league_view(evidence: Evidence, model: str, over: str) -> Plot | Note:
    """Total variation of every arm of a model over ``training`` or ``serving`` (the Pareto front joined) or ``val_loss``."""
    rows = rows_of(league(evidence).query("model == @model").dropna(subset=[over, LEAGUE_METRICS[0]]))
    if len(rows) < 2:
        return Note(f"{model}: fewer than two arms have two trials, so there is nothing to set against each other.")
    metric = PAIR_METRICS[LEAGUE_METRICS[0]]
    points = {row["activation"]: (-row[over], row[LEAGUE_METRICS[0]]) for row in rows}
    front = pareto_front(points)
    least, most = (pick(row["n"] for row in rows) for pick in (min, max))
    trials = f"N = {least}" if least == most else f"N = {least} to {most}"
    note = (
        f"{trials} trials per arm; means, without intervals, which the table has. Joined: nobody is lower in one without being "
    )
    note += "higher in the other; the front of noisy means has arms on it by luck."
    figure, body = new_figure(4.8, f"{model}: {metric.words} over {_OVER[over].split(',')[0]}", note)
    axes = body.subplots()
    axes.plot(*zip(*((-points[name][0], points[name][1]) for name in front), strict=True), color="#888888", linewidth=1)
    for place, (name, (worth, value)) in enumerate(sorted(points.items(), key=lambda item: item[1][1])):
        axes.plot(-worth, value, marker_of(name), color=colour_of(name), markersize=7)
        beside = {"xytext": (6, 5 if place % 2 else -9), "textcoords": "offset points", "fontsize": 9}
        axes.annotate(name, (-worth, value), **beside)
    axes.set(xlabel=_OVER[over], ylabel=metric.title)
    if over != "val_loss" and max(row[over] for row in rows) > 1:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
    axes.margins(x=0.12)
    told = "; ".join(f"{name} {value:.4f} at {-worth:.3g}" for name, (worth, value) in points.items())
    alt = f"{metric.title} of {model} over {_OVER[over]}: {told}. On the Pareto front: {', '.join(front)}."
    return Plot.of(figure, f"{model}_league_over_{over}", alt)
