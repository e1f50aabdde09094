"""What-ifs where readers meet them: their notebook through a real kernel to its page; others cell by cell; the quickstart."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from test_pages import Tags

from repro_lib.grid.notebooks import execute, notebooks_dir
from repro_lib.plots.style import Plot
from repro_lib.report.site.page import render_notebook
from repro_lib.store.store import Store
from repro_lib.whatif.display import Shown

LARGEST_PAGE = 3_000_000
RunHere = Callable[..., list[Any]]


def alive(html: str) -> dict[str, dict[str, Any]]:
    """The data of every what-if of a page, by name."""
    # nbconvert's last step sorts a tag's attributes.
    sections = re.findall(r'<section[^>]* class="what-if"[^>]*>.*?</section>', html, re.DOTALL)
    names = [re.findall(r'data-what-if="([^"]+)"', section)[0] for section in sections]
    data = [re.findall(r"<script[^>]*what-if-data[^>]*>(.*?)</script>", section, re.DOTALL)[0] for section in sections]
    return dict(zip(names, map(json.loads, data), strict=True))


def check_all_nine(html: str, folder: Path) -> None:
    """Each what-if is alive, has a view for every position of its controls and moves; what was written is recorded."""
    awake = alive(html)
    # "Without the improbable" is asked in two ways.
    assert list(awake) == [
        "activation", "metric", "tradeoff", "trials", "temperature", "threshold", "top-k", "ensembles", "noise",
    ]  # fmt: skip
    for name, data in awake.items():
        positions = math.prod(len(control["texts"]) for control in data["controls"])
        assert len(data["views"]) == len(data["sentences"]) == positions
        assert len(set(data["sentences"])) > 1, f"{name}: every position says the same"
        assert len({tuple(view) for view in data["views"]}) > 1, f"{name}: nothing moves"
    tags = Tags(html)
    recorded = [s["aria-label"] for s in tags.all("section") if s.get("class") == "what-if-recorded"]
    assert recorded == ["What would this model write?"]
    assert not tags.all("button"), "what only a script can do, a script makes"
    assert str(folder.parent) not in html, "a report says nothing about the machine"


@pytest.mark.slow
def test_all_nine_are_in_the_page_that_the_grid_makes(tmp_path: Path, what_if_folder: Path) -> None:
    """Executed in a kernel of its own and rendered; no cell writes to stderr or leaves a widget."""
    executed = tmp_path / "results" / "notebooks" / "50_what_if.ipynb"
    execute(notebooks_dir() / "50_what_if.ipynb", executed, {"results_dir": str(what_if_folder)})
    notebook = nbformat.read(executed, 4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output.text for output in outputs if output.get("name") == "stderr"]
    assert "widgets" not in notebook.metadata
    assert not [output for output in outputs if any("widget-view" in kind for kind in output.get("data", {}))]
    page = tmp_path / "50_what_if.html"
    render_notebook(executed, page)
    assert page.stat().st_size < LARGEST_PAGE
    check_all_nine(page.read_text(), what_if_folder)


@pytest.fixture
def run_here(monkeypatch: pytest.MonkeyPatch) -> RunHere:
    """``run_here(name, **parameters)``: everything that a notebook displays, its cells run in this process one by one."""
    screen: list[Any] = []

    class Handle:
        update = screen.append

    def display(*values: Any, display_id: bool = False) -> Handle | None:
        screen.extend(values)
        return Handle() if display_id else None

    monkeypatch.setattr("IPython.display.display", display)

    def run(name: str, **parameters: Any) -> list[Any]:
        cells = nbformat.read(notebooks_dir() / f"{name}.ipynb", 4).cells
        scope: dict[str, Any] = {}
        for cell in (cell for cell in cells if cell.cell_type == "code"):
            exec(cell.source, scope)
            if "parameters" in cell.metadata.get("tags", []):
                scope |= parameters
        return screen

    return run


def page_of(screen: list[Any]) -> str:
    """What would stand in the page of it."""
    return "".join(value._repr_mimebundle_()["text/html"] if isinstance(value, Shown) else repr(value) for value in screen)


def test_all_nine_are_alive_or_recorded(what_if_folder: Path, run_here: RunHere) -> None:
    check_all_nine(page_of(run_here("50_what_if", results_dir=str(what_if_folder))), what_if_folder)


def test_an_empty_store_says_what_to_run_and_shows_what_needs_no_results(tmp_path: Path, run_here: RunHere) -> None:
    page = page_of(run_here("50_what_if", results_dir=str(tmp_path)))
    assert list(alive(page)) == ["activation"]
    assert page.count("There are no results yet: run ./run_papermill.sh.") == 9


def test_other_notebooks_hold_what_fits_them(what_if_folder: Path, run_here: RunHere) -> None:
    assert list(alive(page_of(run_here("01_activations")))) == ["activation"]
    assert "metric" in alive(page_of(run_here("30_cross_model", results_dir=str(what_if_folder))))


def test_the_quickstart_trains_two_trials_live_and_shows_where_they_part(
    corpus_file: Path, tmp_path: Path, run_here: RunHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training two trials oneself: their loss while it falls, then their disagreement while they trained and at the end."""
    monkeypatch.setattr("repro_lib.report.live_training.SECONDS_BETWEEN_UPDATES", 0)
    screen = run_here("00_quickstart", corpus=str(corpus_file), results_dir=str(tmp_path), max_iters=4)
    live = [value.data for value in screen if "training progress" in str(getattr(value, "data", ""))]
    assert [text.count("<polyline") for text in live[:7]] == [1] * 4 + [2] * 3, "a picture after each step of both trials"
    assert "trial 2 of 2, iteration 3 of 4" in live[6]
    assert [value.name for value in screen if isinstance(value, Plot)] == ["convlm_training_curves", "convlm_through_training"]
    (gelu,) = [result for _, result in Store(tmp_path / "quickstart").load()[0] if result.activation == "gelu"]
    assert f"relative PD {gelu.avg_relative_pd:.4f} between 2 trials" in page_of(screen)
