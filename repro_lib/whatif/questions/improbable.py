"""What if improbable characters did not count? Relative PD over some of the vocabulary, from stored predictions.

Relative PD counts a character of probability 0.00001 as much as one of 0.5. Which characters are kept at a place of the
text is decided once per cell, by their mean probability over its trials, so that all pairs are compared on the same ones."""

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import combinations
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from repro_lib.analysis.notes import Note
from repro_lib.analysis.slices import parts
from repro_lib.metrics.prediction_difference import PAIR_METRICS, relative_differences
from repro_lib.metrics.uncertainty import Estimate, jackknife_pairwise
from repro_lib.models.determinism import deterministic_arithmetic
from repro_lib.whatif.definition import Parameter, Value, WhatIf, control
from repro_lib.whatif.predictions import CellLogits, Floats, ModelLogits, Numbers, StoredPredictions, of_predictions
from repro_lib.whatif.wording import alone, lowest_and_highest

# Finer where most of the vocabulary lies: 60 to 69 % of relative PD came from probabilities below 0.0001 in the study.
THRESHOLDS = (0.0, 1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1)
KEPT = (1, 2, 3, 4, 5, 7, 10, 15, 20, 30)


class Kept(NamedTuple):
    """Relative PD over the characters that are kept, and their shares of the vocabulary and of the probability."""

    pd: Estimate
    share: Estimate
    mass: Estimate


# By mean probability (part, V) of each character at each place, which are kept in each of C cases: (C, part, V), 0 or 1.
Rule: TypeAlias = Callable[[Floats], NDArray[np.bool_]]


def at_least(thresholds: Sequence[float]) -> Rule:
    """Those of this mean probability and more."""
    return lambda mean: np.array([mean >= least for least in thresholds])


def most_probable(counts: Sequence[int]) -> Rule:
    """The k most probable ones of each place."""

    def kept(mean: Floats) -> NDArray[np.bool_]:
        # Equally probable ones have one order on every machine: the bits of a number above 0 rise with it, and with the
        # character behind them no two are equal. That sorts several times as fast as a stable ``argsort``.
        falling = np.int64(2**31) - mean.astype(np.float32).view(np.int32)
        order = np.sort(falling << 32 | np.arange(mean.shape[-1])) & (2**32 - 1)
        ranks = np.empty_like(order)
        np.put_along_axis(ranks, order, np.arange(mean.shape[-1])[None], axis=-1)
        return np.array([ranks < count for count in counts])

    return kept


@deterministic_arithmetic()
def kept_by(rule: Rule, cell: CellLogits) -> list[Kept]:
    """What the characters say that a rule keeps, in each of its cases. The mean over all trials decides, for every pair."""
    sums, places = 0.0, len(cell.labels)
    pairs = list(combinations(range(cell.n), 2))
    for part in parts(places):
        p = cell.probabilities(part)
        mean = p.mean(axis=0)
        values = [np.ones_like(mean), mean, *(relative_differences(p[i], p[j]) for i, j in pairs)]
        # A matrix product of all cases with all sums at once.
        cases, columns = (torch.from_numpy(np.array(of)).flatten(1).double() for of in (rule(mean), values))
        sums = sums + (cases @ columns.T).numpy()
    kept = []
    for count, mass, *relative in np.atleast_2d(sums):
        matrix = np.zeros((cell.n, cell.n))
        matrix[tuple(zip(*pairs, strict=True))] = np.array(relative) / count if count else np.nan
        pd = jackknife_pairwise(matrix + matrix.T, PAIR_METRICS["relative_pd"].largest)
        kept.append(Kept(pd, alone(count / (places * cell.logits.shape[-1])), alone(mass / places)))
    return kept


def threshold_what_if(predictions: StoredPredictions) -> WhatIf | Note:
    """Relative PD over characters whose mean probability reaches a threshold."""
    parameter = control("threshold", "Least probability", THRESHOLDS, text=lambda t: f"{t:g}" if t else "0 (all count)")
    words = [f"characters of probability {least:g} and more" if least else "all characters" for least in THRESHOLDS]
    title = "What if only characters above some probability counted?"
    return _what_if("threshold", title, predictions, parameter, at_least(THRESHOLDS), words)


def top_what_if(predictions: StoredPredictions) -> WhatIf | Note:
    """Relative PD over the k most probable characters of each place."""
    read = [predictions.of(model) for model in predictions.models()]
    most = max((cell.logits.shape[-1] for model in read for cell in model.cells), default=1)
    counts = (*(k for k in KEPT if k < most), most)
    parameter = control("top", "Characters that count", counts, most, lambda k: f"all {k}" if k == most else f"top {k}")
    words = [f"the {f'{k} most probable characters' if k > 1 else 'most probable character'} of each place" for k in counts]
    title = "What if only the most probable characters counted?"
    return _what_if("top-k", title, predictions, parameter, most_probable(counts), [*words[:-1], "all characters"])


def _what_if(
    name: str, title: str, predictions: StoredPredictions, parameter: Parameter, rule: Rule, words: Sequence[str]
) -> WhatIf | Note:
    measured = cache(lambda model: {cell.activation: kept_by(rule, cell) for cell in predictions.of(model).cells})

    def see(read: ModelLogits, model: str, value: Value) -> tuple[Numbers, str]:
        case = parameter.values.index(value)
        kept = {activation: cases[case] for activation, cases in measured(model).items()}
        pds, shares, masses = (dict(zip(kept, column, strict=True)) for column in zip(*kept.values(), strict=True))
        sentence = f"Over {words[case]}, the relative PD of {model} {read.where()} is {lowest_and_highest(pds)}; that is "
        sentence += f"{_range(shares.values())} of the vocabulary with {_range(masses.values())} of the probability."
        measures = ("Relative PD", "Of all characters these are, %", "Of the probability they hold, %")
        return dict(zip(measures, (pds, shares, masses), strict=True)), read.told(sentence)

    return of_predictions(name, title, predictions, parameter, see, "nothing is kept")


def _range(shares: Iterable[Estimate]) -> str:
    ends = sorted(share.value for share in shares)
    low, high = f"{100 * ends[0]:.1f}", f"{100 * ends[-1]:.1f}"
    return f"{low} %" if low == high else f"{low} to {high} %"
