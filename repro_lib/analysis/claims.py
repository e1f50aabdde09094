"""The earlier study's claims, and the verdict of any study's own measurements on each.

What was published, and how each claim is read, is data in ``claims.toml`` beside this file; the rules that decide are in
``claim_rules``, and a claim there asks for one by name. Nothing there is a result of this suite."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from repro_lib.analysis.claim_rules import DATA, REMARKS, RULES, Measured
from repro_lib.analysis.evidence import Evidence
from repro_lib.analysis.frames import METRICS
from repro_lib.analysis.verdicts import Judgement, Node, judge_node


@dataclass(frozen=True)
class Claim:
    """Something the earlier study published.

    ``text``: the claim in one sentence; ``published``: its numbers in words; ``reading``: what has to be so for it to hold
    here; ``rule``: the checks that decide it, by one metric; ``metrics``: those it can be judged by. ``by_construction``:
    whether it could not have come out otherwise. ``note``: what has to be known beside the verdict; ``remark``: so, measured.
    """

    id: str
    group: str
    text: str
    published: str
    reading: str
    rule: Callable[[Measured], Node]
    metrics: Collection[str] = field(default_factory=lambda: METRICS)
    by_construction: bool = False
    note: str = ""
    remark: Callable[[Measured], str] = lambda of: ""

    def said_beside(self, evidence: Evidence) -> str:
        """What has to be known beside the verdict by relative PD, in sentences; often nothing."""
        return " ".join(filter(None, [self.note, self.remark(Measured(evidence, "relative_pd"))]))


def judge(claim: Claim | str, evidence: Evidence, metric: str = "relative_pd") -> Judgement:
    """The verdict on a claim (or the id of one) from what a study measured.

    Raises KeyError for an unknown id, ValueError for a metric that the claim cannot be judged by."""
    known = {known.id: known for known in CLAIMS}
    if isinstance(claim, str) and claim not in known:
        raise KeyError(f"unknown claim {claim!r}; known: {', '.join(known)}")
    claim = known[claim] if isinstance(claim, str) else claim
    # Another metric has another scale: an absolute relative PD says nothing about it.
    if metric not in claim.metrics:
        raise ValueError(f"{claim.id} can be judged by {', '.join(claim.metrics)}, not by {metric}")
    return judge_node(claim.rule(Measured(evidence, metric)))


def _claim(rule: str, arguments: dict[str, Any] | None = None, remark: str | None = None, **words: Any) -> Claim:
    beside: dict[str, Any] = {"remark": REMARKS[remark]} if remark else {}
    return Claim(**words, **beside, rule=partial(RULES[rule], **(arguments or {})))


CLAIMS: tuple[Claim, ...] = tuple(_claim(**entry) for entry in DATA["claim"])
