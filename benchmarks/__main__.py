"""What the suite costs, as ratios measured in one run: ``python -m benchmarks``. Prints tables and writes JSON.

Steps of every model and activation as a share of the processor's peak; whole cells against a plain loop that does what the
earlier study's code does; a real grid, its first report and what it spends beside training; start-up; the metrics at scale.
About half an hour; ``--quick`` a few minutes, with more noise. Run it on a machine that does nothing else.
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.cells import CellComparison, compare_cells
from benchmarks.grid import GridTiming, time_grid
from benchmarks.startup import time_imports, time_metrics, time_startup
from benchmarks.steps import StepTiming, time_steps
from repro_lib.config import GRID_ACTIVATIONS, SMALL_MODELS
from repro_lib.training.origin import describe_environment

SECTIONS = ("steps", "cells", "grid", "startup", "metrics")


def main() -> int:
    """Run the sections that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", choices=SECTIONS, help="which parts; default: all")
    parser.add_argument("--models", nargs="+", default=list(SMALL_MODELS), choices=SMALL_MODELS)
    parser.add_argument("--activations", nargs="+", default=list(GRID_ACTIVATIONS), metavar="NAME")
    parser.add_argument("--profile", default="cpu", help="whose batch and context; default: cpu")
    parser.add_argument("--corpus", default="shakespeare", help="the text to train on; default: shakespeare")
    parser.add_argument("--repetitions", type=int, default=5, metavar="N")
    parser.add_argument("--quick", action="store_true", help="fewer steps and repetitions")
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="grid: another checkout, set up, to be timed first")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/latest.json"), metavar="FILE")
    asked = parser.parse_args()
    sections = asked.sections or SECTIONS
    console, cores = Console(), os.cpu_count() or 1
    repetitions, steps = (2, 5) if asked.quick else (asked.repetitions, 10)
    content: dict[str, object] = {"machine": machine(), "cores": cores, "profile": asked.profile}
    if "steps" in sections:
        cells = [(model, activation) for model in asked.models for activation in asked.activations]
        timings = time_steps(cells, asked.profile, asked.corpus, repetitions, steps, cores)
        content["steps"] = [asdict(timing) for timing in timings]
        console.print(steps_table(timings))
    if "cells" in sections:
        compared = compare_cells(
            asked.models, asked.profile, asked.corpus, 1 if asked.quick else 3, 10 if asked.quick else 50, cores
        )
        content["cells"] = [asdict(row) for row in compared]
        console.print(cells_table(compared, asked.profile))
    if "grid" in sections:
        profile, timed = "smoke" if asked.quick else "quick", None
        for checkout in [*([asked.against] if asked.against else []), None]:
            python = str(checkout.absolute() / ".venv/bin/python") if checkout else sys.executable
            timed = time_grid(profile, asked.corpus, cores, python=python)
            content["grid" if checkout is None else "grid_against"] = asdict(timed)
            title = f"a {profile} grid of {timed.cells} cells, {cores} workers{f', of {checkout}' if checkout else ''}"
            show_seconds(console, title, grid_seconds(timed))
        if "cells" in sections:
            training = len(asked.activations) * sum(row.suite * cores for row in compared)
            share = timed.share_of(training, len(asked.activations) * len(asked.models))
            content["share_beside_training"] = share
            console.print(f"of a {asked.profile} grid of these cells that would be {share:.1%}")
    if "startup" in sections:
        content["startup"] = show_seconds(console, "start-up, seconds (median)", time_startup(repetitions))
        content["imports"] = show_seconds(
            console, "core seconds of a notebook's imports, anew (median)", time_imports(repetitions)
        )
    if "metrics" in sections:
        content["metrics"] = show_seconds(console, "trials of 16,384 tokens x 76 characters, seconds", time_metrics())
    asked.json.write_text(json.dumps(content, indent=1) + "\n")
    console.print(f"written: {asked.json}")
    return 0


def grid_seconds(timed: GridTiming) -> dict[str, float]:
    """The rows of the table of a grid."""
    return {
        "first report": timed.first_report,
        "whole grid": timed.wall,
        "core seconds": timed.core_seconds,
        "core seconds of training": timed.training,
        "core seconds beside training, per cell": timed.beside_training / timed.cells,
        "the same command again": timed.again,
        "megabytes of results": timed.megabytes,
    }


def machine() -> str:
    """Processor, system and versions."""
    found = describe_environment("cpu")
    return f"{found['cpu']}, {platform.system()}, Python {found['python']}, torch {found['torch']}"


def steps_table(timings: Sequence[StepTiming]) -> Table:
    """A row per model and activation; the step beside the relu step of its model."""
    table = Table(title="one training step, all cores busy, one thread each")
    for heading in ("model", "activation", "ms", "tokens/s", "GFLOP/s", "peak", "share of peak", "spread", "x relu"):
        table.add_column(heading, justify="left" if heading in ("model", "activation") else "right")
    relu = {timing.model: timing.milliseconds for timing in timings if timing.activation == "relu"}
    for t in timings:
        beside = f"{t.milliseconds / relu[t.model]:.2f}" if t.model in relu else "–"
        numbers = (f"{t.milliseconds:.1f}", f"{t.tokens_per_second:,.0f}", f"{t.gflops:.1f}", f"{t.peak_gflops:.1f}")
        table.add_row(t.model, t.activation, *numbers, f"{t.utilisation:.0%}", f"{t.low:.0%} to {t.high:.0%}", beside)
    return table


def cells_table(rows: Sequence[CellComparison], profile: str) -> Table:
    """A row per model, and the whole grid: a cell of every model as often as it has activations."""
    table = Table(title=f"a cell of the {profile} profile, scaled from a part of it")
    for heading in ("model", "suite, s", "baseline, s", "ratio", "spread", "evaluation"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    for row in rows:
        spread = f"{row.low:.2f} to {row.high:.2f}"
        numbers = (f"{row.suite:.0f}", f"{row.baseline:.0f}", f"{row.ratio:.2f}", spread, f"{row.evaluation_share:.1%}")
        table.add_row(row.model, *numbers)
    suite, baseline = sum(row.suite for row in rows), sum(row.baseline for row in rows)
    table.add_row("all", f"{suite:.0f}", f"{baseline:.0f}", f"{baseline / suite:.2f}", "", "")
    return table


def show_seconds(console: Console, title: str, seconds: dict[str, float]) -> dict[str, float]:
    """Print named seconds."""
    table = Table(title=title)
    table.add_column("what")
    table.add_column("seconds", justify="right")
    for name, value in seconds.items():
        table.add_row(name, f"{value:.2f}")
    console.print(table)
    return seconds


if __name__ == "__main__":
    raise SystemExit(main())
