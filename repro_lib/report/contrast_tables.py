"""Evidence as tables and sentences for people. Every sentence carries N and an interval, or says why there is none."""

import math
from typing import Any

import pandas as pd

from repro_lib.analysis import contrasts
from repro_lib.analysis.evidence import Evidence
from repro_lib.analysis.formatting import number
from repro_lib.analysis.study import rows_of
from repro_lib.metrics.cells import cv_in_words
from repro_lib.metrics.uncertainty import TRIALS_FOR_INTERVAL, Estimate, rounded
from repro_lib.report.tables import spread, worded


def contrasts_table(evidence: Evidence, model: str | None = None, metric: str = "relative_pd") -> pd.DataFrame:
    """Every activation against relu (of one model): difference in per cent of relu's PD, tests, what N could show.

    The Holm correction is over all models of the evidence, also where only one is shown.
    """
    return worded(
        contrasts.contrasts_frame(evidence, metric),
        lambda row: {
            "N": f"{row['n']}, {row['n_reference']}",
            "Difference, % (95 % interval)": _or_why_none(row, "per_cent", ".1f"),
            "Paired": {True: "yes", False: "no"}.get(row["paired"], "–"),
            "p": rounded(row["p"], ".2g"),
            "Least p": rounded(row["smallest_p"], ".2g"),
            "p (Holm)": rounded(row["p_holm"], ".2g"),
            "Trials to tell": rounded(row["trials_needed"], ",.0f"),
        },
        model,
    )


def cv_table(evidence: Evidence, metric: str = "relative_pd") -> pd.DataFrame:
    """Per model the CV over activations with its interval, beside what chance alone gives."""
    chance = "By chance alone, %: median, 95th percentile"
    return worded(
        contrasts.cv_over_activations(evidence, metric),
        lambda row: {
            "CV, % (95 % interval)": _or_why_none(row, "cv", ".2f"),
            "In words": cv_in_words(row["cv"]).lower() + (" (bit-identical)" if row["identical"] else ""),
            chance: "–" if math.isnan(row["p"]) else f"{row['null_median']:.2f}, {row['null_high']:.2f}",
            "p": rounded(row["p"], ".2g"),
            "Activations": f"{row['cells']} of {row['expected']}",
        },
    )


def chances_table(evidence: Evidence, metric: str = "relative_pd") -> pd.DataFrame:
    """P(best) per model and activation: a chance instead of a trophy."""
    frame = contrasts.chances_of_being_best(evidence, metric)
    if frame.empty:
        return pd.DataFrame(columns=["no model that can tell activations apart"])
    return spread(frame, (number(value, 2) for value in frame["p_best"])).rename_axis(index="P(best)", columns=None)


def intervals_table(evidence: Evidence, model: str | None = None, metric: str = "relative_pd") -> pd.DataFrame:
    """The interval over trials beside the bootstrap interval over evaluation windows."""

    def ends(row: dict[str, Any], over: str) -> str:
        return Estimate(row["value"], row[f"{over}_low"], row[f"{over}_high"], row["n"]).interval(".4f")

    return worded(
        contrasts.two_kinds_of_interval(evidence, metric),
        lambda row: {
            "Mean": number(row["value"], 4),
            "Over trials (this text)": ends(row, "trials"),
            "Over windows (these trials)": ends(row, "windows"),
            "Windows": row["windows"] or "–",
        },
        model,
    )


def variance_table(evidence: Evidence, model: str | None = None) -> pd.DataFrame:
    """Where the variance of the trials' accuracy comes from, as standard deviations in per cent; a negative one is shown so."""

    def deviation(variance: float) -> str:
        # An estimate of a variance can be negative. Its root is then shown as the imaginary number it is, not as 0.
        imaginary = " i (negative estimate)" if variance < 0 else ""
        return rounded(math.sqrt(abs(variance)), ".2f") + imaginary

    heads = {"observed": "SD of accuracy, %", "evaluation": "of it evaluation text", "runs": "of it real difference of runs"}
    frame = contrasts.accuracy_variance(evidence)
    return worded(frame, lambda row: {head: deviation(row[name]) for name, head in heads.items()}, model)


def contrast_sentences(frame: pd.DataFrame) -> list[str]:
    """What each contrast against relu says, one sentence per model and activation; ``frame``: ``contrasts_frame``.

    A model without any pair of trials is one sentence.
    """
    sentences = []
    for model, rows in frame.groupby("model", sort=False):
        most = int(rows[["n", "n_reference"]].to_numpy().max())
        if len(rows) > 1 and most < 2:
            sentences.append(f"{model}: no contrast with relu at N = {most}, and no interval: no cell has a pair of trials.")
        else:
            sentences += map(_contrast_sentence, rows_of(rows))
    return sentences


def _contrast_sentence(row: dict[str, Any]) -> str:
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
    # The frame decides: a small p alone could answer to models that differ in anything, not just in PD.
    if not row["supported"]:
        least = "" if pd.isna(row["trials_needed"]) else f", about {row['trials_needed']:,.0f} trials would tell"
        verdict = f"not decided at N = {n} (smallest p that N can reach: {row['smallest_p']:.2g}{least})"
    return f"{name}: {size} relative PD ({interval}; {test}), a difference {verdict}."


def cv_sentences(frame: pd.DataFrame) -> list[str]:
    """What the CV of each model says beside its null; ``frame``: ``cv_over_activations``."""
    return [f"{row['model']}: {_cv_in_words(row, int(row['n']))}." for row in rows_of(frame)]


def _cv_in_words(row: dict[str, Any], n: int) -> str:
    if row["identical"]:
        return f"CV 0.00 % exactly at N = {n} (bit-identical; interval of width 0)"
    if pd.isna(row["cv"]):
        return f"no CV at N = {n}, and no interval: fewer than two activations have a PD"
    cv = Estimate.in_row(row, "cv")
    ends = f"95 % interval {cv.interval('.2f')} %" if cv.has_interval else "no interval below 3 trials"
    null = f"by chance alone {row['null_median']:.2f} % (95 % of deals up to {row['null_high']:.2f} %), p = {row['p']:.3g}"
    # Without stored predictions trials of two activations cannot be compared, so none can change sides.
    if pd.isna(row["p"]):
        null = "no null: its trials were not compared across activations"
    holes = f" over {row['cells']} of {row['expected']} activations" if row["cells"] < row["expected"] else ""
    return f"CV {row['cv']:.2f} %{holes} at N = {n} ({ends}; {null})"


def _or_why_none(row: dict[str, Any], name: str, spec: str) -> str:
    estimate = Estimate.in_row(row, name)
    none = "" if estimate.has_interval or pd.isna(estimate.value) else f" (none: N < {TRIALS_FOR_INTERVAL})"
    return f"{estimate:{spec}}{none}"
