"""Figures of one model looked at closely: by slice of the text, through training, and by source of randomness."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from repro_lib.analysis.cell_anatomy import HEADS, Anatomies, CellAnatomy
from repro_lib.analysis.formatting import small
from repro_lib.analysis.frames import rows_of
from repro_lib.analysis.noise_sources import SOURCES, NoiseSources, how_to_run
from repro_lib.analysis.notes import Note
from repro_lib.analysis.study import Study
from repro_lib.analysis.trajectories import FOLLOWED, PARTED, Trajectory, load_trajectories, other_lengths
from repro_lib.metrics.uncertainty import TRIALS_FOR_INTERVAL
from repro_lib.plots import style
from repro_lib.plots.figures import JACKKNIFE, heading
from repro_lib.plots.panels import CONTROL_IN_WORDS
from repro_lib.plots.style import GREY, Plot, arms, colour_of, draw_gap, draw_interval, marker_of, styled
from repro_lib.store.schema import Result
from repro_lib.store.store import Store

# The activations of one slice stand side by side in this part of its slot.
GROUP_WIDTH = 0.7
# The sources of randomness, told apart by line and marker as well as by colour (Okabe & Ito).
SOURCE_STYLES: dict[str, dict[str, Any]] = {
    "all": {"color": "#000000", "marker": "o", "linestyle": "-"},
    "init": {"color": "#0072B2", "marker": "s", "linestyle": "--"},
    "order": {"color": "#D55E00", "marker": "^", "linestyle": "-."},
    "dropout": {"color": "#009E73", "marker": "D", "linestyle": ":"},
    "bit": {"color": "#CC79A7", "marker": "v", "linestyle": (0, (5, 1))},
    "none": {"color": GREY, "marker": "X", "linestyle": (0, (1, 1))},
}


@styled
def slices_view(study: Study, anatomies: Anatomies, model: str, metric: str = "total_variation") -> Plot | Note:
    """One of ``slices.SLICE_METRICS`` by slice of the text, one panel per slicing, all activations of one model.

    A cell that could not be taken apart is named below the panels; a sentence where none of the model's could.
    """
    cells = [cell for cell in anatomies.cells if cell.model == model]
    if not cells:
        return Note(f"No figure of the slices of {model}: none of its cells could be taken apart.")
    title = f"{model}: {heading(metric)} by slice of the text"
    title += f" ({CONTROL_IN_WORDS})" if model in study.identical else ""
    title = f"SYNTHETIC: {title}" if any(result.synthetic for result in study.results) else title
    looks = [(cell.activation, colour_of(cell.activation), marker_of(cell.activation)) for cell in cells]
    handles = [Line2D([], [], color=colour, marker=marker, linestyle="", label=name) for name, colour, marker in looks]
    figure, body = style.new_figure(7.4, title, _slices_note(study, anatomies, model), handles)
    panels = body.subplots(2, 2, sharey=True)
    for axes, slicing in zip(panels.flat, HEADS, strict=True):
        _slices_panel(axes, cells, slicing, metric)
    # Only now: a limit that is set ends the scaling to what the other panels hold.
    panels.flat[0].set_ylim(bottom=0)
    return Plot.of(figure, f"{model}_slices_{metric}", _slices_alt(cells, anatomies, model, metric))


def _slices_panel(axes: Axes, cells: Sequence[CellAnatomy], slicing: str, metric: str) -> None:
    """One slot per slice, in it one mark per activation with its interval; a slice no character is in is a hatched gap."""
    frames = [_rows(cell, slicing) for cell in cells]
    # Cells of different contexts may have different slices: the longest list has them all.
    names = max((frame["slice"].tolist() for frame in frames), key=len)
    step = GROUP_WIDTH / len(cells)
    for k, (cell, frame) in enumerate(zip(cells, frames, strict=True)):
        across = np.array([names.index(name) for name in frame["slice"]]) + (k - (len(cells) - 1) / 2) * step
        colour, marker = colour_of(cell.activation), marker_of(cell.activation)
        axes.plot(across, frame[metric], marker, color=colour, markersize=5, alpha=0.85, clip_on=False)
        draw_interval(axes, across, frame, metric, ecolor=colour, elinewidth=1.1)
    for x, name in enumerate(names):
        if not any(frame.loc[frame["slice"] == name, "n"].any() for frame in frames):
            draw_gap(axes, x, GROUP_WIDTH, "no character")
    axes.set_xticks(range(len(names)), [_tick(name, frames) for name in names], fontsize=8)
    axes.set(xlim=(-0.6, len(names) - 0.4), title=HEADS[slicing])
    axes.grid(False, axis="x")


def _tick(name: str, frames: Sequence[pd.DataFrame]) -> str:
    # With its share of the text, which differs between activations only where slices are by confidence.
    shares = [share for frame in frames for share in frame.loc[frame["slice"] == name, "share"]]
    low, high = (f"{100 * end:.0f}" if end == 0 or end >= 0.1 else f"{100 * end:.1f}" for end in (min(shares), max(shares)))
    label = name.replace(" to ", "\nto ").replace(" and ", "\nand ").replace("under ", "under\n").replace(" case", "\ncase")
    return f"{label}\n{low} %" if low == high else f"{label}\n{low} to\n{high} %"


def _slices_note(study: Study, anatomies: Anatomies, model: str) -> str:
    drawn = [cell.activation for cell in anatomies.cells if cell.model == model]
    rows = study.cells[(study.cells["model"] == model) & study.cells["activation"].isin(drawn)]
    note = "Marks: mean over all pairs of trials, for the characters of the slice alone. Below each slice its share of the "
    note += f"evaluation text. {style.interval_note(rows, JACKKNIFE)} "
    gaps = [f"{gap.activation} ({gap.words})" for gap in anatomies.gaps if gap.model == model]
    note += f"Not drawn: {', '.join(gaps)}. " if gaps else ""
    flagged = rows["activation"][rows["flags"] != ""].tolist()
    note += f"Flagged, not to be relied on: {', '.join(flagged)}. " if flagged else ""
    note += "The model was cut below its full size." if rows["cut"].any() else ""
    return note.strip()


def _slices_alt(cells: Sequence[CellAnatomy], anatomies: Anatomies, model: str, metric: str) -> str:
    # The lowest and the highest slice alone: with all of them and their intervals it would be too long to hear.
    panels = []
    for slicing, head in HEADS.items():
        parts = []
        for cell in cells:
            ranked = rows_of(_rows(cell, slicing).dropna(subset=[metric]).sort_values(metric, kind="stable"))
            low, high = (f"{ranked[end][metric]:.3f} ({ranked[end]['slice']})" for end in (0, -1))
            parts.append(f"{cell.activation} from {low} to {high}")
        panels.append(f"{head}: {'; '.join(parts)}.")
    gaps = [f"{gap.activation} ({gap.words})" for gap in anatomies.gaps if gap.model == model]
    missing = f" Not drawn: {', '.join(gaps)}." if gaps else ""
    # One cell with enough trials is enough: the figure then has lines.
    bounded = any(cell.n >= TRIALS_FOR_INTERVAL for cell in cells)
    lines = "with 95 % intervals over trials as lines" if bounded else "without intervals: too few trials"
    return f"{heading(metric)} of {model} by slice of the text, {lines}. {' '.join(panels)}{missing}"


def _rows(cell: CellAnatomy, slicing: str) -> pd.DataFrame:
    return cell.slices[cell.slices["slicing"] == slicing].reset_index(drop=True)


# --- through training


@styled
def through_training_view(store: Store, stored: Sequence[Result], study: Study, model: str) -> Plot | Note:
    """Total variation and churn over training steps, and over the loss reached; ends of runs of other lengths as stars.

    A sentence where no cell of the model can be followed.
    """
    followed, gaps = load_trajectories(store, study, model)
    if not followed:
        return Note(f"No figure of {model} through training: " + (" ".join(gaps) or "there is no result yet."))
    lengths = {cell.activation: other_lengths(store, stored, cell.result) for cell in followed}
    title = f"{model}: disagreement during training" + (f" ({CONTROL_IN_WORDS})" if model in study.identical else "")
    colours = style.activation_handles([cell.activation for cell in followed])
    steps = Line2D([], [], color=GREY, marker="o", markersize=4, label="kept steps of one run")
    ends = Line2D([], [], color=GREY, marker="*", markersize=11, linestyle="", label="end of a run, fully decayed")
    figure, body = style.new_figure(6.6, title, _training_note(followed, lengths, gaps), colours, [steps, ends])
    panels = body.subplots(2, 2, sharey="row")
    for row, metric in zip(panels, FOLLOWED[1:], strict=True):
        for cell in followed:
            _follow(dict(zip(("step", "loss"), row, strict=True)), cell, lengths[cell.activation], metric)
        row[0].set_ylabel(heading(metric))
    longest = max(run.max_iters for several in (followed, *lengths.values()) for run in several)
    for by_step, by_loss in panels:
        _step_axis(by_step, longest)
        # A loss falls: training goes from left to right in both columns.
        by_loss.invert_xaxis()
    panels[1, 0].set_xlabel("Training step")
    panels[1, 1].set_xlabel("Loss on the kept text, nats (falls to the right)")
    return Plot.of(figure, f"{model}_through_training", _training_alt(model, followed, lengths))


@styled
def noise_view(store: Store, sources: NoiseSources | None, study: Study) -> Plot | Note:
    """Total variation by source of randomness, at the end of training and through it; or what to do where none was run."""
    if sources is None:
        return Note(how_to_run(study))
    frame = sources.frame()
    least = int(frame.loc[frame["state"] == "measured", "n"].min())
    note = (
        f"Left: mean over all pairs of trials{_lines(least)}. N = {least} trials. Right: the same at the kept steps, on every "
    )
    note += "16th evaluation block; on a log scale, where exactly 0 is drawn at the lower edge."
    figure, body = style.new_figure(4.2, f"{sources.model} with {sources.activation}: where the randomness comes from", note)
    left, right = body.subplots(1, 2, width_ratios=[1, 1.15])
    for x, row in enumerate(rows_of(frame)):
        _source_bar(left, x, row)
    left.set_xticks(range(len(SOURCES)), list(SOURCES))
    left.set(ylabel=heading("total_variation"), title="At the end", xlim=(-0.6, len(SOURCES) - 0.4))
    left.set_ylim(bottom=0)
    left.grid(False, axis="x")
    _source_lines(right, sources.trajectories(store))
    return Plot.of(figure, f"{sources.model}_noise_sources", sources.sentence())


def _follow(panels: dict[str, Axes], cell: Trajectory, others: Sequence[Trajectory], metric: str) -> None:
    colour, marker = colour_of(cell.activation), marker_of(cell.activation)
    look: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 4, "linewidth": 1.3, "alpha": 0.85}
    # The end of each run, this one's too: there alone the learning rate has decayed to 0.
    ends = pd.DataFrame([run.frame().iloc[-1] for run in [*others, cell]])
    stars = {**look, "marker": "*", "markersize": 11, "linestyle": "", "markeredgecolor": "black"}
    for over, axes in panels.items():
        for frame, marks in ((cell.frame(), look), (ends, stars)):
            axes.plot(frame[over], frame[metric], **marks)
            draw_interval(axes, frame[over], frame, metric, ecolor=colour, elinewidth=0.8, alpha=0.5)


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
    value, high = row["total_variation"], row["total_variation_high"]
    axes.bar(x, value, 0.7, color=SOURCE_STYLES[row["source"]]["color"], alpha=0.75)
    if spread := arms(row, "total_variation"):
        axes.errorbar(x, value, spread, fmt="none", ecolor="#222222", elinewidth=1.3, capsize=4)
    # A trial that is repeated gives exactly 0, and a rounded 0.000 would not say so.
    label = "exactly\n0" if value == 0 else f"{value:.3f}" if value >= 0.001 else small(value)
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
        decayed = [(run.max_iters, run.frame()["total_variation"].iloc[-1]) for run in lengths[cell.activation]]
        ends = ", ".join(f"{length} iterations {value:.3f}" for length, value in decayed)
        others = f", fully decayed runs of {ends}" if ends else ""
        change = f"from {values.iloc[0]:.3f} at step 0 to {values.iloc[-1]:.3f} at step {cell.max_iters}"
        parts.append(f"{cell.activation} {change}{others}; its trials {parted}")
    what = f"Total variation and churn of {model} over training steps and over loss (parted: churn above {PARTED} from then on)"
    return f"{what}: {'. '.join(parts)}."
