"""Two texts about a whole store: ``summary.txt``, which ``repro process`` prints too, and ``SYNTHETIC_DATA_SUMMARY.md``."""

import math
from collections.abc import Sequence
from datetime import UTC
from pathlib import Path
from typing import Any

import pandas as pd

from repro_lib.analysis.contrasts import (
    chances_of_being_best,
    cv_over_activations,
    sensitivity,
    two_kinds_of_interval,
    verdict_on_extreme,
)
from repro_lib.analysis.evidence import Evidence
from repro_lib.analysis.formatting import chance, literally, number, of_arms
from repro_lib.analysis.frames import rows_of
from repro_lib.analysis.notes import NO_RESULTS
from repro_lib.analysis.overviews import models_overview
from repro_lib.analysis.own_runs import own_runs_sentence, run_lines
from repro_lib.analysis.study import Study
from repro_lib.analysis.verdicts import SUPPORTED
from repro_lib.metrics.uncertainty import TRIALS_FOR_CLAIM
from repro_lib.report.contrast_tables import contrasts_table, equal_loss_tables
from repro_lib.report.sentences import provenance
from repro_lib.report.tables import activations_table, models_table
from repro_lib.store.schema import SYNTHETIC_MARK, Result


def summary_text(study: Study, evidence: Evidence | None = None) -> str:
    """The console block: what was run, a part per model, contrasts, both overviews, the runtime. Ends with a line feed.

    ``evidence``: of this study, where its predictions are at hand.
    """
    if not study.results:
        return "\n".join([*study.refused, NO_RESULTS]) + "\n"
    evidence = evidence or Evidence.from_results(study)
    mark = " (SYNTHETIC)" if study.is_synthetic else ""
    notes = provenance(study)
    if study.is_synthetic:
        notes.insert(0, "ALL NUMBERS BELOW ARE SYNTHETIC: made up, nothing was trained or measured.")
    overviews = rows_of(models_overview(study))
    blocks = [_model_block(study, evidence, overview, mark) for overview in overviews]
    seconds = {row["model"]: row["seconds"] for row in overviews}
    # A model without results has no seconds; the sum is of those that have.
    seconds["all"] = sum(each for each in seconds.values() if not math.isnan(each))
    parts = [
        notes,
        *blocks,
        _differences(study, evidence),
        [
            f"MODELS{mark}",
            models_table(study).drop(columns="Training, s").to_string(),
            "CV: population standard deviation / mean over the activations. It is above 0 even where nothing differs.",
            "",
            f"ACTIVATIONS{mark}",
            activations_table(study).to_string(),
            "Average over the models that have results and are not bit-identical; none where one of them lacks the activation.",
            "Brackets: 95 % jackknife over trials, on this evaluation text. Those of cells count the chance of the text too",
            "where its predictions are at hand; to a contrast, in which both cells read the same text, it adds little.",
        ],
        [
            f"RUNTIME (training, sum over trials){mark}",
            *(f"  {name + ':':<18}{number(each, 1):>9} s" for name, each in seconds.items()),
        ],
        *([["YOUR EXPERIMENTS", *said, *run_lines(study.own_runs)]] if (said := own_runs_sentence(study.own_runs)) else []),
    ]
    return of_arms(study.factor, "\n\n".join("\n".join(lines) for lines in parts) + "\n")


def _model_block(study: Study, evidence: Evidence, overview: dict[str, Any], mark: str) -> list[str]:
    model = overview["model"]
    cells = rows_of(study.cells[study.cells["model"] == model])
    # Of other trials on another text, where the predictions of each window are at hand.
    crossed = {r["activation"]: r for r in rows_of(two_kinds_of_interval(evidence)) if r["model"] == model}
    width = max(10, *(len(cell["activation"]) + 1 for cell in cells))
    lines = [f"MODEL: {model.upper()}{mark}"]
    for cell in cells:
        best = (
            _title(evidence, overview, "best", "  <- BEST", "  <- LOWEST: {}") if cell["activation"] == overview["best"] else ""
        )
        lines.append(f"{cell['activation'].upper() + ':':<{width}} {_pd_in_words(cell, crossed.get(cell['activation']))}{best}")
    lines += [f"STATISTICS:{mark}", f"  Mean PD: {number(overview['mean_pd'], 4)}"]
    cv = "undefined" if math.isnan(overview["cv"]) else f"{overview['cv']:.2f}% ({sensitivity(evidence, model)})"
    lines.append(f"  CV: {cv}")
    # What is left of it without noise, and what noise alone gives, as far as they can be had.
    row = next(row for row in rows_of(cv_over_activations(evidence)) if row["model"] == model)
    if not pd.isna(row["p"]):
        ends = f"{row['cv_corrected_low']:.2f}% to {row['cv_corrected_high']:.2f}%"
        lines.append(f"  CV without noise: {row['cv_corrected']:.2f}%, {ends} (95 %, N={row['n']})")
        by_chance = f"{row['null_median']:.2f}%, 95 % of studies up to {row['null_high']:.2f}% (p = {chance(row['p'])})"
        lines.append(f"  CV by chance alone: {by_chance}")
    if not pd.isna(overview["best"]):
        for end, name in (("best", "Lowest"), ("worst", "Highest")):
            it = f"{overview[end]} (PD={overview[f'{end}_pd']:.4f}"
            lines.append(_title(evidence, overview, end, f"  {end.capitalize()}: {it})", f"  {name}: {it}; {{}})"))
    elif overview["identical"]:
        lines.append("  Bit-identical for every activation: left out of the statistics across activations.")
    return lines


