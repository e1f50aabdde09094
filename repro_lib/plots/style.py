"""How the figures look, and the marks they share: a bar or dot with interval and points, a hatched gap, a note.

Figures are plain ``matplotlib.figure.Figure`` objects: nothing here touches pyplot or a global figure.
"""

from __future__ import annotations

import base64
import io
import math
import textwrap
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Patch
from PIL import Image

from repro_lib.metrics.uncertainty import TRIALS_FOR_INTERVAL
from repro_lib.store.derived import derived

# Okabe & Ito's colours (jfly.uni-koeln.de/color, 2008): told apart by readers with any common colour blindness. One per
# activation, everywhere; the marker repeats it for a reader who sees none.
COLOURS = {
    "relu": "#D55E00",
    "gelu": "#0072B2",
    "swish": "#009E73",
    "swiglu": "#CC79A7",
    "smelu_1": "#E69F00",
    "smelu_05": "#56B4E9",
}
MARKERS = {"relu": "o", "gelu": "s", "swish": "^", "swiglu": "D", "smelu_1": "v", "smelu_05": "P"}
# Of arms that are no activations: what is left of Tol's muted scheme (personal.sron.nl/~pault), and markers of their own.
_OTHER_COLOURS = ("#332288", "#88CCEE", "#44AA99", "#117733", "#999933", "#AA7733", "#CC6677", "#882255", "#AA4499", "#555555")
_OTHER_MARKERS = ("X", "<", ">", "p", "h", "d", "*")
# The colour of a page, which is dark on light and light on dark, for whatever has none of its own.
PAGE_COLOUR = "currentColor"
MISSING_HATCH, SYNTHETIC_HATCH = "////", "xx"
# What is missing is hatched, because an empty place would look like a 0.
GAP: dict[str, Any] = {"facecolor": "white", "edgecolor": "#999999", "hatch": MISSING_HATCH}
GREY = "#666666"
SYNTHETIC_LOOK: dict[str, Any] = {"hatch": SYNTHETIC_HATCH, "edgecolor": "#222222"}
SYNTHETIC_NOTE = "Cross-hatched: synthetic, not measured"

# Figures are as wide as a report's text; the PNG has 1.44 pixels per CSS pixel, so that it stays sharp.
WIDTH_INCHES, REPORT_PIXELS = 9.0, 900
DPI = 144
STYLE = ["default", Path(__file__).with_name("figures.mplstyle")]
# A decorator: a figure is drawn in the suite's style whatever the reader's own matplotlib settings are, which are left alone.
styled = matplotlib.style.context(STYLE)


@contextmanager
def laid_out(figure: Figure) -> Iterator[None]:
    """While a figure is drawn every part of it has its place, the same in every process."""
    if engine := figure.get_layout_engine():
        engine.execute(figure)
    # The last bits of a layout depend on the order in which it was solved, which is another one in each process.
    figure.set_layout_engine("none")
    for part in figure.subfigs:
        part.bbox_relative.p0, part.bbox_relative.p1 = np.round(part.bbox_relative.get_points(), 6)
    for axes in figure.axes:
        with_others = axes.get_in_layout()  # ``set_position`` takes axes out of any later layout
        axes.set_position(tuple(np.round(axes.get_position(original=True).bounds, 6)))
        axes.set_in_layout(with_others)
    try:
        yield
    finally:
        figure.set_layout_engine(engine)


