"""Trials of one cell trained apart, by whom and in what order ever, are joined into the result of one who trained them all."""

import os
import re
import time
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from kinds import Tiny
from test_resume import left_over, numbers, tensors

from repro_lib.cli.main import main
from repro_lib.store.store import Store
from repro_lib.system.leases import LeaseHeldError, cell_holders, hold, trial_lease
from repro_lib.training import cell
from repro_lib.training.experiment import run_experiment, train_trials
from repro_lib.training.progress import Progress
from repro_lib.training.trainer import TrainingDiverged


def nothing(_: Progress) -> None:
    pytest.fail("a trial was trained again")


def test_joined_parts_are_the_result_of_one_run(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny("charlm", trials=4)
    whole = run_experiment("charlm", "swiglu", config, results_dir=tmp_path / "whole")
    parts = Store(tmp_path / "parts")
    assert train_trials("charlm", "swiglu", config, [3, 4], results_dir=parts.folder) == 2
    assert train_trials("charlm", "swiglu", config, [1, 2], results_dir=parts.folder) == 2
    assert train_trials("charlm", "swiglu", config, [1, 2, 3, 4], results_dir=parts.folder, progress=nothing) == 0
    assert list(parts.folder.glob("*.json")) == [], "a result before all is there"
    joined = run_experiment("charlm", "swiglu", config, results_dir=parts.folder, progress=nothing)
    assert numbers(joined) == numbers(whole)
    assert tensors(parts) == tensors(Store(tmp_path / "whole"))
    assert left_over(parts) == []
    assert train_trials("charlm", "swiglu", config, [1, 2], results_dir=parts.folder, progress=nothing) == 0


def test_more_trials_of_a_stored_cell_are_parts_too(tiny: Tiny, store: Store) -> None:
    run_experiment("charlm", "gelu", tiny("charlm", trials=2), results_dir=store.folder)
    more, seen = tiny("charlm", trials=4), list[Progress]()
    assert train_trials("charlm", "gelu", more, [1, 2, 3], results_dir=store.folder, progress=seen.append) == 1
    assert {now.trial for now in seen} == {3}
    assert len(run_experiment("charlm", "gelu", more, results_dir=store.folder).trials) == 4


def test_told_to_train_again_a_part_does_so_once(tiny: Tiny, store: Store) -> None:
    config = tiny("charlm", trials=2)
    first = run_experiment("charlm", "gelu", config, results_dir=store.folder)
    time.sleep(1.1)  # a result holds whatever trial was finished within a second of it
    assert train_trials("charlm", "gelu", config, [1, 2], results_dir=store.folder, force=True) == 2
    again = run_experiment("charlm", "gelu", config, results_dir=store.folder, force=True, progress=nothing)
    assert len(list(store.folder.glob("*.json"))) == 2
    assert [t.weights_sha256 for t in again.trials] == [t.weights_sha256 for t in first.trials]


def test_nobody_trains_a_trial_that_somebody_has_in_work(tiny: Tiny, store: Store, corpus_file: Path, capsys: Any) -> None:
    config = tiny("charlm")
    sha = config.sha256(run_experiment("charlm", "relu", config, results_dir=store.folder).corpus.sha256)
    with hold(trial_lease(store.folder, "charlm", "gelu", sha, 2), "charlm with gelu, trial 2,"):
        with pytest.raises(LeaseHeldError, match="at work on charlm with gelu, trial 2,"):
            train_trials("charlm", "gelu", config, [2], results_dir=store.folder)
        assert train_trials("charlm", "gelu", config, [1], results_dir=store.folder) == 1
        with pytest.raises(LeaseHeldError, match="at work on charlm with gelu, trial 2,"):
            run_experiment("charlm", "gelu", config, results_dir=store.folder, progress=nothing)
        # And whoever asks how things stand is told.
        words = ["status", "--profile", "smoke", "--models", "charlm", "--activations", "relu", "gelu", "--trials", "2"]
        assert main([*words, "--corpus", str(corpus_file), "--results-dir", str(store.folder)]) == 1
        said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("charlm-gelu")]
        assert re.fullmatch(rf"charlm-gelu +in work: process {os.getpid()} on \S+ since .+", "".join(said)), said
        assert len(cell_holders(store.folder, "charlm", "gelu", sha)) == 1
    assert len(run_experiment("charlm", "gelu", config, results_dir=store.folder).trials) == 2


def test_who_holds_a_cell_and_its_trials_is_named_once(tiny: Tiny, store: Store, corpus_file: Path, capsys: Any) -> None:
    def ask(_: Progress) -> None:
        words = ["status", "--profile", "smoke", "--models", "charlm", "--activations", "gelu", "--trials", "2"]
        main([*words, "--corpus", str(corpus_file), "--results-dir", str(store.folder)])

    run_experiment("charlm", "gelu", tiny("charlm"), results_dir=store.folder, progress=ask)
    lines = [line for line in capsys.readouterr().out.splitlines() if "in work" in line]
    assert lines
    assert all(line.count("process") == 1 for line in lines)


def test_a_part_that_diverges_leaves_the_others_theirs(tiny: Tiny, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    config, seen = tiny("charlm", trials=3), list[Progress]()
    train_trials("charlm", "gelu", config, [1], results_dir=store.folder)
    with monkeypatch.context() as planted:
        planted.setattr(cell, "train_trial", Mock(side_effect=TrainingDiverged("loss is nan")))
        with pytest.raises(TrainingDiverged):
            train_trials("charlm", "gelu", config, [2], results_dir=store.folder)
    run_experiment("charlm", "gelu", config, results_dir=store.folder, progress=seen.append)
    assert {now.trial for now in seen} == {2, 3}


def test_parts_that_are_stacks_are_joined_as_they_are(tiny: Tiny, store: Store) -> None:
    config, seen = tiny("charlm", trials=4, execution="stacked"), list[Progress]()
    assert train_trials("charlm", "gelu", config, [3, 4], results_dir=store.folder) == 2
    result = run_experiment("charlm", "gelu", config, results_dir=store.folder, progress=seen.append)
    assert [trial.stack for trial in result.trials] == [[1, 2], [1, 2], [3, 4], [3, 4]]
