"""Files that appear whole or not at all, and what to say where one cannot be written."""

import contextlib
import errno
import lzma
import os
import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path

from repro_lib.system.processes import ProcessId

# Executed notebooks: figures of some 100 KB, and what cells printed, which is cut (see kernels).
LARGEST_NOTEBOOK_BYTES = 256 * 2**20
# Temporary files of machines that cannot be asked go after a day.
_OLD_SECONDS = 24 * 3600.0
# Where, in a folder of results or reports, our temporary files and leases lie. Other folders in it may be somebody else's.
_PLACES = (".", "leases", "checkpoints", "predictions", "weights", "steps", "pd", "derived", "failed", "notebooks", "plots")
_PLACES += ("workflow/*", "workflow/*/failed", "with_synthetic", "with_synthetic/plots")
# Why not, with what to do; everything else is said in the system's own words.
_FULL = "because the disk is full; free some space and run the same command again"
_READ_ONLY = "because {folder} is read-only; choose another folder, or make it writable"
_GONE = "because {folder} is gone; run the same command again"
_REASONS = {errno.ENOSPC: _FULL, errno.EDQUOT: _FULL, errno.ENOENT: _GONE, errno.ESTALE: _GONE}
_REASONS |= dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), _READ_ONLY)


class WriteError(OSError):
    """A file that could not be written; as text it is one sentence: which, why, and what to do."""

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(error.errno, error.strerror, str(path))
        other = f"({error.strerror}); look into that and run the same command again"
        # What is not permitted is not permitted for many reasons: another user's file in a folder of all, for one.
        known = _REASONS.get(error.errno or 0, other)
        reason = other if known is _READ_ONLY and os.access(path.parent, os.W_OK) else known.format(folder=path.parent)
        self.sentence = f"{path} could not be written {reason}"

    def __str__(self) -> str:
        return self.sentence


class UnusableFile(ValueError):
    """A file that no reader should touch; the message says what it is, without its name."""


def write_atomically(path: Path, content: str | bytes, *, replace: bool = True, flush: bool = True) -> None:
    """Write a temporary file beside ``path``, flush it to the disk, and give it its name in one step; missing folders are made.

    With ``replace=False`` an existing file is kept and FileExistsError raised, also if it appears in the meantime;
    ``flush=False`` is for what may be lost in a power cut. WriteError where the disk is full, the folder read-only and the
    like; what had the name before is untouched then."""
    data = content.encode() if isinstance(content, str) else content
    try:
        _make_folder(path.parent)
        handle, temporary = tempfile.mkstemp(".tmp", f".{path.name[:40]}.{ProcessId.here()}.", path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                # Before the name is given: else some file systems have, after a power cut, the name and not the content.
                if flush:
                    os.fsync(file.fileno())
            # mkstemp makes files private; results are as readable as any other new file. The mask is read by setting it.
            os.umask(mask := os.umask(0))
            with contextlib.suppress(OSError):  # some network drives have no modes
                os.chmod(temporary, 0o666 & ~mask)
            if replace:
                os.replace(temporary, path)
            else:
                _name_without_replacing(temporary, path)
            if flush:
                _flush_folder(path.parent)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
    except FileExistsError:
        raise  # an answer to the caller, who asked for it with replace=False
    except OSError as error:
        raise WriteError(path, error) from error


def share(path: Path, pattern: str) -> None:
    """Let ``path`` be the same file on the disk as one beside it, named by ``pattern``, that holds the same bytes.
    For files that are only ever replaced whole: each keeps its name when the other is replaced or removed."""
    aside = path.with_name(f".{path.name[:40]}.{ProcessId.here()}.shared.tmp")
    with contextlib.suppress(OSError):  # a folder without hard links: both stay
        size = path.stat().st_size
        for other in path.parent.glob(pattern):
            if other.is_symlink() or other.samefile(path) or other.stat().st_size != size:
                continue
            try:
                # Under a name of its own first: what is compared is then what is kept.
                os.link(other, aside)
                if aside.read_bytes() == path.read_bytes():
                    os.replace(aside, path)
                    return
            finally:
                aside.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """WriteError if no file can be made in this folder; the folder itself is made where it is missing."""
    write_atomically(probe := folder / f".probe.{ProcessId.here()}.0.tmp", b"?")
    probe.unlink(missing_ok=True)


def in_places(folder: Path, pattern: str) -> list[Path]:
    """The files of such names where this program puts its own in a folder of results or reports."""
    return sorted(path for place in _PLACES for path in folder.glob(f"{place}/{pattern}"))


def leftovers(folder: Path) -> list[Path]:
    """The temporary files of writers of ours that were killed, in a folder of results or reports, and no others."""
    now, found = None, []
    for path in in_places(folder, ".*.*.*.tmp"):
        # The name says whose it is, just as ``write_atomically`` writes it: others have names with numbers and hyphens too.
        owner = ProcessId.find(word := path.name.split(".")[-3])
        with contextlib.suppress(OSError):
            if owner is None or str(owner) != word:
                continue
            if (gone := owner.is_gone()) is None:
                now = folder_time(folder) if now is None else now
                gone = abs(now - path.stat().st_mtime) > _OLD_SECONDS
            found += [path] if gone else []
    return found


def remove_files(paths: Iterable[Path]) -> None:
    """Remove these, but for what another process has removed already or another user alone may remove."""
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink()


def folder_time(folder: Path) -> float:
    """What time it is by the clock that stamps the files of this folder, which on a shared folder is the server's."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=f".clock.{ProcessId.here()}.", suffix=".tmp") as file:
        return os.fstat(file.fileno()).st_mtime


def read_bounded(path: Path, largest: int) -> bytes:
    """The bytes of a regular file of at most ``largest`` bytes, unpacked if it is called .xz; OSError if it cannot be read.
    UnusableFile if it is larger, packed or not, or a pipe or a device, which could be read for ever."""
    # Without O_NONBLOCK opening a pipe waits until somebody writes to it.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise UnusableFile("is no regular file")
        # One byte more: a file can grow while it is read.
        content = file.read(largest + 1) if about.st_size <= largest else None
    if content is not None and path.suffix == ".xz":
        content = _unpacked(content, largest)
    if content is None or len(content) > largest:
        raise UnusableFile(f"is larger than {largest / 2**20:.3g} MiB, the most that is read of such a file")
    return content


def _unpacked(content: bytes, largest: int) -> bytes:
    unpacking = lzma.LZMADecompressor()
    try:
        found = unpacking.decompress(content, largest + 1)
    except lzma.LZMAError:
        raise UnusableFile("is no file packed with xz, though it is called one") from None
    if len(found) <= largest and not unpacking.eof:
        raise UnusableFile("is cut short")
    return found


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        # A file stands where a folder should. FileExistsError would tell our caller that the wanted file is there.
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from None


def _name_without_replacing(temporary: str, path: Path) -> None:
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        # A folder without hard links: the name is reserved first.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
        os.replace(temporary, path)


def _flush_folder(folder: Path) -> None:
    # The new name shall be on the disk as well, where folders can be flushed.
    with contextlib.suppress(PermissionError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        except OSError as error:
            # Some file systems flush no folders and say EINVAL or the like. A disk that fails is another matter.
            if error.errno == errno.EIO:
                raise
        finally:
            os.close(handle)
