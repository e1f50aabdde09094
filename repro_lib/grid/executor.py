"""What every run of a grid has in common, whatever executes its jobs: its cells, its report, how a job ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from repro_lib.data import load_dataset, prepare_corpus
from repro_lib.grid.cells import Cell, GridRequest, plan_cells, plan_variants
from repro_lib.grid.display import Display
from repro_lib.grid.notebooks import keep_as_failed
from repro_lib.grid.pool import Outcome
from repro_lib.grid.tasks import Job, Tasks
from repro_lib.grid.worker import MADE_ELSEWHERE, clear_leftovers
from repro_lib.store.store import Store
from repro_lib.system.files import WriteError, check_writable
from repro_lib.training.checkpoints import sweep
from repro_lib.training.experiment import check_device

# How often a job is tried in all when its processes are killed from outside.
ATTEMPTS = 3


@dataclass
class GridReport:
    """How a run ended: how many cells it ran itself, and its failures by label, each one sentence."""

    finished: int = 0
    failures: dict[str, str] = field(default_factory=dict)


class Run:
    """One run of a grid. ``folder`` is where its jobs say how far they are."""

    def __init__(self, request: GridRequest, display: Display, folder: Path, *, with_notebooks: bool) -> None:
        self.request, self.display, self.with_notebooks = request, display, with_notebooks
        self.store = Store(request.results_dir)
        self.cells = plan_cells(request.models, request.activations, request.profile, request.overrides)
        self.variants: list[Cell] = []
        if with_notebooks:
            self.variants = plan_variants(self.cells, request.profile, request.overrides, request.noise_models)
        self.report = GridReport()
        self.tasks = Tasks(request, self.cells, self.variants, folder, with_notebooks=with_notebooks)

    def check(self, todo: Sequence[Cell], *, trains_here: bool = True) -> None:
        """What every cell would fail of is said once, before anything starts; and what killed runs left goes."""
        for corpus in {cell.config.corpus for cell in self.cells}:
            prepare_corpus(corpus)
        for config in {cell.config_sha256: cell.config for cell in self.cells}.values():
            if trains_here:
                check_device(config)
            # A text too short for one window would fail every cell alike, each after its kernel has started.
            load_dataset(config)
        if todo or self.with_notebooks:
            check_writable(self.request.results_dir)
            clear_leftovers(self.request.results_dir, self.request.reports_dir)
        if self.with_notebooks:
            check_writable(self.request.reports_dir)
        sweep(self.store)

    def settle(self, job: Job, outcome: Outcome) -> str:
        """Note how a job ended; the result file, not the absence of an error, says that a cell is done."""
        error, cell = self._error(job, outcome), job.cell
        result = cell.result(self.store) if cell else None
        if cell and not result:
            error = error or self._lost()
        if error:
            if cell:
                # Noted in the results folder; where that cannot be written either, it is said.
                try:
                    self.store.record_failure(cell.model, cell.activation, cell.config_sha256, error)
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

    def look_for_lost_results(self) -> None:
        """Every cell that did not fail has its result, or the report says that it has not."""
        # Once more for all: a folder can be emptied after a cell was settled.
        for cell in (*self.cells, *self.variants):
            if cell.label not in self.report.failures and cell.result(self.store) is None:
                self.report.failures[cell.label] = self._lost()

    def _lost(self) -> str:
        # A result that was written and is not there has one cause: somebody took it, or the folder, while the grid ran.
        folder = self.request.results_dir
        return f"its result is gone: {folder} was deleted or emptied during the run; the same command makes it again"

    def publish(self, *, running: bool) -> None:
        """As ``Tasks.publish``, but no cell fails for a report."""
        try:
            site = self.tasks.publish(running=running)
        except WriteError as error:
            self.report.failures["reports"] = str(error)
            return
        # Written after all: a disk that was full for a while, for example.
        self.report.failures.pop("reports", None)
        if not running:
            self.report.failures |= {f"page {k}": problem for k, problem in enumerate(site.problems, 1)}
