"""The first second of every command, and the metrics of many trials."""

import json
import os
import statistics
import subprocess
import sys
import time

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


def time_metrics(trials: int = 32, tokens: int = 16_384, vocabulary: int = 76) -> dict[str, float]:
    """Seconds for the matrices of all metrics between many trials, from logits as they are stored."""
    import torch

    from repro_lib.store.predictions import Predictions, compare_all

    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(vocabulary, (tokens,), generator=generator).numpy()
    common = torch.randn(tokens, vocabulary, generator=generator)
    made = [
        Predictions((common + 0.3 * torch.randn(tokens, vocabulary, generator=generator)).numpy(), labels, "0" * 64)
        for _ in range(trials)
    ]
    seconds = {}
    for threads in sorted({1, os.cpu_count() or 1}):
        for trial in made:
            trial.__dict__.pop("probabilities", None)  # computed once and kept: not for the next turn
        started = time.perf_counter()
        compare_all(made, threads)
        seconds[f"all metrics of all pairs, {threads} thread{'s' if threads > 1 else ''}"] = time.perf_counter() - started
    return seconds
