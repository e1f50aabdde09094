"""Evidence as tables for people: every number has N and an interval, or says why there is none."""

import math
from collections import Counter
from typing import Any

import pandas as pd

from repro_lib.analysis import contrasts
from repro_lib.analysis.evidence import Evidence
from repro_lib.analysis.formatting import chance, counted, listed, number
from repro_lib.analysis.frames import rows_of
from repro_lib.analysis.league import league
from repro_lib.analysis.verdicts import EQUAL, NOT_DECIDED, SUPPORTED
from repro_lib.metrics.prediction_difference import PAIR_METRICS
from repro_lib.metrics.uncertainty import TRIALS_FOR_CLAIM, TRIALS_FOR_INTERVAL, Estimate, rounded
from repro_lib.report.tables import spread, worded


def contrasts_table(evidence: Evidence, model: str | None = None) -> pd.DataFrame:
    """Every activation against the reference (of one model): difference in per cent of its, tests, verdicts, what would tell.

    All corrections are for all models of the evidence, also where only one is shown.
    """
    # How many trials would tell depends on the family: it is said for that of all models, and not otherwise.
    tell = model is None
    return worded(
        contrasts.leading_contrasts(evidence),
        lambda row: {
            "Relative PD, % (95 % interval)": _or_why_none(row, "per_cent", "+z.1f"),
            "Verdict": row["verdict"],
            "Total variation, % (95 % interval)": _or_why_none(row, "per_cent", "+z.1f", "_tv"),
            "Verdict (total variation)": row["verdict_tv"],
            "p": chance(row["p"]),
            "p (Holm)": chance(row["p_holm"]),
            "p (equality test)": chance(row["p_equal"]),
            **({"Trials to tell": rounded(row["trials_needed"], ",.0f")} if tell else {}),
            "p (permutation)": chance(row["p_permutation"]),
        },
        model,
    )


def equal_loss_tables(evidence: Evidence, model: str | None = None) -> list[pd.DataFrame]:
    """The contrasts with the reference (of one model) at equal loss, as a table; none where no runs of other lengths tell."""
    frame = contrasts.leading_contrasts(evidence).dropna(subset=["per_cent_at_loss"])
    if frame.empty or model not in (None, *frame["model"]):
        return []
    table = worded(
        frame.assign(n=frame["n_at_loss"]),
        lambda row: {
            "At a loss of": f"{row['loss_at_loss']:.3f}",
            "Relative PD, % (95 % interval)": _or_why_none(row, "per_cent", "+z.1f", "_at_loss"),
            "Verdict": row["verdict_at_loss"],
            "Total variation, % (95 % interval)": _or_why_none(row, "per_cent", "+z.1f", "_at_loss_tv"),
            "Verdict (total variation)": row["verdict_at_loss_tv"],
            "From runs of": f"{row['lengths_at_loss']} iterations",
        },
        model,
    )
    return [table]


def league_table(evidence: Evidence, model: str) -> pd.DataFrame:
    """The arms of a model, the one with the least total variation first: what each changes, what it costs, what it leaves."""

    def change(row: dict[str, Any], name: str) -> str:
        # At equal loss none is known without runs of other lengths, and the reference is compared with nothing.
        if pd.isna(row[f"per_cent_{name}"]):
            return "–"
        verdict = {SUPPORTED: ", supported", EQUAL: ", equal"}.get(row[f"verdict_{name}"], "")
        return f"{_or_why_none(row, 'per_cent', '+z.1f', f'_{name}')}{verdict}"

    frame = league(evidence)
    names = frame["activation"]
    return worded(
        frame.assign(activation=names.where(names != evidence.reference, names + " (reference)")),
        lambda row: {
            "Total variation": number(row["total_variation"], 4),
            "Change, %": change(row, "total_variation"),
            "Churn, %": change(row, "churn"),
            "Relative PD, %": change(row, "relative_pd"),
            "At equal loss, %": change(row, "at_loss"),
            "Loss": number(row["val_loss"], 3),
            "Accuracy, %": number(row["val_accuracy"], 2),
            "Training, x": rounded(row["training"], ".2f"),
            "Measured, x": rounded(row["seconds"], ".2f"),
            "Serving, x": rounded(row["serving"], ".2f"),
        },
        model,
    )


