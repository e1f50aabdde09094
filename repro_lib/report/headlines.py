"""What came out of a cell, a model or a grid in a few sentences: the first thing that a page says."""

from __future__ import annotations

import pandas as pd

from repro_lib.analysis.formatting import with_interval
from repro_lib.analysis.notes import NO_RESULTS
from repro_lib.analysis.overviews import model_row
from repro_lib.analysis.study import Study, cells_frame
from repro_lib.report.contrast_tables import contrast_sentences
from repro_lib.report.sentences import about, decided, flagged, identical, missing, order
from repro_lib.store.schema import Result


def cell(result: Result) -> list[str]:
    """One cell: how much its trials disagree, how good they are, and what is wrong with it."""
    row = cells_frame([result], [result.model_name], [result.activation]).iloc[0]
    name, n = f"{result.model_name} with {result.activation}", len(result.trials)
    below = result.evaluation.unigram_cross_entropy - result.avg_val_loss
    side = "below" if below > 0 else "ABOVE"
    learnt = (
        f"Validation loss {with_interval(row, 'val_loss', 3)} nats, {abs(below):.2f} {side} that of a model that knows only "
        f"how frequent each character is; accuracy {with_interval(row, 'val_accuracy', 2)} %."
    )
    flags = [f"Flagged: {flag}." for flag in result.flags]
    if result.avg_relative_pd is None:
        return [f"{name}: one trial, so there is no pair to compare.", learnt, *flags]
    apart = f"{name}: relative PD {with_interval(row, 'relative_pd', 4)} between {n} trials, on a scale from 0 to 2."
    churn = 100 * row["churn"]
    wrong = 100 - row["val_accuracy"]
    return [
        f"{apart} Two of them predict different characters in {churn:.1f} % of all places; each is wrong in {wrong:.1f} %.",
        learnt,
        *flags,
    ]


def model(study: Study, name: str, contrasts: pd.DataFrame) -> list[str]:
    """One model over its activations; ``contrasts``: ``contrasts.contrasts``."""
    if not study.results:
        return [NO_RESULTS]
    return [about(study), order(study, name), *_contrasts(contrasts[contrasts["model"] == name]), *_warnings(study)]


def grid(study: Study, contrasts: pd.DataFrame | None = None) -> list[str]:
    """All models and activations; with ``contrasts`` (``contrasts.contrasts``) also whether any difference is one."""
    if not study.results:
        return [NO_RESULTS]
    verdict = _contrasts(contrasts) if contrasts is not None else []
    controls = [identical(study)] if study.identical else []
    return [about(study), *_lowest(study), *(verdict or [decided(study.cells["n"])]), *controls, *_warnings(study)]


def _lowest(study: Study) -> list[str]:
    """Which activation has the lowest relative PD in which models; the numbers stand below, with their intervals."""
    study = study.measured
    models: dict[str, list[str]] = {}
    for name in study.models:
        row = model_row(study, name)
        if not row["identical"] and not pd.isna(row["best"]):
            models.setdefault(row["best"], []).append(name)
    # Stable: models that tie keep the order of the study.
    by_number = sorted(models.items(), key=lambda entry: -len(entry[1]))
    lowest = [
        f"{activation} in {' and '.join(filter(None, [', '.join(there[:-1]), there[-1]]))}" for activation, there in by_number
    ]
    return [f"Lowest relative PD, by however little: {'; '.join(lowest)}."] if lowest else []


def _contrasts(frame: pd.DataFrame) -> list[str]:
    """How many differences from relu are decided, and the largest of all."""
    known = frame.dropna(subset=["per_cent"])
    if known.empty:
        return []
    supported = int(known["supported"].sum())
    # The largest of all and not of those supported, which would be picked by their luck.
    largest = contrast_sentences(known.loc[[known["per_cent"].abs().idxmax()]])
    return [f"{supported} of {len(known)} differences from relu are supported. The largest: {largest[0]}"]


def _warnings(study: Study) -> list[str]:
    """What a reader has to know before any number: flags, and holes."""
    cells = study.measured.cells
    flags = [flagged(study)] if (cells["flags"] != "").any() else []
    return flags + ([missing(study)] if (cells["n"] == 0).any() or study.refused else [])
