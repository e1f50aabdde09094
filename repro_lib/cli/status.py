"""What a terminal is told of a results folder: which cells are done, what came out, what failed, what is damaged."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from repro_lib.analysis.formatting import counted
from repro_lib.analysis.own_runs import beside, find_configuration, others_in_words, own_runs_sentence, run_lines
from repro_lib.grid.cells import Cell
from repro_lib.store.schema import Result
from repro_lib.store.store import Store
from repro_lib.system.leases import cell_holders
from repro_lib.training.checkpoints import put_aside


def print_results(console: Console, results: Sequence[Result]) -> None:
    """A table of them, and how one is shown."""
    for line in run_lines(results):
        console.print(line)
    for result in results[-1:]:
        console.print(f"repro process --config {result.config_sha256[:8]} shows all about {result.model_name}")


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
    # Not hidden by what is done: a refused file may be the very result that somebody looks for.
    stored, refused = store.load()
    for sentence in refused:
        console.print(f"refused: {sentence}")
    print_damaged(console, results_dir)
    console.print(f"{len(shown)} of {counted(len(cells), 'cell')} done in {results_dir}")
    own, others = beside([result for _, result in stored], shown, store.grids())
    # A terminal has room for so many.
    for line in (*others_in_words(others), *own_runs_sentence(own), *run_lines(own, most=8)):
        console.print(line)
    return 0 if len(shown) == len(cells) else 1


def print_configuration(console: Console, results_dir: Path, digits: str) -> int:
    """What is stored of the configuration that begins so. ConfigError unless there is one. Exit code 0."""
    digest = find_configuration(stored := [result for _, result in Store(results_dir).load()[0]], digits)
    print_results(console, [result for result in stored if result.config_sha256 == digest])
    return 0


def print_damaged(console: Console, results_dir: Path) -> None:
    """A line for each damaged checkpoint that was put aside: training went on without it, but a disk may be failing."""
    for path in put_aside(Store(results_dir)):
        console.print(f"damaged: {path}; training went on from what is older, delete it once it was looked at")


def _rounded(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
