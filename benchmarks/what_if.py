"""How long what-ifs take to measure and to draw: ``python -m benchmarks.what_if --results-dir results``.

Processor seconds: for the frame of all positions of the controls, for its chart, and for the chart as a page holds it. The
first question asked of predictions reads them, and the first chart drawn starts Vega's engine.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from repro_lib.analysis.notes import Note
from repro_lib.analysis.study import Study
from repro_lib.config import project_root
from repro_lib.report.site.charts import section_of
from repro_lib.store.store import Store
from repro_lib.whatif.definition import WhatIf
from repro_lib.whatif.predictions import StoredPredictions
from repro_lib.whatif.questions import activation, ensembles, frequent, improbable, metric, noise, temperature, tradeoff, trials

TARGET_SECONDS = 5.0


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


def main() -> None:
    """Print a row per what-if, and whether the page of all meets the target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results-dir", type=Path, default=project_root() / "results")
    options = parser.parse_args()
    torch.set_num_threads(1)  # as in a grid's workers
    store, console = Store(options.results_dir), Console()
    study = Study.load(store)
    table, drawn, size = Table("what-if", "frame, s", "rows", "chart, s", "on a page, s", "KB"), 0.0, 0
    for name, make in questions(store, study).items():
        what_if, measuring = timed(make)
        if isinstance(what_if, Note):
            console.print(f"{name}: {what_if}", highlight=False)
            continue
        bundle, charting = timed(what_if._repr_mimebundle_)
        html, drawing = timed(partial(section_of, next(iter(bundle.values()))))
        times = [f"{seconds:.2f}" for seconds in (measuring, charting, drawing)]
        table.add_row(name, times[0], str(len(what_if.frame)), *times[1:], f"{len(html.encode()) / 1000:.0f}")
        drawn, size = drawn + drawing, size + len(html.encode())
    console.print(table)
    words = "meets" if drawn < TARGET_SECONDS else "misses"
    console.print(
        f"{len(study.results)} cells: {size / 1000:.0f} KB drawn in {drawn:.1f} s {words} the target of {TARGET_SECONDS:g} s"
    )


def timed(make: Callable[[], Any]) -> tuple[Any, float]:
    """What a function returns, and its processor seconds."""
    started = time.process_time()
    return make(), time.process_time() - started


if __name__ == "__main__":
    main()
