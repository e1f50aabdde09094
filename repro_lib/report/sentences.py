"""What a study found, in words and tables for people. Every sentence is computed, and none says more than N allows."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from repro_lib.analysis.formatting import with_interval
from repro_lib.analysis.notes import NO_RESULTS
from repro_lib.analysis.overviews import ARCHITECTURES, model_row, size_in_words
from repro_lib.analysis.study import Study
from repro_lib.config import NEGATIVE_CONTROL
from repro_lib.metrics.uncertainty import TRIALS_FOR_CLAIM, TRIALS_FOR_INTERVAL
from repro_lib.report.tables import short_flags


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
    # First, for a file that could not be read may be why a cell is missing.
    sentences = list(study.refused)
    if not study.results:
        sentences.append(NO_RESULTS)
    elif len(cells):
        by_model = {model: list(group["activation"]) for model, group in cells.groupby("model", sort=False)}
        # With one activation in all its name says more than "every activation".
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
    reasons = sorted({reason for flags in cells["flags"] for reason in short_flags(flags)})
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
    # The control is judged only where it has been trained twice: alone it cannot differ.
    controls = [result for result in study.measured.results if result.model_name == NEGATIVE_CONTROL]
    if len(controls) > 1 and NEGATIVE_CONTROL not in study.identical:
        sentences.append(
            f"Warning: {NEGATIVE_CONTROL} has no activation to plug in and yet its cells differ, so the cells of this study "
            "were not trained under equal conditions (another machine, another version?)."
        )
    return "\n".join(sentences) or "No model is bit-identical across activations."


def layers_in_words(study: Study, model: str, layers: pd.DataFrame) -> str:
    """What a model is, its size and its parameters, from its layer table (``layer_views.layer_view``)."""
    size = size_in_words(study, model) or "at full size, for there is no result yet"
    total = int((layers["parameters"] * layers["times"]).sum())
    return f"{model}: {ARCHITECTURES.get(model, model)}, {size}; {total:,} parameters."


def order(study: Study, model: str) -> str:
    """The lowest and highest relative PD of a model, and what N trials allow to say about the order."""
    study = study.measured
    overview = model_row(study, model)
    if overview["identical"]:
        return f"{model}: the same numbers for every activation, so there is no order."
    if pd.isna(overview["best"]):
        return f"{model}: fewer than two activations have a relative PD, so there is no order ({_why_no_pd(study, model)})."
    cells = study.cells[study.cells["model"] == model]
    rows = {cell["activation"]: cell for _, cell in cells.iterrows()}
    low, high = (f"{overview[end]}, {with_interval(rows[overview[end]], 'relative_pd', 4)}" for end in ("best", "worst"))
    there, expected = overview["cells"], overview["expected"]
    holes = "" if there == expected else f" Only {there} of {expected} activations are there."
    return f"{model}: lowest relative PD with {low}; highest with {high}.{holes} {decided(cells['n'])}"


def decided(trials: Iterable[float]) -> str:
    """What N trials allow to say about an order of activations (N = 3 shows, N >= 10 claims)."""
    # The smallest cell decides: a claim about an order rests on every activation in it.
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
    overview = model_row(study, model)
    if not pd.isna(overview["best"]):
        return [overview["best"], overview["worst"]]
    return [result.activation for result in study.measured.results if result.model_name == model][:1]


def _trial_counts(cells: pd.DataFrame) -> str:
    counts = sorted({n for n in cells["n"] if n > 0})
    return (
        f"N = {counts[0]} trial{'s' if counts[0] > 1 else ''}"
        if len(counts) == 1
        else f"N = {counts[0]} to {counts[-1]} trials"
    )


def _why_no_pd(study: Study, model: str) -> str:
    cells = study.cells[study.cells["model"] == model]
    gone, single = cells[cells["n"] == 0]["activation"], cells[cells["n"] == 1]["activation"]
    reasons = ([f"missing: {', '.join(gone)}"] if len(gone) else []) + (
        [f"one trial only: {', '.join(single)}"] if len(single) else []
    )
    return "; ".join(reasons) or "one activation in all"