def league_sentences(evidence: Evidence) -> list[str]:
    """What the league of each model comes to: which arms lower total variation and by how much, and how many do not tell."""
    sentences, reference = [], "the reference" if " " in evidence.reference else evidence.reference
    for model, frame in league(evidence).groupby("model", sort=False):
        others = frame[frame["activation"] != evidence.reference].dropna(subset=["per_cent_total_variation"])
        if others.empty:
            continue
        n, kinds = int(frame["n"].min()), Counter(others["verdict_total_variation"])
        lower = others[(others["per_cent_total_variation"] < 0)].sort_values("per_cent_total_variation")
        shown = lower[lower["verdict_total_variation"] == SUPPORTED]
        if n < TRIALS_FOR_CLAIM:
            lowest = f"lowest so far {', '.join(_arms_and_costs(lower)[:_NAMED])}" if len(lower) else "none is lower so far"
            told = f"not decided below {TRIALS_FOR_CLAIM} trials; {lowest}"
        else:
            counts = {f"equal within {evidence.margin:g} %": kinds[EQUAL], "not decided": kinds[NOT_DECIDED]}
            counts = {"lower": len(shown), "higher": kinds[SUPPORTED] - len(shown)} | counts
            parts = {what: f"{what} in {count}" for what, count in counts.items() if count or what == "lower"}
            parts["lower"] += f" ({_lowest(shown)})" if len(shown) else ""
            told = f"total variation is {listed(parts.values())}"
        trials = f"N = {n}" + (" or more" if frame["n"].max() > n else "")
        sentences.append(f"{model}, {counted(len(others), 'arm')} against {reference}, {trials}: {told}.")
    return sentences


# So many arms a sentence names; the table below it has all. Compute that is nearly the reference's is not worth a word.
_NAMED, _LESS, _MORE = 3, 0.95, 1.05


def _lowest(shown: pd.DataFrame) -> str:
    # What costs no more is named in any case: it is what a reader would take first.
    named, free = shown.head(_NAMED), shown.query("training < @_MORE and serving < @_MORE").head(1)
    others = [counted(len(shown) - _NAMED, "other")] if len(shown) > _NAMED else []
    beside = "" if free.index.isin(named.index).all() else f"; without more compute {_arms_and_costs(free)[0]}"
    return listed([*_arms_and_costs(named), *others]) + beside


def _arms_and_costs(frame: pd.DataFrame) -> list[str]:
    parts = []
    for row in rows_of(frame):
        told = [f"{row['per_cent_total_variation']:+z.1f} %"]
        told += [f"{name} {row[name]:.1f} x" for name in ("training", "serving") if not _LESS < row[name] < _MORE]
        parts.append(f"{row['activation']} ({', '.join(told)})")
    return parts


def cv_table(evidence: Evidence, metric: str = "relative_pd") -> pd.DataFrame:
    """Per model the CV over activations, what is left of it without noise, and what noise alone gives."""
    by_chance = "By chance alone, %: median, 95th percentile"
    return worded(
        contrasts.cv_over_activations(evidence, metric),
        lambda row: {
            "CV, %": rounded(row["cv"], ".2f"),
            "Without noise, % (95 % interval)": _or_why_none(row, "cv_corrected", ".2f"),
            f"By {PAIR_METRICS[metric].words}": contrasts.sensitivity(evidence, row["model"], metric).lower(),
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

    heads = {"observed": "SD of accuracy, %", "evaluation": "from the text", "runs": "from the runs"}
    frame = contrasts.accuracy_variance(evidence)
    return worded(frame, lambda row: {head: deviation(row[name]) for name, head in heads.items()}, model)


def _or_why_none(row: dict[str, Any], name: str, spec: str, suffix: str = "") -> str:
    estimate = Estimate.in_row(row, name, suffix)
    if estimate.has_interval or pd.isna(estimate.value):
        return f"{estimate:{spec}}"
    # At equal loss no fewer trials count, but without one of them the loss may be out of the others' reach.
    why = "loss not reached without every trial" if "at_loss" in suffix else f"N < {TRIALS_FOR_INTERVAL}"
    return f"{estimate:{spec}} (none: {why})"
