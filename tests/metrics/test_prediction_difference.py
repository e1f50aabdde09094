"""Metrics: hand-worked values, identities and ranges, refusals."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from numpy.typing import NDArray
from scipy.special import rel_entr  # pyright: ignore[reportAttributeAccessIssue]

from repro_lib.metrics import all_pairs, prediction_difference as metrics

Array = NDArray[np.float64]

# Two tokens, two characters. First token: (.5, .5) against (.25, .75); second token: both sure of the first character.
P = np.array([[0.5, 0.5], [1.0, 0.0]])
Q = np.array([[0.25, 0.75], [1.0, 0.0]])
LABELS = np.array([0, 0])
# Two models that are sure of different things.
LEFT, RIGHT = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])

OVER_VOCABULARY = {name: metric for name, metric in metrics.PAIR_METRICS.items() if not metric.at_label}
UPPER_END = {name: metric.largest for name, metric in OVER_VOCABULARY.items()}
AT_LABEL = {name: metric for name, metric in metrics.PAIR_METRICS.items() if metric.at_label}


@st.composite
def predictions(draw: st.DrawFn, models: int = 2) -> tuple[list[Array], NDArray[np.int64]]:
    """Probabilities (tokens, V) of some models on the same tokens, zeros and sure answers included, with labels."""
    tokens, characters = draw(st.integers(1, 5)), draw(st.integers(2, 6))
    weight = st.one_of(st.just(0.0), st.floats(1e-6, 1.0))
    stack = []
    for _ in range(models):
        raw = np.array(draw(st.lists(weight, min_size=tokens * characters, max_size=tokens * characters)))
        raw = raw.reshape(tokens, characters)
        raw[raw.sum(axis=1) == 0, 0] = 1.0
        stack.append(raw / raw.sum(axis=1, keepdims=True))
    labels = draw(st.lists(st.integers(0, characters - 1), min_size=tokens, max_size=tokens))
    return stack, np.array(labels)


def test_hand_worked_values() -> None:
    assert metrics.total_variation(P, Q) == pytest.approx((0.25 + 0.0) / 2)
    # (2 * .25 / .75 + 2 * .25 / 1.25 + 0 + 0) / 4
    assert metrics.relative_pd(P, Q) == pytest.approx((2 / 3 + 2 / 5) / 4)
    assert metrics.churn(P, Q) == 0.5
    assert metrics.true_label_pd(P, Q, LABELS) == pytest.approx((2 / 3 + 0) / 2)
    assert metrics.log_prob_pd(P, Q, LABELS) == pytest.approx(math.log(2) / 2)
    # m = (3/4, 1/4): (ln 4/3) / 2 + (1/2 ln 2/3 + 1/2 ln 2) / 2
    expected = (math.log(4 / 3) + (math.log(2 / 3) + math.log(2)) / 2) / 2
    assert metrics.js_divergence(np.array([[1.0, 0.0]]), np.array([[0.5, 0.5]])) == pytest.approx(expected)
    # First token: ((1/4) ln 2 + (-1/4) ln (2/3)) / 2.
    assert metrics.kl_divergence(P, Q) == pytest.approx(math.log(3) / 8 / 2)
    assert metrics.relative_pd(P, Q) == pytest.approx(metrics.relative_differences(P, Q).mean())
    assert metrics.pair_metrics(P, Q, LABELS)["true_label_pd"] == metrics.true_label_pd(P, Q, LABELS)

    # A difference of next to nothing is relative too.
    least = np.finfo(float).tiny
    assert metrics.relative_differences([0.0, least, least], [0.0, 0.0, 3 * least]).tolist() == [0.0, 2.0, 1.0]
    # Models that are sure of different things reach the upper end of every range.
    assert {name: metric(LEFT, RIGHT) for name, metric in OVER_VOCABULARY.items()} == pytest.approx(UPPER_END)
    assert metrics.true_label_pd(LEFT, RIGHT, np.array([0])) == 2.0
    # The log-probability PD is 0 where both give 0, and infinite where one does.
    first, second = np.array([[0.0, 1.0, 0.0]]), np.array([[0.0, 0.5, 0.5]])
    by_label = [metrics.log_prob_pd(first, second, np.array([label])) for label in range(3)]
    assert by_label == [0.0, pytest.approx(math.log(2)), math.inf]


@given(predictions(), st.randoms(use_true_random=False))
def test_every_metric_is_symmetric_within_its_range_and_zero_only_without_a_difference(drawn: Any, chooser: Any) -> None:
    (p, q), labels = drawn
    for name, metric in OVER_VOCABULARY.items():
        value = metric(p, q)
        assert value == pytest.approx(metric(q, p), abs=1e-12), name
        assert -1e-12 <= value <= UPPER_END[name] + 1e-12, name
        assert metric(p, p) == 0.0, name
    for name, metric in AT_LABEL.items():
        value = metric(p, q, labels)
        assert value == metric(q, p, labels), name
        assert value >= 0, name
        assert metric(p, p, labels) == 0.0, name
    assert metrics.true_label_pd(p, q, labels) <= 2.0
    if np.abs(p - q).max() > 1e-6:
        assert metrics.relative_pd(p, q) > 0
        assert metrics.total_variation(p, q) > 0
        assert metrics.js_divergence(p, q) > 0
    # Of two models the deviation from the mean is half the relative PD.
    assert metrics.mean_deviation_pd([p, q]) == pytest.approx(metrics.relative_pd(p, q) / 2, abs=1e-12)
    # Renaming the characters changes no metric.
    order = list(range(p.shape[1]))
    chooser.shuffle(order)
    new_labels = np.array([order.index(label) for label in labels])
    for name in ("relative_pd", "total_variation", "js_divergence"):
        metric = OVER_VOCABULARY[name]
        assert metric(p[:, order], q[:, order]) == pytest.approx(metric(p, q), abs=1e-12), name
    assert metrics.true_label_pd(p[:, order], q[:, order], new_labels) == metrics.true_label_pd(p, q, labels)


@given(predictions(models=3))
def test_total_variation_obeys_the_triangle_inequality_and_pinskers_bound(drawn: Any) -> None:
    (p, q, r), _ = drawn
    tv = metrics.total_variation
    assert tv(p, r) <= tv(p, q) + tv(q, r) + 1e-12
    # Per token: JS <= ln 2 * TV (Lin 1991), and TV^2 <= 2 JS.
    for a, b in zip(p, q, strict=True):
        distance, divergence = tv(a[None], b[None]), metrics.js_divergence(a[None], b[None])
        assert divergence <= math.log(2) * distance + 1e-12
        assert distance**2 <= 2 * divergence + 1e-12
        # JS is half of the mean KL at most (Lin 1991), which has scipy's value.
        kl = metrics.kl_divergence(a[None], b[None])
        assert 2 * divergence <= kl + 1e-12
        assert kl == pytest.approx((rel_entr(a, b).sum() + rel_entr(b, a).sum()) / 2, abs=1e-14)


@pytest.mark.parametrize("n", [2, 3, 10])
def test_the_deviation_from_the_mean_grows_with_the_number_of_trials_where_the_pairwise_form_does_not(n: int) -> None:
    # Every model is sure of a character of its own: pairwise 2 on the two characters concerned, 0 on the others.
    stack = np.eye(n)[:, None, :]
    assert metrics.mean_deviation_pd(stack) == pytest.approx(2 * (n - 1) / n)
    for p, q in itertools.combinations(stack, 2):
        assert metrics.relative_pd(p, q) == pytest.approx(2 * 2 / n)
        assert metrics.total_variation(p, q) == 1.0


def test_numpy_torch_and_single_precision_give_the_same_float() -> None:
    for metric in OVER_VOCABULARY.values():
        value = metric(P, Q)
        assert isinstance(value, float)
        assert metric(torch.tensor(P, requires_grad=True), torch.tensor(Q)) == value
        assert metric(P.astype(np.float32), torch.tensor(Q, dtype=torch.float32)) == value
    for metric in AT_LABEL.values():
        assert metric(torch.tensor(P), torch.tensor(Q), torch.tensor(LABELS)) == metric(P, Q, LABELS)
    assert metrics.mean_deviation_pd(torch.tensor(np.stack([P, Q]))) == metrics.mean_deviation_pd([P, Q])


@given(predictions(models=4), st.integers(1, 3))
def test_all_pairs_at_once_give_the_numbers_of_each_metric_alone(drawn: Any, blocks: int) -> None:
    stack, labels = drawn
    tokens = len(labels)
    stack, labels = [np.tile(p, (blocks, 1)) for p in stack], np.tile(labels, blocks)
    stack[3] = stack[2].copy()
    found = all_pairs.pair_metrics_by_block(stack, labels, tokens)
    assert list(found) == list(metrics.metric_names())
    for pair, (i, j) in enumerate(itertools.combinations(range(4), 2)):
        alone = metrics.pair_metrics(stack[i], stack[j], labels)
        for name, values in found.items():
            assert values.shape == (6, blocks)
            assert values[pair].mean() == pytest.approx(alone[name], rel=1e-9, abs=1e-14)
    # Equal models differ in nothing at all, not even by rounding, zeros and sure answers included.
    assert all((values[5] == 0).all() for values in found.values())
    # However many threads share the blocks.
    shared = all_pairs.pair_metrics_by_block(stack, labels, tokens, threads=3)
    assert all(np.array_equal(shared[name], values) for name, values in found.items())


@given(predictions(models=3))
def test_what_is_counted_over_all_trials_and_by_character_agrees_with_brute_force(drawn: Any) -> None:
    stack, labels = drawn
    width = stack[0].shape[1]
    counted = all_pairs.count_by_character(stack, np.full(width, 1 / width))
    for i, j in itertools.combinations(range(3), 2):
        p, q = stack[i], stack[j]
        assert counted.relative_pd[:, i, j].mean() == pytest.approx(metrics.relative_pd(p, q), rel=1e-12, abs=1e-15)
        assert counted.total_variation[:, j, i].sum() == pytest.approx(metrics.total_variation(p, q), rel=1e-12, abs=1e-15)
        assert counted.relative_pd[0, i, j] == pytest.approx(metrics.relative_differences(p, q)[:, 0].mean(), abs=1e-15)
        few = np.where((p + q) / 2 < 1e-4, metrics.relative_differences(p, q), 0.0)
        assert counted.improbable[i, j] == pytest.approx(few.mean(), abs=1e-15)
    same = [len({int(p[token].argmax()) for p in stack}) == 1 for token in range(len(labels))]
    assert all_pairs.unanimity(iter(stack)) == np.mean(same)
    q = np.full(width, 1 / width)
    expected = [metrics.kl_divergence(p, np.broadcast_to(q, p.shape)) for p in stack]
    assert all_pairs.kl_to_predictor(stack, q) == pytest.approx(expected, rel=1e-9, abs=1e-14)


def test_what_cannot_be_counted_is_refused() -> None:
    with pytest.raises(ValueError, match=r"same tokens, got \[2, 1\] tokens"):
        all_pairs.unanimity([P, Q[:1]])
    with pytest.raises(ValueError, match="NaN or infinity"):
        all_pairs.unanimity([P, np.full_like(Q, math.nan)])
    with pytest.raises(ValueError, match="infinitely far"):
        all_pairs.kl_to_predictor([P], [1.0, 0.0])
    with pytest.raises(ValueError, match="same tokens and vocabulary"):
        all_pairs.kl_to_predictor([P], [1.0])
    with pytest.raises(ValueError, match="same tokens and vocabulary"):
        all_pairs.count_by_character([P, Q[:, :1] / Q[:, :1]], [0.5, 0.5])


def test_all_pairs_at_once_keep_blocks_apart() -> None:
    found = all_pairs.pair_metrics_by_block([P, Q], LABELS, 1)
    assert found["total_variation"].tolist() == [[0.25, 0.0]]
    assert found["churn"].tolist() == [[1.0, 0.0]]
    assert all_pairs.pair_metrics_by_block([LEFT, RIGHT], [0], 1)["log_prob_pd"].tolist() == [[math.inf]]
    assert all_pairs.pair_metrics_by_block([P], LABELS, 2)["churn"].shape == (0, 1)
    with pytest.raises(ValueError, match="2 tokens are no multiple of a block of 3"):
        all_pairs.pair_metrics_by_block([P, Q], LABELS, 3)
    with pytest.raises(ValueError, match="same tokens and vocabulary"):
        all_pairs.pair_metrics_by_block([P, Q[:1]], LABELS, 1)


def test_metrics_do_not_change_their_inputs() -> None:
    p, q, logits = P.copy(), Q.copy(), np.array([[1.0, 2.0]])
    metrics.pair_metrics(p, q, LABELS)
    metrics.mean_deviation_pd([p, q])
    metrics.probabilities_from_logits(logits)
    metrics.cross_entropy(logits, np.array([0]))
    assert [p.tolist(), q.tolist(), logits.tolist()] == [P.tolist(), Q.tolist(), [[1.0, 2.0]]]


def test_what_no_metric_can_be_made_of_is_refused() -> None:
    # And at every door, see below, what is no probability.
    with pytest.raises(ValueError, match=r"same tokens and vocabulary; shapes are \(2, 2\) and \(2, 3\)"):
        metrics.churn(P, np.full((2, 3), 1 / 3))
    for metric in OVER_VOCABULARY.values():
        with pytest.raises(ValueError, match=r"shape \(tokens, V\)"):
            metric(P[0], Q[0])
    with pytest.raises(ValueError, match="one label per token is needed: 2 tokens"):
        metrics.true_label_pd(P, Q, np.array([0]))
    with pytest.raises(ValueError, match="at least 2 trials, got 1"):
        metrics.mean_deviation_pd([P])


def test_probabilities_come_from_logits_in_double_precision_and_survive_large_logits() -> None:
    logits = torch.tensor([[1000.0, 999.0, -1000.0], [0.0, 0.0, 0.0], [-3.0, 1e-3, 20.0]])
    p = metrics.probabilities_from_logits(logits)
    assert p.dtype == np.float64
    np.testing.assert_allclose(p, torch.softmax(logits.double(), -1).numpy(), rtol=1e-14)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-15)
    # In float32, e^-23 beside 1 would be lost from the sum.
    assert p[2].max() < 1.0


def test_cross_entropy_and_error_rate_agree_with_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, 7, generator=generator) * 30
    labels = torch.randint(7, (50,), generator=generator)
    expected = torch.nn.functional.cross_entropy(logits.double(), labels).item()
    assert metrics.cross_entropy(logits, labels) == pytest.approx(expected, rel=1e-13)
    assert metrics.error_rate(logits, labels) == (logits.argmax(-1) != labels).double().mean().item()
    assert metrics.error_rate(np.eye(3), np.array([0, 1, 0])) == pytest.approx(1 / 3)


EVERY_DOOR = {
    **OVER_VOCABULARY,
    **{name: lambda p, q, metric=metric: metric(p, q, LABELS) for name, metric in AT_LABEL.items()},
    "pair_metrics": lambda p, q: metrics.pair_metrics(p, q, LABELS),
    "pair_metrics_by_block": lambda p, q: all_pairs.pair_metrics_by_block([p, q], LABELS, 1),
    "count_by_character": lambda p, q: all_pairs.count_by_character([p, q], [0.5, 0.5]),
    "mean_deviation_pd": lambda p, q: metrics.mean_deviation_pd([p, q]),
    "relative_differences": metrics.relative_differences,
    "total_variation_by_token": metrics.total_variation_by_token,
}


@pytest.mark.parametrize("door", EVERY_DOOR)
def test_what_is_no_probability_is_refused_at_every_door(door: str) -> None:
    measure, logits, log_p = EVERY_DOOR[door], np.log(P + 1e-9) + 3, np.log(P + 1e-9)
    for first, second in ((P, logits), (logits, P), (logits, logits), (P, log_p), (P, -P)):
        with pytest.raises(ValueError, match="these are not probabilities: they lie between"):
            measure(first, second)
    # A mask says that a number is missing, and is no ornament.
    for missing in (np.where(Q == 0.25, math.nan, Q), np.ma.array(Q, mask=Q == 0.25)):
        with pytest.raises(ValueError, match=r"NaN or infinity"):
            measure(P, missing)
    with pytest.raises(ValueError, match="same tokens and vocabulary"):
        measure(P, Q[:1])
    if door != "relative_differences":  # it takes numbers one by one
        with pytest.raises(ValueError, match=r"NaN or infinity"):
            measure(P, np.full_like(Q, math.inf))
        with pytest.raises(ValueError, match=r"these are not probabilities: .* sums between 0.9 and 0.9;"):
            measure(P * 0.9, Q)
    for rounded in (np.float32, np.float16):
        thirds = np.full((2, 3), 1 / 3).astype(rounded)
        measure(thirds, thirds)


@pytest.mark.parametrize("label", [-1, 2, 0.0])
def test_a_label_that_is_no_character_of_the_vocabulary_is_refused(label: float) -> None:
    labels = [0, label]
    with pytest.raises(ValueError, match="labels are whole numbers from 0 to 1"):
        metrics.true_label_pd(P, Q, labels)
    for door in (metrics.cross_entropy, metrics.error_rate):
        with pytest.raises(ValueError, match="labels are whole numbers from 0 to 1"):
            door(P, labels)
    with pytest.raises(ValueError, match="labels are whole numbers from 0 to 1"):
        all_pairs.pair_metrics_by_block([P, Q], labels, 1)


def test_probabilities_next_to_nothing_count_alike_alone_and_in_blocks() -> None:
    rng = np.random.default_rng(0)
    p, q = (np.c_[np.ones(64), rng.random((64, 3)) * 10.0 ** rng.integers(-324, -300, (64, 3))] for _ in range(2))
    alone, found = metrics.pair_metrics(p, q, np.arange(64) % 4), all_pairs.pair_metrics_by_block([p, q], np.arange(64) % 4, 16)
    assert {name: values.mean() for name, values in found.items()} == pytest.approx(alone, rel=1e-9)
