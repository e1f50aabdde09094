"""Short-lived private folders, for sockets above all: short names, and none outlives its owner for long."""

import contextlib
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from repro_lib.system.processes import ProcessId

LONGEST_SOCKET_PATH = 100  # bytes; systems limit it to 104 or 108, the closing zero included
_ROOM_BELOW = len("/w12345/12345678/k-ipc-5")  # what a grid puts below its folder: worker, kernel, socket
_PREFIX = "repro-"


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A private folder with a short path, removed at the end with all it holds; not in the usual place where sockets fit none.
    Its name says whose it is: what killed processes left is removed when the next one asks."""
    usual = Path(tempfile.gettempdir())
    # Within such a folder, the usual place of a worker, the name is short.
    if any(part.startswith(_PREFIX) and ProcessId.find(part) for part in usual.parts):
        folder = Path(tempfile.mkdtemp(prefix="", dir=usual))
    else:
        base = _base(usual)
        _sweep(base)
        folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{ProcessId.here()}-", dir=base))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def fits_socket(path: Path) -> bool:
    """Whether a Unix socket may have this path."""
    return len(os.fsencode(path)) <= LONGEST_SOCKET_PATH


def _base(usual: Path) -> Path:
    example = f"{_PREFIX}{ProcessId.here()}-12345678"
    # macOS has temporary folders of 50 characters and more; clusters like to have them on disks that take no sockets.
    for candidate in (usual, Path(os.environ.get("XDG_RUNTIME_DIR") or "/tmp"), Path("/tmp"), Path("/var/tmp")):
        if len(os.fsencode(candidate / example)) + _ROOM_BELOW <= LONGEST_SOCKET_PATH and _takes_sockets(candidate):
            return candidate
    # Nothing fits: the kernel's sockets will be of TCP then (see kernels), and everything else works as it is.
    return usual


def _takes_sockets(folder: Path) -> bool:
    # Shared folders and some mounts of containers do not.
    try:
        with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=folder) as place, socket.socket(socket.AF_UNIX) as probe:
            probe.bind(str(Path(place) / "s"))
    except OSError:
        return False
    return True


def _sweep(base: Path) -> None:
    for folder in base.glob(f"{_PREFIX}*"):
        owner = ProcessId.find(folder.name)
        # Another process may be sweeping too, and in a folder that all users share (/tmp) others' are not to be touched.
        with contextlib.suppress(OSError):
            if owner and owner.is_gone() and folder.lstat().st_uid == os.geteuid() and not folder.is_symlink():
                shutil.rmtree(folder, ignore_errors=True)
