"""From intervals to a verdict: supported, refuted, or not decided at N trials.

A claim is a tree of checks. A check says that a number lies in a region; it is *supported* if the number's interval lies
in the region, *refuted* if the interval lies outside, and not decided otherwise. All intervals of one claim are
simultaneous (Bonferroni over its checks), so that a claim is called the wrong way at most in 5 % of studies.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from repro_lib.analysis.contrasts import needed_for
from repro_lib.metrics.hypothesis_tests import SIGNIFICANCE
from repro_lib.metrics.uncertainty import TRIALS_FOR_CLAIM, TRIALS_FOR_INTERVAL, Estimate, t_quantile

Verdict = Literal["supported", "refuted", "not decided"]
SUPPORTED, REFUTED, NOT_DECIDED = "supported", "refuted", "not decided"


@dataclass(frozen=True)
class Check:
    """One number and the region in which a claim needs it: ``low`` < value < ``high``.

    ``about`` names the number and its unit; ``published`` is what the claim's authors gave for it, if anything.
    ``problem``: why there is no number. ``exact``: it comes from digests, so that no interval is needed. ``floor``: the
    number cannot be below it.
    ``simultaneous``: the interval at the claim's level, set by ``judge_node``.
    """

    about: str
    estimate: Estimate
    low: float = -math.inf
    high: float = math.inf
    published: float | None = None
    problem: str = ""
    exact: bool = False
    floor: float = -math.inf
    simultaneous: tuple[float, float] = (math.nan, math.nan)
    checks_in_claim: int = 1

    @property
    def verdict(self) -> Verdict:
        """From the simultaneous interval, where N allows one to be believed."""
        if self.problem:
            return NOT_DECIDED
        if self.exact:
            return SUPPORTED if self.low < self.estimate.value < self.high else REFUTED
        low, high = self.simultaneous
        if self.estimate.n < TRIALS_FOR_CLAIM or math.isnan(low):
            return NOT_DECIDED
        if self.low < low and high < self.high:
            return SUPPORTED
        return REFUTED if high <= self.low or low >= self.high else NOT_DECIDED

    @property
    def margin(self) -> float:
        """How far inside the region (positive) or outside (negative) the value lies, in standard errors."""
        value = self.estimate.value
        if self.problem or math.isnan(value):
            return math.nan
        distance = min(value - self.low, self.high - value)
        return distance / self.estimate.error if self.estimate.error > 0 else math.copysign(math.inf, distance)

    @property
    def trials_needed(self) -> int | None:
        """Trials per cell that would decide it if value and spread stay as they look; None where that cannot be said."""
        estimate = self.estimate
        if self.problem or not estimate.has_interval or not estimate.error > 0:
            return None
        alpha = SIGNIFICANCE / self.checks_in_claim
        one_bundle = estimate.degrees < estimate.n - 0.5
        distance = abs(self.margin) * estimate.error
        needed = needed_for(estimate, paired=one_bundle, alpha=alpha, distance=distance)
        return None if needed is None else max(needed, TRIALS_FOR_CLAIM)


@dataclass(frozen=True)
class All:
    """Holds if every part holds."""

    parts: Sequence[Node]


@dataclass(frozen=True)
class AnyOf:
    """Holds if at least one part holds."""

    parts: Sequence[Node]


Node = Check | All | AnyOf


@dataclass(frozen=True)
class Judgement:
    """The verdict on one claim by one metric, and what it rests on.

    ``decisive``: the check that made or blocks the verdict. ``n``: the smallest N among its cells; those that
    are missing count only where the verdict is open.
    ``trials_needed``: None where the verdict is there or nothing can be said.
    """

    verdict: Verdict
    decisive: Check
    checks: tuple[Check, ...] = field(repr=False)
    n: int = 0
    trials_needed: int | None = None

    @property
    def problems(self) -> tuple[str, ...]:
        """Why checks could not be made, each reason once."""
        return tuple(dict.fromkeys(check.problem for check in self.checks if check.problem))


def judge_node(node: Node) -> Judgement:
    """The verdict on a tree of checks."""
    total = sum(1 for _ in _leaves(node))
    node = _made_simultaneous(node, total)
    checks = tuple(_leaves(node))
    verdict = _verdict(node)
    decisive = _decisive(node, verdict)
    needed = _needed(node) if verdict == NOT_DECIDED else None
    # What is decided is so without the checks that could not be made.
    deciding = [check for check in checks if not check.problem] if verdict != NOT_DECIDED else []
    return Judgement(verdict, decisive, checks, min(check.estimate.n for check in deciding or checks), needed)


def _leaves(node: Node) -> Iterator[Check]:
    if isinstance(node, Check):
        yield node
    else:
        for part in node.parts:
            yield from _leaves(part)


def _made_simultaneous(node: Node, total: int) -> Node:
    if not isinstance(node, Check):
        return replace(node, parts=[_made_simultaneous(part, total) for part in node.parts])
    estimate = node.estimate
    ends = (math.nan, math.nan)
    if estimate.n >= TRIALS_FOR_INTERVAL and math.isfinite(estimate.error) and estimate.degrees > 0:
        half = t_quantile(estimate.degrees, 1 - SIGNIFICANCE / total) * estimate.error
        ends = (max(estimate.value - half, node.floor), estimate.value + half)
    return replace(node, simultaneous=ends, checks_in_claim=total)


def _verdict(node: Node) -> Verdict:
    if isinstance(node, Check):
        return node.verdict
    parts = [_verdict(part) for part in node.parts]
    one, every = (REFUTED, SUPPORTED) if isinstance(node, All) else (SUPPORTED, REFUTED)
    if one in parts:
        return one
    return every if all(part == every for part in parts) else NOT_DECIDED


def _decisive(node: Node, verdict: Verdict) -> Check:
    """The weakest link of a chain that holds, the clearest break of one that does not, the obstacle of one left open."""
    if isinstance(node, Check):
        return node
    parts = [part for part in node.parts if _verdict(part) == verdict] or list(node.parts)
    found = [_decisive(part, _verdict(part)) for part in parts]
    known = [check for check in found if not math.isnan(check.margin)]
    if not known:
        return found[0]
    # Of parts that must all hold the lowest margin speaks, of parts of which one is enough the highest.
    return (min if isinstance(node, All) else max)(known, key=lambda check: check.margin)


def _needed(node: Node) -> int | None:
    """Trials that would decide a tree if every value stays as it looks."""
    if isinstance(node, Check):
        return node.trials_needed
    holds = [_leans(part) for part in node.parts]
    if any(leaning is None for leaning in holds):
        return None
    turning = [part for part, leaning in zip(node.parts, holds, strict=True) if leaning != isinstance(node, All)]
    needed = [_needed(part) for part in (turning or node.parts)]
    known = [n for n in needed if n is not None]
    if turning:  # one part is enough
        return min(known, default=None)
    return max(known) if len(known) == len(needed) else None


def _leans(node: Node) -> bool | None:
    """Whether it would hold if every value were exact; None where a value is missing."""
    if isinstance(node, Check):
        return None if math.isnan(node.margin) else node.margin > 0
    parts = [_leans(part) for part in node.parts]
    if None in parts:
        return None
    return all(parts) if isinstance(node, All) else any(parts)
