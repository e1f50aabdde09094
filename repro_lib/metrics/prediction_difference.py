"""Prediction-difference metrics of two models: p and q are probabilities (tokens, V) of one text, labels token ids (tokens,).

NumPy arrays or torch tensors; computed in float64. ValueError for other or different shapes, for what is no probability (as
logits are none), for labels outside the vocabulary, and for values that are not finite or masked."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from repro_lib.metrics.given import Float64, at_labels, labels_given, models_given, numpy_of, probabilities_given


def relative_differences(p: Any, q: Any) -> Float64:
    """2|p - q| / (p + q) element by element, with 0/0 = 0; ``p`` and ``q`` of any one shape, not negative. 0 to 2.

    >>> relative_differences([0.5, 0.5, 0.0], [0.25, 0.0, 0.0]).round(3).tolist()
    [0.667, 2.0, 0.0]
    """
    # In the precision of the arrays: float32 is enough for a picture, and several times as fast.
    p, q = probabilities_given([p, q], sums=False)
    return 2 * _quotients(np.abs(p - q), p + q)


def log_gaps(p: Float64, q: Float64) -> Float64:
    """|log p - log q| element by element, with both 0 giving 0 and one 0 infinity.

    >>> log_gaps(np.array([1.0, 0.0, 0.0]), np.array([1.0, 0.0, 0.5])).tolist()
    [0.0, 0.0, inf]
    """
    # Both 0: the models agree, and infinity minus infinity would be no number.
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((p == 0) & (q == 0), 0.0, np.abs(np.log(p) - np.log(q)))


def total_variation_by_token(p: Any, q: Any) -> Float64:
    """Sum over the last axis, the vocabulary, of |p - q| / 2: (..., V) -> (...). 0 to 1.

    >>> total_variation_by_token([[0.5, 0.5], [1.0, 0.0]], [[0.25, 0.75], [1.0, 0.0]]).tolist()
    [0.25, 0.0]
    """
    p, q = probabilities_given([p, q])
    return np.abs(p - q).sum(axis=-1) / 2


def relative_pd(p: Any, q: Any) -> float:
    """Mean over tokens and vocabulary of 2|p - q| / (p + q), with 0/0 = 0. Range 0 to 2; the primary metric.

    The form of TFMA's SymmetricPredictionDifference and of google/ml-metrics. Every character counts the same, so that
    improbable ones dominate; read it beside ``total_variation`` and ``churn``.

    >>> round(relative_pd([[0.5, 0.5]], [[0.25, 0.75]]), 4)
    0.5333
    """
    return float(np.mean(relative_differences(*models_given([p, q]))))


def total_variation(p: Any, q: Any) -> float:
    """Mean over tokens of sum over the vocabulary of |p - q| / 2. Range 0 to 1.

    >>> total_variation([[0.5, 0.5]], [[0.25, 0.75]])
    0.25
    """
    return float(total_variation_by_token(*models_given([p, q])).mean())


def churn(p: Any, q: Any) -> float:
    """Share of tokens whose most probable character differs (Milani Fard et al. 2016). Range 0 to 1.

    >>> churn([[0.9, 0.1], [0.6, 0.4]], [[0.8, 0.2], [0.4, 0.6]])
    0.5
    """
    p, q = models_given([p, q])
    return float(np.mean(p.argmax(axis=1) != q.argmax(axis=1)))


def true_label_pd(p: Any, q: Any, labels: Any) -> float:
    """Mean over tokens of 2|p_y - q_y| / (p_y + q_y) at the true label y. Range 0 to 2.

    >>> true_label_pd([[0.5, 0.5]], [[0.25, 0.75]], [1])
    0.4
    """
    return float(np.mean(relative_differences(*(at_labels(model, labels) for model in models_given([p, q])))))


def log_prob_pd(p: Any, q: Any, labels: Any) -> float:
    """Mean over tokens of |log p_y - log q_y| at the true label y, in nats. Both 0 is 0; one 0 alone makes it infinite.

    >>> round(log_prob_pd([[0.5, 0.5]], [[0.25, 0.75]], [0]), 4)  # ln 2
    0.6931
    """
    return float(np.mean(log_gaps(*(at_labels(model, labels) for model in models_given([p, q])))))


def js_divergence(p: Any, q: Any) -> float:
    """Mean over tokens of the Jensen-Shannon divergence (Lin 1991), in nats. Range 0 to ln 2.

    >>> round(js_divergence([[1.0, 0.0]], [[0.5, 0.5]]), 4)
    0.2158
    """
    p, q = models_given([p, q])
    middle = (p + q) / 2
    # 0 log 0 = 0: where p is 0 the logarithm is that of 1.
    terms = [(a * np.log(np.where(a > 0, a, 1.0) / np.where(a > 0, middle, 1.0))).sum(axis=1) for a in (p, q)]
    return float(((terms[0] + terms[1]) / 2).mean())


def kl_divergence(p: Any, q: Any) -> float:
    """Mean over tokens of (KL(p, q) + KL(q, p)) / 2, the Kullback-Leibler divergence both ways (1951), in nats. 0 to infinity.

    As ``log_prob_pd``: a character that both give probability 0 adds nothing, one that a single model does makes it infinite.

    >>> round(kl_divergence([[0.5, 0.5]], [[0.25, 0.75]]), 4)  # ln 3 / 8
    0.1373
    """
    p, q = models_given([p, q])
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = (p - q) * (np.log(p) - np.log(q)) / 2
    return float(np.where(p == q, 0.0, terms).sum(axis=1).mean())


def mean_deviation_pd(probabilities: Any) -> float:
    """Mean over trials, tokens and vocabulary of |p_m - pbar| / pbar, pbar the mean over trials. 0 to 2 (N - 1) / N.

    ``probabilities``: (N, tokens, V), N >= 2. The form of the reproducibility papers (Shamir & Lin 2022, arXiv 2202.06499, up
    to their sum over labels). It grows with N, so never compare it between different N; at N = 2 it is ``relative_pd`` / 2.

    >>> round(mean_deviation_pd([[[0.5, 0.5]], [[0.25, 0.75]]]), 4)
    0.2667
    """
    stack = models_given(probabilities)
    if len(stack) < 2:
        raise ValueError(f"a deviation from the mean needs at least 2 trials, got {len(stack)}")
    mean = np.mean(stack, axis=0)
    return float(np.mean([np.mean(_quotients(np.abs(p - mean), mean.copy())) for p in stack]))


class Metric(NamedTuple):
    """A pairwise metric: its function, largest value, title of an axis, and words within a sentence.

    The function takes p and q (tokens, V) of a text, or of one evaluation window, in float64 and checked, and the labels where
    ``at_label``."""

    function: Callable[..., float]
    largest: float
    title: str
    words: str
    at_label: bool = False

    def __call__(self, p: Any, q: Any, labels: Any = None) -> float:
        p, q = models_given([p, q])
        return float(self.function(p, q, labels_given(labels, p)) if self.at_label else self.function(p, q))


# A new metric is one line here: all that knows of metrics looks here when it is asked. The primary one stands first.
PAIR_METRICS = {
    "relative_pd": Metric(relative_pd, 2.0, "Relative PD (0 to 2)", "relative PD"),
    "total_variation": Metric(total_variation, 1.0, "Total variation (0 to 1)", "total variation"),
    "churn": Metric(churn, 1.0, "Churn: top-1 differs (0 to 1)", "churn"),
    "js_divergence": Metric(js_divergence, math.log(2), "Jensen-Shannon, nats (0 to 0.69)", "Jensen-Shannon divergence"),
    "kl_divergence": Metric(kl_divergence, math.inf, "Kullback-Leibler, nats", "Kullback-Leibler divergence"),
    "true_label_pd": Metric(true_label_pd, 2.0, "True-label PD (0 to 2)", "true-label PD", at_label=True),
    "log_prob_pd": Metric(log_prob_pd, math.inf, "Log-probability PD, nats", "log-probability PD", at_label=True),
}


def metric_names() -> tuple[str, ...]:
    """All pairwise metrics, the primary one first.

    >>> metric_names()[:3]
    ('relative_pd', 'total_variation', 'churn')
    """
    return tuple(PAIR_METRICS)


def pair_metrics(p: Any, q: Any, labels: Any) -> dict[str, float]:
    """Every pairwise metric by name for one pair of models.

    >>> pair_metrics([[1.0, 0.0]], [[0.0, 1.0]], [0])["relative_pd"]
    2.0
    """
    return {name: metric(p, q, labels) for name, metric in PAIR_METRICS.items()}


def _quotients(difference: Float64, total: Float64) -> Float64:
    # Overwrites both. 0/0 is 0: twice the smallest number there is keeps 0 out of the quotient, so that half of it is not 0 and
    # every sum of probabilities that is not 0 stays as it is.
    np.maximum(total, 2 * np.finfo(total.dtype).smallest_subnormal, out=total)
    return np.divide(difference, total, out=difference)


def probabilities_from_logits(logits: Any) -> Float64:
    """Softmax over the last axis in float64; logits (..., V) -> probabilities (..., V).

    >>> probabilities_from_logits([[0.0, 0.0]]).tolist()
    [[0.5, 0.5]]
    """
    logits = numpy_of(logits).astype(np.float64)
    # No logit is above 0 then, so that none overflows.
    logits -= logits.max(axis=-1, keepdims=True)
    np.exp(logits, out=logits)
    return np.divide(logits, logits.sum(axis=-1, keepdims=True), out=logits)


def cross_entropy(logits: Any, labels: Any) -> float:
    """Mean negative log-likelihood of the labels in nats, from logits (tokens, V), computed in float64.

    >>> round(cross_entropy([[0.0, 0.0]], [1]), 4)  # ln 2
    0.6931
    """
    logits = numpy_of(logits).astype(np.float64)
    logits -= logits.max(axis=-1, keepdims=True)
    return float(np.mean(np.log(np.exp(logits).sum(axis=-1)) - at_labels(logits, labels)))


def error_rate(scores: Any, labels: Any) -> float:
    """Share of tokens whose highest score (logit or probability, shape (tokens, V)) is not the label. 0 to 1.

    >>> error_rate([[0.9, 0.1], [0.6, 0.4]], [0, 1])
    0.5
    """
    scores = numpy_of(scores)
    return float(np.mean(scores.argmax(axis=-1) != labels_given(labels, scores)))
