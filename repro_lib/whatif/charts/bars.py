"""Bars with intervals, one row per name."""

from __future__ import annotations

import math
from dataclasses import dataclass

from repro_lib.whatif.charts.svg import FAINT, LETTER, WIDTH, in_words, nice_ticks, opening, shortened, text, written

_ROW, _TITLE = 23, 26
_NUMBERS = 46  # room for the number at the end of a bar


@dataclass(frozen=True)
class Bar:
    """One row: a number with its interval (NaN: none). ``words`` stand in place of a number that is missing."""

    label: str
    value: float
    colour: str
    low: float = math.nan
    high: float = math.nan
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
        """See ``Panel``. Whatever does not change with the numbers is a piece of its own."""
        left = 12 + LETTER * max((min(len(bar.label), 18) for bar in self.bars), default=0)
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
            parts.append(text(left - 7, y + 4, shortened(bar.label, 18), anchor="end", weight=700 if bar.strong else 400))
        parts += self._bars(rows, left, width)
        return [*parts, "</svg>"]

    def _bars(self, rows: list[tuple[Bar, float]], left: float, width: float) -> list[str]:
        def place(value: float) -> float:
            # An interval may reach beyond the axis: it is cut there, and never lies over the numbers.
            return left + width * min(max(value / self.limit, 0.0), 1.0)

        # Numbers apart from what surrounds them: two pictures then differ in a few short pieces, and a page stores each once.
        known = [(bar, y) for bar, y in rows if math.isfinite(bar.value)]
        parts = [f"<g stroke-width='{_ROW - 8}' stroke-opacity='.8'>"]
        for bar, y in known:
            parts += [f"<path stroke='{bar.colour}' d='M{left:.1f} {y}H", f"{place(bar.value):.1f}", "'/>"]
        parts.append("</g><g stroke='currentColor' stroke-width='1.4' fill='none'>")
        for bar, y in known:
            if math.isfinite(bar.low):
                low, high = place(bar.low), place(bar.high)
                parts += ["<path d='", f"M{low:.1f} {y}H{high:.1f}M{low:.1f} {y - 4}v8M{high:.1f} {y - 4}v8", "'/>"]
        parts.append("</g><g text-anchor='end'>")
        for bar, y in known:
            weight = " font-weight='700'" if bar.strong else ""
            parts += [f"<text x='{WIDTH - 2}' y='{y + 4}'{weight}>", written(bar.value, self.digits), "</text>"]
        parts.append("</g>")
        return parts + [text(left + 4, y + 4, bar.words, faint=True) for bar, y in rows if not math.isfinite(bar.value)]

    def alt(self) -> str:
        """See ``Panel``."""
        return f"{self.title}: " + ", ".join(
            f"{bar.label} {in_words(bar.value, bar.low, bar.high, self.digits, bar.words)}" for bar in self.bars
        )
