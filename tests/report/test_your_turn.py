"""The last section of the notebooks, where a researcher goes on alone: frames, a chart, two arms compared."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat
import pytest
from IPython.core.formatters import DisplayFormatter
from kinds import Tiny

from repro_lib.analysis import Study
from repro_lib.analysis.notes import Note
from repro_lib.grid.notebooks import notebooks_dir
from repro_lib.plots import alt
from repro_lib.report import compare_arms
from repro_lib.report.comparison_page import Comparison
from repro_lib.store.store import Store
from repro_lib.training.experiment import run_experiment
from repro_lib.training.progress import PROGRESS_FILE_VARIABLE


@pytest.fixture(autouse=True)
def in_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PROGRESS_FILE_VARIABLE, raising=False)


def shown(name: str, study: Study) -> list[Any]:
    """What the code cells of the section show, each displayed as a notebook would."""
    formatter, values = DisplayFormatter(), []
    for cell in nbformat.read(notebooks_dir() / f"{name}.ipynb", 4).cells:
        if "turn" in cell.id and cell.cell_type == "code":
            *first, last = cell.source.splitlines()
            scope = {"study": study, "model": "charlm", "alt": alt, "compare_arms": compare_arms}
            exec("\n".join(first), scope)
            values.append(eval(last, scope))
            formats, _ = formatter.format(values[-1])
            chart = isinstance(values[-1], alt.LayerChart)
            # Without a row, as of one trial, a chart is a sentence.
            drawn = {"application/vnd.vegalite.v5+json"} if study.cells["churn"].notna().any() else set[str]()
            assert formats.keys() == {"text/plain", *(drawn if chart else ["text/html"])}, "no script"
    return values


@pytest.mark.parametrize("name", ["20_deep_dive", "30_cross_model"])
def test_its_cells_work_for_whatever_was_trained(name: str, what_if_study: Study, tiny: Tiny, store: Store) -> None:
    frame, chart, compared = shown(name, what_if_study)
    assert frame["churn"].notna().to_numpy().all()
    assert chart.to_dict()["config"]["background"] == "transparent", "in the colours of our figures"
    assert isinstance(compared, Comparison)
    assert set(compared.arms) <= {"relu", "gelu", "swiglu"}
    # Arms that are no activations.
    arms = [result.as_arm(f"dropout 0.{k}") for k, result in enumerate(what_if_study.results)]
    names = tuple(arm.arm for arm in arms)
    other = replace(what_if_study, results=tuple(arms), activations=names, factor="dropout", reference=names[0])
    frame, _, compared = shown(name, other)
    assert (list(frame.index), len(compared.arms)) == ([*names], 2)
    assert repr(compare_arms(other, "charlm", *names[:2])).startswith(
        "Comparison(dropout 0.0 against dropout 0.1, relative PD: "
    )
    # A single trial of a single cell.
    run_experiment("charlm", "relu", tiny("charlm", trials=1), results_dir=store.folder)
    *_, compared = shown(name, Study.load(store, models=["charlm"]))
    assert "Nothing is compared" in repr(compared)
    assert repr(shown(name, Study.of([]))[-1]).startswith("Of charlm, arms to compare are: no results yet")


def test_what_cannot_be_compared_is_said_and_the_grid_compares_nothing(
    what_if_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert repr(compare_arms(what_if_study, "charlm", "geluu")) == "Of charlm, arms to compare are: relu, gelu, swiglu."
    assert repr(compare_arms(what_if_study, "charlm", "gelu")).startswith("Comparison(gelu: 4 models (")
    gone = compare_arms(replace(what_if_study, folder=tmp_path), "charlm", "gelu", "relu")
    assert repr(gone).startswith("Nothing is compared: predictions/charlm-gelu-")
    monkeypatch.setenv(PROGRESS_FILE_VARIABLE, "p.json")
    assert isinstance(compare_arms(what_if_study, "charlm"), Note)
