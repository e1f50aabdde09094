"""Numbers and words as people read them: a dash for what is missing, a mark on what is synthetic, markup that does nothing."""

import math
import unicodedata
from collections.abc import Iterable

import numpy as np
import pandas as pd

from repro_lib.analysis.notes import visible
from repro_lib.metrics.uncertainty import Estimate, rounded

MINUS = "\N{MINUS SIGN}"


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


def counted(n: int, noun: str, verb: str = "") -> str:
    """``1 cell``, ``0 cells``; with a verb of the plural, which is ``is`` or ``was`` after one: ``2 cells are``."""
    verb = {"are": "is", "were": "was"}.get(verb, verb) if n == 1 else verb
    return " ".join(filter(None, [f"{n:,}", noun if n == 1 or not noun else f"{noun}s", verb]))


def listed(names: Iterable[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    *before, last = names
    return f"{', '.join(before)} and {last}" if before else last


def seen(text: str, marks: bool = True) -> str:
    """A text in which all but spaces and line ends can be seen: what directs the writing and other invisible characters by
    number, and with ``marks`` combining marks, which would fall on their neighbour, on a circle of dots."""

    def one(character: str) -> str:
        if marks and unicodedata.category(character)[0] == "M":
            return f"\N{DOTTED CIRCLE}{character}"
        return character if character.isprintable() or character in "\n\t" else f"⟨U+{ord(character):04X}⟩"

    return "".join(map(one, text))


def small(value: float) -> str:
    """A value that may be near 0, with two digits that tell or four after the point: ``0.1234``, ``0.00056``.

    >>> small(0.12345), small(0.000561), small(1.04e-5), small(3e-7), small(0.0), small(math.nan)
    ('0.1235', '0.00056', '0.00001', 'under 0.000001', '0', '–')
    """
    if value == 0 or math.isnan(value):
        return "0" if value == 0 else rounded(value, "")
    if abs(value) < 1e-6:
        return "under 0.000001"
    return f"{value:.4f}" if abs(value) >= 0.001 else np.format_float_positional(value, 2, fractional=False, trim="-")


def of_arms(factor: str, text: str) -> str:
    """The text as it is where a study is about activations; otherwise of the arms of that study."""
    words = {"ACTIVATION": "ARM", "Activation": "Arm", "an activation": "an arm", "activation": "arm"}
    for activation, arm in words.items() if factor != "activation" else ():
        text = text.replace(activation, arm)
    return text


def chance(p: float) -> str:
    """A p value with two digits, or that it is under 0.0001: ``0.031``.

    >>> chance(0.0312), chance(2.6e-06), chance(1.0), chance(math.nan)
    ('0.031', 'under 0.0001', '1', '–')
    """
    return "under 0.0001" if p < 0.0001 else rounded(p, ".2g")


# What Markdown, HTML or a formula could begin with. As entities, which every reader of Markdown knows.
_MARKUP = str.maketrans({character: f"&#{ord(character)};" for character in "&<>[]`*$\\"} | {"\n": " ", "\r": " "})


def literally(words: str) -> str:
    """Words that may come from a file (names of texts, flags, messages) as Markdown that shows them and does nothing else."""
    return visible(words.translate(_MARKUP))
