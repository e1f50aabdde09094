"""The notebooks in JupyterLab, started as the README says: every one opened in a real browser and run by Run All Cells."""

from __future__ import annotations

import json
import re
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
from browsing import HOW_TO_ENABLE, chromium_path, screenshot
from test_lab import running

from repro_lib.data.texts import FOLDERS_VARIABLE
from repro_lib.grid.notebooks import declared_parameters, notebooks_dir

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]

NOTEBOOKS = sorted(path.stem for path in notebooks_dir().glob("*.ipynb"))
# Small and quick, and something left to train where a notebook trains.
PARAMETERS = {"00_quickstart": {"max_iters": 4}, "10_train": {"model": "convlm", "activation": "swish"}}
ALL_RUN = """() => {
  const prompts = [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map(e => e.textContent.trim());
  return prompts.length > 0 && prompts.every(text => /^\\[\\d+\\]:$/.test(text));
}"""
IDLE = "Python 3 (ipykernel) | Idle"


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab: where it is, its token, the folder it serves."""

    url: str
    token: str
    folder: Path

    def ask(self, path: str, method: str = "GET") -> bytes:
        request = urllib.request.Request(self.url + path, method=method, headers={"Authorization": f"token {self.token}"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.read()


@pytest.fixture(scope="session")
def lab(small_grid: Path, corpus_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """JupyterLab over copies of the notebooks whose parameters name the small grid; its token is the one it makes itself."""
    if chromium_path() is None:
        pytest.skip(HOW_TO_ENABLE)
    home = tmp_path_factory.mktemp("lab")
    folder = copy_notebooks(home / "notebooks", small_grid / "results", corpus_file)
    # Lab's news would open a box over the notebook, and ask the network.
    overrides = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False}}
    # All charts are looked at, also those that Lab would take away while they are out of sight.
    overrides["@jupyterlab/notebook-extension:tracker"] = {"windowingMode": "none"}
    (home / "settings").mkdir()
    (home / "settings" / "overrides.json").write_text(json.dumps(overrides))
    # Started elsewhere: the notebooks must find the library and the results from any working directory.
    command = [sys.executable, "-m", "jupyterlab", str(folder), f"--LabApp.app_settings_dir={home / 'settings'}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FOLDERS_VARIABLE, str(corpus_file.parent))  # results know a text by its digest, not by its place
        with running(command, home, home) as (about, _):
            yield Lab(about["url"].rstrip("/"), about["token"], folder)


def copy_notebooks(folder: Path, results: Path, corpus: Path) -> Path:
    """The suite's notebooks with other defaults in their parameters cells: what a reader edits by hand."""
    folder.mkdir()
    common = {"results_dir": str(results), "corpus": str(corpus), "profile": "smoke"}
    for name in NOTEBOOKS:
        write_copy(name, folder / f"{name}.ipynb", common | PARAMETERS.get(name, {}))
    write_copy("30_cross_model", folder / "nothing.ipynb", {"results_dir": str(folder / "nothing")})
    return folder


