"""What a notebook shows while it trains, what stays of it, and the first step of an empty store."""

import json
import os
import re
import signal
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from repro_lib.analysis.notes import Note
from repro_lib.config import Config
from repro_lib.data import load_corpus
from repro_lib.grid.notebooks import declared_parameters, notebooks_dir
from repro_lib.plots.live import live_chart
from repro_lib.report.live_training import LiveTraining, first_step, training_form
from repro_lib.report.site.charts import picture
from repro_lib.store.store import Store
from repro_lib.system.leases import cell_lease, hold
from repro_lib.training.progress import PROGRESS_FILE_VARIABLE, Progress, progress_share


@pytest.fixture(autouse=True)
def in_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody reads a progress file: this test may itself run under a grid."""
    monkeypatch.delenv(PROGRESS_FILE_VARIABLE, raising=False)
    for name in ("SECONDS_BETWEEN_UPDATES", "SECONDS_BETWEEN_CHARTS"):
        monkeypatch.setattr(f"repro_lib.report.live_training.{name}", 0)


def at(trial: int, iteration: int, loss: float = 3.0, activation: str = "<b>") -> Progress:
    return Progress("charlm", activation, trial, 2, iteration, 10, loss, None)


def pictures(*places: Progress) -> list[str]:
    """What is shown after each of these words about the training."""
    shown: list[str] = []
    live = LiveTraining(show=shown.append)
    for place in places:
        live(place)
    return shown


def test_the_picture_while_training_has_a_bar_and_a_chart_and_is_folded_at_the_end() -> None:
    html = pictures(at(1, 1, 4.0), at(1, 10, 3.0), at(2, 5, 3.5))[-1]
    assert "max='20' value='15'" in html
    assert re.search(r"about \d+ s left.*from 4\.00 down to 3\.00 nats", html)
    assert all(f">{words}</text>" in html for words in ("loss, nats per token", "churn, % of tokens", "iteration", "Trial"))
    assert "<b>" not in html, "names are escaped"
    html = pictures(at(1, 10), at(2, 10))[-1]
    assert html.startswith("<details><summary>Trained 2 trials of charlm with ")
    assert "<progress" not in html
    # One that needs earlier models tells of those first.
    assert "from 3.50 down to 3.50 nats" in pictures(at(1, 10, 9.0), at(1, 2, 3.5))[-1]


def test_the_live_chart_has_a_line_per_trial_and_how_often_pairs_of_them_differ() -> None:
    def drawn(trials: int) -> tuple[Any, list[int]]:
        seen = [(t, i, 3.0 + t, None if i < 5 else 2.0) for t in range(1, trials + 1) for i in range(1, 10)]
        # Of four places the first t - 1 have another token.
        tops = {(3, t): np.arange(4) < t - 1 for t in range(1, trials + 1)} | {(7, 1): np.zeros(4)}
        place = Progress("charlm", "gelu", trials, trials, 9, 10, 3.0, None)
        spec = live_chart(place, seen, tops).to_dict()
        assert picture(spec).startswith('<svg role="img"')
        lines, dots = (spec["datasets"][layer["data"]["name"]] for layer in spec["hconcat"][0]["layer"])
        assert len(dots) == min(trials, 10), "one look at the validation text"
        churn = spec["datasets"][spec["hconcat"][1]["data"]["name"]] if trials > 1 else None
        return churn, sorted({line["trial"] for line in lines})

    assert drawn(1) == (None, [1])
    # Pairs differ at 1, 2 and 1 of 4 places; at iteration 7 there is no pair yet.
    assert drawn(3) == ([{"iteration": 3, "churn": pytest.approx(100 / 3)}], [1, 2, 3])
    assert drawn(14)[1] == [*range(5, 15)]


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
    words, _, button, shown = first_step(store, str(corpus_file), "smoke").children
    assert "no results yet: run ./run_papermill.sh" in words.value
    button.click()
    assert {(r.model_name, r.activation) for _, r in store.load()[0]} == {("charlm", "relu"), ("charlm", "gelu")}
    assert shown.value.count("Trained 3 trials") == 2
    assert shown.value.endswith("Run All Cells</em> once more.</p>")


def test_a_first_step_that_fails_can_be_tried_again_and_under_the_grid_it_is_words(
    store: Store, corpus_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    *_, button, shown = first_step(store, "no/such/file.txt", "smoke").children
    button.click()
    assert "no/such/file.txt" in shown.value
    assert "Traceback" not in shown.value
    assert not button.disabled
    monkeypatch.setattr(LiveTraining, "__call__", lambda _, progress: signal.raise_signal(signal.SIGINT))
    *_, button, shown = first_step(store, str(corpus_file), "smoke").children
    # As in a kernel, which ignores this signal while it runs no cell.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    button.click()
    assert signal.signal(signal.SIGINT, before) is signal.SIG_IGN
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


def test_the_form_trains_what_was_chosen_and_the_cells_go_on_with_that(
    store: Store, corpus_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scope = dict.fromkeys(declared_parameters(notebooks_dir() / "10_train.ipynb")) | {"dropout": 0.3, "trials": 2}
    scope |= {"model": "charlm", "activation": "smelu_2", "profile": "smoke", "corpus": str(corpus_file)}
    scope["results_dir"] = str(store.folder)
    _, row, button, shown = training_form(scope).children
    fields = {field.description: field for field in row.children}
    assert (fields["trials"].value, fields["max_iters"].value, fields["max_iters"].placeholder) == ("2", "", "4")
    fields["profile"].value = "quick"
    assert int(fields["max_iters"].placeholder) > 4
    fields["profile"].value, fields["model"].value = "smoke", "convlm"
    wrong = {"max_iters": ("-5", "two", "2.5"), "seed": ("[1]",)}
    for name, words in ((name, words) for name, each in wrong.items() for words in each):
        fields[name].value = words
        button.click()
        assert re.fullmatch(rf"<p>{name} = .*{re.escape(words)}.* is not possible: [^<]*</p>", shown.value), shown.value
        fields[name].value = ""
    assert store.load()[0] == []
    fields["max_iters"].value = "3"
    button.click()
    assert "Trained 2 trials of convlm with smelu_2" in shown.value
    assert "relative PD" in shown.value
    ((_, result),) = store.load()[0]
    assert [result.config[name] for name in ("max_iters", "trials", "dropout")] == [3, 2, 0.3]
    chosen = {"model": "convlm", "activation": "smelu_2", "profile": "smoke", "max_iters": 3, "trials": 2, "seed": None}
    assert {name: scope[name] for name in chosen} == chosen
    assert not button.disabled
    monkeypatch.setenv(PROGRESS_FILE_VARIABLE, "p.json")
    assert training_form(scope) is None
