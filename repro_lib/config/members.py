"""The earlier models that a configuration needs, as cells of their own: members of ensembles, teachers, starts. No torch.

Member m of trial j is trial j of the same configuration without remedies, with seeds 1000 x m further on; m = 0 is the trial
itself. So ensembles of 2, 3 and 5 are nested and share members with other cells, and no two trials of a cell share any."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from repro_lib.config import Config
from repro_lib.config.settings import MEMBER_SEEDS, NEUTRAL

# A teacher has none of them. From which part of the training text it draws is none: it sees what the trial sees.
_REMEDIES = NEUTRAL.keys() - {"text_share"}


@dataclass(frozen=True)
class Member:
    """An earlier cell, what it is needed for, and its trial (from 1) that is; None: for each trial the one of its number."""

    role: Literal["ensemble", "teacher", "start"]
    config: Config
    trial: int | None = None


def needed(config: Config) -> list[Member]:
    """All earlier models of a configuration, in the order in which they are asked; those of an ensemble keep its remedies."""
    if config.ensemble > 1:
        return [Member("ensemble", _member(config, m, ("ensemble", "ensemble_rule"))) for m in range(config.ensemble)]
    own = range(1, config.teachers + 1) if config.distill_weight else ()
    found = [Member("teacher", _member(config, m)) for m in own]
    if config.anchor_weight:
        found.append(Member("teacher", _member(config, 1, trials=1), 1))
    if config.warm_share:
        found.append(Member("start", _member(config, 1, trials=1, text_share=config.text_share * config.warm_share), 1))
    return found


def members(config: Config) -> list[Config]:
    """The configurations whose cells a configuration needs before it can be trained; most need none."""
    return [member.config for member in needed(config)]


def _member(config: Config, m: int, without: Collection[str] = _REMEDIES, **changes: Any) -> Config:
    changes |= {"seed": config.seed + MEMBER_SEEDS * m}
    # Nobody chose what sets it apart by hand; without a remedy it is as if nobody had asked for one.
    plain = config.with_values("base", **{name: NEUTRAL[name] for name in without})
    return plain.with_values("arm", **{name: value for name, value in changes.items() if value != getattr(config, name)})
