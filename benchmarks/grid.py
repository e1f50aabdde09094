"""A real grid from outside: when its first report is there, how much of its time is not training, and what it leaves.

The same commands, kernels, notebooks and pages as for a user, in a folder of its own. What a cell costs beside its training
(a kernel, plots, its page, its part of the analyses) does not depend on how long it trains.
"""

import os
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
    core_seconds: float  # of all its processes, as the system counts them
    training: float
    again: float  # the same command once more
    megabytes: float  # of the results folder

    @property
    def beside_training(self) -> float:
        """Core seconds that were not training, analysis notebooks, tables and plots included."""
        return self.core_seconds - self.training

    def share_of(self, training: float, cells: int) -> float:
        """What a grid with so many core seconds of training in so many cells would spend beside it, as a share of its time."""
        beside = self.beside_training / self.cells * cells
        return beside / (beside + training)


def time_grid(profile: str, corpus: str, workers: int, *words: str, python: str = sys.executable) -> GridTiming:
    """Run ``repro grid`` twice; ``words`` are further ones of the command line. RuntimeError if it fails.

    ``python``: of which environment, and so which checkout of this project.
    """
    with tempfile.TemporaryDirectory() as name:
        results, reports = Path(name) / "results", Path(name) / "reports"
        command = [python, "-P", "-m", "repro_lib", "grid", "--profile", profile, "--corpus", corpus]
        command += ["--workers", str(workers), "--results-dir", str(results), "--reports-dir", str(reports), *words]
        with open(Path(name) / "log", "w+", encoding="utf-8") as log:
            started, first, ended = time.perf_counter(), None, 0
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=name)
            while not ended:
                if first is None and any(made_from(page) for page in reports.glob("10_train-*.html")):
                    first = time.perf_counter() - started
                time.sleep(0.05)
                # With the processes that it has waited for, and they for theirs.
                ended, status, used = os.wait4(process.pid, os.WNOHANG)
            wall = time.perf_counter() - started
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode or first is None:
                log.seek(0)
                raise RuntimeError(f"the grid ended with exit code {process.returncode}:\n{log.read()[-2000:]}")
        stored = [result for _, result in Store(results).load()[0]]
        # Equal files can be one, under several names.
        size = sum({(one := path.stat()).st_ino: one.st_size for path in results.rglob("*") if path.is_file()}.values()) / 1e6
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=name)
        again = time.perf_counter() - started
    training = sum(trial.seconds for result in stored for trial in result.trials)
    return GridTiming(profile, workers, len(stored), first, wall, used.ru_utime + used.ru_stime, training, again, size)
