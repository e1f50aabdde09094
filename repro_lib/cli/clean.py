"""What of a results folder is not needed any more: it is named, somebody is asked, and it is removed."""

import contextlib
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from repro_lib.cli.plain import WIDE, Plain
from repro_lib.grid.worker import clear_leftovers, unfinished_notebooks
from repro_lib.store.schema import TENSOR_KINDS, TensorKind
from repro_lib.store.store import Store
from repro_lib.system.files import leftovers, remove_files
from repro_lib.system.leases import LeaseHeldError, holders, void_leases
from repro_lib.training.checkpoints import of_stored_trials, sweep, trial_files


def clean(console: Console, results_dir: Path, reports_dir: Path, kinds: list[TensorKind], yes: bool) -> int:
    """Name what can go, with the space it takes; ask, unless ``yes``; remove it. Exit code 0, or 1 if something stayed.

    ``kinds``: of which all tensors go that results name; without any, only what nothing reads. Without a terminal to ask on,
    and without ``yes``, it is named and stays. Raises LeaseHeldError while a process is at work in either folder."""
    named = _removable(results_dir, reports_dir, kinds)
    if not any(named.values()):
        console.print(f"nothing to remove in {results_dir}")
        return 0
    _print(console, named)
    if not yes and not _agreed(console):
        return 0
    # What was named and can still go: a process may have come in while the question stood.
    still = {path for paths in _removable(results_dir, reports_dir, kinds).values() for path in paths}
    paths = [path for paths in named.values() for path in paths if path in still]
    size = _bytes(paths)
    sweep(Store(results_dir))
    clear_leftovers(results_dir, reports_dir)
    # Nothing else: a lease, for one, may be another process's by now.
    remove_files(path for path in paths if path.parent.name in TENSOR_KINDS)
    stayed = [path for path in paths if path.exists()]
    console.print(f"removed {len(paths) - len(stayed)} files, {(size - _bytes(stayed)) / 1e6:,.1f} MB")
    for path in stayed:
        console.print(f"{path} could not be removed; is it another user's?", style="red")
    return 1 if stayed else 0


def _removable(results_dir: Path, reports_dir: Path, kinds: list[TensorKind]) -> dict[str, list[Path]]:
    if at_work := [*holders(results_dir), *holders(reports_dir)]:
        raise LeaseHeldError(f"nothing is removed, for {at_work[0]}; come back when it has finished")
    left = [path for folder in (results_dir, reports_dir) for path in (*leftovers(folder), *void_leases(folder))]
    store = Store(results_dir)
    named, unnamed = _tensors(store)
    found = {
        "left by runs that were killed": [*left, *unfinished_notebooks(results_dir)],
        "checkpoints of trials that are stored": of_stored_trials(store),
        "tensors that no result names": unnamed,
        **{
            f"{'snapshots' if kind == 'steps' else kind} of results": [path for path in named if path.parent.name == kind]
            for kind in kinds
        },
    }
    # A link leads to what is somebody else's.
    return {what: [p for p in paths if not p.is_symlink() and not p.parent.is_symlink()] for what, paths in found.items()}


def _tensors(store: Store) -> tuple[list[Path], list[Path]]:
    # Those that results name, and those that none does.
    results, refused = store.load()
    last: dict[tuple[str, ...], int] = {}
    for _, result in results:
        cell = (result.model_name, result.activation, result.config_sha256[:12])
        last[cell] = max(last.get(cell, 0), len(result.trials))
    # Trials of unfinished cells are waiting for the others.
    waiting = {cell for _, cell, trial in _trials(store.folder / "checkpoints") if trial > last.get(cell, 0)}
    named, unnamed = [], []
    for path, cell, trial in (trial for kind in TENSOR_KINDS for trial in _trials(store.folder / kind)):
        if trial <= last.get(cell, 0):
            named.append(path)
        elif cell not in waiting and not refused:  # a result that cannot be read may name them, and be mended
            unnamed.append(path)
    return named, unnamed


def _trials(folder: Path) -> list[tuple[Path, tuple[str, ...], int]]:
    return [(path, match.group("model", "activation", "config"), int(match["last"])) for path, match in trial_files(folder)]


def _agreed(console: Console) -> bool:
    if not (sys.stdin.isatty() and console.is_terminal):
        console.print("nothing was removed; the same command with --yes removes it")
        return False
    console.print("remove all this? [y/N] ", end="")
    console.file.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _print(console: Console, named: dict[str, list[Path]]) -> None:
    table = Table()
    for heading in ("what", "files", "size", "the first of them"):
        table.add_column(heading, justify="right" if heading in ("files", "size") else "left")
    for what, paths in named.items():
        if paths:
            table.add_row(what, str(len(paths)), f"{_bytes(paths) / 1e6:,.1f} MB", str(paths[0]))
    Plain(console.file, width=WIDE).print(table)


def _bytes(paths: list[Path]) -> float:
    size = 0.0
    for path in paths:
        with contextlib.suppress(OSError):
            # A file with several names is gone when the last is.
            size += (about := path.lstat()).st_size / about.st_nlink
    return size
