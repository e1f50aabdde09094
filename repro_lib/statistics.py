"""How sure a number is: pure functions of arrays. The trained model is the unit, never the pair.

Shapes: N trials of one cell; a pairwise metric is a symmetric (N, N) matrix whose diagonal does not count.
Below three trials there is no interval: with two there is a single pair and nothing to judge its spread by.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.stats
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
    """A number from ``n`` trials with its interval; ``low`` and ``high`` are NaN where there is none.

    ``error``: its standard error, in its unit; ``degrees``: those of the t quantile that makes the interval.
    """

    value: float
    low: float
    high: float
    n: int
    error: float = math.nan
    degrees: float = math.nan

    @property
    def has_interval(self) -> bool:
        """Whether there were enough finite trials for an interval."""
        return not math.isnan(self.low)


def pair_matrix_checked(matrix: ArrayLike) -> Float64:
    """A float64 copy of a pairwise metric with a zero diagonal; ValueError unless it is square and symmetric."""
    distances = np.array(matrix, dtype=np.float64)
    if distances.ndim != 2 or distances.shape[0] != distances.shape[1]:
        raise ValueError(f"a pairwise metric is a square matrix of trials x trials, got shape {distances.shape}")
    np.fill_diagonal(distances, 0.0)
    if not np.array_equal(distances, distances.T, equal_nan=True):
        raise ValueError("a pairwise metric is a symmetric matrix; this one has different values for (i, j) and (j, i)")
    return distances


def jackknife_pairwise(matrix: ArrayLike, upper: float = math.inf, confidence: float = CONFIDENCE) -> Estimate:
    """Mean of a pairwise metric over all pairs of trials, with its delete-one-trial jackknife interval.

    ``matrix``: (N, N), symmetric, of a metric whose values lie between 0 and ``upper``; the interval is cut to that
    range. With U the mean over all pairs and U_(-k) that over the pairs without trial k, the variance is
    (N - 1) / N sum_k (U_(-k) - their mean)^2 and the interval U +- t_{N-1} sqrt(variance) (science.md 3.2, with its
    simulated coverage; Lin, Lunde & Sarkar 2020, arXiv 2004.08935). No interval below 3 trials or where a value is
    not finite; no pair, or a missing value, gives NaN.
    """
    return jackknife([matrix], _first, lower=0.0, upper=upper, confidence=confidence)


def jackknife(
    matrices: Sequence[ArrayLike],
    statistic: Callable[[Float64], float],
    groups: Sequence[int] | None = None,
    lower: float = -math.inf,
    upper: float = math.inf,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """Any function of the mean PDs of several cells, with its delete-one-trial jackknife interval.

    ``matrices``: per cell a symmetric (N, N) matrix of one metric. ``statistic``: takes the C means and returns a number.
    ``groups``: a label per cell; cells with the same label have the same N and depend on each other trial by trial (same
    seeds, same initial weights), so trial k is left out of all of them at once. By default every cell is on its own.

    The variance is the sum over groups of (N - 1) / N sum_k (theta_(-k) - their mean)^2, the degrees of freedom are
    Welch and Satterthwaite's (N - 1 for one group). The interval is cut to ``lower`` ... ``upper``. None below 3 trials in
    any cell or where a value is not finite.
    """
    pairs = [pair_matrix_checked(matrix) for matrix in matrices]
    labels = list(range(len(pairs))) if groups is None else list(groups)
    if len(labels) != len(pairs):
        raise ValueError(f"one group per cell is needed: {len(pairs)} cells, {len(labels)} groups")
    n = min((len(matrix) for matrix in pairs), default=0)
    if n < 2:
        return Estimate(math.nan, math.nan, math.nan, n)
    means = np.array([without_each(matrix)[0] for matrix in pairs])
    value = float(statistic(means)) if np.isfinite(means).all() else _not_finite(means, statistic)
    if n < TRIALS_FOR_INTERVAL or not math.isfinite(value):
        return Estimate(value, math.nan, math.nan, n)
    left_out = [without_each(matrix)[1] for matrix in pairs]
    variances = {label: _group_variance(label, labels, means, left_out, statistic) for label in dict.fromkeys(labels)}
    variance = sum(part for part, _ in variances.values())
    smallest = min(degrees for _, degrees in variances.values())
    satterthwaite = sum(part**2 / degrees for part, degrees in variances.values())
    # Identical trials have no variance at all; then the degrees do not matter.
    degrees = variance**2 / satterthwaite if satterthwaite > 0 else float(smallest)
    error = math.sqrt(variance)
    return _cut(value, t_quantile(degrees, confidence) * error, lower, upper, n, error, degrees)


def contrast(first: ArrayLike, second: ArrayLike, *, paired: bool, confidence: float = CONFIDENCE) -> Estimate:
    """Mean PD of the first cell minus that of the second, with its jackknife interval.

    ``first``, ``second``: (N, N) and (M, M) matrices of one metric. ``paired``: trial k of both started from the same
    weights (equal ``init_sha256``), so it is left out of both at once; this needs N = M. Otherwise the trials of the
    two cells are independent and the degrees of freedom are Welch's.
    """
    return jackknife([first, second], _difference, groups=[0, 0] if paired else [0, 1], confidence=confidence)


def relative_contrast(first: ArrayLike, second: ArrayLike, *, paired: bool, confidence: float = CONFIDENCE) -> Estimate:
    """By how many per cent the first cell's mean PD is above the second's (below: negative), with its interval."""
    groups = [0, 0] if paired else [0, 1]
    return jackknife([first, second], _relative_difference, groups=groups, confidence=confidence)


def probability_of_being_best(
    matrices: Sequence[ArrayLike], groups: Sequence[int] | None = None, draws: int = 20_000, seed: int = 0
) -> Float64:
    """For each of C cells of one model, the probability that its true mean PD is the lowest of them.

    Draws the C means from Student's t around the measured ones, with the jackknife's covariance within a group (see
    ``jackknife``) and independence between groups, and counts how often each is the lowest; equal ones share. Shape
    (C,), sums to 1. NaN everywhere if a cell has fewer than 3 trials or a value is not finite: nothing to draw from.
    """
    pairs = [pair_matrix_checked(matrix) for matrix in matrices]
    labels = list(range(len(pairs))) if groups is None else list(groups)
    if not pairs or min(map(len, pairs)) < TRIALS_FOR_INTERVAL or not all(np.isfinite(matrix).all() for matrix in pairs):
        return np.full(len(pairs), math.nan)
    rng = np.random.default_rng(seed)
    drawn = np.empty((draws, len(pairs)))
    for label in dict.fromkeys(labels):
        cells = [c for c, other in enumerate(labels) if other == label]
        left_out = np.array([without_each(pairs[c])[1] for c in cells])  # (cells of the group, N)
        n = left_out.shape[1]
        deviations = left_out - left_out.mean(axis=1, keepdims=True)
        covariance = (n - 1) / n * deviations @ deviations.T
        means = np.array([without_each(pairs[c])[0] for c in cells])
        t = scipy.stats.multivariate_t(means, covariance, df=n - 1, allow_singular=True, seed=rng)
        drawn[:, cells] = np.reshape(t.rvs(draws), (draws, len(cells)))
    lowest = np.isclose(drawn, drawn.min(axis=1, keepdims=True), rtol=1e-12, atol=0)
    return (lowest / lowest.sum(axis=1, keepdims=True)).mean(axis=0)


def jackknife_left_out(
    value: float, without: Float64, lower: float = -math.inf, upper: float = math.inf, confidence: float = CONFIDENCE
) -> Estimate:
    """``value`` +- t_{N-1} sqrt((N - 1) / N sum_k (without_k - their mean)^2), cut to ``lower`` ... ``upper``.

    ``without``: (N,), the same number computed without trial k. For the mean of a pairwise metric this is
    ``jackknife_pairwise``; it serves any number that can be computed without a trial. No interval below 3 trials or where
    a number is not finite.
    """
    n = len(without)
    if n < TRIALS_FOR_INTERVAL or not (math.isfinite(value) and np.isfinite(without).all()):
        return Estimate(value, math.nan, math.nan, n)
    error = math.sqrt((n - 1) / n * float(np.square(without - without.mean()).sum()))
    return _cut(value, t_quantile(n - 1, confidence) * error, lower, upper, n, error, n - 1)


def without_each(matrix: ArrayLike) -> tuple[float, Float64]:
    """The mean over all pairs of an (N, N) matrix, and (N,) that mean without trial k; NaN where no pair is left
    or a value is not finite."""
    distances = np.array(matrix, dtype=np.float64)
    np.fill_diagonal(distances, 0.0)
    n, total = len(distances), distances.sum() / 2
    value = float(total / math.comb(n, 2)) if n > 1 else math.nan
    if n < 3 or not math.isfinite(total):  # infinity minus infinity would be no number, with a warning
        return value, np.full(n, math.nan)
    return value, (total - distances.sum(axis=1)) / math.comb(n - 1, 2)


def mean_without_each(values: Float64) -> tuple[float, Float64]:
    """The mean of (N,) numbers, and (N,) the mean without trial k; NaN where none is left."""
    n = len(values)
    without = (values.sum() - values) / (n - 1) if n > 1 else np.full(n, math.nan)
    return float(values.mean()) if n else math.nan, without


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
    error = float(trials.std(ddof=1)) / math.sqrt(n)
    return _cut(value, t_quantile(n - 1, confidence) * error, lower, upper, n, error, n - 1)


def t_quantile(degrees: float, confidence: float = CONFIDENCE) -> float:
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


@dataclass(frozen=True)
class VarianceParts:
    """The variance of the error rate between trained models, taken apart (shares squared, so 1e-4 is (1 %)^2).

    ``observed`` = ``evaluation`` + ``runs``: what the choice of evaluation windows adds by chance, and what remains on
    windows without end. ``runs`` is an unbiased estimate, so it can be negative where the real variance is small.
    """

    observed: float
    evaluation: float
    runs: float
    n: int
    windows: int


def variance_of_accuracy(errors: ArrayLike) -> VarianceParts:
    """Evaluation-set noise and real variance between runs in the accuracy of N trained models.

    ``errors``: (N, W), the error rate (0 to 1) of each trial in each evaluation window. With S the mean over windows,
    runs = W / (W - 1) (Var(S) - 1/W^2 sum_w Var(errors_w)), variances over trials with N - 1 (Jordan 2023, arXiv
    2304.01910, equation 3, with windows as examples, because characters of one window depend on each other). NaN below
    3 trials or 2 windows.
    """
    rates = np.asarray(errors, dtype=np.float64)
    if rates.ndim != 2:
        raise ValueError(f"error rates of trials x windows are needed, got shape {rates.shape}")
    n, windows = rates.shape
    if n < TRIALS_FOR_INTERVAL or windows < 2:
        return VarianceParts(math.nan, math.nan, math.nan, n, windows)
    observed = float(rates.mean(axis=1).var(ddof=1))
    independent = float(rates.var(axis=0, ddof=1).sum()) / windows**2
    runs = windows / (windows - 1) * (observed - independent)
    return VarianceParts(observed, observed - runs, runs, n, windows)


def bootstrap_windows(values: ArrayLike, confidence: float = CONFIDENCE, draws: int = 10_000, seed: int = 0) -> Estimate:
    """Mean of a metric over evaluation windows, with a percentile bootstrap interval over the windows.

    ``values``: (W,), the metric in each window (mean over pairs of trials), all windows of one length. It says how much
    the number depends on which text was scored, the trained models being what they are; the jackknife says the
    opposite half. Whole windows are drawn, because neighbouring characters depend on each other. ``n`` of the result
    is W. No interval below 3 windows or where a value is not finite.
    """
    windows = np.asarray(values, dtype=np.float64)
    value = float(windows.mean()) if len(windows) else math.nan
    if len(windows) < 3 or not np.isfinite(windows).all():
        return Estimate(value, math.nan, math.nan, len(windows))
    found = scipy.stats.bootstrap(
        (windows,), np.mean, n_resamples=draws, batch=1_000, confidence_level=confidence, method="percentile", rng=seed
    )
    interval = found.confidence_interval
    return Estimate(value, float(interval.low), float(interval.high), len(windows), float(found.standard_error))


def _first(means: Float64) -> float:
    return means[0]


def _difference(means: Float64) -> float:
    return means[0] - means[1]


def _relative_difference(means: Float64) -> float:
    return 100 * (means[0] - means[1]) / means[1] if means[1] else math.nan


def _not_finite(means: Float64, statistic: Callable[[Float64], float]) -> float:
    """A single infinite mean stays infinite; anything made of several, or of a missing one, is NaN."""
    return float(means[0]) if statistic is _first else math.nan


def _group_variance(
    label: int, labels: Sequence[int], means: Float64, left_out: Sequence[Float64], statistic: Callable[[Float64], float]
) -> tuple[float, int]:
    """A group's part of the jackknife variance, and its degrees of freedom."""
    cells = [c for c, other in enumerate(labels) if other == label]
    sizes = {len(left_out[c]) for c in cells}
    if len(sizes) > 1:
        raise ValueError(f"cells of one group need the same number of trials, they have {sorted(sizes)}")
    n = sizes.pop()
    thetas = np.empty(n)
    for k in range(n):
        without = means.copy()
        for c in cells:
            without[c] = left_out[c][k]
        thetas[k] = statistic(without)
    return (n - 1) / n * float(np.square(thetas - thetas.mean()).sum()), n - 1


def _cut(value: float, half: float, lower: float, upper: float, n: int, error: float, degrees: float) -> Estimate:
    """value +- half within ``lower`` ... ``upper``; rounding may put the value itself a little outside."""
    low, high = max(value - half, min(lower, value)), min(value + half, max(upper, value))
    return Estimate(value, low, high, n, error, degrees)
