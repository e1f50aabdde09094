"""The tables of the published study as frames, every number with its interval and N; each becomes a CSV file."""

import math
from collections.abc import Callable
from itertools import combinations

import numpy as np
import pandas as pd

from published.rebuild.second import rate_check
from published.rebuild.stores import NotRunYet, Published
from repro_lib.analysis.cell_anatomy import churn_against_error
from repro_lib.analysis.contrasts import (
    chances_of_being_best,
    contrasts_at_equal_loss,
    contrasts_frame,
    cv_over_activations,
    two_kinds_of_interval,
)
from repro_lib.analysis.evidence import Evidence
from repro_lib.analysis.frames import pair_matrix
from repro_lib.analysis.noise_sources import compare_sources
from repro_lib.analysis.selection import with_other
from repro_lib.analysis.study import Study
from repro_lib.analysis.trajectories import FOLLOWED
from repro_lib.metrics.hypothesis_tests import holm, p_value
from repro_lib.metrics.prediction_difference import PAIR_METRICS
from repro_lib.metrics.uncertainty import Estimate, contrast, jackknife_pairwise, mean_interval, relative_contrast
from repro_lib.models.activations import smelu_beta
from repro_lib.store.schema import Result

NOISE_MODELS = ("charlm", "convlm")
# The A/A control: the trials of one cell, split into two halves by their seeds.
HALF = 5


def cells(published: Published) -> pd.DataFrame:
    """Every cell of the grid: each metric, loss and accuracy with their 95 % intervals, parameters, flags."""
    return _known(published.study)


def all_contrasts(published: Published) -> pd.DataFrame:
    """Every activation against relu by every metric; Holm within the family of one metric."""
    return _by_metric(published.evidence, contrasts_frame)


def equal_loss(published: Published) -> pd.DataFrame:
    """Every contrast with relu at equal loss, by every metric, where runs of other lengths are there."""
    return _by_metric(published.evidence, contrasts_at_equal_loss).dropna(subset=["per_cent"])


def cv(published: Published) -> pd.DataFrame:
    """The CV over activations without noise and beside its null, by every metric."""
    return _by_metric(published.evidence, cv_over_activations)


def p_best(published: Published) -> pd.DataFrame:
    """The chance of each activation to have the lowest PD, by every metric."""
    return _by_metric(published.evidence, chances_of_being_best)


def intervals(published: Published) -> pd.DataFrame:
    """The interval over trials beside the one over evaluation windows."""
    return two_kinds_of_interval(published.evidence)


def churn_and_error(published: Published) -> pd.DataFrame:
    """Churn beside the error rate, their ratio and difference (residual), per cell."""
    rows = []
    for result in published.study.results:
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
    """Trials 1 to 5 against 6 to 10 of the same cell: the t test of the jackknife; nothing can differ."""
    evidence, rows = published.evidence, []
    for model in evidence.candidates():
        for activation in evidence.activations:
            if evidence.trials(model, activation) < 2 * HALF:
                continue
            matrix = evidence.matrix(model, [activation], "relative_pd")[: 2 * HALF, : 2 * HALF]
            found = relative_contrast(matrix[:HALF, :HALF], matrix[HALF:, HALF:])
            p = p_value(contrast(matrix[:HALF, :HALF], matrix[HALF:, HALF:]))
            rows.append({"model": model, "activation": activation, "n": HALF, **found.columns("per_cent"), "p": p})
    frame = pd.DataFrame(rows)
    return frame.assign(p_holm=holm(frame["p"].to_numpy(dtype=np.float64)))


def sources(published: Published) -> pd.DataFrame:
    """One source of randomness at a time."""
    frames = []
    for model in NOISE_MODELS:
        found = compare_sources(published.stored, published.study, model)
        if found is not None:
            frames.append(found.frame().assign(model=model, activation=found.activation))
    if not frames:
        raise NotRunYet("one source of randomness at a time")
    frame = pd.concat(frames, ignore_index=True)
    return leading(frame, "model", "activation")


