"""Numbers about cells beside their mean PD: CV over activations, chance of each to be best, chance in the evaluation text."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from repro_lib.metrics.given import Float64, cells_by_group, check_draws, floats, pair_matrix_checked
from repro_lib.metrics.uncertainty import CONFIDENCE, TRIALS_FOR_INTERVAL, Estimate, without_each

# The earlier study's way of naming a CV. They are only words: a CV is above 0 even where the activations do not
# differ at all, so none of them says that a difference is real. (from this CV in per cent on, word)
CV_WORDS = ((20.0, "HIGHLY SENSITIVE"), (10.0, "SENSITIVE"), (5.0, "SLIGHTLY SENSITIVE"))


def coefficient_of_variation(values: ArrayLike) -> float:
    """Population standard deviation / mean, in per cent, of the values that are not missing (NaN).

    NaN for fewer than two values or a mean of 0. Above 0 even where nothing differs but chance: read it beside its
    permutation null. Exactly 0 for equal values.

    >>> coefficient_of_variation([1.0, 3.0])
    50.0
    """
    present = floats(values)
    present = present[~np.isnan(present)]
    if len(present) < 2 or not np.isfinite(present).all() or present.mean() == 0:
        return math.nan
    # Not by the formula: of .1 + .2 five times the rounded mean is off, and the CV would be above 0.
    if (present == present[0]).all():
        return 0.0
    return float(100 * present.std() / present.mean())


def cv_in_words(cv: float) -> str:
    """The word for a CV in per cent (see ``CV_WORDS``): 20 and more is HIGHLY SENSITIVE, exactly 0 is INVARIANT.

    >>> cv_in_words(12.5)
    'SENSITIVE'
    """
    if math.isnan(cv):
        return "UNDEFINED"
    if cv == 0:
        return "INVARIANT"
    return next((word for threshold, word in CV_WORDS if cv >= threshold), "HARDLY SENSITIVE")


def probability_of_being_best(
    matrices: Sequence[ArrayLike], groups: Sequence[int] | None = None, draws: int = 20_000, seed: int = 0
) -> Float64:
    """For each of C cells of one model, the probability that its true mean PD is the lowest of them.

    Draws the C means from Student's t around the measured ones, with the jackknife's covariance within a group (see
    ``jackknife``) and independence between groups, and counts how often each is the lowest; equal ones share. Shape
    (C,), sums to 1. NaN everywhere if a cell has fewer than 3 trials or a value is not finite: nothing to draw from.

    >>> probability_of_being_best([np.ones((3, 3)), 2 * np.ones((3, 3))]).tolist()
    [1.0, 0.0]
    """
    # Here and below: scipy.stats takes half a second to import, which few notebooks need.
    import scipy.stats

    check_draws(draws)
    pairs = [pair_matrix_checked(matrix) for matrix in matrices]
    by_group = cells_by_group(pairs, groups)
    if not pairs or min(map(len, pairs)) < TRIALS_FOR_INTERVAL or not all(np.isfinite(matrix).all() for matrix in pairs):
        return np.full(len(pairs), math.nan)
    rng = np.random.default_rng(seed)
    drawn = np.empty((draws, len(pairs)))
    # Group by group: only cells that share their trials move together.
    for cells in by_group:
        left_out = np.array([without_each(pairs[c])[1] for c in cells])  # (cells of the group, N)
        n = left_out.shape[1]
        deviations = left_out - left_out.mean(axis=1, keepdims=True)
        covariance = (n - 1) / n * deviations @ deviations.T
        means = np.array([without_each(pairs[c])[0] for c in cells])
        t = scipy.stats.multivariate_t(means, covariance, df=n - 1, allow_singular=True, seed=rng)
        drawn[:, cells] = np.reshape(t.rvs(draws), (draws, len(cells)))
    # Cells without any variance are equal only up to the rounding of a mean.
    lowest = np.isclose(drawn, drawn.min(axis=1, keepdims=True), rtol=1e-12, atol=0)
    return (lowest / lowest.sum(axis=1, keepdims=True)).mean(axis=0)


class VarianceParts(NamedTuple):
    """The variance of the error rate between trained models, taken apart (shares squared, so 1e-4 is (1 %)^2).

    ``observed`` = ``evaluation`` + ``runs``: what the choice of windows adds by chance, and what remains on windows without
    end, an unbiased estimate and so negative at times.
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
    2304.01910, equation 3). NaN below 3 trials or 2 windows; ValueError for another number of dimensions.

    >>> parts = variance_of_accuracy([[0, 0], [0.5, 0], [1, 0]])  # all of it is one window's luck
    >>> parts.observed, parts.evaluation, parts.runs
    (0.0625, 0.0625, 0.0)
    """
    rates = floats(errors)
    if rates.ndim != 2:
        raise ValueError(f"error rates of trials x windows are needed, got shape {rates.shape}")
    n, windows = rates.shape
    if n < TRIALS_FOR_INTERVAL or windows < 2:
        return VarianceParts(math.nan, math.nan, math.nan, n, windows)
    # Windows are the paper's examples, because the characters of one window depend on each other.
    observed = float(rates.mean(axis=1).var(ddof=1))
    independent = float(rates.var(axis=0, ddof=1).sum()) / windows**2
    # Not cut at 0: a mean over many cells of cut estimates would be too large.
    runs = windows / (windows - 1) * (observed - independent)
    return VarianceParts(observed, observed - runs, runs, n, windows)


def bootstrap_windows(values: ArrayLike, draws: int = 10_000, seed: int = 0) -> Estimate:
    """Mean of a metric over evaluation windows, with a percentile bootstrap interval over the windows.

    ``values``: (W,), the metric in each window (mean over pairs of trials); W is the ``n`` of the result. It says how much the
    text that was scored matters, the jackknife the opposite half. None below 3 windows or where a value is not finite.

    >>> f"{bootstrap_windows([0.5] * 64):.2f}"
    '0.50 (0.50 to 0.50)'
    """
    import scipy.stats

    check_draws(draws)
    windows = floats(values)
    value = float(windows.mean()) if len(windows) else math.nan
    if len(windows) < 3 or not np.isfinite(windows).all():
        return Estimate(value, math.nan, math.nan, len(windows))
    # Whole windows are drawn, because neighbouring characters depend on each other.
    how = {"confidence_level": CONFIDENCE, "method": "percentile", "rng": seed}
    drawn = scipy.stats.bootstrap((windows,), np.mean, n_resamples=draws, batch=1_000, **how)
    low, high = map(float, drawn.confidence_interval)
    return Estimate(value, low, high, len(windows), float(drawn.standard_error))
