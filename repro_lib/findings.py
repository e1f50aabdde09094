"""What a study found, in words and tables for people. Every sentence is computed, and none says more than N allows."""

from __future__ import annotations

import html
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from repro_lib.analysis import ARCHITECTURES, Study, activations_overview, model_row, models_overview, size_in_words
from repro_lib.statistics import TRIALS_FOR_CLAIM, TRIALS_FOR_INTERVAL
from repro_lib.tables import cell_number, number, with_interval

NO_RESULTS = "no results yet: run ./run_papermill.sh"
# The one model whose cells must not differ; if they do, they were not trained under equal conditions.
NEGATIVE_CONTROL = "tinylstm"


@dataclass(frozen=True)
class Note:
    """Sentences, one paragraph per line, that a notebook shows as text."""

    text: str

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return "".join(_next_step() if line == NO_RESULTS else f"<p>{html.escape(line)}</p>" for line in self.text.splitlines())


def _next_step() -> str:
    """That there is nothing yet, and what to do about it, the size of a button."""
    words, _, command = NO_RESULTS.partition("./")
    frame = "display:inline-block;border:2px solid;border-radius:8px;padding:.5em 1em;margin:.3em 0"
    return f'<p style="{frame}">{words}<code style="font-weight:bold">./{command}</code></p>'


def say(*sentences: str) -> Note:
    """Sentences as paragraphs for a notebook, each once."""
    return Note("\n".join(dict.fromkeys(sentences)))


def about(study: Study) -> str:
    """Which results these are: how many cells, profile, corpus, N, evaluation text."""
    if not study.results:
        return NO_RESULTS
    real = study.measured
    first, cells = real.results[0], real.cells
    profile = f"profile {first.profile}" if first.profile else "no profile"
    synthetic = " SYNTHETIC results, not measured." if first.synthetic else ""
    return (
        f"{len(real.results)} of {len(cells)} cells: {profile}, corpus {first.corpus.name}, "
        f"{_trial_counts(cells)} per cell, {first.evaluation.tokens:,} evaluation characters.{synthetic}"
    )


def missing(study: Study) -> str:
    """Which expected cells are missing, and which files were refused."""
    cells = study.cells[study.cells["n"] == 0]
    sentences = list(study.refused)
    if not study.results:
        sentences.append(NO_RESULTS)
    elif len(cells):
        by_model = {model: list(group["activation"]) for model, group in cells.groupby("model", sort=False)}
        all_of_them = len(study.activations) if len(study.activations) > 1 else 0
        named = "; ".join(
            f"{model} with {'every activation' if len(gone) == all_of_them else ', '.join(gone)}"
            for model, gone in by_model.items()
        )
        sentences.append(f"Missing, and left blank everywhere: {named}.")
    elif not study.is_mixed:
        sentences.append("No cell is missing.")
    if study.is_mixed:
        named = ", ".join(f"{result.model_name} with {result.activation}" for result in study.results if result.synthetic)
        sentences.append(
            f"Missing, with a SYNTHETIC stand-in, not measured, that is marked and in no statistic across cells: {named}."
        )
    return "\n".join(sentences)


def flagged(study: Study) -> str:
    """How many cells are flagged, and for what."""
    study = study.measured
    cells = study.cells[study.cells["flags"] != ""]
    if cells.empty:
        return "No cell is flagged." if study.results else NO_RESULTS
    reasons = sorted({reason for flags in cells["flags"] for reason in _short_flags(flags)})
    return f"{len(cells)} of {len(study.results)} cells are flagged ({', '.join(reasons)}): do not rely on their numbers."


def identical(study: Study) -> str:
    """Which models are bit-identical across activations, and whether the negative control did its work."""
    if not study.results:
        return NO_RESULTS
    sentences = [
        f"{model} is bit-identical across activations, trial by trial, so it is left out of all statistics across activations"
        + (": the negative control. Its CV of exactly 0 shows that nothing but the activation differs between cells."
           if model == NEGATIVE_CONTROL else ". It should have an activation: check how it is wired.")
        for model in study.identical
    ]  # fmt: skip
    controls = [result for result in study.measured.results if result.model_name == NEGATIVE_CONTROL]
    if len(controls) > 1 and NEGATIVE_CONTROL not in study.identical:
        sentences.append(
            f"Warning: {NEGATIVE_CONTROL} has no activation to plug in and yet its cells differ, so the cells of this study "
            "were not trained under equal conditions (another machine, another version?)."
        )
    return "\n".join(sentences) or "No model is bit-identical across activations."


def layers_in_words(study: Study, model: str, layers: pd.DataFrame) -> str:
    """What a model is, its size and its parameters, from its layer table (``anatomy.layer_view``)."""
    size = size_in_words(study, model) or "at full size, for there is no result yet"
    total = int((layers["parameters"] * layers["times"]).sum())
    return f"{model}: {ARCHITECTURES.get(model, model)}, {size}; {total:,} parameters."


def layers_table(layers: pd.DataFrame) -> pd.DataFrame:
    """The layer table for people."""
    shown = layers.assign(parameters=layers["parameters"].map("{:,}".format)).set_index("layer").rename_axis(None)
    return shown.rename(columns=str.capitalize)


def order(study: Study, model: str) -> str:
    """The lowest and highest relative PD of a model, and what N trials allow to say about the order."""
    study = study.measured
    row = model_row(study, model)
    if row["identical"]:
        return f"{model}: the same numbers for every activation, so there is no order."
    if pd.isna(row["best"]):
        return f"{model}: fewer than two activations have a relative PD, so there is no order ({_why_no_pd(study, model)})."
    cells = study.cells[study.cells["model"] == model]
    by_activation = {cell["activation"]: cell for _, cell in cells.iterrows()}
    low, high = (f"{row[end]}, {with_interval(by_activation[row[end]], 'relative_pd', 4)}" for end in ("best", "worst"))
    holes = "" if row["cells"] == row["expected"] else f" Only {row['cells']} of {row['expected']} activations are there."
    return f"{model}: lowest relative PD with {low}; highest with {high}.{holes} {decided(cells['n'])}"


