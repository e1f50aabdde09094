"""The notebook of the what-ifs from a real kernel to its page, over small stores; and the ones inside other notebooks."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from test_reports import Tags

from repro_lib.config import Config
from repro_lib.experiment import run_experiment
from repro_lib.notebooks import execute, notebooks_dir
from repro_lib.reports import render_notebook

Tiny = Callable[..., Config]
LARGEST_PAGE = 3_000_000


def page_of(name: str, tmp_path: Path, **parameters: Any) -> str:
    """Execute a notebook as the grid does and render it; no cell may have written to stderr or shown a widget."""
    executed = tmp_path / "results" / "notebooks" / f"{name}.ipynb"
    execute(notebooks_dir() / f"{name}.ipynb", executed, parameters)
    notebook = nbformat.read(executed, 4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output.text for output in outputs if output.get("name") == "stderr"]
    assert "widgets" not in notebook.metadata
    assert not [output for output in outputs if any("widget-view" in kind for kind in output.get("data", {}))]
    page = tmp_path / f"{name}.html"
    render_notebook(executed, page)
    assert page.stat().st_size < LARGEST_PAGE
    return page.read_text()


def alive(html: str) -> dict[str, dict[str, Any]]:
    """The data of every what-if of a page, by name."""
    # nbconvert's last step sorts a tag's attributes.
    sections = re.findall(r'<section[^>]* class="what-if"[^>]*>.*?</section>', html, re.DOTALL)
    found = {}
    for section in sections:
        data = re.search(r"<script[^>]*what-if-data[^>]*>(.*?)</script>", section, re.DOTALL)
        name = re.search(r'data-what-if="([^"]+)"', section)
        assert data
        assert name
        found[name[1]] = json.loads(data[1])
    return found


def test_all_ten_are_in_the_page_alive_or_recorded(tmp_path: Path, tiny: Tiny) -> None:
    results = tmp_path / "results"
    for activation in ("relu", "gelu"):
        run_experiment("charlm", activation, tiny("charlm", trials=4), results_dir=results)
    for vary in ("init", "none"):
        run_experiment("charlm", "gelu", tiny("charlm", trials=2, vary=vary), results_dir=results)
    html = page_of("50_what_if", tmp_path, results_dir=str(results))
    found = alive(html)
    assert list(found) == [
        "activation", "metric", "tradeoff", "trials", "temperature", "threshold", "top-k", "ensembles", "noise",
    ]  # fmt: skip
    for name, data in found.items():
        assert data["controls"], name
        combinations = 1
        for control in data["controls"]:
            combinations *= len(control["texts"])
        assert len(data["views"]) == len(data["sentences"]) == combinations
        assert len(set(data["sentences"])) > 1, f"{name}: every position says the same"
        assert len({tuple(view) for view in data["views"]}) > 1, f"{name}: nothing moves"
    page = Tags(html)
    recorded = [s["aria-label"] for s in page.all("section") if s.get("class") == "what-if-recorded"]
    assert recorded == ["What would this model write?", "Train two trials yourself"]
    assert not page.all("button"), "what only a script can do, a script makes"
    assert str(tmp_path) not in html, "a report says nothing about the machine"


def test_an_empty_store_says_what_to_run_and_shows_what_needs_no_results(tmp_path: Path) -> None:
    html = page_of("50_what_if", tmp_path, results_dir=str(tmp_path / "results"))
    assert list(alive(html)) == ["activation"]
    text = Tags(html).text
    assert text.count("There are no results yet: run ./run_papermill.sh.") == 10
    step = re.search(r'<p style="[^"]*border[^"]*">no results yet: run <code[^>]*>./run_papermill.sh</code></p>', html)
    assert step, "the next step, the size of a button"


@pytest.mark.parametrize(("name", "what_if"), [("01_activations", "activation"), ("30_cross_model", "metric")])
def test_other_notebooks_hold_what_fits_them(name: str, what_if: str, tmp_path: Path, tiny: Tiny) -> None:
    parameters: dict[str, Any] = {}
    if name != "01_activations":
        for activation in ("relu", "gelu"):
            run_experiment("charlm", activation, tiny("charlm"), results_dir=tmp_path / "results")
        parameters = {"results_dir": str(tmp_path / "results")}
    assert list(alive(page_of(name, tmp_path, **parameters))) == [what_if]
