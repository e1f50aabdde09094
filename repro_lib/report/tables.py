"""Frames as tables for people: few columns, units in the heads, sensible rounding, a dash for what is missing."""

from __future__ import annotations

import html
from dataclasses import dataclass

import pandas as pd

from repro_lib.analysis.formatting import cell_number, marked, number, unbroken, with_interval
from repro_lib.analysis.overviews import activations_overview, models_overview
from repro_lib.analysis.study import METRICS, Study, cells_frame, pairs_frame, trials_frame
from repro_lib.store.schema import Result


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
    return pd.DataFrame({marked(f"{result.model_name} with {result.activation}", result.synthetic): lines})


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
    # Twelve digits are enough to see by eye whether two trials are the same.
    frame["weights_sha256"] = frame["weights_sha256"].str[:12]
    table = (
        frame[list(columns)]
        .rename(columns=columns)
        .round({"Validation loss, nats": 4, "Validation accuracy, %": 2, "Time, s": 1})
    )
    return table.rename_axis(index=None, columns=marked("Trial", result.synthetic))


def pairs_table(result: Result) -> pd.DataFrame:
    """One row per pair of trials of a cell, one column per metric."""
    frame = pairs_frame([result])
    pairs = frame["first"].astype(str) + " and " + frame["second"].astype(str)
    table = frame[list(METRICS)].set_axis(pairs, axis="index").round(4)
    return table.rename(columns=lambda name: name.replace("_", " ").replace("pd", "PD")).rename_axis(
        index=None, columns=marked("Trials", result.synthetic)
    )


def config_table(result: Result) -> pd.DataFrame:
    """Every value of the configuration and the layer that set it."""
    rows = {name: {"Value": str(value), "Set by": result.config_sources.get(name, "")} for name, value in result.config.items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(columns=marked("Setting", result.synthetic))


def overview_table(cells: pd.DataFrame) -> pd.DataFrame:
    """Relative PD with its interval, one row per model, one column per activation; a dash where a cell is missing."""
    shown = cells.assign(text=[with_interval(cell, "relative_pd", 3) for _, cell in cells.iterrows()])
    # A pivot sorts by name; the order of the study is put back below.
    wide = shown.pivot(index="model", columns="activation", values="text")
    ordered = wide.loc[list(dict.fromkeys(cells["model"])), list(dict.fromkeys(cells["activation"]))]
    return ordered.rename_axis(index=None, columns="Relative PD")


def layers_table(layers: pd.DataFrame) -> pd.DataFrame:
    """The layer table for people."""
    shown = layers.assign(parameters=layers["parameters"].map("{:,}".format)).set_index("layer").rename_axis(None)
    return shown.rename(columns=str.capitalize)


def cells_table(study: Study, model: str | None = None) -> pd.DataFrame:
    """Every expected cell (of one model) with its main numbers; ``missing`` where there is none.

    In brackets the 95 % interval over trials; the figures show it for the other numbers. Synthetic numbers say so. Flags
    have a column where there are any.
    """
    rows = []
    cells = study.cells if model is None else study.cells[study.cells["model"] == model]
    for _, cell in cells.iterrows():
        there = cell["n"] > 0
        rows.append(
            {
                "Model": cell["model"],
                "Activation": cell["activation"],
                "N": f"{cell['n']} (synthetic)" if cell["synthetic"] else cell["n"] if there else "missing",
                "Relative PD": unbroken(with_interval(cell, "relative_pd", 3)),
                "Total variation": cell_number(cell, "total_variation", 3),
                "Churn": cell_number(cell, "churn", 3),
                "Churn / error": cell_number(cell, "churn_per_error", 3),
                "Validation loss, nats": cell_number(cell, "val_loss", 3),
                "Accuracy, %": unbroken(with_interval(cell, "val_accuracy", 2)),
                "Training, s": cell_number(cell, "seconds", 0),
                "Flags": ", ".join(short_flags(cell["flags"])),
            }
        )
    table = pd.DataFrame(rows).set_index(["Model", "Activation"])
    return _labelled(study, table if table["Flags"].any() else table.drop(columns="Flags"))


def models_table(study: Study) -> pd.DataFrame:
    """The overview of models: architecture, parameters, best activation, CV."""
    rows = []
    for _, row in models_overview(study).iterrows():
        best = "none: bit-identical" if row["identical"] else f"{row['best']} ({row['best_pd']:.3f})"
        rows.append(
            {
                "Model": row["model"],
                "Architecture": row["architecture"],
                "Size": row["size"] or "–",
                "Parameters": "–" if pd.isna(row["parameters"]) else f"{row['parameters']:,.0f}",
                "Cells": f"{row['cells']} of {row['expected']}",
                "Best activation (relative PD)": "–" if pd.isna(row["best"]) and not row["identical"] else best,
                "CV over activations, %": number(row["cv"], 2),
                "Training, s": number(row["seconds"], 0),
            }
        )
    return _labelled(study, pd.DataFrame(rows).set_index("Model").rename_axis(None))


def activations_table(study: Study) -> pd.DataFrame:
    """The overview of activations: average relative PD over the models not left out, and wins."""
    rows = [
        {
            "Activation": row["activation"],
            "Average relative PD": with_interval(row, "average_pd", 3),
            "Models": f"{row['models']} of {row['expected']}",
            "Wins (lowest PD of a model)": row["wins"],
        }
        for _, row in activations_overview(study).iterrows()
    ]
    return _labelled(study, pd.DataFrame(rows).set_index("Activation").rename_axis(None))


def _labelled(study: Study, table: pd.DataFrame) -> pd.DataFrame:
    """The table of a study that is all synthetic says so in its corner."""
    return table.rename_axis(columns="SYNTHETIC") if study.is_synthetic else table


def short_flags(flags: str) -> list[str]:
    """The kinds of flags, without their details: ``untrained``."""
    return list(dict.fromkeys(flag.split(":")[0] for flag in flags.split("; ") if flag))
