"""The figures of the published study, drawn from its tables. Each has an alternative text that states its numbers."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from repro_lib.analysis.formatting import small
from repro_lib.analysis.verdicts import EQUAL, SUPPORTED
from repro_lib.metrics.prediction_difference import PAIR_METRICS
from repro_lib.metrics.uncertainty import Estimate
from repro_lib.plots.style import COLOURS, GREY, Plot, activation_handles, colour_of, marker_of, new_figure, styled

Frames = Mapping[str, pd.DataFrame]

_DECIDED = "Filled: supported, after Holm's correction. Grey: equal within the margin, the band. Open: not decided"
_BESIDE: dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontsize": 9}
_LENGTH_STYLES: dict[str, Any] = {"charlm": "-", "convlm": "--"}


@styled
def against_relu(frames: Frames) -> Plot:
    """The answer in one figure: relative PD of every activation against relu, per model."""
    frame = frames["contrasts"]
    frame = frame[frame["metric"] == "relative_pd"]
    n = int(frame["n"].min())
    title = f"Prediction difference between retrained models, against relu ({n} trials per cell)"
    note = f"Relative PD in per cent of relu's, 95 % jackknife intervals over trials. {_DECIDED}."
    figure, body = new_figure(0.34 * len(frame) + 0.6, title, note, activation_handles(_activations(frame)))
    axes = body.subplots()
    _forest(axes, frame)
    axes.set_xlabel("per cent more (right) or less (left) relative PD than with relu")
    return Plot.of(figure, "against_relu", _in_words(frame, "relative PD"))


@styled
def against_relu_by_metric(frames: Frames) -> Plot:
    """The same by three other metrics."""
    frame, metrics = frames["contrasts"], ("total_variation", "churn", "log_prob_pd")
    title = "The same contrasts by three other metrics"
    note = f"In per cent of relu's value, 95 % jackknife intervals over trials. {_DECIDED}, within one metric."
    panels = {PAIR_METRICS[metric].words: frame[frame["metric"] == metric] for metric in metrics}
    return Plot.of(
        _side_by_side(title, note, panels), "against_relu_by_metric", " ".join(map(_in_words, panels.values(), panels))
    )


@styled
def contexts(frames: Frames) -> Plot:
    """Two models with context 128 and 64."""
    frame = frames["context"]
    title = "Does it hold with half the context? Relative PD against relu"
    note = f"In per cent of relu's relative PD at the same context, 95 % jackknife intervals. {_DECIDED}, within one context."
    panels = {f"context {length}": frame[frame["context"] == length] for length in (128, 64)}
    words = [_in_words(rows, f"relative PD with {name}") for name, rows in panels.items()]
    return Plot.of(_side_by_side(title, note, panels, sharex=True), "contexts", " ".join(words))


@styled
def sources(frames: Frames) -> Plot:
    """One source of randomness at a time."""
    frame = frames["sources"]
    title = "Where the difference comes from: one source of randomness at a time"
    note = "95 % jackknife intervals over 10 trials. Without any source the trials are equal to the last bit: exactly 0."
    models = list(dict.fromkeys(frame["model"]))
    figure, body = new_figure(2.9, title, note)
    words = []
    for panel, (axes, model) in enumerate(zip(body.subplots(1, len(models), sharey=True), models, strict=True)):
        own = frame[frame["model"] == model].reset_index(drop=True)
        low, high = own["relative_pd"] - own["relative_pd_low"], own["relative_pd_high"] - own["relative_pd"]
        axes.barh(own.index, own["relative_pd"], color=COLOURS["gelu"], alpha=0.75)
        axes.errorbar(own["relative_pd"], own.index, xerr=[low, high], fmt="none", ecolor="#222222", capsize=3)
        for place, (value, end) in enumerate(zip(own["relative_pd"], own["relative_pd_high"], strict=True)):
            axes.annotate(small(value), (end, place), (5, 0), **_BESIDE)
        axes.set_xlim(right=1.18 * frame["relative_pd_high"].max())
        axes.set_yticks(own.index, own["source"])
        axes.set(title=f"{model} with {own['activation'][0]}", xlabel="relative PD")
        if panel == 0:
            axes.invert_yaxis()
        values = [f"{row['source']} {Estimate.in_row(row, 'relative_pd').written(small)}" for row in own.to_dict("records")]
        words.append(f"{model}: {', '.join(values)}")
    return Plot.of(figure, "sources", f"Relative PD by source of randomness. {'; '.join(words)}.")


@styled
def lengths(frames: Frames) -> Plot:
    """Runs of three lengths, each fully decayed."""
    frame = frames["lengths"]
    title = "Longer runs: lower loss, and what happens to the difference"
    note = "Each point is a run of its own whose learning rate decays to zero; 95 % intervals over 10 trials."
    shown = {"relative_pd": "relative PD", "total_variation": "total variation"}
    pairs = [(model, activation) for model in dict.fromkeys(frame["model"]) for activation in ("relu", "gelu")]
    handles = [
        Line2D([], [], color=colour_of(a), linestyle=_LENGTH_STYLES[m], marker=marker_of(a), label=f"{m}, {a}")
        for m, a in pairs
    ]
    figure, body = new_figure(3.4, title, note, handles)
    for axes, (metric, words) in zip(body.subplots(1, 2), shown.items(), strict=True):
        for model, activation in pairs:
            own = frame[(frame["model"] == model) & (frame["activation"] == activation)].sort_values("max_iters")
            spread = [own[metric] - own[f"{metric}_low"], own[f"{metric}_high"] - own[metric]]
            style = {"color": colour_of(activation), "marker": marker_of(activation), "linestyle": _LENGTH_STYLES[model]}
            axes.errorbar(own["val_loss"], own[metric], spread, capsize=3, **style)
        axes.invert_xaxis()
        axes.set(title=words, xlabel="validation loss, nats (better to the right)")
    said = [
        f"{r['model']} {r['activation']} {r['max_iters']} steps: {r['relative_pd']:.3f}, loss {r['val_loss']:.3f}"
        for r in frame.to_dict("records")
    ]
    return Plot.of(figure, "lengths", f"Relative PD and loss by length of the run. {'; '.join(said)}.")


@styled
def smelu(frames: Frames) -> Plot:
    """SmeLU by the width of its bend."""
    frame, grid = frames["smelu"], frames["cells"]
    relu = grid[(grid["model"] == "charlm") & (grid["activation"] == "relu")].iloc[0]
    title = "charlm with SmeLU: does the width of the bend matter?"
    note = "95 % jackknife intervals over 10 trials. Dotted: relu, with its interval as the band."
    figure, body = new_figure(3.0, title, note)
    for axes, metric in zip(body.subplots(1, 3), ("relative_pd", "total_variation", "churn"), strict=True):
        spread = [frame[metric] - frame[f"{metric}_low"], frame[f"{metric}_high"] - frame[metric]]
        axes.errorbar(frame["beta"], frame[metric], spread, color=COLOURS["smelu_1"], marker="v", capsize=3)
        axes.axhline(relu[metric], color=COLOURS["relu"], linestyle=":")
        axes.axhspan(relu[f"{metric}_low"], relu[f"{metric}_high"], color=COLOURS["relu"], alpha=0.12, linewidth=0)
        axes.set_xscale("log")
        axes.set_xticks(frame["beta"], [f"{b:g}" for b in frame["beta"]])
        axes.minorticks_off()
        axes.set(title=PAIR_METRICS[metric].words, xlabel="beta, half the width of the bend")
    said = [f"beta {r['beta']:g}: {r['relative_pd']:.4f}" for r in frame.to_dict("records")]
    return Plot.of(figure, "smelu", f"charlm's relative PD by SmeLU's beta: {', '.join(said)}; relu {relu['relative_pd']:.4f}.")


@styled
def characters(frames: Frames) -> Plot:
    """Churn by kind of character, from the table that was made with the predictions."""
    frame = frames["token_slices"]
    frame = frame[(frame["slicing"] == "class") & (frame["activation"] == "relu")].dropna(subset=["churn"])
    models, kinds = list(dict.fromkeys(frame["model"])), list(dict.fromkeys(frame["slice"]))
    title = "Where two trials disagree: churn by kind of the true character (relu)"
    note = "95 % jackknife intervals over 10 trials. From tables/token_slices.csv (made with the predictions)."
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


# Each with the tables that it is drawn from.
FIGURES: dict[Callable[[Frames], Plot], set[str]] = {
    against_relu: {"contrasts"},
    against_relu_by_metric: {"contrasts"},
    characters: {"token_slices"},
    sources: {"sources"},
    lengths: {"lengths"},
    contexts: {"context"},
    smelu: {"smelu", "cells"},
}


def _activations(frame: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(frame["activation"]))


def _side_by_side(title: str, note: str, panels: Mapping[str, pd.DataFrame], *, sharex: bool = False) -> Figure:
    """A panel of contrasts for each frame, under its name."""
    rows = next(iter(panels.values()))
    figure, body = new_figure(0.34 * len(rows) + 0.6, title, note, activation_handles(_activations(rows)))
    places = body.subplots(1, len(panels), sharey=True, sharex=sharex)
    for k, (axes, (name, frame)) in enumerate(zip(places, panels.items(), strict=True)):
        _forest(axes, frame, labels=k == 0)
        axes.set_title(name)
    return figure


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
