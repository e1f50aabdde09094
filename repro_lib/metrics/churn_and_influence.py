"""Of the N trials of a cell, without their predictions: which one moves the result, and churn beside the error rate."""

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from repro_lib.metrics.given import Float64, floats
from repro_lib.metrics.uncertainty import (
    Estimate,
    jackknife_left_out,
    jackknife_pairwise,
    mean_interval,
    mean_without_each,
    without_each,
)

if TYPE_CHECKING:
    import pandas as pd


class ChurnAndError(NamedTuple):
    """Churn, mean error rate, their ratio and their difference (churn - error), each with its interval over trials."""

    churn: Estimate
    error: Estimate
    ratio: Estimate
    residual: Estimate


def trial_influence(matrix: ArrayLike, upper: float = math.inf) -> "pd.DataFrame":
    """How far each trial is from the others, and what the result would be without it. ``matrix``: (N, N) of a metric.

    Columns: trial (from 1); score (mean of the metric to the N - 1 others); without, without_low, without_high (the
    cell's value from the other trials, with jackknife interval where 3 are left); influence (without - value of all).
    NaN where nothing is left to compare. ``upper``: the largest value the metric can take."""
    distances = floats(matrix)
    n, value = len(distances), jackknife_pairwise(distances, upper).value
    np.fill_diagonal(distances, 0.0)
    # Removed and computed anew rather than from sums, so that each value has an interval of its own.
    rows = []
    for k in range(n):
        others = np.delete(np.delete(distances, k, axis=0), k, axis=1)
        without = jackknife_pairwise(others, upper)
        score = float(distances[k].sum() / (n - 1)) if n > 1 else math.nan
        rows.append((k + 1, score, without.value, without.low, without.high, without.value - value))
    import pandas as pd  # here: a worker that only trains has none

    return pd.DataFrame(rows, columns=["trial", "score", "without", "without_low", "without_high", "influence"])


def churn_and_error(churn: ArrayLike, errors: ArrayLike) -> ChurnAndError:
    """Churn against error of one cell. ``churn``: (N, N), 0 to 1; ``errors``: (N,) error rates, 0 to 1.

    A model that errs less has less room to disagree: hence the ratio. The residual is 0 in expectation where the votes of
    the trials are calibrated class by class (Jiang et al. 2021, arXiv 2106.13799, the generalization disagreement equality).
    """
    error_rates = floats(errors)
    mean, means_without = mean_without_each(error_rates)
    value, values_without = without_each(churn)
    if (error_rates > 1).any() or value > 1:
        raise ValueError("churn and error rates are shares between 0 and 1, not percentages")
    # Churn and error share their trials: leaving one out of both at once keeps what they have in common.
    if len(values_without) != len(error_rates):
        raise ValueError(f"one error rate per trial is needed: {len(values_without)} trials, {len(error_rates)} error rates")
    return ChurnAndError(
        churn=jackknife_pairwise(churn, 1.0),
        error=mean_interval(error_rates, 0.0, 1.0),
        ratio=jackknife_ratio((value, values_without), (mean, means_without)),
        residual=jackknife_left_out(value - mean, values_without - means_without, -1.0, 1.0),
    )


def jackknife_ratio(top: tuple[float, Float64], bottom: tuple[float, Float64], upper: float = math.inf) -> Estimate:
    """``top`` / ``bottom`` with its jackknife interval, cut to 0 ... ``upper``; NaN where there is nothing to divide by.

    Each is a number and (N,) the number without trial k, as ``without_each`` returns them."""
    (one, ones), (other, others) = top, bottom
    tops, bottoms = np.append(ones, one), np.append(others, other)
    # Where instead of a check afterwards: a division by 0 would warn first.
    quotients = np.divide(tops, bottoms, out=np.full_like(tops, math.nan), where=bottoms != 0)
    return jackknife_left_out(float(quotients[-1]), quotients[:-1], 0.0, upper)
