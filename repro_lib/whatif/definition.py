"""One definition of a what-if: controls, and one tidy frame of what is measured and said at every position of them.

A row belongs to the positions that its parameters name, and to all where it names none. ``chart`` draws the same frame with
Vega-Altair, for JupyterLab, pages and files."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from repro_lib.metrics.uncertainty import Estimate
from repro_lib.whatif.wording import in_words

if TYPE_CHECKING:
    from altair import LayerChart

Value = float | int | str


@dataclass(frozen=True)
class Parameter:
    """One control: the name of its column (none of Vega's own, as width or shown), its label, its values, how they read."""

    name: str
    label: str
    values: tuple[Value, ...]
    default: Value
    texts: tuple[str, ...]


def control(
    name: str, label: str, values: Sequence[Value], default: Value | None = None, text: Callable[[Any], str] = str
) -> Parameter:
    """A parameter; the default is its first value."""
    return Parameter(name, label, tuple(values), values[0] if default is None else default, tuple(map(text, values)))


class Row(NamedTuple):
    """One number with its interval, of one of the what-if's measures; ``missing`` stands where there is none."""

    label: str
    number: Estimate
    measure: str = ""
    digits: int = 3
    missing: str = "missing"

    def columns(self) -> dict[str, Any]:
        """As they stand in the frame; what is not finite has no place on an axis."""
        numbers = {name: getattr(self.number, name) for name in ("value", "low", "high")}
        numbers = {name: value if math.isfinite(value) else math.nan for name, value in numbers.items()}
        reading = in_words(self.number, self.digits, self.missing)
        return {"measure": self.measure, "label": self.label, **numbers, "n": self.number.n or None, "reading": reading}


class View(NamedTuple):
    """What one sees for one combination of values: numbers, and one sentence about them."""

    rows: Sequence[Row]
    sentence: str


@dataclass(frozen=True, eq=False)
class WhatIf:
    """A question with controls; a notebook shows its chart.

    ``name`` is for programs (letters, digits and hyphens), ``title`` for people. ``along``: the column along which lines run;
    without one, each label has a row with its number. ``looks``: colour and dashes of a label that is no activation."""

    name: str
    title: str
    parameters: tuple[Parameter, ...]
    # The columns of ``Row`` behind one for each parameter; and ``sentence`` behind one for each.
    frame: pd.DataFrame
    sentences: pd.DataFrame
    along: str = ""
    looks: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, title: str, parameters: tuple[Parameter, ...], see: Callable[..., View], **more: Any) -> WhatIf:
        """With a view for every combination of values: ``see`` takes one per parameter, by name."""
        rows, sentences = [], []
        for values in product(*(parameter.values for parameter in parameters)):
            place = dict(zip([parameter.name for parameter in parameters], values, strict=True))
            view = see(**place)
            rows += [place | row.columns() for row in view.rows]
            sentences.append(place | {"sentence": view.sentence})
        return cls(name, title, parameters, pd.DataFrame(rows), pd.DataFrame(sentences), **more)

    def at(self, **values: Value) -> pd.DataFrame:
        """The rows of the frame for these values; parameters that are not named have their default."""
        return _matching(self.frame, self._place(values))

    def sentence(self, **values: Value) -> str:
        """What is said at these values."""
        return " ".join(_matching(self.sentences, self._place(values))["sentence"])

    @cached_property
    def chart(self) -> LayerChart:
        """The chart with its controls, to be shown, changed or saved."""
        from repro_lib.whatif.chart import draw

        return draw(self)

    def __repr__(self) -> str:
        return f"{self.title} {self.sentence()}"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        shown: Any = self.chart._repr_mimebundle_()  # a dictionary, from our renderer
        return shown | {"text/plain": repr(self)}

    def _place(self, values: Mapping[str, Value]) -> dict[str, Value]:
        return {parameter.name: parameter.default for parameter in self.parameters} | dict(values)


def _matching(frame: pd.DataFrame, place: Mapping[str, Value]) -> pd.DataFrame:
    for name, value in place.items():
        frame = frame[frame[name].isna() | (frame[name] == value)]
    return frame
