"""Milliseconds per training step of every model and activation, and what share of the processor's peak that is.

As many processes as cores, one thread each, all on the same cell at the same time, as in a grid. Peak and steps take turns,
so that whatever else the machine does hits both.
"""

import multiprocessing
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from typing import Any


@dataclass(frozen=True)
class StepTiming:
    """One cell, medians over processes and repetitions; ``low`` and ``high`` are the extremes of the utilisation."""

    model: str
    activation: str
    parameters: int
    milliseconds: float
    tokens_per_second: float
    gflops: float
    peak_gflops: float
    utilisation: float
    low: float
    high: float


def time_steps(
    cells: Sequence[tuple[str, str]], profile: str, corpus: str, repetitions: int, steps: int, processes: int
) -> list[StepTiming]:
    """Time ``steps`` training steps of each (model, activation), ``repetitions`` times, in turn with the peak."""
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(processes), context.Queue()
    arguments = (list(cells), profile, corpus, repetitions, steps, barrier, queue)
    workers = [context.Process(target=_worker, args=arguments, daemon=True) for _ in range(processes)]
    # Inherited by the workers, and read when they import torch.
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        for worker in workers:
            worker.start()
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before
    measured: dict[tuple[str, str], list[dict[str, Any]]] = {cell: [] for cell in cells}
    for _ in range(processes * len(cells)):
        cell, rows = queue.get()
        measured[cell] += rows
    for worker in workers:
        worker.join()
    return [_summary(cell, rows) for cell, rows in measured.items()]


def _summary(cell: tuple[str, str], rows: Sequence[dict[str, Any]]) -> StepTiming:
    seconds = statistics.median(row["seconds"] for row in rows)
    shares = [row["flops"] / row["seconds"] / row["peak"] for row in rows]
    first = rows[0]
    return StepTiming(
        *cell,
        parameters=first["parameters"],
        milliseconds=1e3 * seconds,
        tokens_per_second=first["tokens"] / seconds,
        gflops=first["flops"] / seconds / 1e9,
        peak_gflops=statistics.median(row["peak"] for row in rows) / 1e9,
        utilisation=statistics.median(shares),
        low=min(shares),
        high=max(shares),
    )


def _worker(
    cells: Sequence[tuple[str, str]], profile: str, corpus: str, repetitions: int, steps: int, barrier: Barrier, queue: Any
) -> None:
    import torch

    torch.set_num_threads(1)
    for cell in cells:
        timed = _Cell(*cell, profile, corpus)
        timed.seconds_per_step(3)  # warm-up: allocator, caches
        rows = []
        for _ in range(repetitions):
            # The peak on both sides of the steps: a machine that slows down in between slows both.
            barrier.wait()
            before = timed.peak()
            seconds = timed.seconds_per_step(steps)
            after = timed.peak()
            rows.append(timed.facts | {"seconds": seconds, "peak": (before + after) / 2})
        queue.put((cell, rows))


class _Cell:
    """A model in training."""

    def __init__(self, model_name: str, activation: str, profile: str, corpus: str) -> None:
        import torch

        from benchmarks.peak import work_of
        from repro_lib.config import Config
        from repro_lib.data import load_dataset
        from repro_lib.models.determinism import streams_for_trial
        from repro_lib.models.registry import build_model
        from repro_lib.training.trainer import make_optimizer

        config = Config.for_model(model_name, profile, corpus=corpus)
        self.dataset = load_dataset(config)
        self.config = config.with_corpus(self.dataset.vocab_size)
        self.streams = streams_for_trial(self.config.seed, 1, self.config.vary_streams, "cpu")
        self.model = build_model(model_name, self.config, activation, streams=self.streams)
        self.optimizer = make_optimizer(self.model, self.config)
        shape = (self.config.batch_size, self.config.block_size)
        self.work = work_of(self.model.eval(), self.config, torch.zeros(shape, dtype=torch.long))
        self.model.train()
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        self.facts = {"parameters": parameters, "tokens": self.work.tokens, "flops": self.work.flops}

    def peak(self) -> float:
        from benchmarks.peak import peak_flops

        return peak_flops(self.work)

    def seconds_per_step(self, steps: int) -> float:
        """Mean seconds of a step as the trainer does it, batch and clipping included."""
        from repro_lib.models.determinism import deterministic_arithmetic
        from repro_lib.training.trainer import training_step

        with deterministic_arithmetic():
            started = time.perf_counter()
            for iteration in range(1, steps + 1):
                batch = self.dataset.batch(self.config.batch_size, self.config.block_size, self.streams.order)
                training_step(self.model, self.optimizer, *batch, iteration, self.config)
            return (time.perf_counter() - started) / steps
