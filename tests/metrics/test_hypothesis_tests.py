"""Permutation tests, Holm, the CV's null and power: by hand, against scipy and by simulation. No training."""

import gc
import math
from functools import lru_cache
from itertools import pairwise

import numpy as np
import pytest
import scipy.stats

from repro_lib.metrics import hypothesis_tests
from repro_lib.metrics.cells import coefficient_of_variation
from repro_lib.metrics.hypothesis_tests import cv_null, holm, permutation_test, power, smallest_p, trials_needed


def additive(effects: np.ndarray) -> np.ndarray:
    """The PD of trials i and j is effect_i + effect_j."""
    return (effects[:, None] + effects[None, :]) * (1 - np.eye(len(effects)))


# --- the permutation test


def test_two_against_two_by_hand():
    # Effects 1, 2 | 4, 8: means 3 and 12, difference 9. Of the six ways to deal the trials only this one and its mirror
    # reach 9: {1,4}|{2,8} gives 5 and 10, {1,8}|{2,4} gives 9 and 6. So p = 2/6.
    found = permutation_test(additive(np.array([1.0, 2, 4, 8])), 2, paired=False)
    assert (found.p, found.permutations, found.exact, found.smallest) == (pytest.approx(2 / 6), 6, True, pytest.approx(2 / 6))
    # Paired. Swaps within a seed: none, first, second, both: differences 9, {4,2}|{1,8} 3, {1,8}|{4,2} 3, 9. So p = 2/4.
    found = permutation_test(additive(np.array([1.0, 2, 4, 8])), 2, paired=True)
    assert (found.p, found.permutations, found.exact) == (pytest.approx(2 / 4), 4, True)


@pytest.mark.parametrize(("n", "m", "paired"), [(4, 4, False), (3, 5, False), (5, 2, False), (5, 5, True)])
def test_against_scipy_on_a_real_distance_matrix(n: int, m: int, paired: bool):
    # Another implementation: scipy deals the row numbers, and the means are taken from the matrix by indexing.
    points = np.random.default_rng(n * 10 + m).normal(size=(n + m, 3)) * np.r_[np.ones(n), np.full(m, 1.7)][:, None]
    matrix = np.linalg.norm(points[:, None] - points[None], axis=-1)

    def difference(first: np.ndarray, second: np.ndarray) -> float:
        within = [matrix[np.ix_(rows, rows)] for rows in (first.astype(int), second.astype(int))]
        means = [part[np.triu_indices(len(part), 1)].mean() for part in within]
        return abs(means[0] - means[1])

    how = {"permutation_type": "samples" if paired else "independent", "n_resamples": np.inf, "alternative": "greater"}
    theirs = scipy.stats.permutation_test((np.arange(n), np.arange(n, n + m)), difference, vectorized=False, **how)
    assert permutation_test(matrix, n, paired=paired).p == pytest.approx(theirs.pvalue)


def test_a_sample_of_permutations_states_its_number_and_never_gives_zero():
    effects = np.r_[np.zeros(12), np.full(12, 50.0)] + np.random.default_rng(0).normal(size=24)
    sampled = permutation_test(additive(effects), 12, paired=False, resamples=2_000)
    assert (sampled.exact, sampled.permutations, sampled.p) == (False, 2_000, pytest.approx(1 / 2_000))
    # Up to ten against ten trials all are tried, and a sample of deals agrees with them.
    effects = np.random.default_rng(1).normal(size=20) + np.r_[np.zeros(10), np.full(10, 0.9)]
    exact = permutation_test(additive(effects), 10, paired=False)
    assert (exact.exact, exact.permutations) == (True, math.comb(20, 10))
    rng = np.random.default_rng(5)
    dealt = rng.permuted(np.tile(effects, (20_000, 1)), axis=1)[:, :10].mean(axis=1)
    share = np.mean(abs(dealt - effects.mean()) >= abs(effects[:10].mean() - effects.mean()) - 1e-12)
    assert exact.p == pytest.approx(share, abs=0.015)


def test_what_a_few_trials_can_show():
    unpaired = {(3, 3): 0.10, (5, 5): 2 / 252, (2, 3): 1 / 10, (1, 1): 1.0}
    assert {n: smallest_p(*n, paired=False) for n in unpaired} == pytest.approx(unpaired)
    assert smallest_p(5, 5, paired=True) == pytest.approx(0.0625)
    # The largest difference reaches it.
    for n, paired in ((3, False), (3, True), (5, True), (4, False)):
        effects = np.r_[np.arange(n) * 0.01, 100 + np.arange(n) * 0.01]
        found = permutation_test(additive(effects), n, paired=paired)
        assert found.p == pytest.approx(found.smallest) == smallest_p(n, n, paired=paired)


