"""What the pairs of a study say about differences between activations: contrasts, CV with its null, P(best), intervals.

Each frame is computed once per evidence and metric (``once``). Models bit-identical across activations are left out.
"""

import math
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from repro_lib.analysis.evidence import Evidence
from repro_lib.analysis.study import once
from repro_lib.metrics.cells import bootstrap_windows, coefficient_of_variation, probability_of_being_best, variance_of_accuracy
from repro_lib.metrics.hypothesis_tests import SIGNIFICANCE, cv_null, holm, permutation_test, smallest_p, trials_needed
from repro_lib.metrics.prediction_difference import PAIR_METRICS
from repro_lib.metrics.uncertainty import Estimate, contrast, jackknife_pairwise, relative_contrast

REFERENCE = "relu"


@once
def contrasts_frame(evidence: Evidence, metric: str = "relative_pd") -> pd.DataFrame:
    """Every activation against relu, per model that is not left out: one declared family, in rows. Missing stays NaN.

    Columns: model, activation, n, n_reference; difference (95 % jackknife, negative: less PD than relu) and per_cent (of relu's
    PD), each with _low, _high; paired; p (permutation test, two-sided), permutations, exact, smallest_p (that N could reach);
    p_holm; supported; trials_needed (per cell, for a power of .8 at the family's first Holm step; NaN: none up to 10,000).
    """
    family = [(m, a) for m in evidence.candidates() for a in evidence.activations if a != REFERENCE]
    rows = [_contrast_row(evidence, model, activation, metric, len(family)) for model, activation in family]
    frame = pd.DataFrame(rows, columns=_CONTRAST_COLUMNS)
    frame["p_holm"] = holm(frame["p"].to_numpy(dtype=np.float64))
    # Both are asked for: the test alone could answer to models that differ in anything, not just in PD.
    frame["supported"] = (frame["p_holm"] <= SIGNIFICANCE) & ((frame["difference_low"] > 0) | (frame["difference_high"] < 0))
    return frame


_CONTRAST_COLUMNS = ["model", "activation", "n", "n_reference", "difference", "difference_low", "difference_high"]
_CONTRAST_COLUMNS += ["per_cent", "per_cent_low", "per_cent_high", "paired", "p", "permutations", "exact", "smallest_p"]
_CONTRAST_COLUMNS += ["p_holm", "supported", "trials_needed"]


def _contrast_row(evidence: Evidence, model: str, activation: str, metric: str, family: int) -> dict[str, Any]:
    n, reference = evidence.trials(model, activation), evidence.trials(model, REFERENCE)
    row = {"model": model, "activation": activation, "n": n, "n_reference": reference}
    if min(n, reference) < 2:
        return row
    paired = evidence.paired(model, activation, REFERENCE)
    joint = evidence.matrix(model, [activation, REFERENCE], metric)
    difference, relative = (make(joint[:n, :n], joint[n:, n:], paired=paired) for make in (contrast, relative_contrast))
    # The PD between the two cells is needed too: a trial that changes cells meets new partners there.
    test = permutation_test(joint, n, paired=paired)
    return row | {
        **difference.columns("difference"),
        **relative.columns("per_cent"),
        "paired": paired,
        "p": test.p,
        "permutations": test.permutations,
        "exact": test.exact,
        "smallest_p": test.smallest if test.permutations else smallest_p(n, reference, paired=paired),
        "trials_needed": needed_for(difference, paired=paired, alpha=SIGNIFICANCE / family) or math.nan,
    }


def needed_for(difference: Estimate, *, paired: bool, alpha: float = SIGNIFICANCE, distance: float | None = None) -> int | None:
    """Trials per cell that would tell a difference (or a ``distance`` to some bound) from 0, its spread staying as it is."""
    # Also where the error is NaN.
    if not difference.error > 0:
        return None
    spread = difference.error * math.sqrt(difference.n if paired else difference.n / 2)
    return trials_needed((difference.value if distance is None else distance) / spread, paired=paired, alpha=alpha)


@once
def cv_over_activations(evidence: Evidence, metric: str = "relative_pd") -> pd.DataFrame:
    """Per model the CV over activations beside what it is when trials are dealt to the activations at random.

    Columns: model, n (smallest), cells, expected; cv with _low, _high (per cent, 95 % jackknife); null_median, null_high
    (its 95th percentile), p, permutations (all sampled); identical. A bit-identical model has CV 0 exactly and no null.
    """
    columns = ["model", "n", "cells", "expected", *(f"cv{end}" for end in ("", "_low", "_high"))]
    columns += ["null_median", "null_high", "p", "permutations", "identical"]
    return pd.DataFrame([_cv_row(evidence, model, metric) for model in evidence.models], columns=columns)


