"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import socket
import stat
import tempfile
import time
from pathlib import Path

# Temporary files name the process that writes them, so that those of a killed one can be told from those in work.
_TEMPORARY = re.compile(r"\..*\.(?P<host>[0-9a-f]{8})-(?P<pid>\d+)\.[^.]+\.tmp", re.DOTALL)
# Nothing is written for so long. Of another machine's files, in a shared folder, only their age can tell.
_ABANDONED_SECONDS = 3600.0


class UnusableFile(ValueError):
    """A file that no reader should touch; the message says what it is, without its name."""


def write_atomically(path: Path, content: str | bytes, *, replace: bool = True) -> None:
    """Write a temporary file beside ``path``, flush it to the disk, and give it its name in one step.

    With ``replace=False`` an existing file is kept and FileExistsError raised, also if it appears in the meantime.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.{_host()}-{os.getpid()}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files private; results are as readable as any other new file.
        os.chmod(temporary, 0o666 & ~_umask())
        if replace:
            os.replace(temporary, path)
        else:
            _name_without_replacing(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def remove_abandoned(folder: Path) -> None:
    """Remove what killed processes left of files they were writing to ``folder``."""
    for path in folder.glob(".*.tmp"):
        match = _TEMPORARY.fullmatch(path.name)
        # Gone in the meantime, or not ours to remove: either way nothing is lost.
        with contextlib.suppress(OSError):
            if match and _is_abandoned(match, path.stat().st_mtime):
                path.unlink()


def read_bounded(path: Path, largest: int) -> bytes:
    """The bytes of a regular file of at most ``largest`` bytes.

    Raises OSError if it cannot be read, UnusableFile if it is larger or no regular file: a pipe or a device, under
    whatever name, could be read for ever.
    """
    # Without O_NONBLOCK opening a pipe waits until somebody writes to it.
    with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise UnusableFile("is no regular file")
        # One byte more: a file can grow while it is read.
        content = file.read(largest + 1) if about.st_size <= largest else None
    if content is None or len(content) > largest:
        raise UnusableFile(f"is larger than {largest / 2**20:.3g} MiB, the most that is read of such a file")
    return content


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _name_without_replacing(temporary: str, path: Path) -> None:
    """Give a file its name, or raise FileExistsError. Folders without hard links get the name reserved first."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
        os.replace(temporary, path)


def _is_abandoned(match: re.Match[str], modified: float) -> bool:
    if time.time() - modified > _ABANDONED_SECONDS:
        return True
    if match["host"] != _host():
        return False
    try:
        os.kill(int(match["pid"]), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:  # it runs, and belongs to somebody else
        return False
    return False


def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
