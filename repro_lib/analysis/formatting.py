"""Numbers and words as people read them: a dash for what is missing, a mark on what is synthetic, markup that does nothing."""

import math
import unicodedata

import pandas as pd

from repro_lib.analysis.notes import visible
from repro_lib.metrics.uncertainty import Estimate, rounded


def with_interval(row: pd.Series, name: str, digits: int) -> str:
    """``0.412 (0.390 to 0.434)``; no bracket where there is no interval, a dash where there is no value.
    A number of a synthetic cell says so."""
    return marked(format(Estimate.in_row(row, name), f".{digits}f"), row.get("synthetic", False))


def cell_number(row: pd.Series, name: str, digits: int) -> str:
    """A rounded number of a cell, marked where the cell is synthetic, or a dash where it is missing."""
    return marked(number(row[name], digits), row.get("synthetic", False))


def number(value: float | None, digits: int) -> str:
    """A rounded number, or a dash where it is missing."""
    return rounded(math.nan if value is None else value, f".{digits}f")


def marked(text: str, synthetic: bool) -> str:
    """The text, with a mark where what it says is synthetic."""
    return f"{text} (synthetic)" if synthetic else text


def seen(text: str, marks: bool = True) -> str:
    """A text in which all but spaces and line ends can be seen: what directs the writing and other invisible characters by
    number, and with ``marks`` combining marks, which would fall on their neighbour, on a circle of dots."""

    def one(character: str) -> str:
        if marks and unicodedata.category(character)[0] == "M":
            return f"\N{DOTTED CIRCLE}{character}"
        return character if character.isprintable() or character in "\n\t" else f"⟨U+{ord(character):04X}⟩"

    return "".join(map(one, text))


def small(value: float) -> str:
    """A value to four digits after the point, or with an exponent where that would look like 0 and is not."""
    return "0" if value == 0 else f"{value:.4f}" if abs(value) >= 0.001 else f"{value:.1e}"


def unbroken(interval: str) -> str:
    """Keeps ``(0.1 to 0.2)`` on one line of a narrow column."""
    return interval.replace(" to ", "\N{NO-BREAK SPACE}to\N{NO-BREAK SPACE}")


# What Markdown, HTML or a formula could begin with. As entities, which every reader of Markdown knows.
_MARKUP = str.maketrans({character: f"&#{ord(character)};" for character in "&<>[]`*$\\"} | {"\n": " ", "\r": " "})


def literally(words: str) -> str:
    """Words that may come from a file (names of texts, flags, messages) as Markdown that shows them and does nothing else."""
    return visible(words.translate(_MARKUP))
