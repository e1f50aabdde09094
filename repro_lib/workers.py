"""A small pool of worker processes: one task at a time each, one thread each, and none outlives its grid.

Not concurrent.futures: there the death of one worker breaks the whole pool, here it ends one task and a new worker
takes its place. Workers are spawned, import what they need once, and stay for the whole grid. Each has a process group
and a folder for temporary files of its own; what it starts inherits the folder, and both are cleared away with it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.context import SpawnContext
from pathlib import Path
from typing import Any, Literal

import psutil

from repro_lib.lease import LeaseHeldError
from repro_lib.processes import ProcessKilledError, be_first_out_of_memory, describe_exit, exit_signal, kill_group
from repro_lib.scratch import scratch_folder

_GRACE_SECONDS = 5.0

# How a task ended. "killed": a process was ended from outside, so that the same task may succeed if tried again; "late":
# it was still at work at its limit; "held": somebody else is at work on it. The others are final.
End = Literal["done", "failed", "killed", "late", "held"]


@dataclass(frozen=True)
class Task:
    """Something to do in a worker: ``function(**arguments)``, both picklable. ``key`` names it.

    The function returns None or a remark. After ``limit`` seconds the task and all its processes are ended.
    """

    key: str
    function: Callable[..., str | None]
    arguments: dict[str, Any]
    limit: float | None = None


@dataclass(frozen=True)
class Outcome:
    """How a task ended: ``said`` is the remark of one that is done (or None), for all others one sentence."""

    task: Task
    end: End
    said: str | None
    seconds: float


class _Worker:
    def __init__(self, context: SpawnContext, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, folder), daemon=True)
        # Until it has a session of its own (see _serve) a worker must not answer Ctrl-C; it inherits that.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self.process.start()
        finally:
            signal.signal(signal.SIGINT, before)
        theirs.close()
        self.task: Task | None = None
        self.since = 0.0

    def give(self, task: Task) -> None:
        self.task, self.since = task, time.monotonic()
        self.connection.send((task.function, task.arguments))

    def is_late(self) -> bool:
        limit = self.task.limit if self.task else None
        return limit is not None and time.monotonic() - self.since > limit

    def family(self) -> list[psutil.Process]:
        """The worker and whatever it started, kernels included. Ask before it ends: orphans cannot be told from others."""
        try:
            process = psutil.Process(self.process.pid)
            return [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def kill(self) -> None:
        """End it and all that it started, at once."""
        _kill(self.family())
        self.clear_away()

    def clear_away(self) -> None:
        """Close and remove what an ended worker leaves."""
        self.process.join(_GRACE_SECONDS)
        self.connection.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _kill(family: Sequence[psutil.Process]) -> None:
    """End these processes and their process groups, and wait until they are gone."""
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            group = os.getpgid(member.pid)
            if group == os.getpgid(0):  # too young to have a group of its own
                member.kill()
            elif member.is_running():
                kill_group(group)
    psutil.wait_procs(family, timeout=_GRACE_SECONDS)


class Pool:
    """``workers`` processes that work off tasks in the order in which they are submitted.

    ``folder`` is for the caller's own temporary files, and goes with the pool. Close the pool in any case.
    """

    def __init__(self, workers: int) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._resources = contextlib.ExitStack()
        self.folder = self._resources.enter_context(scratch_folder())
        self._wanted = workers
        self._started = 0
        self._workers: list[_Worker] = []
        self._queue: deque[Task] = deque()

    def submit(self, task: Task) -> None:
        """Queue a task."""
        self._queue.append(task)

    def running(self) -> list[Task]:
        """The tasks in work."""
        return [worker.task for worker in self._workers if worker.task]

    @property
    def busy(self) -> bool:
        """Whether anything is queued or in work."""
        return bool(self._queue) or bool(self.running())

    def step(self, timeout: float) -> list[Outcome]:
        """Hand out tasks, wait up to ``timeout`` seconds, and return the tasks that ended."""
        self._hand_out()
        active = {worker.connection: worker for worker in self._workers if worker.task}
        if not active:
            time.sleep(timeout)
        ready = multiprocessing.connection.wait(list(active), timeout) if active else []
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
        # An idle worker can die too (out of memory, a signal); nobody waits for those.
        for worker in [worker for worker in self._workers if not worker.task and not worker.process.is_alive()]:
            self._forget(worker)
        while self._queue:
            idle = next((worker for worker in self._workers if worker.task is None), None)
            if idle is None and len(self._workers) < self._wanted:
                self._started += 1
                idle = _Worker(self._context, self.folder / f"w{self._started}")
                self._workers.append(idle)
            if idle is None:
                return
            task = self._queue.popleft()
            try:
                idle.give(task)
            except OSError:
                # It died since the look above: not the task's doing.
                self._queue.appendleft(task)
                self._forget(idle)

    def _collect(self, worker: _Worker) -> Outcome:
        task, seconds = worker.task, time.monotonic() - worker.since
        assert task is not None, "only workers with a task are waited for"
        try:
            end, said = worker.connection.recv()
        except (EOFError, OSError):
            # The pipe closed without an answer: the process is gone.
            worker.process.join(_GRACE_SECONDS)
            end = "failed" if exit_signal(worker.process.exitcode) is None else "killed"
            said = f"its worker process {describe_exit(worker.process.exitcode)}{_last_words(worker)}"
            self._forget(worker)
        worker.task = None
        return Outcome(task, end, said, seconds)

    def _stop(self, worker: _Worker) -> Outcome:
        task, seconds = worker.task, time.monotonic() - worker.since
        assert task is not None
        worker.kill()
        self._workers.remove(worker)
        return Outcome(task, "late", f"it was stopped at its time limit of {task.limit:.0f} s", seconds)

    def _forget(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        worker.clear_away()


def _end(workers: Sequence[_Worker]) -> None:
    """End workers and all that they started: politely, together, and then not."""
    families = [member for worker in workers for member in worker.family()]
    for worker in workers:
        worker.connection.close()
        if worker.task:
            worker.process.terminate()
    for worker in workers:
        worker.process.join(_GRACE_SECONDS)
    _kill(families)
    for worker in workers:
        worker.clear_away()


def _last_words(worker: _Worker) -> str:
    log = _log(worker.folder)
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return f" (last words: {lines[-1]})" if lines else ""


def _log(folder: Path) -> Path:
    return folder / "worker.log"


def _serve(connection: multiprocessing.connection.Connection, folder: Path) -> None:
    """A worker's life: receive a task, do it, answer how it ended; end when the pipe closes."""
    # A session of its own: Ctrl-C reaches the grid alone, which then ends its workers in order.
    os.setsid()
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_die_with_parent, args=(folder,), daemon=True).start()
    be_first_out_of_memory()
    # Temporary files of this process and of its kernels lie where the grid finds them, however these end.
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    with open(_log(folder), "w", buffering=1, encoding="utf-8") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
        while True:
            try:
                function, arguments = connection.recv()
            except EOFError:
                return
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


def _leave(_signal: int, _frame: object) -> None:
    # An exception, so that a running notebook shuts its kernel down on the way out.
    raise SystemExit(143)


def _die_with_parent(folder: Path) -> None:
    """Wait for the end of the grid, however it comes, then end with all that was started and leave nothing behind."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    parent.join()
    _kill(psutil.Process().children(recursive=True))
    shutil.rmtree(folder, ignore_errors=True)
    # What the grid itself left in the folder around; the last of the workers finds it empty of the others.
    shutil.rmtree(folder.parent, ignore_errors=True)
    os._exit(1)
