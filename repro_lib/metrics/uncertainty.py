"""How sure a number is: pure functions of arrays. The trained model is the unit, never the pair.

Shapes: N trials of one cell; a pairwise metric is a symmetric (N, N) matrix whose diagonal does not count."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from repro_lib.metrics.given import Float64, cells_checked, check_share, floats, pair_matrix_checked

# With two trials there is a single pair, and nothing to judge its spread by.
TRIALS_FOR_INTERVAL = 3
# With fewer the t interval rests on normal values more than on data, and one odd trial decides.
TRIALS_FOR_CLAIM = 10
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A number from ``n`` trials with its interval; ``low`` and ``high`` are NaN where there is none.

    ``error``: its standard error; ``degrees``: of freedom of its t, NaN for ``n`` - 1. Written with the format of a number,
    after which `` %`` puts that unit to the value:

    >>> pd = Estimate(0.412, 0.39, 0.434, n=10)
    >>> f"{pd:.3f}", f"{pd.scaled(100):+.1f %}", f"{Estimate(0.5, math.nan, math.nan, n=2):.3f}"
    ('0.412 (0.390 to 0.434)', '+41.2 % (+39.0 to +43.4)', '0.500')
    """

    value: float
    low: float
    high: float
    n: int
    error: float = math.nan
    degrees: float = field(default=math.nan, compare=False)  # NaN equals nothing, not even itself

    @property
    def has_interval(self) -> bool:
        """Whether there were enough finite trials for an interval."""
        return not math.isnan(self.low)

    def __format__(self, spec: str) -> str:
        number, unit = spec.removesuffix(" %"), " %" * spec.endswith(" %")
        value = rounded(self.value, number) + ("" if math.isnan(self.value) else unit)
        return (f"{value} ({self.interval(number)})" if self.has_interval else value) if spec else repr(self)

    def written(self, write: Callable[[float], str], unit: str = "") -> str:
        """``value (low to high)`` with each number as ``write`` puts it; no bracket where there is no interval."""
        value = write(self.value) + ("" if math.isnan(self.value) else unit)
        return f"{value} ({write(self.low)} to {write(self.high)})" if self.has_interval else value

    def interval(self, spec: str, none: str = "–") -> str:
        """``low to high`` alone, each number by ``spec``; ``none`` where there is no interval.

        >>> Estimate(0.412, 0.39, 0.434, n=10).interval(".2f")
        '0.39 to 0.43'
        """
        # An end keeps its minus also where it is rounded to 0: it says on which side of 0 the interval ends.
        spec = spec.replace("z", "")
        return f"{rounded(self.low, spec)} to {rounded(self.high, spec)}" if self.has_interval else none

    def scaled(self, factor: float) -> Estimate:
        """The same number in another unit: a share times 100 is in per cent, a difference times -1 the other way round."""
        low, high = sorted((factor * self.low, factor * self.high))
        return replace(self, value=factor * self.value, low=low, high=high, error=abs(factor) * self.error)

    def columns(self, name: str) -> dict[str, float]:
        """Three columns of a frame: the value under ``name``, the ends under ``name_low`` and ``name_high``."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}

    @classmethod
    def in_row(cls, row: Any, name: str, suffix: str = "") -> Estimate:
        """The number that ``columns`` put into a row (a mapping or a row of pandas); ``n`` as the row has it, else 0."""
        return cls(*(float(row[f"{name}{end}{suffix}"]) for end in ("", "_low", "_high")), n=row.get("n", 0))


def rounded(value: float, spec: str) -> str:
    """A number as ``spec`` formats it, a dash for NaN. A ``z`` after the sign takes the minus from what is rounded to 0.

    >>> rounded(0.1234, ".2f"), rounded(-0.001, ".1f"), rounded(-0.001, "+z.1f"), rounded(math.nan, ".2f")
    ('0.12', '-0.0', '+0.0', '–')
    """
    return "–" if math.isnan(value) else format(value, spec)


def jackknife_pairwise(matrix: ArrayLike, upper: float = math.inf) -> Estimate:
    """Mean of a pairwise metric over all pairs of trials, with its delete-one-trial jackknife interval.

    ``matrix``: (N, N), symmetric, of a metric between 0 and ``upper``, to which the interval is cut. With U the mean over all
    pairs and U_(-k) that without trial k the variance is (N - 1) / N sum_k (U_(-k) - their mean)^2, the interval U +- t_{N-1}
    sqrt(variance). None below 3 trials or where a value is not finite; no pair, or a missing value, gives NaN.

    >>> f"{jackknife_pairwise([[0, 0.4, 0.5], [0.4, 0, 0.6], [0.5, 0.6, 0]], upper=2.0):.3f}"
    '0.500 (0.003 to 0.997)'
    """
    # The pairs of one trial depend on each other; leaving trials out is conservative in expectation (Lin, Lunde & Sarkar 2020,
    # arXiv 2004.08935). Simulated with a lognormal effect of each trial, the 95 % interval covers the truth in 94.7, 95.4 and
    # 94.0 % of runs at N = 3, 5 and 10; a t interval over the pairs would in 83, 59 and 43 %.
    return jackknife([matrix], _first, lower=0.0, upper=upper)


def jackknife(
    matrices: Sequence[ArrayLike],
    statistic: Callable[[Float64], float],
    lower: float = -math.inf,
    upper: float = math.inf,
    confidence: float = CONFIDENCE,
    paired: bool = True,
) -> Estimate:
    """Any function of the mean PDs of several cells, with its delete-one-seed jackknife interval.

    ``matrices``: per cell a symmetric (N, N) matrix of one metric, trial k of all cells from the same seed; ``statistic``: of
    the C means. Seed k leaves all cells at once; variance (N - 1) / N sum_k (theta_(-k) - their mean)^2, t with N - 1 degrees.
    The interval is cut to ``lower`` ... ``upper``; none below 3 trials or where a value is not finite. ValueError for cells of
    different N, unless ``paired`` is False: then no trials share a seed, and each leaves its own cell alone
    (``independent_left_out``); ``n`` is that of the smallest cell.

    >>> one, other = [[0, 1, 2], [1, 0, 3], [2, 3, 0]], [[0, 2, 2], [2, 0, 2], [2, 2, 0]]
    >>> f"{jackknife([one, other], lambda means: means[0] / means[1]):.2f}"
    '1.00 (-1.48 to 3.48)'
    """
    # Equal seeds give equal data and, often, equal initial weights. Leaving the seed out of every cell is right whether that
    # makes cells dependent or not, and whether their spreads are alike or not: N differences are left, and one t for them.
    check_share("confidence", confidence)
    pairs = cells_checked(matrices) if paired else [pair_matrix_checked(matrix) for matrix in matrices]
    n = min(map(len, pairs), default=0)
    if n < 2:
        return Estimate(math.nan, math.nan, math.nan, n)
    means, left_out = zip(*map(without_each, pairs), strict=True)
    # A single infinite mean stays infinite; anything made of several, or of a missing one, is NaN.
    finite = np.isfinite(means).all()
    value = float(statistic(np.array(means))) if finite else means[0] if statistic is _first else math.nan
    if not paired:
        groups = [
            np.array([statistic(np.array([*means[:c], x, *means[c + 1 :]])) if finite else math.nan for x in each])
            for c, each in enumerate(left_out)
        ]
        return independent_left_out(value, groups, lower, upper, confidence)
    without = np.array([statistic(row) for row in np.transpose(left_out)]) if finite and n > 2 else np.full(n, math.nan)
    return jackknife_left_out(value, without, lower, upper, confidence)


def contrast(first: ArrayLike, second: ArrayLike, times: float = 1.0, paired: bool = True) -> Estimate:
    """Mean PD of the first cell minus that of the second (``times`` a factor), with its jackknife interval.

    ``first``, ``second``: (N, N) matrices of one metric, trial k of both from the same seed if ``paired`` (see ``jackknife``).

    >>> contrast([[0, 1], [1, 0]], [[0, 3], [3, 0]]).value
    -2.0
    """
    return jackknife([first, second], lambda means: means[0] - times * means[1], paired=paired)


def relative_contrast(first: ArrayLike, second: ArrayLike, confidence: float = CONFIDENCE, paired: bool = True) -> Estimate:
    """By how many per cent the first cell's mean PD is above the second's (below: negative); arguments as in ``contrast``.

    >>> relative_contrast([[0, 1], [1, 0]], [[0, 4], [4, 0]]).value
    -75.0
    """

    def difference(means: Float64) -> float:
        return 100 * (means[0] - means[1]) / means[1] if means[1] else math.nan

    return jackknife([first, second], difference, confidence=confidence, paired=paired)


def jackknife_left_out(
    value: float, without: Float64, lower: float = -math.inf, upper: float = math.inf, confidence: float = CONFIDENCE
) -> Estimate:
    """``value`` +- t_{N-1} sqrt((N - 1) / N sum_k (without_k - their mean)^2), cut to ``lower`` ... ``upper``.

    ``without``: (N,), the same number computed without trial k. No interval below 3 trials or where one is not finite.

    >>> jackknife_left_out(0.5, np.array([0.6, 0.5, 0.4])).interval(".3f")
    '0.003 to 0.997'
    """
    without = floats(without)
    n = len(without)
    if n < TRIALS_FOR_INTERVAL or not (math.isfinite(value) and np.isfinite(without).all()):
        return Estimate(value, math.nan, math.nan, n)
    # Not divided by N - 1: leaving one of N out moves a mean by 1 / (N - 1) of what the trial itself is off.
    error = math.sqrt((n - 1) / n * float(np.square(without - without.mean()).sum()))
    return _cut(value, t_quantile(n - 1, confidence) * error, lower, upper, n, error)


def independent_left_out(
    value: float, groups: Sequence[Float64], lower: float = -math.inf, upper: float = math.inf, confidence: float = CONFIDENCE
) -> Estimate:
    """A number made of independent groups of trials; each group (N_g,): the same number without trial k of that group.

    The variance is the sum of each group's delete-one variance, as in ``jackknife_left_out``, the degrees of freedom those of
    Welch (1947) and Satterthwaite (1946). ``n`` is the smallest N_g. A group of one trial adds no variance: what is said holds
    for that trial. No interval where another group has fewer than 3, or a value is not finite.

    >>> estimate = independent_left_out(0.5, [np.array([0.6, 0.5, 0.4]), np.array([0.6, 0.5, 0.4])])
    >>> estimate.interval(".3f"), round(estimate.degrees, 3)
    ('0.047 to 0.953', 4.0)
    """
    several = [jackknife_left_out(value, each) for each in groups if len(each) > 1]
    n = min(map(len, groups), default=0)
    if not several or not all(each.has_interval for each in several):
        return Estimate(value, math.nan, math.nan, n)
    variance, shares = sum(of.error**2 for of in several), sum(of.error**4 / (of.n - 1) for of in several)
    degrees = variance**2 / shares if shares else float(sum(of.n - 1 for of in several))
    estimate = _cut(value, t_quantile(degrees, confidence) * math.sqrt(variance), lower, upper, n, math.sqrt(variance))
    return replace(estimate, degrees=degrees)


def without_each(matrix: ArrayLike) -> tuple[float, Float64]:
    """The mean over all pairs of an (N, N) matrix, and (N,) that mean without trial k; NaN where no pair is left.

    >>> without_each([[0, 1, 2], [1, 0, 3], [2, 3, 0]])
    (2.0, array([3., 2., 1.]))
    """
    distances = floats(matrix)
    np.fill_diagonal(distances, 0.0)
    n, total = len(distances), distances.sum() / 2
    value = float(total / math.comb(n, 2)) if n > 1 else math.nan
    # Infinity minus infinity would be no number, with a warning.
    if n < 3 or not math.isfinite(total):
        return value, np.full(n, math.nan)
    return value, (total - distances.sum(axis=1)) / math.comb(n - 1, 2)


def mean_without_each(values: Float64) -> tuple[float, Float64]:
    """The mean of (N,) numbers, and (N,) the mean without trial k; NaN where none is left.

    >>> mean_without_each(np.array([1.0, 2.0, 6.0]))
    (3.0, array([4. , 3.5, 1.5]))
    """
    values = floats(values)
    n = len(values)
    without = (values.sum() - values) / (n - 1) if n > 1 else np.full(n, math.nan)
    return float(values.mean()) if n else math.nan, without


def mean_interval(values: Sequence[float] | Float64, lower: float = -math.inf, upper: float = math.inf) -> Estimate:
    """Mean of one number per trial (a loss, an accuracy) with Student's t interval, cut to ``lower`` ... ``upper``.

    ``values``: (N,), same unit as the result. No interval below 3 trials or where a value is not finite.

    >>> f"{mean_interval([1.0, 2.0, 6.0], lower=0.0):.2f}"
    '3.00 (0.00 to 9.57)'
    """
    trials = floats(values)
    n = len(trials)
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    value = float(trials.mean())
    if n < TRIALS_FOR_INTERVAL or not math.isfinite(value):
        return Estimate(value, math.nan, math.nan, n)
    error = float(trials.std(ddof=1)) / math.sqrt(n)
    return _cut(value, t_quantile(n - 1) * error, lower, upper, n, error)


def t_quantile(degrees: float, confidence: float = CONFIDENCE) -> float:
    """The two-sided quantile of Student's t: P(abs(T) <= quantile) = confidence.

    >>> round(t_quantile(2), 3)
    4.303
    """
    check_share("confidence", confidence)
    import scipy  # here: a worker that only trains has none

    return float(scipy.special.stdtrit(degrees, (1 + confidence) / 2))


def _first(means: Float64) -> float:
    # Has a name, because ``jackknife`` lets an infinite mean through where nothing is made of it.
    return means[0]


def _cut(value: float, half: float, lower: float, upper: float, n: int, error: float) -> Estimate:
    # Rounding may put the value itself a little outside the range; the interval holds it all the same.
    low, high = max(value - half, min(lower, value)), min(value + half, max(upper, value))
    return Estimate(value, low, high, n, error)
