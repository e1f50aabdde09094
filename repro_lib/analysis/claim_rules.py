"""The rules that decide the claims of ``claims.toml``, which asks for each by its name: from what was measured to checks."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from repro_lib.analysis.contrasts import contrasts_frame
from repro_lib.analysis.evidence import Evidence
from repro_lib.analysis.frames import rows_of
from repro_lib.analysis.verdicts import SUPPORTED, All, AnyOf, Check, Node, judge_node
from repro_lib.config import NEGATIVE_CONTROL, Config
from repro_lib.metrics.cells import coefficient_of_variation
from repro_lib.metrics.uncertainty import Estimate, Float64
from repro_lib.models.registry import parameters_of

ACTIVATIONS = ("relu", "gelu", "swish", "swiglu", "smelu_1")
SMALL, LARGE = ("charlm", "nanotransformer", "convlm", "hybridlm"), "minigpt"
# Sizes were published with two or three digits, for a vocabulary of 65 characters.
SIZE_TOLERANCE, SIZE_VOCABULARY = 0.02, 65
# The earlier study's own average for smelu_1 is 2.9 % below that of relu and was called no benefit; so that is not one.
BENEFIT = 5.0
# minigpt at full size has 10.8 M parameters; a run cut below this says nothing about scale.
LARGE_PARAMETERS = 9e6
Region = tuple[float, float]
BELOW, ABOVE, EVERYWHERE = (-math.inf, 0.0), (0.0, math.inf), (-math.inf, math.inf)

DATA: dict[str, Any] = tomllib.loads(Path(__file__).with_name("claims.toml").read_text(encoding="utf-8"))
# Published numbers: per cent over activations, relative PD by activation, the best activation of each model.
CV: dict[str, float] = DATA["published"]["cv"]
CHARLM_PD: dict[str, float] = DATA["published"]["charlm_pd"]
AVERAGE_PD: dict[str, float] = DATA["published"]["average_pd"]
WINNER: dict[str, str] = DATA["published"]["winner"]
PARAMETERS: dict[str, float] = DATA["published"]["parameters"]
# The earlier study's averages are over these and no fewer; tinylstm has no activation to plug in.
OVERALL = tuple(WINNER)


@dataclass(frozen=True)
class Measured:
    """The evidence of a study by one metric: what rules make checks of."""

    evidence: Evidence
    metric: str

    def check(
        self,
        about: str,
        models: Sequence[str],
        activations: Sequence[str],
        statistic: Callable[[Float64], float],
        region: Region,
        published: float | None = None,
    ) -> Check:
        """Whether a statistic of the mean PDs (an activation a row, a model a column) lies in a region.

        Where a cell is missing, or minigpt was cut, the check says so instead."""
        problem = self.missing(models, activations) or self.cut_down(models)
        if problem:
            nothing = Estimate(math.nan, math.nan, math.nan, self.n(models, activations))
            return Check(about, nothing, *region, published, problem)
        cells = [(model, activation) for activation, model in product(activations, models)]
        shape = (len(activations), len(models))
        estimate = self.evidence.estimate(cells, lambda means: statistic(means.reshape(shape)), self.metric)
        # A mean PD and a CV cannot be negative; differences can.
        floor = 0.0 if statistic in (_mean, coefficient_of_variation) else -math.inf
        return Check(about, estimate, *region, published, floor=floor)

    def gap(self, models: Sequence[str], name: str, other: str, region: Region = BELOW) -> Check:
        """Whether the PD of one activation, averaged over these models, is below (``ABOVE``: above) that of another."""
        where = models[0] if len(models) == 1 else f"average of {', '.join(models)}"
        check = self.check(f"{where}: PD of {name} minus {other}", models, [name, other], _gap, region)
        return replace(check, fact=f"{where}: {' and '.join(sorted((name, other)))}")

    def number(self, about: str, models: Sequence[str], activations: Sequence[str], published: float, **how: Any) -> Check:
        """A mean (or another ``statistic``) beside a published one of another text, vocabulary and recipe: nothing to judge."""
        check = self.check(about, models, activations, how.get("statistic", _mean), EVERYWHERE, published)
        return replace(check, comparable=False)

    def missing(self, models: Sequence[str], activations: Sequence[str]) -> str:
        """Which cells are not there, in words; empty if none."""
        gaps = []
        for model in models:
            names = [activation for activation in activations if not self.evidence.has(model, activation)]
            if not any(self.evidence.has(model, activation) for activation in ACTIVATIONS):
                gaps.append(f"{model} has no results")
            elif names:
                gaps.append(f"{model} has no pair of trials with {', '.join(names)}")
        return "; ".join(gaps)

    def cut_down(self, models: Sequence[str]) -> str:
        """Why the large model, if it is among these, cannot speak for its size; empty if it can."""
        parameters = self.evidence.parameters(LARGE)
        if LARGE not in models or not parameters < LARGE_PARAMETERS:
            return ""
        return f"{LARGE} was cut down to {parameters / 1e6:.1f} M parameters, and the claim is about 10.8 M"

    def n(self, models: Sequence[str], activations: Sequence[str]) -> int:
        """The smallest number of trials among these cells."""
        return min((self.evidence.trials(*cell) for cell in product(models, activations)), default=0)


# Statistics of mean PDs: an activation a row, a model a column.
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


def _varies_more(means: Float64) -> float:
    # Spread over the models of the first activation's PD minus that of the second's.
    first, second = means.std(axis=1)
    return float(first - second)


def _but(name: str) -> list[str]:
    return [other for other in ACTIVATIONS if other != name]


# Rules, by the names that claims.toml calls them by: from what was measured to checks.
def _cv(of: Measured, model: str) -> Node:
    return of.number(f"CV of {model}, %", [model], ACTIVATIONS, CV[model], statistic=coefficient_of_variation)


def _cell_pd(of: Measured, model: str, activation: str) -> Node:
    return of.number(f"PD of {model} with {activation}", [model], [activation], CHARLM_PD[activation])


def _mean_pd(of: Measured, model: str, published: float) -> Node:
    return of.number(f"mean PD of {model} over {len(ACTIVATIONS)} activations", [model], ACTIVATIONS, published)


def _average_pd(of: Measured, activation: str) -> Node:
    return of.number(f"average PD of {activation} over {len(OVERALL)} models", OVERALL, [activation], AVERAGE_PD[activation])


def _reduction(of: Measured) -> Node:
    published, arms = 100 * (1 - CHARLM_PD["swiglu"] / CHARLM_PD["relu"]), ["swiglu", "relu"]
    return of.number("charlm: reduction of PD by swiglu against relu, %", ["charlm"], arms, published, statistic=_reduced)


def _unmeasured(of: Measured, about: str, why: str, comparable: bool = True) -> Node:
    return Check(about, Estimate(math.nan, math.nan, math.nan, 0), problem=why, comparable=comparable)


def _best(of: Measured, models: Sequence[str], best: Sequence[str], region: Region = BELOW) -> Node:
    # For every other activation one of the best beats it: of two that share the first place neither need beat the other.
    others = [name for name in ACTIVATIONS if name not in best]
    return All([AnyOf([of.gap(models, name, other, region) for name in best]) for other in others])


def _most_consistent(of: Measured, name: str) -> Node:
    about = f"spread over {len(OVERALL)} models of the PD of {name} minus that of "
    steady = [of.check(f"{about}{other}", OVERALL, [name, other], _varies_more, BELOW) for other in _but(name)]
    return All([_best(of, OVERALL, [name]), *steady])


def _wins(of: Measured) -> Node:
    return All([_best(of, [model], [winner]) for model, winner in WINNER.items()])


def _relu_worst(of: Measured) -> Node:
    worst = [_best(of, [model], ["relu"], ABOVE) for model in ("charlm", LARGE, "nanotransformer", "convlm")]
    return All([*worst, AnyOf([of.gap(["hybridlm"], "relu", name) for name in _but("relu")])])


def _small_not_large(of: Measured) -> Node:
    small = [_best(of, [model], ["swiglu"]) for model in ("charlm", "nanotransformer")]
    return All([*small, AnyOf([of.gap([LARGE], "swiglu", name, ABOVE) for name in _but("swiglu")])])


def _no_benefit(of: Measured, name: str = "smelu_1") -> Check:
    published = 100 * (1 - AVERAGE_PD[name] / AVERAGE_PD["relu"])
    about = f"reduction of average PD ({len(OVERALL)} models) by {name} against relu, %"
    return of.check(about, OVERALL, [name, "relu"], _reduced, (-math.inf, BENEFIT), published)


def _avoid(of: Measured, name: str, models: Sequence[str] = OVERALL, region: Region = ABOVE) -> Node:
    about = f"average PD ({len(models)} models) of {name} minus that of the other activations"
    return of.check(about, models, [name, *_but(name)], _gap, region)


def _sizes(of: Measured) -> Node:
    return All([_size(model, published) for model, published in PARAMETERS.items()])


@cache
def _size(model: str, published: float) -> Check:
    # Of the library's own model and not of the study's, which has another vocabulary or was cut.
    count = float(parameters_of(model, Config.for_model(model).with_corpus(SIZE_VOCABULARY), "relu"))
    about = f"parameters of {model} with relu and {SIZE_VOCABULARY} characters"
    room = SIZE_TOLERANCE * published
    return Check(about, Estimate(count, count, count, 0), published - room, published + room, published, exact="by counting")


def _invariant(of: Measured) -> Node:
    # Digests alone speak: numbers that only look alike do not make a model invariant.
    value, models = 0.0 if of.evidence.identical(NEGATIVE_CONTROL) else 1.0, [NEGATIVE_CONTROL]
    about = f"{NEGATIVE_CONTROL}: trials that differ between activations (0: none, by digests)"
    estimate = Estimate(value, value, value, of.n(models, ACTIVATIONS))
    return Check(about, estimate, -0.5, 0.5, 0.0, of.missing(models, ACTIVATIONS), exact="by digests")


def _architecture(of: Measured) -> Node:
    about = f"spread of the mean PD of {len(SMALL)} small models minus the distance from charlm to {LARGE}"
    return of.check(about, [*SMALL, LARGE], ACTIVATIONS, _spread_beyond_scale, ABOVE)


# Remarks, by the names that claims.toml calls them by: what stands beside a verdict.
def _wired(of: Measured) -> str:
    # What the control shows of LSTMs is that nothing was plugged in.
    cvs = {m: of.check("", [m], ACTIVATIONS, coefficient_of_variation, EVERYWHERE).estimate for m in of.evidence.candidates()}
    cvs = {model: cv for model, cv in cvs.items() if not math.isnan(cv.value)}
    if (own := cvs.get(f"{NEGATIVE_CONTROL}_readout")) is None:
        return ""
    largest = ", the largest of this study" if own.value == max(cv.value for cv in cvs.values()) else ""
    return f"With the activation wired into the LSTM's readout the CV is {own:.2f %}{largest} (N = {own.n})."


def _by_the_margin(of: Measured) -> str:
    passing = [name for name in ("gelu", "swish", "swiglu") if judge_node(_no_benefit(of, name)).verdict == SUPPORTED]
    said = f"Within this rule's margin of {BENEFIT:g} % {', '.join(passing)} would pass for no benefit." if passing else ""
    frames = (contrasts_frame(of.evidence, metric) for metric in (of.metric, "total_variation"))
    rows, others = (rows_of(frame[frame["activation"] == "smelu_1"]) for frame in frames)
    named = [
        f"{r['model']} {Estimate.in_row(r, 'per_cent'):+.1f %} in relative PD (N = {r['n']}; in total variation "
        f"{other['per_cent']:+.1f} %, {other['verdict']})"
        for r, other in zip(rows, others, strict=True)
        if r["verdict"] == SUPPORTED and r["per_cent"] < 0
    ]
    against = f"This contradicts it: smelu_1 has a supported benefit in {', '.join(named)}." if named else ""
    return " ".join(filter(None, [said, against]))


_NAMED = (_cv, _cell_pd, _average_pd, _mean_pd, _reduction, _unmeasured, _best, _most_consistent, _wins)
_NAMED += (_relu_worst, _small_not_large, _no_benefit, _avoid, _sizes, _invariant, _architecture)
RULES = {rule.__name__[1:]: rule for rule in _NAMED}
REMARKS = {remark.__name__[1:]: remark for remark in (_wired, _by_the_margin)}
