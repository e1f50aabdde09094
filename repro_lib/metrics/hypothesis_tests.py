"""Is it a difference, is it none to speak of, and how many trials would tell: t tests of the jackknife, Holm, and a check.

The rule is the jackknife of ``uncertainty``, the seed its unit. ``python -m benchmarks.statistics`` measures what it is worth.
"""

import math
from bisect import bisect_left

import numpy as np
from numpy.typing import ArrayLike

from repro_lib.metrics.given import Float64, cells_checked, check_draws, check_share, floats
from repro_lib.metrics.uncertainty import CONFIDENCE, TRIALS_FOR_CLAIM, TRIALS_FOR_INTERVAL, Estimate, without_each

SIGNIFICANCE = 1 - CONFIDENCE
POWER = 0.8
# A check and no verdict: 2,000 ways tell .05 from .03, which is all that is asked of them.
RESAMPLES, _ALL_WAYS = 2_000, 11
# More trials than this nobody trains; a difference that needs more is called undecidable.
MOST_TRIALS = 10_000


def p_value(difference: Estimate) -> float:
    """Two-sided p of a difference from 0, by Student's t with its degrees of freedom; NaN where it has no interval.

    >>> round(p_value(Estimate(0.2, 0.0, 0.4, n=4, error=0.1)), 3)
    0.139
    """
    return 2 * min(p_above(difference), p_above(difference.scaled(-1)))


def p_above(difference: Estimate) -> float:
    """One-sided p of a number being above 0: how likely one as large would be if it were 0 or less.

    >>> round(p_above(Estimate(0.2, 0.0, 0.4, n=4, error=0.1)), 3)
    0.07
    """
    if not difference.has_interval:
        return math.nan
    if difference.error == 0:  # trials that are all alike leave no doubt, and on the border all of it
        return 0.5 if difference.value == 0 else float(difference.value < 0)
    import scipy  # here: a worker that only trains has none

    degrees = difference.n - 1 if math.isnan(difference.degrees) else difference.degrees
    return float(scipy.special.stdtr(degrees, -difference.value / difference.error))


def p_equal(above: Estimate, below: Estimate) -> float:
    """The p of two one-sided tests (Schuirmann 1987): that ``above`` is above 0 and ``below`` below it.

    ``above``, ``below``: a mean minus the lower, and minus the upper end of what counts as equal. Each end is tested at the
    whole level, because a mean cannot lie beyond both.

    >>> round(p_equal(Estimate(0.3, 0.1, 0.5, n=10, error=0.1), Estimate(-0.4, -0.6, -0.2, n=10, error=0.1)), 3)
    0.007
    """
    return max(p_above(above), p_above(below.scaled(-1)))


def holm(p_values: ArrayLike) -> Float64:
    """Holm's adjusted p values (Holm 1979) of one declared family of tests, in the order given.

    ``p_values``: (..., M), a family in each row. NaN, a test that could not be made, stays NaN and counts in the family: what
    was asked decides, not what came of it.

    >>> holm([0.04, 0.01, math.nan]).tolist()
    [0.08, 0.03, nan]
    """
    given = floats(p_values)
    if (given < 0).any() or (given > 1).any():
        raise ValueError(f"p values lie between 0 and 1, got {given.tolist()}")
    # Not statsmodels' multipletests, which takes one family at a time: the tests' small simulation alone took minutes with it.
    order = np.argsort(given, axis=-1)  # NaN last
    steps = np.take_along_axis(given, order, axis=-1) * np.arange(given.shape[-1], 0, -1)
    adjusted = np.empty_like(given)
    np.put_along_axis(adjusted, order, np.minimum(np.maximum.accumulate(steps, axis=-1), 1.0), axis=-1)
    return adjusted


