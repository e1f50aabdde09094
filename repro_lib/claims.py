"""The earlier study's claims as data: what was published, how each is read, and the test that decides it.

Nothing here is a result of this suite. ``judge`` gives the verdict of any study's own measurements on a claim.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np
import pandas as pd

from repro_lib.across_activations import coefficient_of_variation
from repro_lib.analysis import METRICS
from repro_lib.evidence import Evidence
from repro_lib.judging import All, AnyOf, Check, Judgement, Node, judge_node
from repro_lib.statistics import Estimate, Float64

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

CHARLM_PD = {"gelu": 0.9051, "relu": 1.0739, "smelu_1": 1.0938, "swiglu": 0.5935, "swish": 1.0952}
CV = {"charlm": 20.26, "minigpt": 25.02, "nanotransformer": 9.92, "convlm": 15.05, "hybridlm": 9.87, "tinylstm": 0.00}
BEST = {
    "charlm": ("swiglu",), "nanotransformer": ("swiglu",), "convlm": ("swiglu",), "minigpt": ("swish", "gelu"),
    "hybridlm": ("relu", "swish"),
}  # fmt: skip
WINNER = {"charlm": "swiglu", "nanotransformer": "swiglu", "convlm": "swiglu", "minigpt": "swish", "hybridlm": "relu"}
AVERAGE_PD = {"swiglu": 0.9706, "gelu": 0.9622, "swish": 0.9628, "relu": 1.1656, "smelu_1": 1.1320}

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


# --- rules: from evidence to checks


def _cv(evidence: Evidence, metric: str, model: str) -> Node:
    published = CV[model]
    if evidence.identical(model):
        estimate = Estimate(0.0, 0.0, 0.0, _n(evidence, [model], ACTIVATIONS))
        low, high = (-1e-9, 1e-9) if published == 0 else _within(published)
        return Check(f"CV of {model}, %", estimate, low, high, published, _scale(evidence, model), exact=True)
    low, high = _within(published) if published else (-0.005, 0.005)
    return _check(evidence, metric, f"CV of {model}, %", [model], ACTIVATIONS, coefficient_of_variation, low, high, published)


def _cell_pd(evidence: Evidence, metric: str, model: str, activation: str) -> Node:
    published = CHARLM_PD[activation]
    return _check(
        evidence, metric, f"PD of {model} with {activation}", [model], [activation], _mean, *_within(published), published
    )


def _average_pd(evidence: Evidence, metric: str, activation: str) -> Node:
    published, models = AVERAGE_PD[activation], _overall(evidence)
    about = f"average PD of {activation} over {len(models)} models"
    return _check(evidence, metric, about, models, [activation], _mean, *_within(published), published, any_size=True)


def _best(
    evidence: Evidence, metric: str, models: Sequence[str], best: Sequence[str], highest: bool = False, any_size: bool = False
) -> Node:
    """One of ``best`` has the lowest (highest) PD on average over these models: for every other, one of them beats it."""
    others = [name for name in ACTIVATIONS if name not in best]

    def beats(name: str, other: str) -> Check:
        where = models[0] if len(models) == 1 else f"average of {len(models)} models"
        bounds = (0.0, math.inf) if highest else (-math.inf, 0.0)
        about, gap = f"{where}: PD of {name} minus {other}", partial(_gap, len(models))
        return _check(evidence, metric, about, models, [name, other], gap, *bounds, any_size=any_size)

    return All([AnyOf([beats(name, other) for name in best]) for other in others])


def _wins(evidence: Evidence, metric: str) -> Node:
    return All([_best(evidence, metric, [model], [winner]) for model, winner in WINNER.items()])


def _reduction(evidence: Evidence, metric: str) -> Node:
    published = 100 * (1 - CHARLM_PD["swiglu"] / CHARLM_PD["relu"])
    about = "charlm: reduction of PD by swiglu against relu, %"
    least = (1 - TOLERANCE) * published
    return _check(evidence, metric, about, ["charlm"], ["swiglu", "relu"], partial(_reduced, 1), least, math.inf, published)


def _overall_best(evidence: Evidence, metric: str, name: str) -> Node:
    return _best(evidence, metric, _overall(evidence), [name], any_size=True)


def _relu_worst(evidence: Evidence, metric: str) -> Node:
    worst = [
        _best(evidence, metric, [model], ["relu"], highest=True) for model in ("charlm", LARGE, "nanotransformer", "convlm")
    ]
    others = [name for name in ACTIVATIONS if name != "relu"]
    not_worst = [
        _check(
            evidence,
            metric,
            f"hybridlm: PD of relu minus {name}",
            ["hybridlm"],
            ["relu", name],
            partial(_gap, 1),
            -math.inf,
            0.0,
        )
        for name in others
    ]
    return All([*worst, AnyOf(not_worst)])


def _small_not_large(evidence: Evidence, metric: str) -> Node:
    small = [_best(evidence, metric, [model], ["swiglu"]) for model in ("charlm", "nanotransformer", "convlm")]
    beaten = [
        _check(
            evidence, metric, f"{LARGE}: PD of swiglu minus {name}", [LARGE], ["swiglu", name], partial(_gap, 1), 0.0, math.inf
        )
        for name in ACTIVATIONS
        if name != "swiglu"
    ]
    return All([*small, AnyOf(beaten)])


def _no_benefit(evidence: Evidence, metric: str) -> Node:
    models = _overall(evidence)
    published = 100 * (1 - AVERAGE_PD["smelu_1"] / AVERAGE_PD["relu"])
    about = f"reduction of average PD ({len(models)} models) by smelu_1 against relu, %"
    reduced, cells = partial(_reduced, len(models)), ["smelu_1", "relu"]
    return _check(evidence, metric, about, models, cells, reduced, -math.inf, BENEFIT, published, any_size=True)


def _invariant(evidence: Evidence, metric: str) -> Node:
    n = _n(evidence, [CONTROL], ACTIVATIONS)
    problem = _missing(evidence, [CONTROL], ACTIVATIONS)
    value = 0.0 if evidence.identical(CONTROL) else 1.0
    about = f"{CONTROL}: trials that differ between activations (0: none, by digests)"
    return Check(about, Estimate(value, value, value, n), -0.5, 0.5, 0.0, problem, exact=True)


def _architecture(evidence: Evidence, metric: str) -> Node:
    about = f"spread of the mean PD of {len(SMALL)} small models minus the distance from charlm to {LARGE}"
    models = [*SMALL, LARGE]
    return _check(evidence, metric, about, models, ACTIVATIONS, partial(_spread_beyond_scale, len(models)), 0.0, math.inf)


def _avoid(evidence: Evidence, metric: str, name: str) -> Node:
    models = _overall(evidence)
    others = [other for other in ACTIVATIONS if other != name]
    about = f"average PD ({len(models)} models) of {name} minus that of the other activations"
    gap = partial(_gap, len(models))
    return _check(evidence, metric, about, models, [name, *others], gap, 0.0, math.inf, any_size=True)


# --- numbers that checks are about: functions of the mean PDs of cells, ordered by activation, then model


def _mean(means: Float64) -> float:
    return float(means.mean())


def _gap(models: int, means: Float64) -> float:
    """Average of the first activation minus that of all others together."""
    return float(means[:models].mean() - means[models:].mean())


def _reduced(models: int, means: Float64) -> float:
    """By how many per cent the first activation's average is below the second's."""
    first, second = means[:models].mean(), means[models:].mean()
    return float(100 * (second - first) / second) if second else math.nan


def _spread_beyond_scale(models: int, means: Float64) -> float:
    """Largest minus smallest small model, minus abs(minigpt - charlm); the last model is the large one, the first charlm."""
    by_model = means.reshape(-1, models).mean(axis=0)
    return float(np.ptp(by_model[:-1]) - abs(by_model[-1] - by_model[0]))


# --- what checks are made of


def _check(
    evidence: Evidence,
    metric: str,
    about: str,
    models: Sequence[str],
    activations: Sequence[str],
    statistic: Callable[[Float64], float],
    low: float,
    high: float,
    published: float | None = None,
    any_size: bool = False,
) -> Check:
    """A check of a function of the cells ``activations`` x ``models``; where a cell is missing it names it instead.

    ``any_size``: an average over models may hold a minigpt that was cut; a check of minigpt itself may not.
    """
    problem = _missing(evidence, models, activations)
    if LARGE in models and not any_size:
        problem = problem or _scale(evidence, LARGE)
    cells = [(model, activation) for activation, model in product(activations, models)]
    if problem:
        n = _n(evidence, models, activations)
        return Check(about, Estimate(math.nan, math.nan, math.nan, n), low, high, published, problem)
    # A mean PD and a CV cannot be negative; differences can.
    floor = 0.0 if statistic in (_mean, coefficient_of_variation) else -math.inf
    return Check(about, evidence.estimate(cells, statistic, metric), low, high, published, floor=floor)


def _missing(evidence: Evidence, models: Sequence[str], activations: Sequence[str]) -> str:
    """Which cells are not there, in words; empty if none."""
    if not models:
        return "no model that can tell activations apart has results"
    gaps = []
    for model in models:
        names = [activation for activation in activations if not evidence.has(model, activation)]
        if len(names) == len(ACTIVATIONS):
            gaps.append(f"{model} has no results")
        elif names:
            gaps.append(f"{model} has no pair of trials with {', '.join(names)}")
    return "; ".join(gaps)


def _scale(evidence: Evidence, model: str) -> str:
    """Why a model cannot speak for its size; empty if it can."""
    parameters = evidence.parameters(model)
    if model != LARGE or not parameters < LARGE_PARAMETERS:
        return ""
    return f"{LARGE} was trained cut down to {parameters / 1e6:.1f} M parameters, and the claim is about 10.8 M"


def _overall(evidence: Evidence) -> list[str]:
    """The models of an average over all: those of the study that can tell activations apart."""
    known = set(WINNER)
    return [model for model in evidence.candidates() if model in known]


def _n(evidence: Evidence, models: Sequence[str], activations: Sequence[str]) -> int:
    return min((evidence.trials(model, activation) for model in models for activation in activations), default=0)


def _within(published: float) -> tuple[float, float]:
    return published * (1 - TOLERANCE), published * (1 + TOLERANCE)


# --- the claims


_TENTH = f"the measured value lies within {100 * TOLERANCE:.0f} % of the published one"
_OVERALL = "averaged over the models of the study that can tell activations apart"


def _numbers() -> list[Claim]:
    cvs = [
        Claim(
            f"cv_{model}", "numbers", f"The CV of {model} over the activations is {value:.2f} %.", f"{value:.2f} %",
            "the measured CV is exactly 0, by digests" if value == 0 else _TENTH, partial(_cv, model=model),
        )
        for model, value in CV.items()
    ]  # fmt: skip
    table = [
        Claim(
            f"charlm_{name}", "numbers", f"The PD of charlm with {name} is {value:.4f}.", f"{value:.4f}", _TENTH,
            partial(_cell_pd, model="charlm", activation=name), ("relative_pd",),
        )
        for name, value in CHARLM_PD.items()
    ]  # fmt: skip
    averages = [
        Claim(
            f"average_{name}", "numbers", f"The average PD of {name} over the models is {value:.4f}.", f"{value:.4f}",
            f"{_OVERALL}, {_TENTH}", partial(_average_pd, activation=name), ("relative_pd",),
        )
        for name, value in AVERAGE_PD.items()
    ]  # fmt: skip
    return [*cvs, *table, *averages]


def _findings() -> list[Claim]:
    best = [
        Claim(
            f"best_{model}", "findings", f"The best activation for {model} is {' or '.join(names)}.", " or ".join(names),
            f"every other activation has a higher PD than {' or '.join(names)}", partial(_best, models=[model], best=names),
        )
        for model, names in BEST.items()
        if model != LARGE
    ]  # fmt: skip
    return [
        *best,
        Claim(
            "swish_or_gelu_for_minigpt", "findings", "Swish or GELU is best for MiniGPT.", "swish and gelu",
            "every other activation has a higher PD than swish or gelu, at full size",
            partial(_best, models=[LARGE], best=BEST[LARGE]),
        ),
        Claim(
            "wins", "findings", "Of five models swiglu wins 3, swish 1 and relu 1.", "swiglu 3, swish 1, relu 1 of 5",
            "each model's winner has a lower PD than every other activation", _wins,
        ),
        Claim(
            "swiglu_45_per_cent", "findings", "SwiGLU is 45 % better than ReLU on CharLM.", "44.7 %",
            f"PD is reduced by at least {100 * (1 - TOLERANCE):.0f} % of the published 44.7 %", _reduction,
        ),
        Claim(
            "gelu_most_reliable", "findings", "GELU is the most reliable activation overall.", "average PD 0.9622, the lowest",
            f"{_OVERALL}, every other activation has a higher PD", partial(_overall_best, name="gelu"),
        ),
        Claim(
            "relu_worst", "findings", "ReLU is consistently worst except in HybridLM.", "average PD 1.1656, the highest",
            "in charlm, minigpt, nanotransformer and convlm relu has a higher PD than every other activation, in hybridlm not",
            _relu_worst,
        ),
        Claim(
            "swiglu_small_not_large", "findings", "SwiGLU is best for small models and fails at scale.",
            "best for charlm, nanotransformer, convlm; not for minigpt",
            "swiglu has the lowest PD in those three, and at full size some activation has a lower one in minigpt",
            _small_not_large,
        ),
        Claim(
            "smelu_no_benefit", "findings", "SmeLU-1 has no benefit.", "average PD 1.1320 against relu's 1.1656, 2.9 % lower",
            f"{_OVERALL}, smelu_1 has a PD less than {BENEFIT:.0f} % below that of relu", _no_benefit,
        ),
        Claim(
            "tinylstm_invariant", "findings", "TinyLSTM is invariant to the activation.", "CV 0.00 %",
            "its trials are bit-identical across activations, by digests", _invariant,
        ),
        Claim(
            "architecture_over_scale", "findings", "Architecture matters more than scale.", "without a number",
            "the spread among the four 430 K models exceeds the distance from charlm to minigpt at full size", _architecture,
        ),
    ]  # fmt: skip


def _recommendations() -> list[Claim]:
    return [
        Claim(
            "use_swiglu_small", "recommendations", "Use swiglu below 1 M parameters.", "without a number",
            "averaged over charlm, nanotransformer, convlm and hybridlm every other activation has a higher PD",
            partial(_best, models=list(SMALL), best=["swiglu"]),
        ),
        Claim(
            "use_swish_large", "recommendations", "Use swish above 10 M parameters.", "without a number",
            "in minigpt at full size every other activation has a higher PD", partial(_best, models=[LARGE], best=["swish"]),
        ),
        Claim(
            "use_gelu_unknown", "recommendations", "Use gelu when the architecture is unknown.", "without a number",
            f"{_OVERALL}, every other activation has a higher PD", partial(_overall_best, name="gelu"),
        ),
        Claim(
            "avoid_relu", "recommendations", "Avoid relu.", "average PD 1.1656 against 1.0069 of the others",
            f"{_OVERALL}, relu has a higher PD than the other four on average", partial(_avoid, name="relu"),
        ),
        Claim(
            "avoid_smelu_1", "recommendations", "Avoid smelu_1.", "average PD 1.1320 against 1.0153 of the others",
            f"{_OVERALL}, smelu_1 has a higher PD than the other four on average", partial(_avoid, name="smelu_1"),
        ),
    ]  # fmt: skip


CLAIMS: tuple[Claim, ...] = (*_findings(), *_recommendations(), *_numbers())
