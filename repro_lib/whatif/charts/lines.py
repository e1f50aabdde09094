"""Lines, dots and a shaded area over two axes."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from repro_lib.whatif.charts.svg import FAINT, LETTER, WIDTH, nice_ticks, opening, simplified, text

# Heights of the title, of the axis with its numbers and its label, and of the plot; margins to the left and right. Fixed,
# so that charts that stand side by side have their axes at one height, and a control never moves one.
_TITLE, _AXIS, _LEFT, _RIGHT, _PLOT = 26, 34, 46, 10, 190


@dataclass(frozen=True)
class Axis:
    """From where to where an axis runs and what it is of; ``ticks`` as (place, words), by default round numbers."""

    label: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...] = ()

    def share(self, values: ArrayLike) -> NDArray[np.float64]:
        """How far along the axis the values lie, 0 to 1; what is outside lies at the end."""
        given = np.asarray(values, dtype=np.float64)
        return np.clip((given - self.low) / (self.high - self.low), 0.0, 1.0)

    def marks(self) -> tuple[tuple[float, str], ...]:
        """Where something is written at the axis, and what."""
        if self.ticks:
            return self.ticks
        return tuple((tick, f"{tick:g}") for tick in nice_ticks(self.low, self.high))


@dataclass(frozen=True)
class Line:
    """A line through points (x ascending); ``label`` names it in the key, ``dash`` is an SVG dash pattern."""

    label: str
    x: Sequence[float] | NDArray[np.float64]
    y: Sequence[float] | NDArray[np.float64]
    colour: str
    dash: str = ""
    dots: bool = False


@dataclass(frozen=True)
class Dot:
    """A point with intervals to both sides (NaN: none); ``label`` names it in the key, a strong one has a ring."""

    label: str
    x: float
    y: float
    colour: str
    left: float = math.nan
    right: float = math.nan
    low: float = math.nan
    high: float = math.nan
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
    area: tuple[Sequence[float] | NDArray[np.float64], Sequence[float] | NDArray[np.float64]] | None = None
    marker: float | None = None

    def pieces(self) -> list[str]:
        """See ``Panel``."""
        key, height = self._key(_TITLE + _PLOT + _AXIS + 8)
        parts = [*opening(height, self.title, self.alt()), *self._axes()]
        if self.area is not None:
            xs, ys = self._places(*self.area)
            points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))
            floor = _TITLE + _PLOT
            parts.append(
                f"<polygon points='{xs[0]:.1f},{floor} {points} {xs[-1]:.1f},{floor}' fill='currentColor' fill-opacity='.16'/>"
            )
        if self.marker is not None:
            x = self._places([self.marker], [self.y.low])[0][0]
            parts.append(
                f"<path d='M{x:.1f} {_TITLE}v{_PLOT}' stroke='currentColor' stroke-opacity='.55' stroke-dasharray='3 3'/>"
            )
        # Dots last: what a point is of matters more than the line that passes through it.
        for line in self.lines:
            parts += self._line(line)
        for dot in self.dots:
            parts += self._dot(dot)
        return [*parts, *key, "</svg>"]

    def alt(self) -> str:
        """See ``Panel``."""
        return f"{self.title}: {self.about}"

    def _places(self, x: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        width = WIDTH - _LEFT - _RIGHT
        return _LEFT + width * self.x.share(x), _TITLE + _PLOT * (1 - self.y.share(y))

    def _axes(self) -> list[str]:
        parts, right = [], WIDTH - _RIGHT
        for value, words in self.y.marks():
            y = self._places([self.x.low], [value])[1][0]
            parts.append(f"<path d='M{_LEFT} {y:.1f}H{right}' {FAINT}/>")
            parts.append(text(_LEFT - 5, y + 4, words, anchor="end", faint=True))
        for value, words in self.x.marks():
            x = self._places([value], [self.y.low])[0][0]
            parts.append(f"<path d='M{x:.1f} {_TITLE}v{_PLOT}' {FAINT}/>")
            parts.append(text(x, _TITLE + _PLOT + 15, words, anchor="middle", faint=True))
        parts.append(text((_LEFT + right) / 2, _TITLE + _PLOT + 31, self.x.label, anchor="middle"))
        middle = f"{_TITLE + _PLOT / 2:.0f}"
        turned = f"text-anchor='middle' transform='rotate(-90 10 {middle})'"
        parts.append(f"<text x='10' y='{middle}' {turned}>{html.escape(self.y.label)}</text>")
        return parts

    def _line(self, line: Line) -> list[str]:
        x, y = self._places(line.x, line.y)
        # A gap is bridged: the neighbours of a missing point are numbers, and a broken line would look like two.
        known = np.isfinite(y)
        x, y = simplified(x[known], y[known])
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
        dash = f" stroke-dasharray='{line.dash}'" if line.dash else ""
        parts = [f"<polyline points='{points}' fill='none' stroke='{line.colour}' stroke-width='2'{dash}/>"]
        if line.dots:
            parts += [f"<circle cx='{a:.1f}' cy='{b:.1f}' r='2.6' fill='{line.colour}'/>" for a, b in zip(x, y, strict=True)]
        return parts

    def _dot(self, dot: Dot) -> list[str]:
        ends = ((dot.left, dot.y), (dot.right, dot.y), (dot.x, dot.low), (dot.x, dot.high))
        x, y = self._places([dot.x, *(a for a, _ in ends)], [dot.y, *(b for _, b in ends)])
        path = ""
        if math.isfinite(dot.left):
            path += f"M{x[1]:.1f} {y[0]:.1f}H{x[2]:.1f}"
        if math.isfinite(dot.low):
            path += f"M{x[0]:.1f} {y[3]:.1f}V{y[4]:.1f}"
        thin = f"stroke='{dot.colour}' stroke-width='1.2' stroke-opacity='.6' fill='none'"
        parts = [f"<path d='{path}' {thin}/>"] if path else []
        parts.append(f"<circle cx='{x[0]:.1f}' cy='{y[0]:.1f}' r='4.5' fill='{dot.colour}'/>")
        if dot.strong:
            parts.append(f"<circle cx='{x[0]:.1f}' cy='{y[0]:.1f}' r='9' fill='none' stroke='currentColor' stroke-width='2'/>")
        return parts

    def _key(self, top: float) -> tuple[list[str], float]:
        """The names of lines and dots below the chart, and the height of everything."""
        parts, x, y = [], float(_LEFT), top + 8
        for named in (named for named in (*self.lines, *self.dots) if named.label):
            # A sample of the line and some room beside the words; SVG itself does not wrap.
            width = 38 + LETTER * len(named.label)
            if x + width > WIDTH and x > _LEFT:
                x, y = float(_LEFT), y + 17
            if isinstance(named, Line):
                dash = f" stroke-dasharray='{named.dash}'" if named.dash else ""
                parts.append(f"<path d='M{x:.1f} {y - 4}h22' stroke='{named.colour}' stroke-width='2.5'{dash}/>")
            else:
                parts.append(f"<circle cx='{x + 16:.1f}' cy='{y - 4}' r='4.5' fill='{named.colour}'/>")
            strong = isinstance(named, Dot) and named.strong
            parts.append(text(x + 27, y, named.label, weight=700 if strong else 400))
            x += width
        return parts, y + 6 if parts else top
