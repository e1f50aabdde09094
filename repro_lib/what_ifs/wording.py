"""How what-ifs put numbers into words: who is lowest and highest, and how far N trials carry."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from repro_lib.notes import NO_RESULTS, Note
from repro_lib.plot_style import COLOURS
from repro_lib.statistics import TRIALS_FOR_CLAIM, Estimate
from repro_lib.what_ifs.bars import Bar
from repro_lib.what_ifs.svg import DASHES, in_words, written

# Outside the registry; the colour of the page, which is dark on light and light on dark.
OTHER_COLOUR = "currentColor"


def colour_on_page(activation: str) -> str:
    """The colour of an activation, the same as in every figure."""
    return COLOURS.get(activation, OTHER_COLOUR)


def dash_of(activation: str) -> str:
    """The dash pattern of an activation, which says the same as its colour."""
    names = list(COLOURS)
    return DASHES[names.index(activation) % len(DASHES)] if activation in names else "1 2"


def bar(activation: str, found: Estimate, *, scale: float = 1.0, words: str = "missing", strong: bool = False) -> Bar:
    """An activation's number (times ``scale``) with its interval, in its colour."""
    numbers = (found.value * scale, colour_on_page(activation), found.low * scale, found.high * scale)
    return Bar(activation, *numbers, words, strong)


def number_words(found: Estimate, digits: int = 3) -> str:
    """``0.412 (95 % interval 0.390 to 0.434)``, or that there is none."""
    if not found.has_interval:
        return f"{in_words(found.value, math.nan, math.nan, digits, 'no number')} (no interval, N = {found.n})"
    low, high = written(found.low, digits), written(found.high, digits)
    return f"{written(found.value, digits)} (95 % interval {low} to {high})"


def lowest_and_highest(found: Mapping[str, Estimate], digits: int = 3) -> str:
    """``lowest with gelu, 0.41 (...), highest with relu, 0.52 (...)``, or that there is no order."""
    ranked = ranking(found)
    if len(ranked) < 2:
        return f"{ranked[0]} has {number_words(found[ranked[0]], digits)}" if ranked else "there is no number"
    first, last = ranked[0], ranked[-1]
    if found[first].value == found[last].value:
        return f"the same with every activation, {number_words(found[first], digits)}"
    return (
        f"lowest with {first}, {number_words(found[first], digits)}, "
        f"and highest with {last}, {number_words(found[last], digits)}"
    )


def ranking(found: Mapping[str, Estimate]) -> list[str]:
    """The activations that have a number, the lowest first; of equal ones the one named first."""
    return sorted((name for name in found if math.isfinite(found[name].value)), key=lambda name: found[name].value)


def trial_counts(counts: Iterable[int]) -> str:
    """``N = 3``, or from the least to the most; cells without any trial do not count."""
    present = sorted({n for n in counts if n})
    return f"N = {present[0]}" if len(present) == 1 else f"N = {present[0]} to {present[-1]}"


def nothing_yet(title: str) -> Note:
    """In place of a what-if where there are no results at all."""
    return Note(f"{title} There are {NO_RESULTS}.")


def reach(counts: Iterable[int]) -> str:
    """How far an order carries with so many trials per cell."""
    present = [n for n in counts if n]
    trials, least = trial_counts(present), min(present)
    if least >= TRIALS_FOR_CLAIM:
        return f"{trials} trials per cell."
    return f"{trials} trials per cell show where to look and decide nothing."
