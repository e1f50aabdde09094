"""Every model read once, block by block, and all that is compared of it: metrics of pairs, and what each model answers."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from repro_lib.analysis.comparison.kinds import answers, chances, distributions
from repro_lib.metrics.all_pairs import asked_by_pair, block_metrics
from repro_lib.metrics.given import labels_given
from repro_lib.metrics.prediction_difference import PAIR_METRICS, relative_differences
from repro_lib.store.foreign import ForeignError, Scored

# A thread's blocks of all models together take about so many bytes twice, as they are stored and as probabilities.
_BLOCK_BYTES = 2**26
# Of a block so many numbers of a model at once: with those of another one and what is made of the two in a core's own cache.
_AT_ONCE = 2**15


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

    ForeignError for what turns out to be of another kind, and for labels that the models cannot answer with.
    """
    if kind in ("classes", "texts"):
        given = [answers(model) for model in models]
        if len({values.dtype.kind == "i" for values in (*given, *([] if labels is None else [labels]))}) > 1:
            raise ForeignError("some answers (or the labels) are numbers and some are texts, so that none would be right")
        codes = pd.factorize(np.concatenate(given if labels is None else [*given, labels]))[0].astype(np.int64)
        codes = codes.reshape(-1, len(given[0]))
        found, labels = codes[: len(models)], None if labels is None else codes[-1]
        return Measured({"churn": (found[pairs[:, 0]] != found[pairs[:, 1]]).mean(axis=1)}, found, labels, found)
    width = 2 if kind == "event" else models[0].values.shape[1]
    if labels is not None:
        try:
            labels = labels_given(labels, np.broadcast_to(0.0, (len(models[0].values), width)))
        except ValueError:
            places = f"0 to {width - 1}, the places of the right answers, one per example"
            raise ForeignError(f"labels of {width} classes are whole numbers from {places}") from None
    if kind == "event":
        every = np.array([chances(model) for model in models])
        sums, tops = _summed([np.stack([1 - p, p], axis=1) for p in every], None, pairs, labels, threads)
        # Of an event itself: how often it does not happen is no prediction of its own (Shamir et al. 2020).
        relative = [relative_differences(every[i], every[j]).mean() for i, j in pairs.tolist()]
        return Measured(sums | {"relative_pd": np.array(relative)}, tops, labels, every)
    sums, tops = _summed(models, kind, pairs, labels, threads)
    return Measured(sums, tops, labels, tops)


def _summed(
    models: Sequence[Any], kind: str | None, pairs: NDArray[np.int64], labels: NDArray[Any] | None, threads: int
) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.int64]]:
    examples, width = np.shape(models[0]) if kind is None else models[0].values.shape
    names = [n for n in PAIR_METRICS if n not in asked_by_pair() and not (PAIR_METRICS[n].at_label and labels is None)]
    tops = np.empty((len(models), examples), np.int64)
    rows, few = max(1, _BLOCK_BYTES // (8 * width * len(models))), max(1, _AT_ONCE // width)

    def summed(start: int) -> NDArray[np.float64]:
        part = slice(start, min(start + rows, examples))
        read = [(m[part], None) if kind is None else distributions(m, kind, part) for m in models]
        # One model of two in half precision: all in double.
        exact = {p.dtype for p, _ in read} != {np.dtype(np.float32)}
        parts = [p.astype(np.float64) if exact else p for p, _ in read]
        logs = [of for _, of in read if of is not None]
        tops[:, part] = [p.argmax(axis=1) for p in parts]
        total = np.zeros((len(names), len(pairs)))
        for a in range(0, len(parts[0]), few):
            some = slice(a, a + few)
            found = block_metrics(
                [p[some] for p in parts],
                pairs,
                None if labels is None else labels[part][some],
                [of[some] for of in logs] if len(logs) == len(parts) else None,
                tops[:, part][:, some],
            )
            total += np.array([found[name] for name in names]) * len(parts[0][some])
        return total

    with ThreadPoolExecutor(threads) as pool:
        # In the order of the blocks, so that rounding does not depend on who is ready first.
        totals = sum(pool.map(summed, range(0, examples, rows)), np.zeros((len(names), len(pairs))))
    return dict(zip(names, totals / examples, strict=True)), tops
