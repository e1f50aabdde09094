"""The steps of a grid: which notebook or training each is, with what parameters, for how long, and whether it is needed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repro_lib.cells import Cell, GridRequest, plan_cells, plan_variants
from repro_lib.notebooks import executed_digest, inputs_digest, notebooks_dir
from repro_lib.results import Store, select_comparable
from repro_lib.steps import cell_digest, executed_path, is_done, run_cell, run_notebook, run_part, run_summary, train_stem
from repro_lib.summary import summary_is_current
from repro_lib.workers import Task

# Cost of a notebook beside its training, in the unit of Cell.training_seconds: about a second on one core.
_NOTEBOOK_COST = 5.0
# The wall clock of a step, unless asked otherwise: far more than any machine should need, so that only what hangs is hit.
_LEAST_LIMIT_SECONDS = 1800.0
_LIMIT_PER_COST = 20.0

# Between a cell's label and the trials of a part of it.
PART_MARK = ".trials-"
SUMMARY = "plots and summary"
# What comes when all cells are through, by the names of its steps.
ANALYSES = ("30_cross_model", "40_claims", "50_what_if", "00_quickstart", "01_activations", SUMMARY)


def deep_dive_stem(model: str) -> str:
    """The name of a model's deep dive."""
    return f"20_deep_dive-{model}"


@dataclass
class Step:
    """A task with what the display and the order need to know about it.

    ``cell`` is the cell that it finishes, ``part_of`` the one of which it trains some trials, ``output`` its executed
    notebook; ``attempts`` counts how often it was begun, ``left`` tells that it was once found in work elsewhere.
    """

    task: Task
    cost: float
    cell: Cell | None = None
    part_of: Cell | None = None
    progress: Path | None = None
    output: Path | None = None
    attempts: int = 1
    left: bool = False

    @property
    def name(self) -> str:
        """Its key, fit for a file."""
        return self.task.key.replace(" ", "_")


