"""The grid by Snakemake on this machine: the store of the local executor, digest by digest, whatever is killed meanwhile."""

import contextlib
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from grids import Digests, Folder, flags, store_digests, undisturbed_digests
from interrupting import wait_for
from rich.console import Console

from repro_lib.cli.main import main
from repro_lib.cli.parser import grid_request, parse, request_of, snakemake_config
from repro_lib.config import ConfigError
from repro_lib.data import corpus_sha256
from repro_lib.grid.cells import GridRequest
from repro_lib.grid.display import Display
from repro_lib.grid.snakemake import executor
from repro_lib.grid.snakemake.executor import plan_jobs, write_plan
from repro_lib.grid.snakemake.run_job import plan_folder, read_plan
from repro_lib.grid.tasks import Tasks
from repro_lib.store.store import Store

pytestmark = pytest.mark.xdist_group("grid")

MODELS = ("charlm", "tinylstm")
VALUES = {"trials": 2, "max_iters": 200}
CELLS = ["--models", *MODELS, "--activations", "relu", *flags(VALUES), "--checkpoint-seconds", "0"]
SNAKEMAKE = ["--executor", "snakemake"]
WORKFLOW = Path(__file__).parents[2] / "workflow"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, corpus_file: Path) -> Digests:
    return undisturbed_digests(tmp_path_factory.mktemp("undisturbed"), corpus_file, MODELS, VALUES)


def jobs_of(folder: Folder) -> list[psutil.Process]:
    """The living jobs of a folder's grids."""
    found = []
    for process in folder.alive():
        with contextlib.suppress(psutil.Error):
            found += [process] if "run-job" in process.cmdline() else []
    return found


def training(folder: Folder) -> bool:
    """Whether a job has begun to train: a trial has a checkpoint."""
    return any((folder.results / "checkpoints").glob("*.safetensors"))


def plain(folder: Folder, *words: str) -> str:
    """What Snakemake says that is called without ``repro``, as its users do."""
    settings = {"profile": "smoke", "models": "charlm", "activations": "relu", "corpus": folder.corpus} | VALUES
    settings |= {"results_dir": folder.results, "reports_dir": folder.reports}
    command = [sys.executable, "-m", "snakemake", "--snakefile", WORKFLOW / "Snakefile", "--directory", folder.temporary]
    command += ["--profile", WORKFLOW / "profiles" / "local", *words, "--config"]
    line = [str(word) for word in [*command, *(f"{name}={value}" for name, value in settings.items())]]
    done = subprocess.run(line, capture_output=True, text=True, check=False, env={**os.environ, "HOME": str(folder.temporary)})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_snakemake_alone_runs_the_snakefile_and_every_executor_finds_it_done(folder: Folder, undisturbed: Digests) -> None:
    counts = dict(re.findall(r"^(\w+) +(\d+)$", plain(folder, "--dry-run"), re.MULTILINE))
    once = dict.fromkeys(("all", "corpus", "cell", "deep_dive", "site"), 1) | {"analysis": 1}
    assert counts == {name: str(count) for name, count in (once | {"total": sum(once.values())}).items()}
    assert not list(folder.results.glob("*.json")), "a dry run trained"
    plain(folder)
    assert store_digests(folder.results) == {cell: found for cell, found in undisturbed.items() if cell[0] == "charlm-relu"}
    # One cell has nothing to be compared with.
    pages = {"index.html", "10_train-charlm-relu.html", "20_deep_dive-charlm.html"}
    assert {path.name for path in folder.reports.glob("*.html")} == pages
    assert "Nothing to be done" in plain(folder)
    # The result alone decides: what is done is not asked for, and what is gone is made again.
    words = ["--models", "charlm", "--activations", "relu", *flags(VALUES)]
    code, output, error = folder.run("grid", *words, *SNAKEMAKE)
    assert (code, "0 cells were run" in output) == (0, True), output + error
    assert "rule cell" not in error
    assert "1 cell is done already, 0 to do" in folder.run("grid", *words)[1]
    next(folder.results.glob("charlm-relu*.json")).unlink()
    assert re.search(r"^cell +1$", plain(folder, "--dry-run"), re.MULTILINE)


