"""Evidence as tables and sentences for people. Every sentence carries N and an interval, or says why there is none."""

import math
from typing import Any

import pandas as pd

from repro_lib.analysis import contrasts
from repro_lib.analysis.evidence import Evidence
from repro_lib.analysis.formatting import chance, number
from repro_lib.analysis.study import rows_of
from repro_lib.analysis.verdicts import EQUAL, SUPPORTED
from repro_lib.metrics.hypothesis_tests import SIGNIFICANCE
from repro_lib.metrics.uncertainty import TRIALS_FOR_CLAIM, TRIALS_FOR_INTERVAL, Estimate, rounded
from repro_lib.report.tables import spread, worded


def contrasts_table(evidence: Evidence, model: str | None = None) -> pd.DataFrame:
    """Every activation against relu (of one model): difference in per cent of relu's, tests, verdicts, what would tell.

    All corrections are for all models of the evidence, also where only one is shown.
    """
    # How many trials would tell depends on the family: it is said for that of all models, and not otherwise.
    tell = model is None
    return worded(
        contrasts.leading_contrasts(evidence),
        lambda row: {
            "Relative PD, % (95 % interval)": _or_why_none(row, "per_cent", ".1f"),
            "Verdict": row["verdict"],
            "Total variation, % (95 % interval)": _or_why_none(row, "per_cent", ".1f", "_tv"),
            "Verdict in it": row["verdict_tv"],
            "p": chance(row["p"]),
            "p (Holm)": chance(row["p_holm"]),
            "p (not equal)": chance(row["p_equal"]),
            **({"Trials to tell": rounded(row["trials_needed"], ",.0f")} if tell else {}),
            "p (permutation)": chance(row["p_permutation"]),
        },
        model,
    )


def equal_loss_tables(evidence: Evidence, model: str | None = None) -> list[pd.DataFrame]:
    """The contrasts with relu (of one model) at equal loss, as a table; none where no runs of other lengths tell."""
    frame = contrasts.leading_contrasts(evidence).dropna(subset=["per_cent_at_loss"])
    if frame.empty or model not in (None, *frame["model"]):
        return []
    table = worded(
        frame.assign(n=frame["n_at_loss"]),
        lambda row: {
            "At a loss of": f"{row['loss_at_loss']:.3f}",
            "Relative PD, % (95 % interval)": _or_why_none(row, "per_cent", ".1f", "_at_loss"),
            "Verdict": row["verdict_at_loss"],
            "Total variation, % (95 % interval)": _or_why_none(row, "per_cent", ".1f", "_at_loss_tv"),
            "Verdict in it": row["verdict_at_loss_tv"],
            "From runs of": f"{row['lengths_at_loss']} iterations",
        },
        model,
    )
    return [table]


