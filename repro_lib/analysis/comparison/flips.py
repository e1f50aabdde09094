"""What became right and what became wrong between two models, counted in examples, so that the identities hold exactly."""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from repro_lib.metrics.uncertainty import Estimate, Float64, independent_left_out, without_each

Counts = NDArray[np.int64]


class Flips(NamedTuple):
    """Of A old and B new models (A, B) each, in examples: how many were changed, and from what to what.

    ``changed`` = ``positive`` (wrong to right) + ``negative`` (right to wrong) + ``wrong_to_wrong`` (another wrong answer),
    and ``positive`` - ``negative`` = right answers of the new model - those of the old one (Yan et al. 2021, arXiv 2011.09161).
    """

    changed: Counts
    positive: Counts
    negative: Counts
    wrong_to_wrong: Counts


def count_flips(old: NDArray[Any], new: NDArray[Any], labels: NDArray[Any] | None = None) -> Flips:
    """The flips between answers (A, examples) and (B, examples); without ``labels`` (examples,) only how many changed.

    >>> count_flips(np.array([[0, 1, 2]]), np.array([[0, 0, 1]]), np.array([0, 1, 0])).negative.tolist()
    [[1]]
    """
    changed, *kinds = np.zeros((4, len(old), len(new)), np.int64)
    for i, before in enumerate(old):
        for j, after in enumerate(new):
            differs = before != after
            changed[i, j] = differs.sum()
            if labels is not None:
                was, now = before == labels, after == labels
                for kind, where in zip(kinds, (~was & now, was & ~now, ~was & ~now & differs), strict=True):
                    kind[i, j] = where.sum()
    return Flips(changed, *kinds)


def across(values: NDArray[Any], floor: Float64 | None = None, over: NDArray[Any] | None = None) -> Estimate:
    """The mean of a number between A old and B new models (A, B), with its interval when models of both are left out.

    ``floor``: (A, A) the same number between old models, whose mean is taken away; ``over``: (A, B) whose mean it is divided
    by. One old or one new model adds no variance: what is said holds for that model. But beside a floor one new model counts
    as one draw with the spread of the old ones: else half of all models of the old recipe would seem to exceed it.

    >>> across(np.array([[1.0, 2.0], [3.0, 6.0]])).value
    3.0
    """

    def number(rows: NDArray[np.intp], columns: NDArray[np.intp]) -> float:
        top = values[np.ix_(rows, columns)].mean()
        below = 1.0 if over is None else over[np.ix_(rows, columns)].mean()
        base = 0.0 if floor is None else without_each(floor[np.ix_(rows, rows)])[0]
        return float(np.divide(top, below) if below else np.inf if top else np.nan) - base

    every = [np.arange(size) for size in values.shape]
    groups = [
        np.array([number(np.delete(every[0], k), every[1]) for k in every[0]] if len(every[0]) > 1 else [np.nan]),
        np.array([number(every[0], np.delete(every[1], k)) for k in every[1]] if len(every[1]) > 1 else [np.nan]),
    ]
    if floor is not None and len(every[1]) == 1 < (n := len(floor)):
        # Times what makes the variance of a mean over n of them that of a single one.
        groups[1] = floor.sum(axis=1) / (n - 1) * np.sqrt(n) / (n - 1)
    return replace(independent_left_out(number(*every), groups), n=min(values.shape))


def disagreement(answers: NDArray[Any]) -> Float64:
    """Of N models (N, examples) the mean over pairs, by example: the share that differs, or how far chances lie apart.

    >>> disagreement(np.array([[0, 1], [0, 1], [0, 2]])).round(3).tolist()
    [0.0, 0.667]
    """
    total, n = np.zeros(answers.shape[1]), len(answers)
    for k, one in enumerate(answers):
        for other in answers[:k]:
            total += np.abs(one - other) if answers.dtype.kind == "f" else one != other
    return total / max(n * (n - 1) / 2, 1)
