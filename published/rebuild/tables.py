"""The tables of the published study as frames, every number with its interval and N; each becomes a CSV file."""

import math
from collections.abc import Callable
from itertools import combinations

import numpy as np
import pandas as pd

from published.rebuild.second import dependence_on_model, own_rates_of, rate_check, replication
from published.rebuild.stores import NotRunYet, Published
from repro_lib.analysis.cell_anatomy import churn_against_error
from repro_lib.analysis.contrasts import (
    LEADING,
    chances_of_being_best,
    contrasts_at_equal_loss,
    contrasts_frame,
    cv_over_activations,
    two_kinds_of_interval,
)
from repro_lib.analysis.evidence import Evidence
from repro_lib.analysis.forks import forks_frame
from repro_lib.analysis.frames import pair_matrix
from repro_lib.analysis.league import league
from repro_lib.analysis.noise_sources import compare_sources
from repro_lib.analysis.selection import with_other
from repro_lib.analysis.study import Study
from repro_lib.analysis.trajectories import FOLLOWED
from repro_lib.metrics.hypothesis_tests import holm, p_value
from repro_lib.metrics.prediction_difference import PAIR_METRICS
from repro_lib.metrics.uncertainty import Estimate, contrast, jackknife_pairwise, mean_interval, relative_contrast
from repro_lib.models.activations import smelu_beta
from repro_lib.store.schema import Result

SIDE_MODELS = ("charlm", "convlm")
SIDE_ACTIVATIONS = ("relu", "gelu", "swiglu")
TEXTS = ("tinyshakespeare", "networkx", "mishnah")


# --- the grid


def cells(published: Published) -> pd.DataFrame:
    """Every cell of the grid: each metric, loss and accuracy with their 95 % intervals, parameters, flags."""
    return _known(published.study)


def contrasts(published: Published) -> pd.DataFrame:
    """Every activation against relu by every metric; Holm within the family of one metric."""
    return _by_metric(published.evidence, contrasts_frame)


def equal_loss(published: Published) -> pd.DataFrame:
    """Every contrast with relu at equal loss, by every metric, where runs of other lengths are there."""
    frame = _by_metric(published.evidence, contrasts_at_equal_loss).dropna(subset=["per_cent"])
    if frame.empty:
        raise NotRunYet("runs of other lengths, for contrasts at equal loss")
    return frame