class Agenda:
    """Makes the steps of one run. ``folder`` is where steps say how far they are."""

    def __init__(
        self, request: GridRequest, cells: Sequence[Cell], variants: Sequence[Cell], folder: Path, *, with_notebooks: bool
    ) -> None:
        self.request, self.cells, self.variants, self.folder = request, cells, variants, folder
        self.with_notebooks = with_notebooks
        self.store = Store(request.results_dir)

    def wanted(self, cell: Cell) -> bool:
        """Whether there is anything to do for a cell."""
        return self.request.force or not is_done(cell, self.request.results_dir, with_notebook=self.with_notebooks)

    @classmethod
    def of(cls, request: GridRequest, folder: Path) -> Agenda:
        """The agenda of a whole grid, with its variants and notebooks."""
        cells = plan_cells(request.models, request.activations, request.profile, request.overrides)
        variants = plan_variants(cells, request.profile, request.overrides, request.noise_models)
        return cls(request, cells, variants, folder, with_notebooks=True)

    def to_do(self) -> Iterator[Step]:
        """All steps that are to be done as things are, in any order."""
        for cell in (*self.cells, *self.variants):
            if self.wanted(cell):
                yield from (*self.parts(cell), self.cell(cell))
        yield from self.deep_dives([cell.model for cell in self.cells])
        yield from self.analyses()

    def configs(self) -> list[str]:
        """The configurations of this grid: what its reports show, whatever else lies in the folder."""
        return sorted({cell.config_sha256 for cell in self.cells})

    def cell(self, cell: Cell) -> Step:
        """The training of a cell, in its notebook or without one."""
        cost = cell.training_seconds() + (_NOTEBOOK_COST if self.with_notebooks else 1.0)
        if self.with_notebooks and not cell.variant:
            parameters = {"model": cell.model, "activation": cell.activation, "profile": self.request.profile}
            parameters |= {"results_dir": str(self.request.results_dir), "force": self.request.force}
            parameters |= {"checkpoint_seconds": self.request.checkpoint_seconds}
            parameters |= self.request.overrides
            return self._notebook("10_train", train_stem(cell), parameters, cell_digest(cell), cost, cell)
        progress = self.folder / f"{cell.label}.json"
        arguments = {"cell": cell, "results_dir": self.request.results_dir, "force": self.request.force, "progress": progress}
        arguments |= {"checkpoint_seconds": self.request.checkpoint_seconds}
        return Step(Task(cell.label, run_cell, arguments, self._limit(cost)), cost, cell, progress=progress)

    def parts(self, cell: Cell) -> list[Step]:
        """The trainings of a cell's trials in several steps, where such were asked for; the cell's own step joins them."""
        size, trials = self.request.trials_per_job, cell.config.trials
        if size is None or size >= trials or not (self.request.force or cell.result(self.store) is None):
            return []
        return [self._part(cell, range(first, min(first + size, trials + 1))) for first in range(1, trials + 1, size)]

    def _part(self, cell: Cell, trials: range) -> Step:
        key = f"{cell.label}{PART_MARK}{trials[0]}-{trials[-1]}"
        cost = cell.training_seconds() * len(trials) / cell.config.trials + 1.0
        progress = self.folder / f"{key}.json"
        arguments = {"cell": cell, "trials": list(trials), "results_dir": self.request.results_dir, "force": self.request.force}
        arguments |= {"progress": progress, "checkpoint_seconds": self.request.checkpoint_seconds}
        return Step(Task(key, run_part, arguments, self._limit(cost)), cost, part_of=cell, progress=progress)

    def deep_dives(self, models: Sequence[str]) -> Iterator[Step]:
        """The deep dives of these models, as far as their inputs have changed."""
        for model in dict.fromkeys(models):
            extra = {"model": model} | self._selection()
            yield from self._analysis("20_deep_dive", deep_dive_stem(model), extra, self._inputs(model))

    def analyses(self) -> Iterator[Step]:
        """All that comes when the cells and deep dives are through, as far as its inputs have changed."""
        inputs = self._inputs(None)
        for name in ("30_cross_model", "40_claims", "50_what_if"):
            yield from self._analysis(name, name, self._selection(), inputs)
        corpus = {"corpus": self.cells[0].config.corpus}
        yield from self._analysis("00_quickstart", "00_quickstart", corpus, inputs)
        yield from self._analysis("01_activations", "01_activations", None, None)
        if self.request.force or not summary_is_current(self.request.reports_dir, inputs):
            arguments = {
                "results_dir": self.request.results_dir,
                "reports_dir": self.request.reports_dir,
                "profile": self.request.profile,
                "configs": self.configs(),
                "inputs": inputs,
                "force": self.request.force,
            }
            yield Step(Task(SUMMARY, run_summary, arguments, self._limit(_NOTEBOOK_COST)), _NOTEBOOK_COST)

    def _selection(self) -> dict[str, Any]:
        """The same as parameters of a notebook."""
        return {"profile": self.request.profile, "configs": " ".join(self.configs())}

    def _inputs(self, model: str | None) -> list[str]:
        """Which results a notebook reads (of one model, or all): a change makes it run again."""
        stored = [result for _, result in self.store.load()[0]]
        results = select_comparable(stored, None, self.request.profile, self.configs())
        results += [result for cell in self.variants if (result := cell.result(self.store))]
        return sorted(
            f"{result.model_name}-{result.activation}-{result.timestamp.isoformat()}-{len(result.trials)}-{result.config_sha256}"
            for result in results
            if model in (None, result.model_name)
        )

    def _analysis(self, name: str, stem: str, extra: dict[str, Any] | None, inputs: Any) -> Iterator[Step]:
        """An analysis notebook, unless it was executed with the same source, parameters and inputs."""
        parameters = {} if extra is None else {"results_dir": str(self.request.results_dir)} | extra
        digest = inputs_digest(notebooks_dir() / f"{name}.ipynb", parameters, inputs)
        if self.request.force or executed_digest(executed_path(self.request.results_dir, stem)) != digest:
            yield self._notebook(name, stem, parameters, digest, _NOTEBOOK_COST)

    def _notebook(
        self, name: str, stem: str, parameters: dict[str, Any], digest: str, cost: float, cell: Cell | None = None
    ) -> Step:
        key = cell.label if cell else stem
        progress, output = self.folder / f"{key}.json", executed_path(self.request.results_dir, stem)
        arguments = {
            "notebook": f"{name}.ipynb",
            "output": output,
            "parameters": parameters,
            "digest": digest,
            "progress": progress,
            "results_dir": self.request.results_dir,
            "force": self.request.force,
            "cell": cell,
        }
        task = Task(key, run_notebook, arguments, self._limit(cost))
        return Step(task, cost, cell, progress=progress if cell else None, output=output)

    def _limit(self, cost: float) -> float:
        """Seconds after which a step is stopped. More workers than cores share them."""
        crowding = max(1.0, self.request.workers / (os.cpu_count() or 1))
        return self.request.cell_timeout or crowding * (_LEAST_LIMIT_SECONDS + _LIMIT_PER_COST * cost)