def permutation_test(first: ArrayLike, second: ArrayLike, resamples: int = RESAMPLES, seed: int = 0) -> float:
    """Two-sided p of a permutation test of the difference in mean PD: in each seed the two cells change places or do not.

    ``first``, ``second``: (N, N) matrices of one metric, trial k of both from the same seed. What changes places is what the
    jackknife says of a seed. All 2^N ways to N = 11, a sample beyond. No normal values are assumed, only that without a
    difference a seed's could as well have the other sign. It is studentised as it stands: the squares do not change with the
    signs, so Student's t and the difference itself have one order. NaN below 3 trials or where a value is not finite.

    >>> effects = np.array([1.0, 2, 4, 8])  # the PD of two trials is the sum of their effects
    >>> permutation_test(effects[:, None] + effects, 2 * (effects[:, None] + effects))
    0.125
    """
    check_draws(resamples)
    pairs = cells_checked([first, second])
    n = len(pairs[0])
    if n < TRIALS_FOR_INTERVAL or not all(np.isfinite(matrix).all() for matrix in pairs):
        return math.nan
    (one, one_without), (other, other_without) = map(without_each, pairs)
    values = n * (one - other) - (n - 1) * (one_without - other_without)  # the jackknife's pseudo-values
    ways = np.arange(2**n) if n <= _ALL_WAYS else np.random.default_rng(seed).integers(2**n, size=resamples)
    ways[0] = 0  # the data
    sums = np.abs((1 - 2 * (ways[:, None] >> np.arange(n) & 1)) @ values)
    # Equal sums must count as equal, whatever order they were rounded in.
    return float((sums >= sums[0] - 1e-9 * np.abs(values).sum()).mean())


def power(trials: int, effect: float, *, alpha: float = SIGNIFICANCE) -> float:
    """The chance that the t test with ``trials`` seeds finds a difference of ``effect``, sign included, at level ``alpha``.

    ``effect``: the difference over the standard deviation of one seed's, infinite where nothing varies. 0 below 2 trials.

    >>> round(power(10, 1.0), 2)
    0.8
    """
    check_share("alpha", alpha)
    if trials < 2 or not math.isfinite(effect):
        return 0.0 if trials < 2 else 1.0 if math.isinf(effect) else math.nan
    import scipy
    from statsmodels.stats.power import TTestPower  # here: it takes a while to import

    # One-sided at alpha / 2, for the wrong sign is no find.
    chance = float(TTestPower().power(abs(effect), trials, alpha / 2, alternative="larger"))
    if math.isnan(chance):
        # scipy's noncentral t gives up where the effect is many standard errors; there only their estimate still varies.
        ratio = abs(effect) * math.sqrt(trials) / scipy.stats.t.isf(alpha / 2, trials - 1)
        chance = float(scipy.stats.chi2.cdf((trials - 1) * ratio**2, trials - 1))
    return chance


def trials_needed(
    difference: Estimate, *, alpha: float = SIGNIFICANCE, distance: float | None = None, wanted: float = POWER
) -> int | None:
    """How many seeds would tell a difference (or a ``distance`` to some bound) from 0, value and spread staying as they look.

    By the rule itself: with ``power`` >= ``wanted`` at level ``alpha``, which a family divides, and never fewer than a verdict
    takes. None without an error, or where even ``MOST_TRIALS`` would not do.

    >>> trials_needed(Estimate(0.3, 0.1, 0.5, n=10, error=0.1)), trials_needed(Estimate(0.0, -0.2, 0.2, n=10, error=0.1))
    (11, None)
    """
    check_share("alpha", alpha)
    check_share("wanted", wanted)
    if not difference.error > 0:  # also NaN
        return None
    effect = (difference.value if distance is None else distance) / (difference.error * math.sqrt(difference.n))

    def enough(n: int) -> bool:
        return power(n, effect, alpha=alpha) >= wanted

    if not enough(MOST_TRIALS):
        return None
    return bisect_left(range(MOST_TRIALS), True, lo=TRIALS_FOR_CLAIM, key=enough)  # enough is monotonous
