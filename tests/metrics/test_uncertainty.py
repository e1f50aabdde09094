"""Statistics against values worked out by hand and against scipy. No training; under a second."""

import doctest
import inspect
import math
from functools import partial
from types import ModuleType

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays

from repro_lib.metrics import cells, equal_loss, given as given_checks, hypothesis_tests, prediction_difference, uncertainty
from repro_lib.metrics.cells import (
    bootstrap_windows,
    coefficient_of_variation,
    cv_beside_noise,
    over_trials_and_windows,
    probability_of_being_best,
    variance_of_accuracy,
)
from repro_lib.metrics.churn_and_influence import churn_and_error, trial_influence
from repro_lib.metrics.uncertainty import Estimate, contrast, jackknife, jackknife_pairwise, mean_interval, relative_contrast


def matrix_of(n: int, pairs: dict[tuple[int, int], float]) -> np.ndarray:
    matrix = np.zeros((n, n))
    for (i, j), value in pairs.items():
        matrix[i, j] = matrix[j, i] = value
    return matrix


THREE = matrix_of(3, {(0, 1): 0.4, (0, 2): 0.5, (1, 2): 0.6})


def test_three_trials_by_hand():
    # U = (.4 + .5 + .6) / 3 = .5. Without trial 1 the pair .6 is left, without 2 .5, without 3 .4; their mean is .5, so
    # the variance is 2/3 (.01 + 0 + .01) = .02/1.5 = .0133..., its root .11547, and t_2 = 4.302653.
    estimate = jackknife_pairwise(THREE)
    half = 4.302652729911275 * math.sqrt(0.04 / 3)
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((0.5, 0.5 - half, 0.5 + half))
    assert (estimate.n, estimate.has_interval) == (3, True)
    assert jackknife_pairwise(THREE + 9 * np.eye(3)) == estimate, "the diagonal does not count"


def random_matrix(n: int, seed: int, scale: float = 1.0) -> np.ndarray:
    points = np.random.default_rng(seed).normal(size=(n, 3)) * scale
    return np.linalg.norm(points[:, None] - points[None], axis=-1)


def without(matrix: np.ndarray, k: int) -> float:
    rest = np.delete(np.delete(matrix, k, 0), k, 1)
    return rest[np.triu_indices(len(rest), 1)].mean()


def test_an_interval_holds_its_value_even_where_rounding_puts_it_outside_the_range():
    just_above = np.nextafter(1.0, 2.0)
    estimate = jackknife_pairwise(np.full((3, 3), just_above), upper=1.0)
    assert estimate.low <= estimate.value <= estimate.high
    estimate = jackknife_pairwise(matrix_of(3, {(0, 1): 0.1, (0, 2): 0.9, (1, 2): 0.9}), upper=1.0)
    assert (estimate.low, estimate.high) == (0.0, 1.0)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_below_three_trials_there_is_no_interval(n: int):
    # Warnings are errors in this project, so a quiet NaN is part of what is tested.
    for estimate in (jackknife_pairwise(np.full((n, n), 0.25)), mean_interval([0.25] * n)):
        assert not estimate.has_interval
        assert math.isnan(estimate.high)
        assert estimate.n == n
    assert jackknife_pairwise(np.full((n, n), 0.25)).value == 0.25 if n == 2 else math.isnan(mean_interval([]).value)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_value_that_is_not_finite_gives_no_interval(bad: float):
    estimate = jackknife_pairwise(matrix_of(3, {(0, 1): bad, (0, 2): 0.5, (1, 2): 0.6}))
    assert not math.isfinite(estimate.value)
    assert not estimate.has_interval
    assert not mean_interval([bad, 1.0, 2.0]).has_interval


@pytest.mark.parametrize("bad", [np.zeros((2, 3)), np.zeros(3), [[0, 1], [2, 0]]])
def test_what_is_no_pair_matrix_is_refused(bad: object):
    with pytest.raises(ValueError, match="matrix"):
        jackknife_pairwise(bad)  # pyright: ignore[reportArgumentType]


def test_mean_interval_by_scipy():
    values = np.array([2.2, 2.4, 2.3, 2.9, 2.1])
    low, high = scipy.stats.t.interval(0.95, df=4, loc=values.mean(), scale=scipy.stats.sem(values))
    estimate = mean_interval(values)
    assert (estimate.low, estimate.high) == (pytest.approx(low), pytest.approx(high))


