"""What leaves for other tools: the tables read back as they are, figures with their fonts, the same bytes each time."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from repro_lib.analysis.study import Study, load_study
from repro_lib.cli.main import main
from repro_lib.plots.figures import reproducibility
from repro_lib.report.export import ExportError, export
from repro_lib.store.schema import Result
from repro_lib.store.store import Store


@pytest.fixture
def study(store: Store, make_result: Callable[..., Result]) -> Study:
    for activation, value in (("relu", 0.1), ("gelu", 1 / 3), ("smelu_025", 0.7)):
        store.save(make_result("charlm", activation, trials=3, pd=value, flags=["50 % less, it_is 'said'"]))
    return load_study(store.folder, models=["charlm"])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_csv_is_read_back_to_the_last_bit_and_explained(study: Study, tmp_path: Path) -> None:
    files = export(study, tmp_path / "out", "csv")
    assert sorted(file.name for file in files) == sorted(contents(tmp_path / "out"))
    for name, table in study.tables.items():
        words = dict.fromkeys((column for column in table if column.endswith("sha256")), str)
        read = pd.read_csv(tmp_path / "out" / f"{name}.csv", keep_default_na=False, na_values=[""], dtype=words)
        # An empty word and a missing number look alike.
        expected = table.replace("", float("nan"))
        pd.testing.assert_frame_equal(read, expected, check_dtype=False, check_exact=True)
    said = pd.read_csv(tmp_path / "out" / "dictionary.csv", keep_default_na=False)
    pd.testing.assert_frame_equal(said, study.dictionary)
    before = contents(tmp_path / "out")
    export(study, tmp_path / "out", "csv")
    assert contents(tmp_path / "out") == before


def test_words_do_nothing_in_latex(study: Study, tmp_path: Path) -> None:
    export(study, tmp_path, "latex")
    text = (tmp_path / "cells.tex").read_text()
    assert text.startswith("\\begin{longtable}")
    assert "charlm & smelu\\_025 & 3 & 0.7 & " in text
    assert "50 \\% less, it\\_is 'said'" in text


def test_parquet_is_read_back_or_says_what_it_needs(study: Study, tmp_path: Path) -> None:
    if importlib.util.find_spec("pyarrow") is None:
        with pytest.raises(ExportError, match="the package pyarrow is needed: pip install pyarrow"):
            export(study, tmp_path, "parquet")
        assert list(tmp_path.glob("*.*")) == []
    else:
        export(study, tmp_path, "parquet")
        for name, table in study.tables.items():
            pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / f"{name}.parquet"), table, check_dtype=False)


def test_no_file_of_somebody_else_is_replaced(study: Study, tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("of somebody else")
    for theirs in ("name,meaning\n", None):
        with pytest.raises(ExportError, match=r"has (dictionary|pairs)\.csv already, and no export of repro; name another"):
            export(study, tmp_path, "csv")
        (tmp_path / "dictionary.csv").write_text(theirs) if theirs else None
    assert (tmp_path / "pairs.csv").read_text() == "of somebody else"
    with pytest.raises(ExportError, match="unknown format 'xlsx'; known: csv, parquet, latex"):
        export(study, tmp_path, "xlsx")


@pytest.mark.slow
def test_figures_are_the_same_each_time_and_hold_their_fonts(study: Study) -> None:
    # Drawn anew each time: the layout is solved in another order.
    made = [reproducibility(study, "charlm").vectors() for _ in range(4)]
    assert all(each == made[0] for each in made)
    svg, pdf = made[0]["svg"].decode(), made[0]["pdf"]
    assert "<dc:date>" not in svg
    assert "font-family" not in svg, "letters are paths"
    assert reproducibility(study, "charlm").alt.split(".")[0] in svg
    assert (b"/FontFile2" in pdf, b"/Type3" in pdf, b"/CreationDate" in pdf) == (True, False, False)


@pytest.mark.slow
def test_the_command_exports_what_was_asked_for(study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["export", "--results-dir", str(study.folder), "--models", "charlm", "--figures", str(tmp_path / "out")]
    assert main(words) == 0
    assert f"22 files are in {tmp_path / 'out'}; dictionary.csv says what each column is" in capsys.readouterr().out
    assert {"charlm_accuracy.svg", "charlm_accuracy.pdf", "contrasts.csv"} < contents(tmp_path / "out").keys()