def test_it_needs_neither_names_of_models_nor_a_home_nor_a_folder_without_braces(folder: Folder) -> None:
    folder.results = folder.results.parent / "a {y}" / "results"
    code, output, error = folder.run("grid", *SNAKEMAKE, "--", "--dry-run", HOME="/proc/nowhere", XDG_CACHE_HOME="")
    assert code == 0, output + error
    assert re.search(r"^cell +30$", output + error, re.MULTILINE)


@pytest.mark.slow
def test_a_killed_job_and_a_killed_command_change_nothing_in_the_store(folder: Folder, undisturbed: Digests) -> None:
    words = [*CELLS, "--trials-per-job", "1", *SNAKEMAKE, "--", "--until", "cell"]
    grid = folder.start("grid", *words)
    wait_for(lambda: training(folder), 180)
    jobs_of(folder)[0].kill()
    log = folder.results / "workflow" / ".snakemake" / "log"
    wait_for(lambda: "Trying to restart job" in "".join(path.read_text() for path in log.glob("*.log")), 180)
    grid.kill()
    grid.communicate()
    # Nothing goes on without it on this machine; on a cluster jobs would.
    wait_for(lambda: not folder.alive(), 20)
    code, output, error = folder.run("grid", *words)
    assert code == 0, output + error
    assert store_digests(folder.results) == undisturbed
    # Each trial was trained by itself, and nothing of that is left.
    assert len(list(folder.results.glob("workflow/smoke-*/done/trials/*"))) == 4
    assert list((folder.results / "checkpoints").iterdir()) == []
    folder.assert_only_whole_files_are_left()


@pytest.mark.slow
def test_a_second_command_is_refused_and_the_first_cancels_its_jobs_when_told_to_stop(folder: Folder) -> None:
    words = [*CELLS, "--max_iters", "4000", *SNAKEMAKE]
    grid = folder.start("grid", *words)
    wait_for(lambda: training(folder), 180)
    code, _, error = folder.run("grid", *words)
    assert code == 2
    assert re.fullmatch(rf"repro: process {grid.pid} on \S+ is at work on this grid since .*\n", error)
    grid.send_signal(signal.SIGINT)
    _, error = grid.communicate(timeout=90)
    assert grid.returncode == 130, error
    assert error.endswith("repro: interrupted; what is finished is kept, and the same command goes on from there\n")
    folder.assert_nothing_is_left(20)
    folder.assert_only_whole_files_are_left()


KILL_ONE = """
import os, sys, threading, time
from pathlib import Path
if sys.orig_argv[-1] == "tinylstm-relu":
    def kill():
        while not (Path(sys.orig_argv[-2]).parent / "failed" / "tinylstm-relu").exists():
            time.sleep(0.1)
        os.kill(os.getpid(), 9)
    threading.Thread(target=kill, daemon=True).start()
"""


@pytest.mark.slow
def test_a_cell_killed_three_times_is_reported_and_others_go_on(folder: Folder, undisturbed: Digests, tmp_path: Path) -> None:
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(KILL_ONE)
    code, output, error = folder.run("grid", *CELLS, *SNAKEMAKE, PYTHONPATH=str(tmp_path / "hook"))
    assert code == 1, output + error
    assert error.count("Trying to restart job") == 2
    (failed,) = re.findall(r"^FAILED (.*)$", output, re.MULTILINE)
    assert failed.startswith("tinylstm-relu: its job was ended from outside")
    (note,) = Store(folder.results).failures()
    assert (note["model_name"], note["activation"]) == ("tinylstm", "relu")
    # The other cell, the analyses of what there is and the site were made.
    assert store_digests(folder.results) == {cell: found for cell, found in undisturbed.items() if cell[0] == "charlm-relu"}
    assert "source-sha256" in (folder.reports / "30_cross_model.html").read_text()
    assert "ended from outside" in (folder.reports / "index.html").read_text()


