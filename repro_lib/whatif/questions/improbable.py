"""What if improbable characters did not count? Relative PD over some of the vocabulary, from stored predictions.

Relative PD counts a character of probability 0.00001 as much as one of 0.5. Which characters are kept at a place of the
text is decided once per cell, by their mean probability over its trials, so that all pairs are compared on the same ones.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from repro_lib.analysis.notes import Note
from repro_lib.analysis.slices import parts
from repro_lib.metrics.prediction_difference import PAIR_METRICS, relative_differences
from repro_lib.metrics.uncertainty import Estimate, jackknife_pairwise
from repro_lib.models.determinism import deterministic_arithmetic
from repro_lib.whatif.charts import alone
from repro_lib.whatif.definition import Parameter, Value, View, WhatIf, choice, slider
from repro_lib.whatif.predictions import CellLogits, Floats, StoredPredictions
from repro_lib.whatif.wording import bar_panel, lowest_and_highest

# Finer where most of the vocabulary lies: 60 to 69 % of relative PD came from probabilities below 0.0001 in the study.
THRESHOLDS = (0.0, 1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1)
KEPT = (1, 2, 3, 4, 5, 7, 10, 15, 20, 30)
THRESHOLD_TITLE = "What if only characters above some probability counted?"
TOP_TITLE = "What if only the most probable characters counted?"


class Kept(NamedTuple):
    """Relative PD over the characters that are kept, and their shares of the vocabulary and of the probability."""

    pd: Estimate
    share: Estimate
    mass: Estimate


@dataclass(frozen=True, eq=False)
class Classes:
    """The characters of a cell at every place sorted into C classes, and per class what they add up to."""

    # Between N trials, (C, N, N): the sums of 2|p - q| / (p + q). Any question about a set of classes is a sum.
    relative: NDArray[np.float64]
    # How many characters, and their mean probability summed: (C,) each.
    counts: NDArray[np.float64]
    masses: NDArray[np.float64]
    # Of the text: their probabilities sum to this.
    places: int

    def kept(self, classes: slice) -> Kept:
        """What these classes say together."""
        count = self.counts[classes].sum()
        total = self.relative[classes].sum(axis=0)
        matrix = total / count if count else np.full_like(total, np.nan)
        return Kept(
            jackknife_pairwise(matrix, PAIR_METRICS["relative_pd"].largest),
            alone(count / self.counts.sum()),
            alone(self.masses[classes].sum() / self.places),
        )


def by_threshold(cell: CellLogits, thresholds: Sequence[float] = THRESHOLDS) -> Classes:
    """Class k: mean probability from threshold k up to the next; the classes from k on are those above threshold k."""
    # One comparison per threshold is ten times as fast as ``np.digitize``.
    return _classes(cell, len(thresholds), lambda mean: np.array([mean >= least for least in thresholds[1:]]).sum(axis=0))


def by_rank(cell: CellLogits, kept: Sequence[int] = KEPT) -> Classes:
    """Class k: the characters of rank k + 1 by mean probability, the last class all that have a rank beyond the largest."""
    most = min(max(kept), cell.logits.shape[-1])

    def ranks(mean: Floats) -> NDArray[np.integer]:
        # Equally probable ones have one order on every machine: the bits of a number above 0 rise with it, and with the
        # character behind them no two are equal. That sorts several times as fast as a stable ``argsort``.
        falling = np.int64(2**31) - mean.astype(np.float32).view(np.int32)
        order = np.sort(falling << 32 | np.arange(mean.shape[-1])) & (2**32 - 1)
        # The place in that order is the rank.
        found = np.empty_like(order)
        np.put_along_axis(found, order, np.minimum(np.arange(mean.shape[-1]), most)[None], axis=-1)
        return found

    return _classes(cell, most + 1, ranks)


@deterministic_arithmetic()
def _classes(cell: CellLogits, classes: int, sort: Callable[[Floats], NDArray[np.integer]]) -> Classes:
    n, tokens, _ = cell.logits.shape
    counts, masses, relative = np.zeros(classes), np.zeros(classes), np.zeros((classes, n, n))
    for part in parts(tokens):
        p = cell.probabilities(part)
        mean = p.mean(axis=0)  # (part, V); of all trials, so that every pair is compared on the same characters
        members = sort(mean).ravel().astype(np.intp)
        counts += np.bincount(members, minlength=classes)
        masses += np.bincount(members, weights=mean.ravel(), minlength=classes)
        for i, j in combinations(range(n), 2):
            differences = relative_differences(p[i], p[j]).ravel()
            relative[:, i, j] += np.bincount(members, weights=differences, minlength=classes)
    return Classes(relative + relative.transpose(0, 2, 1), counts, masses, tokens)


def threshold_what_if(predictions: StoredPredictions) -> WhatIf | Note:
    """Relative PD over characters whose mean probability reaches a threshold."""
    parameter = slider("threshold", "Least probability", THRESHOLDS, 0.0, lambda t: f"{t:g}" if t else "0 (all count)")

    def rule(least: float) -> tuple[slice, str]:
        words = f"characters of probability {least:g} and more" if least else "all characters"
        return slice(THRESHOLDS.index(least), None), words

    return _what_if(predictions, "threshold", THRESHOLD_TITLE, parameter, by_threshold, rule)


def top_what_if(predictions: StoredPredictions) -> WhatIf | Note:
    """Relative PD over the k most probable characters of each place."""
    read = [predictions.of(model) for model in predictions.models()]
    most = max((cell.logits.shape[-1] for model in read for cell in model.cells), default=1)
    values = (*(k for k in KEPT if k < most), most)
    parameter = slider("top", "Characters that count", values, most, lambda k: f"all {k}" if k == most else f"top {k}")

    def rule(top: int) -> tuple[slice, str]:
        if top == most:
            return slice(None), "all characters"
        return slice(top), f"the {f'{top} most probable characters' if top > 1 else 'most probable character'} of each place"

    return _what_if(predictions, "top-k", TOP_TITLE, parameter, by_rank, rule)


def _what_if(
    predictions: StoredPredictions,
    name: str,
    title: str,
    parameter: Parameter,
    sort: Callable[[CellLogits], Classes],
    rule: Callable[[Any], tuple[slice, str]],
) -> WhatIf | Note:
    """``rule``: of a position of the control, which classes it keeps, in words too."""
    models = predictions.models()
    if not models:
        return predictions.missing(title)
    # Sorted once, here: after that every position of the control is a sum over a few classes.
    sorted_cells = {model: {c.activation: sort(c) for c in predictions.of(model).cells} for model in models}

    def see(model: str, **values: Value) -> View:
        classes, words = rule(values[parameter.name])
        kept = {activation: cell.kept(classes) for activation, cell in sorted_cells[model].items()}
        pds, shares, masses = (dict(zip(kept, column, strict=True)) for column in zip(*kept.values(), strict=True))
        panels = (
            bar_panel("Relative PD", pds, 2.0, "nothing is kept"),
            bar_panel("Of all characters these are, %", shares, 1.0, digits=1, scale=100),
            bar_panel("Of the probability they hold, %", masses, 1.0, digits=1, scale=100),
        )
        read = predictions.of(model)
        sentence = f"Over {words}, the relative PD of {model} {read.where()} is {lowest_and_highest(pds)}; that is "
        told = f"{sentence}{_range(shares.values())} of the vocabulary with {_range(masses.values())} of the probability."
        return View(panels, read.told(told))

    return WhatIf(name, title, (choice("model", "Model", models), parameter), see)


def _range(shares: Iterable[Estimate]) -> str:
    ends = sorted(share.value for share in shares)
    low, high = f"{100 * ends[0]:.1f}", f"{100 * ends[-1]:.1f}"
    return f"{low} %" if low == high else f"{low} to {high} %"
