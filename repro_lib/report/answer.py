"""The answer of a study in one plain sentence, from its verdicts: what every kind of study can say, and no more."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pandas as pd

from repro_lib.analysis.formatting import counted, listed
from repro_lib.analysis.frames import rows_of
from repro_lib.analysis.notes import NO_RESULTS
from repro_lib.analysis.study import Study
from repro_lib.analysis.verdicts import EQUAL, NOT_DECIDED, SUPPORTED
from repro_lib.metrics.uncertainty import TRIALS_FOR_CLAIM, Estimate

IN_ONE = "supported in one metric"
# More than these a sentence does not name; the figure beside it shows all.
_NAMED = 4


def answer(study: Study, contrasts: pd.DataFrame) -> str:
    """Does the activation matter? ``contrasts``: ``leading_contrasts`` of the study, or of some of its models."""
    if not study.results:
        return NO_RESULTS
    if study.is_synthetic:
        return "No answer: all numbers here are synthetic, and nothing was measured."
    rows = rows_of(contrasts.dropna(subset=["per_cent"]))
    if not rows:
        return _without_contrasts(study)
    by_verdict: dict[str, list[dict[str, Any]]] = {name: [] for name in (SUPPORTED, IN_ONE, EQUAL, NOT_DECIDED)}
    for row in rows:
        by_verdict[verdict_in_both(row)].append(row)
    n, margin = min(int(row["n"]) for row in rows), f"equal within {rows[0]['margin']:g} %"
    both, one, equal, undecided = by_verdict.values()
    others = [f"{counted(len(one), '', 'are')} supported in one of the two"] if both and one else []
    others += [f"{counted(len(equal), '', 'are')} {margin} in both"] if equal else []
    others += [f"{counted(len(undecided), '', 'are')} not decided"] if undecided else []
    rest = f" Of the others, {listed(others)}." if others else ""
    all_of = f"{counted(len(rows), 'difference')} from {study.reference}"
    if both:
        are = f"{len(both)} of {all_of} {'is' if len(both) == 1 else 'are'} supported in both relative PD and total variation"
        return f"Yes: {are}, {_named(both)}.{rest}{_at_equal_loss(both)}"
    if one:
        are = f"none of {all_of} is supported in both relative PD and total variation"
        return f"It depends on the metric: {are}, but {counted(len(one), '', 'are')} in one of them, {_named(one)}.{rest}"
    if len(equal) == len(rows):
        there = f"the only difference from {study.reference} is" if len(rows) == 1 else f"all {all_of} are"
        return f"No: {there} {margin} in both relative PD and total variation."
    if n < TRIALS_FOR_CLAIM:
        so_far = "the only difference" if len(rows) == 1 else f"the largest of {all_of}"
        largest = max(rows, key=lambda row: abs(row["per_cent"]))
        size = f"{largest['model']} with {largest['activation']}, relative PD {Estimate.in_row(largest, 'per_cent'):+.1f %}"
        return f"Not decided: a verdict takes {TRIALS_FOR_CLAIM} trials, and there are {n}. So far {so_far} is {size}."
    return f"Not decided: none of {all_of} is supported at N = {n}{f'; {listed(others)}' if equal else f', or {margin}'}."


def verdict_in_both(row: dict[str, Any], suffix: str = "") -> str:
    """What both leading metrics say of a contrast (``suffix`` ``_at_loss``: at equal loss): a verdict they share, ``IN_ONE``
    where one alone (or each in another direction) supports it, not decided otherwise."""
    verdicts = [row[f"verdict{suffix}"], row[f"verdict{suffix}_tv"]]
    if SUPPORTED in verdicts:
        one_sign = row[f"per_cent{suffix}"] * row[f"per_cent{suffix}_tv"] > 0
        return SUPPORTED if verdicts[0] == verdicts[1] and one_sign else IN_ONE
    return EQUAL if verdicts == [EQUAL, EQUAL] else NOT_DECIDED


def _without_contrasts(study: Study) -> str:
    results = study.measured.results
    if set(study.identical) == {result.model_name for result in results}:
        predict = "predicts" if len(study.identical) == 1 else "predict"
        return f"No: {listed(study.identical)} {predict} the same bits with every activation, so there is nothing to test."
    ran = f"{results[0].model_name} with {results[0].arm}" if len(results) == 1 else counted(len(results), "cell")
    takes = f"it takes {study.reference} and another activation in the same model, two trials of each at least"
    return f"No comparison yet: {ran} {'was' if len(results) == 1 else 'were'} run, and {takes}."


# ``convlm with swiglu (+9.4 %, +10.3 %) and hybridlm with swiglu (+7.1 %, +6.9 %)``, in both metrics, the largest first.
def _named(rows: Sequence[dict[str, Any]]) -> str:
    ranked = sorted(rows, key=lambda row: -abs(row["per_cent"]))
    named = [f"{r['model']} with {r['activation']} ({r['per_cent']:+.1f} %, {r['per_cent_tv']:+.1f} %)" for r in ranked]
    return listed(named if len(named) <= _NAMED else [*named[: _NAMED - 1], f"{len(named) - _NAMED + 1} others"])


def _at_equal_loss(rows: Sequence[dict[str, Any]]) -> str:
    known = [row for row in rows if not pd.isna(row["per_cent_at_loss"])]
    found = Counter(verdict_in_both(row, "_at_loss") for row in known)
    words = {SUPPORTED: "still supported in both", IN_ONE: "supported in one", EQUAL: "equal within the margin in both"}
    words[NOT_DECIDED] = NOT_DECIDED
    parts = [f"{counted(found[kind], '', 'are')} {said}" for kind, said in words.items() if found[kind]]
    can = f"{len(known)} of those supported in both can be compared"
    return f" At equal validation loss, where {can}, {listed(parts)}." if known else ""