def test_the_cv_of_the_earlier_study_and_of_equal_single_and_missing_values():
    assert round(coefficient_of_variation([0.9051, 1.0739, 1.0938, 0.5935, 1.0952]), 2) == 20.26  # its charlm
    # Of .3, five times, rounding of the mean would give more than 0.
    assert coefficient_of_variation([0.1 + 0.2] * 5) == 0.0
    assert coefficient_of_variation([1.0, math.nan, 3.0]) == 50.0
    for values in ([], [1.0], [math.nan, 1.0], [0.0, 0.0], [math.inf, 1.0]):
        assert math.isnan(coefficient_of_variation(values))


def test_contrasts_that_cannot_be_made_or_have_no_interval():
    assert contrast(THREE, THREE).error == 0.0, "with itself nothing remains"
    estimate = contrast(random_matrix(2, 0), random_matrix(2, 1))
    assert math.isfinite(estimate.value)
    assert not estimate.has_interval
    assert math.isnan(contrast(np.full((3, 3), math.inf), random_matrix(3, 1)).value)


@pytest.mark.slow
@pytest.mark.parametrize("n", [3, 5, 10])
def test_coverage_of_the_nominal_95_per_cent_interval(n: int):
    # Models have an effect of their own (lognormal, sigma .15) and every pair some noise. True mean PD: E[e^(u+v)] = e^(.15^2).
    rng = np.random.default_rng(n)
    truth, runs, covered, on_pairs = math.exp(0.15**2), 4_000, 0, 0
    for _ in range(runs):
        effects = rng.normal(0, 0.15, n)
        noise = np.triu(rng.normal(0, 0.05, (n, n)), 1)
        matrix = np.exp(effects[:, None] + effects[None]) + noise + noise.T
        matrix = (matrix + matrix.T) / 2
        estimate = jackknife_pairwise(matrix)
        covered += estimate.low <= truth <= estimate.high
        naive = mean_interval(matrix[np.triu_indices(n, 1)])
        on_pairs += naive.low <= truth <= naive.high
    assert 0.92 <= covered / runs <= 0.98
    assert on_pairs / runs < 0.90  # what an interval over pairs would have promised


SPREADS_OF_CELLS = st.integers(3, 9).flatmap(lambda n: st.tuples(*[arrays(float, n, elements=st.floats(0.1, 2))] * 4))


@given(SPREADS_OF_CELLS)
def test_every_statistic_of_cells_by_brute_force(effects: tuple[np.ndarray, ...]):
    # Pairs are no sums of effects, so that nothing holds by being linear.
    cells = [np.sqrt(np.outer(e, e)) * (1 - np.eye(len(e))) for e in effects]
    n = len(effects[0])
    thetas = np.array([[without(cell, k) for cell in cells] for k in range(n)])
    whole = [cell[np.triu_indices(n, 1)].mean() for cell in cells]
    for found, of in (
        (jackknife_pairwise(cells[0]), lambda m: m[0]),
        (contrast(cells[0], cells[1]), lambda m: m[0] - m[1]),
        (contrast(cells[0], cells[1], times=1.03), lambda m: m[0] - 1.03 * m[1]),
        (relative_contrast(cells[0], cells[1]), lambda m: 100 * (m[0] / m[1] - 1)),
        (jackknife(cells, np.ptp), np.ptp),
    ):
        left_out = np.array([of(row) for row in thetas])
        error = math.sqrt((n - 1) / n * np.square(left_out - left_out.mean()).sum())
        assert (found.value, found.error) == pytest.approx((of(whole), error), rel=1e-6, abs=1e-9)
        assert found.low <= found.value <= found.high
        half = scipy.stats.t.ppf(0.975, n - 1) * error
        assert (found.high - found.value) == pytest.approx(half, rel=1e-6, abs=1e-9)
    best = probability_of_being_best(cells, draws=50)
    assert best.sum() == pytest.approx(1)
    cv = cv_beside_noise(cells)
    assert cv.corrected.low <= cv.corrected.value <= min(cv.measured + 1e-9, cv.corrected.high + 1e-9)


def test_probability_of_being_best():
    far = [random_matrix(5, seed, scale) for seed, scale in ((1, 1.0), (1, 1.0), (2, 5.0))]
    chances = probability_of_being_best(far)
    assert chances.sum() == pytest.approx(1)
    assert chances[0] == pytest.approx(chances[1], abs=0.02)
    assert chances[2] < 0.05
    # Cells that move together seed by seed: the order is certain although each interval is wide.
    assert probability_of_being_best([far[0], far[0] * 1.001])[0] > 0.99
    # One cell without variance: P(best) is P(t_{N-1} < distance / error).
    first, second = random_matrix(4, 3), matrix_of(4, dict.fromkeys([(i, j) for i in range(4) for j in range(i)], 2.0))
    estimate = jackknife_pairwise(first)
    expected = scipy.stats.t.cdf((2.0 - estimate.value) / estimate.error, 3)
    assert probability_of_being_best([first, second], draws=200_000)[0] == pytest.approx(expected, abs=0.005)
    # Identical cells share; few trials have no chance to state.
    assert list(probability_of_being_best([np.zeros((3, 3))] * 2)) == [0.5, 0.5]
    assert np.isnan(probability_of_being_best([np.zeros((2, 2))] * 2)).all()


