"""What happens in a worker process of the grid: its life, the graphics card it sees, its end and that of what it started."""

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import psutil

from repro_lib.system.leases import LeaseHeldError
from repro_lib.system.processes import ProcessKilledError, be_first_out_of_memory, die_with, kill_group

LOG, _GRACE_SECONDS = "worker.log", 5.0
_VISIBLE_CARDS, PLACE = "CUDA_VISIBLE_DEVICES", "REPRO_WORKER"

# How a task ended. "killed": a process was ended from outside, so that the same task may succeed if tried again; "late":
# it was still at work at its limit; "held": somebody else is at work on it. The others are final.
End = Literal["done", "failed", "killed", "late", "held"]


def serve(connection: Connection) -> None:
    """A worker's life: receive its folder, its search path and its environment, then its task, and answer how that ended."""
    # A session of its own: what ends its family ends nobody else.
    os.setsid()
    folder, sys.path[:], where, settings = connection.recv()
    os.chdir(where)
    os.environ.clear()
    os.environ |= settings
    # Temporary files of this process and of its kernel lie where the grid finds them, however these end.
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    with open(folder / LOG, "w", buffering=1, encoding="utf-8") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    die_with(os.getppid())
    # Before there is a second thread, or anything else that a fork would carry over into the kernel.
    if "repro_lib.grid.forked_kernels" in sys.modules:
        from repro_lib.grid.forked_kernels import WaitingKernel

        WaitingKernel.here = WaitingKernel()
    # SIGTERM as an exception, so that a running notebook shuts its kernel down and gives up its lease on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    be_first_out_of_memory()
    function, arguments = connection.recv()
    threading.Thread(target=_die_with_pool, args=(connection, folder), daemon=True).start()
    connection.send(_attempt(function, arguments))


def _attempt(function: Callable[..., str | None], arguments: dict[str, Any]) -> tuple[End, str | None]:
    try:
        return "done", function(**arguments)
    except LeaseHeldError as error:
        return "held", str(error)
    except ProcessKilledError as error:
        return "killed", str(error)
    except Exception as error:
        # The sentence goes to the user, the traceback to the worker's log.
        traceback.print_exc()
        expected = isinstance(error, (ValueError, TypeError, RuntimeError)) or type(error).__module__.startswith("repro_lib")
        return "failed", str(error) if expected and str(error) else f"{type(error).__name__}: {error}"


def _die_with_pool(connection: Connection, folder: Path) -> None:
    # Nothing more comes from the pool but its end, however that comes: end with all that was started and leave nothing behind.
    with contextlib.suppress(OSError, EOFError):
        connection.poll(None)
    kill_family(psutil.Process().children(recursive=True))
    shutil.rmtree(folder, ignore_errors=True)
    # What the grid itself left in the folder around; the last of the workers finds it empty of the others.
    shutil.rmtree(folder.parent, ignore_errors=True)
    os._exit(1)


def kill_family(family: Sequence[psutil.Process]) -> None:
    """End these processes and their process groups, and wait until they are gone."""
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            group = os.getpgid(member.pid)
            if group == os.getpgid(0):  # too young to have a group of its own
                member.kill()
            elif member.is_running():
                kill_group(group)
    psutil.wait_procs(family, timeout=_GRACE_SECONDS)


def take_card(device: str = "cuda") -> None:
    """Let this worker and the kernels it starts from now on see one of several graphics cards alone, that of its place.
    It must come before the process itself has used CUDA."""
    if device == "cuda" and len(cards := visible_cards()) > 1:
        os.environ[_VISIBLE_CARDS] = cards[int(os.environ.get(PLACE, 0)) % len(cards)]


def visible_cards() -> list[str]:
    """The cards that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    if (given := os.environ.get(_VISIBLE_CARDS)) is not None:
        return [name.strip() for name in given.split(",") if name.strip()]
    import torch

    return [str(k) for k in range(torch.cuda.device_count())]
