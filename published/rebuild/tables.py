"""The tables of the published study as frames, every number with its interval and N; each becomes a CSV file."""

import math
from collections.abc import Callable
from itertools import combinations, product

import numpy as np
import pandas as pd

from published.rebuild.first import (
    by_metric,
    context,
    first_cells,
    first_contrasts,
    first_lengths,
    known,
    leading,
    smelu,
)
from published.rebuild.second import dependence_on_model, own_rates_of, rate_check, replication
from published.rebuild.stores import SIDE_ACTIVATIONS, SIDE_MODELS, TEXTS, Published, Side
from repro_lib.analysis.cell_anatomy import churn_against_error
from repro_lib.analysis.contrasts import (
    LEADING,
    chances_of_being_best,
    contrasts_at_equal_loss,
    contrasts_frame,
    cv_over_activations,
    two_kinds_of_interval,
)
from repro_lib.analysis.forks import forks_frame
from repro_lib.analysis.league import league
from repro_lib.analysis.noise_sources import compare_sources
from repro_lib.analysis.study import Study
from repro_lib.metrics.hypothesis_tests import SIGNIFICANCE, holm, p_value
from repro_lib.metrics.uncertainty import contrast, mean_interval, relative_contrast

# Random halves of a cell in the A/A control.
SPLITS = 200


# --- the grid


def cells(published: Published) -> pd.DataFrame:
    """Every cell of the grid: each metric, loss and accuracy with their 95 % intervals, parameters, flags."""
    return known(published.study)


def contrasts(published: Published) -> pd.DataFrame:
    """Every activation against relu by every metric; Holm within the family of one metric."""
    return by_metric(published.evidence, contrasts_frame)


def equal_loss(published: Published) -> pd.DataFrame:
    """Every contrast with relu at equal loss, by every metric, where runs of other lengths are there."""
    return by_metric(published.evidence, contrasts_at_equal_loss).dropna(subset=["per_cent"])


def own_rates(published: Published) -> pd.DataFrame:
    """The grid's contrasts by every metric, each activation at the learning rate that the rate check found best for it."""
    return by_metric(published.at_rates(own_rates_of(rate_check(published))), contrasts_frame)


def own_rates_loss(published: Published) -> pd.DataFrame:
    """By how much the own rate of a cell changes its validation loss: trials of the same seeds at either rate, in pairs."""
    rates, usual = own_rates_of(rate_check(published)), {(r.model_name, r.activation): r for r in published.study.results}
    rows = []
    for cell, own in published.at_rates_of(rates).items():
        common = {trial.seed: trial.val_loss for trial in usual[cell].trials}
        changed = np.array([trial.val_loss - common[trial.seed] for trial in own.trials])
        estimate = mean_interval(changed)
        about = {"model": cell[0], "activation": cell[1], "own_rate": rates[cell]}
        about |= {"common_rate": usual[cell].config["learning_rate"], "n": len(changed)}
        rows.append(about | {"difference": estimate.value, "low": estimate.low, "high": estimate.high})
    return pd.DataFrame(rows)


def cv(published: Published) -> pd.DataFrame:
    """The CV over activations without noise and beside its null, by every metric."""
    return by_metric(published.evidence, cv_over_activations)


def p_best(published: Published) -> pd.DataFrame:
    """The chance of each activation to have the lowest PD, by every metric."""
    return by_metric(published.evidence, chances_of_being_best)


def intervals(published: Published) -> pd.DataFrame:
    """The interval over trials beside the one over evaluation windows."""
    return two_kinds_of_interval(published.evidence)


def churn_and_error(published: Published) -> pd.DataFrame:
    """Churn beside the error rate, their ratio and difference (residual), per cell."""
    rows = []
    # No statistic of the negative control.
    candidates = published.evidence.candidates()
    for result in (result for result in published.study.results if result.model_name in candidates):
        found = churn_against_error(result)
        row: dict[str, object] = {"model": result.model_name, "activation": result.activation, "n": len(result.trials)}
        for name in ("churn", "error", "ratio", "residual"):
            row |= getattr(found, name).columns(name)
        rows.append(row)
    return pd.DataFrame(rows)


def rank_agreement(published: Published) -> pd.DataFrame:
    """Kendall's tau between the orders that two measures give the activations of a model; loss is one of the measures."""
    grid, rows = published.study.cells, []
    for model in published.evidence.candidates():
        own = grid[grid["model"] == model]
        for first, second in combinations((*published.evidence.metrics, "val_loss"), 2):
            tau = own[first].corr(own[second], method="kendall") if own[first].notna().all() else math.nan
            rows.append((model, first, second, len(own), tau))
    return pd.DataFrame(rows, columns=["model", "first", "second", "activations", "kendall_tau"])


