"""Tables and figures for other tools: CSV, Parquet or LaTeX, SVG and PDF."""

import importlib.util
import io
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from repro_lib.analysis.study import Study
from repro_lib.plots.figures import all_plots
from repro_lib.system.files import UnusableFile, read_bounded, write_atomically

DICTIONARY = "dictionary.csv"
_HEAD = b"table,column,unit,meaning\n"


class ExportError(ValueError):
    """An export that cannot be made; the message says what to do."""


def export(study: Study, folder: Path, form: str, *, figures: bool = False) -> list[Path]:
    """Write a study's tables, each as a file of the ``form`` (of ``FORMS``), and what their columns are in ``dictionary.csv``.

    With ``figures`` those of ``reports/plots`` as SVG and PDF too. The same bytes for the same results and versions. Returns
    the files. Raises ExportError, for one where a file of somebody else would be replaced.
    """
    if form not in FORMS:
        raise ExportError(f"unknown format {form!r}; known: {', '.join(FORMS)}")
    if form == "parquet" and importlib.util.find_spec("pyarrow") is None:
        raise ExportError("for Parquet the package pyarrow is needed: pip install pyarrow, or choose another format")
    end, write = FORMS[form]
    tables = {f"{name}.{end}": table for name, table in study.tables.items()}
    plots = list(all_plots(study)) if figures else []
    names = [DICTIONARY, *tables, *(f"{plot.name}.{kind}" for plot in plots for kind in ("svg", "pdf"))]
    there = [name for name in names if (folder / name).exists()]
    if there and not _is_ours(folder):
        raise ExportError(f"{folder} has {there[0]} already, and no export of repro; name another folder")
    # The dictionary first: it marks the folder as ours.
    write_atomically(folder / DICTIONARY, _csv(study.dictionary))
    for name, table in tables.items():
        write_atomically(folder / name, write(table))
    for plot in plots:
        for kind, picture in plot.vectors().items():
            write_atomically(folder / f"{plot.name}.{kind}", picture)
    return [folder / name for name in names]


def _is_ours(folder: Path) -> bool:
    try:
        return read_bounded(folder / DICTIONARY, 1_000_000).startswith(_HEAD)
    except (OSError, UnusableFile):
        return False


def _csv(table: pd.DataFrame) -> bytes:
    # The shortest digits that are read back as the same number.
    return table.to_csv(index=False, lineterminator="\n").encode()


def _parquet(table: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    return buffer.getvalue()


def _latex(table: pd.DataFrame) -> bytes:
    # Words are escaped, names of columns too; a page has room for a choice of these columns, and for so many digits.
    return table.to_latex(index=False, escape=True, longtable=True, na_rep="", float_format="%.5g").encode()


# The ending of its files, and what writes one.
FORMS: dict[str, tuple[str, Callable[[pd.DataFrame], bytes]]] = {
    "csv": ("csv", _csv),
    "parquet": ("parquet", _parquet),
    "latex": ("tex", _latex),
}
