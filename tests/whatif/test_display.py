"""What-ifs where readers meet them: widgets where a front end asks, HTML for papermill; notebooks; the quickstart."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ipywidgets
import nbformat
import pytest
from test_pages import Tags

from repro_lib.analysis.notes import Note
from repro_lib.analysis.study import Study
from repro_lib.grid.notebooks import notebooks_dir
from repro_lib.plots.style import Plot
from repro_lib.store.store import Store
from repro_lib.whatif.definition import WhatIf
from repro_lib.whatif.display import Shown, controls_over, explore, explore_writing, view_html, writing_desk
from repro_lib.whatif.questions import metric, writing

VIEW = "application/vnd.jupyter.widget-view+json"
RunHere = Callable[..., list[Any]]


def inside(widget: Any, kind: type) -> list[Any]:
    """All widgets of a kind in a box, in order, boxes in it included."""
    below = [part for child in getattr(widget, "children", ()) for part in (child, *inside(child, object))]
    return [part for part in below if isinstance(part, kind)]


# --- a kernel


def test_a_front_end_gets_widgets_and_papermill_the_page_half_alone(
    monkeypatch: pytest.MonkeyPatch, what_if_study: Study
) -> None:
    """With made-up requests; a real one is in test_browser_lab.py, and papermill runs in the tests of the grid."""

    def asked_with(metadata: dict[str, Any]) -> dict[str, Any]:
        kernel = SimpleNamespace(get_parent=lambda channel: {"metadata": metadata} if channel == "shell" else {})
        monkeypatch.setattr("repro_lib.whatif.display.get_ipython", lambda: SimpleNamespace(kernel=kernel))
        return shown._repr_mimebundle_()

    shown = explore(metric.metric_what_if(what_if_study))
    assert isinstance(shown, Shown)
    assert repr(shown).startswith("What if disagreement were measured another way? By relative PD, charlm is lowest with")
    live = asked_with({"cellId": "a1", "trusted": True})
    assert set(live) == {VIEW, "text/html", "text/plain"}
    page = Tags(live["text/html"])
    assert page.all("section")[0]["class"] == "what-if-recorded"
    assert not page.all("script") + page.all("form"), "what stays has no control"
    alone = asked_with({})
    assert set(alone) == {"text/html", "text/plain"}
    assert 'class="what-if-data"' in alone["text/html"]
    # Voila runs a notebook as papermill does; the variable alone makes no kernel.
    monkeypatch.setenv("SERVER_SOFTWARE", "voila/0.5")
    assert VIEW in asked_with({})
    monkeypatch.setattr("repro_lib.whatif.display.get_ipython", lambda: None)
    assert VIEW not in shown._repr_mimebundle_()
    note = Note("nothing here")
    assert explore(note) is note


def test_every_move_of_a_control_shows_the_view_of_all_values_together(what_if_study: Study) -> None:
    what_if = metric.metric_what_if(what_if_study)
    assert isinstance(what_if, WhatIf)
    box = controls_over(what_if)
    (measure,) = inside(box, ipywidgets.Dropdown)  # one model: nothing to choose
    assert [text for text, _ in measure.options] == list(what_if.parameters[0].texts)
    drawing = inside(box, ipywidgets.HTML)[-1]
    for value in ("relative_pd", *(value for _, value in measure.options), "relative_pd"):
        measure.value = value
        assert drawing.value == view_html(what_if.view(metric=value))
    attacked = WhatIf("x", "<img src=x onerror=alert(1)>", what_if.parameters, what_if.see)
    assert "<img" not in inside(controls_over(attacked), ipywidgets.HTML)[0].value, "a title is text"


# --- writing


def test_where_two_texts_part_by_hand() -> None:
    found = writing.Continuations("charlm with <b>", "a<", (1, 2), ("the <i>cat", "abc"), ("the <u>cat", "abd"))
    assert found.sentence() == (
        "Trials 1 and 2 of charlm with <b>, each taking its most probable character, part at character 6: 'i' against 'u'."
    )
    page = Tags(found.html())
    assert not page.all("i") + page.all("u")
    assert re.findall(r"<mark[^>]*>(.*?)</mark>", found.html()) == ["i", "u", "c", "d"]
    same = writing.Continuations("charlm with relu", "a", (2, 2), ("the cat", "abc"), ("the cat", "abc"))
    assert "write the same 7 characters" in same.sentence()
    assert "<mark" not in same.html()


def test_the_desk_writes_when_asked_and_forgets_when_something_changes(what_if_folder: Path, what_if_study: Study) -> None:
    desk = writing_desk(Store(what_if_folder), what_if_study, "ba")
    shown = inside(desk, ipywidgets.HTML)[-1]
    named = {part.description: part for part in inside(desk, ipywidgets.DOMWidget) if getattr(part, "description", None)}

    def written_with(name: str, value: Any) -> str:
        named[name].value = value
        assert shown.value == "", "what was written belongs to other values"
        named["Write"].click()
        assert not named["Write"].disabled
        return shown.value

    assert "Trials 1 and 2 of charlm with relu" in shown.value
    assert f"write the same {writing.LENGTH} characters" in written_with("and trial", 1), "one trial writes one text"
    assert "Trials 1 and 3 of charlm with relu" in written_with("and trial", 3)
    assert "the character &#x27;ö&#x27; does not occur in the corpus" in written_with("Prompt", "ö<")
    assert "the prompt is empty" in written_with("Prompt", "")


def test_without_weights_writing_says_what_is_missing(what_if_study: Study, tmp_path: Path) -> None:
    said = str(explore_writing(Store(tmp_path), what_if_study))
    assert "Nothing now: predictions/charlm-relu-" in said
    assert "There are no results yet" in str(explore_writing(Store(tmp_path), Study.of([])))


# --- notebooks, their cells run in this process one by one


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


def page_of(screen: list[Any]) -> str:
    """What would stand in the page of it."""
    return "".join(value._repr_mimebundle_()["text/html"] if isinstance(value, Shown) else repr(value) for value in screen)


def alive(html: str) -> dict[str, dict[str, Any]]:
    """The data of every what-if of a page, by name."""
    found = re.findall(r'data-what-if="([^"]+)".*?<script[^>]*what-if-data[^>]*>(.*?)</script>', html, re.DOTALL)
    return {name: json.loads(data) for name, data in found}


def test_all_nine_are_alive_or_recorded(what_if_folder: Path, run_here: RunHere) -> None:
    """Each is alive, has a view for every position of its controls and moves; what was written is recorded."""
    html = page_of(run_here("50_what_if", results_dir=str(what_if_folder)))
    # "Without the improbable" is asked in three ways.
    assert list(alive(html)) == [
        "activation", "metric", "tradeoff", "trials", "temperature", "threshold", "top-k", "frequent", "ensembles", "noise",
    ]  # fmt: skip
    for name, data in alive(html).items():
        positions = math.prod(len(control["texts"]) for control in data["controls"])
        assert len(data["views"]) == len(data["sentences"]) == positions
        assert len(set(data["sentences"])) > 1, f"{name}: every position says the same"
        assert len({tuple(view) for view in data["views"]}) > 1, f"{name}: nothing moves"
    recorded = [s["aria-label"] for s in Tags(html).all("section") if s.get("class") == "what-if-recorded"]
    assert recorded == ["What would this model write?"]
    assert str(what_if_folder.parent) not in html, "a report says nothing about the machine"


def test_other_notebooks_hold_what_fits_them(what_if_folder: Path, run_here: RunHere) -> None:
    assert list(alive(page_of(run_here("01_activations")))) == ["activation"]
    assert "metric" in alive(page_of(run_here("30_cross_model", results_dir=str(what_if_folder))))


def test_an_empty_store_says_what_to_run_and_shows_what_needs_no_results(tmp_path: Path, run_here: RunHere) -> None:
    page = page_of(run_here("50_what_if", results_dir=str(tmp_path)))
    assert list(alive(page)) == ["activation"]
    assert page.count("There are no results yet: run ./run_papermill.sh.") == 10


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
