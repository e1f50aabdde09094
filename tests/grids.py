"""Grids for tests: started as users start them, in folders of their own, with nothing left over; and their digests."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
from interrupting import listen_to_signals

from repro_lib.config import Config
from repro_lib.store.store import Store
from repro_lib.training.experiment import run_experiment

Digests = dict[tuple[str, str], list[tuple[str, str]]]


class Folder:
    """A results and a reports folder, and a place for temporary files: what a grid may leave traces in."""

    def __init__(self, root: Path, temporary: Path, corpus: Path) -> None:
        self.results, self.reports, self.temporary, self.corpus = root / "results", root / "reports", temporary, corpus
        self.started: list[subprocess.Popen[str]] = []

    def start(self, command: str, *words: str, **environment: str) -> subprocess.Popen[str]:
        """Start a command; what stands behind -- among the words stays at the end."""
        words, behind = (words[: words.index("--")], words[words.index("--") :]) if "--" in words else (words, ())
        line = [sys.executable, "-m", "repro_lib", command, "--profile", "smoke", "--workers", "2"]
        line += ["--corpus", str(self.corpus), "--results-dir", str(self.results), "--reports-dir", str(self.reports), *words]
        if command == "grid" and "--noise-models" not in words:
            line.append("--noise-models")
        process = subprocess.Popen(
            [*line, *behind],
            env={**os.environ, "TMPDIR": str(self.temporary)} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=listen_to_signals,
        )
        self.started.append(process)
        return process

    def run(self, command: str, *words: str, **environment: str) -> tuple[int, str, str]:
        process = self.start(command, *words, **environment)
        # Not a test of speed: 54 jobs on a busy one-node Slurm took over ten minutes once.
        output, error = process.communicate(timeout=1800)
        return process.returncode, output, error

    def alive(self) -> list[psutil.Process]:
        """Every process that was started with our place for temporary files: grids, workers, kernels, what those started."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("TMPDIR", "").startswith(str(self.temporary)) and process.status() != "zombie":
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
        return found

    def assert_nothing_is_left(self, seconds: float = 5.0) -> None:
        """No process, no socket, key or other temporary file, within the given time."""
        until = time.monotonic() + seconds
        while (self.alive() or self._temporary_files()) and time.monotonic() < until:
            time.sleep(0.05)
        alive, files = [_about(process) for process in self.alive()], self._temporary_files()
        assert not alive, alive
        assert not files, files

    def _temporary_files(self) -> list[Path]:
        # torch makes an empty cache of compiled code there, unless a process before has told it by a variable where one is.
        return [path for path in self.temporary.iterdir() if not path.name.startswith("torchinductor_")]

    def assert_only_whole_files_are_left(self) -> None:
        kinds = ("*.tmp", "*.lease", "*.removal", "*.partial.ipynb", "*.failed.ipynb")
        left = [str(path) for kind in kinds for folder in (self.results, self.reports) for path in folder.rglob(kind)]
        assert not left, left
        assert Store(self.results).load()[1] == []
        assert Store(self.results).failures() == []


def _about(process: psutil.Process) -> str:
    """What a process is, for a message."""
    try:
        return f"{process.pid} (parent {process.ppid()}, {process.status()}): {' '.join(process.cmdline())}"
    except psutil.NoSuchProcess:
        return f"{process.pid}, gone by now"


def flags(values: dict[str, int]) -> list[str]:
    return [word for name, value in values.items() for word in (f"--{name}", str(value))]


def store_digests(results: Path) -> Digests:
    """The digests of all trials of a folder, by cell and configuration: every array that training leaves."""
    stored = [result for _, result in Store(results).load()[0]]
    assert len({(r.model_name, r.activation, r.config_sha256) for r in stored}) == len(stored), "a cell was made twice"
    return {
        (f"{r.model_name}-{r.activation}", r.config_sha256): [(t.weights_sha256, t.predictions_sha256) for t in r.trials]
        for r in stored
    }


def undisturbed_digests(results: Path, corpus: Path, models: Sequence[str], values: dict[str, Any]) -> Digests:
    """The digests of relu's cells, trained here, one after the other."""
    for model in models:
        run_experiment(model, "relu", Config.for_model(model, "smoke", corpus=str(corpus), **values), results_dir=results)
    return store_digests(results)


@pytest.fixture
def folder(tmp_path: Path, corpus_file: Path) -> Iterator[Folder]:
    with tempfile.TemporaryDirectory(prefix="h-", dir="/tmp") as temporary:
        folder = Folder(tmp_path, Path(temporary), corpus_file)
        yield folder
        for process in [*folder.started, *folder.alive()]:
            process.kill()


# The model with every source of randomness, and the negative control.
SMOKE_GRID = ("--models", "charlm", "tinylstm", "--noise-models", "charlm")


@pytest.fixture(scope="session")
def smoke_grid(tmp_path_factory: pytest.TempPathFactory, corpus_file: Path) -> Path:
    """A folder with a smoke grid of two models, all activations and all variants; not to be changed."""
    root = tmp_path_factory.mktemp("smoke")
    command = [sys.executable, "-m", "repro_lib", "grid", "--profile", "smoke", "--corpus", str(corpus_file), *SMOKE_GRID]
    command += ["--results-dir", str(root / "results"), "--reports-dir", str(root / "reports")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    return root
