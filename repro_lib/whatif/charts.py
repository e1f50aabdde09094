"""The two kinds of small charts: bars with intervals, and lines, dots and a shaded area over two axes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from repro_lib.metrics.uncertainty import Estimate
from repro_lib.whatif.svg import (
    FAINT,
    LETTER,
    PAGE_COLOUR,
    WIDTH,
    escaped,
    in_words,
    nice_ticks,
    opening,
    simplified,
    text,
    written,
)

# Heights of the title, a row of bars, a plot, and an axis with its numbers and its label; room beside the plot. Fixed, so
# that charts that stand side by side have their axes at one height, and a control never moves one.
_TITLE, _ROW, _PLOT, _AXIS, _LEFT, _RIGHT = 26, 23, 190, 34, 46, 10
_FLOOR, _END = _TITLE + _PLOT, WIDTH - _RIGHT
_NUMBERS = 46  # room for the number at the end of a bar
_LONGEST = 18  # letters of a name beside its bar

Floats = Sequence[float] | NDArray[np.float64]


def alone(value: float) -> Estimate:
    """A number without an interval."""
    return Estimate(value, math.nan, math.nan, 0)


@dataclass(frozen=True)
class Bar:
    """One row: a number, with its interval where it has one. ``words`` stand in place of a number that is missing."""

    label: str
    number: Estimate
    colour: str
    words: str = "missing"
    strong: bool = False


@dataclass(frozen=True)
class BarPanel:
    """Horizontal bars from 0 to ``limit``; the same limit for all values of a control, so that bars move and axes do not."""

    title: str
    bars: tuple[Bar, ...]
    limit: float
    digits: int = 3

    def pieces(self) -> list[str]:
        """The text of the SVG element, cut so that pictures that differ little have most pieces in common."""
        left = 12 + LETTER * max((min(len(bar.label), _LONGEST) for bar in self.bars), default=0)
        width = WIDTH - left - _NUMBERS
        bottom = _TITLE + _ROW * len(self.bars)
        parts = opening(bottom + 22, self.title, self.alt())
        # From 0 on: the lengths of bars are compared, and a bar that starts elsewhere has no length.
        for tick in nice_ticks(0, self.limit):
            x = left + width * tick / self.limit
            parts.append(f"<path d='M{x:.1f} {_TITLE - 4}V{bottom}' {FAINT}/>")
            parts.append(text(x, bottom + 15, f"{tick:g}", anchor="middle", faint=True))
        rows = [(bar, _TITLE + (row + 0.5) * _ROW) for row, bar in enumerate(self.bars)]
        for bar, y in rows:
            label = bar.label if len(bar.label) <= _LONGEST else f"{bar.label[: _LONGEST - 1]}…"
            parts.append(text(left - 7, y + 4, label, anchor="end", weight=700 if bar.strong else 400))
        return [*parts, *self._bars(rows, left, width), "</svg>"]

    def _bars(self, rows: list[tuple[Bar, float]], left: float, width: float) -> list[str]:
        def place(value: float) -> float:
            # An interval may reach beyond the axis: it is cut there, and never lies over the numbers.
            return left + width * min(max(value / self.limit, 0.0), 1.0)

        # Numbers apart from what surrounds them: two pictures then differ in a few short pieces, and a page stores each once.
        known = [(bar, y) for bar, y in rows if math.isfinite(bar.number.value)]
        parts = [f"<g stroke-width='{_ROW - 8}' stroke-opacity='.8'>"]
        for bar, y in known:
            parts += [f"<path stroke='{bar.colour}' d='M{left:.1f} {y}H", f"{place(bar.number.value):.1f}", "'/>"]
        parts.append(f"</g><g stroke='{PAGE_COLOUR}' stroke-width='1.4' fill='none'>")
        for bar, y in ((bar, y) for bar, y in known if bar.number.has_interval):
            low, high = place(bar.number.low), place(bar.number.high)
            parts += ["<path d='", f"M{low:.1f} {y}H{high:.1f}M{low:.1f} {y - 4}v8M{high:.1f} {y - 4}v8", "'/>"]
        parts.append("</g><g text-anchor='end'>")
        for bar, y in known:
            weight = " font-weight='700'" if bar.strong else ""
            parts += [f"<text x='{WIDTH - 2}' y='{y + 4}'{weight}>", written(bar.number.value, self.digits), "</text>"]
        gaps = (text(left + 4, y + 4, bar.words, faint=True) for bar, y in rows if not math.isfinite(bar.number.value))
        return [*parts, "</g>", *gaps]

    def alt(self) -> str:
        """What the picture shows, in words."""
        return f"{self.title}: {', '.join(f'{b.label} {in_words(b.number, self.digits, b.words)}' for b in self.bars)}"


@dataclass(frozen=True)
class Axis:
    """From where to where an axis runs and what it is of; ``ticks`` as (place, words), by default round numbers."""

    label: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...] = ()

    def share(self, values: ArrayLike) -> NDArray[np.float64]:
        """How far along the axis the values lie, 0 to 1; what is outside lies at the end."""
        return np.clip((np.asarray(values, dtype=np.float64) - self.low) / (self.high - self.low), 0.0, 1.0)

    def marks(self) -> tuple[tuple[float, str], ...]:
        """Where something is written at the axis, and what."""
        return self.ticks or tuple((tick, f"{tick:g}") for tick in nice_ticks(self.low, self.high))


@dataclass(frozen=True)
class Line:
    """A line through points (x ascending); ``label`` names it in the key, ``dash`` is an SVG dash pattern."""

    label: str
    x: Floats
    y: Floats
    colour: str
    dash: str = ""
    dots: bool = False


@dataclass(frozen=True)
class Dot:
    """A point, with intervals to both sides where there are any; ``label`` names it in the key, a strong one has a ring."""

    label: str
    x: Estimate
    y: Estimate
    colour: str
    strong: bool = False


@dataclass(frozen=True)
class LinePanel:
    """Lines, dots and a shaded area (``area``: x and heights, in the unit of y) over two axes.

    ``marker`` is a vertical line at the value of a control. ``about``: the alternative text.
    """

    title: str
    x: Axis
    y: Axis
    about: str
    lines: tuple[Line, ...] = ()
    dots: tuple[Dot, ...] = ()
    area: tuple[Floats, Floats] | None = None
    marker: float | None = None

    def pieces(self) -> list[str]:
        """As those of ``BarPanel``."""
        key, height = self._key(_FLOOR + _AXIS + 8)
        parts = [*opening(height, self.title, self.alt()), *self._axes()]
        if self.area is not None:
            xs, ys = self._places(*self.area)
            corners = f"{xs[0]:.1f},{_FLOOR} {_points(xs, ys)} {xs[-1]:.1f},{_FLOOR}"
            parts.append(f"<polygon points='{corners}' fill='{PAGE_COLOUR}' fill-opacity='.16'/>")
        if self.marker is not None:
            look = f"stroke='{PAGE_COLOUR}' stroke-opacity='.55' stroke-dasharray='3 3'"
            parts.append(f"<path d='M{self._across(self.marker):.1f} {_TITLE}v{_PLOT}' {look}/>")
        # Dots last: what a point is of matters more than the line that passes through it.
        drawn = (*map(self._line, self.lines), *map(self._dot, self.dots))
        return [*parts, *(piece for shape in drawn for piece in shape), *key, "</svg>"]

    def alt(self) -> str:
        """What the picture shows, in words."""
        return f"{self.title}: {self.about}"

    def _places(self, x: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return _LEFT + (_END - _LEFT) * self.x.share(x), _TITLE + _PLOT * (1 - self.y.share(y))

    def _across(self, x: float) -> float:
        return float(self._places(x, self.y.low)[0])

    def _axes(self) -> list[str]:
        parts = []
        for value, words in self.y.marks():
            y = float(self._places(self.x.low, value)[1])
            parts.append(f"<path d='M{_LEFT} {y:.1f}H{_END}' {FAINT}/>")
            parts.append(text(_LEFT - 5, y + 4, words, anchor="end", faint=True))
        for value, words in self.x.marks():
            x = self._across(value)
            parts.append(f"<path d='M{x:.1f} {_TITLE}v{_PLOT}' {FAINT}/>")
            parts.append(text(x, _FLOOR + 15, words, anchor="middle", faint=True))
        parts.append(text((_LEFT + _END) / 2, _FLOOR + 31, self.x.label, anchor="middle"))
        middle = f"{_TITLE + _PLOT / 2:.0f}"
        turned = f"text-anchor='middle' transform='rotate(-90 10 {middle})'"
        return [*parts, f"<text x='10' y='{middle}' {turned}>{escaped(self.y.label)}</text>"]

    def _line(self, line: Line) -> list[str]:
        x, y = self._places(line.x, line.y)
        # A gap is bridged: the neighbours of a missing point are numbers, and a broken line would look like two.
        known = np.isfinite(y)
        x, y, points = _thinned(x[known].tobytes(), y[known].tobytes())
        look = f"stroke='{line.colour}' stroke-width='2'{_dashed(line)}"
        dots = zip(x, y, strict=True) if line.dots else ()
        circles = [f"<circle cx='{a:.1f}' cy='{b:.1f}' r='2.6' fill='{line.colour}'/>" for a, b in dots]
        return [f"<polyline points='{points}' fill='none' {look}/>", *circles]

    def _dot(self, dot: Dot) -> list[str]:
        x, y = self._places([dot.x.value, dot.x.low, dot.x.high], [dot.y.value, dot.y.low, dot.y.high])
        path = f"M{x[1]:.1f} {y[0]:.1f}H{x[2]:.1f}" if dot.x.has_interval else ""
        path += f"M{x[0]:.1f} {y[1]:.1f}V{y[2]:.1f}" if dot.y.has_interval else ""
        thin, centre = "stroke-width='1.2' stroke-opacity='.6' fill='none'", f"cx='{x[0]:.1f}' cy='{y[0]:.1f}'"
        cross = [f"<path d='{path}' stroke='{dot.colour}' {thin}/>"] if path else []
        ring = [f"<circle {centre} r='9' fill='none' stroke='{PAGE_COLOUR}' stroke-width='2'/>"] if dot.strong else []
        return [*cross, f"<circle {centre} r='4.5' fill='{dot.colour}'/>", *ring]

    def _key(self, top: float) -> tuple[list[str], float]:
        """The names of lines and dots below the chart, and the height of everything."""
        parts, x, y = [], float(_LEFT), top + 8
        for named in (named for named in (*self.lines, *self.dots) if named.label):
            # A sample of the line and some room beside the words; SVG itself does not wrap.
            width = 38 + LETTER * len(named.label)
            if x + width > WIDTH and x > _LEFT:
                x, y = float(_LEFT), y + 17
            if isinstance(named, Line):
                sample = f"<path d='M{x:.1f} {y - 4}h22' stroke='{named.colour}' stroke-width='2.5'{_dashed(named)}/>"
            else:
                sample = f"<circle cx='{x + 16:.1f}' cy='{y - 4}' r='4.5' fill='{named.colour}'/>"
            strong = isinstance(named, Dot) and named.strong
            parts += [sample, text(x + 27, y, named.label, weight=700 if strong else 400)]
            x += width
        return parts, y + 6 if parts else top


# Anything that can be drawn as one SVG picture.
Panel: TypeAlias = BarPanel | LinePanel


# A page holds the same curve in hundreds of views, and thinning one takes a millisecond.
@lru_cache(maxsize=1024)
def _thinned(x: bytes, y: bytes) -> tuple[NDArray[np.float64], NDArray[np.float64], str]:
    a, b = simplified(np.frombuffer(x), np.frombuffer(y))
    return a, b, _points(a, b)


def _points(x: NDArray[np.float64], y: NDArray[np.float64]) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))


def _dashed(line: Line) -> str:
    return f" stroke-dasharray='{line.dash}'" if line.dash else ""
