"""Figures of training over time: PD by step and by loss, and the sources of randomness."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from repro_lib.analysis.noise_sources import SOURCES, NoiseSources, how_to_run
from repro_lib.analysis.notes import Note
from repro_lib.analysis.study import Study, rows_of
from repro_lib.analysis.trajectories import FOLLOWED, PARTED, Trajectory, load_trajectories, other_lengths
from repro_lib.metrics.uncertainty import TRIALS_FOR_INTERVAL
from repro_lib.plots.figures import JACKKNIFE, TITLES
from repro_lib.plots.panels import CONTROL_IN_WORDS
from repro_lib.plots.style import (
    GREY,
    Plot,
    activation_handles,
    colour_of,
    draw_gap,
    draw_interval,
    marker_of,
    new_figure,
    styled,
)
from repro_lib.store.schema import Result
from repro_lib.store.store import Store

# The sources of randomness, told apart by line and marker as well as by colour (Okabe & Ito).
SOURCE_STYLES: dict[str, dict[str, Any]] = {
    "all": {"color": "#000000", "marker": "o", "linestyle": "-"},
    "init": {"color": "#0072B2", "marker": "s", "linestyle": "--"},
    "order": {"color": "#D55E00", "marker": "^", "linestyle": "-."},
    "dropout": {"color": "#009E73", "marker": "D", "linestyle": ":"},
    "bit": {"color": "#CC79A7", "marker": "v", "linestyle": (0, (5, 1))},
    "none": {"color": GREY, "marker": "X", "linestyle": (0, (1, 1))},
}


def through_training_view(store: Store, stored: Sequence[Result], study: Study, model: str) -> Plot | Note:
    """``through_training``, or a sentence where no cell of the model can be followed."""
    followed, gaps = load_trajectories(store, study, model)
    if not followed:
        return Note(f"No figure of {model} through training: " + (" ".join(gaps) or "there is no result yet."))
    lengths = {cell.activation: other_lengths(store, stored, cell.result) for cell in followed}
    return through_training(study, model, followed, lengths, gaps)


@styled
def through_training(
    study: Study, model: str, followed: Sequence[Trajectory], lengths: dict[str, list[Trajectory]], gaps: Sequence[str] = ()
) -> Plot:
    """Total variation and churn over training steps, and over the loss reached; ends of runs of other lengths as stars."""
    title = f"{model}: disagreement while it is trained" + (f" ({CONTROL_IN_WORDS})" if model in study.identical else "")
    colours = activation_handles([cell.activation for cell in followed])
    steps = Line2D([], [], color=GREY, marker="o", markersize=4, label="kept steps of one run")
    ends = Line2D([], [], color=GREY, marker="*", markersize=11, linestyle="", label="end of a run, fully decayed")
    figure, body = new_figure(6.6, title, _training_note(followed, lengths, gaps), colours, [steps, ends])
    panels = body.subplots(2, 2, sharey="row", squeeze=False)
    for row, metric in zip(panels, FOLLOWED[1:], strict=True):
        for cell in followed:
            _follow(row[0], row[1], cell, lengths.get(cell.activation, []), metric)
        row[0].set_ylabel(TITLES[metric])
    longest = max(run.max_iters for several in (followed, *lengths.values()) for run in several)
    for by_step, by_loss in panels:
        _step_axis(by_step, longest)
        # A loss falls: training goes from left to right in both columns.
        by_loss.invert_xaxis()
    panels[1, 0].set_xlabel("Training step")
    panels[1, 1].set_xlabel("Loss on the kept text, nats (falls to the right)")
    return Plot(figure, f"{model}_through_training", _training_alt(model, followed, lengths))


@styled
def noise_plot(store: Store, sources: NoiseSources) -> Plot:
    """Total variation by source of randomness, at the end of training and through it."""
    frame = sources.frame()
    least = int(frame.loc[frame["state"] == "measured", "n"].min())
    note = (
        f"Left: mean over all pairs of trials{_lines(least)}. N = {least} trials. Right: the same at the kept steps, on every "
    )
    note += "16th evaluation block; on a log scale, where exactly 0 is drawn at the lower edge."
    figure, body = new_figure(4.2, f"{sources.model} with {sources.activation}: where the randomness comes from", note)
    left, right = body.subplots(1, 2, width_ratios=[1, 1.15])
    for x, row in enumerate(rows_of(frame)):
        _source_bar(left, x, row)
    left.set_xticks(range(len(SOURCES)), list(SOURCES))
    left.set(ylabel=TITLES["total_variation"], title="At the end", xlim=(-0.6, len(SOURCES) - 0.4))
    left.set_ylim(bottom=0)
    left.grid(False, axis="x")
    _source_lines(right, sources.trajectories(store))
    return Plot(figure, f"{sources.model}_noise_sources", sources.sentence())


def noise_view(store: Store, sources: NoiseSources | None, model: str) -> Plot | Note:
    """``noise_plot``, or what to do where the sources were not run."""
    return Note(how_to_run(model)) if sources is None else noise_plot(store, sources)


def _follow(by_step: Axes, by_loss: Axes, cell: Trajectory, others: Sequence[Trajectory], metric: str) -> None:
    colour, marker = colour_of(cell.activation), marker_of(cell.activation)
    frame = cell.frame()
    style: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 4, "linewidth": 1.3, "alpha": 0.85}
    _line(by_step, frame["step"], frame, metric, style)
    _line(by_loss, frame["loss"], frame, metric, style)
    # The end of each run, this one's too: there alone the learning rate has decayed to 0.
    ends = pd.DataFrame([run.frame().iloc[-1] for run in [*others, cell]])
    stars = {**style, "marker": "*", "markersize": 11, "linestyle": "", "markeredgecolor": "black"}
    _line(by_step, ends["step"], ends, metric, stars)
    _line(by_loss, ends["loss"], ends, metric, stars)


def _line(axes: Axes, x: pd.Series, frame: pd.DataFrame, metric: str, style: dict[str, Any]) -> None:
    axes.plot(x, frame[metric], **style)
    draw_interval(axes, x, frame, metric, ecolor=style["color"], elinewidth=0.8, alpha=0.5)


def _step_axis(axes: Axes, longest: int) -> None:
    # Steps are log-spaced, and step 0, before any training, belongs on the axis.
    axes.set_xscale("symlog", linthresh=1)
    axes.set_xlim(-0.15, longest * 1.25)
    ticks = [0, *(10**k for k in range(int(math.log10(longest)) + 1))]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()


def _source_bar(axes: Axes, x: int, row: dict[str, Any]) -> None:
    if row["state"] != "measured":
        draw_gap(axes, x, 0.7, row["state"].split(":")[0])
        return
    value, low, high = (row[f"total_variation{end}"] for end in ("", "_low", "_high"))
    axes.bar(x, value, 0.7, color=SOURCE_STYLES[row["source"]]["color"], alpha=0.75)
    if not math.isnan(low):
        axes.errorbar(x, value, [[value - low], [high - value]], fmt="none", ecolor="#222222", elinewidth=1.3, capsize=4)
    # A trial that is repeated gives exactly 0, and a rounded 0.000 would not say so.
    label = "exactly 0" if value == 0 else f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"
    top = (x, value if math.isnan(high) else max(value, high))
    axes.annotate(label, top, xytext=(0, 3), textcoords="offset points", ha="center", fontsize=9)


def _source_lines(axes: Axes, followed: dict[str, Trajectory]) -> None:
    # Nothing is drawn as 0, not even a file that is gone.
    if not followed:
        axes.text(0.5, 0.5, "no kept predictions", transform=axes.transAxes, ha="center")
        axes.set_axis_off()
        return
    frames = {source: cell.frame() for source, cell in followed.items()}
    # A logarithm has no 0; it is drawn a decade below what is smallest, and the note says so.
    positive = [value for frame in frames.values() for value in frame["total_variation"] if value > 0]
    floor = min(positive, default=1e-9) / 10
    for source, frame in frames.items():
        values = np.maximum(frame["total_variation"], floor)
        axes.plot(frame["step"], values, label=source, markersize=4.5, **SOURCE_STYLES[source])
    # The sources are orders of magnitude apart early in training.
    axes.set_yscale("log")
    axes.set_ylim(bottom=floor)
    _step_axis(axes, max(cell.max_iters for cell in followed.values()))
    axes.set(title="Through training", xlabel="Training step")
    axes.legend(loc="best", fontsize=9)


def _lines(least: int) -> str:
    enough = least >= TRIALS_FOR_INTERVAL
    return f"; lines: 95 % interval over trials ({JACKKNIFE})" if enough else "; too few trials for an interval"


def _training_note(followed: Sequence[Trajectory], lengths: dict[str, list[Trajectory]], gaps: Sequence[str]) -> str:
    # The smallest N is the one that a reader must know.
    least = min(cell.n for cell in followed)
    note = f"Mean over all pairs of trials on every 16th evaluation block, N = {least} trials{_lines(least)}. "
    if runs := sorted({run.max_iters for several in lengths.values() for run in several}):
        note += f"Runs of other lengths, each decayed to rate 0: {', '.join(map(str, runs))} iterations. "
        note += "A snapshot is taken at a high learning rate and so disagrees more than a run that ends there. "
    else:
        note += "There are no runs of other lengths to compare the snapshots with. "
    return (note + " ".join(gaps)).strip()


def _training_alt(model: str, followed: Sequence[Trajectory], lengths: dict[str, list[Trajectory]]) -> str:
    parts = []
    for cell in followed:
        step, values = cell.parted_at(), cell.frame()["total_variation"]
        parted = "never part" if step is None else f"part at step {step}"
        decayed = [(run.max_iters, run.frame()["total_variation"].iloc[-1]) for run in lengths.get(cell.activation, [])]
        ends = ", ".join(f"{length} iterations {value:.3f}" for length, value in decayed)
        others = f", fully decayed runs of {ends}" if ends else ""
        change = f"from {values.iloc[0]:.3f} at step 0 to {values.iloc[-1]:.3f} at step {cell.max_iters}"
        parts.append(f"{cell.activation} {change}{others}; its trials {parted}")
    what = f"Total variation and churn of {model} over training steps and over loss (parted: churn above {PARTED} from then on)"
    return f"{what}: {'. '.join(parts)}."
