"""What each executor costs a cell, and how long a grid takes with more workers: ``python -m benchmarks.executors``.

The overhead is measured: grids of few and of many very short cells, one job at a time, on this machine. Their difference by
the number of cells, less the seconds that training itself took, is what a cell costs beside its training; what is left of
the smaller grid is what a grid costs once. The wall-clock is simulated with those numbers: the jobs of a real plan, with the
seconds of a cell as measured in a results folder, given to workers as they become free, longest first.
"""

import argparse
import heapq
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from repro_lib.config import MODEL_DEFAULTS, Config
from repro_lib.grid.cells import Cell, GridRequest
from repro_lib.grid.snakemake.executor import plan_jobs
from repro_lib.grid.tasks import Tasks
from repro_lib.plots.style import COLOURS, GREY
from repro_lib.store.store import Store

EXECUTORS = {
    "local": [],
    "snakemake": ["--executor", "snakemake"],
    "slurm": ["--executor", "snakemake", "--profile-dir", "slurm"],
}
# A large study: every model, twelve activations, 32 trials, as the profile `cpu` trains them.
LARGE_ACTIVATIONS = ("relu", "gelu", "swish", "swiglu", *(f"smelu_{beta}" for beta in (0.1, 0.25, 0.5, 1, 1.5, 2, 3, 4)))
LARGE_TRIALS = 32
WORKERS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
SHORT = {"trials": 1, "max_iters": 1, "eval_interval": 1}


@dataclass(frozen=True)
class Overhead:
    """Seconds beside training: of every cell, and of a grid once (its start, deep dive, analyses and site)."""

    cell: float
    grid: float


@dataclass(frozen=True)
class Work:
    """A job of the simulation."""

    seconds: float
    needs: tuple[str, ...] = ()
    priority: float = 0.0


def measure(executor: str, corpus: Path, few: int, many: int, options: Sequence[str] = ()) -> Overhead:
    """The overhead of an executor on this machine, one job at a time; ``options`` go to Snakemake."""
    walls, trainings = {}, []
    for cells in (few, many):
        with tempfile.TemporaryDirectory() as name:
            results = Path(name) / "results"
            activations = [f"smelu_{k}" for k in range(1, cells + 1)]
            command = [sys.executable, "-m", "repro_lib", "grid", "--profile", "smoke", "--models", "charlm", "--workers", "1"]
            command += ["--corpus", str(corpus), "--results-dir", str(results), "--reports-dir", f"{name}/reports"]
            command += ["--activations", *activations, *(f"--{key}={value}" for key, value in SHORT.items())]
            started = time.monotonic()
            subprocess.run([*command, *EXECUTORS[executor], *options], check=True, stdout=subprocess.DEVNULL)
            walls[cells] = time.monotonic() - started
            trainings += [sum(trial.seconds for trial in result.trials) for _, result in Store(results).load()[0]]
    each = (walls[many] - walls[few]) / (many - few)
    return Overhead(each - statistics.mean(trainings), walls[few] - few * each)


def wall_clock(work: Mapping[str, Work], workers: int) -> float:
    """Seconds until all is done, if whoever is free takes the job of the highest priority among those that can be begun."""
    waiting = {key: set(job.needs) for key, job in work.items()}
    needed_by: dict[str, list[str]] = {}
    for key, job in work.items():
        for need in job.needs:
            needed_by.setdefault(need, []).append(key)
    ready = [(-work[key].priority, key) for key, needs in waiting.items() if not needs]
    heapq.heapify(ready)
    running: list[tuple[float, str]] = []
    now = 0.0
    while ready or running:
        while ready and len(running) < workers:
            _, key = heapq.heappop(ready)
            heapq.heappush(running, (now + work[key].seconds, key))
        now, ended = heapq.heappop(running)
        for key in needed_by.get(ended, ()):
            waiting[key].discard(ended)
            if not waiting[key]:
                heapq.heappush(ready, (-work[key].priority, key))
    return now


def longest_chain(work: Mapping[str, Work]) -> float:
    """Seconds with as many workers as there are jobs: no number of them makes it shorter."""
    ends: dict[str, float] = {}
    for key, job in work.items():  # a plan names nothing before what it needs
        ends[key] = job.seconds + max((ends[need] for need in job.needs), default=0.0)
    return max(ends.values())


def work_of(jobs: Mapping[str, Mapping[str, Any]], training: Mapping[str, float], overhead: Overhead) -> dict[str, Work]:
    """Jobs with their seconds: what training takes, and what a cell costs beside it; analyses cost a grid's share of that.

    Trials apart and the cell that joins them are jobs of their own, and cost as much beside as any.
    """
    light = sum(job["kind"] in ("deep_dive", "analysis", "site") for job in jobs.values())
    seconds = {"cell": overhead.cell, "trials": overhead.cell, "corpus": 1.0}
    beside = {key: seconds.get(job["kind"], overhead.grid / min(light, 8)) for key, job in jobs.items()}
    return {key: Work(training.get(key, 0.0) + beside[key], tuple(job["needs"]), job["priority"]) for key, job in jobs.items()}


def seconds_of(cells: Sequence[Cell], store: Store) -> dict[str, float]:
    """An estimate of each cell's training on one core, by label, corrected by what was measured in this store.

    By the median of the model's own stored results, else of all models'.
    """
    ratios: dict[str, list[float]] = {}
    for _, result in store.load()[0]:
        # Not validated: an older result may hold what is refused by now.
        config = Config.model_construct(**result.config)
        estimate = Cell(result.model_name, result.activation, config, result.config_sha256).training_seconds()
        if not result.synthetic and estimate > 0 and config.device == "cpu":
            ratio = sum(trial.seconds for trial in result.trials) / estimate * config.trials / len(result.trials)
            for model in (result.model_name, ""):
                ratios.setdefault(model, []).append(ratio)
    measured = {model: statistics.median(found) for model, found in ratios.items()}
    return {c.label: c.training_seconds() * (measured.get(c.model) or measured.get("") or 1.0) for c in cells}


