"""What a worker of the grid does: one notebook, one cell without a notebook, or the summary. Each under a lease."""

# Two grids in one folder meet here: who comes second finds the lease held, and once it is free the work done.

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from repro_lib.grid.cells import Cell
from repro_lib.grid.notebooks import execute, is_unfinished, notebooks_dir
from repro_lib.grid.worker_process import take_card
from repro_lib.report.notebook_names import train_stem
from repro_lib.report.publish import summary_is_current, write_summary
from repro_lib.store.store import Store, noted_digest
from repro_lib.system.files import remove_files
from repro_lib.system.leases import LeaseHeldError, cell_holders, hold, holder, notebook_lease, remove_left
from repro_lib.training.experiment import run_experiment, train_trials
from repro_lib.training.progress import PROGRESS_FILE_VARIABLE, listening, write_progress_to

MADE_ELSEWHERE = "made by another process meanwhile"


def executed_path(results_dir: Path, stem: str) -> Path:
    """Where an executed notebook lies."""
    return results_dir / "notebooks" / f"{stem}.ipynb"


def cell_digest(cell: Cell) -> str:
    """Under which digest a cell's executed notebook counts as current: its configuration, not the notebook's wording."""
    return f"{cell.config_sha256}-{cell.config.profile}-{cell.config.trials}"


def is_done(cell: Cell, results_dir: Path, *, with_notebook: bool) -> bool:
    """Whether a cell needs nothing: its result decides, and beside that its executed notebook must be there to be read."""
    # Where the notebook alone is missing it is run again, and trains nothing. A variant has none.
    notebook = executed_path(results_dir, train_stem(cell.label)) if with_notebook and not cell.variant else None
    return cell.result(Store(results_dir)) is not None and (not notebook or noted_digest(notebook) == cell_digest(cell))


def run_notebook(
    notebook: str, output: Path, parameters: dict[str, Any], digest: str, progress: Path, force: bool, cell: Cell | None = None
) -> str | None:
    """Execute one notebook, that of a ``cell`` or an analysis, into ``results_dir/notebooks``. Returns remarks on it."""
    results_dir = output.parent.parent
    # The kernel inherits both. One thread each, for there is a worker per core: more threads would wait for one another.
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ[PROGRESS_FILE_VARIABLE] = str(progress)
    with hold(notebook_lease(output), output.stem):
        # Looked at once more under the lease: whoever held it may have done just this.
        done = is_done(cell, results_dir, with_notebook=True) if cell else noted_digest(output) == digest
        if done and not force:
            return MADE_ELSEWHERE
        if cell:
            take_card(cell.config.device)
            # The notebook would ask too, but only after its kernel has started, which takes seconds.
            if at_work := cell_holders(results_dir, *cell.key):
                raise LeaseHeldError(str(at_work[0]))
        # Forked kernels were not tried with CUDA, which no fork survives that has touched it.
        forked = not (cell and cell.config.device == "cuda")
        return "; ".join(execute(notebooks_dir() / notebook, output, parameters, digest, forked=forked)) or None


def run_cell(cell: Cell, progress: Path, trials: Sequence[int] | None = None, **settings: Any) -> str | None:
    """Train a cell without a notebook, or some of its ``trials`` (from 1) for whoever makes its result.
    ``settings``: ``results_dir``, ``force`` and ``checkpoint_seconds``, as ``run_experiment`` takes them."""
    if trials is None and not settings["force"] and is_done(cell, settings["results_dir"], with_notebook=False):
        return MADE_ELSEWHERE
    take_card(cell.config.device)
    what, settings = (cell.model, cell.activation, cell.config), settings | {"progress": write_progress_to(progress)}
    # What is told of unfinished work is returned, for nobody reads the log of a worker.
    with listening() as heard:
        trained = run_experiment(*what, **settings) if trials is None else train_trials(*what, trials, **settings)
    return "; ".join(heard) or (None if trained else MADE_ELSEWHERE)


def run_summary(
    results_dir: Path, reports_dir: Path, profile: str | None, configs: Sequence[str], digest: str, force: bool
) -> str | None:
    """Write the summary and draw the plots. ``digest`` is that of the results they show."""
    with hold(reports_dir / ".summary.lease", "plots and summary"):
        if summary_is_current(reports_dir, digest) and not force:
            return MADE_ELSEWHERE
        write_summary(results_dir, reports_dir, profile, configs, digest)
    return None


def clear_leftovers(results_dir: Path, reports_dir: Path) -> None:
    """Remove reports and notebooks that killed processes left unfinished, and nothing of those that are still at work there."""
    remove_left(reports_dir)
    remove_files(unfinished_notebooks(results_dir))


def unfinished_notebooks(results_dir: Path) -> list[Path]:
    """The notebooks that killed processes left unfinished."""
    found = (results_dir / "notebooks").glob("*.partial.ipynb")
    outputs = {path: path.with_name(path.name.replace(".partial", "")) for path in found}
    return [path for path, output in outputs.items() if holder(notebook_lease(output)) is None and is_unfinished(path)]