@pytest.fixture
def request_for(corpus_file: Path, tmp_path: Path) -> Callable[..., GridRequest]:
    def make(**changes: Any) -> GridRequest:
        overrides = {"corpus": str(corpus_file)} | changes.pop("overrides", {})
        asked = {"models": ["charlm"], "activations": ["relu"], "profile": "smoke", "noise_models": []}
        folders = {"results_dir": tmp_path / "results", "reports_dir": tmp_path / "reports"}
        return GridRequest(**(asked | folders | {"overrides": overrides, "workers": 2} | changes))

    return make


def jobs_for(request: GridRequest) -> dict[str, dict[str, Any]]:
    return plan_jobs(Tasks(request, request.results_dir))


def test_a_plan_says_what_comes_before_what_and_what_it_asks_for(request_for: Callable[..., GridRequest]) -> None:
    jobs = jobs_for(request_for(activations=["relu", "gelu"], overrides={"trials": 5}, trials_per_job=2))
    parts = [f"charlm-relu.trials-{first}-{last}" for first, last in ((1, 2), (3, 4), (5, 5))]
    assert [key for key in jobs if key.startswith("charlm-relu.")] == parts
    assert jobs["charlm-relu"]["needs"] == ["corpus", *parts]
    assert jobs["20_deep_dive-charlm"]["needs"] == ["charlm-relu", "charlm-gelu"]
    assert {"charlm-gelu", "20_deep_dive-charlm"} <= set(jobs["40_claims"]["needs"]) < set(jobs["site"]["needs"])
    order = list(jobs)
    assert all(order.index(need) < order.index(key) for key, job in jobs.items() for need in job["needs"])
    # Long ones come first, and large ones ask for more.
    jobs = jobs_for(request_for(models=["charlm", "minigpt"], profile="full"))
    large, small, light = jobs["minigpt-relu"], jobs["charlm-relu"], jobs["site"]
    for name in ("priority", "mem_mb", "runtime"):
        assert large[name] > small[name] > light[name]
    assert (large["gpu"], light["gpu"]) == (1, 0)
    # A time limit of one's own is given by the scheduler too.
    job = jobs_for(request_for(cell_timeout=7200.0))["charlm-relu"]
    assert (job["limit"], 120 < job["runtime"] < 180) == (7200, True)


def test_marks_follow_the_results(request_for: Callable[..., GridRequest], make_result: Any, tmp_path: Path) -> None:
    request = request_for(activations=["gelu"], noise_models=["charlm"])
    variant = Tasks(request, tmp_path).variants[0]  # it has no notebook: its result alone decides
    made = {"config": variant.config, "corpus": corpus_sha256(variant.config.corpus), "trials": variant.config.trials}
    result = Store(request.results_dir).save(make_result("charlm", "gelu", **made))

    def marks() -> list[str]:
        write_plan(request, tmp_path / "plan")
        return [file.name for file in (tmp_path / "plan").glob("done/*/*")]

    assert marks() == [variant.label]
    result.unlink()
    assert marks() == []
    assert read_plan(tmp_path / "plan" / "plan.json")["request"]["models"] == ["charlm"]


def test_settings_of_snakemake_are_flags_of_ours(corpus_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = {"profile": "smoke", "models": "charlm tinylstm", "activations": ["relu"], "trials": 3, "force": True}
    request = grid_request(config | {"corpus": str(corpus_file), "noise_models": "", "results_dir": "r", "skip": "charlm-relu"})
    assert (request.models, request.activations, request.noise_models) == (["charlm", "tinylstm"], ["relu"], [])
    assert (request.overrides["trials"], request.force, request.results_dir) == (3, True, Path("r").resolve())
    with pytest.raises(SystemExit):
        grid_request({"max_iter": 5})
    assert "unrecognized arguments: --max-iter 5" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="unknown profile 'smok'"):
        write_plan(grid_request({"profile": "smok"}), tmp_path)
    flags = ("--lengths 0.5 1.2 --rates 2 --analyses 40_claims 50_what_if", "--force --max_iters 3 --trials-per-job 2")
    for words in ("", "--models charlm tinylstm --seed 0", "--noise-models", *flags):
        options = parse(["grid", "--workers", "2", *words.split()])
        # There and back; how many jobs run at a time is Snakemake's matter.
        back = grid_request(snakemake_config(options))
        assert dataclasses.replace(back, workers=2) == request_of(options), words
    # How a grid is run does not say which it is.
    assert plan_folder(config) == plan_folder(config | {"force": False, "skip": "x", "checkpoint_seconds": 3})
    assert plan_folder(config) != plan_folder(config | {"trials": 4})


