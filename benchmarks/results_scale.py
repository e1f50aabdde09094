"""How long a large results folder takes: load it, aggregate it, draw every figure. ``python -m benchmarks.results_scale``.

The results are synthetic, 3 trials each, of 6 models x 5 activations in as many configurations as fill the folder; their
files have the size of those of the ``study`` profile. Making them is not counted.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count, islice, product
from pathlib import Path

from rich.console import Console
from rich.table import Table

from repro_lib.analysis.frames import curves_frame, pairs_frame, trials_frame
from repro_lib.analysis.overviews import activations_overview, models_overview
from repro_lib.analysis.study import Study
from repro_lib.analysis.synthetic import synthetic_result
from repro_lib.config import GRID_ACTIVATIONS, GRID_MODELS
from repro_lib.plots.figures import all_plots
from repro_lib.store.schema import Result
from repro_lib.store.store import Store

TARGET_FILES, TARGET_SECONDS = 3000, 20
STARTED = datetime(2026, 1, 1, tzinfo=UTC)
# Configurations of each cell; every next round of files repeats them an hour later.
ITERATIONS = tuple(range(500, 600, 10))


def results(files: int) -> Iterator[Result]:
    """Synthetic results: cell by cell, then the next configuration, then all again an hour later."""
    rounds = (
        (model, activation, iterations, STARTED + timedelta(hours=hour))
        for hour in count()
        for iterations, model, activation in product(ITERATIONS, GRID_MODELS, GRID_ACTIVATIONS)
    )
    for model, activation, iterations, timestamp in islice(rounds, files):
        yield synthetic_result(model, activation, profile="study", timestamp=timestamp, max_iters=iterations)


def measure(folder: Path, files: int, console: Console) -> dict[str, float]:
    """Seconds per stage for a folder of that many files; what each stage found goes to the console."""
    seconds: dict[str, float] = {}

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        seconds[name] = time.perf_counter() - started

    store = Store(folder)
    for result in results(files):
        store.save(result)
    size = sum(path.stat().st_size for path in folder.glob("*.json"))
    console.print(f"{files} files of {size / files / 1000:.1f} KB on average")
    with stage("load and choose (Study.load)"):
        study = Study.load(store, include_synthetic=True)
    with stage("aggregate the study: frames and overviews"):
        rows = [len(frame) for frame in (study.cells, study.trials, study.pairs, study.curves)]
        rows += [len(models_overview(study)), len(activations_overview(study))]
    with stage("draw every figure as PNG"):
        figures = sum(len(plot.png()) > 0 for plot in all_plots(study))
    everything = [result for _, result in store.load()[0]]
    with stage("beside the total: frames of every file"):
        all_rows = [len(frame(everything)) for frame in (trials_frame, pairs_frame, curves_frame)]
    console.print(
        f"{len(study.results)} results chosen, rows per frame {rows}, {figures} figures; rows of every file {all_rows}"
    )
    return seconds


def main() -> int:
    """Print the table; exit code 1 if the first three stages take longer than the target, which is for the default of files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=TARGET_FILES, metavar="N", help="result files; default: %(default)s")
    files, console = parser.parse_args().files, Console()
    if files < 1:
        parser.error(f"--files must be at least 1, got {files}")
    with tempfile.TemporaryDirectory() as folder:
        seconds = measure(Path(folder), files, console)
    total = sum(value for name, value in seconds.items() if not name.startswith("beside"))
    table = Table(title=f"{files} result files")
    table.add_column("stage")
    table.add_column("seconds", justify="right")
    for name, value in [
        *seconds.items(),
        (f"total of the first three (target for {TARGET_FILES} files: {TARGET_SECONDS})", total),
    ]:
        table.add_row(name, f"{value:.2f}")
    console.print(table)
    return int(files >= TARGET_FILES and total > TARGET_SECONDS)


if __name__ == "__main__":
    raise SystemExit(main())
