"""The grid on this machine, in a pool of worker processes: no engine, no service; and what it has in common with Snakemake's.

Cells that have no result yet, then the deep dives and what compares all models."""

import contextlib
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from repro_lib.data import TEXT_CHANGED, CorpusError, corpus_sha256, load_dataset, prepare_corpus
from repro_lib.grid.cells import Cell, GridRequest
from repro_lib.grid.display import Display
from repro_lib.grid.notebooks import edited_notebooks, keep_as_failed
from repro_lib.grid.pool import LOOK_AGAIN_SECONDS, Outcome, Pool
from repro_lib.grid.tasks import NOTEBOOK_COST, Job, Tasks
from repro_lib.grid.worker import MADE_ELSEWHERE, clear_leftovers
from repro_lib.report.notebook_names import ANALYSES
from repro_lib.report.own_files import refuse_foreign_reports
from repro_lib.store.designs import note_design
from repro_lib.store.store import Store
from repro_lib.system.files import UnusableFile, WriteError, check_writable
from repro_lib.training.cell import check_device
from repro_lib.training.checkpoints import sweep
from repro_lib.training.progress import progress_share

# How often a job is tried in all when its processes are killed from outside.
ATTEMPTS = 3


@dataclass
class GridReport:
    """How a run ended: how many cells it ran itself, its failures by label, each one sentence, and what its study says."""

    finished: int = 0
    answer: str = ""
    failures: dict[str, str] = field(default_factory=dict)


class Run:
    """One run of a grid, whatever executes its jobs. ``folder`` is where these say how far they are."""

    def __init__(self, request: GridRequest, display: Display, folder: Path, *, with_notebooks: bool) -> None:
        self.request, self.display, self.with_notebooks = request, display, with_notebooks
        self.store, self.report = Store(request.results_dir), GridReport()
        self.tasks = Tasks(request, folder, with_notebooks=with_notebooks)
        # Its own cells, and with their variants all.
        self.cells, self.all_cells = self.tasks.cells, [*self.tasks.cells, *self.tasks.variants]

    def check(self, todo: Sequence[Cell], *, trains_here: bool = True) -> None:
        """What every cell would fail of is said once, before anything starts; and what killed runs left goes."""
        for corpus in {cell.config.corpus for cell in self.cells}:
            if notice := prepare_corpus(corpus).notice():
                self.display.note(notice)
        if trains_here:
            for cell in self.cells:
                check_device(cell.config)
        # A text too short for one window would fail every cell alike, each after its kernel has started.
        for config in {(c.corpus, c.block_size, c.text_share): c for c in (cell.config for cell in self.cells)}.values():
            load_dataset(config)
        if todo or self.with_notebooks:
            check_writable(self.request.results_dir)
            self.store.declare(self.request.margin)
            clear_leftovers(self.request.results_dir, self.request.reports_dir)
        if self.with_notebooks:
            note_design(self.store, self.tasks.design)
            asked = [(self.request.profile, cell.model, cell.activation) for cell in self.cells]
            self.store.note_grid((cell.config_sha256 for cell in self.cells), asked, self.tasks.factor)
            check_writable(self.request.reports_dir)
            refuse_foreign_reports(self.request.reports_dir, [(cell.model, cell.name) for cell in self.cells])
            if edited := edited_notebooks():
                self.display.note(f"edited in notebooks/: {', '.join(edited)}; the grid runs the originals")
            if not self.request.analyses and (left_out := [name for name in ANALYSES if name not in self.tasks.analysis_names]):
                self.display.note(f"left out, for there is nothing to compare: {', '.join(left_out)}; --analyses all runs them")
        sweep(self.store)

    def settle(self, job: Job, outcome: Outcome) -> str:
        """Note how a job ended; the result file, not the absence of an error, says that a cell is done."""
        error, cell = self._error(job, outcome), job.cell
        result = cell.result(self.store) if cell else None
        if cell and not result:
            error = error or self._lost(cell)
        if error:
            if cell:
                # Noted in the results folder; where that cannot be written either, it is said.
                try:
                    self.store.record_failure(*cell.key, error)
                except WriteError as problem:
                    error += f"; nor could this be noted: {problem}"
            if job.part_of:  # no failure yet: the cell trains what its parts have left
                return f"FAILED: {error}; its cell tries once more, and says how it ended"
            self.report.failures[job.key] = error
            return f"FAILED: {error}"
        remark = f" ({outcome.said})" if outcome.said else ""
        if result is None:
            return f"done in {outcome.seconds:.0f} s{remark}"
        # Work of another grid in the same folder is not ours to count.
        self.report.finished += outcome.said != MADE_ELSEWHERE
        self.store.forget_failure(result.model_name, result.activation, result.config_sha256)
        pd = "no pair to compare" if result.avg_relative_pd is None else f"relative PD {result.avg_relative_pd:.4f}"
        return f"{pd}, validation loss {result.avg_val_loss:.3f}, in {outcome.seconds:.0f} s{remark}"

    def _error(self, job: Job, outcome: Outcome) -> str | None:
        # The sentence for a job that is not done, with the place of what it left; None for one that is.
        if outcome.end == "done":
            return None
        advice = {"late": "; --cell-timeout gives it more", "killed": f", {ATTEMPTS} times in a row"}.get(outcome.end, "")
        # A worker that was ended could not keep its notebook itself.
        return (outcome.said or "no reason given") + advice + (keep_as_failed(job.output) if job.output else "")

    def look_for_lost_results(self, cells: Sequence[Cell]) -> None:
        """Each of these that did not fail has its result, or the report says that it has not."""
        # Once more for all: a folder can be emptied after a cell was settled.
        for cell in cells:
            if cell.label not in self.report.failures and cell.result(self.store) is None:
                self.report.failures[cell.label] = self._lost(cell)

    def _lost(self, cell: Cell) -> str:
        # A result that was written and is not there was written for another text, or somebody took it, or the folder.
        with contextlib.suppress(CorpusError):
            if cell.config.sha256(corpus_sha256(cell.config.corpus)) != cell.config_sha256:
                return TEXT_CHANGED.format(Path(cell.config.corpus).name)
        folder = self.request.results_dir
        return f"its result is gone: {folder} was deleted or emptied during the run; the same command makes it again"

    def publish(self, *, running: bool) -> None:
        """As ``Tasks.publish``, but no cell fails for a report."""
        try:
            site = self.tasks.publish(running=running)
        except (OSError, UnusableFile) as error:  # also of a file that another process takes away meanwhile
            self.report.failures["reports"] = str(error)
            return
        # Written after all: a disk that was full for a while, for example.
        self.report.failures.pop("reports", None)
        self.report.answer = site.answer
        if not running:
            self.report.failures |= {f"page {k}": problem for k, problem in enumerate(site.problems, 1)}


