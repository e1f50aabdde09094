"""``repro clean``: it names what nothing needs, asks, and removes that alone."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from kinds import Tiny

from repro_lib.cli.main import main
from repro_lib.store.schema import Result
from repro_lib.store.store import Store
from repro_lib.system.leases import hold
from repro_lib.system.processes import ProcessId
from repro_lib.training.experiment import run_experiment, train_trials


@pytest.fixture
def cell(tiny: Tiny, store: Store) -> Result:
    """A stored cell of two trials."""
    return run_experiment("tinylstm", "relu", tiny("tinylstm"), results_dir=store.folder)


@pytest.fixture
def words(store: Store, tmp_path: Path) -> list[str]:
    return ["clean", "--results-dir", str(store.folder), "--reports-dir", str(tmp_path / "reports")]


def gone() -> ProcessId:
    """A process of this machine that is no more."""
    line = "from repro_lib.system.processes import ProcessId; print(ProcessId.here())"
    said = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, encoding="utf-8", check=True).stdout
    found = ProcessId.find(said)
    assert found
    return found


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def test_what_nothing_needs_is_named_and_removed_and_nothing_else(
    cell: Result,
    store: Store,
    words: list[str],
    tiny: Tiny,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(words) == 0
    assert f"nothing to remove in {store.folder}" in capsys.readouterr().out
    # Trials that wait for their cell to be joined, files of others, and links to them.
    train_trials("charlm", "relu", tiny("charlm"), [2], results_dir=store.folder)
    stem = f"tinylstm-relu-{cell.config_sha256[:12]}-trial"
    (store.folder / "weights" / "mine.safetensors").write_text("?", encoding="utf-8")
    (tmp_path / "elsewhere").write_text("?", encoding="utf-8")
    (store.folder / "weights" / f"{stem}8.safetensors").symlink_to(tmp_path / "elsewhere")
    kept = files(store.folder)
    # A killed writer's file, a trial that no result names, a checkpoint of a stored trial.
    (store.folder / "steps" / f".x.{gone()}.0.tmp").write_text("?", encoding="utf-8")
    (store.folder / "predictions" / f"{stem}3.safetensors").write_bytes(b"?" * 2_000_000)
    checkpoint = store.folder / "checkpoints" / f"{stem}2.safetensors"
    checkpoint.write_text("?", encoding="utf-8")
    os.utime(checkpoint, (0, 0))
    left = files(store.folder) - kept
    assert len(left) == 3
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "left by runs that were killed" in said
    assert "2.0 MB" in said
    assert "nothing was removed; the same command with --yes removes it" in said
    assert files(store.folder) == kept | left
    assert main([*words, "--yes"]) == 0
    assert "removed 3 files, 2.0 MB" in capsys.readouterr().out
    assert files(store.folder) == kept


def test_weights_and_snapshots_go_where_they_are_asked_for(
    cell: Result, store: Store, words: list[str], tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(store.folder)
    assert main([*words, "--weights", "--snapshots", "--yes"]) == 0
    assert "weights of results" in capsys.readouterr().out
    gone_now = before - files(store.folder)
    assert {Path(name).parent.name for name in gone_now} == {"weights", "steps"}
    assert len(gone_now) == 4
    # What is left is enough to go on.
    more = run_experiment("tinylstm", "relu", tiny("tinylstm", trials=3), results_dir=store.folder)
    assert more.trials[:2] == cell.trials


def test_while_somebody_is_at_work_there_nothing_is_removed(
    cell: Result, store: Store, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(store.folder)
    with hold(store.folder / "leases" / "charlm-relu-aaaaaaaaaaaa.lease", "charlm with relu"):
        assert main([*words, "--weights", "--yes"]) == 2
    assert "nothing is removed, for process" in capsys.readouterr().err
    assert files(store.folder) == before


def test_a_result_that_cannot_be_read_keeps_its_trials(cell: Result, store: Store, words: list[str]) -> None:
    (path,) = store.folder.glob("tinylstm-*.json")
    path.write_text(path.read_text(encoding="utf-8").replace("relu", "gelu"), encoding="utf-8")
    before = files(store.folder)
    assert main([*words, "--yes"]) == 0
    assert files(store.folder) == before


@pytest.mark.parametrize(("answer", "removed"), [(b"y\n", True), (b"\n", False), (b"\x04", False)])
def test_on_a_terminal_it_asks(
    answer: bytes, removed: bool, cell: Result, store: Store, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = pty.openpty()
    # It waits in the terminal until it is read.
    os.write(ours, answer)
    with os.fdopen(theirs, "r", encoding="utf-8") as keys, os.fdopen(os.dup(theirs), "w", encoding="utf-8") as screen:
        monkeypatch.setattr("sys.stdin", keys)
        monkeypatch.setattr("sys.stdout", screen)
        assert main([*words, "--snapshots"]) == 0
        said = b""
        while b"[y/N]" not in said:
            said += os.read(ours, 100_000)
    os.close(ours)
    assert bool(list((store.folder / "steps").iterdir())) != removed
