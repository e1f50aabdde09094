"""Harm done to a real grid: kills, full disks, cells that misbehave, a second grid in the same folder.

Whatever happens, the store in the end is that of an undisturbed run, digest by digest, and nothing is left lying about."""

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from grids import Digests, Folder, flags, store_digests, undisturbed_digests
from interrupting import wait_for
from kinds import Tiny
from mounting import mounted

from repro_lib.config import Config
from repro_lib.report.notebook_names import analyses_of
from repro_lib.store.store import Store
from repro_lib.system.leases import LeaseLostError
from repro_lib.training.experiment import run_experiment

MODELS = ("charlm", "tinylstm")
VALUES = {"trials": 2, "max_iters": 60}
KILLS = 8
CELLS = ["--models", *MODELS, "--activations", "relu", *flags(VALUES)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, corpus_file: Path) -> Digests:
    return undisturbed_digests(tmp_path_factory.mktemp("undisturbed"), corpus_file, MODELS, VALUES)


def victims(grid: subprocess.Popen[str], kind: str) -> list[psutil.Process]:
    """The processes of this kind that a grid has at the moment."""
    try:
        parent = psutil.Process(grid.pid)
        if kind == "parent":
            return [parent]
        servers = [child for child in parent.children() if "serve_forks" in " ".join(child.cmdline())]
        workers = [worker for server in servers for worker in server.children()]
        # One that waits to be a kernel has a single thread.
        kernels = [kernel for worker in workers for kernel in worker.children() if kernel.num_threads() > 1]
        return {"server": servers, "worker": workers, "kernel": kernels}[kind]
    except psutil.NoSuchProcess:
        return []


@pytest.mark.slow
def test_after_kernel_worker_server_and_parent_were_killed_the_store_is_whole(folder: Folder, undisturbed: Digests) -> None:
    chance, killed = random.Random(20), []
    grid, until = folder.start("grid", *CELLS), time.monotonic() + 280
    while len(killed) < KILLS and time.monotonic() < until:
        kind = ("kernel", "worker", "server", "parent")[len(killed) % 4]
        time.sleep(chance.uniform(0.2, 2.5))
        if grid.poll() is not None:
            # Through, with or without cells that were killed three times in a row: there must be something to do again.
            for path in list(folder.results.glob("*.json"))[:1]:
                path.unlink()
            grid = folder.start("grid", *CELLS)
        elif living := victims(grid, kind):
            with contextlib.suppress(psutil.NoSuchProcess):
                chance.choice(living).kill()
                killed.append(kind)
                if kind == "parent":
                    grid.communicate(timeout=10)
                    # Its folder for temporary files is left where it had no worker yet; the next grid removes it.
                    wait_for(lambda: not folder.alive(), 5)
                    grid = folder.start("grid", *CELLS)
    output, error = grid.communicate(timeout=900)
    assert (len(killed), error) == (KILLS, "")
    if grid.returncode != 0:  # a cell was killed three times in a row
        failed = re.findall(r"^FAILED .*$", output, re.MULTILINE)
        assert all(re.search(r"killed by signal SIGKILL.*, 3 times in a row", line) for line in failed)
        code, output, error = folder.run("grid", *CELLS)
        assert (code, error) == (0, ""), output
    assert store_digests(folder.results) == undisturbed
    folder.assert_nothing_is_left()
    folder.assert_only_whole_files_are_left()
    # Every page is there, made from an executed notebook.
    stems = [*(f"10_train-{model}-relu" for model in MODELS), *(f"20_deep_dive-{model}" for model in MODELS)]
    for stem in [*stems, "30_cross_model", "50_what_if", "00_quickstart", "01_activations"]:
        assert "source-sha256" in (folder.reports / f"{stem}.html").read_text(), stem


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "at_work", "number"),
    [("grid", "kernel", signal.SIGTERM), ("train", "worker", signal.SIGHUP), ("grid", "kernel", signal.SIGINT)],
)
def test_a_command_that_is_told_to_stop_does_so(folder: Folder, command: str, at_work: str, number: signal.Signals) -> None:
    # Far longer than it takes to look: a command that is through by then has given the signals back, and dies of one.
    grid = folder.start(command, *CELLS, "--max_iters", "5000")
    wait_for(lambda: victims(grid, at_work))
    # Ctrl-C in a terminal reaches every process of the group.
    os.killpg(grid.pid, number) if number == signal.SIGINT else grid.send_signal(number)
    _, error = grid.communicate(timeout=60)
    assert grid.returncode == 128 + number, error
    assert error == "repro: interrupted; what is finished is kept, and the same command goes on from there\n"
    folder.assert_nothing_is_left()
    folder.assert_only_whole_files_are_left()


