"""The claims ledger of a study: published beside measured, a verdict by every metric, in tables, sentences and files.

Every sentence carries N and an interval, or says why there is none.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from repro_lib.analysis.claims import CLAIMS, Claim, judge
from repro_lib.analysis.contrasts import contrasts_frame, cv_over_activations
from repro_lib.analysis.evidence import Evidence
from repro_lib.analysis.formatting import literally
from repro_lib.analysis.study import METRICS, Study
from repro_lib.analysis.verdicts import NOT_DECIDED, REFUTED, SUPPORTED, Check, Judgement
from repro_lib.metrics.hypothesis_tests import SIGNIFICANCE, smallest_p
from repro_lib.metrics.prediction_difference import PAIR_METRICS
from repro_lib.metrics.uncertainty import CONFIDENCE, TRIALS_FOR_CLAIM, TRIALS_FOR_INTERVAL
from repro_lib.report.contrast_tables import contrast_sentences, cv_sentences
from repro_lib.report.sentences import about, missing
from repro_lib.report.tables import WordTable

GROUPS = {
    "findings": "Findings",
    "recommendations": "Recommendations",
    "numbers": "Published numbers",
}
METRIC_WORDS = {name: metric.words for name, metric in PAIR_METRICS.items()}


@dataclass(frozen=True)
class Entry:
    """One claim with its judgement by each metric it can be judged by, the primary one first."""

    claim: Claim
    judgements: dict[str, Judgement]

    @property
    def main(self) -> Judgement:
        """The judgement by the primary metric."""
        return self.judgements["relative_pd"]

    @property
    def disagreeing(self) -> tuple[str, ...]:
        """The metrics with another verdict than the primary one."""
        return tuple(metric for metric, other in self.judgements.items() if other.verdict != self.main.verdict)


def ledger(evidence: Evidence) -> list[Entry]:
    """All claims judged by this evidence, by every metric."""
    return [Entry(claim, {metric: judge(claim, evidence, metric) for metric in claim.metrics}) for claim in CLAIMS]


def ledger_table(entries: Sequence[Entry], group: str) -> WordTable:
    """One row per claim of a group: published beside measured, the verdict, N, and by which metrics it would be another."""
    rows = [
        {
            "Claim": entry.claim.text,
            "Published": entry.claim.published,
            "Measured: the decisive number": measured_in_words(entry.main.decisive),
            "Verdict": verdict_in_words(entry.main),
            "Other metrics": others_in_words(entry),
        }
        for entry in entries
        if entry.claim.group == group
    ]
    return WordTable(pd.DataFrame(rows).set_index("Claim"))


def checks_table(entry: Entry, metric: str = "relative_pd") -> WordTable:
    """Every number a claim rests on, with its simultaneous interval, the region the claim needs, and its verdict; folded."""
    rows = [
        {
            "Number": check.about,
            "Measured (interval)": measured_in_words(check, named=False),
            "N": check.estimate.n,
            "The claim needs": region_in_words(check),
            "Verdict": check.verdict,
        }
        for check in entry.judgements[metric].checks
    ]
    summary = f"{verdict_in_words(entry.judgements[metric])}: {entry.claim.text} Read as: {entry.claim.reading}."
    return WordTable(pd.DataFrame(rows).set_index("Number"), summary)


def verdict_in_words(judgement: Judgement) -> str:
    """``supported at N = 10``; ``not decided at N = 3, about 14 trials needed``."""
    words = f"{judgement.verdict} at N = {judgement.n}"
    if judgement.verdict != NOT_DECIDED:
        return words
    if judgement.trials_needed:
        return f"{words}, about {judgement.trials_needed:,} trials needed"
    if judgement.problems:
        return f"{words}, for something is missing"
    return f"{words}, at least {TRIALS_FOR_CLAIM} trials needed" if judgement.n < TRIALS_FOR_CLAIM else words


def measured_in_words(check: Check, *, named: bool = True) -> str:
    """The number of a check with its interval, or why there is none."""
    name = f"{check.about}: " if named else ""
    if check.problem:
        return f"{name}no number and no interval ({check.problem})"
    if check.exact:
        return f"{name}{_number(check.estimate.value)} exactly, by digests (interval of width 0)"
    low, high = check.simultaneous
    if math.isnan(low):
        why = f"below {TRIALS_FOR_INTERVAL} trials" if check.estimate.n < TRIALS_FOR_INTERVAL else "a value is not finite"
        return f"{name}{_number(check.estimate.value)} (no interval: {why})"
    level = 100 * (1 - SIGNIFICANCE / check.checks_in_claim)
    return f"{name}{_number(check.estimate.value)} ({level:.3g} % interval {_number(low)} to {_number(high)})"


def region_in_words(check: Check) -> str:
    """Where the number has to lie."""
    if math.isinf(check.low):
        return f"below {_number(check.high)}"
    if math.isinf(check.high):
        return f"above {_number(check.low)}"
    if check.exact:
        return "exactly 0"
    return f"{_number(check.low)} to {_number(check.high)}"


def others_in_words(entry: Entry) -> str:
    """Whether the other metrics give the same verdict."""
    others = [metric for metric in entry.judgements if metric != "relative_pd"]
    if not others:
        return "relative PD only"
    if not entry.disagreeing:
        return f"all {len(others)} agree"
    return "; ".join(f"{METRIC_WORDS[metric]}: {entry.judgements[metric].verdict}" for metric in entry.disagreeing)


def sentence(entry: Entry) -> str:
    """One claim in one line: text, verdict with N, decisive number with interval, what the other metrics say."""
    judgement = entry.main
    parts = [
        f"{entry.claim.text} **{verdict_in_words(judgement).capitalize().replace(' n =', ' N =')}**",
        f"published {entry.claim.published}",
        f"measured {measured_in_words(judgement.decisive)}",
    ]
    if entry.disagreeing:
        parts.append(f"the metrics disagree ({others_in_words(entry)})")
    return "; ".join(parts) + "."


def tally(entries: Sequence[Entry]) -> str:
    """How many claims came out which way, by the primary metric."""
    counts = {v: sum(entry.main.verdict == v for entry in entries) for v in (SUPPORTED, REFUTED, NOT_DECIDED)}
    split = sum(bool(entry.disagreeing) for entry in entries)
    sizes = sorted({entry.main.n for entry in entries if entry.main.n})
    n = "no trials" if not sizes else f"N = {sizes[0]}" if len(sizes) == 1 else f"N = {sizes[0]} to {sizes[-1]}"
    level = f"{100 * CONFIDENCE:.0f} % intervals, simultaneous within a claim"
    said = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    return (
        f"Of {len(entries)} claims of the earlier study {said} ({n}; {level}). "
        f"For {split} of them another metric gives another verdict ({n}, same intervals)."
    )


def conclusions_markdown(study: Study, evidence: Evidence, entries: Sequence[Entry]) -> str:
    """``FINAL_CONCLUSIONS.md``: what this study says, and what it says about the earlier study's claims."""
    lines = ["# Conclusions", "", literally(about(study)), "", literally(missing(study)), "", *_how_sure(study), ""]
    lines += ["## Does the activation matter here?", ""]
    lines += [
        f"- {line}" for line in [*contrast_sentences(contrasts_frame(evidence)), *cv_sentences(cv_over_activations(evidence))]
    ]
    lines += ["", "## The earlier study's claims", "", tally(entries), ""]
    for group, title in GROUPS.items():
        lines += [f"### {title}", "", *(f"- {sentence(entry)}" for entry in entries if entry.claim.group == group), ""]
    lines += [f"- {literally(gap)}" for gap in evidence.gaps]
    return "\n".join(lines).rstrip() + "\n"


