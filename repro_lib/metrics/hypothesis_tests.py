"""Is it a difference? Permutation tests on whole trials, many tests at once, and what N trials can show at all.

A matrix holds one pairwise metric between the trials of several cells, (M, M), the trials of one cell in neighbouring rows.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, product

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike, NDArray
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestIndPower, TTestPower

from repro_lib.metrics.cells import coefficient_of_variation
from repro_lib.metrics.given import Float64, check_draws, check_share, floats, pair_matrix_checked
from repro_lib.metrics.uncertainty import CONFIDENCE

SIGNIFICANCE = 1 - CONFIDENCE
POWER = 0.8
# Up to this many ways of dealing the trials all are tried (10 against 10 trials: 184,756), beyond it a sample is drawn.
LARGEST_EXACT = 200_000
RESAMPLES = 20_000
# More trials than this nobody trains; a difference that needs more is called undecidable.
MOST_TRIALS = 10_000


@dataclass(frozen=True)
class Permutation:
    """Two-sided ``p`` over so many ``permutations``, all (``exact``) or a sample; the ``smallest`` p they could have given."""

    p: float
    permutations: int
    exact: bool
    smallest: float


@dataclass(frozen=True)
class CVNull:
    """What the CV over activations is when nothing differs: median and 95th percentile in per cent, and the p of the CV."""

    median: float
    high: float
    p: float
    permutations: int


def permutation_test(matrix: ArrayLike, trials: int, *, paired: bool, resamples: int = RESAMPLES, seed: int = 0) -> Permutation:
    """Two-sided permutation test of the difference in mean PD between two cells.

    ``matrix``: (N + M, N + M), the first ``trials`` = N rows being the first cell; the PD *between* the cells is needed too.
    Paired (equal seeds gave equal initial weights; N = M): trial k of one cell changes places with trial k of the other. The
    null is that both cells draw from the same distribution of models, which is stronger than equal mean PD. NaN where a value
    is not finite or a cell has no pair; ValueError for a paired test of unequal numbers.

    >>> effects = np.array([1.0, 2, 4, 8])  # the PD of two trials is the sum of their effects
    >>> round(permutation_test(effects[:, None] + effects, 2, paired=False).p, 3)
    0.333
    """
    check_draws(resamples)
    distances = pair_matrix_checked(matrix)
    second = len(distances) - trials
    if paired and trials != second:
        raise ValueError(f"a paired test needs equally many trials, got {trials} and {second}")
    if min(trials, second) < 2 or not np.isfinite(distances).all():
        return Permutation(math.nan, 0, True, math.nan)
    # Whole trials change cells, never pairs: the pairs of one trial depend on each other. A sample counts the data as one of
    # its permutations, so that p is above 0.
    arms, exact = _arms(trials, second, paired, resamples, seed)
    differences = np.abs(_differences(distances, arms, trials))
    # Equal splits must count as equal, whatever order their sums were rounded in. The first row is the data.
    extreme = int((differences >= differences[0] - 1e-9 * max(differences[0], 1e-300)).sum())
    smallest = smallest_p(trials, second, paired=paired) if exact else 1 / len(arms)
    return Permutation(extreme / len(arms), len(arms), exact, smallest)


def smallest_p(first: int, second: int, *, paired: bool) -> float:
    """The smallest two-sided p that an exact permutation test of ``first`` against ``second`` trials can reach.

    >>> smallest_p(10, 10, paired=True)
    0.001953125
    """
    if min(first, second) < 2:
        return 1.0
    ways = 2**first if paired else math.comb(first + second, first)
    # With equal numbers the mirror image gives the same difference, with unequal ones only the data itself.
    return (2 if first == second else 1) / ways


def holm(p_values: Sequence[float]) -> Float64:
    """Holm's adjusted p values (Holm 1979) of one declared family of tests, in the order given.

    NaN, a test that could not be made, stays NaN and counts in the family: what was asked decides, not what came of it.

    >>> holm([0.04, 0.01, math.nan]).tolist()
    [0.08, 0.03, nan]
    """
    given = floats(p_values)
    if (given < 0).any() or (given > 1).any():
        raise ValueError(f"p values lie between 0 and 1, got {given.tolist()}")
    if not len(given):  # statsmodels refuses an empty family
        return given
    adjusted = np.array(multipletests(np.nan_to_num(given, nan=1.0), method="holm")[1], dtype=np.float64)
    adjusted[np.isnan(given)] = math.nan
    return adjusted


def cv_null(matrix: ArrayLike, trials: Sequence[int], *, paired: bool, resamples: int = RESAMPLES, seed: int = 0) -> CVNull:
    """The CV over activations beside what it is when whole trials are dealt to the activations at random.

    ``matrix``: (M, M) of one model; ``trials``: how many of its rows belong to each activation, in order. ``paired``: trial k
    of all activations is dealt among them (equal numbers needed). The p is one-sided: the share of deals, the data among
    them, whose CV is at least the measured one. NaN without two activations of two trials each, or for values not finite.

    >>> effects = np.array([1.0, 2, 4, 8])
    >>> round(cv_null(effects[:, None] + effects, [2, 2], paired=False).high, 1)  # the CV of the data itself
    60.0
    """
    check_draws(resamples)
    distances = pair_matrix_checked(matrix)
    if sum(trials) != len(distances):
        raise ValueError(f"{sum(trials)} trials in all, but a matrix of {len(distances)}")
    if len(trials) < 2 or min(trials) < 2 or not np.isfinite(distances).all():
        return CVNull(math.nan, math.nan, math.nan, 0)
    # All activations at once and not two by two: the CV is about all of them. (R, M): the activation of each trial.
    deals = _deals(trials, paired, resamples, np.random.default_rng(seed))
    means = np.empty((len(deals), len(trials)))
    for activation, n in enumerate(trials):
        members = (deals == activation).astype(np.float64)
        means[:, activation] = np.einsum("rm,rm->r", members @ distances, members) / (n * (n - 1))
    average = means.mean(axis=1)
    cvs = 100 * means.std(axis=1) / np.where(average > 0, average, 1.0)
    observed = coefficient_of_variation(means[0])
    if math.isnan(observed):
        return CVNull(math.nan, math.nan, math.nan, 0)
    p = float((cvs >= observed - 1e-9 * max(observed, 1e-300)).mean())
    return CVNull(float(np.median(cvs[1:])), float(np.quantile(cvs[1:], CONFIDENCE)), p, len(deals))


def power(trials: int, effect: float, *, paired: bool, alpha: float = SIGNIFICANCE) -> float:
    """The chance that a two-sided t test with ``trials`` trials per cell finds a difference of ``effect``, sign included.

    ``effect``: the difference over the standard deviation of the unit (paired: of the differences between trials of
    equal seed), infinite where nothing varies. 0 below 2 trials.

    >>> round(power(10, 1.0, paired=True), 2), round(power(10, 1.0, paired=False), 2)
    (0.8, 0.56)
    """
    check_share("alpha", alpha)
    if trials < 2 or not math.isfinite(effect):
        return 0.0 if trials < 2 else 1.0 if math.isinf(effect) else math.nan
    test = TTestPower() if paired else TTestIndPower()
    # One-sided at alpha / 2, for the wrong sign is no find.
    chance = float(test.power(abs(effect), trials, alpha / 2, alternative="larger"))
    if math.isnan(chance):
        # scipy's noncentral t gives up where the effect is many standard errors; there only their estimate still varies.
        degrees = trials - 1 if paired else 2 * trials - 2
        shift = abs(effect) * math.sqrt(trials if paired else trials / 2)
        ratio = shift / scipy.stats.t.isf(alpha / 2, degrees)
        chance = float(scipy.stats.chi2.cdf(degrees * ratio**2, degrees))
    return chance


def trials_needed(effect: float, *, paired: bool, alpha: float = SIGNIFICANCE, wanted: float = POWER) -> int | None:
    """How many trials per cell give ``power`` >= ``wanted`` and let the exact permutation test reach ``alpha`` at all.

    ``effect`` as in ``power``. None where even ``MOST_TRIALS`` would not do (no difference to speak of).

    >>> trials_needed(2.0, paired=False), trials_needed(0.0, paired=False)
    (6, None)
    """
    check_share("alpha", alpha)
    check_share("wanted", wanted)

    def enough(n: int) -> bool:
        return smallest_p(n, n, paired=paired) <= alpha and power(n, effect, paired=paired, alpha=alpha) >= wanted

    if not enough(MOST_TRIALS):
        return None
    return bisect_left(range(MOST_TRIALS), True, lo=2, key=enough)  # enough is monotonous


def _differences(distances: Float64, arms: NDArray[np.bool_], trials: int) -> Float64:
    # Mean PD within each arm minus that within the rest, for each row of ``arms`` (R, M). With x of 0 and 1 and row sums r,
    # x'Dx is twice the sum of the pairs within the arm, and the rest's is sum(D) - 2 r'x + x'Dx.
    second = len(distances) - trials
    x = arms.astype(np.float64)
    pairs_first, pairs_second = trials * (trials - 1), second * (second - 1)
    linear = (2 * x @ distances.sum(axis=1) - distances.sum()) / pairs_second
    if pairs_first == pairs_second:  # x'Dx cancels
        return linear
    within = np.einsum("rm,rm->r", x @ distances, x)
    return within * (1 / pairs_first - 1 / pairs_second) + linear


def _arms(first: int, second: int, paired: bool, resamples: int, seed: int) -> tuple[NDArray[np.bool_], bool]:
    """Which trials make up the first arm, (R, N + M), the data in row 0; and whether these are all ways to deal them."""
    # Ten against ten trials are still dealt in every way; eleven against eleven would be 705,432.
    ways = 2**first if paired else math.comb(first + second, first)
    if ways <= LARGEST_EXACT:
        return _all_arms(first, second, paired), True
    rng = np.random.default_rng(seed)
    if paired:
        swaps = rng.random((resamples, first)) < 0.5
        swaps[0] = False
        return np.hstack([~swaps, swaps]), False
    order = rng.random((resamples, first + second)).argsort(axis=1)
    arms = order < first
    arms[0] = np.arange(first + second) < first
    return arms, False


# A grid asks for the same few sizes in every contrast.
@lru_cache(maxsize=4)
def _all_arms(first: int, second: int, paired: bool) -> NDArray[np.bool_]:
    if paired:
        swaps = np.array(list(product((False, True), repeat=first)))
        return np.hstack([~swaps, swaps])
    chosen = np.array(list(combinations(range(first + second), first)))
    arms = np.zeros((len(chosen), first + second), dtype=bool)
    np.put_along_axis(arms, chosen, True, axis=1)
    return arms


def _deals(trials: Sequence[int], paired: bool, resamples: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Activations dealt to trials at random, (resamples + 1, M), the data in row 0."""
    owners = np.repeat(np.arange(len(trials)), trials)
    if not paired:
        return np.vstack([owners, owners[rng.random((resamples, len(owners))).argsort(axis=1)]])
    if len(set(trials)) > 1:
        raise ValueError("a paired deal needs equally many trials of every activation")
    # (resamples, activations, N): the activations change places within a column, the trials of one seed.
    order = rng.random((resamples, len(trials), trials[0])).argsort(axis=1)
    return np.vstack([owners, order.reshape(resamples, -1)])