def additive_cells(rng: np.random.Generator, means: np.ndarray, n: int, spread: float = 1.0) -> list[np.ndarray]:
    effects = means[:, None] / 2 + rng.normal(0, spread, (len(means), n))
    return [(e[:, None] + e) * (1 - np.eye(n)) for e in effects]


def test_the_cvs_p_is_that_of_an_analysis_of_variance_with_repeated_measures():
    # Of additive cells the jackknife's values are twice the effects; seeds are its subjects.
    rng = np.random.default_rng(5)
    effects = rng.normal(10, 1, (4, 8)) + rng.normal(0, 3, 8)
    found = cv_beside_noise([(e[:, None] + e) * (1 - np.eye(8)) for e in effects])
    rest = effects - effects.mean(axis=0) - effects.mean(axis=1, keepdims=True) + effects.mean()
    between = 8 * np.square(effects.mean(axis=1) - effects.mean()).sum() / 3
    f = between / (np.square(rest).sum() / 21)
    assert found.p == pytest.approx(scipy.stats.f.sf(f, 3, 21))
    assert found.measured == pytest.approx(coefficient_of_variation(2 * effects.mean(axis=1)))
    # The median of the null, in the same units: F = 7 C CV^2 / noise.
    assert found.by_chance == pytest.approx(found.measured * math.sqrt(scipy.stats.f.median(3, 21) / f))


def test_the_cv_is_corrected_and_its_interval_leaves_0_out_where_the_test_does():
    rng = np.random.default_rng(6)
    lows, ps, values = [], [], []
    for _ in range(40):
        found = cv_beside_noise(additive_cells(rng, np.full(5, 100.0), 10))
        lows, ps, values = [*lows, found.corrected.low], [*ps, found.p], [*values, found.corrected.value]
        assert found.corrected.low <= found.corrected.value <= found.corrected.high
    assert [low > 0 for low in lows] == [p <= 0.055 for p in ps]
    assert np.median(values) < 0.35 < 0.6  # .63 by chance: 2 / sqrt(10) of 100
    true = additive_cells(rng, np.array([97.0, 97, 100, 103, 103]), 200, spread=0.1)
    assert cv_beside_noise(true).corrected.value == pytest.approx(100 * math.sqrt(4 * 9 / 5) / 100, rel=0.01)


def test_a_cv_without_anything_to_judge_it_by():
    assert math.isnan(cv_beside_noise([THREE]).measured)
    two = cv_beside_noise([np.ones((2, 2)), 3 * np.ones((2, 2))])
    assert (two.measured, two.corrected.has_interval) == (50.0, False)
    alike = cv_beside_noise([THREE, THREE])
    assert (alike.measured, alike.corrected.low, alike.corrected.high, alike.p) == (0.0, 0.0, 0.0, 1.0)
    assert math.isnan(cv_beside_noise([np.zeros((3, 3))] * 2).p)


def test_the_error_over_trials_and_windows_by_hand_and_by_simulation():
    trials, windows = Estimate(0.5, 0.4, 0.6, 10, 0.03), Estimate(0.5, 0.4, 0.6, 64, 0.04)
    both = over_trials_and_windows(trials, windows)
    assert (both.value, both.error, both.n) == pytest.approx((0.5, 0.05, 10))
    assert both.high == pytest.approx(0.5 + scipy.stats.t.ppf(0.975, 9) * 0.05)
    assert not over_trials_and_windows(trials, bootstrap_windows([0.5])).has_interval
    # Other trials on another text: the crossed interval covers, that over trials alone does not.
    rng, covered = np.random.default_rng(7), []
    for _ in range(300):
        effects, text = rng.normal(0, 0.01, 10), rng.normal(0, 0.1, 64)
        matrix = (1 + effects[:, None] + effects + text.mean()) * (1 - np.eye(10))
        alone = jackknife_pairwise(matrix)
        over_windows = Estimate(alone.value, 0.0, 2.0, 64, text.std(ddof=1) / 8)
        covered.append([e.low <= 1 <= e.high for e in (alone, over_trials_and_windows(alone, over_windows))])
    alone, both = np.mean(covered, axis=0)
    assert alone < 0.8 < 0.92 < both