def a_a_control(published: Published) -> pd.DataFrame:
    """The first half of a cell's trials against the second, between which nothing can differ but by chance, by the t test of
    the jackknife; and of ``SPLITS`` random halves the share with p at most .05: whether the test keeps its level."""
    evidence, frames = published.evidence, []
    for metric in LEADING:
        rows = []
        for model, activation in product(evidence.candidates(), evidence.activations):
            matrix, half = evidence.matrix(model, activation, metric), evidence.trials(model, activation) // 2
            drawn, order = np.random.default_rng(0), np.arange(2 * half)
            splits = [order, *(drawn.permutation(order) for _ in range(SPLITS))]
            halves = [tuple(matrix[np.ix_(part, part)] for part in (split[:half], split[half:])) for split in splits]
            p, *others = (p_value(contrast(one, other)) for one, other in halves)
            about = {"metric": metric, "model": model, "activation": activation, "n": half}
            share = float(np.mean([other <= SIGNIFICANCE for other in others]))
            rows.append(
                about | relative_contrast(halves[0][0], halves[0][1]).columns("per_cent") | {"p": p, "share_of_random": share}
            )
        frame = pd.DataFrame(rows)
        frames.append(frame.assign(p_holm=holm(frame["p"].to_numpy(dtype=np.float64))))
    return pd.concat(frames, ignore_index=True)


# --- beside it


def sources(published: Published) -> pd.DataFrame:
    """One source of randomness at a time, with three activations."""
    frames = []
    for model in SIDE_MODELS:
        for activation in SIDE_ACTIVATIONS:
            found = compare_sources(published.stored, _alone(published.study, activation), model)
            if found is not None:
                frames.append(found.frame().query("n > 0").assign(model=model, activation=activation))
    return leading(pd.concat(frames, ignore_index=True), "model", "activation")


def long_cells(published: Published) -> pd.DataFrame:
    """The cells that were trained for 5,000 steps."""
    return known(published.side("long/results").study)


def long_contrasts(published: Published) -> pd.DataFrame:
    """Their contrasts with relu, by every metric; below ten trials no verdict."""
    return by_metric(published.side("long/results").evidence, contrasts_frame)


def texts(published: Published) -> pd.DataFrame:
    """Every activation against relu on each other text, a family of its own, by every metric."""
    return _by_text(published, lambda side: by_metric(side.evidence, contrasts_frame))


def texts_cells(published: Published) -> pd.DataFrame:
    """The cells that were trained on other texts."""
    return _by_text(published, lambda side: known(side.study))


def _by_text(published: Published, make: Callable[[Side], pd.DataFrame]) -> pd.DataFrame:
    frames = [make(published.side(f"{name}/results")).assign(text=name) for name in TEXTS]
    return leading(pd.concat(frames, ignore_index=True), "text")


def helps(published: Published) -> pd.DataFrame:
    """The league of what is said to lower disagreement: every arm against its baseline, with loss, accuracy and cost."""
    # Measured seconds are of a machine on which other work was done too.
    return league(published.side("helps/results").evidence).drop(columns="seconds")


def forks(published: Published) -> pd.DataFrame:
    """What is left between trials that were one up to a point of the training."""
    # Distances and barriers need the weights.
    return forks_frame(published.store("forks/results"), "charlm").drop(columns=["distance", "barrier"])


def minigpt_cells(published: Published) -> pd.DataFrame:
    """The cells of minigpt, cut."""
    return known(published.side("minigpt/results").study)


def minigpt_contrasts(published: Published) -> pd.DataFrame:
    """Every activation against relu in minigpt, cut, by every metric; Holm within these alone."""
    return by_metric(published.side("minigpt/results").evidence, contrasts_frame)


def replicated(published: Published) -> pd.DataFrame:
    """Each of its verdicts beside this edition's, in both leading metrics, by rule 9."""
    return replication(first_contrasts(published), contrasts(published))


def dependence(published: Published) -> pd.DataFrame:
    """Between every two models the difference of swiglu's contrasts, by rule 10."""
    return dependence_on_model(contrasts(published))


TABLES: dict[str, Callable[[Published], pd.DataFrame]] = {
    "cells": cells,
    "contrasts": contrasts,
    "equal_loss": equal_loss,
    "cv": cv,
    "p_best": p_best,
    "intervals": intervals,
    "churn_and_error": churn_and_error,
    "rank_agreement": rank_agreement,
    "a_a_control": a_a_control,
    "rates": rate_check,
    "own_rates": own_rates,
    "own_rates_loss": own_rates_loss,
    "replicated": replicated,
    "dependence": dependence,
    "sources": sources,
    "long_cells": long_cells,
    "long_contrasts": long_contrasts,
    "texts": texts,
    "texts_cells": texts_cells,
    "helps": helps,
    "forks": forks,
    "minigpt_cells": minigpt_cells,
    "minigpt_contrasts": minigpt_contrasts,
    "first_cells": first_cells,
    "first_contrasts": first_contrasts,
    "first_lengths": first_lengths,
    "smelu": smelu,
    "context": context,
}


def csv(frame: pd.DataFrame) -> str:
    """A frame as the text of a CSV file; numbers to ten digits, which no rounding of another processor reaches."""
    return frame.to_csv(index=False, float_format="%.10g", lineterminator="\n")


def _alone(study: Study, activation: str) -> Study:
    return Study.of([r for r in study.results if r.activation == activation], study.models, [activation])
