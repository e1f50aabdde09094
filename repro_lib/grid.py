"""The grid: which cells are wanted, which are done, and everything that follows from them.

A run executes ``10_train`` for every cell that has no result yet, a model's deep dive as soon as its cells are through,
and at the end the cross-model notebooks, plots and summary. Reports and the index appear while it runs. Whether a cell
is done is decided by its result file alone.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro_lib.activations import canonical_activation
from repro_lib.config import (
    LENGTH_ACTIVATIONS,
    LENGTH_SHARES,
    MODEL_DEFAULTS,
    NOISE_ACTIVATION,
    NOISE_SOURCES,
    PROFILES,
    Config,
    check_model,
    check_profile,
)
from repro_lib.console import Display, progress_share
from repro_lib.data import corpus_sha256, load_dataset, prepare_corpus
from repro_lib.experiment import check_device, run_experiment
from repro_lib.notebooks import execute, executed_digest, inputs_digest, notebooks_dir
from repro_lib.results import Result, Store, select_comparable
from repro_lib.summary import publish, summary_is_current, write_summary
from repro_lib.widgets import PROGRESS_FILE_VARIABLE, write_progress_to
from repro_lib.workers import Outcome, Pool, Task

if TYPE_CHECKING:
    from repro_lib.site_pages import SiteReport

# Cost of a notebook beside its training, in the unit of Cell.training_seconds: about a second on one core.
_NOTEBOOK_COST = 5.0
# Parameters of a layer, and of what stands beside the layers, in units of the width squared.
_MATRICES_PER_LAYER = dict.fromkeys(MODEL_DEFAULTS, 12.0) | {"convlm": 3.6, "tinylstm": 8.0, "tinylstm_readout": 8.0}
_MATRICES_BESIDE = {"hybridlm": 12.0, "tinylstm_readout": 2.0}
# Parameters x characters that one core trains in about a second, forward and backward (benchmarks will refine it).
_PARAMETER_CHARACTERS_PER_SECOND = 8e9


@dataclass(frozen=True)
class Cell:
    """One model with one activation under a resolved configuration."""

    model: str
    activation: str
    config: Config
    config_sha256: str
    # What sets it apart from the grid's own cell; such a cell has no notebook, the model's deep dive shows it.
    variant: str = ""

    @property
    def label(self) -> str:
        """``charlm-gelu``, ``charlm-gelu-vary-init``: how files and messages name the cell."""
        return f"{self.model}-{self.activation}{self.variant}"

    def result(self, store: Store) -> Result | None:
        """The newest stored result with enough trials, made with this cell's profile; None if it is still to do."""
        return store.find(self.model, self.activation, self.config_sha256, self.config.trials, self.config.profile)

    def training_seconds(self) -> float:
        """A rough estimate on one core, to start long cells first and to say how much is left."""
        config = self.config
        parameters = (_MATRICES_PER_LAYER[self.model] * config.n_layer + _MATRICES_BESIDE.get(self.model, 0)) * config.n_embd**2
        characters = config.batch_size * config.block_size * config.max_iters * config.trials
        return parameters * characters / _PARAMETER_CHARACTERS_PER_SECOND


@dataclass(frozen=True)
class GridRequest:
    """What a user asked the grid for. Empty ``models`` means those of the profile.

    ``noise_models``: for which models each source of randomness and other lengths are run too; None: as the profile says.
    """

    models: Sequence[str]
    activations: Sequence[str]
    profile: str | None
    overrides: dict[str, Any]
    workers: int
    results_dir: Path
    reports_dir: Path
    force: bool = False
    noise_models: Sequence[str] | None = None


@dataclass
class GridReport:
    """How a run ended: failures by label, each one sentence."""

    finished: int = 0
    failures: dict[str, str] = field(default_factory=dict)


