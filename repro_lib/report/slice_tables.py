"""The disagreement of a study's cells taken apart for the notebooks: loaded once, then told in tables and sentences.

What can be said from result files alone (single trials, churn against error) is said also where predictions are missing.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from repro_lib.analysis.cell_anatomy import HEADS, Anatomies, CellAnatomy, churn_against_error
from repro_lib.analysis.formatting import counted, listed, number, seen
from repro_lib.analysis.frames import pair_matrix, rows_of
from repro_lib.analysis.notes import Note
from repro_lib.analysis.study import Study
from repro_lib.metrics.churn_and_influence import trial_influence
from repro_lib.metrics.prediction_difference import PAIR_METRICS
from repro_lib.metrics.uncertainty import TRIALS_FOR_INTERVAL, Estimate
from repro_lib.report.tables import worded
from repro_lib.store.schema import Result

RARE_IN_WORDS = "under 1 % of the training text"
CHARACTER_NAMES = {" ": "space", "\n": "line end", "\t": "tab"}
# What stands for a cell that could not be taken apart.
_NOTHING: dict[str, Any] = dict.fromkeys(("share", "held", "held_low", "held_high"), math.nan)


def slices_table(cell: CellAnatomy) -> pd.DataFrame:
    """Every slice of one cell that has characters, for people: as many columns as a page is wide, in brackets the interval."""
    rows = [
        {
            "By": HEADS[row["slicing"]],
            "Slice": row["slice"],
            "Of the text, %": number(100 * row["share"], 1),
            "Of the variation, %": _shown(row, "held", ".1f", 100),
            "Total variation": _shown(row, "total_variation", ".3f"),
            "Churn": _shown(row, "churn", ".3f"),
            "Error rate": number(row["error"], 3),
        }
        for row in rows_of(cell.slices)
        if row["n"]
    ]
    return pd.DataFrame(rows).set_index(["By", "Slice"])


def slices_views(anatomies: Anatomies, model: str, activations: Sequence[str]) -> list[pd.DataFrame | Note]:
    """For each of these activations that could be taken apart its name, and the table below it."""
    cells = filter(None, (anatomies.cell(model, name) for name in activations))
    views = [view for cell in cells for view in (Note(f"{model} with {cell.activation}, N = {cell.n}"), slices_table(cell))]
    return views or [Note(f"No slices of {model}: none of its cells could be taken apart.")]


def swaps_view(anatomies: Anatomies, model: str) -> pd.DataFrame | Note:
    """The most frequent swaps of each activation of a model by rank: characters, share of all swaps, count; or that none is."""
    columns = {
        cell.activation: [
            f"{shown_character(row['first'])} / {shown_character(row['second'])}: "
            f"{100 * row['share']:.1f}\N{NO-BREAK SPACE}% ({row['count']:,})"
            for row in rows_of(cell.swaps)
        ]
        for cell in anatomies.cells
        if cell.model == model
    }
    table = pd.DataFrame({name: pd.Series(entries, dtype=object) for name, entries in columns.items()}).fillna("–")
    # Ranks begin with 1.
    table.index += 1
    return Note(f"No swaps of {model}: there are no two trials whose top-1 is known to differ.") if table.empty else table


def shown_character(token: str) -> str:
    """A token as a reader can see it: ``space``, ``line end``, ``U+00A0``, or itself; in a longer one ␣ and ⏎."""
    return CHARACTER_NAMES.get(token) or seen(token).replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥")


# One row per expected cell, whether there is a result of it or not.
def _by_cell(study: Study, words: Callable[[str, str], dict[str, str]], model: str | None = None) -> pd.DataFrame:
    frame = study.cells[["model", "activation", "n"]]
    return worded(frame, lambda row: {"N": row["n"] or "missing"} | words(row["model"], row["activation"]), model)


def influence_table(study: Study, model: str) -> pd.DataFrame:
    """The mean relative PD of each trial to the others, one row per activation of a model, and the relative PD of the cell
    without the trial that moves it most; from the results alone."""

    def scores(*cell: str) -> dict[str, str]:
        if not (result := study.result(*cell)):
            return {}
        frame = _influence(result)
        found = {f"Trial {k}": number(score, 4) for k, score in enumerate(frame["score"], 1)}
        if len(result.trials) < TRIALS_FOR_INTERVAL:
            return found
        # By size, whichever way it moves the result.
        row = rows_of(frame)[int(np.argmax(np.abs(frame["influence"])))]
        without = f"{_shown(row, 'without', '.4f')}, trial {row['trial']}"
        return found | {"Without the one that moves it most": without if frame["influence"].any() else "the same without any"}

    return _by_cell(study, scores, model).fillna("–")


def _influence(result: Result) -> pd.DataFrame:
    return trial_influence(pair_matrix(result), PAIR_METRICS["relative_pd"].largest)


def churn_error_table(study: Study, model: str) -> pd.DataFrame:
    """Churn, error rate, their ratio and difference for every activation of a model, with 95 % intervals over trials."""
    heads = {"Churn": "churn", "Error rate": "error", "Churn / error": "ratio", "Churn minus error": "residual"}

    def numbers(*cell: str) -> dict[str, str]:
        result = study.result(*cell)
        found = churn_against_error(result) if result else None
        return {head: f"{getattr(found, name):.3f}" if found else "–" for head, name in heads.items()}

    return _by_cell(study, numbers, model)


def churn_error_sentence(study: Study, models: Sequence[str] | None = None) -> str:
    """In how many cells churn and error are apart by more than the interval of their difference."""
    chosen = [result for result in study.results if models is None or result.model_name in models]
    residuals = [residual for result in chosen if (residual := churn_against_error(result).residual).has_interval]
    if not residuals:
        return f"No cell has the {TRIALS_FOR_INTERVAL} trials that an interval of churn minus error needs."
    below, above = sum(one.high < 0 for one in residuals), sum(one.low > 0 for one in residuals)
    counts = {"below the error rate": below, "above it": above, "not decided": len(residuals) - below - above}
    told = listed([f"{where} in {count}" for where, count in counts.items() if count])
    return f"By the interval of their difference, churn is {told} of {counted(len(residuals), 'cell')}."


def anatomy_overview(study: Study, anatomies: Anatomies) -> pd.DataFrame:
    """One row per expected cell: where its total variation lies, and churn / error; a dash for what is not known."""

    def kinds(*names: str) -> dict[str, str]:
        result, cell = study.result(*names), anatomies.cell(*names)
        rare, uncertain = rows_of(cell.kinds) if cell else (_NOTHING, _NOTHING)
        return {
            "Rare hold, %": _shown(rare, "held", ".1f", 100),
            "Uncertain, % of the text": number(100 * uncertain["share"], 1),
            "Uncertain hold, %": _shown(uncertain, "held", ".1f", 100),
            # This one needs no predictions.
            "Churn / error": f"{churn_against_error(result).ratio:.3f}" if result else "–",
        }

    return _by_cell(study, kinds)


def overview_sentence(anatomies: Anatomies) -> str:
    """What rare and uncertain characters are; the rare ones are as much of the text in every cell of a study."""
    if not anatomies.cells:
        return "No cell could be taken apart, so that only churn / error is known."
    share = rows_of(anatomies.cells[0].kinds)[0]["share"]
    return (
        f"Rare characters (each {RARE_IN_WORDS}) are {100 * share:.1f} % of the evaluation text; uncertain ones are those "
        "whose largest probability, averaged over the trials, is under 0.5. What each kind holds is a share of total variation."
    )


def _shown(row: dict[str, Any], name: str, spec: str, scale: float = 1) -> str:
    return format(Estimate.in_row(row, name).scaled(scale), spec)
