"""What every question needs: colours and axes for its numbers, words for them, and what it says where it has none."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from repro_lib.analysis.notes import NO_RESULTS, Note
from repro_lib.analysis.study import Study
from repro_lib.metrics.uncertainty import TRIALS_FOR_CLAIM, Estimate
from repro_lib.plots.style import COLOURS
from repro_lib.store.schema import Result
from repro_lib.store.store import Store
from repro_lib.whatif.charts.bars import Bar
from repro_lib.whatif.charts.svg import DASHES, in_words, nice_limit, written

# Outside the registry; the colour of the page, which is dark on light and light on dark.
OTHER_COLOUR = "currentColor"

# --- where a question cannot be asked


def unanswered(title: str, study: Study, needs: str = "") -> Note:
    """In place of a what-if: that there are no results at all, or else what it ``needs``."""
    return Note(f"{title} {needs}" if study.results else f"{title} There are {NO_RESULTS}.")


def reason(problem: Exception, store: Store) -> str:
    """What is wrong, with files named from the results folder on: a report says nothing about the machine."""
    return str(problem).replace(f"{store.folder}/", "")


def cell_name(result: Result) -> str:
    """``charlm with gelu``."""
    return f"{result.model_name} with {result.activation}"


# --- how numbers look


def colour_on_page(activation: str) -> str:
    """The colour of an activation, the same as in every figure."""
    return COLOURS.get(activation, OTHER_COLOUR)


def dash_of(activation: str) -> str:
    """The dash pattern of an activation, which says the same as its colour."""
    names = list(COLOURS)
    return DASHES[names.index(activation) % len(DASHES)] if activation in names else "1 2"


def bar(activation: str, estimate: Estimate, *, scale: float = 1.0, words: str = "missing") -> Bar:
    """An activation's number (times ``scale``) with its interval, in its colour."""
    value, low, high = (scale * end for end in (estimate.value, estimate.low, estimate.high))
    return Bar(activation, value, colour_on_page(activation), low, high, words)


def axis_end(estimates: Iterable[Estimate], largest: float = math.inf) -> float:
    """Where an axis from 0 ends on which these numbers and their intervals fit, ``largest`` being the most there can be."""
    ends = [end for estimate in estimates for end in (estimate.value, estimate.high) if math.isfinite(end)]
    return nice_limit(min(max(ends, default=1.0), largest))


# --- how numbers read


def metric_words(metric: str) -> str:
    """``relative PD`` for ``relative_pd``."""
    return metric.replace("_", " ").replace("pd", "PD")


def number_words(estimate: Estimate, digits: int = 3) -> str:
    """``0.412 (95 % interval 0.390 to 0.434)``, or that there is none."""
    if not estimate.has_interval:
        return f"{in_words(estimate.value, math.nan, math.nan, digits, 'no number')} (no interval, N = {estimate.n})"
    low, high = written(estimate.low, digits), written(estimate.high, digits)
    return f"{written(estimate.value, digits)} (95 % interval {low} to {high})"


def lowest_and_highest(estimates: Mapping[str, Estimate], digits: int = 3) -> str:
    """``lowest with gelu, 0.41 (...), highest with relu, 0.52 (...)``, or that there is no order."""
    ranked = ranking(estimates)
    if len(ranked) < 2:
        return f"{ranked[0]} has {number_words(estimates[ranked[0]], digits)}" if ranked else "there is no number"
    first, last = ranked[0], ranked[-1]
    if estimates[first].value == estimates[last].value:
        return f"the same with every activation, {number_words(estimates[first], digits)}"
    return (
        f"lowest with {first}, {number_words(estimates[first], digits)}, "
        f"and highest with {last}, {number_words(estimates[last], digits)}"
    )


def ranking(estimates: Mapping[str, Estimate]) -> list[str]:
    """The activations that have a number, the lowest first; of equal ones the one named first."""
    return sorted((name for name in estimates if math.isfinite(estimates[name].value)), key=lambda name: estimates[name].value)


def trial_counts(counts: Iterable[int]) -> str:
    """``N = 3``, or from the least to the most; cells without any trial do not count."""
    present = sorted({n for n in counts if n})
    return f"N = {present[0]}" if len(present) == 1 else f"N = {present[0]} to {present[-1]}"


def reach(counts: Iterable[int]) -> str:
    """How far an order carries with so many trials per cell."""
    present = [n for n in counts if n]
    trials, least = trial_counts(present), min(present)
    if least >= TRIALS_FOR_CLAIM:
        return f"{trials} trials per cell."
    return f"{trials} trials per cell show where to look and decide nothing."