def test_what_has_no_pair_no_number_or_no_difference():
    assert permutation_test(np.zeros((6, 6)), 3, paired=False).p == 1.0
    assert math.isnan(permutation_test(additive(np.ones(4)), 1, paired=False).p)
    broken = additive(np.ones(6))
    broken[0, 1] = broken[1, 0] = math.inf
    assert math.isnan(permutation_test(broken, 3, paired=False).p)
    with pytest.raises(ValueError, match="equally many trials, got 3 and 4"):
        permutation_test(additive(np.ones(7)), 3, paired=True)


# --- Holm


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


# --- the CV's null


def test_cv_null_by_hand_for_two_by_two():
    # Effects 1, 2 | 4, 8: CV of (3, 12) is 60 %. Dealt otherwise (5, 10) 33.3 % and (9, 6) 20 %, each as likely.
    null = cv_null(additive(np.array([1.0, 2, 4, 8])), [2, 2], paired=False, resamples=30_000)
    assert coefficient_of_variation([3.0, 12.0]) == pytest.approx(60)
    assert null.p == pytest.approx(1 / 3, abs=0.01)
    assert null.median == pytest.approx(100 / 3)
    assert null.high == pytest.approx(60)
    # Paired, {1, 4} and {2, 8} change places within a seed: (3, 12) or (4 + 2, 1 + 8), half each.
    null = cv_null(additive(np.array([1.0, 2, 4, 8])), [2, 2], paired=True, resamples=30_000)
    assert null.p == pytest.approx(1 / 2, abs=0.01)
    assert null.median in (pytest.approx(20), pytest.approx(60))


def test_cv_null_is_uniform_when_nothing_differs():
    rng = np.random.default_rng(11)
    p_values = [cv_null(additive(rng.normal(5, 1, 20)), [5] * 4, paired=False, resamples=400).p for _ in range(400)]
    assert scipy.stats.kstest(p_values, "uniform").pvalue > 0.01
    planted = np.repeat([0.0, 0, 0, 4], 5)
    found = cv_null(additive(rng.normal(5, 1, 20) + planted), [5] * 4, paired=False)
    assert found.p < 0.01


def test_cv_null_without_anything_to_deal():
    assert math.isnan(cv_null(additive(np.ones(3)), [3], paired=False).p)
    assert math.isnan(cv_null(additive(np.ones(3)), [2, 1], paired=False).p)
    # Bit-identical trials: no PD at all, so the CV is not defined, and no warning is raised.
    assert math.isnan(cv_null(np.zeros((6, 6)), [3, 3], paired=False).p)
    with pytest.raises(ValueError, match="4 trials in all"):
        cv_null(additive(np.ones(5)), [2, 2], paired=False)


# --- power and planning


@pytest.mark.parametrize(
    ("n", "effect", "alpha", "paired", "expected"),
    # Cohen's d over the standard deviation of the unit, calculated with another program.
    [
        (3, 1, 0.05, True, 0.18), (3, 2, 0.05, True, 0.47), (5, 2, 0.05, False, 0.79), (10, 1, 0.05, True, 0.80),
        (10, 1, 0.05, False, 0.56), (10, 2, 0.0125, False, 0.94), (5, 2, 0.005, True, 0.37),
    ],
)  # fmt: skip
def test_power(n: int, effect: float, alpha: float, paired: bool, expected: float):
    assert power(n, effect, paired=paired, alpha=alpha) == pytest.approx(expected, abs=0.006)


def test_power_against_simulated_t_tests_and_far_out_where_scipy_gives_nan():
    rng = np.random.default_rng(2)
    first, second = rng.normal(1.5, 1, (20_000, 5)), rng.normal(0, 1, (20_000, 5))
    found = scipy.stats.ttest_ind(first, second, axis=1)
    share = ((found.pvalue < 0.05) & (found.statistic > 0)).mean()
    assert power(5, 1.5, paired=False) == pytest.approx(share, abs=0.012)
    for effect in np.geomspace(0.01, 1000, 25):
        for paired in (True, False):
            chances = [power(n, effect, paired=paired, alpha=0.002) for n in (2, 3, 5, 10, 20, 70, 300, 10_000)]
            assert all(0 <= chance <= 1 for chance in chances)
            assert all(later > sooner - 5e-3 for sooner, later in pairwise(chances))
    assert power(1, 5, paired=True) == 0.0