def run_grid(request: GridRequest, display: Display, *, with_notebooks: bool = True) -> GridReport:
    """Execute the notebooks of all cells, then the analysis, then the site; without notebooks train the cells alone."""
    with contextlib.closing(Pool(request.workers)) as pool:
        return _PoolRun(request, display, pool, with_notebooks=with_notebooks).work()


class _PoolRun(Run):
    """One run of the grid: the queue of jobs and what each ending sets off."""

    def __init__(self, request: GridRequest, display: Display, pool: Pool, *, with_notebooks: bool) -> None:
        super().__init__(request, display, pool.folder, with_notebooks=with_notebooks)
        self.pool = pool
        self.jobs: dict[str, Job] = {}  # all that is queued, in work or waited for
        self.held_back: list[Job] = []  # of cells that need others first
        self.kills: Counter[str] = Counter()  # from outside, of the processes of a job
        # Jobs that other processes have in work, and when to look after each again; of which that was said.
        self.elsewhere: dict[str, float] = {}
        self.told: set[str] = set()
        self.spent = 0.0

    def work(self) -> GridReport:
        """Do everything; KeyboardInterrupt ends the workers and leaves only whole files."""
        todo = [cell for cell in self.all_cells if self.tasks.wanted(cell)]
        self.check(todo)
        try:
            jobs = [job for cell in todo for job in self.tasks.parts(cell) or [self.tasks.cell(cell)]]
            # The longest first, so that no long one is left for the end when the other workers have nothing to do; but
            # before all the shortest that leaves a page, so that there is something to read in seconds.
            jobs.sort(key=lambda job: job.cost, reverse=True)
            first = [job for job in jobs if job.output][-1:]
            self._add([*first, *(job for job in jobs if job not in first)])
            if self.with_notebooks:
                # The index is there from the first second, with a row for every cell that is still to come.
                if todo:
                    self.publish(running=True)
                self._add_analyses()
            self.display.started(len(todo), len(self.all_cells) - len(todo))
            self._drain()
            self.look_for_lost_results(self.all_cells)
        finally:
            self.pool.close()
            self.display.close()
            if self.with_notebooks:
                self.publish(running=False)
        return self.report

    def _add(self, jobs: Iterable[Job]) -> None:
        jobs = list(jobs)
        self.jobs |= {job.key: job for job in jobs}
        for job in jobs:
            if self._open_cells().isdisjoint(_needs(job)):
                self.pool.submit(job)
            else:
                self.held_back.append(job)

    def _open_cells(self) -> set[str]:
        return {cell.label for job in self.jobs.values() if (cell := job.cell or job.part_of)}

    def _add_analyses(self) -> None:
        # Deep dives too, once all cells are through: their verdicts are corrected for the contrasts of all models.
        if not self._open_cells():
            self._add(self.tasks.analyses())

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
        # The last part through, whatever became of it: now the cell can be put together.
        if job.part_of and not [other for other in self.jobs.values() if other.part_of == job.part_of]:
            self._add([self.tasks.cell(job.part_of)])
        ready = [other for other in self.held_back if self._open_cells().isdisjoint(_needs(other))]
        self.held_back = [other for other in self.held_back if other not in ready]
        self._add(ready)
        if self.with_notebooks and job.cell:
            self._add_analyses()
        # Before the line about the job, which tells the time that is left without it, and with all that it made possible.
        self.display.share = self._share({})
        self.display.finished(job.key, message, is_cell=job.cell is not None)
        if self.with_notebooks and job.cell:
            self.pool.hand_out()  # first, for to publish takes a second
            self.publish(running=True)

    def _share(self, running: dict[str, Path]) -> float:
        # Part of all known work that is done, by estimated cost.
        partial = sum(job.cost * progress_share(file) for key, file in running.items() if (job := self.jobs[key]).cell)
        # Deep dives, analyses and the summary come when all cells are through.
        notebooks = len({cell.model for cell in self.cells}) + len(self.tasks.analysis_names) + 1
        to_come = notebooks if self._open_cells() and self.with_notebooks else 0
        total = self.spent + sum(job.cost for job in self.jobs.values()) + to_come * NOTEBOOK_COST
        return (self.spent + partial) / total if total else 1.0


def _needs(job: Job) -> tuple[str, ...]:
    cell = job.cell or job.part_of
    return cell.needs if cell else ()
