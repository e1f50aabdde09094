"""Evidence as tables and sentences for people. Every sentence carries N and an interval, or says why there is none."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from repro_lib.analysis.contrasts import (
    accuracy_variance,
    chances_of_being_best,
    contrasts_frame,
    cv_over_activations,
    two_kinds_of_interval,
)
from repro_lib.analysis.evidence import Evidence
from repro_lib.analysis.formatting import number
from repro_lib.metrics.across_activations import cv_in_words
from repro_lib.metrics.uncertainty import TRIALS_FOR_INTERVAL, Estimate, rounded


def contrasts_table(evidence: Evidence, model: str | None = None, metric: str = "relative_pd") -> pd.DataFrame:
    """Every activation against relu (of one model): difference in per cent of relu's PD, tests, what N could show.

    The Holm correction is over all models of the evidence, also where only one is shown.
    """
    frame = contrasts_frame(evidence, metric)
    rows = [
        {
            "Model": row["model"],
            "Activation": row["activation"],
            "N": f"{row['n']}, {row['n_reference']}",
            "Difference, % (95 % interval)": _or_why_none(row, "per_cent", ".1f"),
            "Paired": "–" if pd.isna(row["paired"]) else "yes" if row["paired"] else "no",
            "p": _p(row["p"]),
            "Least p": _p(row["smallest_p"]),
            "p (Holm)": _p(row["p_holm"]),
            "Trials to tell": "–" if pd.isna(row["trials_needed"]) else f"{row['trials_needed']:,.0f}",
        }
        for row in frame.to_dict("records")
        if model in (None, row["model"])
    ]
    return _indexed(rows, ["Model", "Activation"], model)


def cv_table(evidence: Evidence, metric: str = "relative_pd") -> pd.DataFrame:
    """Per model the CV over activations with its interval, beside what chance alone gives."""
    rows = [
        {
            "Model": row["model"],
            "N": row["n"],
            "CV, % (95 % interval)": _or_why_none(row, "cv", ".2f"),
            "In words": cv_in_words(row["cv"]).lower() + (" (bit-identical)" if row["identical"] else ""),
            "By chance alone, %: median, 95th percentile": "–"
            if pd.isna(row["p"])
            else f"{row['null_median']:.2f}, {row['null_high']:.2f}",
            "p": _p(row["p"]),
            "Activations": f"{row['cells']} of {row['expected']}",
        }
        for row in cv_over_activations(evidence, metric).to_dict("records")
    ]
    return _indexed(rows, ["Model"])


def chances_table(evidence: Evidence, metric: str = "relative_pd") -> pd.DataFrame:
    """P(best) per model and activation: a chance instead of a trophy."""
    frame = chances_of_being_best(evidence, metric)
    if frame.empty:
        return pd.DataFrame(columns=["no model that can tell activations apart"])
    wide = frame.assign(text=[number(value, 2) for value in frame["p_best"]]).pivot(
        index="model", columns="activation", values="text"
    )
    ordered = wide.loc[list(dict.fromkeys(frame["model"])), list(dict.fromkeys(frame["activation"]))]
    return ordered.rename_axis(index="P(best)", columns=None)


def intervals_table(evidence: Evidence, model: str | None = None, metric: str = "relative_pd") -> pd.DataFrame:
    """The interval over trials beside the bootstrap interval over evaluation windows."""
    rows = [
        {
            "Model": row["model"],
            "Activation": row["activation"],
            "N": row["n"],
            "Mean": number(row["value"], 4),
            "Over trials (this text)": _ends(row, "trials"),
            "Over windows (these trials)": _ends(row, "windows"),
            "Windows": row["windows"] or "–",
        }
        for row in two_kinds_of_interval(evidence, metric).to_dict("records")
        if model in (None, row["model"])
    ]
    return _indexed(rows, ["Model", "Activation"], model)


def variance_table(evidence: Evidence, model: str | None = None) -> pd.DataFrame:
    """Where the variance of the trials' accuracy comes from, as standard deviations in per cent; a negative one is shown so."""
    rows = [
        {
            "Model": row["model"],
            "Activation": row["activation"],
            "N": row["n"],
            "SD of accuracy, %": _sd(row["observed"]),
            "of it evaluation text": _sd(row["evaluation"]),
            "of it real difference of runs": _sd(row["runs"]),
        }
        for row in accuracy_variance(evidence).to_dict("records")
        if model in (None, row["model"])
    ]
    return _indexed(rows, ["Model", "Activation"], model)


