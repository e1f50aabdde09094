"""Frames as tables for people: few columns, units in the heads, sensible rounding, a dash for what is missing."""

import html
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from repro_lib.analysis.formatting import cell_number, literally, marked, number, with_interval
from repro_lib.analysis.frames import METRICS, cells_frame, pairs_frame, rows_of, trials_frame
from repro_lib.analysis.overviews import activations_overview, models_overview
from repro_lib.analysis.stored_models import config_of
from repro_lib.analysis.study import Study
from repro_lib.metrics.prediction_difference import PAIR_METRICS
from repro_lib.models.registry import body_of
from repro_lib.store.schema import Result


@dataclass(frozen=True, eq=False)
class WordTable:
    """A table of words, wrapped and aligned left, where pandas would cut them at 50 characters; folded under a ``summary``."""

    frame: pd.DataFrame
    summary: str = ""

    def __repr__(self) -> str:
        return "\n".join(filter(None, [self.summary, self.frame.to_string()]))

    def _repr_html_(self) -> str:
        style = 'style="text-align:left;vertical-align:top;white-space:normal"'
        labels = [html.escape(str(name)) for name in self.frame.columns]
        heads = "".join(f'<th scope="col" {style}>{label}</th>' for label in labels)
        rows = []
        for name, *row in self.frame.itertuples():
            # The label is for narrow screens (report.css).
            labelled = zip(labels, row, strict=True)
            cells = "".join(f'<td data-label="{label}" {style}>{_emphasised(str(value))}</td>' for label, value in labelled)
            rows.append(f'<tr><th scope="row" {style}>{html.escape(str(name))}</th>{cells}</tr>')
        corner = html.escape(str(self.frame.index.name or ""))
        head = f'<thead><tr><th scope="col" {style}>{corner}</th>{heads}</tr></thead>'
        table = f'<table class="word-table" style="table-layout:auto;width:100%">{head}<tbody>{"".join(rows)}</tbody></table>'
        return f"<details><summary>{_emphasised(self.summary)}</summary>{table}</details>" if self.summary else table


def markdown_table(frame: pd.DataFrame) -> str:
    """A table of words as Markdown that shows them and does nothing else."""
    index = [str(name or "") for name in frame.index.names]
    rows = [[*index, *frame.columns], ["---"] * (len(index) + len(frame.columns))]
    rows += [[*(name if isinstance(name, tuple) else [name]), *row] for name, *row in frame.itertuples()]
    return "\n".join(f"| {' | '.join(literally(str(cell)).replace('|', '&#124;') for cell in row)} |" for row in rows)


# A verdict at the beginning in bold, so that a column of them can be read at a glance.
def _emphasised(words: str) -> str:
    bold = r'<strong style="white-space:nowrap">\1</strong>'
    return re.sub("^(not decided|supported|refuted|equal within)", bold, html.escape(words))


def worded(
    frame: pd.DataFrame, words: Callable[[Any], dict[str, Any]], model: str | None = None, synthetic: bool = False
) -> pd.DataFrame:
    """A frame in words: a row of it is named by model and activation, then come N and the columns that ``words`` makes of it.

    With ``model`` the rows are of that model alone. What is all ``synthetic`` says so in its corner.
    """
    is_arm = "activation" in frame and any(" " in name for name in frame["activation"])
    heads = {"model": "Model", "activation": "Arm" if is_arm else "Activation", "n": "N"}
    known = {name: head for name, head in heads.items() if name in frame}
    rows = [row for row in rows_of(frame) if model is None or row["model"] == model]
    if not rows:
        return pd.DataFrame(columns=["nothing to compare yet"])
    table = pd.DataFrame([{head: row[name] for name, head in known.items()} | words(row) for row in rows])
    # The name of the only model would be the same in each row.
    names = [head for name, head in known.items() if name != "n" and (model is None or name != "model")]
    table = table.set_index(names) if model is None else table.drop(columns="Model").set_index(names)
    table = table.rename_axis(columns="SYNTHETIC") if synthetic else table
    return table.rename_axis(None) if len(names) == 1 else table


def spread(frame: pd.DataFrame, texts: Iterable[str]) -> pd.DataFrame:
    """One text per row of ``frame`` in a table of its own: a row per model, a column per activation."""
    wide = frame.assign(text=list(texts)).pivot(index="model", columns="activation", values="text")
    # A pivot sorts by name; this is the order of the study.
    return wide.loc[list(dict.fromkeys(frame["model"])), list(dict.fromkeys(frame["activation"]))]


def summary_table(result: Result) -> pd.DataFrame:
    """One cell in a few lines, each number with its 95 % interval over trials where there is one."""
    cell = cells_frame([result], [result.model_name], [result.arm]).iloc[0]
    lines = {
        "Trials": str(len(result.trials)),
        "Parameters": f"{result.parameters:,}{_without_embeddings(result)}",
        "Relative PD": with_interval(cell, "relative_pd", 4),
        "Total variation": with_interval(cell, "total_variation", 4),
        "Churn": with_interval(cell, "churn", 4),
        "Share where all trials agree": cell_number(cell, "unanimity", 4),
        "Validation loss, nats": with_interval(cell, "val_loss", 3),
        "Validation loss, bits per byte": number(cell["bits_per_byte"], 3),
        "Loss of the unigrams, nats": f"{result.evaluation.unigram_cross_entropy:.3f}",
        "Validation accuracy, %": with_interval(cell, "val_accuracy", 2),
        "Churn per error": cell_number(cell, "churn_per_error", 3),
        "Training time, s": f"{sum(trial.seconds for trial in result.trials):.0f}",
    }
    return pd.DataFrame({marked(f"{result.model_name} with {result.arm}", result.synthetic): lines})


