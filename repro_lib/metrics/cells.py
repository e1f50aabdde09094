"""Numbers about cells beside their mean PD: CV over activations, chance of each to be best, chance in the evaluation text."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from repro_lib.metrics.given import Float64, cells_checked, check_draws, floats
from repro_lib.metrics.uncertainty import CONFIDENCE, TRIALS_FOR_INTERVAL, Estimate, t_quantile, without_each

# How often the CV's interval may lie above the true one, and below it. Of a CV of 0 only the low end can be wrong, so that end
# takes most. By simulation, since the jackknife's noise is a little too large: together the two give the 95 %.
_MISSED_BELOW, _MISSED_ABOVE = 0.055, 0.01
# Equal parts of the distribution of the noise's own estimate.
_NOISE_LEVELS = (np.arange(40) + 0.5) / 40


def coefficient_of_variation(values: ArrayLike) -> float:
    """Population standard deviation / mean, in per cent, of the values that are not missing (NaN).

    NaN for fewer than two values or a mean of 0. Above 0 even where nothing differs but chance: ``cv_beside_noise`` takes
    that away. Exactly 0 for equal values.

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


@dataclass(frozen=True)
class CVFound:
    """The CV of several cells' mean PDs in per cent, and what is left of it without the noise of the cells.

    ``measured``: as computed; ``corrected``: an estimate of the true one, with an interval; ``by_chance`` and ``high``: median
    and 95th percentile of the measured one if the cells did not differ; ``p``: of a measured one so large, if they did not."""

    measured: float
    corrected: Estimate
    by_chance: float = math.nan
    high: float = math.nan
    p: float = math.nan


def cv_beside_noise(matrices: Sequence[ArrayLike]) -> CVFound:
    """The CV of C cells, corrected for their noise, with its null of equal cells.

    ``matrices``: per cell (N, N), trial k of all from the same seed. Each seed has a value in each cell, from the jackknife;
    what is left of them without the means of cells and of seeds is the noise, as in an analysis of variance with repeated
    measures, whose F test gives the p. Squared, the measured CV is the true one plus noise; the interval takes every true CV
    by which the measured one is neither among the largest 5.5 % nor the smallest 1 %, over all sizes that the noise may have.
    It covers the truth in .93 to .97 of simulated studies (``benchmarks.statistics``). NaN below 3 trials or two cells.

    >>> found = cv_beside_noise([np.ones((4, 4)), 3 * np.ones((4, 4))])
    >>> found.measured, found.corrected.low
    (50.0, 50.0)
    """
    pairs = cells_checked(matrices)
    cells, n = len(pairs), len(pairs[0]) if pairs else 0
    means = np.array([without_each(matrix)[0] for matrix in pairs])
    measured = coefficient_of_variation(means)
    if n < TRIALS_FOR_INTERVAL or not math.isfinite(measured) or not np.isfinite(means).all():
        return CVFound(measured, Estimate(math.nan, math.nan, math.nan, n))
    left_out = np.array([without_each(matrix)[1] for matrix in pairs])
    own = (n - 1) * (left_out.mean(axis=1, keepdims=True) - left_out) * 100 / means.mean()  # (C, N), per cent
    noise = float(np.square(own - own.mean(axis=0)).sum()) / (n * (n - 1) * (cells - 1))  # of one mean, squared
    degrees = cells - 1, (n - 1) * (cells - 1)
    if noise <= (1e-12 * measured) ** 2 or noise == 0:
        return CVFound(measured, Estimate(measured, measured, measured, n), 0.0, 0.0, float(measured == 0))
    import scipy  # here: a worker that only trains has none; nor are its parts imported before they are used

    square = cells * measured**2
    by_chance, most = (math.sqrt(degrees[0] * noise * scipy.stats.f.ppf(k, *degrees) / cells) for k in (0.5, CONFIDENCE))
    corrected = math.sqrt(max(square - degrees[0] * noise, 0.0) / cells)
    low, high = _true_cvs(square, noise, cells, degrees)
    p = float(scipy.stats.f.sf(square / (degrees[0] * noise), *degrees))
    return CVFound(measured, Estimate(corrected, min(low, corrected), max(high, corrected), n), by_chance, most, p)


