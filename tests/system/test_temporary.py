"""Private short-lived folders: where they lie, and that none stays."""

import os
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from repro_lib.system.processes import ProcessId
from repro_lib.system.temporary import LONGEST_SOCKET_PATH, fits_socket, scratch_folder


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.bind(str(path))


def test_a_folder_is_private_names_its_owner_takes_sockets_and_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", "/tmp")
    with scratch_folder() as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert ProcessId.find(folder.name) == ProcessId.here()
        assert fits_socket(folder / "w12345" / "12345678" / "k-ipc-5")
        bind(folder / "s")
        (folder / "below").mkdir()
    assert not folder.exists()
    assert not fits_socket(Path("/" + "ü" * (LONGEST_SOCKET_PATH // 2))), "the limit is in bytes"


def test_a_long_or_useless_temporary_folder_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("long" * 20)
    long.mkdir()
    for useless in (long, Path("/proc/self")):
        monkeypatch.setattr(tempfile, "tempdir", str(useless))
        with scratch_folder() as folder:
            assert useless not in folder.parents
            bind(folder / "s")
    assert list(long.iterdir()) == []


def test_where_nothing_fits_the_usual_place_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("repro_lib.system.temporary._takes_sockets", lambda _folder: False)
    with scratch_folder() as folder:
        assert folder.parent == tmp_path


def test_within_a_worker_s_folder_names_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    with scratch_folder() as outer:
        monkeypatch.setattr(tempfile, "tempdir", str(outer / "w1"))
        (outer / "w1").mkdir()
        with scratch_folder() as inner:
            assert inner.parent == outer / "w1"
            assert len(inner.name) == 8


def test_what_a_killed_process_left_is_removed_when_the_next_one_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("repro_lib.system.temporary._takes_sockets", lambda _folder: True)
    monkeypatch.setattr("repro_lib.system.temporary.LONGEST_SOCKET_PATH", 1000)
    script = (
        "import os, signal; from repro_lib.system import temporary\n"
        "temporary.LONGEST_SOCKET_PATH = 1000\n"
        "with temporary.scratch_folder() as f:\n"
        " (f / 'key').touch(); print(f, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    left = Path(done.stdout.strip())
    assert left.parent == tmp_path
    assert (left / "key").exists()
    strangers = [tmp_path / "repro-workers-abc", tmp_path / f"repro-00000000-{os.getpid()}-1f-abc"]
    for stranger in strangers:
        stranger.mkdir()
    with scratch_folder() as mine, scratch_folder() as also_mine:
        assert not left.exists()
        assert mine.exists()
        assert also_mine.exists()
    # Of another machine's processes nothing is known, and other folders are none of our business.
    assert set(tmp_path.iterdir()) == set(strangers)