def test_trials_needed():
    # 4 trials have the power for an effect of 4 at .05, but no exact unpaired test of theirs can reach .05 / 24.
    assert trials_needed(2, paired=False) == 6
    assert power(6, 2, paired=False) >= 0.8 > power(5, 2, paired=False)
    assert trials_needed(50, paired=True, alpha=0.05 / 24) == 10
    assert trials_needed(50, paired=False, alpha=0.05 / 24) == 7
    assert trials_needed(0, paired=True) is None
    assert trials_needed(math.nan, paired=True) is None


# --- the whole procedure, by simulation

FAMILY = (5, 4)  # models that are not left out, contrasts against relu in each


def simulated_family(rng: np.random.Generator, differences: np.ndarray, n: int = 10) -> np.ndarray:
    """Holm's p for 5 models x 4 contrasts: trial effects with sd 1; an arm's mean PD has twice the effect of a trial."""
    p_values = []
    for model in range(FAMILY[0]):
        effects = 20 + rng.normal(size=(5, n)) + np.r_[0, differences[model]][:, None]
        # Beside the effects of its two trials each pair has noise of its own.
        for k in range(1, 5):
            both = np.r_[effects[0], effects[k]]
            noise = np.triu(rng.normal(0, 0.5, (2 * n, 2 * n)), 1)
            p_values.append(permutation_test(additive(both) + noise + noise.T, n, paired=False, resamples=2_000).p)
    return holm(p_values)


def make_simulation_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sample of 2,000 permutations instead of all 184,756, the same for every test: drawing it is most of the work."""
    monkeypatch.setattr(hypothesis_tests, "LARGEST_EXACT", 0)
    monkeypatch.setattr(hypothesis_tests, "_arms", lru_cache(hypothesis_tests._arms))
    # statsmodels collects garbage in every multipletests, which takes 80 ms here.
    monkeypatch.setattr(gc, "collect", lambda *_: 0)


@pytest.mark.slow
def test_the_families_error_rate_at_ten_trials(monkeypatch: pytest.MonkeyPatch):
    make_simulation_quick(monkeypatch)
    rng = np.random.default_rng(2026)
    grids = 2_000
    wrong = sum(bool((simulated_family(rng, np.zeros(FAMILY)) <= 0.05).any()) for _ in range(grids))
    assert wrong / grids <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / grids)
    assert wrong > 0  # without Holm it would be about 1 - .95^20


@pytest.mark.slow
def test_the_families_power_at_two_standard_deviations(monkeypatch: pytest.MonkeyPatch):
    make_simulation_quick(monkeypatch)
    rng = np.random.default_rng(2027)
    found = np.concatenate([simulated_family(rng, np.full(FAMILY, 2.0)) <= 0.05 for _ in range(200)])
    assert found.mean() >= 0.5


# --- what cannot be meant


def test_a_sample_cannot_give_a_smaller_p_than_its_number_allows():
    found = permutation_test(additive(np.r_[np.arange(11) * 0.01, 100 + np.arange(11) * 0.01]), 11, paired=False)
    assert not found.exact
    assert found.p == found.smallest == 1 / found.permutations


def test_what_no_test_can_be_made_with_is_refused_in_a_sentence():
    distances = additive(np.arange(1.0, 7))
    for resamples in (0, -1):
        for paired in (False, True):
            with pytest.raises(ValueError, match=f"at least one random draw is needed, got {resamples}"):
                permutation_test(distances, 3, paired=paired, resamples=resamples)
            with pytest.raises(ValueError, match=f"at least one random draw is needed, got {resamples}"):
                cv_null(distances, [3, 3], paired=paired, resamples=resamples)
    for alpha in (5, 0, 1.0, math.nan):
        with pytest.raises(ValueError, match="alpha is a share between 0 and 1, got"):
            power(10, 1.0, paired=True, alpha=alpha)
    with pytest.raises(ValueError, match="wanted is a share between 0 and 1, got 80"):
        trials_needed(1.0, paired=True, wanted=80)


@pytest.mark.parametrize("paired", [False, True])
def test_a_difference_without_end_is_found_whenever_a_test_can_be_made(paired: bool):
    assert [power(n, effect, paired=paired) for n in (1, 2, 10) for effect in (math.inf, -math.inf)] == [0, 0, 1, 1, 1, 1]
    assert trials_needed(math.inf, paired=paired) == trials_needed(1e6, paired=paired)
    assert math.isnan(power(10, math.nan, paired=paired))
