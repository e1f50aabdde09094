"""Every figure of the suite: a study in, a ``Plot`` out.

Every number has its interval or the figure says why not; pairs and trials are points; a missing cell is a hatched gap.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial, wraps
from inspect import signature
from typing import Any

from matplotlib.figure import Figure

from repro_lib.analysis.frames import METRICS, rows_of
from repro_lib.analysis.study import Study
from repro_lib.metrics.prediction_difference import PAIR_METRICS, metric_names
from repro_lib.plots import panels, style
from repro_lib.plots.panels import CONTROL_IN_WORDS, about_cells, grid_alt, grid_panel, model_alt, model_panel
from repro_lib.plots.style import Plot, activation_handles, arms, interval_note, new_figure, styled

_HEADINGS = {"val_accuracy": "Validation accuracy, %", "val_loss": "Validation loss, nats per token"}
PAIRS = "Bars: mean over all pairs of trials; points: the pairs."
TRIALS = "Large marks: mean over trials; points: the trials."
JACKKNIFE, STUDENT = "delete-one-trial jackknife", "Student's t"


def heading(column: str) -> str:
    """The title of an axis for a metric, a loss or an accuracy."""
    return PAIR_METRICS[column].title if column in PAIR_METRICS else _HEADINGS[column]


def all_plots(study: Study) -> Iterator[Plot]:
    """Every figure of the design, one at a time: those across models, then four for each model.

    Where some models have results, the others have no figures of their own: those across models show that they are missing.
    """
    for draw in _ACROSS_MODELS:
        yield draw(study)
    # An empty study still draws every figure, all of gaps.
    there = {result.model_name for result in study.results} or set(study.models)
    for model in filter(there.__contains__, study.models):
        for draw in _OF_A_MODEL:
            yield draw(study, model)


def plot_names(models: Sequence[str]) -> list[str]:
    """What the figures of these models are called: as that which draws them."""
    return [f.__name__ for f in _ACROSS_MODELS] + [f"{model}_{f.__name__}" for model in models for f in _OF_A_MODEL]


def _of_study(draw: Callable[..., tuple[Figure, str]]) -> Callable[..., Plot]:
    # Drawn when it is looked at, in the suite's style, and once for notebooks and ``reports/plots/``.
    @wraps(draw)
    def plot(study: Study, model: str | None = None) -> Plot:
        of = (_one_model(study, model),) if "model" in signature(draw).parameters else ()
        name, make = "_".join((*of, draw.__name__)), partial(styled(draw), study, *of)
        return Plot(name, make, study.folder, partial(_shown, study, of or study.models))

    return plot


def _one_model(study: Study, model: str | None) -> str:
    # A study of one model need not have it named.
    if model is None and len(study.models) != 1:
        raise ValueError(f"name one of the models: {', '.join(study.models)}")
    if (model := model or study.models[0]) not in study.models:
        raise ValueError(f"there is no model {model!r} in this study; it has {', '.join(study.models)}")
    return model


def _shown(study: Study, models: Sequence[str]) -> list[Any]:
    # All that a figure of these models depends on, beside the code. Losses by step, by far the longest, only of one model.
    frames = (study.cells, study.trials, study.pairs, *([study.curves] if len(models) == 1 else []))
    rows = [frame[frame["model"].isin(models)].to_csv(index=False) for frame in frames]
    titles, identical = [metric.title for metric in PAIR_METRICS.values()], [name for name in study.identical if name in models]
    return [models, study.activations, identical, study.is_mixed, titles, rows]


@_of_study
def shamir_comparison(study: Study, model: str) -> tuple[Figure, str]:
    """Relative PD of one model per activation."""
    cells = study.cells[study.cells["model"] == model]
    title = _title(study, f"{model}: relative prediction difference (PD) per activation", model)
    figure, body = new_figure(4.3, title, f"{PAIRS} {interval_note(cells, JACKKNIFE)}")
    axes = body.subplots()
    model_panel(axes, study, cells, "relative_pd", numbers=True)
    axes.set_ylabel("Relative PD (lower: more reproducible)")
    return figure, model_alt(study, cells, "relative_pd", f"Relative PD of {model} per activation")


@_of_study
def accuracy(study: Study, model: str) -> tuple[Figure, str]:
    """Validation accuracy and loss of one model per activation."""
    cells = study.cells[study.cells["model"] == model]
    title = _title(study, f"{model}: accuracy and loss per activation", model)
    figure, body = new_figure(4.0, title, f"{TRIALS} {interval_note(cells, STUDENT)}")
    for axes, column in zip(body.subplots(1, 2), ("val_accuracy", "val_loss"), strict=True):
        model_panel(axes, study, cells, column, bar=False)
        axes.set_title(heading(column))
    alt = model_alt(study, cells, "val_accuracy", f"Validation accuracy of {model} in per cent")
    return figure, f"{alt} {model_alt(study, cells, 'val_loss', 'Validation loss in nats')}"


@_of_study
def reproducibility(study: Study, model: str) -> tuple[Figure, str]:
    """Every metric of one model per activation."""
    cells = study.cells[study.cells["model"] == model]
    title = _title(study, f"{model}: {len(METRICS)} measures of disagreement between trials", model)
    note = f"{PAIRS} {interval_note(cells, JACKKNIFE)} Lower is more reproducible in every panel."
    unknown = [PAIR_METRICS[name].words for name in METRICS if cells["n"].max() > 1 and cells[name].isna().all()]
    note += f" Not measured when these trials were, and their predictions are gone: {', '.join(unknown)}." if unknown else ""
    # Three to a row: narrower ones have no room for the numbers on their axes.
    rows = math.ceil(len(METRICS) / 3)
    figure, body = new_figure(2.8 * rows, title, note, activation_handles(study.activations))
    every = body.subplots(rows, 3, squeeze=False).flat
    for unused in every[len(METRICS) :]:
        unused.set_axis_off()
    for axes, metric in zip(every, METRICS, strict=False):
        model_panel(axes, study, cells, metric, labels=False)
        axes.set_title(heading(metric), fontsize=10)
    alt = [model_alt(study, cells, metric, f"{heading(metric)} of {model}") for metric in metric_names()[:3]]
    return figure, " ".join(alt)


@_of_study
def training_curves(study: Study, model: str) -> tuple[Figure, str]:
    """Training and validation loss of every trial of one model, one panel per activation."""
    cells = study.cells[study.cells["model"] == model]
    curves = study.curves[study.curves["model"] == model]
    note = (
        "Every trained model is shown, so there is no interval. The validation curve looks at a quarter of the evaluation text."
    )
    note += f" {style.SYNTHETIC_NOTE}." if cells["synthetic"].any() else ""
    columns = min(3, len(cells))
    rows = math.ceil(len(cells) / columns)
    title = _title(study, f"{model}: loss of every trial", model)
    figure, body = new_figure(0.8 + 2.3 * rows, title, note, panels.curve_handles())
    every = body.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat
    for axes, cell in zip(every, rows_of(cells), strict=False):
        panels.curve_panel(axes, cell, curves)
    # The last row may be short; the panels above the holes get back the ticks that a shared axis hides.
    for k in range(len(cells), rows * columns):
        every[k].set_visible(False)
        every[k - columns].tick_params(labelbottom=True)
    body.supxlabel("Iteration", fontsize=10)
    body.supylabel("Loss, nats per character", fontsize=10)
    return figure, model_alt(study, cells, "val_loss", f"Loss curves of {model}; final validation loss in nats")


# A bar would start at 0, and what differs between accuracies is a small part of them: hence marks, here and in ``accuracy``.
@_of_study
def multi_model_accuracy(study: Study) -> tuple[Figure, str]:
    """Validation accuracy and loss of every cell."""
    note = f"{TRIALS} {interval_note(study.cells, STUDENT)} {about_cells(study)}"
    title = _title(study, "Accuracy and loss of every model and activation")
    figure, body = new_figure(6.4, title, note, activation_handles(study.activations))
    for axes, column in zip(body.subplots(2, 1, sharex=True), ("val_accuracy", "val_loss"), strict=True):
        grid_panel(axes, study, column, bar=False)
        axes.set_title(heading(column))
    return figure, grid_alt(study, "val_accuracy", "Validation accuracy in per cent")


@_of_study
def multi_model_reproducibility(study: Study) -> tuple[Figure, str]:
    """Relative PD, total variation and churn of every cell."""
    note = f"{PAIRS} {interval_note(study.cells, JACKKNIFE)} Lower is more reproducible. {about_cells(study)}"
    title = _title(study, "Disagreement between trials of every model and activation")
    figure, body = new_figure(8.2, title, note, activation_handles(study.activations))
    for axes, metric in zip(body.subplots(3, 1, sharex=True), metric_names()[:3], strict=True):
        grid_panel(axes, study, metric)
        axes.set_title(heading(metric))
    return figure, grid_alt(study, "relative_pd", "Relative PD")


@_of_study
def shamir_cross_model_analysis(study: Study) -> tuple[Figure, str]:
    """Four panels: bars of every cell, boxes per activation over models, heat map, CV per model."""
    note = f"{PAIRS} {interval_note(study.cells, JACKKNIFE)} Boxes: quartiles over models, a spread and no interval. "
    note += f"CV has no interval: it is above 0 even where nothing differs. {about_cells(study)}"
    title = _title(study, "Relative prediction difference (PD) between trials, 0 to 2, lower is more reproducible")
    figure, body = new_figure(10.4, title, note, activation_handles(study.activations))
    parts = body.subplot_mosaic("BBBB;XXCC;HHHH", height_ratios=[1.15, 0.9, 1.1])
    grid_panel(parts["B"], study, "relative_pd")
    parts["B"].set_title("Relative PD of every cell")
    panels.boxes(parts["X"], study)
    panels.cv_bars(parts["C"], study)
    panels.heat_map(parts["H"], study)
    return figure, grid_alt(study, "relative_pd", "Relative PD in four panels (cells, boxes per activation, CV, heat map)")


@_of_study
def accuracy_vs_reproducibility(study: Study) -> tuple[Figure, str]:
    """Relative PD, and churn per error, against accuracy: the trade-off."""
    cells = study.cells.dropna(subset=["relative_pd"])
    note = f"{interval_note(study.cells, f'{JACKKNIFE}; {STUDENT} for accuracy')} Churn / error is a ratio of two means and "
    note += f"has no interval here; at 1 two trials disagree as often as they err. {about_cells(study)}"
    handles = (activation_handles(study.activations), panels.model_handles(study))
    figure, body = new_figure(4.6, _title(study, "Accuracy beside reproducibility"), note, *handles)
    left, right = body.subplots(1, 2)
    for cell in rows_of(cells):
        marker, x = panels.model_marker(study, cell["model"]), cell["val_accuracy"]
        look = {"color": style.colour_of(cell["activation"]), "marker": marker, "markersize": 7, "alpha": 0.75}
        left.errorbar(x, cell["relative_pd"], arms(cell, "relative_pd"), arms(cell, "val_accuracy"), elinewidth=0.9, **look)
        right.plot(x, cell["churn_per_error"], **look)
        if cell["synthetic"]:
            label = "synthetic" if study.is_mixed else ""  # where all are, the title says it
            style.mark_synthetic(left, x, cell["relative_pd"], marker, label)
            style.mark_synthetic(right, x, cell["churn_per_error"], marker, label)
    for axes, name in ((left, "Relative PD"), (right, "Churn / error")):
        axes.set(xlabel=heading("val_accuracy"), title=name)
        axes.set_ylim(bottom=0)  # so that a small difference does not look like a large one
    return figure, panels.trade_off_alt(study)


# In the order of the reports.
_ACROSS_MODELS: tuple[Callable[..., Plot], ...] = (
    shamir_cross_model_analysis, multi_model_accuracy, multi_model_reproducibility, accuracy_vs_reproducibility,
)  # fmt: skip
_OF_A_MODEL: tuple[Callable[..., Plot], ...] = (shamir_comparison, accuracy, reproducibility, training_curves)


def _title(study: Study, title: str, model: str | None = None) -> str:
    shown = [result.synthetic for result in study.results if model in (None, result.model_name)]
    if any(shown):
        title = f"{'SYNTHETIC' if all(shown) else 'PARTLY SYNTHETIC'}: {title}"
    return f"{title} ({CONTROL_IN_WORDS})" if model in study.identical else title
