"""What stacked trials cost: ``python -m benchmarks.stacked``. Prints a table and writes JSON.

Milliseconds of a step and of a trial's share of it for stacks of 1, 3, 10 and 32 trials, beside a step of sequential training
on the same device; and what share that is of the device's peak, measured in the same run in turn with the steps. With
``--grid`` the wall-clock of the whole ``full`` profile. Without a GPU a small version runs: less text per step, fewer trials.
"""

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.grid import GridTiming, time_grid
from benchmarks.peak import Work, peak_flops, rate, wait_for, work_of
from repro_lib.config import DEVICES, Config
from repro_lib.data import Dataset, load_dataset, prepare_corpus
from repro_lib.models.determinism import deterministic_arithmetic
from repro_lib.models.registry import build_model, count_parameters
from repro_lib.training.origin import describe_environment
from repro_lib.training.stacked import TrialStack
from repro_lib.training.trainer import make_optimizer, training_step, untrained

# Of the square matrices whose product is the peak of a device: large enough to fill it.
_PEAK_WIDTH = {"cpu": 1024, "cuda": 8192}
# What runs where nothing else is asked for.
_MODELS = {"cpu": ["charlm", "tinylstm"], "cuda": ["charlm", "convlm", "tinylstm", "minigpt"]}
_TRIALS = {"cpu": [1, 3, 10], "cuda": [1, 3, 10, 32]}
_STEPS = {"cpu": 3, "cuda": 50}
_SMALL = {"batch_size": 8, "block_size": 64}
_WARM_UP_STEPS = 3


@dataclass(frozen=True)
class StackTiming:
    """One stack; medians over repetitions, ``low`` and ``high`` are the extremes of ``utilisation``.

    ``sequential_milliseconds``: a step of one trial in sequential training. ``start_seconds``: until the first steps are done,
    compiling included. ``utilisation``: model FLOPs over the peak of one large product, ``of_shapes`` over what batched
    products of the model's own shapes reach. ``gigabytes``: the most memory that a GPU held.
    """

    model: str
    trials: int
    execution: str
    parameters: int
    milliseconds: float
    milliseconds_per_trial: float
    sequential_milliseconds: float
    start_seconds: float
    gflops: float
    peak_gflops: float
    utilisation: float
    low: float
    high: float
    of_shapes: float
    gigabytes: float | None


def time_stack(
    model: str, activation: str, config: Config, dataset: Dataset, trials: int, repetitions: int, steps: int
) -> StackTiming | None:
    """Time the steps of a stack, in turn with sequential ones and the peaks; None where the trials do not fit into memory."""
    device, dtype = config.device, torch.bfloat16 if config.bfloat16 else torch.float32
    last = _WARM_UP_STEPS + repetitions * steps
    config = config.model_copy(update={"max_iters": last}).with_corpus(dataset.vocab_size)
    built = build_model(model, config.model_copy(update={"device": "cpu"}), activation).eval()
    work = work_of(built, config, torch.zeros(config.batch_size, config.block_size, dtype=torch.long))
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    try:
        with deterministic_arithmetic():
            started = time.perf_counter()
            stack = TrialStack(model, activation, config, dataset, range(1, trials + 1))
            stack.train(_WARM_UP_STEPS)
            start_seconds = time.perf_counter() - started
            sequential = _Sequential(model, activation, config, dataset)
            sequential.seconds_per_step(1, _WARM_UP_STEPS)
            rows = []
            for first in range(_WARM_UP_STEPS, last, steps):
                peaks = (_large_peak(device, dtype), peak_flops(work, trials=trials, device=device, dtype=dtype))
                rows.append((_seconds_per_step(stack, steps), sequential.seconds_per_step(first + 1, steps), *peaks))
    except torch.OutOfMemoryError:
        return None
    return _summary(model, config, trials, count_parameters(built), work, rows, start_seconds)


def _seconds_per_step(stack: TrialStack, steps: int) -> float:
    started = time.perf_counter()
    stack.train(stack.state.iteration + steps)
    wait_for(stack.config.device)
    return (time.perf_counter() - started) / steps


class _Sequential:
    """One trial as sequential training does it."""

    def __init__(self, model: str, activation: str, config: Config, dataset: Dataset) -> None:
        self.config, self.dataset = config, dataset
        self.model, self.history = untrained(model, activation, config, dataset, 1)
        self.optimizer = make_optimizer(self.model, config)

    def seconds_per_step(self, first: int, steps: int) -> float:
        """Mean seconds of a step, batch and clipping included."""
        started = time.perf_counter()
        for iteration in range(first, first + steps):
            batch = self.dataset.batch(self.config.batch_size, self.config.block_size, self.history.streams.order)
            training_step(self.model, self.optimizer, *batch, iteration, self.config)
        wait_for(self.config.device)
        return (time.perf_counter() - started) / steps