def cv_table(evidence: Evidence, metric: str = "relative_pd") -> pd.DataFrame:
    """Per model the CV over activations, what is left of it without noise, and what noise alone gives."""
    by_chance = "By chance alone, %: median, 95th percentile"
    return worded(
        contrasts.cv_over_activations(evidence, metric),
        lambda row: {
            "CV, %": rounded(row["cv"], ".2f"),
            "Without noise, % (95 % interval)": _or_why_none(row, "cv_corrected", ".2f"),
            "In words": contrasts.sensitivity(evidence, row["model"], metric).lower(),
            by_chance: "–" if math.isnan(row["p"]) else f"{row['null_median']:.2f}, {row['null_high']:.2f}",
            "p": chance(row["p"]),
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
    """The interval over trials, the bootstrap interval over evaluation windows, and the one over both together."""

    def ends(row: dict[str, Any], over: str) -> str:
        return Estimate(row["value"], row[f"{over}_low"], row[f"{over}_high"], row["n"]).interval(".4f")

    return worded(
        contrasts.two_kinds_of_interval(evidence, metric),
        lambda row: {
            "Mean": number(row["value"], 4),
            "Over trials (this text)": ends(row, "trials"),
            "Over windows (these trials)": ends(row, "windows"),
            "Over both": ends(row, "both"),
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
    """What each contrast against relu says, one sentence per model and activation; ``frame``: ``leading_contrasts``.

    A model without any pair of trials is one sentence.
    """
    sentences = []
    for model, rows in frame.groupby("model", sort=False):
        most = int(rows[["n", "without_partner"]].to_numpy().max())
        if len(rows) > 1 and most < 2:
            sentences.append(f"{model}: no contrast with relu at N = {most}, and no interval: no cell has a pair of trials.")
        else:
            sentences += map(_contrast_sentence, rows_of(rows))
    return sentences


def _contrast_sentence(row: dict[str, Any]) -> str:
    name, n = f"{row['model']}: {row['activation']} against relu", int(row["n"])
    if pd.isna(row["difference"]):
        return f"{name}: not decided at N = {n}, and no interval: a cell is missing or has no pair."
    # Where relu's trials are all alike there is no per cent of their PD.
    known = not pd.isna(row["per_cent"])
    estimate = Estimate.in_row(row, "per_cent" if known else "difference")
    spec, unit = ("+z.1f", " %") if known else ("+.4f", "")
    size, interval = f"{rounded(estimate.value, spec)}{unit}", f"95 % interval {estimate.interval(spec)}{unit}"
    if pd.isna(row["difference_low"]):
        return f"{name}: {size} relative PD, not decided at N = {n}, and no interval below {TRIALS_FOR_INTERVAL} trials."
    alone = int(row["without_partner"])
    left_out = f", {alone} trials without a partner of their seed left out" if alone else ""
    tests = f"{interval}; p = {chance(row['p'])}, Holm {chance(row['p_holm'])}"
    return f"{name}: {size} relative PD ({tests}), {_verdict(row, n)}{left_out}{_beside(row)}{_at_equal_loss(row)}."


def _beside(row: dict[str, Any]) -> str:
    # What the other leading metric says, and whether that is something else.
    other = Estimate.in_row(row, "per_cent", "_tv")
    if not other.has_interval:
        return ""
    said = f"; total variation {rounded(other.value, '+z.1f')} % ({other.interval('+z.1f')}), {row['verdict_tv']}"
    if row["verdict"] != row["verdict_tv"]:
        return f"{said}: the verdict depends on the metric"
    opposite = row["verdict"] == SUPPORTED and row["per_cent"] * other.value < 0
    return f"{said}, in the opposite direction" if opposite else said


def _at_equal_loss(row: dict[str, Any]) -> str:
    # What is left of both where neither activation has the better model.
    parts = []
    for suffix, metric in (("_at_loss", "relative PD"), ("_at_loss_tv", "total variation")):
        left = Estimate.in_row(row, "per_cent", suffix)
        if left.has_interval:
            said = f"{metric} {rounded(left.value, '+z.1f')} % ({left.interval('+z.1f')}), {row[f'verdict{suffix}']}"
            parts.append(said)
    return f"; at equal loss ({row['loss_at_loss']:.3f} nats, N = {row['n_at_loss']}): {'; '.join(parts)}" if parts else ""


def _verdict(row: dict[str, Any], n: int) -> str:
    margin = f"the margin of {row['margin']:g} %"
    if row["verdict"] == EQUAL:
        return f"equal within {margin} at N = {n} (two one-sided tests, p = {chance(row['p_equal'])} for all at once)"
    if row["verdict"] == SUPPORTED:
        return f"a difference supported at N = {n}" + (f", and within {margin}" if row["p_equal"] <= SIGNIFICANCE else "")
    if n < TRIALS_FOR_CLAIM:
        return f"not decided at N = {n}, for a verdict takes {TRIALS_FOR_CLAIM} trials"
    least = "" if pd.isna(row["trials_needed"]) else f", about {row['trials_needed']:,.0f} trials would tell it from 0"
    return f"not decided at N = {n}: neither supported nor equal within {margin}{least}"


def cv_sentences(frame: pd.DataFrame) -> list[str]:
    """What the CV of each model says beside its noise; ``frame``: ``cv_over_activations``."""
    return [f"{row['model']}: {_cv_in_words(row, int(row['n']))}." for row in rows_of(frame)]


def _cv_in_words(row: dict[str, Any], n: int) -> str:
    if row["identical"]:
        return f"CV 0.00 % exactly at N = {n} (bit-identical; interval of width 0)"
    if pd.isna(row["cv"]):
        return f"no CV at N = {n}, and no interval: fewer than two activations have a PD"
    cv = Estimate.in_row(row, "cv_corrected")
    holes = f" over {row['cells']} of {row['expected']} activations" if row["cells"] < row["expected"] else ""
    if not cv.has_interval:
        return f"CV {row['cv']:.2f} %{holes} at N = {n} (no interval below {TRIALS_FOR_INTERVAL} trials that all cells share)"
    null = f"by chance alone {row['null_median']:.2f} % (up to {row['null_high']:.2f} % in 95 % of studies)"
    ends = f"without noise {cv.value:.2f} %, 95 % interval {cv.interval('.2f')} %"
    return f"CV {row['cv']:.2f} %{holes} at N = {n} ({ends}; {null}, p = {chance(row['p'])})"


def _or_why_none(row: dict[str, Any], name: str, spec: str, suffix: str = "") -> str:
    estimate = Estimate.in_row(row, name, suffix)
    none = "" if estimate.has_interval or pd.isna(estimate.value) else f" (none: N < {TRIALS_FOR_INTERVAL})"
    return f"{estimate:{spec}}{none}"
