"""What needs the predictions: tables of where in the text trials disagree. Made once, and committed."""

from pathlib import Path

import pandas as pd

from published.rebuild.first import leading
from repro_lib.analysis.cell_anatomy import dissect
from repro_lib.analysis.study import load_study
from repro_lib.store.store import Store

TOKEN_TABLES = ("token_slices", "token_swaps")


def token_tables(results_dir: Path) -> dict[str, pd.DataFrame]:
    """By name, from a results folder that still has its predictions: the slices of every cell, and the swapped characters."""
    anatomies = dissect(Store(results_dir), load_study(results_dir, profile="study"))
    if anatomies.gaps:
        raise ValueError(anatomies.sentence())
    parts = {name: [] for name in TOKEN_TABLES}
    for cell in anatomies.cells:
        for name, frame in zip(TOKEN_TABLES, (cell.slices, cell.swaps), strict=True):
            parts[name].append(frame.assign(model=cell.model, activation=cell.activation, trials=cell.n))
    tables = {name: pd.concat(frames, ignore_index=True) for name, frames in parts.items()}
    return {name: leading(table, "model", "activation", "trials") for name, table in tables.items()}
