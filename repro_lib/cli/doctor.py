"""Is this machine ready? Each check is one line: what was looked at, what was found, what to do about it."""

import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
from rich.console import Console

from repro_lib.config import GRID_MODELS, Config, checkout, project_root
from repro_lib.system.environment import mismatches
from repro_lib.system.processes import control_group, usable_cores

# The default grid was seen to leave 0.6 GB in results/, and its kernels to take about 0.5 GB of memory each.
_DISK_GB, _MEMORY_GB = 2.0, 2.0
_MARKS = {True: "ok  ", False: "FAIL", None: "note"}

# One line of the examination: what was looked at, whether it is well (None is a warning, which fails nothing), what was found.
Finding = tuple[str, bool | None, str]


def examine(console: Console, corpus: str, results_dir: Path) -> int:
    """Run all checks, print each as it ends, and return 0 if the suite can run here, 1 otherwise."""
    failed = 0
    checks = (_python, _packages, partial(_machine, results_dir), _device, partial(_corpus, corpus), _training, _kernel)
    for check in checks:
        for name, ok, text in _safely(check):
            console.print(f"{_MARKS[ok]}  {name}: {text}")
            failed += ok is False
    console.print("this machine is ready" if not failed else f"not ready, {failed} failed; see above for what to do")
    return 1 if failed else 0


def _safely(check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from check()
    # A check that breaks is a finding too: the examination is for machines where things are broken.
    except Exception as error:
        yield getattr(check, "func", check).__name__.strip("_"), False, f"{type(error).__name__}: {error}"


def _python() -> Iterator[Finding]:
    # Those for which requirements.lock was made.
    tested = platform.python_version_tuple()[:2] in {("3", "11"), ("3", "12"), ("3", "13")}
    yield "python", tested or None, platform.python_version() + ("" if tested else ", the lock is for 3.11 to 3.13")


def _packages() -> Iterator[Finding]:
    if (here := checkout()) is None:
        yield "packages", None, "the package is installed by itself, so there is no lock to compare them with"
        return
    wrong = mismatches(here)
    # A note, no failure: other versions usually work, only the bits of the published study are not promised with them.
    yield "packages", not wrong or None, "; ".join(wrong) or "as in requirements.lock"
    if wrong:
        yield "packages", None, "results may differ from those of the lock; ./setup.sh makes an environment that fits"


def _machine(folder: Path) -> Iterator[Finding]:
    yield "cores", True, f"{usable_cores()} usable, so {usable_cores()} cells train at a time"
    memory = _free_memory() / 2**30
    yield "memory", memory >= _MEMORY_GB, f"{memory:.1f} GB free, about {_MEMORY_GB:.0f} GB are needed"
    # The folder itself need not be there before the first run.
    existing = next(parent for parent in [folder.resolve(), *folder.resolve().parents] if parent.exists())
    disk, writable = shutil.disk_usage(existing).free / 2**30, os.access(existing, os.W_OK)
    yield "disk", disk >= _DISK_GB and writable, f"{disk:.1f} GB free, {'' if writable else 'NOT '}writable"


def _free_memory() -> int:
    # In bytes: of the machine's, or of what is left of its container's, where that is less.
    free = [psutil.virtual_memory().available]
    for most, taken in (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")):
        limits = zip(control_group(most), control_group(taken), strict=False)
        free += [int(limit[0]) - int(used[0]) for limit, used in limits if limit[0] != "max"]
    return max(0, min(free))


def _device() -> Iterator[Finding]:
    import torch

    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA device; the CPU profiles do not need one"
    yield "device", True, f"torch {torch.__version__}, {name}"


def _corpus(name: str) -> Iterator[Finding]:
    from repro_lib.data import CORPORA, CorpusError, load_corpus

    known = name in CORPORA
    try:
        loaded = load_corpus(name)
    except CorpusError as error:
        # A known corpus that is not there yet is fetched by the grid; everything else needs a hand.
        to_fetch = known and not (project_root() / "data" / f"{name}.txt").exists()
        yield "corpus", None if to_fetch else False, str(error)
    else:
        about = f"{loaded.name}, {len(loaded.text):,} characters, SHA-256 {loaded.sha256[:16]}..."
        yield "corpus", True, about + (", as pinned" if known else "")


def _training() -> Iterator[Finding]:
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
        yield "training", good, f"{model_name}: one step, loss {loss:.2f} nats, {time.perf_counter() - started:.2f} s"


def _kernel() -> Iterator[Finding]:
    import nbformat

    from repro_lib.grid.notebooks import execute

    with tempfile.TemporaryDirectory() as folder:
        notebook, out = Path(folder) / "probe.ipynb", Path(folder) / "out" / "probe.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("print(6 * 7)")]), notebook)
        started = time.perf_counter()
        execute(notebook, out, {})
        yield "kernel", "42" in out.read_text(encoding="utf-8"), f"a notebook ran in {time.perf_counter() - started:.1f} s"
