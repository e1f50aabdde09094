"""A small pool of worker processes: one task at a time each, one thread each, and none outlives its grid."""

# A worker does one task, so that none finds what another one left. Where the system is fit for that it is forked from a process
# that has imported everything (``fork_server``). It has a process group and a folder for temporary files of its own; what it
# starts inherits the folder, and both are cleared away with it.
#
# Why neither concurrent.futures nor pebble: in the first the death of one worker breaks the whole pool. In pebble 5.2 the
# death of an idle one does, and what a worker started (a kernel, and what that started) lives on after a task's time limit.

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import multiprocessing.connection
import os
import shutil
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil

from repro_lib.grid.fork_server import LOST, source_of_processes
from repro_lib.grid.worker_process import LOG, PLACE, End, kill_family
from repro_lib.system.processes import describe_exit, exit_signal, last_words
from repro_lib.system.temporary import scratch_folder

# How often one looks after a task that another process has in work.
LOOK_AGAIN_SECONDS = 3.0
_GRACE_SECONDS = 5.0


@dataclass(frozen=True)
class Task:
    """Something to do in a worker: ``function(**arguments)``, both picklable. ``key`` names it.
    The function returns None or a remark; after ``limit`` seconds all its processes are ended."""

    key: str
    function: Callable[..., str | None]
    arguments: dict[str, Any]
    limit: float | None = None


@dataclass(frozen=True)
class Outcome:
    """How a task ended."""

    task: Task
    end: End
    said: str | None  # the remark of one that is done, if any; for all others one sentence
    seconds: float


class Pool:
    """At most ``workers`` processes at a time, for tasks in the order in which they are submitted.
    ``folder`` is for the caller's own temporary files, and goes with the pool. Close the pool in any case."""

    def __init__(self, workers: int) -> None:
        self._resources = contextlib.ExitStack()
        self.folder = self._resources.enter_context(scratch_folder())
        self._places = range(workers)
        self._numbers = itertools.count(1)
        self._workers: list[_Worker] = []
        self._queue: deque[Task] = deque()

    def submit(self, task: Task) -> None:
        """Have it done after all others."""
        source_of_processes()  # which imports from now on, while the caller plans
        self._queue.append(task)

    def running(self) -> list[Task]:
        return [worker.task for worker in self._workers]

    @property
    def busy(self) -> bool:
        """Whether anything is queued or in work."""
        return bool(self._queue or self._workers)

    def step(self, timeout: float) -> list[Outcome]:
        """Hand out tasks, wait up to ``timeout`` seconds, and return the tasks that ended."""
        self.hand_out()
        active = {worker.connection: worker for worker in self._workers}
        ready = multiprocessing.connection.wait(list(active), timeout)
        outcomes = [self._collect(active[connection]) for connection in ready]  # pyright: ignore[reportArgumentType]
        outcomes += [self._stop(worker) for worker in active.values() if worker.is_late()]
        # At once, so that workers do not wait while the caller looks at what ended.
        self.hand_out()
        return outcomes

    def close(self) -> None:
        """End all workers, at once if they are at work, and remove their folders. Another Ctrl-C does not cut it short."""
        before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            _end(self._workers)
            self._workers.clear()
            self._resources.close()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def hand_out(self) -> None:
        """Begin as many tasks as there is room for; ``step`` does it too."""
        while self._queue and (free := set(self._places) - {worker.place for worker in self._workers}):
            # A folder of a new name for each: processes that a killed worker left may still write into its own.
            folder = self.folder / f"w{next(self._numbers)}"
            self._workers.append(_Worker(folder, min(free), self._queue[0]))
            self._queue.popleft()

    def _collect(self, worker: _Worker) -> Outcome:
        try:
            end, said = worker.connection.recv()
        except (EOFError, OSError):
            # The pipe closed without an answer: the process is gone.
            code = worker.exit_code
            end = "failed" if exit_signal(code) is None and code != LOST else "killed"
            how = "was ended with the process that it was forked from" if code == LOST else describe_exit(code)
            said = f"its worker process {how}{last_words(worker.folder / LOG)}"
        return self._finished(worker, end, said)

    def _stop(self, worker: _Worker) -> Outcome:
        kill_family(worker.family())
        return self._finished(worker, "late", f"it was stopped at its time limit of {worker.task.limit:.0f} s")

    def _finished(self, worker: _Worker, end: End, said: str | None) -> Outcome:
        kill_family(worker.orphans())
        self._workers.remove(worker)
        worker.clear_away()
        return Outcome(worker.task, end, said, time.monotonic() - worker.since)


class _Worker:
    """A worker process as its pool sees it. No two of a pool have the same ``place`` (from 0) at the same time."""

    def __init__(self, folder: Path, place: int, task: Task) -> None:
        folder.mkdir(0o700, parents=True)  # the pool's own may have been cleared away
        self.folder, self.place, self.task, self.since = folder, place, task, time.monotonic()
        self.connection, theirs = multiprocessing.Pipe()
        self.pid = source_of_processes().fork(theirs.fileno())
        theirs.close()  # so that the pipe ends with the process
        # Counted from the pool's process number: pools beside each other (jobs, a second grid) shall not all take card 0.
        with contextlib.suppress(OSError):  # it is gone already, which the pipe will say
            self.connection.send((folder, sys.path, os.getcwd(), dict(os.environ) | {PLACE: str(os.getpid() + place)}))
            self.connection.send((task.function, task.arguments))

    @cached_property
    def exit_code(self) -> int:
        """Of the process, once it has ended."""
        return source_of_processes().exit_code(self.pid)

    def is_late(self) -> bool:
        return self.task.limit is not None and time.monotonic() - self.since > self.task.limit

    def family(self) -> list[psutil.Process]:
        """The worker and whatever it started, kernels included."""
        # To be asked before it ends: orphans cannot be told from others.
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            return [process, *process.children(recursive=True)]
        return []

    def orphans(self) -> list[psutil.Process]:
        """What it started and left behind: known by the folder for temporary files that they were given."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                found += [process] if process.environ().get("TMPDIR") == str(self.folder) else []
        return found

    def clear_away(self) -> None:
        _ = self.exit_code  # while it lives it would take the end of the pipe for that of the pool
        self.connection.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _end(workers: Sequence[_Worker]) -> None:
    # With all that they started: politely, together, and then not.
    families = [member for worker in workers for member in worker.family()]
    for worker in workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker.pid, signal.SIGTERM)
    psutil.wait_procs(families, timeout=_GRACE_SECONDS)
    kill_family(families)
    for worker in workers:
        worker.clear_away()