@dataclass(frozen=True, eq=False, repr=False)
class Plot:
    """A figure with its file name (without ending) and its alternative text, which states the main numbers.

    As the last value of a notebook cell it shows itself as PNG, with the alternative text in the metadata.
    """

    name: str
    # Draws it: the figure and its alternative text.
    make: Callable[[], tuple[Figure, str]]
    # The results folder that its picture may be kept in, and all that it shows of the results there (JSON).
    folder: Path | None = None
    shows: Callable[[], Any] | None = None

    @classmethod
    def of(cls, figure: Figure, name: str, alt: str) -> Plot:
        """A figure that is drawn already."""
        return cls(name, lambda: (figure, alt))

    @cached_property
    def _made(self) -> tuple[Figure, str]:
        return self.make()

    @property
    def figure(self) -> Figure:
        """The figure itself, drawn when it is first asked for."""
        return self._made[0]

    @property
    def alt(self) -> str:
        """The alternative text."""
        return self._made[1] if self.folder is None else self._kept["alt"]

    def png(self) -> bytes:
        """The figure as PNG: the same bytes for the same figure."""
        # Whoever has looked at the figure may have changed it.
        return self._drawn() if self.folder is None or "_made" in vars(self) else base64.b64decode(self._kept["png"])

    @cached_property
    def _kept(self) -> dict[str, str]:
        def made() -> dict[str, str]:
            return {"alt": self._made[1], "png": base64.b64encode(self._drawn()).decode()}

        return derived(self.folder, f"plot-{self.name}", self.shows and self.shows(), made)

    def _drawn(self) -> bytes:
        # matplotlib makes some parts, ticks for one, only now, and with the settings of now. Not with ``savefig``, which goes
        # through every part twice for the layout, and makes a file of it.
        with matplotlib.style.context(STYLE):
            canvas = FigureCanvasAgg(self.figure)
            with laid_out(self.figure):
                canvas.draw()
        # A palette makes the file a third of the size, and changes nothing that an eye would see. Charts have few colours; of
        # these methods it is the one that keeps those of thin lines and of small markers.
        picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
        few, buffer = picture.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE), io.BytesIO()
        # The tightest packing takes seven times as long as this one for a tenth of the file.
        few.save(buffer, "PNG", compress_level=6)
        return buffer.getvalue()

    def vectors(self) -> dict[str, bytes]:
        """The figure as ``svg`` (letters as paths) and as ``pdf`` (fonts embedded): the same bytes for the same figure."""
        dates = {"svg": {"Date": None, "Description": self.alt}, "pdf": {"CreationDate": None, "Subject": self.alt}}
        with matplotlib.style.context(STYLE):
            figure, made = self.make()[0], {kind: io.BytesIO() for kind in dates}
            with laid_out(figure):
                for kind, buffer in made.items():
                    figure.savefig(buffer, format=kind, metadata={"Title": self.name} | dates[kind])
        return {kind: buffer.getvalue() for kind, buffer in made.items()}

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        png = self.png()
        # Its header has the width in pixels.
        width = round(int.from_bytes(png[16:20], "big") * REPORT_PIXELS / (WIDTH_INCHES * DPI))
        return {"image/png": base64.b64encode(png).decode("ascii"), "text/plain": self.alt}, {
            "image/png": {"width": width, "alt": self.alt}
        }


def new_figure(body: float, title: str, note: str, *legends: Sequence[Artist]) -> tuple[Figure, SubFigure]:
    """A figure of the report's width and, inside it, the empty part for the panels, ``body`` inches high.

    Above that part stand the title and one row per legend, below it the note that says what the marks mean.
    """
    # Head and foot have a height of their own, so that nothing overlaps whatever they hold.
    lines = textwrap.wrap(note, 142)
    head, foot = 0.42 + 0.28 * len(legends), 0.12 + 0.165 * len(lines)
    figure = Figure(figsize=(WIDTH_INCHES, head + body + foot), layout="constrained")
    parts = figure.add_gridspec(3, 1, height_ratios=[head, body, foot])
    top, middle, bottom = (figure.add_subfigure(parts[k]) for k in range(3))
    size = 13.0 if len(title) <= 86 else 13 * 80 / len(title)  # a longer title gets smaller letters, for it must fit
    top.text(0.01, 1 - 0.22 / head, title, va="center", fontsize=size, fontweight="bold")
    for row, handles in enumerate(legends):
        corner = (0.0, 1 - (0.56 + 0.28 * row) / head)
        spacing = {"columnspacing": 1.4, "handletextpad": 0.5}
        top.legend(handles=handles, loc="center left", bbox_to_anchor=corner, ncols=max(len(handles), 1), **spacing)
    bottom.text(0.01, 1.0, "\n".join(lines), va="top", fontsize=9, color="#444444", linespacing=1.3)
    return figure, middle


def colour_of(activation: str) -> str:
    """The colour of an arm, the same in every figure: an activation's own, for any other name one that follows from it."""
    return COLOURS.get(activation) or _OTHER_COLOURS[zlib.crc32(activation.encode()) % len(_OTHER_COLOURS)]


def marker_of(activation: str) -> str:
    """The marker of an arm, the same in every figure."""
    return MARKERS.get(activation) or _OTHER_MARKERS[zlib.crc32(activation[::-1].encode()) % len(_OTHER_MARKERS)]


