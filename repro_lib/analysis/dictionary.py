"""The data dictionary: what every column of a study's tables is. Texts elsewhere refer to it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from repro_lib.metrics.prediction_difference import PAIR_METRICS

WORDS: dict[str, dict[str, list[str]]] = tomllib.loads(Path(__file__).with_name("columns.toml").read_text(encoding="utf-8"))
_OF_METRICS = {"cells": ", mean over all pairs of trials", "pairs": ", of this pair of trials"}
_ENDS = {"low": "lower", "high": "upper"}


def data_dictionary(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One row per column of these tables by name (cells, ...): table, column, unit, meaning. KeyError for a strange one."""
    rows = [(name, column, *_explained(name, column)) for name, table in tables.items() for column in table.columns]
    return pd.DataFrame(rows, columns=["table", "column", "unit", "meaning"])


def _explained(table: str, column: str) -> tuple[str, str]:
    base, _, end = column.rpartition("_")
    if end in _ENDS:
        return _explained(table, base)[0], f"{_ENDS[end]} end of the 95 % interval of {base}; missing below 3 trials"
    if metric := PAIR_METRICS.get(column):
        return "nats" if "nats" in metric.title else "1", metric.title + _OF_METRICS[table]
    unit, meaning = (WORDS["every"] | WORDS[table])[column]
    return unit, meaning
