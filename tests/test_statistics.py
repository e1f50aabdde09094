"""Statistics against values worked out by hand and against scipy. No training; under a second."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from repro_lib.statistics import (
    coefficient_of_variation,
    cv_in_words,
    jackknife_pairwise,
    mean_interval,
    t_quantile,
)

EARLIER_CHARLM = [0.9051, 1.0739, 1.0938, 0.5935, 1.0952]


def matrix_of(n: int, pairs: dict[tuple[int, int], float]) -> np.ndarray:
    matrix = np.zeros((n, n))
    for (i, j), value in pairs.items():
        matrix[i, j] = matrix[j, i] = value
    return matrix


def test_three_trials_by_hand():
    # U = (.4 + .5 + .6) / 3 = .5. Without trial 1 the pair .6 is left, without 2 .5, without 3 .4; their mean is .5, so
    # the variance is 2/3 (.01 + 0 + .01) = .02/1.5 = .0133..., its root .11547, and t_2 = 4.302653.
    estimate = jackknife_pairwise(matrix_of(3, {(0, 1): 0.4, (0, 2): 0.5, (1, 2): 0.6}))
    half = 4.302652729911275 * math.sqrt(0.04 / 3)
    assert estimate.value == pytest.approx(0.5)
    assert estimate.low == pytest.approx(0.5 - half)
    assert estimate.high == pytest.approx(0.5 + half)
    assert estimate.n == 3
    assert estimate.has_interval


def test_four_trials_by_hand():
    # One trial is the odd one out: 1 to it, .8 between the others. U = (3 * 1 + 3 * .8) / 6 = .9. Without it .8, without
    # any other (2 * 1 + .8) / 3 = .9333...; the mean is .9, variance 3/4 (.01 + 3 * .00111...) = .01, t_3 = 3.182446.
    matrix = matrix_of(4, {(0, 1): 1, (0, 2): 1, (0, 3): 1, (1, 2): 0.8, (1, 3): 0.8, (2, 3): 0.8})
    estimate = jackknife_pairwise(matrix)
    assert estimate.value == pytest.approx(0.9)
    assert estimate.high - estimate.value == pytest.approx(3.182446305284263 * 0.1)
    assert estimate.value - estimate.low == pytest.approx(3.182446305284263 * 0.1)


def test_jackknife_agrees_with_leaving_out_rows_and_columns():
    points = np.random.default_rng(5).normal(size=(7, 3))
    matrix = np.linalg.norm(points[:, None] - points[None], axis=-1)
    left_out = []
    for k in range(7):
        rest = np.delete(np.delete(matrix, k, 0), k, 1)
        left_out.append(rest[np.triu_indices(6, 1)].mean())
    error = math.sqrt(6 / 7 * sum((u - np.mean(left_out)) ** 2 for u in left_out))
    estimate = jackknife_pairwise(matrix)
    low, high = scipy.stats.t.interval(0.95, df=6, loc=matrix[np.triu_indices(7, 1)].mean(), scale=error)
    assert (estimate.low, estimate.high) == (pytest.approx(low), pytest.approx(high))


def test_diagonal_does_not_count():
    matrix = matrix_of(3, {(0, 1): 0.4, (0, 2): 0.5, (1, 2): 0.6})
    assert jackknife_pairwise(matrix + np.diag([9.0, 9.0, 9.0])) == jackknife_pairwise(matrix)


def test_interval_stays_within_the_range_of_the_metric():
    estimate = jackknife_pairwise(matrix_of(3, {(0, 1): 0.1, (0, 2): 0.9, (1, 2): 0.9}), upper=1.0)
    assert (estimate.low, estimate.high) == (0.0, 1.0)


def test_an_interval_holds_its_value_even_where_rounding_puts_it_outside_the_range():
    just_above = np.nextafter(1.0, 2.0)
    estimate = jackknife_pairwise(np.full((3, 3), just_above), upper=1.0)
    assert estimate.low <= estimate.value <= estimate.high


@pytest.mark.parametrize("n", [0, 1, 2])
def test_below_three_trials_there_is_no_interval(n: int):
    # Warnings are errors in this project, so a quiet NaN is part of what is tested.
    estimate = jackknife_pairwise(np.full((n, n), 0.25))
    assert not estimate.has_interval
    assert math.isnan(estimate.high)
    assert estimate.n == n
    assert estimate.value == 0.25 if n == 2 else math.isnan(estimate.value)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_below_three_trials_a_mean_has_no_interval(n: int):
    estimate = mean_interval([4.0] * n)
    assert not estimate.has_interval
    assert estimate.value == 4.0 if n else math.isnan(estimate.value)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_value_that_is_not_finite_gives_no_interval(bad: float):
    estimate = jackknife_pairwise(matrix_of(3, {(0, 1): bad, (0, 2): 0.5, (1, 2): 0.6}))
    assert not math.isfinite(estimate.value)
    assert not estimate.has_interval
    assert not mean_interval([bad, 1.0, 2.0]).has_interval


def test_identical_trials_have_an_interval_of_width_zero():
    estimate = jackknife_pairwise(np.zeros((3, 3)))
    assert (estimate.value, estimate.low, estimate.high) == (0, 0, 0)


@pytest.mark.parametrize("bad", [np.zeros((2, 3)), np.zeros(3), [[0, 1], [2, 0]]])
def test_what_is_no_pair_matrix_is_refused(bad: object):
    with pytest.raises(ValueError, match="matrix"):
        jackknife_pairwise(bad)  # pyright: ignore[reportArgumentType]


def test_mean_interval_by_hand_and_by_scipy():
    # 1, 2, 6: mean 3, sd sqrt(7), standard error sqrt(7/3).
    estimate = mean_interval([1.0, 2.0, 6.0])
    assert estimate.value == 3.0
    assert estimate.high == pytest.approx(3 + 4.302652729911275 * math.sqrt(7 / 3))
    values = np.array([2.2, 2.4, 2.3, 2.9, 2.1])
    low, high = scipy.stats.t.interval(0.95, df=4, loc=values.mean(), scale=scipy.stats.sem(values))
    estimate = mean_interval(values)
    assert (estimate.low, estimate.high) == (pytest.approx(low), pytest.approx(high))


def test_mean_interval_is_cut_to_its_range():
    estimate = mean_interval([0.0, 0.0, 100.0], lower=0, upper=100)
    assert (estimate.low, estimate.high) == (0, 100)


def test_t_quantile():
    assert t_quantile(2) == pytest.approx(4.302652729911275)
    assert t_quantile(9) == pytest.approx(scipy.stats.t.ppf(0.975, 9))


def test_cv_of_the_earlier_study():
    assert round(coefficient_of_variation(EARLIER_CHARLM), 2) == 20.26
    assert cv_in_words(coefficient_of_variation(EARLIER_CHARLM)) == "HIGHLY SENSITIVE"


def test_cv_by_hand():
    # 1 and 3: mean 2, population sd 1. The sample sd would give 70.7.
    assert coefficient_of_variation([1.0, 3.0]) == 50.0


def test_cv_leaves_missing_values_out():
    assert coefficient_of_variation([1.0, math.nan, 3.0]) == 50.0


def test_cv_of_equal_values_is_exactly_zero():
    assert coefficient_of_variation([0.1 + 0.2] * 5) == 0.0


@pytest.mark.parametrize("values", [[], [1.0], [math.nan, 1.0], [0.0, 0.0], [math.inf, 1.0]])
def test_cv_that_means_nothing_is_nan(values: list[float]):
    assert math.isnan(coefficient_of_variation(values))


@pytest.mark.parametrize(
    ("cv", "word"),
    [
        (0.0, "INVARIANT"),
        (4.99, "HARDLY SENSITIVE"),
        (5.0, "SLIGHTLY SENSITIVE"),
        (10.0, "SENSITIVE"),
        (19.99, "SENSITIVE"),
        (20.0, "HIGHLY SENSITIVE"),
        (math.nan, "UNDEFINED"),
    ],
)
def test_words_for_cv(cv: float, word: str):
    assert cv_in_words(cv) == word