def lengths(published: Published) -> pd.DataFrame:
    """Runs of other lengths, each with its learning rate decayed to zero: PD and loss, and gelu beside relu."""
    rows = []
    for model in NOISE_MODELS:
        own = {a: published.study.result(model, a) for a in ("relu", "gelu")}
        runs = {a: [result, *with_other("max_iters", published.stored, result)] for a, result in own.items() if result}
        for steps in sorted({int(run.config["max_iters"]) for several in runs.values() for run in several}):
            pair = {a: run for a, several in runs.items() for run in several if run.config["max_iters"] == steps}
            for activation, run in pair.items():
                row: dict[str, object] = {"model": model, "activation": activation, "max_iters": steps}
                rows.append(row | {"n": len(run.trials)} | _measured(run))
            if len(pair) == 2:
                for name in FOLLOWED:
                    rows[-1] |= _against(pair["gelu"], pair["relu"], name).columns(f"gelu_against_relu_per_cent_{name}")
    if len({row["max_iters"] for row in rows}) < 2:
        raise NotRunYet("runs of other lengths")
    return pd.DataFrame(rows)


def smelu(published: Published) -> pd.DataFrame:
    """charlm with SmeLU by beta, each against relu (of the grid) in per cent, at 99 % so that five hold together at 95 %."""
    relu, rows = published.study.result("charlm", "relu"), []
    for result in published.smelu:
        beta = float(smelu_beta(result.activation) or 0)
        row: dict[str, object] = {"activation": result.activation, "beta": beta, "n": len(result.trials)}
        row |= _measured(result)
        if relu is not None:
            for name in FOLLOWED:
                found = _against(result, relu, name, confidence=1 - 0.05 / len(published.smelu))
                row |= found.columns(f"against_relu_per_cent_{name}")
        rows.append(row)
    return pd.DataFrame(rows)


def context(published: Published) -> pd.DataFrame:
    """Every activation against relu with context 128 (the grid) and 64, two models."""
    frames = []
    for length, evidence in ((128, published.evidence), (64, published.context.evidence)):
        frame = contrasts_frame(evidence)
        frames.append(frame[frame["model"].isin(published.context.study.models)].assign(context=length))
    return leading(pd.concat(frames, ignore_index=True), "context")


def context_cells(published: Published) -> pd.DataFrame:
    """The cells with context 64."""
    return _known(published.context.study)


def minigpt_cells(published: Published) -> pd.DataFrame:
    """The cells of minigpt, cut."""
    return _known(published.minigpt.study)


def minigpt_contrasts(published: Published) -> pd.DataFrame:
    """Every activation against relu in minigpt, cut, by every metric; Holm within these alone."""
    return _by_metric(published.minigpt.evidence, contrasts_frame)


TABLES: dict[str, Callable[[Published], pd.DataFrame]] = {
    "cells": cells,
    "contrasts": all_contrasts,
    "equal_loss": equal_loss,
    "cv": cv,
    "p_best": p_best,
    "intervals": intervals,
    "churn_and_error": churn_and_error,
    "rank_agreement": rank_agreement,
    "a_a_control": a_a_control,
    "sources": sources,
    "lengths": lengths,
    "smelu": smelu,
    "context": context,
    "context_cells": context_cells,
    "minigpt_cells": minigpt_cells,
    "minigpt_contrasts": minigpt_contrasts,
    "second_rates": rate_check,
}


def csv(frame: pd.DataFrame) -> str:
    """A frame as the text of a CSV file; numbers to ten digits, which no rounding of another processor reaches."""
    return frame.to_csv(index=False, float_format="%.10g", lineterminator="\n")


def leading(frame: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """The frame with these columns before all others."""
    return frame[[*columns, *(name for name in frame.columns if name not in columns)]]


def _known(study: Study) -> pd.DataFrame:
    # A metric that was registered since these trials were measured has no column: their predictions are gone.
    return study.cells.dropna(axis="columns", how="all")


def _by_metric(evidence: Evidence, of: Callable[[Evidence, str], pd.DataFrame]) -> pd.DataFrame:
    frame = pd.concat([of(evidence, metric).assign(metric=metric) for metric in evidence.metrics], ignore_index=True)
    return leading(frame, "metric")


def _measured(result: Result) -> dict[str, float]:
    row: dict[str, float] = {}
    for name in FOLLOWED:
        row |= jackknife_pairwise(pair_matrix(result, name), PAIR_METRICS[name].largest).columns(name)
    return row | mean_interval([trial.val_loss for trial in result.trials]).columns("val_loss")


def _against(first: Result, second: Result, metric: str, confidence: float = 0.95) -> Estimate:
    """The difference in per cent of the second, seed by seed."""
    return relative_contrast(pair_matrix(first, metric), pair_matrix(second, metric), confidence)
