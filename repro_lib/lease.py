"""One writer at a time, many readers: who is at work on a cell or a notebook says so in a file, its lease.

A lease appears whole or not at all, and only one process can make it (a hard link that must not exist yet). Its holder
stamps it every half minute. It is void when its holder is gone: the holder's own machine sees that at once, others when
it was not stamped for five minutes. No file locks, which shared folders often lack, and no comparison of
two machines' clocks: the age of a stamp is read off another file of the same folder, made at that moment. What is assumed
is that one clock stamps the files of a folder (a local disk; the server of NFS or SMB). Where each machine stamps by its
own, their clocks must agree to within some minutes.

A process that was stopped for longer than that, say by a closed lid, finds its lease gone: ``confirm`` tells it before
it stores anything.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import platform
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from repro_lib.files import UnusableFile, folder_time, read_bounded, write_atomically
from repro_lib.processes import ProcessId

STALE_SECONDS = 300.0
HEARTBEAT_SECONDS = 30.0
# A lease can vanish or change hands between two looks; nothing changes hands this often.
_ATTEMPTS = 100
_LARGEST_BYTES = 10_000


class LeaseHeldError(RuntimeError):
    """Somebody else is at work on this; the message says who."""


class LeaseLostError(RuntimeError):
    """The lease was held and is no more: its folder was deleted, or another process has taken over."""


@dataclass(frozen=True)
class Holder:
    """What a lease says: on which work its holder is, who and where that is, since when."""

    token: str
    work: str
    process: ProcessId
    host: str
    since: str

    def __str__(self) -> str:
        return f"process {self.process.pid} on {self.host} is at work on {self.work} since {self.since}"


class Lease:
    """A lease that is held; made by ``hold``."""

    def __init__(self, path: Path, holder: Holder) -> None:
        self.path, self.holder = path, holder
        self._released = threading.Event()
        self._heart = threading.Thread(target=self._beat, daemon=True)
        self._heart.start()

    def confirm(self) -> None:
        """LeaseLostError unless it is still held. To be asked before anything is stored."""
        current = _read(self.path)
        if current is None:
            raise LeaseLostError(
                f"the lease of {self.holder.work} is gone: {self.path.parent.parent} was deleted or emptied meanwhile, so "
                "nothing was stored; run the same command again"
            )
        if current.token != self.holder.token:
            raise LeaseLostError(
                f"this process stood still for more than {STALE_SECONDS / 60:.0f} minutes, and {current}, so nothing was stored"
            )

    def release(self) -> None:
        """Give it up."""
        self._released.set()
        self._heart.join()
        if _is(self.path, self.holder):
            self.path.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._released.wait(HEARTBEAT_SECONDS):
            with contextlib.suppress(OSError):
                if not _is(self.path, self.holder):
                    return
                os.utime(self.path)  # no time is given: the clock of the file system stamps it


@contextlib.contextmanager
def hold(path: Path, work: str) -> Iterator[Lease]:
    """Hold the lease in file ``path`` within the block. LeaseHeldError, at once, if somebody else does.

    ``work`` names it in messages. WriteError if the folder cannot be written.
    """
    lease = _acquire(path, work)
    try:
        yield lease
    finally:
        lease.release()


def holder(path: Path) -> Holder | None:
    """Who holds the lease in file ``path`` right now; None if it is free to take."""
    current = _read(path)
    return current if current and not _is_void(path, current) else None


def check_free(path: Path) -> None:
    """LeaseHeldError if somebody holds the lease in file ``path``."""
    if current := holder(path):
        raise LeaseHeldError(str(current))


def cell_lease(results_dir: Path, model: str, activation: str, config_sha256: str) -> Path:
    """The lease of training one cell."""
    return results_dir / "leases" / f"{model}-{activation}-{config_sha256[:12]}.lease"


def trial_lease(results_dir: Path, model: str, activation: str, config_sha256: str, trial: int) -> Path:
    """The lease of training one trial (numbered from 1) of a cell: parts of a cell can be in work at several places."""
    cell = cell_lease(results_dir, model, activation, config_sha256)
    return cell.with_name(f"{cell.stem}-trial{trial}.lease")


def cell_holders(results_dir: Path, model: str, activation: str, config_sha256: str) -> list[Holder]:
    """Who is at work on a cell right now, as a whole or on some of its trials."""
    cell = cell_lease(results_dir, model, activation, config_sha256)
    paths = [cell, *sorted(cell.parent.glob(f"{glob.escape(cell.stem)}-trial*.lease"))]
    return [found for path in paths if (found := holder(path))]


def notebook_lease(output: Path) -> Path:
    """The lease of executing a notebook into ``output``."""
    return output.with_name(f".{output.stem}.lease")


def remove_void(folder: Path) -> None:
    """Remove the leases below a folder that killed processes left."""
    for path in folder.rglob("*.lease"):
        _remove_if_void(path)
    for guard in folder.rglob("*.removal"):
        current = _read(guard)
        if current and _is_void(guard, current):
            guard.unlink(missing_ok=True)


def _acquire(path: Path, work: str) -> Lease:
    mine = _new_holder(work)
    for _ in range(_ATTEMPTS):
        if _create(path, mine):
            return Lease(path, mine)
        check_free(path)
        _remove_if_void(path)
    raise LeaseHeldError(f"many processes want to work on {work} at once")


def _new_holder(work: str) -> Holder:
    since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return Holder(uuid.uuid4().hex, work, ProcessId.here(), platform.node(), since)


def _create(path: Path, mine: Holder) -> bool:
    text = json.dumps({**vars(mine), "process": str(mine.process)}) + "\n"
    try:
        write_atomically(path, text, replace=False)
    except FileExistsError:
        return False
    return True


def _remove_if_void(path: Path) -> None:
    """Remove a void lease. What two processes find void may be a new one by the time the second acts.

    Hence a guard, a second lease that is held for this moment alone, under which one looks again.
    """
    current = _read(path)
    if current is None or not _is_void(path, current):
        return
    guard = path.with_suffix(".removal")
    if not _create(guard, _new_holder(f"removing {path.name}")):
        other = _read(guard)
        if other and _is_void(guard, other):
            guard.unlink(missing_ok=True)
        return
    try:
        current = _read(path)
        if current and _is_void(path, current):
            path.unlink(missing_ok=True)
    finally:
        guard.unlink(missing_ok=True)


def _read(path: Path) -> Holder | None:
    """What a lease says; None if there is none. One that cannot be understood has an unknown holder."""
    try:
        text = read_bounded(path, _LARGEST_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UnusableFile:
        text = b""
    unknown = Holder("", path.stem, ProcessId("00000000", 1, "0"), "an unknown machine", "a while ago")
    try:
        fields = json.loads(text)
        process = ProcessId.find(fields["process"])
        holder = Holder(**{**fields, "process": process})
    except (ValueError, TypeError, KeyError, RecursionError):
        return unknown
    return holder if process else unknown


def _is(path: Path, expected: Holder) -> bool:
    current = _read(path)
    return current is not None and current.token == expected.token


def _is_void(path: Path, current: Holder) -> bool:
    gone = current.process.is_gone()
    if gone is not None:
        # On one machine the process itself is asked: after a suspension all stamps are old, and all holders still there.
        return gone
    try:
        return folder_time(path.parent) - path.stat().st_mtime > STALE_SECONDS
    except OSError:
        return False  # released this moment, or a folder that can only be read: it is not ours to judge