# A title where the tests support it; otherwise that it is the number alone, with what they say.
def _title(evidence: Evidence, overview: dict[str, Any], end: str, title: str, number_alone: str) -> str:
    verdict = verdict_on_extreme(evidence, overview["model"], overview[end])
    return title if verdict == SUPPORTED else number_alone.format(verdict)


def _differences(study: Study, evidence: Evidence) -> list[str]:
    if study.is_synthetic:
        return ["CONTRASTS: none, synthetic results are not tested."]
    if (contrasts := contrasts_table(evidence)).empty:
        return [f"CONTRASTS: none, for they take {evidence.reference} and another activation in the same model."]
    # Sorted twice: by chance to find each model's likeliest, then back into the order of the study.
    ranked = chances_of_being_best(evidence).dropna(subset=["p_best"]).sort_values("p_best", ascending=False, kind="stable")
    likeliest = rows_of(ranked.drop_duplicates("model").sort_index())
    chances = [f"  {row['model'] + ':':<18}{row['activation']} {row['p_best']:.2f}" for row in likeliest]
    return [
        f"CONTRASTS AGAINST {evidence.reference.upper()}",
        contrasts.to_string(),
        *(f"\nAT EQUAL LOSS\n{table.to_string()}" for table in equal_loss_tables(evidence)),
        "Brackets: 95 % jackknife, seed by seed. p: its t test, two-sided; Holm: over all rows; permutation: a check.",
        f"p (equality test): two one-sided tests of a margin of {evidence.margin:g} % of the reference, for all rows at once.",
        f"No verdict below {TRIALS_FOR_CLAIM} trials.",
        *evidence.gaps,
        "",
        "P(BEST), the likeliest activation per model",
        *(chances or ["  none: below 3 trials, or cells are missing"]),
    ]


def _pd_in_words(cell: dict[str, Any], crossed: dict[str, Any] | None) -> str:
    if cell["n"] == 0:
        return "missing"
    if math.isnan(cell["relative_pd"]):
        return "Relative PD: none, one trial has no pair"
    low, high = cell["relative_pd_low"], cell["relative_pd_high"]
    if crossed and not cell["synthetic"] and not math.isnan(crossed["both_low"]):
        low, high = crossed["both_low"], crossed["both_high"]
    interval = f"[{low:.4f}, {high:.4f}]"
    if math.isnan(cell["relative_pd_low"]):
        interval = f"(no interval at N={cell['n']})"
    mark = " (SYNTHETIC, not measured)" if cell["synthetic"] else " (flagged)" if cell["flags"] else ""
    return f"Relative PD: {cell['relative_pd']:.4f} {interval}{mark}"


def synthetic_summary(entries: Sequence[tuple[Path, Result]]) -> str:
    """The text of ``SYNTHETIC_DATA_SUMMARY.md``: every synthetic result among ``entries`` (``Store.load``), in Markdown."""
    measured = {_place(result) for _, result in entries if not result.synthetic}
    rows = []
    for path, result in entries:
        if result.synthetic:
            state = "replaced: the cell is measured" if _place(result) in measured else "shown only where asked for"
            neighbours = result.environment.get("neighbours")
            made = ("; ".join(result.flags) or "the file does not say") + (f". Files: {neighbours}" if neighbours else "")
            distance = math.nan if result.avg_relative_pd is None else result.avg_relative_pd
            cells = (path.name, result.model_name, result.activation, f"{number(distance, 4)} (synthetic)",
                     str(len(result.trials)), f"{result.timestamp.astimezone(UTC):%Y-%m-%d %H:%M}", state, made)  # fmt: skip
            rows.append("| " + " | ".join(literally(text).replace("|", "\\|") for text in cells) + " |")
    head = "| file | model | activation | relative PD | trials | made, UTC | state | how, and from what |\n" + "|---" * 8 + "|"
    listed = "\n".join([f"{len(rows)} synthetic results are in the store.", "", head, *rows])
    what_they_are = Path(__file__).with_name("synthetic_summary.md").read_text(encoding="utf-8")
    return what_they_are.format(mark=SYNTHETIC_MARK) + "\n" + (listed if rows else "There is none in the store.") + "\n"


# What a measured result must have to take the place of a synthetic one.
def _place(result: Result) -> tuple[str, ...]:
    return result.model_name, result.activation, result.measured_key, result.config_sha256
