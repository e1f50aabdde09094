"""The panels that figures are put together from, and the alternative texts that say what they show."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from repro_lib.analysis.frames import METRICS, rows_of
from repro_lib.analysis.overviews import models_overview
from repro_lib.analysis.study import Study
from repro_lib.metrics.uncertainty import Estimate
from repro_lib.plots.style import GAP, GREY, SYNTHETIC_HATCH, SYNTHETIC_LOOK, colour_of, draw_cell, draw_gap, marker_of

CONTROL_IN_WORDS = "negative control"
# Under words that stand on a hatch or a line.
BOX: dict[str, Any] = {"facecolor": "white", "edgecolor": "none"}
MODEL_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


def _points(study: Study, cell: dict[str, Any], column: str) -> Sequence[float]:
    # What the cell's mean is taken over: pairs for a metric, trials for a loss or an accuracy.
    frame = study.pairs if column in METRICS else study.trials
    chosen = (frame["model"] == cell["model"]) & (frame["activation"] == cell["activation"])
    return frame.loc[chosen, column].tolist()


def model_panel(
    axes: Axes, study: Study, cells: pd.DataFrame, column: str, bar: bool = True, labels: bool = True, numbers: bool = False
) -> None:
    """One slot per activation of one model; ``numbers`` adds value and interval to the labels."""
    rows = rows_of(cells)
    for x, cell in enumerate(rows):
        draw_cell(axes, x, 0.7, cell, column, _points(study, cell, column), bar)
    names = [_activation_label(cell, column if numbers else None) for cell in rows] if labels else []
    axes.set_xticks(range(len(names)), names)
    axes.set_xlim(-0.6, len(rows) - 0.4)
    _scaled(axes, cells, column, bar)


def grid_panel(axes: Axes, study: Study, column: str, bar: bool = True) -> None:
    """Slots of all activations, grouped by model."""
    width = 0.84 / len(study.activations)
    for slot, model in enumerate(study.models):
        rows = rows_of(study.cells[study.cells["model"] == model])
        for k, cell in enumerate(rows):
            x = slot + (k - (len(rows) - 1) / 2) * width
            draw_cell(axes, x, width * 0.92, cell, column, _points(study, cell, column), bar)
    axes.set_xticks(range(len(study.models)), [_model_label(study, model) for model in study.models])
    axes.set_xlim(-0.5, len(study.models) - 0.5)
    _scaled(axes, study.cells, column, bar)


def _scaled(axes: Axes, cells: pd.DataFrame, column: str, bar: bool) -> None:
    axes.grid(False, axis="x")
    # Bars start at 0, and synthetic cells get room for their name. Without any number a scale would say something.
    if not np.isfinite(cells[column]).any():
        axes.set_yticks([])
    elif bar:
        axes.margins(y=0.08)
        axes.set_ylim(bottom=0)
    if (cells["synthetic"].astype(bool) & np.isfinite(cells[column])).any():
        low, high = axes.get_ylim()
        axes.set_ylim(low, high + 0.4 * (high - low))


def _activation_label(cell: dict[str, Any], column: str | None) -> str:
    lines = [cell["activation"]]
    if column and math.isfinite(cell[column]):
        estimate = Estimate.in_row(cell, column)
        lines += [f"{cell[column]:.3f}", f"({estimate.interval('.3f')})" if estimate.has_interval else "no interval"]
    if cell["n"]:
        lines.append(f"N = {cell['n']}")
        lines += ["synthetic"] if cell["synthetic"] else ["flagged"] if cell["flags"] else []
    return "\n".join(lines)


def _model_label(study: Study, model: str) -> str:
    marks = ["cut"] if study.cells["cut"][study.cells["model"] == model].any() else []
    marks += ["control"] if model in study.identical else []
    return f"{model}\n({', '.join(marks)})" if marks else model


def model_marker(study: Study, model: str) -> str:
    """The marker of a model in this study."""
    return MODEL_MARKERS[study.models.index(model) % len(MODEL_MARKERS)]


def model_handles(study: Study) -> Sequence[Artist]:
    """A legend entry per model."""
    labels = {name: f"{name} (control)" if name in study.identical else name for name in study.models}
    style: dict[str, Any] = {"color": GREY, "linestyle": ""}
    return [Line2D([], [], label=label, marker=model_marker(study, name), **style) for name, label in labels.items()]


# Training losses are noisy and of single batches; the validation loss is what models are compared by, so it is the thick one.
TRAIN_LINE: dict[str, Any] = {"linewidth": 0.9, "alpha": 0.55}
VALIDATION_LINE: dict[str, Any] = {"linewidth": 1.6, "marker": "o", "markersize": 3.5}
# What a model that knows only how frequent each character is would reach: a line above it has learnt nothing of the context.
UNIGRAM_LINE: dict[str, Any] = {"linewidth": 1, "linestyle": "--"}


def curve_handles() -> Sequence[Artist]:
    """What the lines of a curve panel are."""
    looks = {"training, one line per trial": TRAIN_LINE, "validation": VALIDATION_LINE, "loss of the unigrams": UNIGRAM_LINE}
    return [Line2D([], [], color=GREY, label=label, **look) for label, look in looks.items()]


def curve_panel(axes: Axes, cell: dict[str, Any], curves: pd.DataFrame) -> None:
    """The loss of every trial of one cell: training thin, validation thick, the unigrams dashed."""
    mark = ", synthetic" if cell["synthetic"] else ", flagged" if cell["flags"] else ""
    axes.set_title(cell["activation"] + (f", N = {cell['n']}" if cell["n"] else "") + mark)
    if not cell["n"]:
        axes.patch.set(**GAP, linewidth=0)
        axes.text(0.5, 0.5, "missing", transform=axes.transAxes, ha="center", bbox=BOX)
        return
    if cell["synthetic"]:
        axes.patch.set(linewidth=0, alpha=0.3, **SYNTHETIC_LOOK)
    own = curves[curves["activation"] == cell["activation"]]
    if own.empty:  # an estimate from a model of all cells has no course
        axes.text(0.5, 0.5, "no curve: only the end is estimated", transform=axes.transAxes, ha="center", fontsize=9, bbox=BOX)
    for (split, _), line in own.groupby(["split", "trial"], sort=False):
        look = TRAIN_LINE if split == "train" else VALIDATION_LINE
        axes.plot(line["iteration"], line["loss"], color=colour_of(cell["activation"]), **look)
    axes.axhline(cell["unigram_loss"], color=GREY, **UNIGRAM_LINE)


def boxes(axes: Axes, study: Study) -> None:
    """Per activation the relative PD over the models that are not left out."""
    # Neither stand-ins nor a model that ignores the activation may widen a box.
    study = study.measured
    cells = study.cells[~study.cells["model"].isin(study.identical)].dropna(subset=["relative_pd"])
    for x, activation in enumerate(study.activations):
        values = cells.loc[cells["activation"] == activation, "relative_pd"]
        if values.empty:
            draw_gap(axes, x, 0.6, "missing")
            continue
        colour, hatch = colour_of(activation), SYNTHETIC_HATCH if study.is_synthetic else None
        # Whiskers to the ends, because every point is drawn anyway and none is an outlier among five models.
        axes.boxplot(
            [values], positions=[x], widths=0.6, patch_artist=True, whis=(0, 100), showfliers=False,
            boxprops={"facecolor": colour, "alpha": 0.5, "hatch": hatch}, medianprops={"color": "black"},
        )  # fmt: skip
        look = {"color": colour, "markeredgecolor": "black", "markersize": 5, "clip_on": False}  # whole marks at the edge too
        axes.plot(np.full(len(values), x), values, marker_of(activation), **look)
    axes.set_xticks(range(len(study.activations)), study.activations)
    axes.set_xlim(-0.6, len(study.activations) - 0.4)
    axes.set_title("Per activation, one point per model")
    _scaled(axes, cells, "relative_pd", bar=True)


def cv_bars(axes: Axes, study: Study) -> None:
    """The models by their CV over the activations, the largest first."""
    overview = models_overview(study).sort_values("cv", ascending=False, na_position="last", kind="stable")
    rows = rows_of(overview)
    # A model that is identical throughout has CV 0, and an axis needs some width.
    widest = max((row["cv"] for row in rows if math.isfinite(row["cv"])), default=1.0) or 1.0
    for y, row in enumerate(rows):
        if math.isnan(row["cv"]):
            axes.axhspan(y - 0.3, y + 0.3, **GAP, linewidth=0)
            label = f"needs 2 cells with a PD, has {row['cells']} of {row['expected']} cells" if row["cells"] else "missing"
        else:
            look: dict[str, Any] = {"color": "#EEEEEE", **SYNTHETIC_LOOK} if study.is_synthetic else {"color": "#999999"}
            axes.barh(y, row["cv"], 0.6, **look)
            label = f"{row['cv']:.2f} %" + (f", {CONTROL_IN_WORDS}" if row["identical"] else "")
            label += f" ({row['cells']} of {row['expected']} cells)" if row["cells"] < row["expected"] else ""
        end = 0 if math.isnan(row["cv"]) else row["cv"]
        axes.text(end + 0.02 * widest, y, label, va="center", bbox={**BOX, "pad": 1.5})
    axes.set_yticks(range(len(rows)), [row["model"] for row in rows])
    axes.set(xlim=(0, 1.5 * widest), ylim=(len(rows) - 0.5, -0.5), title="CV over activations, %")
    axes.grid(False, axis="y")


def heat_map(axes: Axes, study: Study) -> None:
    """Models x activations, each with its number and interval."""
    colours = colormaps["Blues"]
    finite = study.cells["relative_pd"].dropna()
    # From 0: a scale from the lowest cell on would make any study look full of contrast.
    scale = Normalize(0, finite.max() if len(finite) and finite.max() > 0 else 1)
    for cell in rows_of(study.cells):
        x, y = study.activations.index(cell["activation"]), study.models.index(cell["model"])
        corner, value = (x - 0.5, y - 0.5), cell["relative_pd"]
        if math.isnan(value):
            axes.add_patch(Rectangle(corner, 1, 1, **GAP, linewidth=0))
            label, box = "missing" if cell["n"] == 0 else "one trial", BOX
        else:
            fill = colours(0.6 * scale(value))  # the darker part would need white text
            look: dict[str, Any] = SYNTHETIC_LOOK if cell["synthetic"] else {"edgecolor": "white"}
            axes.add_patch(Rectangle(corner, 1, 1, facecolor=fill, **look))
            label, box = f"{value:.3f}\n{Estimate.in_row(cell, 'relative_pd').interval('.2f', 'no interval')}", None
            if cell["synthetic"]:
                label, box = f"{label}\nsynthetic", {"facecolor": fill, "edgecolor": "none", "pad": 1.5}
        axes.text(x, y, label, ha="center", va="center", fontsize=9, bbox=box)
    axes.set_xticks(range(len(study.activations)), study.activations)
    axes.set_yticks(range(len(study.models)), [_model_label(study, model) for model in study.models])
    axes.set(xlim=(-0.5, len(study.activations) - 0.5), ylim=(len(study.models) - 0.5, -0.5))  # the first model on top
    axes.set_title("Relative PD: mean and 95 % interval")
    axes.grid(False)
    axes.spines[:].set_visible(False)


def about_cells(study: Study) -> str:
    """What the reader must know about cells that are missing, flagged, cut or identical."""
    stand_ins, study, notes = int(study.is_mixed and study.cells["synthetic"].sum()), study.measured, []
    cells = study.cells
    if study.identical:
        notes.append("(control): bit-identical across activations, left out of boxes and averages.")
    if (cells["n"] == 0).any():
        shown = f", {stand_ins} of them with a synthetic stand-in" if stand_ins else ""
        notes.append(f"Missing: {(cells['n'] == 0).sum()} cells{shown}.")
    if flagged := int((cells["flags"] != "").sum()):
        notes.append(f"{flagged} of {(cells['n'] > 0).sum()} cells are flagged, not to be relied on.")
    if cut := list(dict.fromkeys(cells["model"][cells["cut"]])):
        every = set(cells["model"][cells["n"] > 0]) == set(cut)
        notes.append(f"Cut below their full size: {'all models' if every else ', '.join(cut)}.")
    return " ".join(notes)


def model_alt(study: Study, cells: pd.DataFrame, column: str, what: str) -> str:
    """``Relative PD of charlm per activation: relu 0.224 (0.027 to 0.422); swish missing.``"""
    parts = []
    for cell in rows_of(cells):
        estimate = Estimate.in_row(cell, column)
        number = f"{estimate:.3f}" + ("" if estimate.has_interval else f" (no interval at N = {cell['n']})")
        if math.isnan(estimate.value):
            number = "one trial, no pair" if cell["n"] else "missing"
        parts.append(f"{cell['activation']} {number}" + (" SYNTHETIC" if cell["synthetic"] else ""))
    control = f" {CONTROL_IN_WORDS.capitalize()}: bit-identical across activations."
    control = control if cells["model"].isin(study.identical).any() else ""
    return f"{what}, with 95 % intervals over trials: {'; '.join(parts)}.{control}"


def grid_alt(study: Study, column: str, what: str) -> str:
    """Lowest and highest measured cell of each model, its CV for PD, and how many cells are missing."""
    stand_ins, study, parts = study.is_mixed and study.cells["synthetic"].sum(), study.measured, []
    overview = models_overview(study).set_index("model")
    for model in study.models:
        cells = study.cells[study.cells["model"] == model].dropna(subset=[column]).sort_values(column, kind="stable")
        if cells.empty:
            parts.append(f"{model} missing")
        elif model in study.identical:
            parts.append(f"{model} {cells[column].iloc[0]:.3f} for every activation ({CONTROL_IN_WORDS})")
        else:
            ends = [f"{cells['activation'].iloc[k]} {cells[column].iloc[k]:.3f}" for k in (0, -1)]
            known = column == "relative_pd" and len(cells) > 1 and overview["cv"].notna()[model]
            cv = f", CV {overview.loc[model, 'cv']:.2f} %" if known else ""
            parts.append(f"{model} from {ends[0]} to {ends[1]}{cv}")
    gone = int((study.cells["n"] == 0).sum())
    synthetic = "SYNTHETIC, not measured. " if study.is_synthetic else ""
    hatched = f" {stand_ins} of them are shown by hatched SYNTHETIC stand-ins." if stand_ins else ""
    return f"{synthetic}{what}: {'; '.join(parts)}. Missing cells: {gone} of {len(study.cells)}.{hatched}"


def trade_off_alt(study: Study) -> str:
    """The ranges of both axes over the measured cells, and how many synthetic stand-ins are shown beside them."""
    # Of the measured cells: the range of a figure must not come from stand-ins.
    cells = study.measured.cells.dropna(subset=["relative_pd"])
    if cells.empty:
        return "Accuracy against relative PD: no results yet."
    ends = [f"{cells[name].min():.3g} to {cells[name].max():.3g}" for name in ("val_accuracy", "relative_pd")]
    kind = "SYNTHETIC cells" if study.is_synthetic else "cells"
    beside = f" Beside them {study.cells['synthetic'].sum()} SYNTHETIC ones, not measured." if study.is_mixed else ""
    what = f"Accuracy ({ends[0]} per cent) against relative PD ({ends[1]}) of {len(cells)} {kind}"
    return f"{what}, with 95 % intervals over trials.{beside}"
