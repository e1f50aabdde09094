"""The t test of the jackknife, equality, Holm, the permutation check and power: by hand, against scipy. No training."""

import math
from itertools import pairwise, product

import numpy as np
import pytest
import scipy.stats
from statsmodels.stats.multitest import multipletests

from repro_lib.metrics.hypothesis_tests import holm, p_above, p_equal, p_value, permutation_test, power, trials_needed
from repro_lib.metrics.uncertainty import Estimate, contrast


def additive(effects: np.ndarray) -> np.ndarray:
    """The PD of trials i and j is effect_i + effect_j."""
    return (effects[:, None] + effects[None, :]) * (1 - np.eye(len(effects)))


def cells(seed: int, n: int = 8, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return additive(rng.normal(5 + shift, 1, n)), additive(rng.normal(5, 3, n))


def test_the_p_is_that_of_scipys_paired_t_test_where_effects_are_additive():
    # Then the jackknife of the difference is the classical error of the mean of twice the effects' differences.
    rng = np.random.default_rng(3)
    first, second = rng.normal(5, 1, 9), rng.normal(4, 3, 9)
    theirs = scipy.stats.ttest_rel(first, second)
    ours = contrast(additive(first), additive(second))
    assert p_value(ours) == pytest.approx(theirs.pvalue)
    assert p_above(ours) == pytest.approx(scipy.stats.ttest_rel(first, second, alternative="greater").pvalue)


def test_two_one_sided_tests_against_scipy():
    # Within 20 % of the second: first - .8 second is above 0 and first - 1.2 second below it.
    rng = np.random.default_rng(4)
    first, second = rng.normal(5.2, 0.5, 9), rng.normal(5, 0.5, 9)
    above = scipy.stats.ttest_rel(first, 0.8 * second, alternative="greater").pvalue
    below = scipy.stats.ttest_rel(first, 1.2 * second, alternative="less").pvalue
    ends = [contrast(additive(first), additive(second), times) for times in (0.8, 1.2)]
    assert p_equal(*ends) == pytest.approx(max(above, below))
    assert p_equal(*ends) < 0.05 < p_equal(*(contrast(additive(first), additive(second), times) for times in (0.99, 1.01)))


def test_cells_without_any_spread_leave_no_doubt():
    same, more = np.ones((4, 4)), 2 * np.ones((4, 4))
    assert (p_value(contrast(same, same)), p_value(contrast(more, same))) == (1.0, 0.0)
    assert p_equal(contrast(same, same, 0.97), contrast(same, same, 1.03)) == 0.0
    assert p_equal(contrast(more, same, 0.97), contrast(more, same, 1.03)) == 1.0
    assert math.isnan(p_value(contrast(same[:2, :2], more[:2, :2])))


def test_holm_by_hand_and_over_all_that_was_declared():
    # Sorted .01 .02 .04 times 3 2 1: .03 .04 .04.
    assert holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    # A test that could not be made was asked for all the same: .01 .04 times 3 2.
    assert holm([0.01, math.nan, 0.04]) == pytest.approx([0.03, math.nan, 0.08], nan_ok=True)
    assert holm([0.004, *[0.5] * 9, *[math.nan] * 10])[0] == pytest.approx(0.08)
    assert math.isnan(holm([math.nan])[0])
    assert len(holm([])) == 0
    with pytest.raises(ValueError, match="p values lie between 0 and 1"):
        holm([0.01, 1.5])


def test_holm_against_statsmodels_a_family_in_each_row():
    p = np.random.default_rng(0).random((3, 12)) ** 3
    assert holm(p) == pytest.approx(np.array([multipletests(row, method="holm")[1] for row in p]))


@pytest.mark.parametrize("seed", range(4))
def test_a_permutation_by_brute_force_which_studentising_does_not_change(seed: int):
    first, second = cells(seed, n=6, shift=1.0)
    values = np.array([contrast(np.delete(np.delete(first, k, 0), k, 1), np.delete(np.delete(second, k, 0), k, 1)).value
                       for k in range(6)])  # fmt: skip
    pseudo = 6 * contrast(first, second).value - 5 * values
    ways = [np.array(signs) * pseudo for signs in product((1, -1), repeat=6)]
    for statistic in (np.mean, lambda x: x.mean() / x.std(ddof=1)):
        found = np.mean([abs(statistic(way)) >= abs(statistic(ways[0])) - 1e-12 for way in ways])
        assert permutation_test(first, second) == pytest.approx(found)


def test_what_a_permutation_can_show_and_what_it_cannot():
    first, second = additive(np.arange(12.0)), additive(100 + np.arange(12.0))
    assert permutation_test(first[:10, :10], second[:10, :10]) == 2 / 2**10
    # A sample counts the data as one of its ways.
    assert permutation_test(first, second, resamples=100) >= 1 / 100
    assert permutation_test(first, first) == 1.0
    assert math.isnan(permutation_test(first[:2, :2], second[:2, :2]))
    broken = additive(np.ones(6))
    broken[0, 1] = broken[1, 0] = math.inf
    assert math.isnan(permutation_test(broken, additive(np.ones(6))))
    with pytest.raises(ValueError, match=r"seed by seed and need the same number of trials, they have \[6, 7\]"):
        permutation_test(additive(np.ones(6)), additive(np.ones(7)))


def test_power_against_simulated_t_tests_and_far_out_where_scipy_gives_nan():
    found = scipy.stats.ttest_1samp(np.random.default_rng(2).normal(1.5, 1, (20_000, 5)), 0, axis=1)
    for alpha in (0.05, 0.005):
        share = ((found.pvalue < alpha) & (found.statistic > 0)).mean()
        assert power(5, 1.5, alpha=alpha) == pytest.approx(share, abs=0.012)
    for effect in np.geomspace(0.01, 1000, 25):
        chances = [power(n, effect, alpha=0.002) for n in (2, 3, 5, 10, 20, 70, 300, 10_000)]
        assert all(0 <= chance <= 1 for chance in chances)
        assert all(later > sooner - 5e-3 for sooner, later in pairwise(chances))
    assert [power(n, effect) for n in (1, 2, 10) for effect in (math.inf, -math.inf)] == [0, 0, 1, 1, 1, 1]
    assert math.isnan(power(10, math.nan))


def test_trials_needed_are_those_of_the_rule_and_never_fewer_than_a_verdict_takes():
    measured = Estimate(0.3, 0.0, 0.6, n=10, error=0.1)  # of one seed .316: an effect of .949
    needed = trials_needed(measured, alpha=0.05 / 20)
    assert needed is not None
    effect = 0.3 / (0.1 * math.sqrt(10))
    assert power(needed, effect, alpha=0.05 / 20) >= 0.8 > power(needed - 1, effect, alpha=0.05 / 20)
    assert trials_needed(Estimate(9.0, 8.0, 10.0, n=10, error=0.1)) == 10
    assert trials_needed(measured, distance=0.1) == trials_needed(Estimate(0.1, 0.0, 0.2, n=10, error=0.1))
    for nothing in (Estimate(0.0, -1.0, 1.0, 10, 0.1), Estimate(0.3, 0.3, 0.3, 10, 0.0), Estimate(0.3, math.nan, math.nan, 2)):
        assert trials_needed(nothing) is None


def test_what_no_test_can_be_made_with_is_refused_in_a_sentence():
    distances = additive(np.arange(1.0, 7))
    for resamples in (0, -1):
        with pytest.raises(ValueError, match=f"at least one random draw is needed, got {resamples}"):
            permutation_test(distances, distances, resamples=resamples)
    for alpha in (5, 0, 1.0, math.nan):
        with pytest.raises(ValueError, match="alpha is a share between 0 and 1, got"):
            power(10, 1.0, alpha=alpha)
    with pytest.raises(ValueError, match="wanted is a share between 0 and 1, got 80"):
        trials_needed(Estimate(1.0, 0.0, 2.0, 10, 0.5), wanted=80)