def contrast_sentences(frame: pd.DataFrame) -> list[str]:
    """What each contrast against relu says, one sentence per model and activation; ``frame``: ``contrasts.contrasts``.

    A model without any pair of trials is one sentence.
    """
    sentences = []
    for model, rows in frame.groupby("model", sort=False):
        if len(rows) > 1 and (rows["n"] < 2).all() and (rows["n_reference"] < 2).all():
            n = int(rows[["n", "n_reference"]].to_numpy().max())
            sentences.append(f"{model}: no contrast with relu at N = {n}, and no interval: no cell has a pair of trials.")
        else:
            sentences += [_contrast_sentence(row) for row in rows.to_dict("records")]
    return sentences


def _contrast_sentence(row: dict[Any, Any]) -> str:
    name, n = f"{row['model']}: {row['activation']} against relu", int(min(row["n"], row["n_reference"]))
    if pd.isna(row["difference"]):
        return f"{name}: not decided at N = {n}, and no interval: a cell is missing or has no pair."
    # Where relu's trials are all alike there is no per cent of their PD.
    known = not pd.isna(row["per_cent"])
    estimate = Estimate.in_row(row, "per_cent" if known else "difference")
    spec, unit = ("+z.1f", " %") if known else ("+.4f", "")
    size, interval = f"{rounded(estimate.value, spec)}{unit}", f"95 % interval {estimate.interval(spec)}{unit}"
    if pd.isna(row["difference_low"]):
        return f"{name}: {size} relative PD, not decided at N = {n}, and no interval below {TRIALS_FOR_INTERVAL} trials."
    if pd.isna(row["p"]):
        return f"{name}: {size} relative PD ({interval}), not decided at N = {n}: its trials were not compared with relu's."
    test = f"permutation p = {row['p']:.3g}, Holm {row['p_holm']:.3g}"
    verdict = f"supported at N = {n}"
    if not row["supported"]:
        least = "" if pd.isna(row["trials_needed"]) else f", about {row['trials_needed']:,.0f} trials would tell"
        verdict = f"not decided at N = {n} (smallest p that N can reach: {row['smallest_p']:.2g}{least})"
    return f"{name}: {size} relative PD ({interval}; {test}), a difference {verdict}."


def cv_sentences(frame: pd.DataFrame) -> list[str]:
    """What the CV of each model says beside its null; ``frame``: ``contrasts.cv_over_activations``."""
    sentences = []
    for row in frame.to_dict("records"):
        n = int(row["n"])
        if row["identical"]:
            sentences.append(f"{row['model']}: CV 0.00 % exactly at N = {n} (bit-identical; interval of width 0).")
        elif pd.isna(row["cv"]):
            sentences.append(f"{row['model']}: no CV at N = {n}, and no interval: fewer than two activations have a PD.")
        else:
            cv = Estimate.in_row(row, "cv")
            ends = f"95 % interval {cv.interval('.2f')} %" if cv.has_interval else "no interval below 3 trials"
            null = "no null: its trials were not compared across activations" if pd.isna(row["p"]) else (
                f"by chance alone {row['null_median']:.2f} % (95 % of deals up to {row['null_high']:.2f} %), p = {row['p']:.3g}"
            )  # fmt: skip
            holes = f" over {row['cells']} of {row['expected']} activations" if row["cells"] < row["expected"] else ""
            sentences.append(f"{row['model']}: CV {row['cv']:.2f} %{holes} at N = {n} ({ends}; {null}).")
    return sentences


def _indexed(rows: list[dict[str, Any]], names: list[str], model: str | None = None) -> pd.DataFrame:
    """With ``model`` the rows are of that model alone, and its name is not repeated in each."""
    if not rows:
        return pd.DataFrame(columns=["nothing to compare yet"])
    frame = pd.DataFrame(rows)
    if model is not None:
        frame, names = frame.drop(columns="Model"), names[1:]
    frame = frame.set_index(names)
    return frame.rename_axis(None) if len(names) == 1 else frame


def _or_why_none(row: Mapping[Any, Any], name: str, spec: str) -> str:
    """The number with its interval, or why it has none."""
    estimate = Estimate.in_row(row, name)
    none = "" if estimate.has_interval or pd.isna(estimate.value) else f" (none: N < {TRIALS_FOR_INTERVAL})"
    return f"{estimate:{spec}}{none}"


def _ends(row: Mapping[Any, Any], over: str) -> str:
    return Estimate(row["value"], row[f"{over}_low"], row[f"{over}_high"], row["n"]).interval(".4f")


def _p(value: float) -> str:
    return "–" if pd.isna(value) else f"{value:.2g}"


def _sd(variance: float) -> str:
    """The root of a variance; of a negative estimate minus the root of its size, in words."""
    if math.isnan(variance):
        return "–"
    return f"{math.sqrt(variance):.2f}" if variance >= 0 else f"{math.sqrt(-variance):.2f} i (negative estimate)"
