"""The jobs of a grid: which notebook or training each is, with what parameters, for how long, and whether it is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro_lib.analysis.selection import differs_in_sources, select_comparable, variants
from repro_lib.grid.arms import plan_design, with_members
from repro_lib.grid.cells import Cell, GridRequest, plan_variants
from repro_lib.grid.notebooks import notebook_digest, notebooks_dir
from repro_lib.grid.pool import Task
from repro_lib.grid.worker import cell_digest, executed_path, is_done, run_cell, run_notebook, run_summary
from repro_lib.report import notebook_names as names
from repro_lib.report.publish import summary_is_current
from repro_lib.store.designs import FORKS, REMEDIES, known_factors, load_design
from repro_lib.store.parts import digest_of
from repro_lib.store.store import Store, noted_digest
from repro_lib.system.processes import usable_cores

if TYPE_CHECKING:
    from repro_lib.report.site.index import SiteReport

# Cost of a notebook beside its training, in the unit of Cell.training_seconds: about a second on one core.
NOTEBOOK_COST = 5.0
# The wall clock of a job, unless asked otherwise: far more than any machine should need, so that only what hangs is hit.
_LEAST_LIMIT_SECONDS = 1800.0
_LIMIT_PER_COST = 20.0

SUMMARY = "plots and summary"


@dataclass(frozen=True, kw_only=True)
class Job(Task):
    """A task of the grid, and what it is for."""

    cost: float  # in about seconds on one core, for the order and the share of work that is done
    cell: Cell | None = None  # which it finishes
    part_of: Cell | None = None  # of which it trains some trials
    progress: Path | None = None  # where its training says how far it is
    output: Path | None = None  # its executed notebook

    @property
    def name(self) -> str:
        """Its key, fit for a file."""
        return self.key.replace(" ", "_")


class Tasks:
    """Makes the jobs of one run: of its cells and, with notebooks, their variants; in ``folder`` they say how far they are."""

    def __init__(self, request: GridRequest, folder: Path, *, with_notebooks: bool = True) -> None:
        self.request, self.folder, self.with_notebooks = request, folder, with_notebooks
        cells, self.design = plan_design(request)
        self.cells, needed = with_members(cells)
        # A set of a profile's own has its place in the notebooks; the reports stay about activations.
        self.factor = self.design.factor if self.design and self.design.factor not in (REMEDIES, FORKS) else None
        self.variants = [*(plan_variants(self.cells, request) if with_notebooks else ()), *needed]
        self.store = Store(request.results_dir)

    def wanted(self, cell: Cell) -> bool:
        """Whether there is anything to do for a cell."""
        return self.request.force or not is_done(cell, self.request.results_dir, with_notebook=self.with_notebooks)

    def to_do(self) -> Iterator[Job]:
        """All jobs that are to be done as things are, in any order."""
        for cell in (*self.cells, *self.variants):
            if self.wanted(cell):
                yield from (*self.parts(cell), self.cell(cell))
        yield from self.analyses()

    def publish(self, *, running: bool) -> SiteReport:
        """Bring the index up to date, and every report that is missing."""
        # Here, because planning a grid needs neither pandas nor templates.
        from repro_lib.report.site.index import build_site

        expected = [(cell.model, cell.name) for cell in self.cells if self.factor or not cell.arm]
        folders = (self.request.results_dir, self.request.reports_dir)
        asked = (self.request.profile, self.configs())
        return build_site(*folders, expected, *asked, analyses=self.analysis_names, running=running)

    @cached_property
    def analysis_names(self) -> list[str]:
        """The analyses that are run: those asked for, otherwise what has something to compare or was run here before."""
        if asked := self.request.analyses:
            return [name for name in names.ANALYSES if name in asked or "all" in asked]
        stored = select_comparable([result for _, result in self.store.load()[0]], None, self.request.profile, self.configs())
        cells = [(cell.model, cell.name) for cell in self.cells] + [(result.model_name, result.arm) for result in stored]
        folder = executed_path(self.request.results_dir, "").parent
        return names.analyses_of(cells, [name for name in names.ANALYSES if any(folder.glob(f"{name}.*"))])

    def configs(self) -> list[str]:
        """The configurations of this grid: what its reports show, whatever else lies in the folder."""
        return sorted({cell.config_sha256 for cell in self.cells})

    def cell(self, cell: Cell) -> Job:
        """The training of a cell, in its notebook or without one."""
        cost = cell.training_seconds() + (NOTEBOOK_COST if self.with_notebooks else 1.0)
        if self.with_notebooks and not cell.variant:
            parameters = {"model": cell.model, "activation": cell.activation, "profile": self.request.profile}
            parameters |= {"results_dir": str(self.request.results_dir), "force": self.request.force}
            parameters |= {"checkpoint_seconds": self.request.checkpoint_seconds}
            # Only what was asked for: the notebook completes the configuration itself, and says where each value is from.
            parameters |= self.request.overrides
            return self._notebook(names.TRAIN, names.train_stem(cell.label), parameters, cell_digest(cell), cost, cell)
        return self._job(cell.label, run_cell, self._training(cell, cell.label), cost, cell=cell)

    def parts(self, cell: Cell) -> list[Job]:
        """The trainings of a cell's trials in several jobs, where such were asked for; the cell's own job joins them."""
        size, trials = self.request.trials_per_job, [*range(1, cell.config.trials + 1)]
        # Where the result is there and the notebook alone is missing, parts would find nothing to train.
        if size is None or size >= len(trials) or not (self.request.force or cell.result(self.store) is None):
            return []
        jobs = []
        for part in (trials[k : k + size] for k in range(0, len(trials), size)):
            key = f"{cell.label}.trials-{part[0]}-{part[-1]}"
            cost = cell.training_seconds() * len(part) / len(trials) + 1.0
            jobs.append(self._job(key, run_cell, self._training(cell, key) | {"trials": part}, cost, part_of=cell))
        return jobs

    def analyses(self) -> Iterator[Job]:
        """What comes when all cells are through, as far as its inputs have changed: deep dives first."""
        inputs = self._inputs()
        for model in dict.fromkeys(cell.model for cell in self.cells):
            extra = {"model": model} | self._selection()
            # Of all models, for a verdict on one is corrected for the contrasts of all.
            yield from self._analysis(names.DEEP_DIVE, names.deep_dive_stem(model), extra, inputs)
        for name in self.analysis_names:
            own = {names.QUICKSTART: {"corpus": self.cells[0].config.corpus}, names.WHAT_HELPS: {}}
            extra = own.get(name, self._selection())
            reads = name not in (names.ACTIVATIONS, names.YOUR_MODELS)  # which read neither results nor a text
            yield from self._analysis(name, name, extra if reads else None, inputs if reads else None)
        digest = digest_of(inputs)
        if self.request.force or not summary_is_current(self.request.reports_dir, digest):
            arguments = self._common() | {"reports_dir": self.request.reports_dir, "digest": digest}
            arguments |= {"profile": self.request.profile, "configs": self.configs()}
            yield self._job(SUMMARY, run_summary, arguments, NOTEBOOK_COST)

    def _selection(self) -> dict[str, Any]:
        return {"profile": self.request.profile, "configs": " ".join(self.configs())}

    def _inputs(self) -> list[str]:
        # Which results a notebook reads: a change makes it run again.
        stored = [result for _, result in self.store.load()[0]]
        results = select_comparable(stored, None, self.request.profile, self.configs())
        designs = [load_design(self.store, name) for name in known_factors(self.store)]
        results += [result for design in designs if design for result in design.results(stored)]
        # Whoever asked for them, other lengths and rates are in every contrast, lone sources of randomness in deep dives.
        results += variants(stored, results)
        results += [other for other in stored if any(differs_in_sources(result, other) for result in results)]
        results += [result for cell in self.variants if (result := cell.result(self.store))]
        about = {f"{r.model_name}-{r.activation}-{r.timestamp.isoformat()}-{len(r.trials)}-{r.config_sha256}" for r in results}
        return sorted(about)

    def _analysis(self, name: str, stem: str, extra: dict[str, Any] | None, inputs: Any) -> Iterator[Job]:
        parameters = {} if extra is None else {"results_dir": str(self.request.results_dir)} | extra
        digest = notebook_digest(notebooks_dir() / f"{name}.ipynb", parameters, inputs)
        if self.request.force or noted_digest(executed_path(self.request.results_dir, stem)) != digest:
            yield self._notebook(name, stem, parameters, digest, NOTEBOOK_COST)

    def _notebook(
        self, name: str, stem: str, parameters: dict[str, Any], digest: str, cost: float, cell: Cell | None = None
    ) -> Job:
        key, output = cell.label if cell else stem, executed_path(self.request.results_dir, stem)
        arguments = {"notebook": f"{name}.ipynb", "output": output, "parameters": parameters, "digest": digest, "cell": cell}
        arguments |= {"progress": self.folder / f"{key}.json", "force": self.request.force}
        return self._job(key, run_notebook, arguments, cost, cell=cell, output=output)

    def _training(self, cell: Cell, key: str) -> dict[str, Any]:
        settings = {"checkpoint_seconds": self.request.checkpoint_seconds} | self._common()
        return {"cell": cell, "progress": self.folder / f"{key}.json"} | settings

    def _common(self) -> dict[str, Any]:
        return {"results_dir": self.request.results_dir, "force": self.request.force}

    def _job(self, key: str, function: Callable[..., str | None], arguments: dict[str, Any], cost: float, **about: Any) -> Job:
        # Only training says how far it is.
        progress = arguments["progress"] if about.get("cell") or about.get("part_of") else None
        # More workers than cores share them.
        crowding = max(1.0, self.request.workers / usable_cores())
        limit = self.request.cell_timeout or crowding * (_LEAST_LIMIT_SECONDS + _LIMIT_PER_COST * cost)
        return Job(key, function, arguments, limit, cost=cost, progress=progress, **about)
