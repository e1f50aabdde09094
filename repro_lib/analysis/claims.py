"""The earlier study's claims, and the verdict of any study's own measurements on each.

What was published, and how each claim is read, is data in ``claims.toml`` beside this file; the rules are in
``claim_rules``. Nothing there is a result of this suite.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd

from repro_lib.analysis.claim_rules import DATA, RULES
from repro_lib.analysis.evidence import Evidence
from repro_lib.analysis.study import METRICS
from repro_lib.analysis.verdicts import Judgement, Node, judge_node

Rule = Callable[[Evidence, str], Node]


@dataclass(frozen=True)
class Claim:
    """Something the earlier study published.

    ``text``: the claim in one sentence; ``published``: its numbers in words; ``reading``: what has to be so for it to
    hold here; ``rule``: the checks that decide it, from the evidence of a study by one metric. ``metrics``: those it can
    be judged by (an absolute relative PD by no other).
    """

    id: str
    group: str
    text: str
    published: str
    reading: str
    rule: Rule
    metrics: tuple[str, ...] = METRICS


def judge(claim: Claim | str, pairs: pd.DataFrame | Evidence, metric: str = "relative_pd") -> Judgement:
    """The verdict on a claim (or the id of one) from a frame of pairs (``evidence.pairs_between``) or evidence.

    Raises KeyError for an unknown id, ValueError for a metric that the claim cannot be judged by.
    """
    claim = claim_by_id(claim) if isinstance(claim, str) else claim
    if metric not in claim.metrics:
        raise ValueError(f"{claim.id} can be judged by {', '.join(claim.metrics)}, not by {metric}")
    evidence = pairs if isinstance(pairs, Evidence) else Evidence.of(pairs)
    return judge_node(claim.rule(evidence, metric))


def claim_by_id(name: str) -> Claim:
    """The claim with this id; KeyError lists the known ones."""
    for claim in CLAIMS:
        if claim.id == name:
            return claim
    raise KeyError(f"unknown claim {name!r}; known: {', '.join(claim.id for claim in CLAIMS)}")


def _claim(rule: str, arguments: dict[str, Any] | None = None, metrics: Sequence[str] = METRICS, **words: str) -> Claim:
    """A claim from its entry in ``claims.toml``."""
    return Claim(**words, rule=partial(RULES[rule], **(arguments or {})), metrics=tuple(metrics))


CLAIMS: tuple[Claim, ...] = tuple(_claim(**entry) for entry in DATA["claim"])