def test_variance_of_accuracy_by_hand():
    # Three trials, two windows: (0, 0), (.5, 0), (1, 0). Means 0 .25 .5, variance .0625. Per window .25 and 0: .25 / 4 =
    # .0625. So runs = 2 (.0625 - .0625) = 0: all of it is one window's luck.
    parts = variance_of_accuracy([[0, 0], [0.5, 0], [1, 0]])
    assert (parts.observed, parts.evaluation, parts.runs) == pytest.approx((0.0625, 0.0625, 0))
    # Both windows agree: .25 observed, 2 (.25 - .125) = .25 is real.
    assert variance_of_accuracy([[0, 0], [0.5, 0.5], [1, 1]]).runs == pytest.approx(0.25)
    # They contradict each other: a negative estimate, shown as such.
    assert variance_of_accuracy([[0, 1], [0.5, 0.5], [1, 0]]).runs == pytest.approx(-0.25)
    # What was planted is found.
    rng = np.random.default_rng(4)
    planted = [rng.normal(0.5, 0.03, (10, 1)) + rng.normal(0, 0.1, (10, 64)) for _ in range(400)]
    assert np.mean([variance_of_accuracy(errors).runs for errors in planted]) == pytest.approx(0.03**2, rel=0.08)
    # It needs trials and windows.
    assert math.isnan(variance_of_accuracy([[0.1, 0.2], [0.3, 0.4]]).runs)
    assert math.isnan(variance_of_accuracy([[0.1], [0.3], [0.2]]).runs)
    with pytest.raises(ValueError, match="trials x windows"):
        variance_of_accuracy([0.1, 0.2])


def test_bootstrap_over_windows_agrees_with_the_normal_interval():
    values = np.random.default_rng(6).normal(0.5, 0.1, 64)
    estimate, mean, half = bootstrap_windows(values), values.mean(), 1.96 * values.std() / 8
    assert estimate.value == pytest.approx(mean)
    assert (estimate.low, estimate.high) == pytest.approx((mean - half, mean + half), abs=0.003)
    assert estimate == bootstrap_windows(values)
    assert not bootstrap_windows([0.1, 0.2]).has_interval
    assert not bootstrap_windows([0.1, math.inf, 0.2, 0.3]).has_interval


def test_cells_are_compared_seed_by_seed():
    uneven = [random_matrix(4, 1), random_matrix(3, 2)]
    for of in (probability_of_being_best, cv_beside_noise, lambda c: jackknife(c, np.mean), lambda c: contrast(*c)):
        with pytest.raises(ValueError, match=r"need the same number of trials, they have \[3, 4\]"):
            of(uneven)


def test_a_confidence_is_a_share():
    matrix, left_out = random_matrix(4, 1), np.array([1.0, 2.0, 3.0])
    for of in (partial(jackknife, [matrix], np.mean), partial(relative_contrast, matrix, matrix),
               partial(uncertainty.jackknife_left_out, 1.0, left_out)):  # fmt: skip
        for confidence in (95, 0, 1, -0.5, math.nan):
            with pytest.raises(ValueError, match="confidence is a share between 0 and 1, got"):
                of(confidence=confidence)


def test_a_share_is_not_in_per_cent():
    for churn, errors in ((THREE, [50, 60, 70]), (THREE * 100, [0.5, 0.6, 0.7])):
        with pytest.raises(ValueError, match="shares between 0 and 1"):
            churn_and_error(churn, errors)


def test_a_sample_of_none_is_refused():
    for draws in (0, -1):
        with pytest.raises(ValueError, match=f"at least one random draw is needed, got {draws}"):
            probability_of_being_best([random_matrix(4, 1)] * 2, draws=draws)
        with pytest.raises(ValueError, match=f"at least one random draw is needed, got {draws}"):
            bootstrap_windows([0.1, 0.2, 0.3], draws=draws)


def test_rounding_may_differ_on_the_two_sides_of_a_matrix():
    exact = random_matrix(4, 1)
    turned = exact.copy()
    turned[0, 1] = np.nextafter(turned[0, 1], 9)
    assert jackknife_pairwise(turned).value == pytest.approx(jackknife_pairwise(exact).value, rel=1e-15)
    checked = given_checks.pair_matrix_checked(turned)
    assert np.array_equal(checked, checked.T)
    assert np.array_equal(given_checks.pair_matrix_checked(exact), exact)
    turned[0, 1] += 1e-6
    with pytest.raises(ValueError, match="different values"):
        jackknife_pairwise(turned)