def claims_json(study: Study, evidence: Evidence, entries: Sequence[Entry]) -> str:
    """``claims.json``: the ledger for programs. Numbers that are not there are null."""
    first = study.results[0] if study.results else None
    content = {
        "about": {
            "profile": first.profile if first else None,
            "corpus": first.corpus.model_dump() if first else None,
            "evaluation_sha256": first.evaluation.sha256 if first else None,
            "config_sha256": sorted({result.config_sha256 for result in study.results}),
            "confidence": CONFIDENCE,
            "trials_for_claim": TRIALS_FOR_CLAIM,
            "gaps": list(evidence.gaps),
        },
        "claims": [_entry_content(entry) for entry in entries],
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _how_sure(study: Study) -> list[str]:
    least = min((len(result.trials) for result in study.results), default=0)
    if least >= TRIALS_FOR_CLAIM or not study.results:
        return []
    return [
        f"With N = {least} nothing here is a claim: the smallest p an exact unpaired permutation test can reach is "
        f"{smallest_p(least, least, paired=False):.2g}, and a verdict needs {TRIALS_FOR_CLAIM} trials, whatever an interval "
        "says."
    ]


def _entry_content(entry: Entry) -> dict[str, Any]:
    main = entry.main
    return {
        "id": entry.claim.id,
        "group": entry.claim.group,
        "text": entry.claim.text,
        "published": entry.claim.published,
        "reading": entry.claim.reading,
        "verdict": main.verdict,
        "n": main.n,
        "trials_needed": main.trials_needed,
        "problems": list(main.problems),
        "decisive": _check_content(main.decisive),
        "checks": [_check_content(check) for check in main.checks],
        "verdict_by_metric": {metric: judgement.verdict for metric, judgement in entry.judgements.items()},
        "metrics_agree": not entry.disagreeing,
        "metrics_not_applicable": [metric for metric in METRICS if metric not in entry.judgements],
    }


def _check_content(check: Check) -> dict[str, Any]:
    estimate = check.estimate
    numbers = {
        "published": check.published,
        "value": estimate.value,
        "low": check.simultaneous[0],
        "high": check.simultaneous[1],
        "error": estimate.error,
        "needs_above": check.low,
        "needs_below": check.high,
    }
    finite = {name: value if value is not None and math.isfinite(value) else None for name, value in numbers.items()}
    words = {"about": check.about, "n": estimate.n, "verdict": check.verdict, "problem": check.problem or None}
    return words | finite | {"confidence": 1 - SIGNIFICANCE / check.checks_in_claim, "exact": check.exact}


def _number(value: float) -> str:
    """Four significant digits, and no digits that mean nothing."""
    if math.isnan(value):
        return "–"
    return f"{value:.4g}" if abs(value) >= 0.01 or value == 0 else f"{value:.2g}"
