"""One writer at a time, many readers: who is at work on a cell or a notebook says so in a file, its lease.

Only one process can make it, and it stamps it every half minute. It is void when its holder is gone: the holder's own
machine sees that at once, others when it was not stamped for five minutes, and a process that stood still for longer
(a closed lid) is told so by ``confirm`` before it stores anything."""

# Locks of the file system are not used, for shared folders often lack them. Nor are two machines' clocks compared: the age
# of a stamp is read off another file of the same folder, made at that moment. One clock must stamp the files of a folder
# (a local disk; the server of NFS or SMB); where each machine stamps by its own, these must agree to within some minutes.
#
# Why not filelock.SoftFileLease, which is made for this: it takes a lease over by exchanging two names in one step
# (RENAME_EXCHANGE), which NFS and SMB refuse, and then it leaves the lease to its dead holder for ever. It also takes a
# killed process for alive until its parent has asked how it ended, which in a container without an init is never.

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

from repro_lib.system.files import folder_time, in_places, leftovers, read_bounded, remove_files, write_atomically
from repro_lib.system.processes import ProcessId

STALE_SECONDS = 300.0
# A holder may miss nine stamps (a server that does not answer, a busy machine) before others take its lease.
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
    """What a lease says: on which work its holder is, who and where that is, since when. ``token``: no two are alike."""

    token: str
    work: str
    process: ProcessId
    host: str
    since: str

    def __str__(self) -> str:
        return f"process {self.process.pid} on {self.host} is at work on {self.work} since {self.since}"


@dataclass(frozen=True)
class Lease:
    """A lease that is held; made by ``hold``."""

    path: Path
    holder: Holder

    def confirm(self) -> None:
        """LeaseLostError unless it is still held. To be asked before anything is stored."""
        current = _read(self.path)
        if current is None:
            gone = f"the lease of {self.holder.work} is gone: {self.path.parent.parent} was deleted or emptied meanwhile"
            raise LeaseLostError(f"{gone}, so nothing was stored; run the same command again")
        if current.token != self.holder.token:
            still = f"this process stood still for more than {STALE_SECONDS / 60:.0f} minutes"
            raise LeaseLostError(f"{still}, and {current}, so nothing was stored")


@contextlib.contextmanager
def hold(path: Path, work: str) -> Iterator[Lease]:
    """Hold the lease in file ``path`` within the block; ``work`` names it in messages.
    LeaseHeldError, at once, if somebody else does; WriteError if the folder cannot be written."""
    since = f"{datetime.now(UTC):%Y-%m-%d %H:%M UTC}"
    own = Holder(uuid.uuid4().hex, work, ProcessId.here(), platform.node(), since)
    lease = Lease(_acquire(path, own), own)
    released = threading.Event()
    (heart := threading.Thread(target=_beat, args=(lease, released), daemon=True)).start()
    try:
        yield lease
    finally:
        released.set()
        heart.join()
        if _is_of(lease.path, own):
            lease.path.unlink(missing_ok=True)


def holder(path: Path) -> Holder | None:
    """Who holds the lease in file ``path`` right now; None if it is free to take."""
    return next((who for one in _all_of(path) if (who := _read(one)) and not _is_void(one, who)), None)


def cell_lease(results_dir: Path, model: str, activation: str, config_sha256: str) -> Path:
    return results_dir / "leases" / f"{model}-{activation}-{config_sha256[:12]}.lease"


def trial_lease(results_dir: Path, model: str, activation: str, config_sha256: str, trial: int) -> Path:
    """The lease of training one trial (numbered from 1) of a cell: parts of a cell can be in work at several places."""
    cell = cell_lease(results_dir, model, activation, config_sha256)
    return cell.with_name(f"{cell.stem}-trial{trial}.lease")


def cell_holders(results_dir: Path, model: str, activation: str, config_sha256: str) -> list[Holder]:
    """Who is at work on a cell right now, as a whole or on some of its trials."""
    cell = cell_lease(results_dir, model, activation, config_sha256)
    paths = [cell, *sorted(cell.parent.glob(f"{glob.escape(cell.stem)}-trial*.lease"))]
    return [who for path in paths if (who := holder(path))]


def notebook_lease(output: Path) -> Path:
    return output.with_name(f".{output.stem}.lease")