def _large_peak(device: str, dtype: torch.dtype, seconds: float = 0.5) -> float:
    """FLOP/s of the product of two large square matrices."""
    width = _PEAK_WIDTH[device]
    x = torch.randn(width, width, device=device, dtype=dtype)
    return 2.0 * width**3 * rate(lambda: x @ x, seconds, device)


def _summary(
    model: str,
    config: Config,
    trials: int,
    parameters: int,
    work: Work,
    rows: Sequence[tuple[float, float, float, float]],
    start_seconds: float,
) -> StackTiming:
    seconds, sequential, peak, _ = (statistics.median(column) for column in zip(*rows, strict=True))
    flops = trials * work.flops
    shares = [flops / row[0] / row[2] for row in rows]
    return StackTiming(
        model=model,
        trials=trials,
        execution=config.execution,
        parameters=parameters,
        milliseconds=1e3 * seconds,
        milliseconds_per_trial=1e3 * seconds / trials,
        sequential_milliseconds=1e3 * sequential,
        start_seconds=start_seconds,
        gflops=flops / seconds / 1e9,
        peak_gflops=peak / 1e9,
        utilisation=statistics.median(shares),
        low=min(shares),
        high=max(shares),
        of_shapes=statistics.median(flops / row[0] / row[3] for row in rows),
        gigabytes=torch.cuda.max_memory_allocated() / 1e9 if config.device == "cuda" else None,
    )


def _whole_grid(device: str, corpus: str, workers: int) -> GridTiming:
    """The ``full`` profile as it is run on a GPU; on a CPU two models of ``smoke``, stacked."""
    if device == "cuda":
        return time_grid("full", corpus, workers, "--noise-models")
    return time_grid("smoke", corpus, workers, "--models", "charlm", "tinylstm", "--execution", "stacked", "--noise-models")


def table_of(timings: Sequence[StackTiming]) -> Table:
    """A row per stack; the last column is how much faster all its trials are than one after another."""
    table = Table(title="one training step of stacked trials")
    for heading in ("model", "trials", "ms", "a trial", "of peak", "of shapes", "start, s", "GB", "x sequential"):
        table.add_column(heading, justify="left" if heading == "model" else "right", no_wrap=heading == "model")
    for t in timings:
        times = (f"{t.milliseconds:.1f}", f"{t.milliseconds_per_trial:.1f}")
        shares = (f"{t.utilisation:.0%}", f"{t.of_shapes:.0%}", f"{t.start_seconds:.1f}")
        memory = "" if t.gigabytes is None else f"{t.gigabytes:.1f}"
        faster = f"{t.sequential_milliseconds / t.milliseconds_per_trial:.2f}"
        table.add_row(t.model, str(t.trials), *times, *shares, memory, faster)
    return table


def main() -> int:
    """Print the table and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=DEVICES, default=here, help=f"default: {here}")
    parser.add_argument("--models", nargs="+", metavar="NAME", help="default: by device")
    parser.add_argument("--activation", default="gelu", metavar="NAME")
    parser.add_argument("--trials", nargs="+", type=int, metavar="N", help="sizes of the stacks; default: by device")
    parser.add_argument("--execution", metavar="NAME", help="default: auto on a GPU, stacked on a CPU")
    parser.add_argument("--repetitions", type=int, default=5, metavar="N")
    parser.add_argument("--steps", type=int, metavar="N", help="of each repetition; default: by device")
    parser.add_argument("--corpus", default="shakespeare", help="the text to train on; default: shakespeare")
    parser.add_argument("--grid", action="store_true", help="time the whole full profile too (on a CPU: two models of smoke)")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes of the grid; default: 1")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/latest-stacked.json"), metavar="FILE")
    asked, console = parser.parse_args(), Console()
    device = asked.device
    prepare_corpus(asked.corpus)
    changes: dict[str, Any] = {"device": device, "corpus": asked.corpus, "execution": asked.execution or "auto"}
    if device == "cpu":
        changes |= _SMALL | ({} if asked.execution else {"execution": "stacked"})
    timings: list[StackTiming] = []
    for model in asked.models or _MODELS[device]:
        config = Config.for_model(model, "full", **changes)
        dataset = load_dataset(config)
        for trials in asked.trials or _TRIALS[device]:
            settings = (trials, asked.repetitions, asked.steps or _STEPS[device])
            timing = time_stack(model, asked.activation, config, dataset, *settings)
            if timing:
                timings.append(timing)
            else:
                console.print(f"{trials} trials of {model} do not fit into the memory of the device")
    console.print(table_of(timings))
    content: dict[str, Any] = {"machine": describe_environment(device), "stacks": [asdict(timing) for timing in timings]}
    if asked.grid:
        grid = _whole_grid(device, asked.corpus, asked.workers)
        content["grid"] = asdict(grid)
        said = f"{grid.cells} cells in {grid.wall:.0f} s with {grid.workers} workers, {grid.training:.0f} s of it training"
        console.print(f"the {grid.profile} profile: {said}; the first report after {grid.first_report:.0f} s")
    asked.json.write_text(json.dumps(content, indent=1) + "\n")
    console.print(f"written: {asked.json}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
