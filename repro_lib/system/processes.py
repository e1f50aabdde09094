"""Which process is this, does that one still live, and how did it end? Standard library alone, POSIX systems.

A process number alone names nobody: it is used again, and other machines use the same ones. A ``ProcessId`` also holds
the machine and the start of the process; as text it stands in the names of temporary files and folders and in leases."""

import contextlib
import ctypes
import functools
import hashlib
import math
import os
import platform
import re
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Self

_TEXT = re.compile(r"([0-9a-f]{8})-([1-9]\d*)-([0-9a-f]+)")
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class ProcessKilledError(RuntimeError):
    """A process was ended from outside, by a signal, in the middle of its work; the same work may well succeed later."""


@dataclass(frozen=True)
class ProcessId:
    """One process among all that ever ran on any machine."""

    machine: str
    pid: int
    started: str

    def __str__(self) -> str:
        return f"{self.machine}-{self.pid}-{self.started}"

    @classmethod
    def here(cls) -> Self:
        return cls(_machine(), os.getpid(), _started(os.getpid()) or "0")

    @classmethod
    def find(cls, text: str) -> Self | None:
        """The process whose ``str`` stands in a text, for example in a file's name; None if there is none."""
        matches = _TEXT.findall(text)
        return cls(matches[-1][0], int(matches[-1][1]), matches[-1][2]) if matches else None

    def is_gone(self) -> bool | None:
        """Whether it has ended, zombies included; None where this machine cannot know."""
        if self.machine != _machine():
            return None
        with contextlib.suppress(PermissionError):  # another user's process
            try:
                os.kill(self.pid, 0)
            except ProcessLookupError:
                return True
        # A process of this number is there: this one, a later one, or what is left of this one until its parent asks.
        started = _started(self.pid)
        return None if started is None else started != self.started


def describe_exit(code: int | None) -> str:
    """``was killed by signal SIGKILL``, ``ended with exit code 3``."""
    if (number := exit_signal(code)) is None:
        return f"ended with exit code {code}"
    names = {known.value: known.name for known in signal.Signals}  # real-time signals have none
    return f"was killed by signal {names.get(number, number)}"


def exit_signal(code: int | None) -> int | None:
    """The signal that ended a process with this exit code; None if it ended by itself."""
    if code == 128 + signal.SIGTERM:  # 143 is what programs return that tidied up after it first, ours among them
        return signal.SIGTERM
    return -code if code is not None and code < 0 else None


def last_words(log: Path, most: int | None = None) -> str:
    """The last line of a process's log, at most so many characters of it, in parentheses; empty if there is none."""
    with contextlib.suppress(OSError), open(log, "rb") as file:
        file.seek(max(0, file.seek(0, 2) - 10_000))  # it may have written for hours
        if lines := file.read().decode(errors="replace").strip().splitlines():
            return f" (last words: {lines[-1].strip()[:most]})"
    return ""


def out_of_memory_kills() -> int | None:
    """How many processes the out-of-memory killer of this machine has ended since it started; None: not known here."""
    with contextlib.suppress(OSError):
        if match := re.search(r"^oom_kill (\d+)$", Path("/proc/vmstat").read_text(encoding="utf-8"), re.MULTILINE):
            return int(match[1])
    return None


def be_first_out_of_memory() -> None:
    """Where memory runs out, let it be this process that goes, which can be started again, and not whoever waits for it."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("500")  # of 1000, in thousandths of the machine's memory that count on top; children inherit it


def die_with(parent: int) -> None:
    """Have the kernel end this process, without a goodbye, when its parent ends. On Linux; elsewhere nothing happens."""
    if sys.platform != "linux":
        return
    # To be called by whoever is to die: a child of fork does not inherit it.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the line above
        os.kill(os.getpid(), signal.SIGKILL)


def run_and_exit(life: Callable[[], object]) -> NoReturn:
    """End the process with this and its exit code: for the child of a fork, which is not to go on as its parent would."""
    code = 1
    try:
        life()
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def usable_cores() -> int:
    """How many cores this process may use, which in a container or under a scheduler can be fewer than the machine has."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [float(words[0]) / float(words[1]) for words in control_group("cpu.max") if words[0] != "max"]
    quotas += [float(words[0]) / 1e5 for words in control_group("cpu/cpu.cfs_quota_us") if float(words[0]) > 0]
    return max(1, min([cores, *(math.ceil(quota) for quota in quotas)]))


def control_group(name: str, root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> list[list[str]]:
    """The words in the file ``name`` of each control group that this process is in, the innermost first."""
    # Version 2 has one line, 0::/path; in a container, and under version 1 there, the groups lie at the root itself.
    inner = re.search(r"^0::/(.*)$", own.read_text(encoding="utf-8"), re.MULTILINE) if own.exists() else None
    folder = root / (inner[1] if inner else "")
    files = [group / name for group in (folder, *folder.parents) if group.is_relative_to(root)]
    return [words for file in files if file.is_file() and (words := file.read_text(encoding="utf-8").split())]


def kill_group(group: int) -> None:
    """End all processes of a process group at once, if there are any."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


@functools.cache
def _machine() -> str:
    # Eight hex digits for this machine, this boot of it, and this numbering of its processes (a container has its own).
    # The name alone would do if it were one: containers are often called alike, and process numbers begin anew at a boot.
    parts = [platform.node()]
    for path, read in (("/proc/sys/kernel/random/boot_id", Path.read_text), ("/proc/self/ns/pid", os.readlink)):
        with contextlib.suppress(OSError):
            parts.append(str(read(Path(path))))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def _started(pid: int) -> str | None:
    # When it was started, in hex digits of no meaning beyond that; empty: it is a zombie; None: cannot be seen.
    if sys.platform == "linux":
        try:
            # The name in parentheses may hold anything; what follows it is state, ..., start in clock ticks.
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            return None
        return "" if fields[0] in "ZX" else f"{int(fields[19]):x}"
    # macOS and the BSDs have no /proc.
    try:
        listing = subprocess.run(
            ["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, encoding="utf-8", errors="replace", check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    state, _, since = listing.stdout.strip().partition(" ")
    return "" if state.startswith("Z") else hashlib.sha256(since.strip().encode()).hexdigest()[:8]