def draw_cell(
    axes: Axes, x: float, width: float, cell: Mapping[str, Any], column: str, points: Sequence[float], bar: bool = True
) -> None:
    """One cell at ``x``: its mean as bar (or dot), its interval as line, its pairs or trials as points.

    ``cell`` is a row of ``cells_frame`` and ``column`` names the number. A missing cell is a hatched gap; a synthetic one
    is hatched another way and says so.
    """
    value = cell[column]
    if not math.isfinite(value):
        few = {0: "missing", 1: "one trial"}
        reason = few.get(cell["n"], "not known" if math.isnan(value) else "infinite")
        draw_gap(axes, x, width, reason)
        return
    colour, wide = colour_of(cell["activation"]), width > 0.3
    if bar:
        # Paler where it is synthetic, so that the hatch shows on every colour.
        look = {**SYNTHETIC_LOOK, "alpha": 0.4} if cell["synthetic"] else {"edgecolor": colour, "alpha": 0.75}
        axes.bar(x, value, width, color=colour, **look)
    else:
        axes.plot([x], [value], marker_of(cell["activation"]), color=colour, markersize=9 if wide else 6.5, alpha=0.75)
    # Points in the left part of the slot, in the order of the pairs; the interval in the right part, clear of them.
    start, end = (-0.38, 0.02) if bar else (-0.48, -0.28)
    offsets = np.linspace(start, end, len(points)) * width if len(points) > 1 else [start * width]
    dots = {"color": "white", "markeredgecolor": "#222222", "markeredgewidth": 0.9, "markersize": 4.5 if wide else 2.8}
    axes.plot(x + np.asarray(offsets), points, "o", **dots)
    if cell["synthetic"]:
        if not bar:
            axes.axvspan(x - width / 2, x + width / 2, facecolor="none", linewidth=0, alpha=0.5, **SYNTHETIC_LOOK)
        _write_upright(axes, x, 0.97, "synthetic", va="top")
    if spread := arms(cell, column):
        beside = x + (0.26 * width if bar else 0)
        axes.errorbar(beside, value, spread, fmt="none", ecolor="#222222", elinewidth=1.3, capsize=4 if wide else 2)


def arms(row: Mapping[str, Any], name: str) -> list[list[float]] | None:
    """The lengths of the two arms of a number's interval; None where it has none, so that none is drawn."""
    value, low, high = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
    return None if math.isnan(low) else [[value - low], [high - value]]


def mark_synthetic(axes: Axes, x: float, y: float, marker: str, label: str) -> None:
    """Hatch a point of a scatter plot and write ``label`` over it."""
    axes.scatter([x], [y], s=90, marker=marker, facecolor="none", zorder=3, **{**SYNTHETIC_LOOK, "hatch": 3 * SYNTHETIC_HATCH})
    axes.annotate(label, (x, y), xytext=(0, 7), textcoords="offset points", ha="center", fontsize=9, color="#222222")


def draw_gap(axes: Axes, x: float, width: float, reason: str) -> None:
    """A hatched gap as high as the axes with the reason written in it: nothing is drawn as 0."""
    axes.axvspan(x - width / 2, x + width / 2, **GAP, linewidth=0.5)
    _write_upright(axes, x, 0.5, reason)


def _write_upright(axes: Axes, x: float, height: float, words: str, va: str = "center") -> None:
    # From bottom to top, because slots are narrow; the height is 0 to 1 of the axes, whatever their scale is.
    look = {"rotation": 90, "ha": "center", "va": va, "fontsize": 9, "color": "#222222"}
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
    axes.text(x, height, words, transform=axes.get_xaxis_transform(), bbox=box, **look)


def draw_interval(axes: Axes, x: Any, frame: pd.DataFrame, metric: str, **look: Any) -> None:
    """The intervals of ``metric`` in a frame with ``_low`` and ``_high``, at ``x`` of each row; none where there is none."""
    bounded = frame[f"{metric}_low"].notna().to_numpy()
    # matplotlib would warn of what is not there.
    if bounded.any():
        arms = np.abs(frame[[f"{metric}_low", f"{metric}_high"]].to_numpy().T - frame[metric].to_numpy())[:, bounded]
        axes.errorbar(np.asarray(x)[bounded], frame[metric][bounded], arms, fmt="none", **look)


def activation_handles(activations: Sequence[str]) -> Sequence[Artist]:
    """The colours of the activations, for the legend of a figure."""
    return [Patch(facecolor=colour_of(name), alpha=0.75, label=name) for name in activations]


def interval_note(cells: pd.DataFrame, method: str) -> str:
    """What the interval lines are and, where there are none, why; for measured cells, if there are any."""
    there = cells[cells["n"] > 0]
    if there.empty:
        return "No results yet."
    # The note is about the measured cells where there are any; stand-ins would change the N that it states.
    if there["synthetic"].any():
        measured = cells[~cells["synthetic"].astype(bool)]
        if (measured["n"] > 0).any():
            return f"{interval_note(measured, method)} {SYNTHETIC_NOTE}, in no statistic across cells."
        return f"{SYNTHETIC_NOTE}. {interval_note(there.assign(synthetic=False), method)}"
    least, most = there["n"].min(), there["n"].max()
    trials = f"N = {least}" if least == most else f"N = {least} to {most}"
    note = f"Lines: 95 % interval over trials ({method}, {trials}), conditional on the evaluation text."
    if most < TRIALS_FOR_INTERVAL:
        return f"No intervals: {trials}, and an interval needs {TRIALS_FOR_INTERVAL} trials."
    return note + (f" No line: fewer than {TRIALS_FOR_INTERVAL} trials." if least < TRIALS_FOR_INTERVAL else "")