def _true_cvs(square: float, noise: float, cells: int, degrees: tuple[int, int]) -> tuple[float, float]:
    # The lowest and highest true CV that go with the measured one. Its square, over the noise, is noncentral chi-square; as the
    # noise is not known, this is averaged over what it may be. A noncentral F would take it to grow with the CV.
    import scipy

    noises = noise * degrees[1] / scipy.special.chdtri(degrees[1], _NOISE_LEVELS)

    def where(chance: float, square: float) -> float:
        def below(cv: float) -> float:  # the chance of a smaller measured CV
            return float(scipy.special.chndtr(square / noises, degrees[0], cells * cv**2 / noises).mean())

        top = math.sqrt(square) + 20 * math.sqrt(noises.max())
        return float(scipy.optimize.brentq(lambda cv: below(cv) - chance, 0.0, top)) if below(0.0) > chance else 0.0  # pyright: ignore[reportArgumentType]  (its full output was not asked for)

    # A measured CV below what noise alone makes on average is luck, and narrows nothing.
    return where(1 - _MISSED_BELOW, square), where(_MISSED_ABOVE, max(square, degrees[0] * noise))


def probability_of_being_best(matrices: Sequence[ArrayLike], draws: int = 20_000, seed: int = 0) -> Float64:
    """For each of C cells of one model, the probability that its true mean PD is the lowest of them.

    ``matrices``: per cell (N, N), trial k of all from the same seed. Draws the C means from Student's t around the measured
    ones, with the jackknife's covariance, and counts how often each is the lowest; equal ones share. Shape (C,), sums to 1.
    NaN everywhere below 3 trials or where a value is not finite: nothing to draw from.

    >>> probability_of_being_best([np.ones((3, 3)), 2 * np.ones((3, 3))]).tolist()
    [1.0, 0.0]
    """
    check_draws(draws)
    pairs = cells_checked(matrices)
    if not pairs or len(pairs[0]) < TRIALS_FOR_INTERVAL or not all(np.isfinite(matrix).all() for matrix in pairs):
        return np.full(len(pairs), math.nan)
    left_out, n = np.array([without_each(matrix)[1] for matrix in pairs]), len(pairs[0])  # (C, N)
    deviations = left_out - left_out.mean(axis=1, keepdims=True)
    means, covariance = [without_each(matrix)[0] for matrix in pairs], (n - 1) / n * deviations @ deviations.T
    import scipy

    t = scipy.stats.multivariate_t(means, covariance, df=n - 1, allow_singular=True, seed=np.random.default_rng(seed))
    drawn = np.reshape(t.rvs(draws), (draws, len(pairs)))
    # Cells without any variance are equal only up to the rounding of a mean.
    lowest = np.isclose(drawn, drawn.min(axis=1, keepdims=True), rtol=1e-12, atol=0)
    return (lowest / lowest.sum(axis=1, keepdims=True)).mean(axis=0)


class VarianceParts(NamedTuple):
    """The variance of the error rate between trained models, taken apart (shares squared, so 1e-4 is (1 %)^2).

    ``observed`` = ``evaluation`` + ``runs``: what the choice of windows adds by chance, and what remains on windows without
    end, an unbiased estimate and so negative at times."""

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
    check_draws(draws)
    windows = floats(values)
    value = float(windows.mean()) if len(windows) else math.nan
    if len(windows) < 3 or not np.isfinite(windows).all():
        return Estimate(value, math.nan, math.nan, len(windows))
    # Whole windows are drawn, because neighbouring characters depend on each other.
    how = {"confidence_level": CONFIDENCE, "method": "percentile", "rng": seed}
    import scipy

    drawn = scipy.stats.bootstrap((windows,), np.mean, n_resamples=draws, batch=1_000, **how)
    low, high = map(float, drawn.confidence_interval)
    return Estimate(value, low, high, len(windows), float(drawn.standard_error))


def over_trials_and_windows(trials: Estimate, windows: Estimate) -> Estimate:
    """One number with the error of other trials and of another text together; the ``n`` is that of the trials.

    ``trials``, ``windows``: the same mean with its jackknife and its bootstrap error. Their squares add up, since any trial
    meets any window; what trials and windows make together counts twice, which errs on the safe side (Owen 2007, arXiv
    0712.1111). Student's t with the degrees of the trials, the fewer. No interval where one of the two has none.

    >>> f"{over_trials_and_windows(Estimate(0.5, 0.4, 0.6, 10, 0.03), Estimate(0.5, 0.4, 0.6, 64, 0.04)):.2f}"
    '0.50 (0.39 to 0.61)'
    """
    if not (trials.has_interval and windows.has_interval):
        return Estimate(trials.value, math.nan, math.nan, trials.n)
    error = math.hypot(trials.error, windows.error)
    half = t_quantile(trials.n - 1) * error
    return Estimate(trials.value, max(trials.value - half, 0.0), trials.value + half, trials.n, error)
