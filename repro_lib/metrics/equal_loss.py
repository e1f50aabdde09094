"""PD at equal validation loss, read off the line between runs of several lengths."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from repro_lib.metrics.given import Float64, floats
from repro_lib.metrics.uncertainty import mean_without_each, without_each


def means_at_equal_loss(
    cells: Sequence[Sequence[tuple[ArrayLike, ArrayLike]]], at: int | None = None
) -> tuple[Float64, Float64]:
    """The mean PD of C cells at one validation loss, (C, N + 1), and that loss, (N + 1,): with all trials, then without each.

    ``cells``: per cell its runs of different length, that of full length first, each the losses (N,) and an (N, N) matrix of
    one metric; trial k of all runs and cells from the same seed, which leaves all of them at once. The loss is that of cell
    ``at`` (from 0) at its full length; None: the lowest that every cell reaches by its full length. Between the ends of two
    runs the PD is read off a straight line over the loss; a line that would have to be extended gives NaN.

    >>> one = [([2.0, 2.0], [[0, 0.4], [0.4, 0]]), ([3.0, 3.0], [[0, 0.2], [0.2, 0]])]
    >>> other = [([2.5, 2.5], [[0, 0.5], [0.5, 0]])]
    >>> means, loss = means_at_equal_loss([one, other])
    >>> means[:, 0].round(3).tolist(), loss.tolist()
    ([0.3, 0.5], [2.5, 2.5, 2.5])
    """
    ends = [
        [(_with_all(mean_without_each(floats(losses))), _with_all(without_each(matrix))) for losses, matrix in runs]
        for runs in cells
    ]
    losses = np.max([runs[0][0] for runs in (ends if at is None else [ends[at]])], axis=0)
    return np.array([[_on_line(loss, runs, k) for k, loss in enumerate(losses)] for runs in ends]), losses


def _with_all(value_and_without: tuple[float, Float64]) -> Float64:
    value, without = value_and_without
    return np.array([value, *without])


def _on_line(loss: float, runs: Sequence[tuple[Float64, Float64]], k: int) -> float:
    losses, values = np.array([(losses[k], values[k]) for losses, values in runs]).T
    order = np.argsort(losses)
    return float(np.interp(loss, losses[order], values[order], left=math.nan, right=math.nan))
