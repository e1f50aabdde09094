"""How long a what-if takes to redraw, over a store that is there: ``python -m benchmarks.what_if --results-dir results``.

A redraw is the view of one position of the controls, computed anew, and its SVG as text. What is done once, when the
what-if is made (reading predictions, sorting characters), is counted beside it, and so is the whole grid as a page holds it.
"""

import argparse
import gc
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from repro_lib.analysis.notes import Note
from repro_lib.analysis.study import Study
from repro_lib.config import project_root
from repro_lib.store.store import Store
from repro_lib.whatif.definition import WhatIf
from repro_lib.whatif.display import alive_html, view_html
from repro_lib.whatif.predictions import StoredPredictions
from repro_lib.whatif.questions import activation, ensembles, frequent, improbable, metric, noise, temperature, tradeoff, trials

TARGET_MILLISECONDS = 150
# As many positions of the controls as are timed, spread evenly over the grid.
POSITIONS = 40


def questions(store: Store, study: Study) -> dict[str, Callable[[], WhatIf | Note]]:
    """How each what-if over stored results is made, in the order of the notebook."""
    stored = [result for _, result in store.load()[0]]
    predictions = StoredPredictions(store, study)
    return {
        "activation": lambda: activation.activation_what_if(activation.measured_inputs(store, study)),
        "metric": lambda: metric.metric_what_if(study),
        "tradeoff": lambda: tradeoff.tradeoff_what_if(study),
        "trials": lambda: trials.trials_what_if(study),
        "temperature": lambda: temperature.temperature_what_if(predictions),
        "threshold": lambda: improbable.threshold_what_if(predictions),
        "top-k": lambda: improbable.top_what_if(predictions),
        "frequent": lambda: frequent.frequent_what_if(predictions),
        "ensembles": lambda: ensembles.ensembles_what_if(predictions),
        "noise": lambda: noise.noise_what_if(store, stored, study),
    }


def redraws(what_if: WhatIf) -> list[tuple[float, float]]:
    """(wall, processor) milliseconds of a redraw at some positions; equal where nothing else wants the processor.

    As in timeit the garbage collector waits: once in a while it takes 0.3 s of whatever runs then.
    """
    grid, found = list(what_if.grid()), []
    gc.collect()
    gc.disable()
    for values in grid[:: max(1, len(grid) // POSITIONS)]:
        wall, processor = time.perf_counter(), time.process_time()
        view_html(what_if.see(**values))
        found.append((1000 * (time.perf_counter() - wall), 1000 * (time.process_time() - processor)))
    gc.enable()
    return found


def main() -> None:
    """Print a row per what-if, and whether any redraw misses the target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results-dir", type=Path, default=project_root() / "results")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch; a grid's workers have 1")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    store, console = Store(options.results_dir), Console()
    study = Study.load(store)
    table = Table("what-if", "made, s", "redraw, ms", "slowest", "CPU, ms", "slowest", "views", "all, s", "KB")
    slowest = 0.0
    for name, make in questions(store, study).items():
        started = time.perf_counter()
        what_if = make()
        made = time.perf_counter() - started
        if isinstance(what_if, Note):
            console.print(f"{name}: {what_if}", highlight=False)
            continue
        walls, processors = zip(*redraws(what_if), strict=True)
        started = time.perf_counter()
        size = len(alive_html(what_if).encode()) / 1000
        whole = time.perf_counter() - started
        slowest = max(slowest, *walls)
        positions = sum(1 for _ in what_if.grid())
        times = [f"{number:.1f}" for each in (walls, processors) for number in (statistics.median(each), max(each))]
        table.add_row(name, f"{made:.2f}", *times, str(positions), f"{whole:.2f}", f"{size:.0f}")
    console.print(table)
    words = "every redraw meets" if slowest < TARGET_MILLISECONDS else f"the slowest, {slowest:.0f} ms, misses"
    console.print(f"{len(study.results)} cells, {options.threads} threads: {words} the target of {TARGET_MILLISECONDS} ms")


if __name__ == "__main__":
    main()