@pytest.mark.slow
def test_two_grids_and_a_training_in_one_folder_make_every_cell_once(folder: Folder, undisturbed: Digests) -> None:
    grids = [folder.start("grid", *CELLS), folder.start("grid", *CELLS), folder.start("train", *CELLS)]
    ended = [(*grid.communicate(timeout=300), grid.returncode) for grid in grids]
    assert [(code, error) for _, error, code in ended] == [(0, "")] * 3, ended
    # One result file per cell: a second training would have left a second file, for none is overwritten.
    assert store_digests(folder.results) == undisturbed
    # And each notebook was executed by one of the two: whoever came second found it made.
    lines = [line for output, _, _ in ended[:2] for line in output.splitlines() if re.search(r" in \d+ s|done in", line)]
    made: dict[str, list[bool]] = {}
    for line in lines:
        label = re.sub(r"^\[\d+/\d+\] ", "", line).partition(":")[0]
        made.setdefault(label, []).append("made by another process meanwhile" not in line)
    assert len(made) == len(undisturbed) + len(MODELS) + len(analyses_of(undisturbed)) + 1
    assert {label: sum(by) for label, by in made.items()} == dict.fromkeys(made, 1)
    folder.assert_nothing_is_left()
    folder.assert_only_whole_files_are_left()


@pytest.mark.slow
def test_a_cell_that_somebody_trains_by_hand_is_waited_for(folder: Folder, undisturbed: Digests) -> None:
    """As in a notebook that is open in JupyterLab: the lease is held by whoever calls run_experiment."""
    words = ["--models", "charlm", "--activations", "relu", *flags(VALUES)]
    config = Config.for_model("charlm", "smoke", corpus=str(folder.corpus), **VALUES)
    train: list[subprocess.Popen[str]] = []

    def watch(_progress: object) -> None:
        if not train:
            train.append(folder.start("train", *words))
            assert train[0].stdout is not None
            said = ""
            while "waiting for what other processes have in work: charlm-relu" not in said:
                said = train[0].stdout.readline()
                assert said, "the training ended without waiting"

    result = run_experiment("charlm", "relu", config, results_dir=folder.results, progress=watch)
    output, error = train[0].communicate(timeout=60)
    assert (train[0].returncode, error) == (0, "")
    assert "charlm-relu: relative PD" in output
    assert "(made by another process meanwhile)" in output
    made = store_digests(folder.results)
    assert made == {cell: found for cell, found in undisturbed.items() if cell[0] == "charlm-relu"}
    assert list(made) == [("charlm-relu", result.config_sha256)]


# Makes the kernels of a grid misbehave, each cell in its own way, by what run_experiment does in them.
MISBEHAVE = """
import importlib.abc, importlib.machinery, os, resource, sys, time

def misbehave(activation):
    if activation == "relu":
        os.kill(os.getpid(), 9)
    elif activation == "gelu":
        resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33))
        bytearray(2**36)
    elif activation == "swish":
        time.sleep(600)
    elif activation == "swiglu":
        for _ in range(1000):
            print("x" * 99_999)
    else:
        raise RuntimeError("on purpose")

class Hook(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name != "repro_lib.training.experiment":
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        load = spec.loader.exec_module
        def exec_module(module):
            load(module)
            honest = module.run_experiment
            def run_experiment(model, activation, *words, **more):
                if model == "charlm":  # the tour trains another
                    misbehave(activation)
                return honest(model, activation, *words, **more)
            module.run_experiment = run_experiment
        spec.loader.exec_module = exec_module
        return spec

if any("serve_forks" in word for word in sys.orig_argv):
    sys.meta_path.insert(0, Hook())
"""


