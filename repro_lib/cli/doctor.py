"""Is this machine ready? Each check is one line: what was looked at, what was found, what to do about it."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console

from repro_lib.config import GRID_MODELS, Config, project_root

# The default grid was seen to leave 0.6 GB in results/, and its kernels to take about 0.5 GB of memory each.
_DISK_GB, _MEMORY_GB = 2.0, 2.0


@dataclass(frozen=True)
class Finding:
    """One line of the examination; ``ok`` None is a warning, which does not fail it."""

    name: str
    ok: bool | None
    text: str


def examine(console: Console, corpus: str, results_dir: Path) -> int:
    """Run all checks, print each as it ends, and return 0 if the suite can run here, 1 otherwise."""
    failed = 0
    for check in (_python, _packages, _cores, _memory, _disk(results_dir), _device, _corpus(corpus), _training, _kernel):
        for finding in _safely(check):
            mark = {True: "ok  ", False: "FAIL", None: "note"}[finding.ok]
            console.print(f"{mark}  {finding.name}: {finding.text}", markup=False, soft_wrap=True)
            failed += finding.ok is False
    console.print("this machine is ready" if not failed else f"{failed} checks failed; see above for what to do")
    return 1 if failed else 0


def _safely(check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """A check that breaks is a finding too: the examination is for machines where things are broken."""
    try:
        yield from check()
    except Exception as error:
        yield Finding(check.__name__.strip("_"), False, f"{type(error).__name__}: {error}")


def _python() -> Iterator[Finding]:
    # Those for which requirements.lock was made.
    tested = platform.python_version_tuple()[:2] in {("3", "11"), ("3", "12"), ("3", "13")}
    yield Finding(
        "python", True if tested else None, platform.python_version() + ("" if tested else ", the lock is for 3.11 to 3.13")
    )


def _packages() -> Iterator[Finding]:
    from repro_lib.system.environment import mismatches

    wrong = mismatches(project_root())
    # A note, no failure: other versions usually work, only the bits of the published study are not promised with them.
    yield Finding("packages", None if wrong else True, "; ".join(wrong) or "as in requirements.lock")
    if wrong:
        yield Finding("packages", None, "results may differ from those of the lock; ./setup.sh makes an environment that fits")


def _cores() -> Iterator[Finding]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("cores", True, f"{usable} usable, so {usable} cells train at a time")


def _memory() -> Iterator[Finding]:
    free = psutil.virtual_memory().available / 2**30
    yield Finding("memory", free >= _MEMORY_GB, f"{free:.1f} GB free, about {_MEMORY_GB:.0f} GB are needed")


def _disk(folder: Path) -> Callable[[], Iterator[Finding]]:
    def disk() -> Iterator[Finding]:
        # The folder itself need not be there before the first run.
        existing = next(parent for parent in [folder.resolve(), *folder.resolve().parents] if parent.exists())
        free = shutil.disk_usage(existing).free / 2**30
        writable = os.access(existing, os.W_OK)
        yield Finding("disk", free >= _DISK_GB and writable, f"{free:.1f} GB free, {'' if writable else 'NOT '}writable")

    return disk


def _device() -> Iterator[Finding]:
    import torch

    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA device; the CPU profiles do not need one"
    yield Finding("device", True, f"torch {torch.__version__}, {name}")


def _corpus(name: str) -> Callable[[], Iterator[Finding]]:
    def corpus() -> Iterator[Finding]:
        from repro_lib.data import CorpusError, known_corpora, load_corpus

        known = name in known_corpora()
        try:
            loaded = load_corpus(name)
        except CorpusError as error:
            # A known corpus that is not there yet is fetched by the grid; everything else needs a hand.
            to_fetch = known and not (project_root() / "data" / f"{name}.txt").exists()
            yield Finding("corpus", None if to_fetch else False, str(error))
        else:
            pinned = ", as pinned" if known else ""
            about = f"{loaded.name}, {len(loaded.text):,} characters, SHA-256 {loaded.sha256[:16]}...{pinned}"
            yield Finding("corpus", True, about)

    return corpus


def _training() -> Iterator[Finding]:
    """One step of every model of the grid, on random tokens."""
    import torch

    from repro_lib.models.registry import build_model
    from repro_lib.training.trainer import make_optimizer, training_step

    for model_name in GRID_MODELS:
        config = Config.for_model(model_name, batch_size=2, block_size=32, vocab_size=65)
        model, tokens = build_model(model_name, config, "gelu"), torch.arange(2 * 33).remainder(65).view(2, 33)
        started = time.perf_counter()
        loss = training_step(model, make_optimizer(model, config), tokens[:, :-1], tokens[:, 1:], 1, config)
        # The loss of an untrained model of 65 characters is near ln 65 = 4.2 nats; NaN fails both comparisons.
        good = 0 < loss < 20
        yield Finding("training", good, f"{model_name}: one step, loss {loss:.2f} nats, {time.perf_counter() - started:.2f} s")


def _kernel() -> Iterator[Finding]:
    """A notebook of one cell through papermill and a real kernel."""
    import nbformat

    from repro_lib.grid.notebooks import execute

    with tempfile.TemporaryDirectory() as folder:
        notebook = Path(folder) / "probe.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("print(6 * 7)")]), notebook)
        started = time.perf_counter()
        execute(notebook, Path(folder) / "out" / "probe.ipynb", {})
        answered = "42" in (Path(folder) / "out" / "probe.ipynb").read_text()
        yield Finding("kernel", answered, f"a notebook ran in {time.perf_counter() - started:.1f} s")
