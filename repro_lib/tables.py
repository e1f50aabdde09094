"""Frames as tables for people: few columns, units in the heads, sensible rounding, a dash for what is missing."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass

import pandas as pd

from repro_lib.analysis import METRICS, cells_frame, pairs_frame, trials_frame
from repro_lib.schema import Result


@dataclass(frozen=True, eq=False)
class WordTable:
    """A table whose cells are words: it wraps them and aligns them left, where pandas would cut them at 50 characters.

    With a ``summary`` the table is folded away under it, to be opened by who wants to know.
    """

    frame: pd.DataFrame
    summary: str = ""

    def __repr__(self) -> str:
        return "\n".join(filter(None, [self.summary, self.frame.to_string()]))

    def _repr_html_(self) -> str:
        style = 'style="text-align:left;vertical-align:top;white-space:normal"'
        heads = "".join(f'<th scope="col" {style}>{html.escape(str(name))}</th>' for name in self.frame.columns)
        rows = []
        for name, row in zip(self.frame.index, self.frame.itertuples(index=False), strict=True):
            labelled = zip(self.frame.columns, row, strict=True)  # the label is for narrow screens (report.css)
            cells = "".join(
                f'<td data-label="{html.escape(str(label))}" {style}>{_emphasised(str(value))}</td>'
                for label, value in labelled
            )
            rows.append(f'<tr><th scope="row" {style}>{html.escape(str(name))}</th>{cells}</tr>')
        corner = html.escape(str(self.frame.index.name or ""))
        head = f'<thead><tr><th scope="col" {style}>{corner}</th>{heads}</tr></thead>'
        table = f'<table class="word-table" style="table-layout:auto;width:100%">{head}<tbody>{"".join(rows)}</tbody></table>'
        return f"<details><summary>{_emphasised(self.summary)}</summary>{table}</details>" if self.summary else table


def _emphasised(words: str) -> str:
    """A verdict at the beginning in bold, so that a column of them can be read at a glance."""
    escaped = html.escape(words)
    verdict = next((v for v in ("not decided", "supported", "refuted") if escaped.startswith(v)), "")
    bold = f'<strong style="white-space:nowrap">{verdict}</strong>'
    return f"{bold}{escaped.removeprefix(verdict)}" if verdict else escaped


# What Markdown, HTML or a formula could begin with. As entities, which every reader of Markdown knows.
_MARKUP = str.maketrans({character: f"&#{ord(character)};" for character in "&<>[]`*$\\"} | {"\n": " ", "\r": " "})


def literally(words: str) -> str:
    """Words that may come from a file (names of texts, flags, messages) as Markdown that shows them and does nothing else."""
    return words.translate(_MARKUP)


def summary_table(result: Result) -> pd.DataFrame:
    """One cell in a few lines, each number with its 95 % interval over trials where there is one."""
    cell = cells_frame([result], [result.model_name], [result.activation]).iloc[0]
    lines = {
        "Trials": str(len(result.trials)),
        "Parameters": f"{result.parameters:,}",
        "Relative PD": with_interval(cell, "relative_pd", 4),
        "Total variation": with_interval(cell, "total_variation", 4),
        "Churn": with_interval(cell, "churn", 4),
        "Validation loss, nats": with_interval(cell, "val_loss", 3),
        "Loss of the unigrams, nats": f"{result.evaluation.unigram_cross_entropy:.3f}",
        "Validation accuracy, %": with_interval(cell, "val_accuracy", 2),
        "Churn per error": cell_number(cell, "churn_per_error", 3),
        "Training time, s": f"{sum(trial.seconds for trial in result.trials):.0f}",
    }
    return pd.DataFrame({_marked(f"{result.model_name} with {result.activation}", result.synthetic): lines})


def trials_table(result: Result) -> pd.DataFrame:
    """One row per trained model of a cell."""
    frame = trials_frame([result]).set_index("trial")
    columns = {
        "seed": "Seed",
        "val_loss": "Validation loss, nats",
        "val_accuracy": "Validation accuracy, %",
        "seconds": "Time, s",
        "weights_sha256": "Weights SHA-256",
    }
    frame["weights_sha256"] = frame["weights_sha256"].str[:12]
    table = (
        frame[list(columns)]
        .rename(columns=columns)
        .round({"Validation loss, nats": 4, "Validation accuracy, %": 2, "Time, s": 1})
    )
    return table.rename_axis(index=None, columns=_marked("Trial", result.synthetic))


def pairs_table(result: Result) -> pd.DataFrame:
    """One row per pair of trials of a cell, one column per metric."""
    frame = pairs_frame([result])
    pairs = frame["first"].astype(str) + " and " + frame["second"].astype(str)
    table = frame[list(METRICS)].set_axis(pairs, axis="index").round(4)
    return table.rename(columns=lambda name: name.replace("_", " ").replace("pd", "PD")).rename_axis(
        index=None, columns=_marked("Trials", result.synthetic)
    )


def config_table(result: Result) -> pd.DataFrame:
    """Every value of the configuration and the layer that set it."""
    rows = {name: {"Value": str(value), "Set by": result.config_sources.get(name, "")} for name, value in result.config.items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(columns=_marked("Setting", result.synthetic))


def overview_table(cells: pd.DataFrame) -> pd.DataFrame:
    """Relative PD with its interval, one row per model, one column per activation; a dash where a cell is missing."""
    shown = cells.assign(text=[with_interval(cell, "relative_pd", 3) for _, cell in cells.iterrows()])
    wide = shown.pivot(index="model", columns="activation", values="text")
    ordered = wide.loc[list(dict.fromkeys(cells["model"])), list(dict.fromkeys(cells["activation"]))]
    return ordered.rename_axis(index=None, columns="Relative PD")


def with_interval(row: pd.Series, name: str, digits: int) -> str:
    """``0.412 (0.390 to 0.434)``; without the bracket where there is no interval, a dash where there is no value.

    A number of a synthetic cell says so.
    """
    value, low, high = row[name], row[f"{name}_low"], row[f"{name}_high"]
    if math.isnan(low):
        return cell_number(row, name, digits)
    return _marked(f"{value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})", row.get("synthetic", False))


def cell_number(row: pd.Series, name: str, digits: int) -> str:
    """A rounded number of a cell, marked where the cell is synthetic, or a dash where it is missing."""
    return _marked(number(row[name], digits), row.get("synthetic", False))


def number(value: float, digits: int) -> str:
    """A rounded number, or a dash where it is missing."""
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def _marked(text: str, synthetic: bool) -> str:
    return f"{text} (synthetic)" if synthetic else text
