"""All pairs of many trials at once: the metrics of ``prediction_difference``, many times as fast as pair by pair.

Shapes: N models, V vocabulary; a block is a number of tokens scored together, of ours the 256 of an evaluation window."""

import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from repro_lib.metrics import prediction_difference as metrics
from repro_lib.metrics.given import Float64, at_labels, labels_given, models_given, numpy_of
from repro_lib.metrics.prediction_difference import PAIR_METRICS

Floats = NDArray[np.floating[Any]]
# What is computed together here; other metrics are asked pair by pair.
_TOGETHER = ("relative_pd", "total_variation", "churn", "js_divergence", "kl_divergence", "true_label_pd", "log_prob_pd")
# Numbers of a model that are compared at once: 256 tokens x 1,024.
_LARGEST_PIECE = 2**18
# 60 to 69 % of relative PD came from probabilities under this in the published study.
IMPROBABLE = 1e-4


def pair_metrics_by_block(
    models: Sequence[Any], labels: Any, block: int, threads: int = 1, probabilities_of: Callable[[Any], Any] = np.asarray
) -> dict[str, Float64]:
    """Every pairwise metric of N models in each block of ``block`` tokens: (N(N-1)/2, blocks) by name.

    ``models``: N arrays (tokens, V), of which ``probabilities_of`` makes probabilities, a block at a time; ``labels``:
    (tokens,), a multiple of ``block``. Pairs in the order (1, 2), (1, 3) ... (2, 3) ...; for ours the mean over blocks is the
    number of ``pair_metrics`` to within rounding, whatever ``threads`` is.

    >>> pair_metrics_by_block([[[1.0, 0.0]] * 4, [[0.0, 1.0]] * 4], [0] * 4, block=2)["churn"].tolist()
    [[1.0, 1.0]]
    """
    arrays = [numpy_of(model) for model in models]
    labels, pairs = labels_given(labels, arrays[0]), np.array(list(combinations(range(len(arrays)), 2)), int).reshape(-1, 2)
    if len(labels) % block:
        raise ValueError(f"{len(labels)} tokens are no multiple of a block of {block}")
    found = {name: np.zeros((len(pairs), len(labels) // block)) for name in PAIR_METRICS}
    # Of a large vocabulary a piece of a block at a time.
    piece = min(block, max(1, _LARGEST_PIECE // (arrays[0].shape[1] or 1)))

    # A block of 256 tokens x 65 characters, 133 kB in float64, stays in the processor's cache for all pairs, and the
    # probabilities of all models, twice as large as their float32 logits, are never in memory at once.
    def fill(k: int) -> None:
        end = (k + 1) * block
        for start in range(k * block, end, piece):
            part = slice(start, min(start + piece, end))
            parts = models_given(probabilities_of(model[part]) for model in arrays)
            values = block_metrics(parts, pairs, labels[part])
            values |= {n: [PAIR_METRICS[n](parts[i], parts[j], labels[part]) for i, j in pairs] for n in asked_by_pair()}
            for name, of in found.items():
                of[:, k] += np.multiply(values[name], len(parts[0]) / block)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(fill, range(len(labels) // block)))
    return found


def block_metrics(
    parts: Sequence[Floats] | Floats,
    pairs: NDArray[np.int64],
    labels: NDArray[Any] | None = None,
    logs: Sequence[Floats] | Floats | None = None,
) -> dict[str, Float64]:
    """What is computed together, of one block: (P,) by name, the mean over its tokens for each of ``pairs`` (P, 2) of models.

    ``parts``: of each model probabilities (block, V), checked, all in float64 or all in float32; ``logs``: their logarithms,
    where they are known. Without ``labels`` no metric that asks for them.

    >>> block_metrics([np.array([[1.0, 0.0]]), np.array([[0.5, 0.5]])], np.array([[0, 1]]))["total_variation"].tolist()
    [0.5]
    """
    (first, second), tops = pairs.T, np.array([p.argmax(axis=1) for p in parts])
    values = _over_vocabulary(parts, pairs, logs) | {"churn": (tops[first] != tops[second]).mean(axis=1)}
    if labels is None:
        return values
    at_label = np.array([at_labels(p, labels) for p in parts], np.float64)
    gaps = metrics.log_gaps(at_label[first], at_label[second])
    if logs is not None:  # finite where a probability is too small for its type
        known = np.array([at_labels(of, labels) for of in logs], np.float64)
        gaps = np.abs(known[first] - known[second])
    relative = metrics.relative_differences(at_label[first], at_label[second])
    return values | {"true_label_pd": relative.mean(axis=1), "log_prob_pd": gaps.mean(axis=1)}


def over_parts(
    models: Sequence[Any], probabilities_of: Callable[[Any], Any], *measures: Callable[[list[Float64]], float]
) -> list[float]:
    """Means over the text of measures of N models' probabilities, N arrays (some tokens, V), which are made a part of the text
    at a time: over up to 1,024 characters all at once.

    >>> over_parts([[[1.0, 0.0]], [[0.0, 1.0]]], np.asarray, unanimity)
    [0.0]
    """
    arrays, means = [numpy_of(model) for model in models], [0.0] * len(measures)
    tokens, width = arrays[0].shape
    step = max(1, 64 * _LARGEST_PIECE // width)
    for start in range(0, tokens, step):
        part = [probabilities_of(model[start : start + step]) for model in arrays]
        means = [mean + measure(part) * (len(part[0]) / tokens) for mean, measure in zip(means, measures, strict=True)]
    return means


def asked_by_pair() -> list[str]:
    """The metrics whose function is asked for every pair of models and block; the others are computed together.

    >>> "churn" in asked_by_pair()
    False
    """
    ours = {name: getattr(metrics, name) for name in _TOGETHER}
    return [name for name, metric in PAIR_METRICS.items() if metric.function is not ours.get(name)]


def unanimity(models: Iterable[Any]) -> float:
    """Share of tokens on which all models have the same most probable character; probabilities (tokens, V) of each. 0 to 1.

    >>> unanimity([[[0.9, 0.1], [0.6, 0.4]], [[0.8, 0.2], [0.4, 0.6]], [[0.7, 0.3], [0.9, 0.1]]])
    0.5
    """
    tops = [models_given([p])[0].argmax(axis=1) for p in models]
    if len({len(top) for top in tops}) != 1:
        raise ValueError(f"unanimity is of models scored on the same tokens, got {[len(top) for top in tops]} tokens")
    return float(np.mean(np.all(np.equal(tops, tops[0]), axis=0)))


def kl_to_predictor(models: Sequence[Any], predictor: Any) -> Float64:
    """(N,) ``kl_divergence`` of models (tokens, V) each with one that knows no context: probabilities (V,), none of them 0.

    >>> kl_to_predictor([[[0.5, 0.5], [0.25, 0.75]]], [0.5, 0.5]).round(4).tolist()  # ln 3 / 8 / 2
    [0.0687]
    """
    *trials, q = models_given([*models, np.broadcast_to(predictor, (len(models[0]), len(predictor)))])
    if not q.all():
        raise ValueError("a predictor that gives a character no chance is infinitely far from all that do")
    with np.errstate(divide="ignore"):
        return np.array([((p - q) * (np.log(p) - np.log(predictor))).sum() / 2 / len(p) for p in trials])


class Counted(NamedTuple):
    """What each of V characters adds to two metrics between N trials, mean over the tokens: (V, N, N) each.

    Relative PD is the mean of ``relative_pd`` over V, total variation the sum of ``total_variation``. ``improbable`` (N, N):
    the part of relative PD that comes from probabilities, mean of the two models, under 1e-4."""

    relative_pd: Float64
    total_variation: Float64
    improbable: Float64


def count_by_character(models: Sequence[Any], shares: Any, probabilities_of: Callable[[Any], Any] = np.asarray) -> Counted:
    """Two metrics of all pairs by character of the vocabulary, that with the largest of the ``shares`` (V,) first.

    ``models`` and ``probabilities_of`` as in ``pair_metrics_by_block``.

    >>> count_by_character([[[0.5, 0.25, 0.25]], [[0.75, 0.25, 0]]], [0.3, 0.6, 0.1]).total_variation[:, 0, 1].tolist()
    [0.0, 0.125, 0.125]
    """
    arrays = [numpy_of(model) for model in models]
    (tokens, width), n = arrays[0].shape, len(arrays)
    relative, variation, improbable = np.zeros((3, n, n, width))
    step = min(256, max(1, _LARGEST_PIECE // width))
    for start in range(0, tokens, step):
        parts = models_given(probabilities_of(model[start : start + step]) for model in arrays)
        for (i, p), (j, q) in combinations(enumerate(parts), 2):
            total, difference = p + q, p - q
            np.abs(difference, out=difference)
            variation[i, j] += difference.sum(axis=0)
            few = total < 2 * IMPROBABLE
            # 0/0 is 0, as in ``relative_differences``.
            np.divide(difference, np.maximum(total, np.finfo(np.float64).tiny, out=total), out=difference)
            relative[i, j] += difference.sum(axis=0)
            improbable[i, j] += np.multiply(difference, few, out=difference).sum(axis=0)
    sums = (2 * relative, variation / 2, 2 * improbable.mean(axis=-1, keepdims=True))
    relative, variation, improbable = ((of + of.swapaxes(0, 1)).transpose(2, 0, 1) / tokens for of in sums)
    order = np.argsort(-numpy_of(shares), kind="stable")
    return Counted(relative[order], variation[order], improbable[0])


def _over_vocabulary(
    parts: Sequence[Floats] | Floats, pairs: NDArray[np.int64], logs: Sequence[Floats] | Floats | None = None
) -> dict[str, Float64]:
    # Of a block, (block, V) a model. In place and with few passes over it, for a fresh array costs more than the arithmetic.
    (block, width), kind, add, known = parts[0].shape, parts[0].dtype, np.add.reduce, logs is not None
    smallest = np.finfo(kind).smallest_subnormal
    total, difference, gap = np.empty((3, block * width), kind)
    # Where there is a 0, the smallest number there is stands for it, so that 0/0 and 0 log 0 are 0 and others stay as they are.
    none = [p.ravel() == 0 for p in parts]
    zeros = any(of.any() for of in none)
    flat = [p.ravel() for p in parts]
    logs = [of.ravel() for of in logs] if logs is not None else [np.log(np.maximum(p, smallest)) for p in flat]
    # With s = p + q, 2 JS = (sum 2p log 2p + sum 2q log 2q) / 2 - sum s log s: one logarithm a pair, and 0 for equal models.
    entropies = [_sum_x_log_x(2 * np.maximum(p, smallest), total) for p in flat]
    absolute, relative, js, kl = np.empty((4, len(pairs)))
    for pair, (i, j) in enumerate(pairs.tolist()):
        np.add(flat[i], flat[j], out=total)
        np.subtract(flat[i], flat[j], out=difference)
        kl[pair] = add(np.multiply(difference, np.subtract(logs[i], logs[j], out=gap), out=gap))
        np.abs(difference, out=difference)
        if zeros:
            np.maximum(total, 2 * smallest, out=total)
            kl[pair] += math.inf if not known and (none[i] != none[j]).any() else 0.0
        absolute[pair] = add(difference)
        relative[pair] = add(np.divide(difference, total, out=difference))
        js[pair] = (entropies[i] + entropies[j]) / 2 - _sum_x_log_x(total, difference)
    return {
        "total_variation": absolute / 2 / block,
        "relative_pd": 2 * relative / (block * width),
        # Rounding may leave -1e-16.
        "js_divergence": np.maximum(js, 0.0) / 2 / block,
        "kl_divergence": np.maximum(kl, 0.0) / 2 / block,
    }


def _sum_x_log_x(x: Floats, buffer: Floats) -> float:
    # For x > 0; overwrites the buffer. No dot product: BLAS would start threads, and sums would depend on their number.
    return float(np.add.reduce(np.multiply(x, np.log(x, out=buffer), out=buffer)))
