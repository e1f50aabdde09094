"""One definition of a what-if: parameters with the grid of their values, and what one sees for each of them.

A live kernel shows it with ipywidgets (``repro_lib.whatif.display``), a report with the whole grid computed beforehand
(``repro_lib.whatif.html``); both draw the same panels and say the same sentence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal, NamedTuple

from repro_lib.whatif.svg import Panel

Value = float | int | str


@dataclass(frozen=True)
class Parameter:
    """One control: the keyword of the function it is for, its label, its values and how each of them reads."""

    name: str
    label: str
    values: tuple[Value, ...]
    texts: tuple[str, ...]
    default: Value
    # A slider for values that have an order, a choice for names.
    kind: Literal["slider", "choice"]

    def __post_init__(self) -> None:
        if len(self.texts) != len(self.values) or len(set(self.texts)) != len(self.texts):
            raise ValueError(f"parameter {self.name!r} needs one text per value, all different: {self.texts}")
        if self.default not in self.values:
            raise ValueError(f"parameter {self.name!r}: the default {self.default!r} is none of its values {self.values}")


class View(NamedTuple):
    """What one sees for one combination of values: panels side by side, and one sentence about them."""

    panels: tuple[Panel, ...]
    sentence: str


@dataclass(frozen=True)
class WhatIf:
    """A question with controls: ``see`` takes one value per parameter, by name, and returns the view.

    ``name`` is for programs (letters, digits, hyphens), ``title`` for people.
    """

    name: str
    title: str
    parameters: tuple[Parameter, ...]
    see: Callable[..., View]
    # A hand moves a slider to and fro, and a page holds the whole grid: each view is made once.
    _seen: dict[tuple[Value, ...], View] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        # It becomes an attribute of the page, where nothing needs to be escaped then.
        if not re.fullmatch(r"[a-z][a-z0-9-]*", self.name):
            raise ValueError(f"the name of a what-if is made of small letters, digits and hyphens, got {self.name!r}")

    def view(self, **values: Value) -> View:
        """The view for these values; parameters that are not named have their default. ValueError off the grid."""
        if unknown := values.keys() - {parameter.name for parameter in self.parameters}:
            raise ValueError(f"{self.name} has no parameter {', '.join(sorted(unknown))}")
        # In the order of the parameters, whatever the order in which they were named.
        chosen = {parameter.name: values.get(parameter.name, parameter.default) for parameter in self.parameters}
        for parameter in self.parameters:
            if chosen[parameter.name] not in parameter.values:
                raise ValueError(f"{self.name}: {parameter.name} = {chosen[parameter.name]!r} is none of {parameter.values}")
        key = tuple(chosen.values())
        if key not in self._seen:
            self._seen[key] = self.see(**chosen)
        return self._seen[key]

    @property
    def movable(self) -> tuple[Parameter, ...]:
        """The parameters that get a control; of one value there is nothing to move."""
        return tuple(parameter for parameter in self.parameters if len(parameter.values) > 1)

    def grid(self) -> Iterator[dict[str, Value]]:
        """Every combination of values, the last parameter changing fastest."""
        for values in product(*(parameter.values for parameter in self.parameters)):
            yield {parameter.name: value for parameter, value in zip(self.parameters, values, strict=True)}


def slider(name: str, label: str, values: Sequence[Value], default: Value, text: Callable[[Any], str] = str) -> Parameter:
    """A parameter whose values have an order."""
    return Parameter(name, label, tuple(values), tuple(map(text, values)), default, "slider")


def choice(
    name: str, label: str, values: Sequence[Value], default: Value | None = None, text: Callable[[Any], str] = str
) -> Parameter:
    """A parameter that is one of several names; the default is the first of them."""
    return Parameter(name, label, tuple(values), tuple(map(text, values)), values[0] if default is None else default, "choice")
