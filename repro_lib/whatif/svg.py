"""SVG as text: what small charts are made of, whatever they show. Whatever is written is escaped here."""

import html
import math

import numpy as np
from numpy.typing import NDArray

from repro_lib.analysis.notes import visible
from repro_lib.metrics.uncertainty import Estimate

# As wide as a phone, so that several panels stand side by side on a desk and below each other in a hand.
WIDTH = 340
LETTER = 6.3  # mean width of a letter at the font size of the panels, 12
# The colour of the page, which is dark on light and light on dark: of text, axes and whatever has no colour of its own.
PAGE_COLOUR = "currentColor"
FAINT = f"stroke='{PAGE_COLOUR}' stroke-opacity='.18'"
# Line styles, so that colour is never the only difference.
DASHES = ("", "7 3", "2 3", "9 3 2 3", "4 2", "1 4")


def nice_ticks(low: float, high: float, wanted: int = 4) -> list[float]:
    """Round numbers from ``low`` to ``high``, about ``wanted`` of them."""
    # The smallest of 1, 2, 2.5, 5 and 10 times a power of ten that gives no more steps than wanted.
    raw = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    # Rounded, because 3 * 0.1 is written 0.30000000000000004; and never a minus before 0.
    return [round(k * step, 10) + 0.0 for k in range(first, last + 1)]


def nice_limit(largest: float) -> float:
    """The end of an axis from 0 on which ``largest`` still fits: a round number."""
    if largest <= 0:
        return 1.0
    step = nice_ticks(0, largest)[1]
    return math.ceil(round(largest / step, 9)) * step


def written(value: float, digits: int) -> str:
    """A number with so many digits after the point; what is small but not 0 does not look like 0."""
    if value == 0:
        return "0"
    return f"{value:.0e}" if abs(value) < 0.5 * 10**-digits else f"{value:.{digits}f}"


def in_words(number: Estimate, digits: int, missing: str = "missing") -> str:
    """``0.412 (0.390 to 0.434)``, without the bracket where there is no interval."""
    return number.written(lambda end: written(end, digits)) if math.isfinite(number.value) else missing


def simplified(x: NDArray[np.float64], y: NDArray[np.float64], tolerance: float = 0.15) -> tuple[NDArray[np.float64], ...]:
    """The same line (x, y) through fewer points, nowhere off by more than ``tolerance`` (Douglas & Peucker 1973)."""
    if len(x) < 3:
        return x, y
    run, rise = x[-1] - x[0], y[-1] - y[0]
    distance = np.abs(run * (y - y[0]) - rise * (x - x[0])) / (math.hypot(run, rise) or 1.0)
    far = int(distance.argmax())
    if distance[far] <= tolerance:
        return x[[0, -1]], y[[0, -1]]
    # The farthest point belongs to both halves, and once to the whole.
    halves = simplified(x[: far + 1], y[: far + 1], tolerance), simplified(x[far:], y[far:], tolerance)
    return tuple(np.append(before[:-1], after) for before, after in zip(*halves, strict=True))


def opening(height: float, title: str, alt: str) -> list[str]:
    """The first pieces of a panel: the picture with its alternative text, and its title."""
    size = f"viewBox='0 0 {WIDTH} {height:.0f}' width='{WIDTH}' height='{height:.0f}'"
    font = f"font-family='system-ui, sans-serif' font-size='12' fill='{PAGE_COLOUR}'"
    return [f"<svg {size} role='img' {font} aria-label='", escaped(alt), f"'>{text(0, 14, title, weight=600)}"]


def text(x: float, y: float, words: str, anchor: str = "", weight: int = 400, faint: bool = False) -> str:
    """Some words at a place."""
    style = f" text-anchor='{anchor}'" if anchor else ""
    style += f" font-weight='{weight}'" if weight != 400 else ""
    style += " fill-opacity='.75'" if faint else ""
    return f"<text x='{x:.1f}' y='{y:.1f}'{style}>{escaped(words)}</text>"


def escaped(words: str) -> str:
    """Words as XML takes them: it has no place for control characters, escaped or not."""
    return html.escape(visible(words))
