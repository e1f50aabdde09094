"""Files that appear whole or not at all, on disks that are full, folders that can only be read, and folders that are gone."""

import ast
import errno
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mounting import mounted

from repro_lib.system.files import WriteError, check_writable, folder_time, write_atomically
from repro_lib.system.leases import remove_left
from repro_lib.system.processes import ProcessId

PACKAGE = Path(__file__).resolve().parents[2] / "repro_lib"
# Who may write otherwise, and why that leaves no half-written file in anybody's folders.
OTHER_WRITERS = {
    ("system.files", "write_atomically"): "this is how the others write",
    ("system.files", "folder_time"): "an empty file, to see its time stamp",
    ("grid.worker_process", "serve"): "a log in a folder that goes with the worker",
    ("grid.forked_kernels", "start"): "a pipe",
    ("grid.kernels", "_async_launch_kernel"): "a log in a folder that goes with the kernel",
    ("data.corpora", "_fetch_with_pip"): "a list for pip in a temporary folder",
    ("training.progress", "write_progress"): "renamed into place, but not flushed to the disk: nobody needs it after a crash",
    ("system.processes", "be_first_out_of_memory"): "a setting of the system",
}


def writers(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Every call that may open a file for writing, with the name of the function around it."""

    def visit(node: ast.AST, function: str) -> Iterator[tuple[str, ast.Call]]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            function = node.name
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            words = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
            words += [word.value.value for word in node.keywords if word.arg == "mode" and isinstance(word.value, ast.Constant)]
            mode = next((word for word in words if isinstance(word, str) and set(word) <= set("rwaxbt+")), "r")
            opens = name in ("open", "fdopen") and set(mode) & set("wax+")
            saves = name in ("write_text", "write_bytes", "save_file", "NamedTemporaryFile")
            # A buffer in memory is no file.
            given = bool(node.args) and getattr(node.args[0], "id", "") != "buffer"
            saves |= name in ("to_csv", "to_json", "to_parquet", "savefig") and given
            if opens or saves:
                yield function, node
        for child in ast.iter_child_nodes(node):
            yield from visit(child, function)

    return visit(tree, "")


def test_every_file_of_the_library_is_written_whole_or_not_at_all() -> None:
    for source in ("open(p, mode='ab')", "p.write_text(t)", "fig.savefig(p)", "os.fdopen(h, 'wb')"):
        assert [name for name, _ in writers(ast.parse(f"def f():\n    {source}"))] == ["f"], source
    found = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        found |= {(module, function) for function, _ in writers(ast.parse(path.read_text(encoding="utf-8")))}
    known = set(OTHER_WRITERS)
    assert found <= known, f"use files.write_atomically: {sorted(found - known)}"
    assert known <= found, f"no longer there: {sorted(known - found)}"


def test_file_and_folder_are_flushed_before_and_after_the_naming(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(handle: int) -> None:
        order.append("folder" if os.path.isdir(f"/proc/self/fd/{handle}") else "file")
        real_fsync(handle)

    def replace(source: str, target: Path) -> None:
        order.append("rename")
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    write_atomically(tmp_path / "x", "text")
    assert order == ["file", "rename", "folder"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[tuple[Path, Callable[[str], None]]]:
    """A disk of 256 KiB, and what remounts it."""
    with mounted(folder := tmp_path / "small", "-t", "tmpfs", "-o", "size=256k", "tmpfs") as remount:
        yield folder, remount


def test_a_full_disk_is_said_and_what_was_there_stays(small_disk: tuple[Path, Callable[[str], None]]) -> None:
    folder, _ = small_disk
    write_atomically(folder / "kept", "old")
    with pytest.raises(WriteError, match=r"big could not be written because the disk is full; free some space") as error:
        write_atomically(folder / "big", b"x" * 2**20)
    assert error.value.errno == errno.ENOSPC
    with pytest.raises(WriteError, match="the disk is full"):
        write_atomically(folder / "kept", b"x" * 2**20)
    assert (folder / "kept").read_text() == "old"
    assert [path.name for path in folder.iterdir()] == ["kept"]
    write_atomically(folder / "kept", "new")


def test_a_read_only_folder_is_said(small_disk: tuple[Path, Callable[[str], None]]) -> None:
    folder, remount = small_disk
    write_atomically(folder / "kept", "old")
    remount("ro")
    with pytest.raises(WriteError, match=r"kept could not be written because .*small is read-only; choose another folder"):
        write_atomically(folder / "kept", "new")
    for place in (folder, folder / "below"):
        with pytest.raises(WriteError, match="is read-only"):
            check_writable(place)
    assert (folder / "kept").read_text() == "old"


def test_a_folder_that_vanishes_in_between_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def vanish(source: str, target: Path) -> None:
        shutil.rmtree(tmp_path / "results")
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), source)

    monkeypatch.setattr(os, "replace", vanish)
    with pytest.raises(WriteError, match=r"because .*results is gone; run the same command again"):
        write_atomically(tmp_path / "results" / "x.json", "text")


def test_a_folder_whose_modes_cannot_be_set_is_not_called_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Network drives refuse it, and no file system that root can mount here does.
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "chmod", refuse)
    write_atomically(tmp_path / "x", "text")
    assert (tmp_path / "x").read_text() == "text"
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(WriteError, match=r"x could not be written \(Operation not permitted\); look into that"):
        write_atomically(tmp_path / "x", "new")


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP])
def test_without_hard_links_nothing_is_overwritten_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)
    write_atomically(tmp_path / "x", "one", replace=False)
    with pytest.raises(FileExistsError):
        write_atomically(tmp_path / "x", "two", replace=False)
    assert (tmp_path / "x").read_text() == "one"
    assert len(list(tmp_path.iterdir())) == 1


def test_the_temporary_files_of_others_stay_and_of_ours_those_whose_writer_may_be_at_work(tmp_path: Path) -> None:
    mine, far = f".x.json.{ProcessId.here()}.ab.tmp", ".x.json.00000000-12-1f.ab.tmp"
    gone = [".y.json.00000000-12-1f.ab.tmp", "steps/.y.00000000-12-1f.ab.tmp", ".tomorrow.00000000-12-1f.ab.tmp"]
    # Those of somebody else, some with a time or another number in the name that looks like one of our processes.
    others = [".draft.tmp", ".z.json.k3x_ab.tmp", ".2025.a-20251201-1530-12.x.tmp", "notes.tmp", ".probe"]
    others += ["sub/.y.json.00000000-12-1f.ab.tmp", "sub/steps/.draft.tmp"]
    (tmp_path / "sub" / "steps").mkdir(parents=True)
    (tmp_path / "steps").mkdir()
    for name in (mine, far, *gone, *others):
        (tmp_path / name).touch()
        days = {far: 0, ".tomorrow.00000000-12-1f.ab.tmp": 2}.get(name, -2)
        os.utime(tmp_path / name, (time.time() + days * 24 * 3600,) * 2)
    assert abs(folder_time(tmp_path) - time.time()) < 60
    check_writable(tmp_path)
    remove_left(tmp_path)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {mine, far, *others}


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    script = "import sys, itertools; from pathlib import Path; from repro_lib.system.files import write_atomically\n"
    script += "for k in itertools.count(): write_atomically(Path(sys.argv[1]), str(k % 10) * 200_000)"
    writer = subprocess.Popen([sys.executable, "-c", script, str(path)])
    seen, until = set(), time.monotonic() + 60
    try:
        while len(seen) < 5 and time.monotonic() < until:
            if path.exists():
                text = path.read_text()
                assert len(text) == 200_000
                assert len(set(text)) == 1
                seen.add(text[0])
    finally:
        writer.kill()
        writer.wait()
    assert len(seen) == 5


def test_a_file_is_replaced_whole_or_kept(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "file.txt"
    write_atomically(path, "one")
    write_atomically(path, b"two")
    assert path.read_text() == "two"
    with pytest.raises(FileExistsError):
        write_atomically(path, "three", replace=False)
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "\ud800")
    assert path.read_text() == "two"
    assert list(path.parent.iterdir()) == [path]
    # As readable as any other new file, which temporary ones are not.
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_folder_in_the_place_of_a_file_or_a_file_in_that_of_a_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "results").touch()
    with pytest.raises(WriteError, match="taken"):
        write_atomically(tmp_path / "taken", "x")
    for replace in (True, False):
        with pytest.raises(WriteError, match=r"x\.json could not be written \(Not a directory\)"):
            write_atomically(tmp_path / "results" / "x.json", "text", replace=replace)
    assert {path.name for path in tmp_path.iterdir()} == {"taken", "results"}
