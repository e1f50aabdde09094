"""What every question needs: colours and axes for its numbers, words for them, and what it says where it has none."""

import math
from collections.abc import Iterable, Mapping

from repro_lib.analysis.formatting import small
from repro_lib.analysis.notes import NO_RESULTS, Note
from repro_lib.analysis.study import Study
from repro_lib.metrics.uncertainty import TRIALS_FOR_CLAIM, Estimate
from repro_lib.plots.style import COLOURS, colour_of
from repro_lib.store.schema import Result

# Line styles, so that colour is never the only difference.
DASHES = ("", "7 3", "2 3", "9 3 2 3", "4 2", "1 4")


def unanswered(title: str, study: Study, needs: str = "") -> Note:
    """In place of a what-if: that there are no results at all, or else what it ``needs``."""
    return Note(f"{title} {needs}" if study.results else f"{title} There are {NO_RESULTS}.")


def cell_name(result: Result) -> str:
    """``charlm with gelu``."""
    return f"{result.model_name} with {result.arm}"


def look_of(activation: str) -> tuple[str, str]:
    """The colour of an activation, the same as in every figure, and its dash pattern, which says the same."""
    return colour_of(activation), dict(zip(COLOURS, DASHES, strict=True)).get(activation, "1 2")


def number_words(estimate: Estimate, digits: int = 3) -> str:
    """``0.412 (95 % interval 0.390 to 0.434)``, or that there is none."""
    number = in_words(estimate, digits, "no number")
    return number.replace("(", "(95 % interval ") if estimate.has_interval else f"{number} (no interval, N = {estimate.n})"


def lowest_and_highest(estimates: Mapping[str, Estimate]) -> str:
    """``lowest with gelu, 0.41 (...), highest with relu, 0.52 (...)``, or that there is no order."""
    ranked = ranking(estimates)
    if not ranked:
        return "there is no number"
    (first, low), (last, high) = ((name, number_words(estimates[name])) for name in (ranked[0], ranked[-1]))
    if first == last:
        return f"{first} has {low}"
    if estimates[first].value == estimates[last].value:
        return f"the same with every activation, {low}"
    return f"lowest with {first}, {low}, and highest with {last}, {high}"


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
    carries = "." if min(present) >= TRIALS_FOR_CLAIM else " show where to look and decide nothing."
    return f"{trial_counts(present)} trials per cell{carries}"


def written(value: float, digits: int) -> str:
    """A number with so many digits after the point; what is small but not 0 does not look like 0."""
    return small(value) if abs(value) < 0.5 * 10**-digits else f"{value:.{digits}f}"


def in_words(number: Estimate, digits: int, missing: str = "missing") -> str:
    """``0.412 (0.390 to 0.434)``, without the bracket where there is no interval."""
    return number.written(lambda end: written(end, digits)) if math.isfinite(number.value) else missing


def alone(value: float) -> Estimate:
    """A number without an interval."""
    return Estimate(value, math.nan, math.nan, 0)
