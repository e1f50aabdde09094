"""The grid on this machine, in a pool of worker processes: no engine, no service.

Cells that have no result yet, a model's deep dive as soon as its cells are through, at the end what compares all models.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from repro_lib.grid.cells import GridRequest
from repro_lib.grid.display import Display
from repro_lib.grid.executor import ATTEMPTS, GridReport, Run
from repro_lib.grid.pool import LOOK_AGAIN_SECONDS, Outcome, Pool
from repro_lib.grid.tasks import Job
from repro_lib.training.progress import progress_share


def train_cells(request: GridRequest, display: Display) -> GridReport:
    """Train the cells without notebooks: what ``repro train`` does."""
    return _PoolRun(request, display, Pool(request.workers), with_notebooks=False).work()


def run_grid(request: GridRequest, display: Display) -> GridReport:
    """Execute the notebooks of all cells, then the analysis, then the site."""
    return _PoolRun(request, display, Pool(request.workers), with_notebooks=True).work()


class _PoolRun(Run):
    """One run of the grid: the queue of jobs and what each ending sets off."""

    def __init__(self, request: GridRequest, display: Display, pool: Pool, *, with_notebooks: bool) -> None:
        self.pool = pool
        # The pool has a folder by now, which must go where the request turns out to ask for what there is not.
        with contextlib.ExitStack() as stack:
            stack.callback(pool.close)
            super().__init__(request, display, pool.folder, with_notebooks=with_notebooks)
            stack.pop_all()
        self.jobs: dict[str, Job] = {}  # all that is queued, in work or waited for
        self.kills: Counter[str] = Counter()  # from outside, of the processes of a job
        # Jobs that other processes have in work, and when to look after each again; of which that was said.
        self.elsewhere: dict[str, float] = {}
        self.told: set[str] = set()
        self.spent = 0.0

    def work(self) -> GridReport:
        """Do everything; KeyboardInterrupt ends the workers and leaves only whole files."""
        with contextlib.closing(self.pool):
            todo = [cell for cell in (*self.cells, *self.variants) if self.tasks.wanted(cell)]
            self.check(todo)
            try:
                jobs = [job for cell in todo for job in self.tasks.parts(cell) or [self.tasks.cell(cell)]]
                # The longest first, so that no long one is left for the end when the other workers have nothing to do.
                self._add(sorted(jobs, key=lambda job: job.cost, reverse=True))
                if self.with_notebooks:
                    # The index is there from the first second, with a row for every cell that is still to come.
                    self.publish(running=bool(todo))
                    self._add_deep_dives([cell.model for cell in self.cells])
                self.display.started(len(todo), len(self.cells) + len(self.variants) - len(todo))
                self._drain()
                if self.with_notebooks:
                    self._add(self.tasks.analyses())
                    self._drain()
                self.look_for_lost_results()
            finally:
                self.pool.close()
                self.display.close()
                if self.with_notebooks:
                    self.publish(running=False)
        return self.report

    def _add(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            self.jobs[job.key] = job
            self.pool.submit(job)

    def _add_deep_dives(self, models: Sequence[str]) -> None:
        # Of each model whose cells are all through.
        open_models = {cell.model for job in self.jobs.values() if (cell := job.cell or job.part_of)}
        self._add(self.tasks.deep_dives([model for model in models if model not in open_models]))

    def _drain(self) -> None:
        # Work until nothing is queued or running, here or elsewhere.
        said = False
        while self.pool.busy or self.elsewhere:
            if not (self.pool.busy or said):
                said = True
                self.display.note(f"waiting for what other processes have in work: {', '.join(self.elsewhere)}")
            for key in [key for key, due in self.elsewhere.items() if time.monotonic() >= due]:
                del self.elsewhere[key]
                self.pool.submit(self.jobs[key])
            ended = self.pool.step(timeout=0.5)
            running = {task.key: self.jobs[task.key].progress or Path() for task in self.pool.running()}
            self.display.update(running, self._share(running))
            for outcome in ended:
                self._ended(self.jobs[outcome.task.key], outcome)

    def _ended(self, job: Job, outcome: Outcome) -> None:
        if outcome.end == "held":
            # Another process is at work on this: go on with the rest, and look after it now and then.
            self.elsewhere[job.key] = time.monotonic() + LOOK_AGAIN_SECONDS
            if job.key not in self.told:
                self.told.add(job.key)
                self.display.note(f"{job.key}: {outcome.said}; going on with the rest")
            return
        self.kills[job.key] += outcome.end == "killed"
        if outcome.end == "killed" and (kills := self.kills[job.key]) < ATTEMPTS:
            self.display.note(f"{job.key}: {outcome.said}; trying again, attempt {kills + 1} of {ATTEMPTS}")
            self.pool.submit(job)
            return
        del self.jobs[job.key]
        self.spent += job.cost
        message = self.settle(job, outcome)
        # Before the line about it, which tells the time that is left without this job.
        self.display.share = self._share({})
        self.display.finished(job.key, message, is_cell=job.cell is not None)
        # The last part through, whatever became of it: now the cell can be put together.
        if job.part_of and not [other for other in self.jobs.values() if other.part_of == job.part_of]:
            self._add([self.tasks.cell(job.part_of)])
        if self.with_notebooks and job.cell:
            self.publish(running=True)
            self._add_deep_dives([job.cell.model])

    def _share(self, running: dict[str, Path]) -> float:
        # Part of all known work that is done, by estimated cost.
        partial = sum(job.cost * progress_share(file) for key, file in running.items() if (job := self.jobs[key]).cell)
        total = self.spent + sum(job.cost for job in self.jobs.values())
        return (self.spent + partial) / total if total else 1.0
