"""A small pool of worker processes: one task at a time each, one thread each, and none outlives its grid.

Not concurrent.futures: there the death of one worker breaks the whole pool, here it fails one task and a new worker
takes its place. Workers are spawned, import what they need once, and stay for the whole grid.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
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
from typing import Any

import psutil

_GRACE_SECONDS = 5.0


@dataclass(frozen=True)
class Task:
    """Something to do in a worker: ``function(**arguments)``, both picklable. ``key`` names it."""

    key: str
    function: Callable[..., None]
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """How a task ended: ``error`` is None or one sentence."""

    task: Task
    error: str | None
    seconds: float


class _Worker:
    def __init__(self, context: SpawnContext, log: Path) -> None:
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, str(log)), daemon=True)
        # Until it has a session of its own (see _serve) a worker must not answer Ctrl-C; it inherits that.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self.process.start()
        finally:
            signal.signal(signal.SIGINT, before)
        theirs.close()
        self.log = log
        self.task: Task | None = None
        self.since = 0.0

    def give(self, task: Task) -> None:
        self.task, self.since = task, time.monotonic()
        self.connection.send((task.function, task.arguments))

    def family(self) -> list[psutil.Process]:
        """The worker and whatever it started, kernels included. Ask before it ends: orphans cannot be told from others."""
        try:
            process = psutil.Process(self.process.pid)
            return [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


def _end(workers: Sequence[_Worker]) -> None:
    """End workers and all that they started: politely, together, and then not."""
    families = [member for worker in workers for member in worker.family()]
    for worker in workers:
        worker.connection.close()
        if worker.task:
            worker.process.terminate()
    for worker in workers:
        worker.process.join(_GRACE_SECONDS)
    for member in families:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    psutil.wait_procs(families, timeout=_GRACE_SECONDS)
    for worker in workers:
        worker.process.join(_GRACE_SECONDS)


class Pool:
    """``workers`` processes that work off tasks in the order in which they are submitted."""

    def __init__(self, workers: int) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._folder = tempfile.TemporaryDirectory(prefix="repro-workers-")
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
        ready = multiprocessing.connection.wait(list(active), timeout)
        outcomes = [self._collect(active[connection]) for connection in ready]  # pyright: ignore[reportArgumentType]
        # At once, so that workers do not wait while the caller looks at what ended.
        self._hand_out()
        return outcomes

    def close(self) -> None:
        """End all workers, at once if they are at work, and remove their logs. A second Ctrl-C does not cut it short."""
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            _end(self._workers)
            self._workers.clear()
            self._folder.cleanup()
        finally:
            signal.signal(signal.SIGINT, before)

    def _hand_out(self) -> None:
        # An idle worker can die too (out of memory, a signal); nobody waits for those.
        self._workers = [worker for worker in self._workers if worker.task or worker.process.is_alive()]
        while self._queue:
            idle = next((worker for worker in self._workers if worker.task is None), None)
            if idle is None and len(self._workers) < self._wanted:
                self._started += 1
                idle = _Worker(self._context, Path(self._folder.name) / f"worker-{self._started}.log")
                self._workers.append(idle)
            if idle is None:
                return
            idle.give(self._queue.popleft())

    def _collect(self, worker: _Worker) -> Outcome:
        task, seconds = worker.task, time.monotonic() - worker.since
        assert task is not None, "only workers with a task are waited for"
        try:
            error = worker.connection.recv()
        except (EOFError, OSError):
            # The pipe closed without an answer: the process is gone.
            worker.process.join(_GRACE_SECONDS)
            error = _describe_death(worker)
            self._workers.remove(worker)
            worker.connection.close()
        worker.task = None
        return Outcome(task, error, seconds)


def _describe_death(worker: _Worker) -> str:
    code = worker.process.exitcode
    if code is not None and code < 0:
        how = f"was killed by signal {signal.Signals(-code).name}"
    else:
        how = f"ended with exit code {code}"
    lines = worker.log.read_text(errors="replace").strip().splitlines() if worker.log.exists() else []
    return f"its worker process {how}" + (f" (last words: {lines[-1]})" if lines else "")


def _serve(connection: multiprocessing.connection.Connection, log: str) -> None:
    """A worker's life: receive a task, do it, answer with None or a sentence; end when the pipe closes."""
    # A session of its own: Ctrl-C reaches the grid alone, which then ends its workers in order.
    os.setsid()
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    with open(log, "w", buffering=1, encoding="utf-8") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
        while True:
            try:
                function, arguments = connection.recv()
            except EOFError:
                return
            connection.send(_attempt(function, arguments))


def _attempt(function: Callable[..., None], arguments: dict[str, Any]) -> str | None:
    try:
        function(**arguments)
    except Exception as error:
        # The sentence goes to the user, the traceback to the worker's log.
        traceback.print_exc()
        expected = isinstance(error, (ValueError, TypeError, RuntimeError))
        return str(error) if expected and str(error) else f"{type(error).__name__}: {error}"
    return None


def _leave(_signal: int, _frame: object) -> None:
    # An exception, so that a running notebook shuts its kernel down on the way out.
    raise SystemExit(143)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    parent.join()
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    os._exit(1)
