"""The grid: which cells are wanted, which are done, and everything that follows from them.

A run executes ``10_train`` for every cell that has no result yet, a model's deep dive as soon as its cells are through,
and at the end the cross-model notebooks, plots and summary. Reports and the index appear while it runs. Whether a cell
is done is decided by its result file alone.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from repro_lib.agenda import Agenda, Step
from repro_lib.cells import Cell, GridRequest, plan_cells, plan_variants
from repro_lib.checkpoints import sweep
from repro_lib.console import Display, progress_share
from repro_lib.data import load_dataset, prepare_corpus
from repro_lib.experiment import check_device
from repro_lib.files import WriteError, check_writable
from repro_lib.notebooks import keep_as_failed
from repro_lib.results import Store
from repro_lib.steps import MADE_ELSEWHERE, clear_leftovers
from repro_lib.summary import publish
from repro_lib.workers import Outcome, Pool

# How often a step is tried in all when its processes are killed from outside.
ATTEMPTS = 3
# How often one looks after a step that another process has in work.
_LOOK_AGAIN_SECONDS = 3.0


@dataclass
class GridReport:
    """How a run ended: how many cells it ran itself, and its failures by label, each one sentence."""

    finished: int = 0
    failures: dict[str, str] = field(default_factory=dict)


def train_cells(request: GridRequest, display: Display) -> GridReport:
    """Train the cells without notebooks: what ``repro train`` does."""
    run = _Run(request, display, with_notebooks=False)
    return run.work()


def run_grid(request: GridRequest, display: Display) -> GridReport:
    """Execute the notebooks of all cells, then the analysis, then the site."""
    run = _Run(request, display, with_notebooks=True)
    return run.work()


class _Run:
    """One run of the grid: the queue of steps and what each ending sets off."""

    def __init__(self, request: GridRequest, display: Display, *, with_notebooks: bool) -> None:
        self.request, self.display, self.with_notebooks = request, display, with_notebooks
        self.store = Store(request.results_dir)
        self.cells = plan_cells(request.models, request.activations, request.profile, request.overrides)
        self.variants: list[Cell] = []
        if with_notebooks:
            self.variants = plan_variants(self.cells, request.profile, request.overrides, request.noise_models)
        self.report = GridReport()
        self.pool = Pool(request.workers)
        self.agenda = Agenda(request, self.cells, self.variants, self.pool.folder, with_notebooks=with_notebooks)
        self.steps: dict[str, Step] = {}
        # Steps that other processes have in work, and when to look after each again.
        self.elsewhere: dict[str, float] = {}
        self.spent = 0.0

    def work(self) -> GridReport:
        """Do everything; KeyboardInterrupt ends the workers and leaves only whole files."""
        with contextlib.closing(self.pool):
            todo = [cell for cell in (*self.cells, *self.variants) if self.agenda.wanted(cell)]
            self._check(todo)
            try:
                self._add(self.agenda.cell(cell) for cell in sorted(todo, key=Cell.training_seconds, reverse=True))
                if self.with_notebooks:
                    self._publish(running=bool(todo))
                    self._add_deep_dives([cell.model for cell in self.cells])
                self.display.started(len(todo), len(self.cells) + len(self.variants) - len(todo))
                self._drain()
                if self.with_notebooks:
                    self._add(self.agenda.analyses())
                    self._drain()
                self._look_for_lost_results()
            finally:
                self.pool.close()
                self.display.close()
                if self.with_notebooks:
                    self._publish(running=False)
        return self.report

    def _check(self, todo: Sequence[Cell]) -> None:
        """What every cell would fail of is said once, before any worker starts; and what killed runs left goes."""
        for corpus in {cell.config.corpus for cell in self.cells}:
            prepare_corpus(corpus)
        for config in {cell.config_sha256: cell.config for cell in self.cells}.values():
            check_device(config)
            load_dataset(config)
        if todo or self.with_notebooks:
            check_writable(self.request.results_dir)
            clear_leftovers(self.request.results_dir, self.request.reports_dir)
        if self.with_notebooks:
            check_writable(self.request.reports_dir)
        sweep(self.store)

    def _add(self, steps: Iterable[Step]) -> None:
        for step in steps:
            self.steps[step.task.key] = step
            self.pool.submit(step.task)

    def _add_deep_dives(self, models: Sequence[str]) -> None:
        """Queue the deep dive of each model whose cells are all through."""
        open_models = {step.cell.model for step in self.steps.values() if step.cell}
        self._add(self.agenda.deep_dives([model for model in models if model not in open_models]))

    def _drain(self) -> None:
        """Work until nothing is queued or running, here or elsewhere."""
        told = False
        while self.pool.busy or self.elsewhere:
            if not self.pool.busy and not told:
                told = True
                self.display.note(f"waiting for what other processes have in work: {', '.join(self.elsewhere)}")
            for key in [key for key, due in self.elsewhere.items() if time.monotonic() >= due]:
                del self.elsewhere[key]
                self.pool.submit(self.steps[key].task)
            ended = self.pool.step(timeout=0.5)
            running = {task.key: self.steps[task.key].progress or Path() for task in self.pool.running()}
            self.display.update(running, self._share(running))
            for outcome in ended:
                self._ended(self.steps[outcome.task.key], outcome)

    def _ended(self, step: Step, outcome: Outcome) -> None:
        if outcome.end == "held":
            # Another process is at work on this: go on with the rest, and look after it now and then.
            self.elsewhere[step.task.key] = time.monotonic() + _LOOK_AGAIN_SECONDS
            if not step.left:
                step.left = True
                self.display.note(f"{step.task.key}: {outcome.said}; going on with the rest")
            return
        if outcome.end == "killed" and step.attempts < ATTEMPTS:
            step.attempts += 1
            self.display.note(f"{step.task.key}: {outcome.said}; trying again, attempt {step.attempts} of {ATTEMPTS}")
            self.pool.submit(step.task)
            return
        del self.steps[step.task.key]
        self.spent += step.cost
        message = self._settle(step, outcome)
        self.display.update({}, self._share({}))
        self.display.finished(outcome.task.key, message, is_cell=step.cell is not None)
        if self.with_notebooks and step.cell:
            self._publish(running=True)
            self._add_deep_dives([step.cell.model])

    def _settle(self, step: Step, outcome: Outcome) -> str:
        """Note how a step ended; the result file, not the absence of an error, says that a cell is done."""
        error, cell = self._error(step, outcome), step.cell
        result = cell.result(self.store) if cell else None
        if cell is not None and result is None and error is None:
            error = self._lost()
        if error is not None:
            if cell is not None:
                error += self._record_failure(cell, error)
            self.report.failures[outcome.task.key] = error
            return f"FAILED: {error}"
        remark = f" ({outcome.said})" if outcome.said else ""
        if result is None:
            return f"done in {outcome.seconds:.0f} s{remark}"
        self.report.finished += outcome.said != MADE_ELSEWHERE
        self.store.forget_failure(result.model_name, result.activation, result.config_sha256)
        pd = "no pair to compare" if result.avg_relative_pd is None else f"relative PD {result.avg_relative_pd:.4f}"
        return f"{pd}, validation loss {result.avg_val_loss:.3f}, in {outcome.seconds:.0f} s{remark}"

    def _error(self, step: Step, outcome: Outcome) -> str | None:
        """The sentence for a step that is not done, with the place of what it left; None for one that is."""
        if outcome.end == "done":
            return None
        said = outcome.said or "no reason given"
        if outcome.end == "late":
            said += "; --cell-timeout gives it more"
        if outcome.end == "killed":
            said += f", {ATTEMPTS} times in a row"
        # A worker that was ended could not do that itself.
        return said + (keep_as_failed(step.output) if step.output else "")

    def _record_failure(self, cell: Cell, error: str) -> str:
        """Note in the results folder why a cell failed; where that cannot be written either, say so."""
        try:
            self.store.record_failure(cell.model, cell.activation, cell.config_sha256, error)
        except WriteError as problem:
            return f"; nor could this be noted: {problem}"
        return ""

    def _lost(self) -> str:
        """A result that was written and is not there has one cause: somebody took it, or the folder, while the grid ran."""
        folder = self.request.results_dir
        return f"its result is gone: {folder} was deleted or emptied during the run; the same command makes it again"

    def _look_for_lost_results(self) -> None:
        """Every cell that did not fail has its result, or the report says that it has not."""
        for cell in (*self.cells, *self.variants):
            if cell.label not in self.report.failures and cell.result(self.store) is None:
                self.report.failures[cell.label] = self._lost()

    def _share(self, running: dict[str, Path]) -> float:
        """Part of all known work that is done, by estimated cost."""
        partial = sum(self.steps[key].cost * progress_share(file) for key, file in running.items() if file.name)
        total = self.spent + sum(step.cost for step in self.steps.values())
        return (self.spent + partial) / total if total else 1.0

    def _publish(self, *, running: bool) -> None:
        """Bring the index up to date, and every report that is missing. No cell fails for a report."""
        expected = [(cell.model, cell.activation) for cell in self.cells]
        folders = (self.request.results_dir, self.request.reports_dir)
        try:
            site = publish(*folders, expected, self.request.profile, self.agenda.configs(), running=running)
        except WriteError as error:
            self.report.failures["reports"] = str(error)
            return
        self.report.failures.pop("reports", None)
        if not running:
            self.report.failures |= {f"page {k}": problem for k, problem in enumerate(site.problems, 1)}
