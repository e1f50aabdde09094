"""The arms of a study beside each other: disagreement over what it costs, with the Pareto front, and over the loss reached."""

from collections.abc import Mapping

from matplotlib.axes import Axes

from repro_lib.analysis.evidence import Evidence
from repro_lib.analysis.frames import rows_of
from repro_lib.analysis.league import LEAGUE_METRICS, league, pareto_front
from repro_lib.analysis.notes import Note
from repro_lib.metrics.prediction_difference import PAIR_METRICS
from repro_lib.plots.style import Plot, colour_of, marker_of, new_figure, styled

_OVER = {
    "training": "training compute, times the reference's",
    "serving": "compute of a prediction, times the reference's",
    "val_loss": "validation loss, nats (better to the right)",
}
# Shares of the axes: how far names stand apart, and points whose names are put below each other.
_APART, _TOGETHER = 0.042, 0.12


@styled
def league_view(evidence: Evidence, model: str, over: str) -> Plot | Note:
    """Total variation of every arm of a model over ``training`` or ``serving``, the Pareto front joined, or over ``val_loss``,
    the reference's runs of other lengths joined."""
    rows = rows_of(league(evidence).query("model == @model").dropna(subset=[over, LEAGUE_METRICS[0]]))
    if len(rows) < 2:
        return Note(f"{model}: fewer than two arms have two trials, so there is nothing to set against each other.")
    metric = PAIR_METRICS[LEAGUE_METRICS[0]]
    points = {row["activation"]: (row[over], row[LEAGUE_METRICS[0]]) for row in rows}
    line, meaning = _line(evidence, model, over, points)
    least, most = (pick(row["n"] for row in rows) for pick in (min, max))
    trials = f"N = {least}" if least == most else f"N = {least} to {most}"
    note = f"Means of {trials} trials per arm; the table has their intervals. Line: {meaning}."
    figure, body = new_figure(5.6, f"{model}: {metric.words} over {_OVER[over].split(',')[0]}", note)
    axes = body.subplots()
    axes.plot(*zip(*line, strict=True), color="#999999", linewidth=1, zorder=1)
    for name, point in points.items():
        axes.plot(*point, marker_of(name), color=colour_of(name), markersize=7)
    axes.set(xlabel=_OVER[over], ylabel=metric.title)
    if over == "val_loss":
        axes.invert_xaxis()
    elif max(row[over] for row in rows) > 1:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
    axes.margins(x=0.16)
    _write_names(axes, points)
    told = "; ".join(f"{name} {value:.4f} at {place:.3f}" for name, (place, value) in points.items())
    return Plot.of(figure, f"{model}_league_over_{over}", f"{metric.title} of {model} over {_OVER[over]}: {told}. {note}")


def _line(evidence: Evidence, model: str, over: str, points: Mapping[str, tuple[float, float]]) -> tuple[list, str]:
    if over != "val_loss":
        front = pareto_front({name: (-cost, value) for name, (cost, value) in points.items()})
        about = "the Pareto front, arms below which there is none that costs no more; with noisy means some are on it by luck"
        return [points[name] for name in front], about
    runs = evidence.runs_by("max_iters", model, evidence.reference)
    ends = sorted((run.avg_val_loss, run.reproducibility_metrics[LEAGUE_METRICS[0]]) for run in runs if len(run.trials) > 1)
    lengths = ", ".join(f"{length:,}" for length in sorted({run.config["max_iters"] for run in runs}))
    return ends, f"{evidence.reference}, trained for {lengths} iterations"


def _write_names(axes: Axes, points: Mapping[str, tuple[float, float]]) -> None:
    # Names beside their points, and where these are close together below each other, a thin line to each.
    axes.autoscale_view()
    to_shares = axes.transData + axes.transAxes.inverted()
    # The last bit of a transformation depends on where its matrix lies in memory, and would move a pixel now and then.
    places = sorted((tuple(to_shares.transform(point).round(6)), name) for name, point in points.items())
    groups: list[list] = []
    for place, name in places:
        if not groups or place[0] - groups[-1][0][0][0] > _TOGETHER:
            groups.append([])
        groups[-1].append((place, name))
    for group in groups:
        group.sort(key=lambda entry: entry[0][1])
        right, heights = max(place[0] for place, _ in group) + 0.025, []
        for place, _ in group:
            heights.append(max(place[1], heights[-1] + _APART) if heights else place[1])
        down = min((heights[-1] - group[-1][0][1]) / 2, heights[0] - 0.02)
        for (place, name), height in zip(group, heights, strict=True):
            line = {"arrowstyle": "-", "color": "#bbbbbb", "linewidth": 0.6, "shrinkA": 1, "shrinkB": 3, "relpos": (0, 0.5)}
            at = {"xytext": (right, height - down), "textcoords": "axes fraction", "xycoords": "axes fraction"}
            axes.annotate(name, place, **at, fontsize=9, va="center", arrowprops=line)
