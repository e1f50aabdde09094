"""What a training tells reaches its user: in a terminal, and through the workers of a grid."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from test_resume import Stopped, stop_at

from repro_lib.config import Config
from repro_lib.grid.cells import Cell
from repro_lib.grid.worker import MADE_ELSEWHERE, run_cell
from repro_lib.store.store import Store
from repro_lib.training.experiment import run_experiment
from repro_lib.training.progress import listening, tell

Tiny = Callable[..., Config]


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
