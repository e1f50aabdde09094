"""One job of a plan, as a scheduler starts it: ``repro step PLAN KEY``.

The same step as in the local grid, in the same kind of worker: a process group of its own, a wall clock, and nothing that
outlives it. A lease that somebody else holds is waited for: after an engine was killed its jobs go on, and their
successors take what they make instead of writing where they write.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from repro_lib.files import write_atomically
from repro_lib.lease import remove_void
from repro_lib.plans import Notes, read_plan
from repro_lib.workers import LOOK_AGAIN_SECONDS, Outcome, Pool, Task

# How often the job's progress is copied to the shared folder.
_SECONDS_BETWEEN_WORDS = 5.0


def run_job(plan_file: Path, key: str) -> Outcome:
    """Do one job in a worker of its own, and note beside the plan how it ended.

    An outcome "killed" is worth another attempt and does not make the job count as through. Raises PlanError for a plan
    that cannot be used, WriteError where the notes cannot be written.
    """
    plan = read_plan(plan_file)
    job, notes = plan.job(key), Notes(plan_file.parent)
    notes.begin(key)
    with _tidied(Path(plan.request["results_dir"])), contextlib.closing(Pool(1)) as pool, _at_work(notes.progress(key)):
        progress = pool.folder / "progress.json"
        task = Task(key, _work, {"plan_file": plan_file, "key": key, "progress": progress}, job.limit)
        started, told = time.monotonic(), False
        while (outcome := _attempt(pool, task, progress, notes.progress(key))).end == "held":
            if not told:
                print(f"{key}: {outcome.said}; waiting for it", flush=True)
            told = True
            time.sleep(LOOK_AGAIN_SECONDS)
    outcome = Outcome(task, outcome.end, outcome.said, time.monotonic() - started)
    notes.keep(key, outcome)
    return outcome


@contextlib.contextmanager
def _tidied(results_dir: Path) -> Iterator[None]:
    """After the block the leases of processes that were killed in it are gone.

    Only this machine knows at once that they are void, and the next attempt may be made on another one.
    """
    try:
        yield
    finally:
        for folder in ("leases", "notebooks"):
            remove_void(results_dir / folder)


@contextlib.contextmanager
def _at_work(file: Path) -> Iterator[None]:
    """While the block runs, the file that makes the job count as being at work."""
    write_atomically(file, "{}")
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def _attempt(pool: Pool, task: Task, progress: Path, shared: Path) -> Outcome:
    """Have the task done, and pass on how far it is."""
    pool.submit(task)
    due = time.monotonic()
    while True:
        if ended := pool.step(timeout=0.5):
            return ended[0]
        if time.monotonic() >= due and progress.exists():
            due = time.monotonic() + _SECONDS_BETWEEN_WORDS
            with contextlib.suppress(OSError):  # a courtesy: training does not depend on it
                write_atomically(shared, progress.read_text())


def _work(plan_file: Path, key: str, progress: Path) -> str | None:
    # Here, in the worker: whoever waits for it needs no torch.
    from repro_lib.planning import do_job

    return do_job(plan_file, key, progress)
