"""The figures of the published study, drawn from its tables. Each has an alternative text that states its numbers."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from published.rebuild.stores import AT_LOSS, SIDE_MODELS, Published
from published.rebuild.words import Frames
from repro_lib.analysis.contrasts import LEADING
from repro_lib.analysis.formatting import small
from repro_lib.analysis.verdicts import EQUAL, SUPPORTED
from repro_lib.metrics.prediction_difference import PAIR_METRICS
from repro_lib.metrics.uncertainty import Estimate
from repro_lib.plots.league import league_view
from repro_lib.plots.over_loss import over_loss_view
from repro_lib.plots.style import COLOURS, GREY, Plot, activation_handles, colour_of, marker_of, new_figure, styled

_DECIDED = "Filled: supported, after Holm's correction. Grey: equal within the margin, the band. Open: not decided"
_MASS = "total_variation"


@styled
def against_relu(frames: Frames) -> Plot:
    """The answer in one figure: every activation against relu in both leading metrics, per model."""
    n = int(frames["contrasts"]["n"].min())
    title = f"Prediction difference between retrained models, against relu ({n} trials per cell)"
    return _forests("against_relu", title, [_by_metric(frames["contrasts"])])


@styled
def at_equal_loss(frames: Frames) -> Plot:
    """What is left of it at equal loss."""
    return _forests("at_equal_loss", "The same at equal validation loss", [_by_metric(frames["equal_loss"])])


@styled
def well_trained(frames: Frames) -> Plot:
    """The same after ten times as many steps."""
    long = frames["long_contrasts"].dropna(subset=["per_cent"])
    short = frames["contrasts"].merge(long[["metric", "model", "activation"]])
    panels = [
        {f"{name}, {steps} steps": rows for name, rows in _by_metric(of).items()}
        for of, steps in ((short, "500"), (long, "5,000"))
    ]
    return _forests("well_trained", "Does the order hold in models that were trained ten times as long?", panels)


@styled
def texts(frames: Frames) -> Plot:
    """The same on other texts."""
    own = {str(name): rows for name, rows in frames["texts"].groupby("text", sort=False) if name != "bpe"}
    panels = [{f"{name}, {metric}": rows for metric, rows in _by_metric(of).items()} for name, of in own.items()]
    return _forests("texts", "On other texts, each a family of its own", panels)


@styled
def sources(frames: Frames) -> Plot:
    """One source of randomness at a time, with three activations."""
    frame = frames["sources"]
    title = "Where the difference comes from: one source of randomness at a time"
    note = "Total variation, 95 % jackknife intervals over trials."
    models, kinds = (list(dict.fromkeys(frame[name])) for name in ("model", "source"))
    figure, body = new_figure(3.2, title, note, activation_handles(_activations(frame)))
    words = []
    places_of = list(body.subplots(1, len(models), sharex=True, sharey=True))
    for axes, model in zip(places_of, models, strict=True):
        for k, (activation, own) in enumerate(frame[frame["model"] == model].groupby("activation", sort=False)):
            places = [kinds.index(source) + 0.2 * (k - 1) for source in own["source"]]
            spread = [own[_MASS] - own[f"{_MASS}_low"], own[f"{_MASS}_high"] - own[_MASS]]
            style = {"color": colour_of(str(activation)), "marker": marker_of(str(activation)), "linestyle": "", "capsize": 2}
            axes.errorbar(own[_MASS], places, xerr=spread, **style)
            values = [f"{row['source']} {Estimate.in_row(row, _MASS).written(small)}" for row in own.to_dict("records")]
            words.append(f"{model} with {activation}: {', '.join(values)}")
        axes.set_yticks(range(len(kinds)), kinds)
        axes.set(title=model, xlabel="total variation")
    places_of[0].set_xlim(left=0)  # only now: a limit that is set ends the scaling to what the other panel holds
    places_of[0].invert_yaxis()
    return Plot.of(figure, "sources", f"Total variation by source of randomness. {'; '.join(words)}.")


@styled
def characters(frames: Frames) -> Plot:
    """Churn by kind of character, from the table that was made with the predictions."""
    frame = frames["token_slices"]
    judged = frame["model"].isin(frames["contrasts"]["model"])
    frame = frame[(frame["slicing"] == "class") & (frame["activation"] == "relu") & judged].dropna(subset=["churn"])
    models, kinds = list(dict.fromkeys(frame["model"])), list(dict.fromkeys(frame["slice"]))
    title = "Where two trials disagree: churn by kind of the true character (relu)"
    trials = int(frame["trials"].min())
    note = f"95 % jackknife intervals over {trials} trials. From tables/token_slices.csv (made with the predictions)."
    handles = [Line2D([], [], color=colour, marker="o", label=m) for m, colour in zip(models, COLOURS.values(), strict=False)]
    figure, body = new_figure(3.0, title, note, handles)
    axes = body.subplots()
    for k, (model, colour) in enumerate(zip(models, COLOURS.values(), strict=False)):
        own = frame[frame["model"] == model]
        spread = [own["churn"] - own["churn_low"], own["churn_high"] - own["churn"]]
        places = np.arange(len(own)) + 0.1 * (k - (len(models) - 1) / 2)
        axes.errorbar(places, own["churn"], spread, fmt="o", color=colour, capsize=3)
    axes.set_xticks(range(len(kinds)), kinds)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("churn")
    said = [f"{kind}: {frame[frame['slice'] == kind]['churn'].mean():.2f}" for kind in kinds]
    return Plot.of(figure, "characters", f"Churn by kind of character, mean over models: {', '.join(said)}.")


def figures(published: Published, frames: Frames) -> list[Plot]:
    """All of them; those of the library from the trials themselves."""
    drawn = [draw(frames) for draw in (against_relu, at_equal_loss, well_trained, texts, characters, sources)]
    drawn += [over_loss_view(published.evidence, model) for model in AT_LOSS[0]]
    drawn += [league_view(published.side("helps/results").evidence, model, "training") for model in SIDE_MODELS]
    return [plot for plot in drawn if isinstance(plot, Plot)]


def _by_metric(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return {PAIR_METRICS[metric].words: frame[frame["metric"] == metric] for metric in LEADING}


def _activations(frame: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(frame["activation"]))


def _forests(name: str, title: str, rows: Sequence[Mapping[str, pd.DataFrame]]) -> Plot:
    """Panels of contrasts, each under its name; those in one row have the same contrasts."""
    frames = [frame.dropna(subset=["per_cent"]) for panels in rows for frame in panels.values()]
    heights = [0.34 * len(next(iter(panels.values())).dropna(subset=["per_cent"])) + 0.6 for panels in rows]
    note = f"In per cent of relu's value, 95 % jackknife intervals over trials. {_DECIDED}, within one metric."
    figure, body = new_figure(sum(heights) + 0.3 * len(rows), title, note, activation_handles(_activations(frames[0])))
    grid = body.subplots(len(rows), len(rows[0]), squeeze=False, sharex=True, sharey="row", height_ratios=heights)
    for axes_row, panels in zip(grid, rows, strict=True):
        for k, (axes, (words, frame)) in enumerate(zip(axes_row, panels.items(), strict=True)):
            _forest(axes, frame, labels=k == 0)
            axes.set_title(words)
    said = " ".join(_in_words(frame, words) for panels in rows for words, frame in panels.items())
    return Plot.of(figure, name, said)


def _forest(axes: Axes, frame: pd.DataFrame, labels: bool = True) -> None:
    """One row per contrast, models one below the other."""
    frame = frame.dropna(subset=["per_cent"])
    models = list(dict.fromkeys(frame["model"]))
    places, starts = [], []
    for k, model in enumerate(models):
        count = int((frame["model"] == model).sum())
        first = len(places) + 0.7 * k
        places += [first + j for j in range(count)]
        starts.append(first + (count - 1) / 2)
    for y, row in zip(places, frame.to_dict("records"), strict=True):
        colour = colour_of(row["activation"])
        face = colour if row["verdict"] == SUPPORTED else GREY if row["verdict"] == EQUAL else "white"
        spread = [[row["per_cent"] - row["per_cent_low"]], [row["per_cent_high"] - row["per_cent"]]]
        style = {"color": colour, "marker": marker_of(row["activation"]), "markerfacecolor": face, "markersize": 7}
        axes.errorbar([row["per_cent"]], [y], xerr=spread, capsize=3, elinewidth=1.4, **style)
    axes.axvline(0, color=GREY, linewidth=1)
    if "margin" in frame:
        margin = frame["margin"].max()
        axes.axvspan(-margin, margin, color=GREY, alpha=0.15, linewidth=0)
    axes.grid(visible=False, axis="y")
    if labels:
        # Panels share the axis: turned once, and not back by the next.
        axes.invert_yaxis()
        axes.set_yticks(starts, models)
    axes.tick_params(axis="y", length=0)


def _in_words(frame: pd.DataFrame, measure: str) -> str:
    parts: list[str] = []
    for model in dict.fromkeys(frame["model"]):
        own: Sequence[dict[object, float]] = frame[frame["model"] == model].dropna(subset=["per_cent"]).to_dict("records")
        values = [f"{r['activation']} {Estimate.in_row(r, 'per_cent'):+.1f %}" for r in own]
        parts.append(f"{model}: {', '.join(values)}" if values else f"{model}: missing")
    count = Counter(frame["verdict"])
    decided = f"{count[SUPPORTED]}; {EQUAL}: {count[EQUAL]}"
    return f"{measure[0].upper()}{measure[1:]} against relu. {'; '.join(parts)}. Supported: {decided} of {len(frame)}."