def plan_cells(models: Sequence[str], activations: Sequence[str], profile: str | None, overrides: dict[str, Any]) -> list[Cell]:
    """The cells of a grid, in reading order. Raises ConfigError, CorpusError or ValueError for bad names and values."""
    if profile is not None:
        models = models or PROFILES[check_profile(profile)]["models"]
    names = dict.fromkeys(canonical_activation(activation) for activation in activations)
    cells, digests = [], {}
    for model in dict.fromkeys(models):
        config = Config.for_model(check_model(model), profile, **overrides)
        if config.corpus not in digests:
            digests[config.corpus] = corpus_sha256(config.corpus)
        cells += [Cell(model, name, config, config.sha256(digests[config.corpus])) for name in names]
    return cells


def plan_variants(
    cells: Sequence[Cell], profile: str | None, overrides: dict[str, Any], noise_models: Sequence[str] | None = None
) -> list[Cell]:
    """The cells a grid runs beside its own: one source of randomness at a time, and runs of other lengths.

    Of the grid's own cells that they are compared with; none where ``vary`` was asked for. A model without dropout has
    no such source.
    """
    if overrides.get("vary", "all") != "all":
        return []
    chosen = PROFILES[profile]["noise_models"] if noise_models is None and profile else noise_models or ()
    variants = []
    for cell in cells:
        if cell.model not in {check_model(model) for model in chosen}:
            continue
        if cell.activation == NOISE_ACTIVATION:
            sources = [source for source in NOISE_SOURCES if source != "dropout" or cell.config.dropout > 0]
            variants += [_variant(cell, profile, overrides, f"-vary-{source}", vary=source) for source in sources]
        if cell.activation in LENGTH_ACTIVATIONS:
            lengths = {round(share * cell.config.max_iters) for share in LENGTH_SHARES} - {0, cell.config.max_iters}
            variants += [_variant(cell, profile, overrides, f"-{n}-iterations", max_iters=n) for n in sorted(lengths)]
    return variants


def _variant(cell: Cell, profile: str | None, overrides: dict[str, Any], name: str, **changes: Any) -> Cell:
    config = Config.for_model(cell.model, profile, **(overrides | changes))
    return Cell(cell.model, cell.activation, config, config.sha256(corpus_sha256(config.corpus)), name)


def train_cells(request: GridRequest, display: Display) -> GridReport:
    """Train the cells without notebooks: what ``repro train`` does."""
    run = _Run(request, display, with_notebooks=False)
    return run.work()


def run_grid(request: GridRequest, display: Display) -> GridReport:
    """Execute the notebooks of all cells, then the analysis, then the site."""
    run = _Run(request, display, with_notebooks=True)
    return run.work()


