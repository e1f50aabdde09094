"""How sure a number is: pure functions of arrays. The trained model is the unit, never the pair.

Shapes: N trials of one cell; a pairwise metric is a symmetric (N, N) matrix whose diagonal does not count.
Below three trials there is no interval: with two there is a single pair and nothing to judge its spread by.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit  # pyright: ignore[reportAttributeAccessIssue]  (compiled, and scipy ships no types)

Float64 = NDArray[np.float64]

# An interval needs this many trials; a claim (a contrast that an exact test can decide) needs that many.
TRIALS_FOR_INTERVAL = 3
TRIALS_FOR_CLAIM = 10
CONFIDENCE = 0.95

# The earlier study's way of naming a CV. They are only words: a CV is above 0 even where the activations do not
# differ at all, so none of them says that a difference is real. (from this CV in per cent on, word)
CV_WORDS = ((20.0, "HIGHLY SENSITIVE"), (10.0, "SENSITIVE"), (5.0, "SLIGHTLY SENSITIVE"))


@dataclass(frozen=True)
class Estimate:
    """A mean over ``n`` trials with its interval; ``low`` and ``high`` are NaN where there is none."""

    value: float
    low: float
    high: float
    n: int

    @property
    def has_interval(self) -> bool:
        """Whether there were enough finite trials for an interval."""
        return not math.isnan(self.low)


def jackknife_pairwise(matrix: ArrayLike, upper: float = math.inf, confidence: float = CONFIDENCE) -> Estimate:
    """Mean of a pairwise metric over all pairs of trials, with its delete-one-trial jackknife interval.

    ``matrix``: (N, N), symmetric, of a metric whose values lie between 0 and ``upper``; the interval is cut to that
    range. With U the mean over all pairs and U_(-k) that over the pairs without trial k, the variance is
    (N - 1) / N sum_k (U_(-k) - their mean)^2 and the interval U +- t_{N-1} sqrt(variance) (science.md 3.2, with its
    simulated coverage; Lin, Lunde & Sarkar 2020, arXiv 2004.08935). No interval below 3 trials or where a value is
    not finite; no pair, or a missing value, gives NaN.
    """
    distances = _pair_matrix(matrix)
    n = len(distances)
    if n < 2:
        return Estimate(math.nan, math.nan, math.nan, n)
    upper_triangle = distances[np.triu_indices(n, k=1)]
    value = float(upper_triangle.mean())
    if n < TRIALS_FOR_INTERVAL or not math.isfinite(value):
        return Estimate(value, math.nan, math.nan, n)
    left_out = (upper_triangle.sum() - distances.sum(axis=1)) / math.comb(n - 1, 2)
    variance = (n - 1) / n * float(np.square(left_out - left_out.mean()).sum())
    half = t_quantile(n - 1, confidence) * math.sqrt(variance)
    return _cut(value, half, 0.0, upper, n)


def mean_interval(
    values: Sequence[float] | Float64, lower: float = -math.inf, upper: float = math.inf, confidence: float = CONFIDENCE
) -> Estimate:
    """Mean of one number per trial (a loss, an accuracy) with Student's t interval, cut to ``lower`` ... ``upper``.

    ``values``: (N,), same unit as the result. No interval below 3 trials or where a value is not finite.
    """
    trials = np.asarray(values, dtype=np.float64)
    n = len(trials)
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    value = float(trials.mean())
    if n < TRIALS_FOR_INTERVAL or not math.isfinite(value):
        return Estimate(value, math.nan, math.nan, n)
    half = t_quantile(n - 1, confidence) * float(trials.std(ddof=1)) / math.sqrt(n)
    return _cut(value, half, lower, upper, n)


def t_quantile(degrees: int, confidence: float = CONFIDENCE) -> float:
    """The two-sided quantile of Student's t: P(abs(T) <= quantile) = confidence."""
    return float(stdtrit(degrees, (1 + confidence) / 2))


def coefficient_of_variation(values: ArrayLike) -> float:
    """Population standard deviation / mean, in per cent, of the values that are not missing (NaN).

    NaN for fewer than two values or a mean of 0. Above 0 even where nothing differs but chance: read it beside its
    permutation null. Exactly 0 for equal values, which rounding of the mean would otherwise spoil.
    """
    present = np.asarray(values, dtype=np.float64)
    present = present[~np.isnan(present)]
    if len(present) < 2 or not np.isfinite(present).all() or present.mean() == 0:
        return math.nan
    if (present == present[0]).all():
        return 0.0
    return float(100 * present.std() / present.mean())


def cv_in_words(cv: float) -> str:
    """The word for a CV in per cent (see ``CV_WORDS``): 20 and more is HIGHLY SENSITIVE, exactly 0 is INVARIANT."""
    if math.isnan(cv):
        return "UNDEFINED"
    if cv == 0:
        return "INVARIANT"
    return next((word for threshold, word in CV_WORDS if cv >= threshold), "HARDLY SENSITIVE")


def _cut(value: float, half: float, lower: float, upper: float, n: int) -> Estimate:
    """value +- half within ``lower`` ... ``upper``; rounding may put the value itself a little outside."""
    return Estimate(value, max(value - half, min(lower, value)), min(value + half, max(upper, value)), n)


def _pair_matrix(matrix: ArrayLike) -> Float64:
    """A float64 copy with a zero diagonal; ValueError unless it is square and symmetric."""
    distances = np.array(matrix, dtype=np.float64)
    if distances.ndim != 2 or distances.shape[0] != distances.shape[1]:
        raise ValueError(f"a pairwise metric is a square matrix of trials x trials, got shape {distances.shape}")
    np.fill_diagonal(distances, 0.0)
    if not np.array_equal(distances, distances.T, equal_nan=True):
        raise ValueError("a pairwise metric is a symmetric matrix; this one has different values for (i, j) and (j, i)")
    return distances
