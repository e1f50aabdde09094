"""What a notebook shows while it trains, what stays of it, and the first step of an empty store."""

import json
import os
import re
import signal
import stat
from pathlib import Path

import pytest

from repro_lib.analysis.notes import Note
from repro_lib.config import Config
from repro_lib.data import load_corpus
from repro_lib.plots.style import COLOURS
from repro_lib.report.live_training import LiveTraining, first_step
from repro_lib.store.store import Store
from repro_lib.system.leases import cell_lease, hold
from repro_lib.training.progress import PROGRESS_FILE_VARIABLE, Progress, progress_share


@pytest.fixture(autouse=True)
def in_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody reads a progress file: this test may itself run under a grid."""
    monkeypatch.delenv(PROGRESS_FILE_VARIABLE, raising=False)
    monkeypatch.setattr("repro_lib.report.live_training.SECONDS_BETWEEN_UPDATES", 0)


def at(trial: int, iteration: int, loss: float = 3.0, activation: str = "<b>") -> Progress:
    return Progress("charlm", activation, trial, 2, iteration, 10, loss, None)


def pictures(*places: Progress) -> list[str]:
    """What is shown after each of these words about the training."""
    shown: list[str] = []
    live = LiveTraining(show=shown.append)
    for place in places:
        live(place)
    return shown


def test_the_picture_while_training_has_a_bar_and_a_line_per_trial_and_is_folded_at_the_end() -> None:
    """The colour is that of the activation, and dashes tell the trials apart."""
    html = pictures(at(1, 1, 4.0), at(1, 10, 3.0), at(2, 5, 3.5))[-1]
    assert "max='20' value='15'" in html
    assert re.search(r"about \d+ s left.*from 4\.00 down to 3\.00 nats", html)
    assert html.count("<polyline") == 2
    assert "<b>" not in html, "names are escaped"
    html = pictures(at(1, 10, activation="gelu"), at(2, 10, activation="gelu"))[-1]
    assert html.startswith("<details><summary>Trained 2 trials of charlm with gelu")
    assert "<progress" not in html
    assert set(re.findall("stroke='([^']+)'", html)) == {COLOURS["gelu"]}
    assert len(set(re.findall("stroke-dasharray='([^']+)'", html))) == 2


def test_only_the_trials_of_this_run_count_and_those_that_train_at_once_count_together() -> None:
    """Trials 2 and 3 of 3 as a stack: trial 1 was there already, and each iteration is told of for both."""
    stack = [Progress("charlm", "relu", k, 3, i, 10, 3.0, None, stack=(2, 3)) for i in range(1, 11) for k in (2, 3)]
    assert [place.done for place in stack] == list(range(11, 31))
    shown = pictures(*stack)
    assert "max='20' value='9'" in shown[8]
    assert "trial 2 of 3 (2 at once), iteration 5 of 10" in shown[8]
    assert "Trained 2 trials" in shown[-1]
    # Of one trial to train, half is done after five of ten iterations.
    half, whole = pictures(at(2, 5), at(2, 10))
    assert ("max='10' value='5'" in half, "Trained 1 trial of" in whole) == (True, True)


def test_it_redraws_a_few_times_a_second_only_but_never_misses_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("repro_lib.report.live_training.SECONDS_BETWEEN_UPDATES", 60)
    first, last = pictures(at(1, 1), *(at(1, k) for k in range(2, 11)), *(at(2, k) for k in range(1, 11)))
    assert "iteration 1 of 10" in first
    assert "Trained 2 trials" in last


def test_under_the_grid_progress_goes_to_the_file_it_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And spares the null device, where it once went: a root user's rename replaced it by a file."""
    file = tmp_path / "p.json"
    monkeypatch.setenv(PROGRESS_FILE_VARIABLE, str(file))
    assert pictures(at(2, 5)) == []
    assert json.loads(file.read_text())["trial"] == 2
    assert progress_share(file) == pytest.approx(0.75)
    monkeypatch.setenv(PROGRESS_FILE_VARIABLE, os.devnull)
    assert pictures(at(2, 5)) == []
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


def test_the_first_step_of_an_empty_store_trains_two_cells(corpus_file: Path, store: Store) -> None:
    words, button, shown = first_step(store, str(corpus_file), "smoke").children
    assert "no results yet: run ./run_papermill.sh" in words.value
    button.click()
    assert {(r.model_name, r.activation) for _, r in store.load()[0]} == {("charlm", "relu"), ("charlm", "gelu")}
    assert shown.value.count("Trained 3 trials") == 2
    assert "Run All Cells" in shown.value
    assert button.disabled


def test_a_first_step_that_fails_can_be_tried_again_and_under_the_grid_it_is_words(
    store: Store, corpus_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, button, shown = first_step(store, "no/such/file.txt", "smoke").children
    button.click()
    assert "no/such/file.txt" in shown.value
    assert "Traceback" not in shown.value
    assert not button.disabled
    monkeypatch.setattr(LiveTraining, "__call__", lambda _, progress: signal.raise_signal(signal.SIGINT))
    _, button, shown = first_step(store, str(corpus_file), "smoke").children
    # As in a kernel: a test run in the background of a script ignores this signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    button.click()
    signal.signal(signal.SIGINT, before)
    assert "charlm with relu, trial 1, was stopped; asked for again it starts from its first iteration" in shown.value
    assert not button.disabled
    config = Config.for_model("charlm", "smoke", corpus=str(corpus_file))
    cell = cell_lease(store.folder, "charlm", "relu", config.sha256(load_corpus(str(corpus_file)).sha256))
    with hold(cell, "charlm with relu"):
        button.click()
    assert "is at work on charlm with relu" in shown.value
    # A button would be dead in the report.
    monkeypatch.setenv(PROGRESS_FILE_VARIABLE, "p.json")
    assert isinstance(first_step(store), Note)
