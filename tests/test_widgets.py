"""What a notebook shows while it trains, and what stays."""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path

import pytest

from repro_lib.notes import Note
from repro_lib.plot_style import COLOURS
from repro_lib.progress import (
    PROGRESS_FILE_VARIABLE,
    Progress,
    progress_share,
    read_progress,
    write_progress,
    write_progress_to,
)
from repro_lib.store import Store
from repro_lib.widgets import LiveTraining, first_step


def at(trial: int, iteration: int, loss: float = 3.0) -> Progress:
    return Progress("charlm", "<b>", trial, 2, iteration, 10, loss, None)


def shown(capsys: pytest.CaptureFixture[str], live: LiveTraining, *places: Progress) -> str:
    for place in places:
        live(place)
    return live._bar(places[-1], 4.0) + live._curves(places[-1])


def test_the_picture_while_training_has_a_bar_and_a_line_per_trial(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(PROGRESS_FILE_VARIABLE, raising=False)
    html = shown(capsys, LiveTraining(), at(1, 1, 4.0), at(1, 10, 3.0), at(2, 5, 3.5))
    assert "max='20' value='15'" in html
    assert "about 1 s left" in html
    assert len(re.findall("<polyline", html)) == 2
    assert "from 4.00 down to 3.00 nats" in html
    assert "<b>" not in html, "names are escaped"


def test_the_finished_picture_has_no_control(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PROGRESS_FILE_VARIABLE, raising=False)
    html = shown(capsys, LiveTraining(), at(1, 10), at(2, 10))
    assert "Trained 2 trials" in html
    assert "<progress" not in html


def test_the_line_has_the_colour_of_the_activation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PROGRESS_FILE_VARIABLE, raising=False)
    live = LiveTraining(show=lambda _: None)
    for trial in (1, 2):
        live(Progress("charlm", "gelu", trial, 2, 10, 10, 3.0, None))
    picture = live._curves(Progress("charlm", "gelu", 2, 2, 10, 10, 3.0, None))
    assert set(re.findall("stroke='([^']+)'", picture)) == {COLOURS["gelu"]}
    assert len(set(re.findall("stroke-dasharray='([^']+)'", picture))) == 2, "trials are told apart"


def test_what_is_over_is_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PROGRESS_FILE_VARIABLE, raising=False)
    shown: list[str] = []
    live = LiveTraining(show=shown.append)
    live(at(1, 10))
    live.last_update = 0.0
    live(at(2, 10))
    assert shown[-1].startswith("<details><summary>Trained 2 trials")
    assert "<svg" in shown[-1]


def test_the_first_step_of_an_empty_store_trains_two_cells(
    corpus_file: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(PROGRESS_FILE_VARIABLE, raising=False)
    words, button, shown = first_step(store, str(corpus_file), "smoke").children
    assert "no results yet: run ./run_papermill.sh" in words.value
    button.click()
    assert {(r.model_name, r.activation) for _, r in store.load()[0]} == {("charlm", "relu"), ("charlm", "gelu")}
    assert shown.value.count("Trained 3 trials") == 2
    assert "Run All Cells" in shown.value
    assert button.disabled


def test_a_first_step_that_fails_says_why_and_can_be_tried_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PROGRESS_FILE_VARIABLE, raising=False)
    _, button, shown = first_step(store, "no/such/file.txt", "smoke").children
    button.click()
    assert "no/such/file.txt" in shown.value
    assert "Traceback" not in shown.value
    assert not button.disabled


def test_under_the_grid_the_first_step_is_words(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A button would be dead in the report."""
    monkeypatch.setenv(PROGRESS_FILE_VARIABLE, "p.json")
    assert isinstance(first_step(store), Note)


def test_a_cell_that_is_extended_counts_only_the_trials_of_this_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trial 1 was there already: of one trial to train, half is done after five of ten iterations."""
    monkeypatch.delenv(PROGRESS_FILE_VARIABLE, raising=False)
    assert "max='10' value='5'" in shown(capsys, LiveTraining(), at(2, 5))
    assert "Trained 1 trial of" in shown(capsys, LiveTraining(), at(2, 10))


def test_trials_that_train_at_once_count_together(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Trials 2 and 3 of 3 as a stack: trial 1 was there already, and each iteration is told of for both."""
    monkeypatch.delenv(PROGRESS_FILE_VARIABLE, raising=False)
    stack = [Progress("charlm", "relu", k, 3, i, 10, 3.0, None, stack=(2, 3)) for i in range(1, 11) for k in (2, 3)]
    assert [place.done for place in stack] == list(range(11, 31))
    half = shown(capsys, LiveTraining(), *stack[:9])
    assert "max='20' value='9'" in half
    assert "trial 2 of 3 (2 at once), iteration 5 of 10" in half
    write_progress(tmp_path / "p.json", stack[8])
    assert progress_share(tmp_path / "p.json") == pytest.approx(19 / 30)
    whole = shown(capsys, LiveTraining(), *stack)
    assert "Trained 2 trials" in whole
    assert len(re.findall("<polyline", whole)) == 2


def test_under_the_grid_progress_goes_to_the_file_it_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "p.json"
    monkeypatch.setenv(PROGRESS_FILE_VARIABLE, str(file))
    LiveTraining()(at(2, 5))
    assert json.loads(file.read_text())["trial"] == 2
    assert progress_share(file) == pytest.approx(0.75)


def test_a_progress_file_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    write_progress(tmp_path / "gone" / "p.json", at(1, 1))
    assert read_progress(tmp_path / "gone" / "p.json") == {}
    assert progress_share(tmp_path / "gone" / "p.json") == 0.0


def test_progress_of_the_analysis_notebooks_spares_the_null_device(
    corpus_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Progress once went to os.devnull, which a root user's rename replaced by a file."""
    monkeypatch.setenv(PROGRESS_FILE_VARIABLE, os.devnull)
    LiveTraining()(at(2, 5))
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


def test_the_file_is_written_a_few_times_a_second_only(tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    callback = write_progress_to(file)
    callback(at(1, 1))
    callback(at(1, 2))
    assert json.loads(file.read_text())["iteration"] == 1
