"""Prediction-difference metrics between two models, as pure functions of arrays.

Shapes: p and q are probabilities (tokens, V), labels are token ids (tokens,). NumPy arrays and torch tensors
are both accepted; everything is computed in float64 and returned as a Python float. Arrays of other shapes, of
different shapes, or with values that are not finite raise ValueError. The two arrays must come from the same inputs:
callers that hold digests of the inputs compare them first (``repro_lib.store.predictions``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
# Keeps 0 out of logarithms and quotients: where p + q is 0, p - q is too, and 0 divided by this is 0. It is 1e-323, twice the
# smallest number there is, so that half of it is not 0 and every sum of probabilities that is not 0 stays as it is.
_SMALLEST = 2 * np.finfo(np.float64).smallest_subnormal


def relative_differences(p: Any, q: Any) -> Float64:
    """2|p - q| / (p + q) element by element, with 0/0 = 0; ``p`` and ``q`` of any one shape, not negative. 0 to 2.

    The one place of this formula: ``relative_pd`` is its mean, and slices of the text are means over parts of it. In the
    precision of the arrays: float32 is enough for a picture, and several times as fast.

    >>> relative_differences([0.5, 0.5, 0.0], [0.25, 0.0, 0.0]).round(3).tolist()
    [0.667, 2.0, 0.0]
    """
    p, q = _floats(p), _floats(q)
    return 2 * _quotients(np.abs(p - q), p + q)


def total_variation_by_token(p: Any, q: Any) -> Float64:
    """Sum over the last axis, the vocabulary, of |p - q| / 2: (..., V) -> (...). 0 to 1.

    >>> total_variation_by_token([[0.5, 0.5], [1.0, 0.0]], [[0.25, 0.75], [1.0, 0.0]]).tolist()
    [0.25, 0.0]
    """
    return np.abs(_floats(p) - _floats(q)).sum(axis=-1) / 2


def relative_pd(p: Any, q: Any) -> float:
    """Mean over tokens and vocabulary of 2|p - q| / (p + q), with 0/0 = 0. Range 0 to 2; the primary metric.

    The symmetric form of TFMA's SymmetricPredictionDifference and of google/ml-metrics. Every character counts
    the same, so that improbable ones dominate; read it beside ``total_variation`` and ``churn``.

    >>> round(relative_pd([[0.5, 0.5]], [[0.25, 0.75]]), 4)
    0.5333
    """
    return float(np.mean(relative_differences(*_pair(p, q))))


def total_variation(p: Any, q: Any) -> float:
    """Mean over tokens of sum over the vocabulary of |p - q| / 2. Range 0 to 1.

    >>> total_variation([[0.5, 0.5]], [[0.25, 0.75]])
    0.25
    """
    return float(total_variation_by_token(*_pair(p, q)).mean())


def churn(p: Any, q: Any) -> float:
    """Share of tokens whose most probable character differs (Milani Fard et al. 2016). Range 0 to 1.

    >>> churn([[0.9, 0.1], [0.6, 0.4]], [[0.8, 0.2], [0.4, 0.6]])
    0.5
    """
    p, q = _pair(p, q)
    return float(np.mean(p.argmax(axis=1) != q.argmax(axis=1)))


def true_label_pd(p: Any, q: Any, labels: Any) -> float:
    """Mean over tokens of 2|p_y - q_y| / (p_y + q_y) at the true label y. Range 0 to 2.

    >>> true_label_pd([[0.5, 0.5]], [[0.25, 0.75]], [1])
    0.4
    """
    p, q = _pair(p, q)
    return float(np.mean(relative_differences(_at_labels(p, labels), _at_labels(q, labels))))


def log_prob_pd(p: Any, q: Any, labels: Any) -> float:
    """Mean over tokens of |log p_y - log q_y| at the true label y, in nats.

    Both 0 counts as 0 (the models agree); exactly one 0 makes the mean infinite.

    >>> round(log_prob_pd([[0.5, 0.5]], [[0.25, 0.75]], [0]), 4)  # ln 2
    0.6931
    """
    p, q = _pair(p, q)
    return float(np.mean(_log_gap(_at_labels(p, labels), _at_labels(q, labels))))


def js_divergence(p: Any, q: Any) -> float:
    """Mean over tokens of the Jensen-Shannon divergence (Lin 1991), in nats. Range 0 to ln 2.

    >>> round(js_divergence([[1.0, 0.0]], [[0.5, 0.5]]), 4)
    0.2158
    """
    p, q = _pair(p, q)
    middle = (p + q) / 2
    return float(((_entropy_terms(p, middle) + _entropy_terms(q, middle)) / 2).mean())


def mean_deviation_pd(probabilities: Any) -> float:
    """Relative deviation from the ensemble mean, mean over trials, tokens and vocabulary of |p_m - pbar| / pbar.

    ``probabilities``: shape (N, tokens, V), N >= 2. The form used in the reproducibility papers (Shamir & Lin 2022,
    arXiv 2202.06499, up to their sum over labels). It grows with N, so never compare it between different N;
    at N = 2 it is exactly ``relative_pd`` / 2. Range 0 to 2 (N - 1) / N.

    >>> round(mean_deviation_pd([[[0.5, 0.5]], [[0.25, 0.75]]]), 4)
    0.2667
    """
    stack = [_probabilities(p) for p in probabilities]
    if len(stack) < 2:
        raise ValueError(f"a deviation from the mean needs at least 2 trials, got {len(stack)}")
    mean = np.mean(stack, axis=0)
    return float(np.mean([np.mean(_quotients(np.abs(p - mean), mean.copy())) for p in stack]))


PAIR_METRICS: dict[str, Callable[[Any, Any], float]] = {
    metric.__name__: metric for metric in (relative_pd, total_variation, churn, js_divergence)
}
LABEL_METRICS: dict[str, Callable[[Any, Any, Any], float]] = {"true_label_pd": true_label_pd, "log_prob_pd": log_prob_pd}
# The largest value each metric can take: intervals are cut there, and a stored value beyond it is refused.
METRIC_LIMITS = {"relative_pd": 2.0, "total_variation": 1.0, "churn": 1.0, "js_divergence": math.log(2)}
METRIC_LIMITS |= {"true_label_pd": 2.0, "log_prob_pd": math.inf}


def metric_names() -> tuple[str, ...]:
    """All pairwise metrics, the primary one first.

    >>> metric_names()[:3]
    ('relative_pd', 'total_variation', 'churn')
    """
    return (*PAIR_METRICS, *LABEL_METRICS)


def pair_metrics(p: Any, q: Any, labels: Any) -> dict[str, float]:
    """Every pairwise metric by name for one pair of models.

    >>> pair_metrics([[1.0, 0.0]], [[0.0, 1.0]], [0])["relative_pd"]
    2.0
    """
    p, q = _pair(p, q)
    values = {name: metric(p, q) for name, metric in PAIR_METRICS.items()}
    return values | {name: metric(p, q, labels) for name, metric in LABEL_METRICS.items()}


def pair_metrics_by_block(probabilities: Sequence[Any], labels: Any, block: int, threads: int = 1) -> dict[str, Float64]:
    """Every pairwise metric of N models in each block of ``block`` tokens: (N(N-1)/2, blocks) by name.

    ``probabilities``: N arrays (tokens, V), tokens a multiple of ``block``; ``labels``: (tokens,). Pairs come in the order
    (1, 2), (1, 3) ... (2, 3) ...; the mean over blocks is the metric. The same numbers as ``pair_metrics`` to within
    rounding, many times as fast: what belongs to one model is computed once, a block stays in the processor's cache for
    all pairs, and the divergence takes one logarithm a pair, JS = (sum p log p + sum q log q) / 2 - sum m log m.
    ``threads`` share the blocks; the numbers do not depend on how many there are.

    >>> pair_metrics_by_block([[[1.0, 0.0]] * 4, [[0.0, 1.0]] * 4], [0] * 4, block=2)["churn"].tolist()
    [[1.0, 1.0]]
    """
    models = [_probabilities(p) for p in probabilities]
    if len({p.shape for p in models}) > 1:
        raise ValueError(f"all models must be scored on the same tokens and vocabulary; shapes are {[p.shape for p in models]}")
    pairs = list(combinations(range(len(models)), 2))
    tokens = len(models[0]) if models else 0
    if tokens % block:
        raise ValueError(f"{tokens} tokens are no multiple of a block of {block}")
    by_metric = {name: np.empty((len(pairs), tokens // block)) for name in PAIR_METRICS}
    blocks = [[p[start : start + block] for p in models] for start in range(0, tokens, block)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda k: _fill_block(by_metric, k, blocks[k], pairs), range(len(blocks))))
    at_labels = [_at_labels(p, labels) for p in models]
    for name, per_token in (("true_label_pd", relative_differences), ("log_prob_pd", _log_gap)):
        values = [per_token(at_labels[i], at_labels[j]).reshape(-1, block).mean(axis=1) for i, j in pairs]
        by_metric[name] = np.reshape(values, (len(pairs), tokens // block))
    return by_metric


def _fill_block(by_metric: dict[str, Float64], k: int, parts: Sequence[Float64], pairs: Sequence[tuple[int, int]]) -> None:
    """Column ``k`` of each matrix, from the (block, V) probabilities of each model there."""
    block, width = parts[0].shape
    buffers = np.empty((2, block, width))
    # Clipped as the middle of two equal models is, so that their divergence is exactly 0.
    entropies = [_sum_x_log_x(np.maximum(p, _SMALLEST / 2), buffers[0]) for p in parts]
    tops = [p.argmax(axis=1) for p in parts]
    for pair, (i, j) in enumerate(pairs):
        difference, relative, middle = _sums_of_pair(parts[i], parts[j], buffers)
        divergence = (entropies[i] + entropies[j]) / 2 - middle
        by_metric["total_variation"][pair, k] = difference / 2 / block
        by_metric["relative_pd"][pair, k] = 2 * relative / (block * width)
        by_metric["js_divergence"][pair, k] = max(divergence, 0.0) / block  # rounding may leave -1e-16
        by_metric["churn"][pair, k] = np.count_nonzero(tops[i] != tops[j]) / block


def _sums_of_pair(p: Float64, q: Float64, buffers: Float64) -> tuple[float, float, float]:
    """Over tokens and vocabulary: sum |p - q|, sum |p - q| / (p + q) with 0/0 = 0, and sum m log m for m = (p + q) / 2."""
    # In place: fresh arrays for every pair would cost more than the arithmetic.
    total, difference = buffers
    np.add(p, q, out=total)
    np.abs(np.subtract(p, q, out=difference), out=difference)
    absolute = float(difference.sum())
    relative = float(_quotients(difference, total).sum())
    total *= 0.5
    return absolute, relative, _sum_x_log_x(total, difference)


def _quotients(difference: Float64, total: Float64) -> Float64:
    """``difference`` / ``total`` with 0/0 = 0. Both are overwritten, and the first is returned."""
    np.maximum(total, 2 * np.finfo(total.dtype).smallest_subnormal, out=total)
    return np.divide(difference, total, out=difference)


def _floats(values: Any) -> NDArray[Any]:
    """An array of one dimension at least, of the floating type that it has; of float64 where it has none."""
    array = np.atleast_1d(_numpy(values))
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)


def _sum_x_log_x(x: Float64, buffer: Float64) -> float:
    """Sum of x log x, x > 0. ``buffer`` is overwritten."""
    # No dot product: BLAS would start threads, and its sums would depend on their number.
    np.multiply(x, np.log(x, out=buffer), out=buffer)
    return float(buffer.sum())


def probabilities_from_logits(logits: Any) -> Float64:
    """Softmax over the last axis in float64; logits (..., V) -> probabilities (..., V).

    >>> probabilities_from_logits([[0.0, 0.0]]).tolist()
    [[0.5, 0.5]]
    """
    logits = _numpy(logits).astype(np.float64)
    # No logit is above 0 then, so that none overflows.
    logits -= logits.max(axis=-1, keepdims=True)
    np.exp(logits, out=logits)
    return logits / logits.sum(axis=-1, keepdims=True)


def cross_entropy(logits: Any, labels: Any) -> float:
    """Mean negative log-likelihood of the labels in nats, from logits (tokens, V), computed in float64.

    >>> round(cross_entropy([[0.0, 0.0]], [1]), 4)  # ln 2
    0.6931
    """
    logits = _numpy(logits).astype(np.float64)
    logits -= logits.max(axis=-1, keepdims=True)
    return float(np.mean(np.log(np.exp(logits).sum(axis=-1)) - _at_labels(logits, labels)))


def error_rate(scores: Any, labels: Any) -> float:
    """Share of tokens whose highest score (logit or probability, shape (tokens, V)) is not the label. 0 to 1.

    >>> error_rate([[0.9, 0.1], [0.6, 0.4]], [0, 1])
    0.5
    """
    return float(np.mean(_numpy(scores).argmax(axis=-1) != _numpy(labels)))


def _numpy(array: Any) -> NDArray[Any]:
    """A NumPy view of an array or tensor, wherever it lives."""
    if hasattr(array, "detach"):
        array = array.detach().cpu()
    return np.asarray(array)


def _probabilities(p: Any) -> Float64:
    p = _numpy(p).astype(np.float64, copy=False)
    if p.ndim != 2:
        raise ValueError(f"probabilities must have shape (tokens, V), got {p.shape}")
    if not np.isfinite(p).all():
        raise ValueError("probabilities contain NaN or infinity: the model that made them did not train properly")
    return p


def _pair(p: Any, q: Any) -> tuple[Float64, Float64]:
    p, q = _probabilities(p), _probabilities(q)
    if p.shape != q.shape:
        raise ValueError(f"the two models must be scored on the same tokens and vocabulary; shapes are {p.shape} and {q.shape}")
    return p, q


def _log_gap(p: Float64, q: Float64) -> Float64:
    """abs(log p - log q): 0 where both are 0, infinite where one is."""
    with np.errstate(divide="ignore", invalid="ignore"):
        gap = np.abs(np.log(p) - np.log(q))
    return np.where((p == 0) & (q == 0), 0.0, gap)


def _at_labels(p: Float64, labels: Any) -> Float64:
    labels = _numpy(labels)
    if labels.shape != p.shape[:1]:
        raise ValueError(f"one label per token is needed: {p.shape[0]} tokens, labels of shape {labels.shape}")
    return np.take_along_axis(p, labels[:, None], axis=1)[:, 0]


def _entropy_terms(p: Float64, middle: Float64) -> Float64:
    """Sum over V of p log(p / middle) per token, with 0 log 0 = 0."""
    safe = np.where(p > 0, p, 1.0)
    return (p * np.log(safe / np.where(p > 0, middle, 1.0))).sum(axis=1)
