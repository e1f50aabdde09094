"""The arms of a grid: its activations, the values of one setting (``--factor``), or a set of a profile's (``arms.toml``).

Arms with other values than the grid's own are cells without a notebook of their own: the notebooks of models show them."""

import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from repro_lib.config import PROFILES, REFERENCE, Config, ConfigError, check_profile
from repro_lib.config.members import members
from repro_lib.data import corpus_sha256
from repro_lib.grid.cells import Cell, GridRequest, plan_cells
from repro_lib.models.activations import canonical_activation
from repro_lib.store.designs import ACTIVATION, Design, DesignCell

_SETS = Path(__file__).with_name("arms.toml")
# These decide which text is scored, or how many models are trained: nothing that arms of one statistic could differ in.
_NO_FACTOR = {"corpus", "tokens", "vocab_size", "trials", "train_split", "device"}


@dataclass(frozen=True)
class Arm:
    """An activation with other values of the configuration; ``x4`` is four times what the grid's own is."""

    name: str
    activation: str
    values: Mapping[str, Any] = field(default_factory=dict)

    def config(self, model: str, profile: str | None, overrides: Mapping[str, Any]) -> Config:
        """Its configuration for a model. ConfigError for values that cannot be."""
        own = Config.for_model(model, profile, **overrides)
        values = {name: _times(own, name, value) for name, value in self.values.items()}
        return Config.for_model(model, profile, values, **overrides) if values else own


def plan_design(request: GridRequest) -> tuple[list[Cell], Design | None]:
    """The cells of a grid, and which arms they are; no design where these are activations compared with relu.
    ConfigError for an unknown factor, a value or a remedy that a model cannot have, and a reference that is no arm."""
    own = plan_cells(request.models, request.activations, request.profile, request.overrides)
    factor, arms = _arms_of(request)
    reference = _reference(request, arms)
    if factor == ACTIVATION and request.reference in (None, REFERENCE):
        return own, None
    digest, cells = corpus_sha256(own[0].config.corpus), dict[tuple[str, str, str], Cell]()
    for model, arm in product(dict.fromkeys(cell.model for cell in own), arms):
        config = arm.config(model, request.profile, request.overrides)
        variant = f"-{re.sub(r'[^a-z0-9.]+', '-', arm.name.lower()).strip('-')}" if factor != ACTIVATION else ""
        cell = Cell(model, arm.activation, config, config.sha256(digest), variant, arm.name, arm.values)
        if (alike := cells.setdefault(cell.key, cell)) is not cell:
            raise ConfigError(f"the arms {alike.arm!r} and {cell.arm!r} are the same; leave one of them out")
    about = {"factor": factor, "reference": reference, "profile": request.profile}
    known = [DesignCell(model_name=m, arm=c.arm, activation=a, config_sha256=sha) for (m, a, sha), c in cells.items()]
    return [*cells.values()], Design(cells=known, **about)


def with_members(cells: Sequence[Cell]) -> tuple[list[Cell], list[Cell]]:
    """The cells, each with the labels of those that it needs, and beside them those that none of them is."""
    known, digest_of_text = {cell.key: cell for cell in cells}, cache(corpus_sha256)
    beside: dict[tuple[str, str, str], Cell] = {}
    told = []
    for cell in cells:
        labels = []
        for config in members(cell.config):
            share = f"-text-{config.text_share:g}" if config.text_share != cell.config.text_share else ""
            digest = config.sha256(digest_of_text(config.corpus))
            own = Cell(cell.model, cell.activation, config, digest, f"-seed-{config.seed}{share}")
            # For one arm a single trial of it is enough, for another as many as that has.
            if own.key not in known and config.trials > (beside[own.key].config.trials if own.key in beside else 0):
                beside[own.key] = own
            labels.append((known.get(own.key) or beside[own.key]).label)
        told.append(replace(cell, needs=tuple(labels)))
    return told, list(beside.values())


def _arms_of(request: GridRequest) -> tuple[str, list[Arm]]:
    activations = [*dict.fromkeys(map(canonical_activation, request.activations))]
    named = PROFILES[check_profile(request.profile)].get("arms") if request.profile else None
    if named and request.factor:
        raise ConfigError(f"profile {request.profile} has arms of its own; leave out --factor, or choose another profile")
    if named:
        listed = tomllib.loads(_SETS.read_text(encoding="utf-8"))[named]
        return named, [_listed(name, values, activations[0]) for name, values in listed.items()]
    if not request.factor:
        return ACTIVATION, [Arm(activation, activation) for activation in activations]
    name, *given = request.factor
    values = {_in_words(value): value for value in (_typed(name, word) for word in given)}
    if len(values) < 2:
        raise ConfigError(f"--factor {name} needs two different values or more, got {' '.join(given) or 'none'}")
    several = len(activations) > 1
    return name, [
        Arm(f"{activation}, {name} {words}" if several else f"{name} {words}", activation, {name: value})
        for activation in activations
        for words, value in values.items()
    ]


def _listed(name: str, values: Mapping[str, Any], activation: str) -> Arm:
    return Arm(name, values.get("activation", activation), {k: value for k, value in values.items() if k != "activation"})


def _reference(request: GridRequest, arms: Sequence[Arm]) -> str:
    # In full, by its value, or (of activations that are crossed with values) by its activation.
    names = [arm.name for arm in arms]
    asked = request.reference
    if asked is None:
        return next((arm.name for arm in arms if arm.activation == REFERENCE), names[0])
    fitting = [name for name in names if name == asked]
    fitting += [arm.name for arm in arms if asked in (arm.activation, *map(_in_words, arm.values.values()))]
    if not fitting:
        raise ConfigError(f"--reference {asked!r} is no arm of this grid; its arms: {', '.join(names)}")
    return fitting[0]


def _typed(name: str, word: str) -> Any:
    if name not in Config.model_fields or name in _NO_FACTOR:
        known = [field for field in Config.model_fields if field not in _NO_FACTOR]
        near = difflib.get_close_matches(name, known, 1)
        meant = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
        raise ConfigError(f"{name!r} is no setting that arms could differ in; {meant}")
    kind = Config.model_fields[name].annotation
    if kind in (int, float) and not word.startswith("x"):
        try:
            return kind(word)
        except ValueError:
            raise ConfigError(f"--factor {name} takes {'whole ' if kind is int else ''}numbers, got {word!r}") from None
    return word


def _times(own: Config, name: str, value: Any) -> Any:
    if not (isinstance(value, str) and value.startswith("x") and isinstance(now := getattr(own, name, None), int | float)):
        return value
    try:
        return type(now)(float(value[1:]) * now)
    except ValueError:
        raise ConfigError(f"{name} = {value!r} is no multiple; expected a number behind the x, as in x2") from None


def _in_words(value: Any) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)
