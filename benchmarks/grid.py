"""A real grid from outside: when its first report is there, and how much of its time is not training.

The same commands, kernels, notebooks and pages as for a user, in a folder of its own. What a cell costs beside its training
(a kernel, imports, plots, its page) does not depend on how long it trains, so a short profile says what it is of a longer one.
"""

import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from repro_lib.report.site.page_parts import made_from
from repro_lib.store.store import Store


@dataclass(frozen=True)
class GridTiming:
    """Seconds of a whole grid; ``training`` is the sum over its trials, evaluation included, on ``workers`` cores."""

    profile: str
    workers: int
    cells: int
    first_report: float
    wall: float
    training: float

    @property
    def beside_training(self) -> float:
        """Core seconds that were not training, analysis notebooks, tables and plots included."""
        return self.wall * self.workers - self.training

    def share_of(self, training: float, cells: int) -> float:
        """What a grid with so many core seconds of training in so many cells would spend beside it, as a share of its time."""
        beside = self.beside_training / self.cells * cells
        return beside / (beside + training)


def time_grid(profile: str, corpus: str, workers: int, *words: str) -> GridTiming:
    """Run ``repro grid`` once; ``words`` are further ones of the command line. RuntimeError if it fails."""
    with tempfile.TemporaryDirectory() as name:
        results, reports = Path(name) / "results", Path(name) / "reports"
        command = [sys.executable, "-m", "repro_lib", "grid", "--profile", profile, "--corpus", corpus]
        command += ["--workers", str(workers), "--results-dir", str(results), "--reports-dir", str(reports), *words]
        with open(Path(name) / "log", "w+", encoding="utf-8") as log:
            started, first = time.perf_counter(), None
            with subprocess.Popen(command, stdout=log, stderr=log) as process:
                while process.poll() is None:
                    if first is None and any(made_from(page) for page in reports.glob("10_train-*.html")):
                        first = time.perf_counter() - started
                    time.sleep(0.05)
            wall = time.perf_counter() - started
            if process.returncode or first is None:
                log.seek(0)
                raise RuntimeError(f"the grid ended with exit code {process.returncode}:\n{log.read()[-2000:]}")
        stored = [result for _, result in Store(results).load()[0]]
    training = sum(trial.seconds for result in stored for trial in result.trials)
    return GridTiming(profile, workers, len(stored), first, wall, training)
