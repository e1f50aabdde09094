"""The figure of where in the text a model's trials disagree: a study and its anatomies in, a ``Plot`` out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from repro_lib.analysis.cell_anatomy import HEADS, Anatomies, CellAnatomy
from repro_lib.analysis.notes import Note
from repro_lib.analysis.study import Study, rows_of
from repro_lib.metrics.uncertainty import TRIALS_FOR_INTERVAL
from repro_lib.plots.figures import JACKKNIFE, TITLES
from repro_lib.plots.panels import CONTROL_IN_WORDS
from repro_lib.plots.style import Plot, colour_of, draw_gap, draw_interval, interval_note, marker_of, new_figure, styled

# The activations of one slice stand side by side in this part of its slot.
GROUP_WIDTH = 0.7


def slices_view(study: Study, anatomies: Anatomies, model: str, metric: str) -> Plot | Note:
    """``slices_plot``, or a sentence where no cell of the model could be taken apart."""
    if not any(cell.model == model for cell in anatomies.cells):
        return Note(f"No figure of the slices of {model}: none of its cells could be taken apart.")
    return slices_plot(study, anatomies, model, metric)


@styled
def slices_plot(study: Study, anatomies: Anatomies, model: str, metric: str = "total_variation") -> Plot:
    """One of ``slices.SLICE_METRICS`` by slice of the text, one panel per slicing, all activations of one model.

    A cell that could not be taken apart is named below the panels; ValueError where none of the model's could.
    """
    cells = [cell for cell in anatomies.cells if cell.model == model]
    if not cells:
        raise ValueError(f"no cell of {model!r} could be taken apart: {anatomies.sentence()}")
    title = f"{model}: {TITLES[metric]} by slice of the text"
    title += f" ({CONTROL_IN_WORDS})" if model in study.identical else ""
    title = f"SYNTHETIC: {title}" if any(result.synthetic for result in study.results) else title
    looks = [(cell.activation, colour_of(cell.activation), marker_of(cell.activation)) for cell in cells]
    handles = [Line2D([], [], color=colour, marker=marker, linestyle="", label=name) for name, colour, marker in looks]
    figure, body = new_figure(7.4, title, _note(study, anatomies, model), handles)
    panels = body.subplots(2, 2, sharey=True)
    for axes, slicing in zip(panels.flat, HEADS, strict=True):
        _slices_panel(axes, cells, slicing, metric)
    # Only now: a limit that is set ends the scaling to what the other panels hold.
    panels.flat[0].set_ylim(bottom=0)
    return Plot(figure, f"{model}_slices_{metric}", _alt(cells, anatomies, model, metric))


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


def _note(study: Study, anatomies: Anatomies, model: str) -> str:
    drawn = [cell.activation for cell in anatomies.cells if cell.model == model]
    rows = study.cells[(study.cells["model"] == model) & study.cells["activation"].isin(drawn)]
    note = "Marks: mean over all pairs of trials, for the characters of the slice alone. Below each slice its share of the "
    note += f"evaluation text. {interval_note(rows, JACKKNIFE)} "
    gaps = [f"{gap.activation} ({gap.words})" for gap in anatomies.gaps if gap.model == model]
    note += f"Not drawn: {', '.join(gaps)}. " if gaps else ""
    flagged = rows["activation"][rows["flags"] != ""].tolist()
    note += f"Flagged, not to be relied on: {', '.join(flagged)}. " if flagged else ""
    note += "The model was cut below its full size." if rows["cut"].any() else ""
    return note.strip()


def _alt(cells: Sequence[CellAnatomy], anatomies: Anatomies, model: str, metric: str) -> str:
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
    return f"{TITLES[metric]} of {model} by slice of the text, {lines}. {' '.join(panels)}{missing}"


def _rows(cell: CellAnatomy, slicing: str) -> pd.DataFrame:
    return cell.slices[cell.slices["slicing"] == slicing].reset_index(drop=True)