def _cv_row(evidence: Evidence, model: str, metric: str) -> dict[str, Any]:
    cells = [(model, activation) for activation in evidence.activations if evidence.has(model, activation)]
    row: dict[str, Any] = {"model": model, "n": 0, "cells": len(cells), "expected": len(evidence.activations)}
    row["identical"] = evidence.identical(model)
    if len(cells) < 2:
        return row
    there, trials = [activation for _, activation in cells], [evidence.trials(*cell) for cell in cells]
    cv = evidence.estimate(cells, coefficient_of_variation, metric, lower=0.0)
    row |= {"n": min(trials), **cv.columns("cv")}
    # Equal to the last bit: the CV is 0 by digests, and rounding may not say otherwise.
    if row["identical"]:
        return row | dict.fromkeys(("cv", "cv_low", "cv_high"), 0.0)
    # Where any two cells share their initial weights, trials are dealt within a seed: only there are they exchangeable.
    groups = evidence.groups(model, there)
    within = len(set(groups)) < len(groups) and len(set(trials)) == 1
    null = cv_null(evidence.matrix(model, there, metric), trials, paired=within)
    return row | {"null_median": null.median, "null_high": null.high, "p": null.p, "permutations": null.permutations}


@once
def chances_of_being_best(evidence: Evidence, metric: str = "relative_pd") -> pd.DataFrame:
    """P(best) per model and activation: model, activation, n, p_best (NaN below 3 trials or where a cell is missing)."""
    rows, names = [], evidence.activations
    for model in evidence.candidates():
        # The best of those that are there would be called the best of all.
        chances = np.full(len(names), math.nan)
        if all(evidence.has(model, name) for name in names):
            matrices = [evidence.matrix(model, [name], metric) for name in names]
            chances = probability_of_being_best(matrices, evidence.groups(model, names))
        rows += [(model, name, evidence.trials(model, name), chance) for name, chance in zip(names, chances, strict=True)]
    return pd.DataFrame(rows, columns=["model", "activation", "n", "p_best"])


@once
def two_kinds_of_interval(evidence: Evidence, metric: str = "relative_pd") -> pd.DataFrame:
    """Per cell the interval over trials beside the bootstrap interval over evaluation windows.

    Columns: model, activation, n, windows, value; trials_low, trials_high (jackknife: other trained models, this text);
    windows_low, windows_high (other windows, these models). NaN where one cannot be had.
    """
    rows = []
    for model, activation in product(evidence.models, evidence.activations):
        if not evidence.has(model, activation):
            continue
        over_trials = jackknife_pairwise(evidence.matrix(model, [activation], metric), PAIR_METRICS[metric].largest)
        compared = evidence.comparisons.get(model)
        values = compared.windows.get(activation, {}).get(metric, []) if compared else []
        # JSON has no infinity: a missing value in a window is an infinite one, and gives no interval.
        over_windows = bootstrap_windows([math.inf if value is None else value for value in values])
        ends = (over_trials.low, over_trials.high, over_windows.low, over_windows.high)
        rows.append((model, activation, over_trials.n, len(values), over_trials.value, *ends))
    columns = ["model", "activation", "n", "windows", "value", "trials_low", "trials_high", "windows_low", "windows_high"]
    return pd.DataFrame(rows, columns=columns)


@once
def accuracy_variance(evidence: Evidence) -> pd.DataFrame:
    """Per cell where the variance of its trials' accuracy comes from (Jordan 2023; ``cells.variance_of_accuracy``).

    Columns: model, activation, n, windows, observed, evaluation, runs: variances in (per cent)^2, runs can be negative.
    """
    rows = []
    for model, compared in evidence.comparisons.items():
        for activation, errors in compared.window_errors.items():
            parts = variance_of_accuracy(100 * np.array(errors))
            rows.append((model, activation, parts.n, parts.windows, parts.observed, parts.evaluation, parts.runs))
    return pd.DataFrame(rows, columns=["model", "activation", "n", "windows", "observed", "evaluation", "runs"])
