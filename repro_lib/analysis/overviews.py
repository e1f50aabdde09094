"""The overviews of a study: a row per model with its best and worst activation and its CV, a row per activation."""

import math
from typing import Any

import numpy as np
import pandas as pd

from repro_lib.analysis.frames import is_cut, pair_matrix, rows_of
from repro_lib.analysis.once import once
from repro_lib.analysis.study import Study
from repro_lib.config import MODEL_DEFAULTS
from repro_lib.metrics.cells import coefficient_of_variation
from repro_lib.metrics.prediction_difference import PAIR_METRICS
from repro_lib.metrics.uncertainty import jackknife_pairwise
from repro_lib.models.registry import ARCHITECTURES


@once
def models_overview(study: Study) -> pd.DataFrame:
    """One row per expected model, in the study's order. Synthetic stand-ins beside measured results count as missing.

    Columns: model; architecture and size in words; parameters (each size once); cells (present) and expected; best and worst
    (activation of lowest and highest PD, None where bit-identical or fewer than two cells have a PD) with best_pd and
    worst_pd; mean_pd; cv (per cent over the activations present); identical; seconds of training."""
    study, rows = study.measured, []
    for model in study.models:
        cells = study.cells[study.cells["model"] == model]
        measured = cells.dropna(subset=["relative_pd"]).sort_values("relative_pd", kind="stable")
        # Of one activation, or of several that are the same to the bit, none is the best.
        ranked = len(measured) > 1 and model not in study.identical
        ends = measured[["activation", "relative_pd"]].to_numpy().tolist() if ranked else [(None, math.nan)]
        rows.append(
            {
                "model": model,
                "architecture": ARCHITECTURES.get(model, model),
                "size": size_in_words(study, model),
                "parameters": sorted({int(size) for size in cells["parameters"].dropna()}),
                "cells": int((cells["n"] > 0).sum()),
                "expected": len(cells),
                "best": ends[0][0],
                "best_pd": ends[0][1],
                "worst": ends[-1][0],
                "worst_pd": ends[-1][1],
                "mean_pd": measured["relative_pd"].mean(),
                "cv": coefficient_of_variation(cells["relative_pd"]),
                "identical": model in study.identical,
                "seconds": cells["seconds"].sum(min_count=1),
            }
        )
    return pd.DataFrame(rows)


@once
def activations_overview(study: Study) -> pd.DataFrame:
    """One row per expected activation: average_pd with _low and _high, models, expected, wins.

    The average is over the models that have results and are not left out as bit-identical; where the activation is missing
    in one of them it is NaN. ``wins`` counts the models in which the activation has the lowest PD of the cells present.
    Synthetic stand-ins beside measured results count as missing."""
    study = study.measured
    # A model that is the same for every activation would pull their averages together.
    candidates = [model for model in study.models if model not in study.identical]
    models = [model for model in candidates if any(result.model_name == model for result in study.results)]
    best = models_overview(study)["best"]
    rows = []
    for activation in study.activations:
        results = [result for model in models if (result := study.result(model, activation))]
        matrices = [pair_matrix(result) for result in results]
        average = low = high = math.nan
        # Averages over different models cannot be compared.
        if len(results) == len(models) > 0:
            # Each cell counts once, however many trials it has.
            average = float(np.mean([jackknife_pairwise(matrix).value for matrix in matrices]))
            # The mean matrix leaves trial k out of all models at once, for equal seeds make them dependent: it takes equal N.
            if len({len(matrix) for matrix in matrices}) == 1:
                estimate = jackknife_pairwise(np.mean(matrices, axis=0), PAIR_METRICS["relative_pd"].largest)
                low, high = estimate.low, estimate.high
        rows.append((activation, average, low, high, len(results), len(candidates), int((best == activation).sum())))
    columns = ["activation", "average_pd", "average_pd_low", "average_pd_high", "models", "expected", "wins"]
    return pd.DataFrame(rows, columns=columns)


def model_row(study: Study, model: str) -> dict[str, Any]:
    """The row of one model in ``models_overview``."""
    return next(row for row in rows_of(models_overview(study)) if row["model"] == model)


def size_in_words(study: Study, model: str) -> str:
    """The size a model was run at: ``4 layers of width 128 (full size: 6 of 384)``; empty without a result."""
    result = next((result for result in study.results if result.model_name == model), None)
    if result is None:
        return ""
    layers, width = result.config["n_layer"], result.config["n_embd"]
    full = MODEL_DEFAULTS.get(model, {})
    cut = f" (full size: {full['n_layer']} of {full['n_embd']})" if is_cut(result) else ""
    return f"{layers} layer{'s' if layers > 1 else ''} of width {width}{cut}"