def holders(folder: Path) -> list[Holder]:
    """Who is at work on anything in a folder of results or reports right now."""
    return [who for path in in_places(folder, "*.lease") if (who := holder(path))]


def void_leases(folder: Path) -> dict[Path, Holder]:
    """The leases in a folder of results or reports that killed processes left, and whose they were."""
    read = {path: current for path in in_places(folder, "*.lease") if (current := _read(path))}
    return {path: current for path, current in read.items() if current.token and _is_void(path, current)}


def remove_left(folder: Path) -> None:
    """Remove those, and the temporary files that killed processes left."""
    remove_files(leftovers(folder))
    for path, current in void_leases(folder).items():
        _remove_void(path, current)


def _acquire(path: Path, own: Holder) -> Path:
    # In which file it is held from now on.
    text, mine = json.dumps(vars(own), default=str) + "\n", path
    for _ in range(_ATTEMPTS):
        try:
            write_atomically(mine, text, replace=False)
        except FileExistsError:
            if current := _read(mine):
                if not _is_void(mine, current):
                    raise LeaseHeldError(str(current)) from None
                if not _remove_void(mine, current):
                    # Another user's, in a folder where each may remove but their own: ours stands beside it.
                    mine = path.with_name(f"{path.stem}.user{os.geteuid()}.lease")
            continue
        # Should two users come in one moment, both find the other's, and try again later.
        for other in _all_of(path):
            if other != mine and (current := _read(other)) and not _is_void(other, current):
                mine.unlink(missing_ok=True)
                raise LeaseHeldError(str(current))
        return mine
    raise LeaseHeldError(f"many processes want to work on {own.work} at once")


def _all_of(path: Path) -> list[Path]:
    return [path, *path.parent.glob(f"{glob.escape(path.stem)}.user*.lease")]


def _beat(lease: Lease, released: threading.Event) -> None:
    while not released.wait(HEARTBEAT_SECONDS):
        # Folders that do not answer for a moment are tried again; how it stands for good, ``confirm`` says.
        with contextlib.suppress(OSError):
            if not _is_of(lease.path, lease.holder):
                return
            os.utime(lease.path)  # no time is given: the clock of the file system stamps it


def _remove_void(path: Path, void: Holder) -> bool:
    # False where that is not allowed.
    # Another process may have done so since it was found void, and made its own. So the file is first given a name of its
    # own (that of a temporary file, which ``leftovers`` knows), looked at once more, and put back if it is the wrong
    # one. Should a third process have come in that moment, one of the two finds out by ``confirm``.
    if not _is_of(path, void):
        return True
    aside = path.with_name(f".{path.name[:40]}.{ProcessId.here()}.{uuid.uuid4().hex}.tmp")
    try:
        os.rename(path, aside)
    except OSError as error:
        return isinstance(error, FileNotFoundError)
    with contextlib.suppress(OSError):
        if _is_of(aside, void):
            aside.unlink()
        else:
            os.replace(aside, path)
    return True


def _read(path: Path) -> Holder | None:
    try:
        fields = json.loads(read_bounded(path, _LARGEST_BYTES))
        if process := ProcessId.find(fields["process"]):
            return Holder(**fields | {"process": process})
    except (FileNotFoundError, NotADirectoryError):
        return None
    # No JSON, no lease, no file that can be read to its end, or one that only its owner may read.
    except (PermissionError, ValueError, TypeError, KeyError, RecursionError):
        pass
    # It belongs to somebody, who knows whom: void once it is old, but never removed as a leftover (see ``remove_left``).
    return Holder("", path.stem, ProcessId("00000000", 1, "0"), "an unknown machine", "a while ago")


def _is_of(path: Path, whose: Holder) -> bool:
    return (current := _read(path)) is not None and current.token == whose.token


def _is_void(path: Path, current: Holder) -> bool:
    if (gone := current.process.is_gone()) is not None:
        # On one machine the process itself is asked: after a suspension all stamps are old, and all holders still there.
        return gone
    with contextlib.suppress(OSError):
        # Also one of tomorrow is void: its machine's clock was wrong, and nobody stamps it.
        return abs(folder_time(path.parent) - path.stat().st_mtime) > STALE_SECONDS
    return False  # released this moment, or a folder that can only be read: it is not ours to judge
