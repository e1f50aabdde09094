"""What the choice of the evaluation text (W windows of one length) adds by chance, beside what the N trained models do."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike

from repro_lib.metrics.uncertainty import CONFIDENCE, TRIALS_FOR_INTERVAL, Estimate


class VarianceParts(NamedTuple):
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
    2304.01910, equation 3). NaN below 3 trials or 2 windows; ValueError for another number of dimensions.

    >>> parts = variance_of_accuracy([[0, 0], [0.5, 0], [1, 0]])  # all of it is one window's luck
    >>> parts.observed, parts.evaluation, parts.runs
    (0.0625, 0.0625, 0.0)
    """
    rates = np.asarray(errors, dtype=np.float64)
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


def bootstrap_windows(values: ArrayLike, confidence: float = CONFIDENCE, draws: int = 10_000, seed: int = 0) -> Estimate:
    """Mean of a metric over evaluation windows, with a percentile bootstrap interval over the windows.

    ``values``: (W,), the metric in each window (mean over pairs of trials). It says how much the number depends on which
    text was scored, the models being what they are; the jackknife says the opposite half. ``n`` of the result is W. No
    interval below 3 windows or where a value is not finite.

    >>> f"{bootstrap_windows([0.5] * 64):.2f}"
    '0.50 (0.50 to 0.50)'
    """
    windows = np.asarray(values, dtype=np.float64)
    value = float(windows.mean()) if len(windows) else math.nan
    if len(windows) < 3 or not np.isfinite(windows).all():
        return Estimate(value, math.nan, math.nan, len(windows))
    # Whole windows are drawn, because neighbouring characters depend on each other.
    drawn = scipy.stats.bootstrap(
        (windows,), np.mean, n_resamples=draws, batch=1_000, confidence_level=confidence, method="percentile", rng=seed
    )
    low, high = map(float, drawn.confidence_interval)
    return Estimate(value, low, high, len(windows), float(drawn.standard_error))