def large_plan(store: Store, corpus: str, trials_per_job: int | None) -> tuple[dict[str, dict[str, Any]], dict[str, float]]:
    """The jobs of the large study, and the seconds of training in each by what this store measured."""
    asked = {"trials": LARGE_TRIALS, "corpus": corpus, "device": "cpu"}
    nowhere = Path(os.devnull)  # where nothing of the large study is done already
    models = list(MODEL_DEFAULTS)
    request = GridRequest(
        models, LARGE_ACTIVATIONS, "cpu", asked, 1, nowhere, nowhere, noise_models=[], trials_per_job=trials_per_job
    )
    tasks = Tasks(request, nowhere)
    jobs, whole = plan_jobs(tasks), seconds_of(tasks.cells, store)
    training = {}
    for key, job in jobs.items():
        label, _, part = key.partition(".trials-")
        if job["kind"] == "trials":
            first, last = part.split("-")
            training[key] = whole[label] * (int(last) - int(first) + 1) / LARGE_TRIALS
        elif job["kind"] == "cell" and len(job["needs"]) == 1:
            training[key] = whole[label]
    return jobs, training


def plot(curves: Mapping[str, Sequence[float]], chains: Mapping[str, float], about: str) -> Figure:
    """Hours against workers, with the two bounds: all work shared out evenly, and the longest chain of jobs."""
    figure = Figure(figsize=(9.0, 4.6), layout="constrained")
    axes = figure.subplots()
    for (name, hours), colour, marker in zip(curves.items(), list(COLOURS.values()), "os^D", strict=False):
        axes.plot(WORKERS, hours, color=colour, marker=marker, label=name)
        axes.axhline(chains[name], color=colour, linestyle=":", linewidth=1)
    first = next(iter(curves.values()))
    axes.plot(
        WORKERS, [first[0] / workers for workers in WORKERS], color=GREY, linestyle="--", label="all work shared out evenly"
    )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(WORKERS, [str(workers) for workers in WORKERS])
    axes.set_xlabel("workers")
    axes.set_ylabel("hours")
    axes.set_title(about)
    axes.legend(loc="upper right", title="dotted: its longest chain of jobs")
    return figure


def main() -> int:
    """Measure, simulate, print both tables; with --plot also draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--executors", nargs="*", choices=EXECUTORS, default=["local", "snakemake"])
    parser.add_argument("--corpus", default="shakespeare", help="the text; default: shakespeare")
    parser.add_argument("--cells", nargs=2, type=int, default=(2, 8), metavar=("FEW", "MANY"))
    parser.add_argument("--results-dir", type=Path, help="whose measured seconds the simulation takes; none: no simulation")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="where to draw the simulation")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="keep the overheads here, or take them from here if it exists"
    )
    own = sys.argv[1:]
    behind = own[own.index("--") :] if "--" in own else []
    asked, console = parser.parse_args(own[: len(own) - len(behind)]), Console()
    overheads = {}
    if asked.json and asked.json.exists():
        overheads = {name: Overhead(**found) for name, found in json.loads(asked.json.read_text(encoding="utf-8")).items()}
    for name in asked.executors:
        if name not in overheads:
            overheads[name] = measure(name, asked.corpus, *asked.cells, behind if name == "slurm" else ())
    if asked.json:
        asked.json.write_text(json.dumps({name: vars(found) for name, found in overheads.items()}, indent=1) + "\n")
    table = Table(title="seconds beside training, one job at a time")
    for heading in ("executor", "every cell", "a grid once"):
        table.add_column(heading, justify="left" if heading == "executor" else "right")
    for name, found in overheads.items():
        table.add_row(name, f"{found.cell:.1f}", f"{found.grid:.1f}")
    console.print(table)
    if asked.results_dir:
        simulate(console, Store(asked.results_dir), asked.corpus, overheads, asked.plot)
    return 0


def simulate(console: Console, store: Store, corpus: str, overheads: Mapping[str, Overhead], target: Path | None) -> None:
    """The large study with 1 to 256 workers, by each executor, with cells whole and with trials apart."""
    curves, chains, count = {}, {}, 0
    for name, overhead in overheads.items():
        for trials_per_job, words in ((None, "whole cells"), (1, "trials apart")):
            jobs, training = large_plan(store, corpus, trials_per_job)
            work = work_of(jobs, training, overhead)
            label = f"{name}, {words}"
            curves[label] = [wall_clock(work, workers) / 3600 for workers in WORKERS]
            chains[label] = longest_chain(work) / 3600
            count = sum(job["kind"] == "cell" for job in jobs.values())
    table = Table(title=f"{count} cells of {LARGE_TRIALS} trials, hours (simulated)")
    for heading in ("executor", *map(str, WORKERS), "longest chain"):
        table.add_column(heading, justify="left" if heading == "executor" else "right")
    for name, hours in curves.items():
        table.add_row(name, *(f"{value:.3g}" for value in hours), f"{chains[name]:.3g}")
    console.print(table)
    if target:
        title = f"{count} cells of {LARGE_TRIALS} trials (simulated from measured seconds and overheads)"
        shown = {name: hours for name, hours in curves.items() if not name.startswith("local")} or curves
        plot(shown, chains, title).savefig(target, dpi=144)


if __name__ == "__main__":
    raise SystemExit(main())
