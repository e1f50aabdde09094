"""What-ifs in a kernel: widgets where a front end asks, HTML for papermill; and writing."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ipywidgets
import pytest
from test_pages import Tags

from repro_lib.analysis.notes import Note
from repro_lib.analysis.study import Study
from repro_lib.store.store import Store
from repro_lib.whatif.definition import WhatIf
from repro_lib.whatif.display import Shown, controls_over, explore, explore_writing, live_front_end, writing_desk
from repro_lib.whatif.html import view_html
from repro_lib.whatif.questions import metric, writing

VIEW = "application/vnd.jupyter.widget-view+json"


def inside(widget: Any, kind: type) -> list[Any]:
    """All widgets of a kind in a box, in order, boxes in it included."""
    below = [part for child in getattr(widget, "children", ()) for part in (child, *inside(child, object))]
    return [part for part in below if isinstance(part, kind)]


def named(widget: Any, description: str) -> Any:
    (found,) = [w for w in inside(widget, ipywidgets.DOMWidget) if getattr(w, "description", None) == description]
    return found


# --- which of the two


@pytest.fixture
def asked_with(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, Any]], None]:
    """``asked_with(metadata)``: this process is a kernel, asked by a request with this metadata.

    Real ones: papermill in test_notebook_50.py, JupyterLab in test_browser_lab.py.
    """

    def ask(metadata: dict[str, Any]) -> None:
        kernel = SimpleNamespace(get_parent=lambda channel: {"metadata": metadata} if channel == "shell" else {})
        monkeypatch.setattr("repro_lib.whatif.display.get_ipython", lambda: SimpleNamespace(kernel=kernel))

    return ask


def test_a_front_end_that_names_its_cell_gets_widgets_and_papermill_the_page_half_alone(
    asked_with: Callable[[dict[str, Any]], None], what_if_study: Study
) -> None:
    what_if = explore(metric.metric_what_if(what_if_study))
    assert isinstance(what_if, Shown)
    asked_with({"cellId": "a1", "trusted": True})
    shown = what_if._repr_mimebundle_()
    assert set(shown) == {VIEW, "text/html", "text/plain"}
    page = Tags(shown["text/html"])
    assert page.all("section")[0]["class"] == "what-if-recorded"
    assert not page.all("script"), "what stays has no control"
    assert not page.all("form")
    asked_with({})
    shown = what_if._repr_mimebundle_()
    assert set(shown) == {"text/html", "text/plain"}
    assert 'class="what-if-data"' in shown["text/html"]


def test_voila_is_a_front_end_only_with_a_kernel(
    asked_with: Callable[[dict[str, Any]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVER_SOFTWARE", "voila/0.5")
    assert not live_front_end(), "the variable alone makes no kernel"
    asked_with({})
    assert live_front_end()


def test_a_note_is_passed_on_and_a_what_if_can_be_read_as_text(what_if_study: Study) -> None:
    note = Note("nothing here")
    assert explore(note) is note
    shown = explore(metric.metric_what_if(what_if_study))
    assert repr(shown).startswith("What if disagreement were measured another way? By relative PD, charlm is lowest with")


# --- controls of a live kernel


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
    assert found.common() == 5
    assert found.sentence() == (
        "Trials 1 and 2 of charlm with <b>, each taking its most probable character, part at character 6: 'i' against 'u'."
    )
    page = Tags(found.html())
    assert not page.all("i")
    assert not page.all("u")
    assert re.findall(r"<mark[^>]*>(.*?)</mark>", found.html()) == ["i", "u", "c", "d"]
    same = writing.Continuations("charlm with relu", "a", (2, 2), ("the cat", "abc"), ("the cat", "abc"))
    assert "write the same 7 characters" in same.sentence()
    assert "<mark" not in same.html()


def test_the_desk_writes_when_asked_and_forgets_when_something_changes(what_if_folder: Path, what_if_study: Study) -> None:
    desk = writing_desk(Store(what_if_folder), what_if_study, "ba")
    shown = inside(desk, ipywidgets.HTML)[-1]
    assert "Trials 1 and 2 of charlm with relu" in shown.value
    named(desk, "and trial").value = 1
    named(desk, "Write").click()
    assert f"write the same {writing.LENGTH} characters" in shown.value, "one trial writes one text"
    named(desk, "and trial").value = 3
    assert shown.value == "", "what was written belongs to other values"
    named(desk, "Write").click()
    assert "Trials 1 and 3 of charlm with relu" in shown.value
    named(desk, "Prompt").value = "ö<"
    named(desk, "Write").click()
    assert "the character &#x27;ö&#x27; does not occur in the corpus" in shown.value
    named(desk, "Prompt").value = ""
    named(desk, "Write").click()
    assert "the prompt is empty" in shown.value
    assert not named(desk, "Write").disabled


def test_without_weights_writing_says_what_is_missing(what_if_study: Study, tmp_path: Path) -> None:
    said = str(explore_writing(Store(tmp_path), what_if_study))
    assert "Nothing now: predictions/charlm-relu-" in said
    assert "There are no results yet" in str(explore_writing(Store(tmp_path), Study.of([])))
