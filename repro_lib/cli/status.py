"""What a terminal is told of a results folder: which cells are done, what came out, what failed, what is damaged."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from repro_lib.analysis.selection import own_runs_in_words
from repro_lib.cli.plain import WIDE, Plain
from repro_lib.grid.cells import Cell
from repro_lib.store.schema import Result
from repro_lib.store.store import Store
from repro_lib.system.leases import cell_holders
from repro_lib.training.checkpoints import put_aside


def print_cells(console: Console, results_dir: Path, cells: Sequence[Cell]) -> None:
    """A table of these cells' results."""
    store, table = Store(results_dir), Table(title="relative PD between trials, 0 (same) to 2")
    for heading in ("model", "activation", "trials", "relative PD", "churn", "loss, nats", "accuracy, %", "flags"):
        table.add_column(heading, justify="left" if heading in ("model", "activation", "flags") else "right")
    for cell in cells:
        row = ["–"] * 5 + ["missing"]
        if result := cell.result(store):
            numbers = [result.avg_relative_pd, result.reproducibility_metrics.get("churn"), result.avg_val_loss]
            row = [str(len(result.trials)), *(_rounded(number) for number in numbers), f"{result.avg_val_accuracy:.2f}"]
            row.append("; ".join(result.flags))
        table.add_row(cell.model, cell.activation, *row)
    # Its names and numbers are whole, however narrow the terminal is.
    Plain(console.file, width=WIDE).print(table)


def print_status(console: Console, results_dir: Path, cells: Sequence[Cell]) -> int:
    """What of these cells is done, in work, failed or missing; which files were refused. Exit code 0: all done, 1: not yet."""
    store = Store(results_dir)
    failures = {(note["model_name"], note["activation"], note["config_sha256"]): note["reason"] for note in store.failures()}
    shown: list[Result] = []
    width = max((len(cell.label) for cell in cells), default=0)
    # The result decides. A cell that failed and is in work again is in work: the note of its failure goes when it is done.
    for cell in cells:
        result = cell.result(store)
        if result:
            shown.append(result)
            pd = _rounded(result.avg_relative_pd)
            said = f"done, {len(result.trials)} trials, relative PD {pd}, {result.timestamp:%Y-%m-%d %H:%M} UTC"
        elif at_work := cell_holders(results_dir, *cell.key):
            # A process holds a lease of the cell and one of each trial that it has in work.
            since = {(one.process.pid, one.host): one.since for one in sorted(at_work, key=lambda one: one.since, reverse=True)}
            said = "in work: " + ", ".join(f"process {pid} on {host} since {when}" for (pid, host), when in since.items())
        elif reason := failures.get(cell.key):
            said = f"FAILED: {reason}"
        else:
            said = "missing"
        console.print(f"{cell.label:<{width}} {said}")
    stored, refused = store.load()
    for run in own_runs_in_words([result for _, result in stored], shown):
        console.print(run)
    # Not hidden by what is done: a refused file may be the very result that somebody looks for.
    for sentence in refused:
        console.print(f"refused: {sentence}")
    print_damaged(console, results_dir)
    console.print(f"{len(shown)} of {len(cells)} cells done in {results_dir}")
    return 0 if len(shown) == len(cells) else 1


def print_damaged(console: Console, results_dir: Path) -> None:
    """A line for each damaged checkpoint that was put aside: training went on without it, but a disk may be failing."""
    for path in put_aside(Store(results_dir)):
        console.print(f"damaged: {path}; training went on from what is older, delete it once it was looked at")


def _rounded(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