def decided(trials: Iterable[float]) -> str:
    """What N trials allow to say about an order of activations (N = 3 shows, N >= 10 claims)."""
    least = int(min((n for n in trials if n > 0), default=0))
    if least < TRIALS_FOR_INTERVAL:
        return f"The order is not decided: N = {least}, and an interval needs {TRIALS_FOR_INTERVAL} trials."
    if least < TRIALS_FOR_CLAIM:
        return (
            f"The order is not decided at N = {least} trials: so few show where to look, and a claim needs "
            f"{TRIALS_FOR_CLAIM} or more."
        )
    return f"N = {least} trials can decide an order, but by the contrast of two activations, not by this list."


def ends(study: Study, model: str) -> list[str]:
    """The activations with the lowest and the highest relative PD; where there is no order, any one that is there."""
    row = model_row(study, model)
    if not pd.isna(row["best"]):
        return [row["best"], row["worst"]]
    return [result.activation for result in study.measured.results if result.model_name == model][:1]


def cells_table(study: Study, model: str | None = None) -> pd.DataFrame:
    """Every expected cell (of one model) with its main numbers; ``missing`` where there is none.

    In brackets the 95 % interval over trials; the figures show it for the other numbers. Synthetic numbers say so. Flags
    have a column where there are any.
    """
    rows = []
    cells = study.cells if model is None else study.cells[study.cells["model"] == model]
    for _, cell in cells.iterrows():
        there = cell["n"] > 0
        rows.append(
            {
                "Model": cell["model"],
                "Activation": cell["activation"],
                "N": f"{cell['n']} (synthetic)" if cell["synthetic"] else cell["n"] if there else "missing",
                "Relative PD": _unbroken(with_interval(cell, "relative_pd", 3)),
                "Total variation": cell_number(cell, "total_variation", 3),
                "Churn": cell_number(cell, "churn", 3),
                "Churn / error": cell_number(cell, "churn_per_error", 3),
                "Validation loss, nats": cell_number(cell, "val_loss", 3),
                "Accuracy, %": _unbroken(with_interval(cell, "val_accuracy", 2)),
                "Training, s": cell_number(cell, "seconds", 0),
                "Flags": ", ".join(_short_flags(cell["flags"])),
            }
        )
    table = pd.DataFrame(rows).set_index(["Model", "Activation"])
    return _labelled(study, table if table["Flags"].any() else table.drop(columns="Flags"))


def models_table(study: Study) -> pd.DataFrame:
    """The overview of models: architecture, parameters, best activation, CV."""
    rows = []
    for _, row in models_overview(study).iterrows():
        best = "none: bit-identical" if row["identical"] else f"{row['best']} ({row['best_pd']:.3f})"
        rows.append(
            {
                "Model": row["model"],
                "Architecture": row["architecture"],
                "Size": row["size"] or "–",
                "Parameters": "–" if pd.isna(row["parameters"]) else f"{row['parameters']:,.0f}",
                "Cells": f"{row['cells']} of {row['expected']}",
                "Best activation (relative PD)": "–" if pd.isna(row["best"]) and not row["identical"] else best,
                "CV over activations, %": number(row["cv"], 2),
                "Training, s": number(row["seconds"], 0),
            }
        )
    return _labelled(study, pd.DataFrame(rows).set_index("Model").rename_axis(None))


def activations_table(study: Study) -> pd.DataFrame:
    """The overview of activations: average relative PD over the models not left out, and wins."""
    rows = [
        {
            "Activation": row["activation"],
            "Average relative PD": with_interval(row, "average_pd", 3),
            "Models": f"{row['models']} of {row['expected']}",
            "Wins (lowest PD of a model)": row["wins"],
        }
        for _, row in activations_overview(study).iterrows()
    ]
    return _labelled(study, pd.DataFrame(rows).set_index("Activation").rename_axis(None))


def _labelled(study: Study, table: pd.DataFrame) -> pd.DataFrame:
    """The table of a study that is all synthetic says so in its corner."""
    return table.rename_axis(columns="SYNTHETIC") if study.is_synthetic else table


def _unbroken(interval: str) -> str:
    """Keeps ``(0.1 to 0.2)`` on one line of a narrow column."""
    return interval.replace(" to ", "\N{NO-BREAK SPACE}to\N{NO-BREAK SPACE}")


def _trial_counts(cells: pd.DataFrame) -> str:
    counts = sorted({n for n in cells["n"] if n > 0})
    return (
        f"N = {counts[0]} trial{'s' if counts[0] > 1 else ''}"
        if len(counts) == 1
        else f"N = {counts[0]} to {counts[-1]} trials"
    )


def _short_flags(flags: str) -> list[str]:
    """The kinds of flags, without their details: ``untrained``."""
    return list(dict.fromkeys(flag.split(":")[0] for flag in flags.split("; ") if flag))


def _why_no_pd(study: Study, model: str) -> str:
    cells = study.cells[study.cells["model"] == model]
    gone, single = cells[cells["n"] == 0]["activation"], cells[cells["n"] == 1]["activation"]
    reasons = ([f"missing: {', '.join(gone)}"] if len(gone) else []) + (
        [f"one trial only: {', '.join(single)}"] if len(single) else []
    )
    return "; ".join(reasons) or "one activation in all"
