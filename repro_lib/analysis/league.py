"""The league of a study's arms: what each changes of disagreement, what that costs, and what is left of loss and accuracy."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from repro_lib.analysis.contrasts import contrasts_at_equal_loss, contrasts_frame
from repro_lib.analysis.evidence import Evidence
from repro_lib.analysis.once import once
from repro_lib.analysis.stored_models import config_of
from repro_lib.analysis.study import Study
from repro_lib.config import Config
from repro_lib.config.members import needed
from repro_lib.metrics.uncertainty import mean_interval
from repro_lib.store.designs import league_factor
from repro_lib.store.schema import Result
from repro_lib.store.store import Store

# What the league looks at; the first decides its order.
LEAGUE_METRICS = ("total_variation", "churn", "relative_pd")
# A step goes forward once and back at about twice that: Kaplan et al. 2020, arXiv 2001.08361, section 2.1.
_FORWARD_AND_BACK = 3
_EFFECT = ["per_cent", "per_cent_low", "per_cent_high", "verdict"]


def league_study(store: Store, factor: str = "") -> Study:
    """The study that a league is about: of a factor, or of the newest grid over arms, or of the remedies, or of activations."""
    return Study.load(store, factor=factor or league_factor(store))


@once
def league(evidence: Evidence) -> pd.DataFrame:
    """One row per model and arm that was run, within a model by its mean total variation, the lowest first.

    Columns: model, activation (the arm), n; by metric (total_variation, churn, relative_pd) its mean, and with the suffix of
    that name per_cent from the reference with _low, _high and verdict (NaN for the reference itself); at_loss those of total
    variation at equal loss; val_loss (nats), val_accuracy (per cent); training, serving: compute per prediction maker that is
    deployed, as multiples of the reference's, counted; seconds: of training a trial, measured, as such a multiple too.
    """
    rows = []
    for model in evidence.models:
        runs = {arm: evidence.runs_by("max_iters", model, arm)[:1] for arm in evidence.activations}
        there = {arm: run for arm, runs_of in runs.items() for run in runs_of if len(run.trials) > 1}
        base = there.get(evidence.reference)
        rows += [{"model": model, "activation": arm} | _level(run) | relative_costs(run, base) for arm, run in there.items()]
    levels = [*LEAGUE_METRICS, "val_loss", "val_accuracy", "training", "serving", "seconds"]
    frame = pd.DataFrame(rows, columns=["model", "activation", "n", *levels]).set_index(["model", "activation"])
    frames = {metric: contrasts_frame(evidence, metric) for metric in LEAGUE_METRICS}
    frames["at_loss"] = contrasts_at_equal_loss(evidence, LEAGUE_METRICS[0])
    for name, contrasts in frames.items():
        frame = frame.join(contrasts.set_index(["model", "activation"])[_EFFECT].add_suffix(f"_{name}"))
    order = {model: place for place, model in enumerate(evidence.models)}
    frame = frame.reset_index().sort_values(LEAGUE_METRICS[0], kind="stable")
    return frame.sort_values("model", key=lambda names: names.map(order), kind="stable", ignore_index=True)


def _level(run: Result) -> dict[str, Any]:
    means = {name: run.reproducibility_metrics.get(name, math.nan) for name in LEAGUE_METRICS}
    loss = mean_interval([trial.val_loss for trial in run.trials]).value
    return {"n": len(run.trials), "val_loss": loss, "val_accuracy": run.avg_val_accuracy} | means


def relative_costs(run: Result, base: Result | None) -> dict[str, float]:
    """``training`` and ``serving`` of a trial as multiples of those of ``base``, counted, and so its ``seconds`` of training,
    measured; NaN without a base."""
    if base is None:
        return dict.fromkeys(("training", "serving", "seconds"), math.nan)
    own, reference = costs(run), costs(base)
    seconds = (sum(trial.seconds for trial in of.trials) / len(of.trials) for of in (run, base))
    numbers = {name: own[name] / reference[name] for name in own}
    return numbers | {"seconds": next(seconds) / (next(seconds) or math.nan)}


def costs(run: Result) -> dict[str, float]:
    """What one trial of a cell takes in training, with all earlier models that are its own, and what serving it takes.

    Both in parameters times tokens that go forward once; one earlier model that serves all trials is not counted, for whoever
    replaces a model has one.
    """
    config = config_of(run)
    together = config.ensemble if config.ensemble_rule == "mean" else 1
    each = run.parameters / together
    return {"training": each * _trained(config), "serving": each * together}


def _trained(config: Config) -> float:
    # Tokens that go forward once, of one trial and of the models that only it needs.
    earlier = needed(config)
    before = sum(_trained(member.config) for member in earlier if member.trial is None)
    if config.ensemble > 1:
        return before
    asked = sum(member.role == "teacher" for member in earlier)
    in_pairs = 2 if config.codistill_weight else 1
    tokens = config.max_iters * config.batch_size * config.block_size
    return tokens * (_FORWARD_AND_BACK * in_pairs + asked) + before


def pareto_front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """The names whose (worth, PD) nobody else beats in one without losing in the other, by falling worth."""

    def beaten(name: str) -> bool:
        worth, pd = points[name]
        return any(a >= worth and d <= pd and (a, d) != (worth, pd) for a, d in points.values())

    return sorted((name for name in points if not beaten(name)), key=lambda name: (-points[name][0], points[name][1]))
