"""What the pairs of a study say about differences between activations: contrasts, CV beside noise, P(best), intervals.

Each frame is computed once per evidence and metric (``once``). Models bit-identical across activations are left out."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from repro_lib.analysis.evidence import Evidence
from repro_lib.analysis.frames import pair_matrix
from repro_lib.analysis.once import once
from repro_lib.analysis.verdicts import EQUAL, NOT_DECIDED, SUPPORTED, verdict_on_difference
from repro_lib.metrics.cells import (
    bootstrap_windows,
    cv_beside_noise,
    over_trials_and_windows,
    probability_of_being_best,
    variance_of_accuracy,
)
from repro_lib.metrics.equal_loss import means_at_equal_loss
from repro_lib.metrics.hypothesis_tests import SIGNIFICANCE, holm, p_equal, p_value, permutation_test, trials_needed
from repro_lib.metrics.prediction_difference import PAIR_METRICS
from repro_lib.metrics.uncertainty import (
    TRIALS_FOR_CLAIM,
    TRIALS_FOR_INTERVAL,
    Estimate,
    contrast,
    jackknife_left_out,
    jackknife_pairwise,
    relative_contrast,
)
from repro_lib.store.schema import Result

# Whatever is said of a difference is said in both: the one weighs every character of the vocabulary alike, the other counts
# probability mass.
LEADING = ("relative_pd", "total_variation")
_MakeRow = Callable[[Evidence, str, str, str, int], dict[str, Any]]


@once
def contrasts_frame(evidence: Evidence, metric: str = "relative_pd") -> pd.DataFrame:
    """Every activation against the reference, per model that is not left out: one declared family, in rows. Missing stays NaN.

    ``Study.dictionary`` says what the columns are."""
    return _judged(evidence, metric, _contrast_row, ["without_partner", *_TESTED, "trials_needed", "p_permutation"])


_DIFFERENCES = [f"{name}{end}" for name in ("difference", "per_cent") for end in ("", "_low", "_high")]
_TESTED = [*_DIFFERENCES, "p", "p_holm", "margin", "p_equal", "verdict"]
_EFFECT = ["per_cent", "per_cent_low", "per_cent_high", "verdict"]


@once
def contrasts_at_equal_loss(evidence: Evidence, metric: str = "relative_pd") -> pd.DataFrame:
    """The same family at equal validation loss, from runs of several lengths that each decayed fully; judged by the same rule.

    Columns as in ``contrasts_frame``, and loss (nats: the lowest that both reach by their full length) and lengths (iterations
    of the runs that there are). A run counts that has as many trials as a verdict takes, or as the cells themselves. NaN
    where no other length does, or none has a loss high enough."""
    return _judged(evidence, metric, _equal_loss_row, ["loss", "lengths", *_TESTED])


@once
def leading_contrasts(evidence: Evidence) -> pd.DataFrame:
    """``contrasts_frame`` of relative PD with, in columns of these suffixes, per cent and verdict in total variation (_tv), at
    equal loss (_at_loss) and in both (_at_loss_tv); n, loss and lengths (_at_loss) as in ``contrasts_at_equal_loss``."""
    first, second = LEADING
    at_loss = contrasts_at_equal_loss(evidence, first)[["n", "loss", "lengths", *_EFFECT]].add_suffix("_at_loss")
    beside = contrasts_frame(evidence, second)[_EFFECT].add_suffix("_tv"), at_loss
    at_loss_tv = contrasts_at_equal_loss(evidence, second)[_EFFECT].add_suffix("_at_loss_tv")
    return contrasts_frame(evidence, first).join([*beside, at_loss_tv])


def _judged(evidence: Evidence, metric: str, make_row: _MakeRow, columns: Sequence[str]) -> pd.DataFrame:
    # The declared family, one row for each contrast, and their verdicts.
    family = [(m, a) for m in evidence.candidates() for a in evidence.activations if a != evidence.reference]
    rows = []
    for model, name in family:
        row = {"model": model, "activation": name, "reference": evidence.reference, "n": 0, "margin": evidence.margin}
        rows.append(row | make_row(evidence, model, name, metric, len(family)))
    frame = pd.DataFrame(rows, columns=["model", "activation", "reference", "n", *columns])
    frame["p_holm"] = holm(frame["p"].to_numpy(dtype=np.float64))
    judged = zip(frame["n"], frame["p_holm"], frame["p_equal"], strict=True)
    frame["verdict"] = [verdict_on_difference(*row) for row in judged]
    return frame


def study_contrasts(evidence: Evidence) -> pd.DataFrame:
    """``contrasts_frame`` of each leading metric, which is named in the first column, one below the other."""
    frames = {metric: contrasts_frame(evidence, metric) for metric in LEADING}
    return pd.concat(frames, names=["metric"]).reset_index(level="metric").reset_index(drop=True)


def _contrast_row(evidence: Evidence, model: str, activation: str, metric: str, family: int) -> dict[str, Any]:
    both = [(model, activation), (model, evidence.reference)]
    n = evidence.shared(both)
    row: dict[str, Any] = {"n": n, "without_partner": sum(evidence.trials(*cell) for cell in both) - 2 * n}
    if n < 2:
        return row
    own, reference = (evidence.matrix(*cell, metric, n) for cell in both)
    needed = trials_needed(contrast(own, reference), alpha=SIGNIFICANCE / family) or math.nan
    row |= {"trials_needed": needed, "p_permutation": permutation_test(own, reference)}
    return row | _tested(partial(contrast, own, reference), relative_contrast(own, reference), evidence, family)


def _equal_loss_row(evidence: Evidence, model: str, activation: str, metric: str, family: int) -> dict[str, Any]:
    # A seed leaves all runs at once, so one of few trials, perhaps made by hand, would take the verdict from the others.
    cells = [evidence.runs_by("max_iters", model, name) for name in (activation, evidence.reference)]
    least = min([TRIALS_FOR_CLAIM, *(len(runs[0].trials) for runs in cells if runs)])
    cells = [[run for run in runs if len(run.trials) >= max(least, TRIALS_FOR_INTERVAL)] for runs in cells]
    if not all(cells) or all(len(runs) == 1 for runs in cells):
        return {}
    own, *others = ((run.activation, run.config_sha256) for run in (cells[0][0], *cells[1]))
    if own in others:  # an arm that is another length of the reference has nothing left to compare
        return {}
    n = min(len(run.trials) for runs in cells for run in runs)
    ends = [[(_losses(run)[:n], pair_matrix(run, metric)[:n, :n]) for run in runs] for runs in cells]
    means, loss = means_at_equal_loss(ends)
    if np.isnan(means[:, 0]).any():  # where the reference has longer runs, at what the other reaches
        means, loss = means_at_equal_loss(ends, at=0)

    def difference(times: float) -> Estimate:
        values = means[0] - times * means[1]
        return jackknife_left_out(values[0], values[1:])

    with np.errstate(divide="ignore", invalid="ignore"):
        shares = 100 * (means[0] - means[1]) / means[1]
    lengths = ", ".join(map(str, sorted({run.config["max_iters"] for runs in cells for run in runs})))
    row = {"n": n, "loss": loss[0], "lengths": lengths}
    return row | _tested(difference, jackknife_left_out(shares[0], shares[1:]), evidence, family)


def _tested(difference: Callable[[float], Estimate], per_cent: Estimate, evidence: Evidence, family: int) -> dict[str, float]:
    found = difference(1.0)
    tests = {"p": p_value(found), "p_equal": _p_equal(difference, evidence.margin, family)}
    return {**found.columns("difference"), **per_cent.columns("per_cent"), **tests}


def _losses(run: Result) -> list[float]:
    return [trial.val_loss for trial in run.trials]


def _p_equal(difference: Callable[[float], Estimate], margin: float, family: int) -> float:
    # Bonferroni and not Holm's steps: then all that is called equal is so at once, by intervals that a figure can show.
    p = p_equal(difference(1 - margin / 100), difference(1 + margin / 100))
    return float(np.minimum(family * p, 1.0))  # keeps NaN


def sensitivity(evidence: Evidence, model: str, metric: str = "relative_pd") -> str:
    """Whether a model's PD depends on the activation, in a word that comes from its contrasts and their verdicts."""
    if evidence.identical(model):
        return "INVARIANT"
    frame = contrasts_frame(evidence, metric)
    verdicts = set(frame["verdict"][frame["model"] == model])
    if SUPPORTED in verdicts:
        return "SENSITIVE"
    return f"EQUAL WITHIN {evidence.margin:g} %" if verdicts == {EQUAL} else "NOT DECIDED"


