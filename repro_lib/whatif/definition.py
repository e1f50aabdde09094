"""One definition of a what-if: parameters with the grid of their values, and what one sees for each of them.

``repro_lib.whatif.display`` shows it, in a live kernel with ipywidgets, in a report with the whole grid computed beforehand;
both draw the same panels and say the same sentence.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal, NamedTuple

from repro_lib.whatif.charts import Panel

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


class View(NamedTuple):
    """What one sees for one combination of values: panels side by side, and one sentence about them."""

    panels: tuple[Panel, ...]
    sentence: str


@dataclass(frozen=True)
class WhatIf:
    """A question with controls: ``see`` takes one value per parameter, by name, and returns the view.

    ``name`` is for programs (letters, digits and hyphens: it becomes an attribute of the page), ``title`` for people.
    """

    name: str
    title: str
    parameters: tuple[Parameter, ...]
    see: Callable[..., View]
    # A hand moves a slider to and fro, and a page holds the whole grid: each view is made once.
    _seen: dict[tuple[Value, ...], View] = field(default_factory=dict, repr=False, compare=False)

    def view(self, **values: Value) -> View:
        """The view for these values; parameters that are not named have their default."""
        # In the order of the parameters, whatever the order in which they were named.
        chosen = {parameter.name: parameter.default for parameter in self.parameters} | values
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
        names = [parameter.name for parameter in self.parameters]
        return (dict(zip(names, values, strict=True)) for values in product(*(p.values for p in self.parameters)))


def slider(name: str, label: str, values: Sequence[Value], default: Value, text: Callable[[Any], str] = str) -> Parameter:
    """A parameter whose values have an order."""
    return Parameter(name, label, tuple(values), tuple(map(text, values)), default, "slider")


def choice(
    name: str, label: str, values: Sequence[Value], default: Value | None = None, text: Callable[[Any], str] = str
) -> Parameter:
    """A parameter that is one of several names; the default is the first of them."""
    return Parameter(name, label, tuple(values), tuple(map(text, values)), values[0] if default is None else default, "choice")
