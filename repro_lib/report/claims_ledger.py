"""The claims ledger: published beside measured, a verdict by every metric. Every sentence has N and an interval, or why not."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import pandas as pd

from repro_lib.analysis.claims import CLAIMS, Claim, judge
from repro_lib.analysis.contrasts import leading_contrasts
from repro_lib.analysis.evidence import Evidence
from repro_lib.analysis.formatting import literally
from repro_lib.analysis.study import Study
from repro_lib.analysis.verdicts import NOT_COMPARABLE, NOT_DECIDED, REFUTED, SUPPORTED, Check, Judgement, Verdict
from repro_lib.metrics.hypothesis_tests import SIGNIFICANCE
from repro_lib.metrics.prediction_difference import PAIR_METRICS
from repro_lib.metrics.uncertainty import CONFIDENCE, TRIALS_FOR_CLAIM, TRIALS_FOR_INTERVAL, rounded
from repro_lib.report.answer import answer
from repro_lib.report.contrast_tables import contrasts_table, cv_table, equal_loss_tables
from repro_lib.report.sentences import about, missing
from repro_lib.report.tables import WordTable, markdown_table

GROUPS = {"findings": "Findings", "recommendations": "Recommendations", "numbers": "Published numbers"}


@dataclass(frozen=True)
class Entry:
    """One claim with its judgement by each metric it can be judged by, the primary one first, and what is said beside it."""

    claim: Claim
    judgements: dict[str, Judgement]
    beside: str

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
    own = {claim.id: [metric for metric in evidence.metrics if metric in claim.metrics] for claim in CLAIMS}
    return [Entry(c, {m: judge(c, evidence, m) for m in own[c.id]}, c.said_beside(evidence)) for c in CLAIMS]


def ledger_table(entries: Sequence[Entry], group: str) -> WordTable:
    """One row per claim of a group: published beside measured, the verdict, N, and by which metrics it would be another."""
    rows = {
        entry.claim.text: {
            "Published": entry.claim.published,
            "Measured: the decisive number": f"{entry.main.decisive.about}: {_measured(entry.main.decisive, _verdict(entry))}",
            "Verdict": ". ".join(filter(None, [_verdict(entry), entry.beside])),
            "Other metrics": _others(entry),
        }
        for entry in entries
        if entry.claim.group == group
    }
    return WordTable(pd.DataFrame.from_dict(rows, orient="index").rename_axis("Claim"))


def checks_table(entry: Entry, metric: str = "relative_pd") -> WordTable:
    """Every number a claim rests on, with its simultaneous interval, the region the claim needs, and its verdict; folded."""
    rows = [
        {
            "Number": check.about,
            "Measured (interval)": _measured(check),
            "N": check.estimate.n,
            "The claim needs": _region(check),
            "Verdict": check.verdict,
        }
        for check in entry.judgements[metric].checks
    ]
    summary = f"{_verdict(entry, metric)}: {entry.claim.text} Read as: {entry.claim.reading}."
    return WordTable(pd.DataFrame(rows).set_index("Number"), summary)


# ``supported at N = 10``; ``not decided at N = 3, about 14 trials needed``; ``not judged: minigpt has no results``.
def _verdict(entry: Entry, metric: str = "relative_pd") -> str:
    judgement = entry.judgements[metric]
    verdict, n, needed = judgement.verdict, judgement.n, judgement.trials_needed
    if verdict == NOT_COMPARABLE:
        return verdict
    if verdict == NOT_DECIDED and judgement.problems:
        return f"not judged: {'; '.join(judgement.problems)}"
    why = " by construction" if entry.claim.by_construction and verdict == SUPPORTED else ""
    least = f", at least {TRIALS_FOR_CLAIM} trials needed" if verdict == NOT_DECIDED and n < TRIALS_FOR_CLAIM else ""
    return verdict + why + (f" at N = {n}" if n else "") + (f", about {needed:,} trials needed" if needed else least)


# The number of a check with its interval, or why there is none, unless that is said already.
def _measured(check: Check, said: str = "") -> str:
    if check.problem:
        return "no number and no interval" + ("" if check.problem in said else f" ({check.problem})")
    value, (low, high) = _number(check.estimate.value), check.simultaneous
    if check.exact:
        return f"{check.estimate.value:,.0f} exactly, {check.exact} (interval of width 0)"
    if math.isnan(low):
        why = f"below {TRIALS_FOR_INTERVAL} trials" if check.estimate.n < TRIALS_FOR_INTERVAL else "a value is not finite"
        return f"{value} (no interval: {why})"
    n = "" if check.comparable else f", N = {check.estimate.n}"  # which the verdict does not name there
    return f"{value} ({100 * _level(check):.3g} % interval {_number(low)} to {_number(high)}{n})"


# All intervals of one claim hold at once (Bonferroni), so each is wider the more checks there are.
def _level(check: Check) -> float:
    return 1 - SIGNIFICANCE / check.checks_in_claim


def _region(check: Check) -> str:
    if not check.comparable:
        return "nothing that could be compared"
    if math.isinf(check.low):
        return f"below {_number(check.high)}"
    if math.isinf(check.high):
        return f"above {_number(check.low)}"
    return "exactly 0" if check.published == 0 else f"{_number(check.low)} to {_number(check.high)}"


def _others(entry: Entry) -> str:
    if len(entry.judgements) == 1:
        return "relative PD only"
    if not entry.disagreeing and (entry.main.problems or entry.main.verdict == NOT_COMPARABLE):
        return "–"
    differing = (f"{PAIR_METRICS[metric].words}: {entry.judgements[metric].verdict}" for metric in entry.disagreeing)
    return "; ".join(differing) or f"all {len(entry.judgements) - 1} agree"


def sentence(entry: Entry) -> str:
    """One claim in one line: text, verdict with N, decisive number with interval, what the other metrics say."""
    verdict, decisive = _verdict(entry), entry.main.decisive
    split = f"; the metrics disagree ({_others(entry)})" if entry.disagreeing else ""
    return (
        f"{entry.claim.text} **{verdict[0].upper()}{verdict[1:]}**; published {entry.claim.published}; "
        f"measured {decisive.about}: {_measured(decisive, verdict)}{split}.{' ' + entry.beside if entry.beside else ''}"
    )


def tally(entries: Sequence[Entry]) -> str:
    """How many claims came out which way, by the primary metric."""

    def came_out(verdict: Verdict) -> str:
        found = [entry for entry in entries if entry.main.verdict == verdict]
        # Several claims may rest on one number, and then they are one piece of evidence.
        facts = {entry.main.decisive.fact or entry.main.decisive.about for entry in found}
        kinds = {
            "by construction": verdict == SUPPORTED and sum(entry.claim.by_construction for entry in found),
            f"distinct fact{'s' * (len(facts) > 1)}": verdict in (SUPPORTED, REFUTED) and len(facts),
            "for want of models or numbers": verdict == NOT_DECIDED and sum(bool(entry.main.problems) for entry in found),
            "of another text, vocabulary or recipe": verdict == NOT_COMPARABLE and len(found),
        }
        return f"{len(found)} {verdict} ({'; '.join(f'{n} {kind}' for kind, n in kinds.items() if n)})".removesuffix(" ()")

    told = ", ".join(map(came_out, get_args(Verdict)))
    split = sum(bool(entry.disagreeing) for entry in entries)
    sizes = sorted({entry.main.n for entry in entries if entry.main.n})
    n = f"N = {' to '.join(map(str, dict.fromkeys([sizes[0], sizes[-1]])))}" if sizes else "no trials"
    level = f"{100 * CONFIDENCE:.0f} % intervals, simultaneous within a claim"
    return (
        f"{len(entries)} claims of the earlier study: {told} ({n}; {level}). "
        f"On {split or 'none'} of them another metric gives another verdict ({n}, same intervals)."
    )


def conclusions_markdown(study: Study, evidence: Evidence, entries: Sequence[Entry]) -> str:
    """``FINAL_CONCLUSIONS.md``: what this study says, and what it says about the earlier study's claims."""
    lines = ["# Conclusions", "", literally(about(study)), "", literally(missing(study)), ""]
    least = min((len(result.trials) for result in study.results), default=TRIALS_FOR_CLAIM)
    if least < TRIALS_FOR_CLAIM:
        lines.append(f"With N = {least} nothing here is a claim: a verdict takes {TRIALS_FOR_CLAIM} trials.")
    lines += ["", "## Does the activation matter here?", "", literally(answer(study, leading_contrasts(evidence)))]
    tables = {
        "Each activation against the reference": [contrasts_table(evidence)],
        "At equal loss": equal_loss_tables(evidence),
    }
    tables["CV over activations"] = [cv_table(evidence)]
    for title, found in tables.items():
        lines += ["", *(f"### {title}\n\n{markdown_table(table)}" for table in found)]
    lines += ["", "## The earlier study's claims", "", tally(entries), ""]
    for group, title in GROUPS.items():
        lines += [f"### {title}", "", *(f"- {sentence(entry)}" for entry in entries if entry.claim.group == group), ""]
    # What comes from files may look like markup; it is shown and does nothing.
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
        "claims": [
            {name: getattr(entry.claim, name) for name in ("id", "group", "text", "published", "reading", "by_construction")}
            | {name: getattr(entry.main, name) for name in ("verdict", "n", "trials_needed", "problems")}
            | {
                "beside": entry.beside or None,
                "decisive": _check_content(entry.main.decisive),
                "checks": [_check_content(check) for check in entry.main.checks],
                "verdict_by_metric": {metric: judgement.verdict for metric, judgement in entry.judgements.items()},
                "metrics_agree": not entry.disagreeing,
                "metrics_not_applicable": [metric for metric in evidence.metrics if metric not in entry.judgements],
            }
            for entry in entries
        ],
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _check_content(check: Check) -> dict[str, Any]:
    estimate, (low, high) = check.estimate, check.simultaneous
    numbers = {"published": check.published, "value": estimate.value, "low": low, "high": high, "error": estimate.error}
    numbers |= {"needs_above": check.low, "needs_below": check.high}
    # JSON knows neither infinity nor NaN.
    finite = {name: value if value is not None and math.isfinite(value) else None for name, value in numbers.items()}
    words = {"about": check.about, "n": estimate.n, "verdict": check.verdict, "problem": check.problem or None}
    return words | finite | {"confidence": _level(check), "exact": bool(check.exact)}


# Four significant digits; two below 0.01, where more mean nothing.
def _number(value: float) -> str:
    return rounded(value, ".4g" if abs(value) >= 0.01 or value == 0 else ".2g")