def write_copy(name: str, output: Path, values: dict[str, Any]) -> None:
    notebook = nbformat.read(notebooks_dir() / f"{name}.ipynb", 4)
    (cell,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    for parameter in values.keys() & declared_parameters(notebooks_dir() / f"{name}.ipynb").keys():
        default = re.compile(rf"^({parameter}: [^=]*= )[^#]*", re.MULTILINE)
        cell.source, count = default.subn(lambda line, value=values[parameter]: f"{line[1]}{value!r}  ", cell.source)
        assert count == 1
    nbformat.write(notebook, output)


@pytest.fixture
def page(lab: Lab, chromium: Browser) -> Iterator[Page]:
    """A window on JupyterLab, which asks for nothing but JupyterLab's own; the kernels end with it."""
    window = chromium.new_context(viewport={"width": 1400, "height": 1000})
    window.set_default_timeout(60_000)
    asked: list[str] = []
    window.on("request", lambda request: asked.append(request.url))
    yield window.new_page()
    window.close()
    for session in json.loads(lab.ask("/api/sessions")):
        lab.ask(f"/api/sessions/{session['id']}", "DELETE")
    own = (lab.url, lab.url.replace("http", "ws", 1), "data:", "blob:")
    assert [url for url in asked if not url.startswith(own)] == []


def run_all(page: Page, lab: Lab, name: str) -> None:
    """Open a notebook and choose Run > Run All Cells, as a reader would; wait until every cell has run."""
    page.goto(f"{lab.url}/lab/tree/{name}.ipynb?reset&token={lab.token}")
    page.locator("#jupyterlab-splash").wait_for(state="detached")
    page.locator(".jp-Notebook .jp-Cell").first.wait_for()
    # The notebook's own indicator says idle before there is a kernel, and what is chosen then is lost.
    page.get_by_text(IDLE).wait_for()
    page.locator('.lm-MenuBar-item:has-text("Run")').click()
    page.locator('.lm-Menu-item[data-command="runmenu:run-all"]').click()
    page.wait_for_function(ALL_RUN, timeout=180_000)
    page.get_by_text(IDLE).wait_for()


def saved(page: Page, lab: Lab, name: str) -> nbformat.NotebookNode:
    """The notebook with its outputs, saved from the browser."""
    page.keyboard.press("Control+s")
    until = time.monotonic() + 30
    while time.monotonic() < until:
        # Empty for a moment while JupyterLab writes it.
        with suppress(nbformat.reader.NotJSONError):
            notebook = nbformat.read(lab.folder / f"{name}.ipynb", 4)
            if all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code"):
                return notebook
        time.sleep(0.2)
    raise AssertionError(f"{name} was not saved")


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_from_top_to_bottom_without_a_warning(name: str, page: Page, lab: Lab) -> None:
    run_all(page, lab, name)
    # The notebook of what-ifs has nine charts, its tenth question needing more trials; whatever notebook has one, it is alive.
    if name == "50_what_if":
        page.wait_for_function("document.querySelectorAll('.vega-embed').length === 9")
    move_and_see(page)
    screenshot(page, f"lab-{name}")
    notebook = saved(page, lab, name)
    assert name != "00_quickstart" or "Trained 2 trials of convlm with gelu" in nbformat.writes(notebook)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            assert output.output_type != "error", f"{name}: {output.ename}: {output.evalue} in {cell.source!r}"
            assert output.get("name") != "stderr", f"{name}: {output.text} in {cell.source!r}"


def test_over_an_empty_store_a_notebook_says_so_and_offers_the_first_step(page: Page, lab: Lab) -> None:
    run_all(page, lab, "nothing")
    outputs = page.locator(".jp-OutputArea-output")
    assert outputs.filter(has_text="no results yet: run ./run_papermill.sh").first.is_visible()
    button = page.get_by_role("button", name="Train charlm with relu and gelu now")
    button.scroll_into_view_if_needed()
    assert button.is_enabled()
    screenshot(page, "lab-empty-store")


def test_the_form_of_a_notebook_trains_is_interrupted_and_goes_on(page: Page, lab: Lab) -> None:
    run_all(page, lab, "10_train")
    form = page.locator(".widget-vbox").first
    form.locator("select").first.select_option("tinylstm")
    length = form.locator('.widget-inline-hbox:has(label:text-is("max_iters")) input')
    button = form.get_by_role("button", name="Train", exact=True)

    def train(iterations: str) -> None:
        length.fill(iterations)
        length.press("Tab")
        button.click()

    train("many")
    form.get_by_text("max_iters = 'many' is not possible").wait_for()
    train("100000")
    form.locator("svg[role=img]").wait_for()
    page.wait_for_timeout(3000)
    screenshot(page, "lab-form")
    page.locator('.lm-MenuBar-item:has-text("Kernel")').click()
    page.locator('.lm-Menu-item[data-command="kernelmenu:interrupt"]').click()
    form.get_by_text("tinylstm with swish, trial 1, was stopped; asked for again").wait_for()
    train("5")
    form.get_by_text("Run Selected Cell and All Below").wait_for()
    page.locator('.lm-MenuBar-item:has-text("Run")').click()
    page.locator('.lm-Menu-item:has-text("Run Selected Cell and All Below")').click()
    page.get_by_text("tinylstm with swish: 3 trials of 5 iterations").wait_for()


def move_and_see(page: Page) -> None:
    """Move the last control of every chart that has some, as a hand does: the drawing changes, and so do its words."""
    for chart in page.locator(".vega-embed:has(.vega-bind)").all():
        said, until = chart.locator("svg.marks text").all_text_contents(), time.monotonic() + 60
        # JupyterLab draws a chart once more when it has made a picture of it, and what was chosen before is lost.
        while chart.locator("svg.marks text").all_text_contents() == said:
            assert time.monotonic() < until, f"nothing moves: {said}"
            control = chart.locator(".vega-bind :is(input, select)").last
            if control.evaluate("e => e.type") == "range":
                control.fill(control.evaluate("e => e.value === e.max ? e.min : e.max"))
            else:
                control.select_option(index=control.evaluate("e => (e.selectedIndex + 1) % e.options.length"))
            page.wait_for_timeout(500)
