"""What-ifs where readers meet them: notebooks; the desk at which models write; the quickstart."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ipywidgets
import nbformat
import pytest
from test_pages import Tags

from repro_lib.analysis.study import Study
from repro_lib.grid.notebooks import notebooks_dir
from repro_lib.plots.style import Plot
from repro_lib.report.writing_desk import WritingDesk, writing_desk
from repro_lib.store.store import Store
from repro_lib.whatif.definition import WhatIf

VIEW = "application/vnd.jupyter.widget-view+json"
RunHere = Callable[..., list[Any]]


def inside(widget: Any, kind: type) -> list[Any]:
    """All widgets of a kind in a box, in order, boxes in it included."""
    below = [part for child in getattr(widget, "children", ()) for part in (child, *inside(child, object))]
    return [part for part in below if isinstance(part, kind)]


def test_a_front_end_gets_widgets_beside_the_page_and_the_grid_the_page_alone(
    what_if_folder: Path, what_if_study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = writing_desk(Store(what_if_folder), what_if_study)
    assert isinstance(desk, WritingDesk)
    live = desk._repr_mimebundle_()
    assert set(live) == {VIEW, "text/html", "text/plain"}
    page = Tags(live["text/html"])
    assert page.all("section") == [{"class": "recorded", "aria-label": "What would this model write?"}]
    assert not page.all("script") + page.all("button"), "what stays has no control"
    monkeypatch.setenv("REPRO_PROGRESS_FILE", "somewhere")
    assert set(desk._repr_mimebundle_()) == {"text/html", "text/plain"}


def test_the_desk_writes_when_asked_and_forgets_when_something_changes(what_if_folder: Path, what_if_study: Study) -> None:
    desk = writing_desk(Store(what_if_folder), what_if_study)
    assert isinstance(desk, WritingDesk)
    controls = desk.controls()
    shown = inside(controls, ipywidgets.HTML)[-1]
    named = {part.description: part for part in inside(controls, ipywidgets.DOMWidget) if getattr(part, "description", None)}

    def written_with(name: str, value: Any) -> str:
        named[name].value = value
        assert shown.value == "", "what was written belongs to other values"
        named["Write"].click()
        assert not named["Write"].disabled
        return shown.value

    assert "The greedy texts of 2 trials" in shown.value
    assert "<strong>Trial 2</strong>" in shown.value
    assert "One trial only" in written_with("and trial", 1)
    assert "<strong>Trial 3</strong>" in written_with("and trial", 3)
    assert "the character &#x27;ö&#x27; does not occur in the corpus" in written_with("Prompt", "ö<")
    assert "the prompt is empty" in written_with("Prompt", "")


def test_without_weights_writing_says_what_is_missing(what_if_study: Study, tmp_path: Path) -> None:
    said = str(writing_desk(Store(tmp_path), what_if_study))
    assert "Nothing now: predictions/charlm-relu-" in said
    assert "There are no results yet" in str(writing_desk(Store(tmp_path), Study.of([])))


@pytest.fixture
def run_here(monkeypatch: pytest.MonkeyPatch) -> RunHere:
    """``run_here(name, **parameters)``: everything that a notebook displays."""
    screen: list[Any] = []

    def display(*values: Any, display_id: bool = False) -> SimpleNamespace | None:
        screen.extend(values)
        return SimpleNamespace(update=screen.append) if display_id else None

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


def asked(screen: list[Any]) -> list[str]:
    """The names of all what-ifs that were displayed, each drawn."""
    what_ifs = [value for value in screen if isinstance(value, WhatIf)]
    assert all(what_if.chart.to_dict()["layer"] for what_if in what_ifs)
    return [what_if.name for what_if in what_ifs]


def test_all_nine_are_alive_or_recorded(what_if_folder: Path, run_here: RunHere) -> None:
    screen = run_here("50_what_if", results_dir=str(what_if_folder))
    # "Without the improbable" is asked in three ways.
    assert asked(screen) == [
        "activation", "metric", "tradeoff", "trials", "temperature", "threshold", "top-k", "frequent", "ensembles", "noise",
    ]  # fmt: skip
    assert isinstance(screen[-1], WritingDesk)
    shown = "".join(str(value._repr_mimebundle_()) for value in screen if isinstance(value, WhatIf | WritingDesk))
    assert str(what_if_folder.parent) not in shown, "a report says nothing about the machine"


def test_other_notebooks_hold_what_fits_them(what_if_folder: Path, run_here: RunHere) -> None:
    assert asked(run_here("01_activations")) == ["activation"]
    assert "metric" in asked(run_here("30_cross_model", results_dir=str(what_if_folder)))


def test_an_empty_store_says_what_to_run_and_shows_what_needs_no_results(tmp_path: Path, run_here: RunHere) -> None:
    screen = run_here("50_what_if", results_dir=str(tmp_path))
    assert asked(screen) == ["activation"]
    assert "".join(map(repr, screen)).count("There are no results yet: run ./run_papermill.sh.") == 10


def test_the_quickstart_trains_two_trials_live_and_shows_where_they_part(
    corpus_file: Path, tmp_path: Path, run_here: RunHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training two trials oneself: their loss while it falls, then their disagreement while they trained and at the end."""
    monkeypatch.setattr("repro_lib.report.live_training.SECONDS_BETWEEN_UPDATES", 0)
    screen = run_here("00_quickstart", corpus=str(corpus_file), results_dir=str(tmp_path), max_iters=4)
    live = [value.data for value in screen if "training progress" in str(getattr(value, "data", ""))]
    assert len(live) == 14, "a picture after each step of both trials of both activations, but for the last"
    assert "loss, nats per token" in live[0]
    assert "trial 2 of 2, iteration 3 of 4" in live[6]
    assert [value.name for value in screen if isinstance(value, Plot)] == ["convlm_training_curves", "convlm_through_training"]
    (gelu,) = [result for _, result in Store(tmp_path / "quickstart").load()[0] if result.activation == "gelu"]
    assert f"relative PD {gelu.avg_relative_pd:.4f} between 2 trials" in "".join(map(repr, screen))