def verdict_on_extreme(evidence: Evidence, model: str, activation: str) -> str:
    """What it is worth that this activation has the lowest (or the highest) relative PD of a model.

    ``SUPPORTED`` where it differs from every other one, ``EQUAL`` where it is within the margin of one of them, whether it
    differs or not; each comparison counts as one of a family of all activations of all models."""
    family, verdicts = len(evidence.activations) * len(evidence.candidates()), []
    for other in evidence.activations:
        if other == activation or not evidence.has(model, other):
            continue
        cells = [(model, activation), (model, other)]
        first, second = (evidence.matrix(*cell, "relative_pd", evidence.shared(cells)) for cell in cells)
        equal = _p_equal(partial(contrast, first, second), evidence.margin, family)
        p = math.nan if equal <= SIGNIFICANCE else family * p_value(contrast(first, second))
        verdicts.append(verdict_on_difference(len(first), p, equal))
    # In this order: one that equals it takes the title, and one that may do so leaves it open.
    return next((verdict for verdict in (EQUAL, NOT_DECIDED) if verdict in verdicts), SUPPORTED if verdicts else NOT_DECIDED)


@once
def cv_over_activations(evidence: Evidence, metric: str = "relative_pd") -> pd.DataFrame:
    """Per model the CV over activations, corrected for the noise of its cells, beside what it is if no activation differs.

    Columns: model, n (seeds that all cells have), cells, expected; cv (as measured, per cent); cv_corrected with _low, _high
    (of the true CV); null_median, null_high (95th percentile) of the measured one if nothing differed, p; identical. A
    model that is bit-identical has CV 0 exactly and no null."""
    columns = ["model", "n", "cells", "expected", "cv", *(f"cv_corrected{end}" for end in ("", "_low", "_high"))]
    columns += ["null_median", "null_high", "p", "identical"]
    return pd.DataFrame([_cv_row(evidence, model, metric) for model in evidence.models], columns=columns)