def test_what_is_masked_is_missing():
    square, row = random_matrix(4, 1), np.arange(4.0)
    hidden = np.ma.array(square, mask=(square == square[0, 1]) & ~np.eye(4, dtype=bool))
    missing = np.where(hidden.mask, math.nan, square)
    values, holes = np.ma.array(row + 1, mask=row == 2), np.where(row == 2, math.nan, row + 1)
    for of in (
        jackknife_pairwise,
        lambda given: jackknife([given, square], np.mean),
        lambda given: contrast(square, given),
        lambda given: hypothesis_tests.permutation_test(square, given),
        lambda given: cv_beside_noise([2 * square, given]),
        lambda given: probability_of_being_best([given, square])[0],
        lambda given: variance_of_accuracy(given).runs,
        lambda given: churn_and_error(given / 10, row / 10),
        lambda given: trial_influence(given).to_numpy(),
        uncertainty.without_each,
    ):
        assert str(of(hidden)) == str(of(missing))
        assert str(of(hidden)) != str(of(square))
    for of in (
        mean_interval,
        coefficient_of_variation,
        bootstrap_windows,
        lambda given: churn_and_error(square / 10, given / 10),
        lambda given: hypothesis_tests.holm(given / 100),
        uncertainty.mean_without_each,
        lambda given: uncertainty.jackknife_left_out(1.0, given),
    ):
        assert str(of(values)) == str(of(holes))
        assert str(of(values)) != str(of(row + 1))


def test_an_estimate_writes_itself():
    pd = Estimate(-0.412, -0.434, 0.0, 10)
    assert f"{pd:.3f}" == "-0.412 (-0.434 to 0.000)"
    assert f"{pd.scaled(100):+.1f %}" == "-41.2 % (-43.4 to +0.0)"
    assert f"{Estimate(-1e-9, -0.1, -1e-9, 3):+z.1f}" == "+0.0 (-0.1 to -0.0)", "ends keep their sign"
    none = Estimate(0.5, math.nan, math.nan, 2)
    assert (f"{none:.2f}", none.interval(".2f"), none.interval(".2f", "no interval")) == ("0.50", "–", "no interval")
    assert f"{Estimate(math.nan, math.nan, math.nan, 1):.1f %}" == "–"
    assert f"{Estimate(math.inf, math.nan, math.nan, 3):.1f}" == "inf"
    again = Estimate.in_row(pd.columns("x") | {"n": 10}, "x")
    assert (again.value, again.low, again.high, again.n) == (pd.value, pd.low, pd.high, pd.n)


@pytest.mark.parametrize("module", [cells, equal_loss, hypothesis_tests, prediction_difference, uncertainty])
def test_every_public_function_has_an_example_and_it_is_true(module: ModuleType):
    failed, run = doctest.testmod(module)
    assert not failed
    own = [value for value in vars(module).values() if getattr(value, "__module__", "") == module.__name__]
    public = [function for function in own if inspect.isfunction(function) and not function.__name__.startswith("_")]
    assert public
    assert run >= len(public)
    assert not [function.__name__ for function in public if ">>>" not in (function.__doc__ or "")]


def test_independent_arms_leave_out_one_model_of_one_arm_at_a_time():
    first, second = random_matrix(5, 1), random_matrix(8, 2, 1.3)
    found = contrast(first, second, times=1.1, paired=False)
    errors = []
    for matrix, factor in ((first, 1.0), (second, 1.1)):
        n = len(matrix)
        left_out = factor * np.array([without(matrix, k) for k in range(n)])
        errors.append(((n - 1) / n * ((left_out - left_out.mean()) ** 2).sum(), n - 1))
    variance = sum(square for square, _ in errors)
    degrees = variance**2 / sum(square**2 / df for square, df in errors)
    assert (found.error, found.degrees, found.n) == (pytest.approx(math.sqrt(variance)), pytest.approx(degrees), 5)
    assert found.high - found.value == pytest.approx(scipy.stats.t.ppf(0.975, degrees) * found.error)
    p = 2 * scipy.stats.t.sf(abs(found.value) / found.error, degrees)
    assert hypothesis_tests.p_value(found) == pytest.approx(p)
    with pytest.raises(ValueError, match="seed by seed"):
        contrast(first, second)
    assert not contrast(first[:2, :2], second, paired=False).has_interval
    assert math.isnan(contrast(first[:1, :1], second, paired=False).value)
    alone = uncertainty.independent_left_out(0.5, [np.array([math.nan]), np.array([0.4, 0.5, 0.6])])
    assert alone.interval(".3f") == uncertainty.jackknife_left_out(0.5, np.array([0.4, 0.5, 0.6])).interval(".3f")
