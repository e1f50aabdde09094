"""The relative PDs that somebody chose for synthetic results, by the names of cells, activations and models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from repro_lib.config import MODEL_DEFAULTS, NEGATIVE_CONTROL, check_model
from repro_lib.models.activations import canonical_activation

DEFAULT_PD = 0.5


class SyntheticError(ValueError):
    """A synthetic result that cannot be made; the message says why, and what to do."""


@dataclass(frozen=True)
class ChosenPD:
    """Relative PDs by name. The most specific one counts: cell, then activation, then model, then ``default``."""

    default: float = DEFAULT_PD
    by_name: dict[str, float] = field(default_factory=dict)

    @classmethod
    def parse(cls, words: Sequence[str]) -> ChosenPD:
        """From ``0.5`` and ``NAME=0.5``, where NAME is a model, an activation or ``model-activation``."""
        by_name: dict[str, float] = {}
        for word in words:
            name, _, given = word.rpartition("=")
            try:
                value = float(given)
            except ValueError:
                raise SyntheticError(f"a relative PD is given as a number or as NAME=number, got {word!r}") from None
            name = _canonical_name(name)
            if name in by_name:
                raise SyntheticError(f"the relative PD {f'of {name} ' if name else ''}is given twice; give it once")
            by_name[name] = value
        return cls(by_name.pop("", DEFAULT_PD), by_name)

    def of(self, model: str, activation: str) -> float:
        """The PD of a cell. The negative control has no activation, so a PD of an activation does not reach it."""
        names = [f"{model}-{activation}", *([] if model == NEGATIVE_CONTROL else [activation]), model]
        return next((self.by_name[name] for name in names if name in self.by_name), self.default)


def _canonical_name(name: str) -> str:
    model, hyphen, activation = name.partition("-")
    if not name or name in MODEL_DEFAULTS:
        return name
    if hyphen:
        return f"{check_model(model)}-{canonical_activation(activation)}"
    try:
        return canonical_activation(name)
    except ValueError:
        known = f"a model ({', '.join(MODEL_DEFAULTS)}), an activation such as gelu, or model-activation"
        raise SyntheticError(f"--relative-pd names {name!r}, which is no name of {known}") from None