def _without_embeddings(result: Result) -> str:
    # Of tokens, at both ends of the model: what depends on V.
    body = body_of(result.model_name, config_of(result), result.activation)
    return f" ({body:,} without embeddings)"


def trials_table(result: Result) -> pd.DataFrame:
    """One row per trained model of a cell."""
    frame = trials_frame([result]).set_index("trial").round({"val_loss": 4, "val_accuracy": 2, "seconds": 1})
    # Twelve digits are enough to see by eye whether two trials are the same.
    frame["weights_sha256"] = frame["weights_sha256"].str[:12]
    heads = {"seed": "Seed", "val_loss": "Validation loss, nats", "val_accuracy": "Validation accuracy, %"}
    heads |= {"seconds": "Time, s", "weights_sha256": "Weights SHA-256"}
    return frame[list(heads)].rename(columns=heads).rename_axis(index=None, columns=marked("Trial", result.synthetic))


def pairs_table(result: Result) -> pd.DataFrame:
    """One row per pair of trials of a cell, one column per metric."""
    frame = pairs_frame([result])
    pairs = frame["first"].astype(str) + " and " + frame["second"].astype(str)
    table = frame[list(METRICS)].set_axis(pairs, axis="index").round(4)
    table = table.rename(columns=lambda name: re.split(" \\(|,|:", PAIR_METRICS[name].title)[0])
    return table.rename_axis(index=None, columns=marked("Trials", result.synthetic))


def config_table(result: Result) -> pd.DataFrame:
    """Every value of the configuration and the layer that set it."""
    rows = {name: {"Value": str(value), "Set by": result.config_sources.get(name, "")} for name, value in result.config.items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(columns=marked("Setting", result.synthetic))


def overview_table(cells: pd.DataFrame) -> pd.DataFrame:
    """Relative PD with its interval, one row per model, one column per activation; a dash where a cell is missing."""
    table = spread(cells, (with_interval(cell, "relative_pd", 4) for _, cell in cells.iterrows()))
    return table.rename_axis(index=None, columns="Relative PD")


def layers_table(layers: pd.DataFrame) -> pd.DataFrame:
    """The layer table for people."""
    shown = layers.assign(parameters=layers["parameters"].map("{:,}".format)).set_index("layer").rename_axis(None)
    return shown.rename(columns=str.capitalize)


def cells_table(study: Study, model: str | None = None) -> pd.DataFrame:
    """Every expected cell (of one model) with its main numbers; ``missing`` where there is none.

    In brackets the 95 % interval over trials; the figures show it for the other numbers. Synthetic numbers say so. Flags
    have a column where there are any.
    """
    table = worded(
        study.cells,
        lambda cell: {
            "N": f"{cell['n']} (synthetic)" if cell["synthetic"] else cell["n"] or "missing",
            "Relative PD": with_interval(cell, "relative_pd", 4),
            "Total variation": cell_number(cell, "total_variation", 4),
            "Churn": cell_number(cell, "churn", 4),
            "Churn / error": cell_number(cell, "churn_per_error", 3),
            "Loss, nats (bits per byte)": f"{cell_number(cell, 'val_loss', 3)} ({number(cell['bits_per_byte'], 3)})",
            "Accuracy, %": with_interval(cell, "val_accuracy", 2),
            "Training, s": cell_number(cell, "seconds", 0),
            "Flags": ", ".join(short_flags(cell["flags"])),
        },
        model,
        synthetic=study.is_synthetic,
    )
    return table if table["Flags"].any() else table.drop(columns="Flags")


def models_table(study: Study) -> pd.DataFrame:
    """The overview of models: architecture, parameters, best activation, CV."""
    without = {result.model_name: _without_embeddings(result) for result in study.results}

    def best(row: dict[str, Any]) -> str:
        found = "–" if pd.isna(row["best"]) else f"{row['best']} ({row['best_pd']:.4f})"
        return "none: bit-identical" if row["identical"] else found

    def sizes(found: list[int]) -> str:
        return " to ".join(f"{size:,}" for size in dict.fromkeys([*found[:1], *found[-1:]])) or "–"

    return worded(
        models_overview(study),
        lambda row: {
            "Architecture": row["architecture"],
            "Size": row["size"] or "–",
            "Parameters": sizes(row["parameters"]) + without.get(row["model"], ""),
            "Cells": f"{row['cells']} of {row['expected']}",
            "Lowest relative PD": best(row),
            "CV over activations, %": number(row["cv"], 2),
            "Training, s": number(row["seconds"], 0),
        },
        synthetic=study.is_synthetic,
    )


def activations_table(study: Study) -> pd.DataFrame:
    """The overview of activations: average relative PD over the models not left out, and wins."""
    return worded(
        activations_overview(study),
        lambda row: {
            "Average relative PD": with_interval(row, "average_pd", 4),
            "Models": f"{row['models']} of {row['expected']}",
            "Wins": row["wins"],
        },
        synthetic=study.is_synthetic,
    )


def short_flags(flags: str) -> list[str]:
    """The kinds of flags, without their details: ``untrained``."""
    return list(dict.fromkeys(flag.split(":")[0] for flag in flags.split("; ") if flag))