def _cv_row(evidence: Evidence, model: str, metric: str) -> dict[str, Any]:
    cells = [(model, activation) for activation in evidence.activations if evidence.has(model, activation)]
    row: dict[str, Any] = {"model": model, "n": 0, "cells": len(cells), "expected": len(evidence.activations)}
    row["identical"] = evidence.identical(model)
    if len(cells) < 2:
        return row
    row["n"] = n = evidence.shared(cells)
    # Equal to the last bit: the CV is 0 by digests, and rounding may not say otherwise.
    if row["identical"]:
        return row | dict.fromkeys(("cv", *(f"cv_corrected{end}" for end in ("", "_low", "_high"))), 0.0)
    found = cv_beside_noise([evidence.matrix(*cell, metric, n) for cell in cells])
    null = {"null_median": found.by_chance, "null_high": found.high, "p": found.p}
    return row | {"cv": found.measured, **found.corrected.columns("cv_corrected"), **null}


@once
def chances_of_being_best(evidence: Evidence, metric: str = "relative_pd") -> pd.DataFrame:
    """P(best) per model and activation: model, activation, n, p_best (NaN below 3 trials or where a cell is missing)."""
    rows, names = [], evidence.activations
    for model in evidence.candidates():
        # The best of those that are there would be called the best of all.
        n, chances = evidence.shared([(model, name) for name in names]), np.full(len(names), math.nan)
        if n > 1:
            chances = probability_of_being_best([evidence.matrix(model, name, metric, n) for name in names])
        rows += [(model, name, n, chance) for name, chance in zip(names, chances, strict=True)]
    return pd.DataFrame(rows, columns=["model", "activation", "n", "p_best"])


@once
def two_kinds_of_interval(evidence: Evidence, metric: str = "relative_pd") -> pd.DataFrame:
    """Per cell the interval over trials, the bootstrap interval over evaluation windows, and the one over both.

    Columns: model, activation, n, windows, value; trials_low, trials_high (jackknife: other trained models, this text);
    windows_low, windows_high (other windows, these models); both_low, both_high (other models and another text). NaN where
    one cannot be had."""
    rows = []
    for model, activation in product(evidence.models, evidence.activations):
        if not evidence.has(model, activation):
            continue
        over_trials = jackknife_pairwise(evidence.matrix(model, activation, metric), PAIR_METRICS[metric].largest)
        compared = evidence.comparisons.get(model)
        values = compared.windows.get(activation, {}).get(metric, []) if compared else []
        # JSON has no infinity: a missing value in a window is an infinite one, and gives no interval.
        over_windows = bootstrap_windows([math.inf if value is None else value for value in values])
        intervals = over_trials, over_windows, over_trials_and_windows(over_trials, over_windows)
        ends = (end for interval in intervals for end in (interval.low, interval.high))
        rows.append((model, activation, over_trials.n, len(values), over_trials.value, *ends))
    columns = ["model", "activation", "n", "windows", "value"]
    columns += [f"{over}_{end}" for over in ("trials", "windows", "both") for end in ("low", "high")]
    return pd.DataFrame(rows, columns=columns)


@once
def accuracy_variance(evidence: Evidence) -> pd.DataFrame:
    """Per cell where the variance of its trials' accuracy comes from (Jordan 2023; ``cells.variance_of_accuracy``).

    Columns: model, activation, n, windows, observed, evaluation, runs: variances in (per cent)^2, runs can be negative."""
    rows = []
    for model, compared in evidence.comparisons.items():
        for activation, errors in compared.window_errors.items():
            parts = variance_of_accuracy(100 * np.array(errors))
            rows.append((model, activation, parts.n, parts.windows, parts.observed, parts.evaluation, parts.runs))
    return pd.DataFrame(rows, columns=["model", "activation", "n", "windows", "observed", "evaluation", "runs"])