@pytest.mark.slow
def test_a_grid_of_cells_that_misbehave_says_of_each_what_it_did_and_ends_properly(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(MISBEHAVE)
    words = ["--models", "charlm", "--activations", "relu", "gelu", "swish", "swiglu", "smelu_1", "--cell-timeout", "90"]
    code, output, error = folder.run("grid", *words, "--trials", "2", PYTHONPATH=str(tmp_path / "hook"))
    assert (code, error) == (1, ""), output
    failed = dict(re.findall(r"^FAILED (\S+): (.*)$", output, re.MULTILINE))
    expected = {
        "charlm-relu": r"its kernel was killed by signal SIGKILL LOOK, 3 times in a row",
        "charlm-gelu": r"MemoryError: out of memory LOOK",
        "charlm-swish": r"it was stopped at its time limit of 90 s; --cell-timeout gives it more LOOK",
        "charlm-smelu_1": r"RuntimeError: on purpose LOOK",
    }
    assert failed.keys() == expected.keys()
    for label, sentence in expected.items():
        look = rf"\(see .*10_train-{label}\.failed\.ipynb\)"
        assert re.fullmatch(sentence.replace("LOOK", look), failed[label]), failed[label]
    # A kill is no fault of the cell: tried again, twice. All else is tried once.
    again = re.findall(r"^(\S+): .*; trying again, attempt (\d) of 3$", output, re.MULTILINE)
    assert again == [("charlm-relu", "2"), ("charlm-relu", "3")]
    cut = r"cell \d+: this cell printed 100,000,000 characters to stdout by its end; the first 1,000,000 are kept"
    assert re.search(rf"charlm-swiglu: relative PD .* \({cut}\)", output)
    assert [cell for cell, _ in store_digests(folder.results)] == ["charlm-swiglu"]
    reasons = {note["activation"]: note["reason"] for note in Store(folder.results).failures()}
    assert {f"charlm-{name}": reason for name, reason in reasons.items()} == failed
    assert "on purpose" in (folder.reports / "index.html").read_text()
    # What there was to analyse was analysed.
    assert "source-sha256" in (folder.reports / "20_deep_dive-charlm.html").read_text()
    folder.assert_nothing_is_left()


@pytest.fixture
def disk(folder: Folder) -> Iterator[Callable[[str], None]]:
    """The results folder as a disk of its own, too small for both cells; ``disk("...")`` changes it."""
    with mounted(folder.results, "-t", "tmpfs", "-o", "size=2m", "tmpfs") as remount:
        yield remount


@pytest.mark.slow
def test_on_a_full_disk_each_cell_fails_with_a_sentence_and_the_finished_ones_stay(
    folder: Folder, undisturbed: Digests, disk: Callable[[str], None]
) -> None:
    code, output, error = folder.run("grid", *CELLS, "--workers", "1")
    assert (code, error) == (1, ""), output
    failed = re.findall(r"^FAILED (.*)$", output, re.MULTILINE)
    assert any("could not be written because the disk is full; free some space" in sentence for sentence in failed), output
    assert not any("Traceback" in sentence for sentence in failed)
    # The index lies elsewhere, and says it too.
    assert "the disk is full" in (folder.reports / "index.html").read_text()
    assert len(store_digests(folder.results)) < len(undisturbed)
    assert store_digests(folder.results).items() <= undisturbed.items()
    assert list(folder.results.rglob("*.tmp")) == []
    folder.assert_nothing_is_left()
    # With room again the same command makes the rest.
    disk("size=100m")
    code, output, error = folder.run("grid", *CELLS)
    assert (code, error) == (0, ""), output
    assert store_digests(folder.results) == undisturbed
    folder.assert_only_whole_files_are_left()


def test_a_read_only_folder_is_said_once_and_can_still_be_read(folder: Folder, tiny: Tiny, disk: Callable[[str], None]) -> None:
    first = run_experiment("charlm", "gelu", tiny("charlm"), results_dir=folder.results)
    disk("ro")
    assert run_experiment("charlm", "gelu", tiny("charlm"), results_dir=folder.results) == first
    code, output, error = folder.run("grid", *CELLS)
    assert (code, output) == (1, "")
    assert re.fullmatch(r"repro: \S+ could not be written because \S+results is read-only; choose another folder.*\n", error)
    folder.assert_nothing_is_left()


def test_a_folder_deleted_while_a_cell_trains_costs_that_cell_alone(folder: Folder, tiny: Tiny) -> None:
    def delete(_progress: object) -> None:
        shutil.rmtree(folder.results, ignore_errors=True)

    config = tiny("charlm", trials=2)
    with pytest.raises(LeaseLostError, match=r"charlm with relu, trial 1, is gone: .*results was deleted or emptied meanwhile"):
        run_experiment("charlm", "relu", config, results_dir=folder.results, progress=delete)
    assert store_digests(folder.results) == {}
    run_experiment("charlm", "relu", config, results_dir=folder.results)
    assert len(store_digests(folder.results)) == 1


@pytest.mark.slow
def test_a_folder_deleted_while_a_grid_runs_is_said_of_every_cell_that_was_lost(folder: Folder, undisturbed: Digests) -> None:
    train = folder.start("train", *CELLS, "--workers", "1")
    wait_for(lambda: list(folder.results.glob("*.json")))
    shutil.rmtree(folder.results, ignore_errors=True)
    output, error = train.communicate(timeout=120)
    assert (train.returncode, error) == (1, ""), output
    failed = dict(re.findall(r"^FAILED (\S+): (.*)$", output, re.MULTILINE))
    kept = store_digests(folder.results)
    assert len(failed) + len(kept) == len(undisturbed)
    assert failed, output
    for sentence in failed.values():
        assert re.search(r"(was|is) (gone|deleted)|could not be written because \S+ is gone", sentence), sentence
    assert kept.items() <= undisturbed.items()
    code, output, error = folder.run("train", *CELLS)
    assert (code, error) == (0, ""), output
    assert store_digests(folder.results) == undisturbed
