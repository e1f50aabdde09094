"""From numbers to a verdict, on a difference and on a claim. Below 10 trials nothing is decided.

A difference is *supported*, *equal within the margin* or *not decided*. A claim is a tree of checks. A check says that a number
lies in a region; it is *supported* if the number's interval lies in the region, *refuted* if the interval lies outside, and
not decided otherwise. A number that another text, vocabulary or recipe gave is *not comparable*."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from repro_lib.metrics.hypothesis_tests import SIGNIFICANCE, trials_needed
from repro_lib.metrics.uncertainty import TRIALS_FOR_CLAIM, TRIALS_FOR_INTERVAL, Estimate, t_quantile

Verdict = Literal["supported", "refuted", "not decided", "not comparable"]
SUPPORTED, REFUTED, NOT_DECIDED, NOT_COMPARABLE = "supported", "refuted", "not decided", "not comparable"
EQUAL = "equal within the margin"


def verdict_on_difference(n: int, p: float, p_equal: float) -> str:
    """``SUPPORTED``, ``EQUAL`` or ``NOT_DECIDED``: what a difference of ``n`` seeds is, by p values adjusted for its family.

    A difference that is there and yet smaller than the margin is supported; who says so says that too."""
    if n < TRIALS_FOR_CLAIM:
        return NOT_DECIDED
    return SUPPORTED if p <= SIGNIFICANCE else EQUAL if p_equal <= SIGNIFICANCE else NOT_DECIDED


@dataclass(frozen=True)
class Check:
    """One number and the region in which a claim needs it: ``low`` < value < ``high``.

    ``about``: the number and its unit; ``published``: what the claim's authors gave for it. ``problem``: why there is none.
    ``exact``: how it is known without an interval ("by digests"). ``comparable``: whether what was published of it holds for
    another study. ``fact``: what it says, in words that other checks of the same share. ``floor``: it cannot be below.
    ``judge_node`` sets the rest."""

    about: str
    estimate: Estimate
    low: float = -math.inf
    high: float = math.inf
    published: float | None = None
    problem: str = ""
    exact: str = ""
    comparable: bool = True
    fact: str = ""
    floor: float = -math.inf
    simultaneous: tuple[float, float] = (math.nan, math.nan)
    checks_in_claim: int = 1

    @property
    def verdict(self) -> Verdict:
        """From the simultaneous interval, where N allows one to be believed."""
        if not self.comparable:
            return NOT_COMPARABLE
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
        distance = abs(self.margin) * estimate.error
        return trials_needed(estimate, alpha=SIGNIFICANCE / self.checks_in_claim, distance=distance)


@dataclass(frozen=True)
class _Parts:
    parts: Sequence[Node]


class All(_Parts):
    """Holds if every part holds."""


class AnyOf(_Parts):
    """Holds if at least one part holds."""


Node = Check | All | AnyOf


@dataclass(frozen=True)
class Judgement:
    """The verdict on one claim by one metric, and what it rests on.

    ``decisive``: the check that made or blocks the verdict. ``n``: the smallest N among its cells (missing ones count only
    where the verdict is open). ``trials_needed``: None where the verdict is there or nothing can be said."""

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
    node = _made_simultaneous(node, len(_leaves(node)))
    checks, verdict = _leaves(node), _verdict(node)
    needed = _needed(node) if verdict == NOT_DECIDED else None
    # What is decided is so without the checks that could not be made.
    deciding = [check for check in checks if not check.problem] if verdict != NOT_DECIDED else []
    n = min(check.estimate.n for check in deciding or checks)
    return Judgement(verdict, _decisive(node, verdict), tuple(checks), n, needed)


def _leaves(node: Node) -> list[Check]:
    return [node] if isinstance(node, Check) else [check for part in node.parts for check in _leaves(part)]


def _made_simultaneous(node: Node, total: int) -> Node:
    if not isinstance(node, Check):
        return replace(node, parts=[_made_simultaneous(part, total) for part in node.parts])
    estimate, ends = node.estimate, (math.nan, math.nan)
    if estimate.n >= TRIALS_FOR_INTERVAL and math.isfinite(estimate.error):
        # Bonferroni over all checks of the claim: it is called the wrong way at most in 5 % of studies.
        half = t_quantile(estimate.n - 1, 1 - SIGNIFICANCE / total) * estimate.error
        ends = (max(estimate.value - half, node.floor), estimate.value + half)
    return replace(node, simultaneous=ends, checks_in_claim=total)


def _verdict(node: Node) -> Verdict:
    if isinstance(node, Check):
        return node.verdict
    parts = {_verdict(part) for part in node.parts}
    # One part decides it the one way, only all of them together the other way.
    one, every = (REFUTED, SUPPORTED) if isinstance(node, All) else (SUPPORTED, REFUTED)
    return one if one in parts else every if parts <= {every} else NOT_DECIDED


def _decisive(node: Node, verdict: Verdict) -> Check:
    # The weakest link of a chain that holds, the clearest break of one that does not, the obstacle of one left open.
    if isinstance(node, Check):
        return node
    parts = [part for part in node.parts if _verdict(part) == verdict] or list(node.parts)
    checks = [_decisive(part, _verdict(part)) for part in parts]
    known = [check for check in checks if not math.isnan(check.margin)]
    # Of parts that must all hold the lowest margin speaks, of parts of which one is enough the highest.
    speaks = min if isinstance(node, All) else max
    return speaks(known, key=lambda check: check.margin) if known else checks[0]


def _needed(node: Node) -> int | None:
    # Trials that would decide a tree if every value stays as it looks.
    if isinstance(node, Check):
        return node.trials_needed
    holds = [_leans(part) for part in node.parts]
    if None in holds:
        return None
    turning = [part for part, leaning in zip(node.parts, holds, strict=True) if leaning != isinstance(node, All)]
    needed = [_needed(part) for part in (turning or node.parts)]
    known = [n for n in needed if n is not None]
    # Of the parts that turn it one is enough; where none does, all must be decided.
    return min(known, default=None) if turning else max(known) if len(known) == len(needed) else None


def _leans(node: Node) -> bool | None:
    # Whether it would hold if every value were exact; None where a value is missing.
    if isinstance(node, Check):
        return None if math.isnan(node.margin) else node.margin > 0
    parts = [_leans(part) for part in node.parts]
    return None if None in parts else all(parts) if isinstance(node, All) else any(parts)
