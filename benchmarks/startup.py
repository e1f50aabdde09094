"""The first second of every command, and the metrics of many trials."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import product

from repro_lib.grid.notebooks import notebooks_dir


def time_startup(repetitions: int) -> dict[str, float]:
    """Median seconds of fresh processes: what Python, torch and the library cost to import, and what ``--help`` takes."""
    commands = {
        "python alone": ["-c", "pass"],
        "import torch": ["-c", "import torch"],
        "import repro_lib": ["-c", "import repro_lib"],
        "import torch, repro_lib, run_experiment": ["-c", "import torch; from repro_lib import run_experiment"],
        "repro --help": ["-m", "repro_lib", "--help"],
    }
    found: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(repetitions):
        for name, arguments in commands.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
            found[name].append(time.perf_counter() - started)
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def time_imports(repetitions: int) -> dict[str, float]:
    """Median core seconds that the first cell of each notebook takes in a fresh process, as in JupyterLab's kernels."""
    found: dict[str, list[float]] = {}
    for _ in range(repetitions):
        for notebook in sorted(notebooks_dir().glob("*.ipynb")):
            cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
            imports = next("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
            script = f"import time; begun = time.process_time(); exec({imports!r}, {{}}); print(time.process_time() - begun)"
            process = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
            found.setdefault(notebook.stem, []).append(float(process.stdout))
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def time_metrics(trials: Sequence[int] = (20, 32), tokens: int = 16_384, vocabulary: int = 76) -> dict[str, float]:
    """Seconds for the matrices of all metrics between many trials, from logits as they are stored: the best of five.

    Beside the wall time stand the CPU seconds of all threads, which say more where other work shares the processor.
    """
    import torch

    from repro_lib.store.predictions import Predictions, compare_all

    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(vocabulary, (tokens,), generator=generator).numpy()
    common = torch.randn(tokens, vocabulary, generator=generator)
    made = [
        Predictions((common + 0.3 * torch.randn(tokens, vocabulary, generator=generator)).numpy(), labels, "0" * 64)
        for _ in range(max(trials))
    ]
    seconds = {}
    for count, threads in product(trials, sorted({1, min(2, os.cpu_count() or 1)})):
        found = []
        for _ in range(5):
            started = time.perf_counter(), time.process_time()
            compare_all(made[:count], threads)
            found.append((time.perf_counter() - started[0], time.process_time() - started[1]))
        name = f"all metrics of all pairs of {count}, {threads} thread{'s' if threads > 1 else ''}"
        seconds |= {name: min(wall for wall, _ in found), f"{name}: CPU": min(cpu for _, cpu in found)}
    return seconds
