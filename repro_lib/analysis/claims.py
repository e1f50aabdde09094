"""The earlier study's claims, and the verdict of any study's own measurements on each.

What was published, and how each claim is read, is data in ``claims.toml`` beside this file; the rules that decide are here,
and a claim there asks for one by name. Nothing there is a result of this suite."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from repro_lib.analysis.evidence import Evidence
from repro_lib.analysis.study import METRICS
from repro_lib.analysis.verdicts import All, AnyOf, Check, Judgement, Node, judge_node
from repro_lib.metrics.cells import coefficient_of_variation
from repro_lib.metrics.uncertainty import Estimate, Float64

ACTIVATIONS = ("relu", "gelu", "swish", "swiglu", "smelu_1")
# tinylstm has no activation to plug in; the earlier study left it out of its averages too.
SMALL = ("charlm", "nanotransformer", "convlm", "hybridlm")
LARGE = "minigpt"
CONTROL = "tinylstm"
# A number is taken for reproduced within a tenth of it, a gain for the published one from nine tenths of it on.
TOLERANCE = 0.10
# The earlier study's own average for smelu_1 is 2.9 % below that of relu and was called no benefit; so that is not one.
BENEFIT = 5.0
# minigpt at full size has 10.8 M parameters; a run cut below this says nothing about scale.
LARGE_PARAMETERS = 9e6
Region = tuple[float, float]
BELOW, ABOVE = (-math.inf, 0.0), (0.0, math.inf)

_DATA: dict[str, Any] = tomllib.loads(Path(__file__).with_name("claims.toml").read_text(encoding="utf-8"))
# Published numbers: per cent over activations, relative PD by activation, the best activation of each model.
CV: dict[str, float] = _DATA["published"]["cv"]
CHARLM_PD: dict[str, float] = _DATA["published"]["charlm_pd"]
AVERAGE_PD: dict[str, float] = _DATA["published"]["average_pd"]
WINNER: dict[str, str] = _DATA["published"]["winner"]


@dataclass(frozen=True)
class Claim:
    """Something the earlier study published.

    ``text``: the claim in one sentence; ``published``: its numbers in words; ``reading``: what has to be so for it to hold
    here; ``rule``: the checks that decide it, by one metric; ``metrics``: those it can be judged by."""

    id: str
    group: str
    text: str
    published: str
    reading: str
    rule: Callable[[Measured], Node]
    metrics: Collection[str] = field(default_factory=lambda: METRICS)


def judge(claim: Claim | str, pairs: pd.DataFrame | Evidence, metric: str = "relative_pd") -> Judgement:
    """The verdict on a claim (or the id of one) from a frame of pairs (``evidence.pairs_between``) or evidence.
    KeyError for an unknown id, ValueError for a metric that the claim cannot be judged by."""
    known = {known.id: known for known in CLAIMS}
    if isinstance(claim, str) and claim not in known:
        raise KeyError(f"unknown claim {claim!r}; known: {', '.join(known)}")
    claim = known[claim] if isinstance(claim, str) else claim
    # Another metric has another scale: an absolute relative PD says nothing about it.
    if metric not in claim.metrics:
        raise ValueError(f"{claim.id} can be judged by {', '.join(claim.metrics)}, not by {metric}")
    evidence = pairs if isinstance(pairs, Evidence) else Evidence.of(pairs)
    return judge_node(claim.rule(Measured(evidence, metric)))


@dataclass(frozen=True)
class Measured:
    """The evidence of a study by one metric: what rules make checks of."""

    evidence: Evidence
    metric: str

    @property
    def overall(self) -> list[str]:
        """The models of an average over all: those of the study that can tell activations apart."""
        return [model for model in self.evidence.candidates() if model in WINNER]

    def check(
        self,
        about: str,
        models: Sequence[str],
        activations: Sequence[str],
        statistic: Callable[[Float64], float],
        region: Region,
        published: float | None = None,
        any_size: bool = False,
    ) -> Check:
        """Whether a statistic of the mean PDs (an activation a row, a model a column) lies in a region.

        Where a cell is missing the check names it instead. ``any_size``: an average over models may hold a minigpt that was
        cut; a check of minigpt itself may not."""
        problem = self.missing(models, activations)
        if not any_size:
            problem = problem or self.cut_down(models)
        if problem:
            nothing = Estimate(math.nan, math.nan, math.nan, self.n(models, activations))
            return Check(about, nothing, *region, published, problem)
        cells = [(model, activation) for activation, model in product(activations, models)]
        shape = (len(activations), len(models))
        estimate = self.evidence.estimate(cells, lambda means: statistic(means.reshape(shape)), self.metric)
        # A mean PD and a CV cannot be negative; differences can.
        floor = 0.0 if statistic in (_mean, coefficient_of_variation) else -math.inf
        return Check(about, estimate, *region, published, floor=floor)

    def gap(self, models: Sequence[str], name: str, other: str, region: Region = BELOW, any_size: bool = False) -> Check:
        """Whether the PD of one activation, averaged over these models, is below (``ABOVE``: above) that of another."""
        where = models[0] if len(models) == 1 else f"average of {len(models)} models"
        return self.check(f"{where}: PD of {name} minus {other}", models, [name, other], _gap, region, any_size=any_size)

    def missing(self, models: Sequence[str], activations: Sequence[str]) -> str:
        """Which cells are not there, in words; empty if none."""
        if not models:
            return "no model that can tell activations apart has results"
        gaps = []
        for model in models:
            names = [activation for activation in activations if not self.evidence.has(model, activation)]
            if len(names) == len(ACTIVATIONS):
                gaps.append(f"{model} has no results")
            elif names:
                gaps.append(f"{model} has no pair of trials with {', '.join(names)}")
        return "; ".join(gaps)

    def cut_down(self, models: Sequence[str]) -> str:
        """Why the large model, if it is among these, cannot speak for its size; empty if it can."""
        parameters = self.evidence.parameters(LARGE)
        if LARGE not in models or not parameters < LARGE_PARAMETERS:
            return ""
        return f"{LARGE} was trained cut down to {parameters / 1e6:.1f} M parameters, and the claim is about 10.8 M"

    def n(self, models: Sequence[str], activations: Sequence[str]) -> int:
        """The smallest number of trials among these cells."""
        return min((self.evidence.trials(*cell) for cell in product(models, activations)), default=0)


# --- statistics of mean PDs: an activation a row, a model a column


def _mean(means: Float64) -> float:
    return float(means.mean())


def _gap(means: Float64) -> float:
    # Average of the first activation minus that of all others together.
    return float(means[0].mean() - means[1:].mean())


def _reduced(means: Float64) -> float:
    # By how many per cent the first activation's average is below the second's.
    first, second = means[0].mean(), means[1].mean()
    return float(100 * (second - first) / second) if second else math.nan


def _spread_beyond_scale(means: Float64) -> float:
    # Largest minus smallest small model, minus abs(minigpt - charlm): the last column is minigpt, the first charlm.
    by_model = means.mean(axis=0)
    return float(np.ptp(by_model[:-1]) - abs(by_model[-1] - by_model[0]))


def _within(published: float) -> tuple[float, float]:
    return published * (1 - TOLERANCE), published * (1 + TOLERANCE)


def _but(name: str) -> list[str]:
    return [other for other in ACTIVATIONS if other != name]


# --- rules, by the names that claims.toml calls them by: from what was measured to checks


def _cv(of: Measured, model: str) -> Node:
    about, published, exact = f"CV of {model}, %", CV[model], of.evidence.identical(model)
    # 0.00 % was published with two digits; 0 by digests has no interval, and no room but for rounding.
    room = 1e-9 if exact else 0.005
    region = _within(published) if published else (-room, room)
    if exact:
        estimate = Estimate(0.0, 0.0, 0.0, of.n([model], ACTIVATIONS))
        return Check(about, estimate, *region, published, of.cut_down([model]), exact=True)
    return of.check(about, [model], ACTIVATIONS, coefficient_of_variation, region, published)


def _cell_pd(of: Measured, model: str, activation: str) -> Node:
    published = CHARLM_PD[activation]
    return of.check(f"PD of {model} with {activation}", [model], [activation], _mean, _within(published), published)


def _average_pd(of: Measured, activation: str) -> Node:
    models, published = of.overall, AVERAGE_PD[activation]
    about = f"average PD of {activation} over {len(models)} models"
    return of.check(about, models, [activation], _mean, _within(published), published, any_size=True)


def _best(of: Measured, models: Sequence[str], best: Sequence[str], region: Region = BELOW, any_size: bool = False) -> Node:
    # For every other activation one of the best beats it: of two that share the first place neither need beat the other.
    others = [name for name in ACTIVATIONS if name not in best]
    return All([AnyOf([of.gap(models, name, other, region, any_size) for name in best]) for other in others])


def _overall_best(of: Measured, name: str) -> Node:
    return _best(of, of.overall, [name], any_size=True)


def _wins(of: Measured) -> Node:
    return All([_best(of, [model], [winner]) for model, winner in WINNER.items()])


def _relu_worst(of: Measured) -> Node:
    worst = [_best(of, [model], ["relu"], ABOVE) for model in ("charlm", LARGE, "nanotransformer", "convlm")]
    return All([*worst, AnyOf([of.gap(["hybridlm"], "relu", name) for name in _but("relu")])])


def _small_not_large(of: Measured) -> Node:
    small = [_best(of, [model], ["swiglu"]) for model in ("charlm", "nanotransformer", "convlm")]
    return All([*small, AnyOf([of.gap([LARGE], "swiglu", name, ABOVE) for name in _but("swiglu")])])


def _reduction(of: Measured) -> Node:
    published = 100 * (1 - CHARLM_PD["swiglu"] / CHARLM_PD["relu"])
    about, least = "charlm: reduction of PD by swiglu against relu, %", (1 - TOLERANCE) * published
    return of.check(about, ["charlm"], ["swiglu", "relu"], _reduced, (least, math.inf), published)


def _no_benefit(of: Measured) -> Node:
    published = 100 * (1 - AVERAGE_PD["smelu_1"] / AVERAGE_PD["relu"])
    about = f"reduction of average PD ({len(of.overall)} models) by smelu_1 against relu, %"
    return of.check(about, of.overall, ["smelu_1", "relu"], _reduced, (-math.inf, BENEFIT), published, any_size=True)


def _avoid(of: Measured, name: str) -> Node:
    about = f"average PD ({len(of.overall)} models) of {name} minus that of the other activations"
    return of.check(about, of.overall, [name, *_but(name)], _gap, ABOVE, any_size=True)


def _invariant(of: Measured) -> Node:
    # Digests alone speak: numbers that only look alike do not make a model invariant.
    value, models = 0.0 if of.evidence.identical(CONTROL) else 1.0, [CONTROL]
    about = f"{CONTROL}: trials that differ between activations (0: none, by digests)"
    estimate = Estimate(value, value, value, of.n(models, ACTIVATIONS))
    return Check(about, estimate, -0.5, 0.5, 0.0, of.missing(models, ACTIVATIONS), exact=True)


def _architecture(of: Measured) -> Node:
    about = f"spread of the mean PD of {len(SMALL)} small models minus the distance from charlm to {LARGE}"
    return of.check(about, [*SMALL, LARGE], ACTIVATIONS, _spread_beyond_scale, ABOVE)


_RULES = (_cv, _cell_pd, _average_pd, _best, _overall_best, _wins, _relu_worst, _small_not_large, _reduction, _no_benefit)
RULES = {rule.__name__[1:]: rule for rule in (*_RULES, _avoid, _invariant, _architecture)}


def _claim(rule: str, arguments: dict[str, Any] | None = None, **words: Any) -> Claim:
    return Claim(**words, rule=partial(RULES[rule], **(arguments or {})))


CLAIMS: tuple[Claim, ...] = tuple(_claim(**entry) for entry in _DATA["claim"])
