"""The file in which a kernel that trains says how far it is. (What one can move is tested in test_what_if_display.py.)"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from repro_lib.training.progress import Progress, progress_share, read_progress, write_progress, write_progress_to


def at(trial: int, iteration: int) -> Progress:
    return Progress("charlm", "relu", trial, 2, iteration, 10, 3.0, None)


def test_trials_that_train_at_once_count_together_in_the_file(tmp_path: Path) -> None:
    write_progress(tmp_path / "p.json", Progress("charlm", "relu", 2, 3, 5, 10, 3.0, None, stack=(2, 3)))
    assert progress_share(tmp_path / "p.json") == pytest.approx(19 / 30)


def test_a_progress_file_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    write_progress(tmp_path / "gone" / "p.json", at(1, 1))
    assert read_progress(tmp_path / "gone" / "p.json") == {}
    assert progress_share(tmp_path / "gone" / "p.json") == 0.0


def test_the_file_is_written_a_few_times_a_second_only(tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    callback = write_progress_to(file)
    callback(at(1, 1))
    callback(at(1, 2))
    assert json.loads(file.read_text())["iteration"] == 1
