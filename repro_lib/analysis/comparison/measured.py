"""Every model read once, block by block, and all that is compared of it: metrics of pairs, and what each model answers."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from repro_lib.analysis.comparison.kinds import answers, chances, distributions
from repro_lib.metrics.all_pairs import asked_by_pair, block_metrics
from repro_lib.metrics.given import labels_given
from repro_lib.metrics.prediction_difference import PAIR_METRICS, relative_differences
from repro_lib.store.foreign import ForeignError, Scored

# A block has so many numbers of a model, fewer where there are many models: all of them are in memory at once, and again as
# probabilities. With smaller ones threads wait for each other's Python more than they compute.
_NUMBERS, _ALL_MODELS = 2**18, 2**22


class Measured(NamedTuple):
    """Of N models: each metric by pair (P,); what each answers (N, examples), with the labels (examples,) coded alike; and
    the same answers or, of an event, its chances (N, examples), by which examples are said to disagree."""

    values: dict[str, NDArray[np.float64]]
    answers: NDArray[np.int64]
    labels: NDArray[np.int64] | None
    by_example: NDArray[Any]


def measure(
    models: Sequence[Scored], kind: str, pairs: NDArray[np.int64], labels: NDArray[Any] | None, threads: int = 1
) -> Measured:
    """Compare the pairs (P, 2) of models of one kind; the numbers do not depend on ``threads``.

    ForeignError for what turns out to be of another kind, and for labels that the models cannot answer with."""
    if kind in ("classes", "texts"):
        given = [*map(answers, models), *([] if labels is None else [labels])]
        if len({values.dtype.kind == "i" for values in given}) > 1:
            raise ForeignError("some answers (or the labels) are numbers and some are texts, so that none would be right")
        codes = pd.factorize(np.concatenate(given))[0].astype(np.int64).reshape(len(given), -1)
        found = codes[: len(models)]
        churn = (found[pairs[:, 0]] != found[pairs[:, 1]]).mean(axis=1)
        return Measured({"churn": churn}, found, None if labels is None else codes[-1], found)
    event, shape = kind == "event", (len(models[0].values), 2 if kind == "event" else models[0].values.shape[1])
    if labels is not None:
        try:
            labels = labels_given(labels, np.broadcast_to(0.0, shape))
        except ValueError:
            places = f"0 to {shape[1] - 1}, the places of the right answers, one per example"
            raise ForeignError(f"labels of {shape[1]} classes are whole numbers from {places}") from None
    every = np.array([chances(model) for model in models]) if event else None
    read = [partial(_outcomes, p) for p in every] if every is not None else [partial(distributions, m, kind) for m in models]
    values, tops = _summed(read, shape, pairs, labels, threads)
    if every is None:
        return Measured(values, tops, labels, tops)
    # Of an event itself: how often it does not happen is no prediction of its own (Shamir et al. 2020).
    relative = np.array([relative_differences(every[i], every[j]).mean() for i, j in pairs.tolist()])
    return Measured(values | {"relative_pd": relative}, tops, labels, every)


def _outcomes(p: NDArray[np.float64], part: slice) -> tuple[NDArray[Any], None]:
    return np.stack([1 - p[part], p[part]], axis=1), None


def _summed(
    read: Sequence[Callable[[slice], tuple[NDArray[Any], NDArray[Any] | None]]],
    shape: tuple[int, int],
    pairs: NDArray[np.int64],
    labels: NDArray[Any] | None,
    threads: int,
) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.int64]]:
    (examples, width), models = shape, len(read)
    names = [n for n in PAIR_METRICS if n not in asked_by_pair() and not (PAIR_METRICS[n].at_label and labels is None)]
    tops = np.empty((models, examples), np.int64)
    rows = max(1, min(_NUMBERS, _ALL_MODELS // models) // width)

    def summed(start: int) -> NDArray[np.float64]:
        part = slice(start, min(start + rows, examples))
        blocks, logs = zip(*(block(part) for block in read), strict=True)
        # One model of several in half precision: all in double.
        kind, known = np.result_type(*blocks), None if any(of is None for of in logs) else logs
        parts = [p.astype(kind, copy=False) for p in blocks]
        tops[:, part] = [p.argmax(axis=1) for p in parts]
        found = block_metrics(parts, pairs, None if labels is None else labels[part], known)
        return np.array([found[name] for name in names]) * len(parts[0])

    with ThreadPoolExecutor(threads) as pool:
        # In the order of the blocks, so that rounding does not depend on who is ready first.
        totals = sum(pool.map(summed, range(0, examples, rows)), np.zeros((len(names), len(pairs))))
    return dict(zip(names, totals / examples, strict=True)), tops
