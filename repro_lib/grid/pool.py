"""A small pool of worker processes: one task at a time each, one thread each, and none outlives its grid."""

# Workers are spawned, import what they need once, and stay for the whole grid. Each has a process group and a folder for
# temporary files of its own; what it starts inherits the folder, and both are cleared away with it.
#
# Why neither concurrent.futures nor pebble: in the first the death of one worker breaks the whole pool. In pebble 5.2 the
# death of an idle one does, and what a worker started (a kernel, and what that started) lives on after a task's time limit.

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import multiprocessing.connection
import shutil
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.context import SpawnContext
from pathlib import Path
from typing import Any

import psutil

from repro_lib.grid.worker_process import LOG, End, kill_family, serve
from repro_lib.system.processes import describe_exit, exit_signal, last_words
from repro_lib.system.temporary import scratch_folder

# How often one looks after a task that another process has in work.
LOOK_AGAIN_SECONDS = 3.0
_GRACE_SECONDS = 5.0


@dataclass(frozen=True)
class Task:
    """Something to do in a worker: ``function(**arguments)``, both picklable. ``key`` names it.

    The function returns None or a remark; after ``limit`` seconds all its processes are ended.
    """

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
    """``workers`` processes that work off tasks in the order in which they are submitted.

    ``folder`` is for the caller's own temporary files, and goes with the pool. Close the pool in any case.
    """

    def __init__(self, workers: int) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._resources = contextlib.ExitStack()
        self.folder = self._resources.enter_context(scratch_folder())
        self._places = range(workers)
        self._numbers = itertools.count(1)
        self._workers: list[_Worker] = []
        self._queue: deque[Task] = deque()

    def submit(self, task: Task) -> None:
        self._queue.append(task)

    def running(self) -> list[Task]:
        return [worker.task for worker in self._workers if worker.task]

    @property
    def busy(self) -> bool:
        """Whether anything is queued or in work."""
        return bool(self._queue or self.running())

    def step(self, timeout: float) -> list[Outcome]:
        """Hand out tasks, wait up to ``timeout`` seconds, and return the tasks that ended."""
        self._hand_out()
        active = {worker.connection: worker for worker in self._workers if worker.task}
        ready = multiprocessing.connection.wait(list(active), timeout)
        outcomes = [self._collect(active[connection]) for connection in ready]  # pyright: ignore[reportArgumentType]
        outcomes += [self._stop(worker) for worker in active.values() if worker.is_late()]
        # At once, so that workers do not wait while the caller looks at what ended.
        self._hand_out()
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

    def _hand_out(self) -> None:
        while self._queue and (worker := self._idle()):
            try:
                worker.give(self._queue[0])
            except OSError:
                # It died since its last task (out of memory, a signal): not the doing of the next one.
                self._forget(worker)
            else:
                self._queue.popleft()

    def _idle(self) -> _Worker | None:
        # A worker without a task, a new one if there is room for it.
        if idle := next((worker for worker in self._workers if worker.task is None), None):
            return idle
        if not (free := set(self._places) - {worker.place for worker in self._workers}):
            return None
        # A folder of a new name for each: processes that a killed worker left may still write into its own.
        worker = _Worker(self._context, self.folder / f"w{next(self._numbers)}", min(free))
        self._workers.append(worker)
        return worker

    def _collect(self, worker: _Worker) -> Outcome:
        try:
            end, said = worker.connection.recv()
        except (EOFError, OSError):
            # The pipe closed without an answer: the process is gone.
            worker.process.join(_GRACE_SECONDS)
            end = "failed" if exit_signal(worker.process.exitcode) is None else "killed"
            said = f"its worker process {describe_exit(worker.process.exitcode)}{last_words(worker.folder / LOG)}"
            self._forget(worker)
        return worker.take(end, said)

    def _stop(self, worker: _Worker) -> Outcome:
        kill_family(worker.family())
        self._forget(worker)
        assert worker.task is not None, "without a task there is no limit"
        return worker.take("late", f"it was stopped at its time limit of {worker.task.limit:.0f} s")

    def _forget(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        worker.clear_away()


class _Worker:
    """A worker process as its pool sees it. No two of a pool have the same ``place`` (from 0) at the same time."""

    def __init__(self, context: SpawnContext, folder: Path, place: int) -> None:
        folder.mkdir(0o700, parents=True)  # the pool's own may have been cleared away
        self.folder, self.place = folder, place
        self.task: Task | None = None
        self.since = 0.0
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, folder, place), daemon=True)
        # Until it has a session of its own (see ``serve``) a worker must not answer Ctrl-C; it inherits that.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self.process.start()
        finally:
            signal.signal(signal.SIGINT, before)
        theirs.close()  # so that the pipe ends with the process

    def give(self, task: Task) -> None:
        """Have it begin a task; OSError if it is gone."""
        self.connection.send((task.function, task.arguments))
        self.task, self.since = task, time.monotonic()

    def take(self, end: End, said: str | None) -> Outcome:
        # From now on it has no task.
        task, self.task = self.task, None
        assert task is not None, "only workers with a task are waited for"
        return Outcome(task, end, said, time.monotonic() - self.since)

    def is_late(self) -> bool:
        limit = self.task.limit if self.task else None
        return limit is not None and time.monotonic() - self.since > limit

    def family(self) -> list[psutil.Process]:
        """The worker and whatever it started, kernels included."""
        # To be asked before it ends: orphans cannot be told from others.
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.process.pid)
            return [process, *process.children(recursive=True)]
        return []

    def clear_away(self) -> None:
        self.process.join(_GRACE_SECONDS)
        self.connection.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _end(workers: Sequence[_Worker]) -> None:
    # With all that they started: politely, together, and then not.
    families = [member for worker in workers for member in worker.family()]
    for worker in workers:
        worker.connection.close()  # an idle one ends by that
        if worker.task:
            worker.process.terminate()
    for worker in workers:
        worker.process.join(_GRACE_SECONDS)
    kill_family(families)
    for worker in workers:
        worker.clear_away()