def own_rates(published: Published) -> pd.DataFrame:
    """The grid's contrasts by every metric, each activation at the learning rate that the rate check found best for it."""
    return _by_metric(published.at_rates(own_rates_of(rate_check(published))).evidence, contrasts_frame)


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
    """The first half of a cell's trials against the second: the t test of the jackknife; nothing can differ."""
    evidence, rows = published.evidence, []
    for model in evidence.candidates():
        for activation in evidence.activations:
            if (half := evidence.trials(model, activation) // 2) < 2:
                continue
            matrix = evidence.matrix(model, [activation], "relative_pd")
            halves = matrix[:half, :half], matrix[half : 2 * half, half : 2 * half]
            found, p = relative_contrast(*halves), p_value(contrast(*halves))
            rows.append({"model": model, "activation": activation, "n": half, **found.columns("per_cent"), "p": p})
    frame = pd.DataFrame(rows)
    return frame.assign(p_holm=holm(frame["p"].to_numpy(dtype=np.float64)))


# --- beside it


def sources(published: Published) -> pd.DataFrame:
    """One source of randomness at a time, with three activations."""
    frames = []
    for model in SIDE_MODELS:
        for activation in SIDE_ACTIVATIONS:
            found = compare_sources(published.stored, _alone(published.study, activation), model)
            if found is not None:
                frames.append(found.frame().query("n > 0").assign(model=model, activation=activation))
    if not frames:
        raise NotRunYet("one source of randomness at a time")
    return leading(pd.concat(frames, ignore_index=True), "model", "activation")


def long_cells(published: Published) -> pd.DataFrame:
    """The cells that were trained for 5,000 steps."""
    return _known(_long(published).study)


def long_contrasts(published: Published) -> pd.DataFrame:
    """Their contrasts with relu, by every metric; below ten trials no verdict."""
    return _by_metric(_long(published).evidence, contrasts_frame)


def texts(published: Published) -> pd.DataFrame:
    """Every activation against relu on each other text, a family of its own, by every metric."""
    frames, missing = [], []
    for name in (*TEXTS, "bpe"):
        models, activations = (("convlm",), ("relu", "swiglu")) if name == "bpe" else (SIDE_MODELS, ())
        try:
            evidence = published.side(f"{name}/results", *models, activations=activations).evidence
        except NotRunYet as gap:
            missing.append(gap)
            continue
        frames.append(_by_metric(evidence, contrasts_frame).assign(text=name))
    if not frames:
        raise missing[0]
    return leading(pd.concat(frames, ignore_index=True), "text")


def helps(published: Published) -> pd.DataFrame:
    """The league of what is said to lower disagreement: every arm against its baseline, with loss, accuracy and cost."""
    # Measured seconds are of a machine on which other work was done too.
    return league(published.helps.evidence).drop(columns="seconds")


def forks(published: Published) -> pd.DataFrame:
    """What is left between trials that were one up to a point of the training."""
    published.results("forks/results")
    # Distances and barriers need the weights.
    return forks_frame(published.store("forks/results"), "charlm").drop(columns=["distance", "barrier"])


def minigpt_cells(published: Published) -> pd.DataFrame:
    """The cells of minigpt, cut."""
    return _known(published.side("minigpt/results", "minigpt").study)


def minigpt_contrasts(published: Published) -> pd.DataFrame:
    """Every activation against relu in minigpt, cut, by every metric; Holm within these alone."""
    return _by_metric(published.side("minigpt/results", "minigpt").evidence, contrasts_frame)


# --- the first edition


def first_cells(published: Published) -> pd.DataFrame:
    """The cells of the first edition."""
    return _known(published.first.study)


def first_contrasts(published: Published) -> pd.DataFrame:
    """Its contrasts with relu, by every metric and the present rule."""
    return _by_metric(published.first.evidence, contrasts_frame)


def replicated(published: Published) -> pd.DataFrame:
    """Each of its verdicts beside this edition's, in both leading metrics, by rule 9."""
    return replication(first_contrasts(published), contrasts(published))


def dependence(published: Published) -> pd.DataFrame:
    """Between every two models the difference of swiglu's contrasts, by rule 10."""
    return dependence_on_model(contrasts(published))


def first_lengths(published: Published) -> pd.DataFrame:
    """Gelu against relu in its runs of other lengths, each with its learning rate decayed to zero, in both leading metrics."""
    first, rows = published.first, []
    for model in SIDE_MODELS:
        runs = {}
        for name in ("gelu", "relu"):
            if own := first.study.result(model, name):
                runs |= {(name, run.config["max_iters"]): run for run in [own, *with_other("max_iters", first.stored, own)]}
        for steps in sorted({steps for _, steps in runs}):
            pair = runs["gelu", steps], runs["relu", steps]
            row: dict[str, object] = {"model": model, "max_iters": steps, "n": len(pair[0].trials)}
            rows.append(row | {k: v for name in LEADING for k, v in _against(*pair, name).columns(name).items()})
    return pd.DataFrame(rows)


def smelu(published: Published) -> pd.DataFrame:
    """charlm with SmeLU by beta, each against relu (of its grid) in per cent, at 99 % so that five hold together at 95 %."""
    relu, rows = published.first.study.result("charlm", "relu"), []
    for result in published.first.smelu:
        beta = float(smelu_beta(result.activation) or 0)
        row: dict[str, object] = {"activation": result.activation, "beta": beta, "n": len(result.trials)}
        row |= _measured(result)
        if relu is not None:
            for name in FOLLOWED:
                found = _against(result, relu, name, confidence=1 - 0.05 / len(published.first.smelu))
                row |= found.columns(f"against_relu_per_cent_{name}")
        rows.append(row)
    return pd.DataFrame(rows)


def context(published: Published) -> pd.DataFrame:
    """Every activation against relu with context 128 (its grid) and 64, two models."""
    frames = []
    for length, evidence in ((128, published.first.evidence), (64, published.first.side("context64/results").evidence)):
        frame = contrasts_frame(evidence)
        frames.append(frame[frame["model"].isin(SIDE_MODELS)].assign(context=length))
    return leading(pd.concat(frames, ignore_index=True), "context")


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
    "replicated": replicated,
    "dependence": dependence,
    "sources": sources,
    "long_cells": long_cells,
    "long_contrasts": long_contrasts,
    "texts": texts,
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


def leading(frame: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """The frame with these columns before all others."""
    return frame[[*columns, *(name for name in frame.columns if name not in columns)]]


def _long(published: Published):
    return published.side("long/results", *SIDE_MODELS, activations=SIDE_ACTIVATIONS)


def _alone(study: Study, activation: str) -> Study:
    return Study.of([r for r in study.results if r.activation == activation], study.models, [activation])


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