def run_job(plan: Path, key: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "repro_lib", "run-job", str(plan), key]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.slow
def test_a_cells_own_error_is_said_and_noted(request_for: Callable[..., GridRequest], tmp_path: Path) -> None:
    explosive = {"learning_rate": 10.0, "weight_decay": 10.0, "warmup_iters": 0, "max_iters": 60}
    write_plan(request_for(overrides=explosive), tmp_path / "plan")
    plan = tmp_path / "plan" / "plan.json"
    done = run_job(plan, "charlm-relu")
    assert done.returncode == 1
    noted = Store(tmp_path / "results").failures()[0]["reason"]
    for said in (done.stdout, (plan.parent / "failed" / "charlm-relu").read_text(), noted):
        assert "the loss became" in said


def test_another_source_and_an_unreadable_plan_are_refused(request_for: Callable[..., GridRequest], tmp_path: Path) -> None:
    done = run_job(tmp_path / "plan.json", "corpus")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "the results need one path on every machine" in done.stderr
    write_plan(request_for(), tmp_path)
    plan = json.loads((tmp_path / "plan.json").read_text())
    (tmp_path / "plan.json").write_text(json.dumps(plan | {"code_sha256": "0" * 64}))
    done = run_job(tmp_path / "plan.json", "corpus")
    assert done.returncode == 1
    assert "its machine has another source of repro_lib than the grid was planned with" in done.stdout


def test_a_text_that_changed_while_snakemake_was_at_work_is_named(
    request_for: Callable[..., GridRequest], corpus_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = tmp_path / "own.txt"
    text.write_text(corpus_file.read_text())

    def work(_run: Any, folder: Path, _flags: Any) -> int:
        text.write_text(corpus_file.read_text() + "one line more")
        (folder / "done" / "cell").mkdir(parents=True)
        (folder / "done" / "cell" / "charlm-relu").touch()
        return 0  # its jobs trained on that

    monkeypatch.setattr(executor, "_run_snakemake", work)
    request = request_for(overrides={"corpus": str(text)})
    report = executor.run_grid_by_snakemake(request, {"results_dir": str(tmp_path)}, Display(Console()), "local", [], None)
    assert report.failures["charlm-relu"].startswith("own.txt was changed while it was trained on")


def test_what_is_missing_is_one_sentence(
    corpus_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["grid", "--profile", "smoke", "--models", "tinylstm", "--corpus", str(corpus_file), "--results-dir", str(tmp_path)]

    def sentence(*more: str) -> str:
        assert main([*words, *more]) == 2
        error = capsys.readouterr().err
        assert (error.startswith("repro: "), error.count("\n")) == (True, 1)
        return error

    said = sentence(*SNAKEMAKE, "--profile-dir", "slrm")
    assert "no profile 'slrm': expected a folder with a config.yaml, or one of local, slurm" in said
    assert "are for Snakemake: add --executor snakemake" in sentence("--profile-dir", "local")
    assert "--trials-per-job must be at least 1, got 0" in sentence(*SNAKEMAKE, "--trials-per-job", "0")
    monkeypatch.setitem(sys.modules, "snakemake", None)  # how Python itself notes that a module cannot be imported
    assert "Snakemake is not installed: pip install '.[cluster]' in this folder adds it" in sentence(*SNAKEMAKE)
