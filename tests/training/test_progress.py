"""What a training tells, and how far it is, reaches its user: in a terminal, and through the workers of a grid."""

import contextlib
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from kinds import Tiny
from test_resume import Stopped, stop_at

from repro_lib.grid.cells import Cell
from repro_lib.grid.worker import MADE_ELSEWHERE, run_cell
from repro_lib.store.store import Store
from repro_lib.training.experiment import run_experiment
from repro_lib.training.progress import (
    Progress,
    listening,
    progress_share,
    read_progress,
    tell,
    write_progress,
    write_progress_to,
)


def test_where_nobody_has_set_up_logging_what_is_told_is_printed_and_torch_is_not_loaded() -> None:
    script = (
        "import sys; from repro_lib.training.progress import tell; tell('goes on at 100 %'); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("goes on at 100 %\n", "")


def test_whoever_listens_hears_what_is_told_meanwhile_and_nothing_afterwards() -> None:
    with contextlib.suppress(Stopped), listening() as heard:
        tell("one")
        raise Stopped
    tell("two")
    assert heard == ["one"]
    assert logging.getLogger("repro_lib").handlers == []


@pytest.mark.parametrize("part", [False, True])
def test_a_worker_passes_on_what_is_told_of_a_cell_that_goes_on(part: bool, tiny: Tiny, store: Store, tmp_path: Path) -> None:
    config = tiny("charlm", trials=1)
    sha256 = run_experiment("charlm", "relu", config, results_dir=store.folder).config_sha256
    with pytest.raises(Stopped):
        run_experiment("charlm", "gelu", config, results_dir=store.folder, checkpoint_seconds=0, progress=stop_at(1, 3))
    cell, settings = Cell("charlm", "gelu", config, sha256), {"results_dir": store.folder, "checkpoint_seconds": 0.0}
    settings |= {"force": False, "progress": tmp_path / "progress.json"}
    said = run_cell(cell, **settings, trials=[1] if part else None)
    assert said == "charlm with gelu, trial 1, goes on from iteration 2"
    again = run_cell(cell, **settings)
    assert again == (None if part else MADE_ELSEWHERE)


def at(trial: int, iteration: int, **more: Any) -> Progress:
    return Progress("charlm", "relu", trial, 3, iteration, 10, 3.0, None, **more)


def test_trials_that_train_at_once_count_together_in_the_file(tmp_path: Path) -> None:
    write_progress(tmp_path / "p.json", at(2, 5, stack=(2, 3)))
    assert progress_share(tmp_path / "p.json") == pytest.approx(19 / 30)


def test_a_progress_file_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    write_progress(tmp_path / "gone" / "p.json", at(1, 1))
    assert read_progress(tmp_path / "gone" / "p.json") == {}
    assert progress_share(tmp_path / "gone" / "p.json") == 0.0


def test_the_file_is_written_a_few_times_a_second_only(tmp_path: Path) -> None:
    callback = write_progress_to(tmp_path / "p.json")
    callback(at(1, 1))
    callback(at(1, 2))
    assert read_progress(tmp_path / "p.json")["iteration"] == 1