@dataclass
class _Step:
    """A task with what the display and the order need to know about it."""

    task: Task
    cost: float
    cell: Cell | None = None
    progress: Path | None = None


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
        self.steps: dict[str, _Step] = {}
        self.spent = 0.0

    def work(self) -> GridReport:
        """Do everything; KeyboardInterrupt ends the workers and leaves only whole files."""
        self._check()
        pool = Pool(self.request.workers)
        with tempfile.TemporaryDirectory(prefix="repro-progress-") as folder:
            self.folder = Path(folder)
            try:
                todo = [cell for cell in (*self.cells, *self.variants) if self._wanted(cell)]
                waiting = sorted(todo, key=Cell.training_seconds, reverse=True)
                self.steps = {cell.label: self._cell_step(cell) for cell in waiting}
                for step in self.steps.values():
                    pool.submit(step.task)
                if self.with_notebooks:
                    self._publish(running=bool(todo))
                    self._submit_deep_dives(pool, [cell.model for cell in self.cells])
                self.display.started(len(todo), len(self.cells) + len(self.variants) - len(todo))
                self._drain(pool)
                if self.with_notebooks:
                    self._submit_analysis(pool)
                    self._drain(pool)
            finally:
                pool.close()
                self.display.close()
                if self.with_notebooks:
                    site = self._publish(running=False)
                    self.report.failures |= {f"page {k}": problem for k, problem in enumerate(site.problems, 1)}
        return self.report

    def _check(self) -> None:
        """What every cell would fail of is said once, before any worker starts; and what a killed run left goes."""
        for corpus in {cell.config.corpus for cell in self.cells}:
            prepare_corpus(corpus)
        for config in {cell.config_sha256: cell.config for cell in self.cells}.values():
            check_device(config)
            load_dataset(config)
        for unfinished in (self.request.results_dir / "notebooks").glob("*.partial.ipynb"):
            unfinished.unlink()

    def _wanted(self, cell: Cell) -> bool:
        if self.request.force or cell.result(self.store) is None:
            return True
        # The result is there; without its executed notebook the cell has no report yet (it trains nothing then).
        if not self.with_notebooks or cell.variant:
            return False
        return executed_digest(self._executed(_train_stem(cell))) != _cell_digest(cell)

    def _configs(self) -> list[str]:
        """The configurations of this grid: what its reports show, whatever else lies in the folder."""
        return sorted({cell.config_sha256 for cell in self.cells})

    def _selection(self) -> dict[str, Any]:
        """The same as parameters of a notebook."""
        return {"profile": self.request.profile, "configs": " ".join(self._configs())}

    def _cell_step(self, cell: Cell) -> _Step:
        progress = self.folder / f"{cell.label}.json"
        common = {"results_dir": str(self.request.results_dir), "force": self.request.force}
        if self.with_notebooks and not cell.variant:
            parameters = {"model": cell.model, "activation": cell.activation, "profile": self.request.profile}
            arguments = {
                "notebook": "10_train.ipynb",
                "output": self._executed(_train_stem(cell)),
                "parameters": parameters | common | self.request.overrides,
                "digest": _cell_digest(cell),
                "progress": progress,
            }
            task = Task(cell.label, _run_notebook, arguments)
        else:
            arguments = {"model": cell.model, "activation": cell.activation, "config": cell.config, "progress": progress}
            task = Task(cell.label, _run_cell, arguments | common)
        return _Step(task, cell.training_seconds() + (_NOTEBOOK_COST if self.with_notebooks else 1.0), cell, progress)

    def _submit_deep_dives(self, pool: Pool, models: Sequence[str]) -> None:
        """Queue the deep dive of each model whose cells are all through and whose inputs have changed."""
        open_models = {step.cell.model for step in self.steps.values() if step.cell}
        for model in dict.fromkeys(models):
            if model not in open_models:
                inputs = self._inputs(model)
                extra = {"model": model} | self._selection()
                self._submit_notebook(pool, "20_deep_dive", f"20_deep_dive-{model}", extra, inputs)

    def _submit_analysis(self, pool: Pool) -> None:
        inputs = self._inputs(None)
        for name in ("30_cross_model", "40_claims", "50_what_if"):
            self._submit_notebook(pool, name, name, self._selection(), inputs)
        corpus = {"corpus": self.cells[0].config.corpus}
        self._submit_notebook(pool, "00_quickstart", "00_quickstart", corpus, inputs)
        self._submit_notebook(pool, "01_activations", "01_activations", None, None)
        self._submit_plots(pool, inputs)

    def _inputs(self, model: str | None) -> list[str]:
        """Which results a notebook reads (of one model, or all): a change makes it run again."""
        stored = [result for _, result in self.store.load()[0]]
        results = select_comparable(stored, None, self.request.profile, self._configs())
        results += [result for cell in self.variants if (result := cell.result(self.store))]
        return sorted(
            f"{result.model_name}-{result.activation}-{result.timestamp.isoformat()}-{len(result.trials)}-{result.config_sha256}"
            for result in results
            if model in (None, result.model_name)
        )

    def _submit_notebook(self, pool: Pool, name: str, stem: str, extra: dict[str, Any] | None, inputs: Any) -> None:
        """Queue an analysis notebook unless it was executed with the same source, parameters and inputs."""
        parameters = {} if extra is None else {"results_dir": str(self.request.results_dir)} | extra
        digest = inputs_digest(notebooks_dir() / f"{name}.ipynb", parameters, inputs)
        output = self._executed(stem)
        if executed_digest(output) == digest and not self.request.force:
            return
        arguments = {
            "notebook": f"{name}.ipynb",
            "output": output,
            "parameters": parameters,
            "digest": digest,
            "progress": self.folder / f"{stem}.json",
        }
        self._add(pool, _Step(Task(stem, _run_notebook, arguments), _NOTEBOOK_COST))

    def _submit_plots(self, pool: Pool, inputs: list[str]) -> None:
        if self.request.force or not summary_is_current(self.request.reports_dir, inputs):
            folders = {"results_dir": self.request.results_dir, "reports_dir": self.request.reports_dir}
            arguments = folders | {"profile": self.request.profile, "configs": self._configs(), "inputs": inputs}
            self._add(pool, _Step(Task("plots and summary", write_summary, arguments), _NOTEBOOK_COST))

    def _add(self, pool: Pool, step: _Step) -> None:
        self.steps[step.task.key] = step
        pool.submit(step.task)

    def _drain(self, pool: Pool) -> None:
        """Work until nothing is queued or running."""
        while pool.busy:
            ended = pool.step(timeout=0.5)
            running = {task.key: self.steps[task.key].progress or Path() for task in pool.running()}
            self.display.update(running, self._share(running))
            for outcome in ended:
                self._ended(pool, outcome)

    def _ended(self, pool: Pool, outcome: Outcome) -> None:
        step = self.steps.pop(outcome.task.key)
        self.spent += step.cost
        message = self._settle(step, outcome)
        self.display.update({}, self._share({}))
        self.display.finished(outcome.task.key, message, is_cell=step.cell is not None)
        if self.with_notebooks and step.cell:
            self._publish(running=True)
            self._submit_deep_dives(pool, [step.cell.model])

    def _settle(self, step: _Step, outcome: Outcome) -> str:
        """Note how a step ended; the result file, not the absence of an error, says that a cell is done."""
        error, cell = outcome.error, step.cell
        result = cell.result(self.store) if cell else None
        if cell is not None and result is None and error is None:
            error = "it ended without leaving a complete result"
        if error is not None:
            self.report.failures[outcome.task.key] = error
            if cell is not None:
                self.store.record_failure(cell.model, cell.activation, cell.config_sha256, error)
            return f"FAILED: {error}"
        if result is None:
            return f"done in {outcome.seconds:.0f} s"
        self.report.finished += 1
        self.store.forget_failure(result.model_name, result.activation, result.config_sha256)
        pd = "no pair to compare" if result.avg_relative_pd is None else f"relative PD {result.avg_relative_pd:.4f}"
        return f"{pd}, validation loss {result.avg_val_loss:.3f}, in {outcome.seconds:.0f} s"

    def _share(self, running: dict[str, Path]) -> float:
        """Part of all known work that is done, by estimated cost."""
        partial = sum(self.steps[key].cost * progress_share(file) for key, file in running.items() if file.name)
        total = self.spent + sum(step.cost for step in self.steps.values())
        return (self.spent + partial) / total if total else 1.0

    def _publish(self, *, running: bool) -> SiteReport:
        """Bring the index up to date, and every report that is missing."""
        expected = [(cell.model, cell.activation) for cell in self.cells]
        return publish(
            self.request.results_dir, self.request.reports_dir, expected, self.request.profile, self._configs(), running=running
        )

    def _executed(self, stem: str) -> Path:
        return self.request.results_dir / "notebooks" / f"{stem}.ipynb"


def _train_stem(cell: Cell) -> str:
    return f"10_train-{cell.label}"


def _cell_digest(cell: Cell) -> str:
    """Under which digest a cell's executed notebook counts as current: its configuration, not the notebook's wording."""
    return f"{cell.config_sha256}-{cell.config.profile}-{cell.config.trials}"


def _run_notebook(notebook: str, output: Path, parameters: dict[str, Any], digest: str, progress: Path) -> None:
    """In a worker: execute one notebook."""
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ[PROGRESS_FILE_VARIABLE] = str(progress)
    execute(notebooks_dir() / notebook, output, parameters, digest)


def _run_cell(model: str, activation: str, config: Config, results_dir: str, force: bool, progress: Path) -> None:
    """In a worker: one cell without a notebook."""
    run_experiment(model, activation, config, results_dir=results_dir, force=force, progress=write_progress_to(progress))
