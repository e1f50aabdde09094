"""Whole cells: the suite's own trial against the baseline loop, in alternation; and what of a trial is evaluation."""

import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class CellComparison:
    """One model: seconds of a cell of the profile (all trials), by the suite on all cores and by the baseline."""

    model: str
    suite: float
    baseline: float
    ratio: float
    low: float
    high: float
    evaluation_share: float


def compare_cells(
    models: Sequence[str], profile: str, corpus: str, repetitions: int, iterations: int, cores: int
) -> list[CellComparison]:
    """The suite's cells beside the baseline's, ``iterations`` steps of each, scaled to the profile's length.

    The suite trains one trial per core at the same time, one thread each, so that a cell of N trials takes N / cores times
    one trial; the baseline has all cores for one cell. Each is a process of its own, in turn.
    """
    found = []
    for model in models:
        rows = []
        for _ in range(repetitions):
            suite = [_start("suite", model, profile, corpus, iterations, threads=1) for _ in range(cores)]
            mine = [_finish(process) for process in suite]
            theirs = _finish(_start("baseline", model, profile, corpus, iterations, threads=None))
            rows.append((statistics.mean(m[0] for m in mine) / cores, theirs[0], statistics.mean(m[1] for m in mine)))
        ratios = [baseline / suite for suite, baseline, _ in rows]
        medians = [statistics.median(column) for column in zip(*rows, strict=True)]
        found.append(
            CellComparison(model, medians[0], medians[1], statistics.median(ratios), min(ratios), max(ratios), medians[2])
        )
    return found


def _start(what: str, model: str, profile: str, corpus: str, iterations: int, threads: int | None) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.cells", what, model, profile, corpus, str(iterations)]
    if threads:
        command.append(str(threads))
    return subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8")


def _finish(process: subprocess.Popen[str]) -> tuple[float, float]:
    output, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"a benchmark process ended with exit code {process.returncode}")
    seconds, share = output.split()[-2:]
    return float(seconds), float(share)


def _suite(model: str, profile: str, corpus: str, iterations: int) -> tuple[float, float]:
    """Seconds of a cell of the profile on one core, scaled from a trial of ``iterations`` steps; share of evaluation."""
    from repro_lib.config import Config
    from repro_lib.data import load_dataset
    from repro_lib.training import trainer

    whole = Config.for_model(model, profile, corpus=corpus)
    dataset = load_dataset(whole)
    values = {"corpus": corpus, "vocab_size": dataset.vocab_size}
    short = Config.for_model(model, profile, max_iters=iterations, eval_interval=10 * iterations, **values)
    trainer.train_trial(model, "gelu", Config.for_model(model, profile, max_iters=2, **values), dataset)  # warm-up
    spent = 0.0
    predict = trainer.predict_logits

    def timed(*arguments: object) -> object:
        nonlocal spent
        started = time.perf_counter()
        found = predict(*arguments)  # pyright: ignore[reportArgumentType]
        spent += time.perf_counter() - started
        return found

    trainer.predict_logits = timed  # pyright: ignore[reportAttributeAccessIssue]
    started = time.perf_counter()
    trainer.train_trial(model, "gelu", short, dataset)
    seconds = time.perf_counter() - started
    trainer.predict_logits = predict
    # The predictions at kept steps and at the end come once a trial, whatever its length; curve points once an interval.
    points = whole.max_iters // whole.eval_interval
    point = _curve_point(model, short, dataset)
    step = (seconds - spent) / iterations
    evaluation = spent + points * point
    trial = step * whole.max_iters + evaluation
    return whole.trials * trial, evaluation / trial


def _curve_point(model: str, config: object, dataset: object) -> float:
    from repro_lib.models.registry import build_model
    from repro_lib.training import trainer

    built = build_model(model, config, "gelu")  # pyright: ignore[reportArgumentType]
    windows = dataset.windows.every(trainer.CURVE_BLOCK_STEP)  # pyright: ignore[reportAttributeAccessIssue]
    started = time.perf_counter()
    trainer.evaluate_loss(built, windows, config.block_size)  # pyright: ignore[reportAttributeAccessIssue]
    return time.perf_counter() - started


def _baseline(model: str, profile: str, corpus: str, iterations: int) -> tuple[float, float]:
    from benchmarks.baseline import time_baseline
    from repro_lib.config import Config
    from repro_lib.data import load_dataset

    config = Config.for_model(model, profile, corpus=corpus)
    found = time_baseline(model, "gelu", config, load_dataset(config), iterations)
    return found.of_cell(config.max_iters, config.trials), 0.0


def main() -> None:
    """One process of a comparison: prints seconds of a cell and the share of evaluation."""
    import torch

    what, model, profile, corpus, iterations, *threads = sys.argv[1:]
    if threads:
        torch.set_num_threads(int(threads[0]))
    print(*(_suite if what == "suite" else _baseline)(model, profile, corpus, int(iterations)))


if __name__ == "__main__":
    main()
