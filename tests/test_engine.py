"""The grid by Snakemake on this machine: the store of the local executor, digest by digest, whatever is killed meanwhile."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from grids import Digests, Folder, flags, store_digests
from repro_lib.engine_checks import refusal

from repro_lib.cli import main
from repro_lib.config import Config
from repro_lib.experiment import run_experiment
from repro_lib.store import Store

pytestmark = pytest.mark.xdist_group("grid")

MODELS, ACTIVATIONS = ("charlm", "tinylstm"), ("relu", "gelu")
VALUES = {"trials": 2, "max_iters": 200}
CELLS = ["--models", *MODELS, "--activations", *ACTIVATIONS, *flags(VALUES)]
ENGINE = ["--executor", "snakemake"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, corpus_file: Path) -> Digests:
    """The digests of all cells, trained here, one after the other."""
    results = tmp_path_factory.mktemp("undisturbed")
    for model in MODELS:
        config = Config.for_model(model, "smoke", corpus=str(corpus_file), **VALUES)
        for activation in ACTIVATIONS:
            run_experiment(model, activation, config, results_dir=results)
    return store_digests(results)


def processes_of(folder: Folder, words: str) -> list[psutil.Process]:
    """The living processes of a folder's grids whose command line holds these words."""
    found = []
    for process in folder.alive():
        with contextlib.suppress(psutil.Error):
            found += [process] if words in " ".join(process.cmdline()) else []
    return found


def wait_for(what: Callable[[], object], seconds: float = 90.0) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "what was waited for did not come"
        time.sleep(0.1)


def training(folder: Folder) -> bool:
    """Whether a job has begun to train."""
    return any("iteration" in file.read_text() for file in folder.results.glob("workflow/*/progress/*.json"))


# --- the same store --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_smoke_grid_gives_the_store_of_the_local_executor(folder: Folder, smoke_grid: Path) -> None:
    code, output, error = folder.run("grid", "--noise-models", "charlm", *ENGINE)
    assert (code, error) == (0, ""), output
    expected = store_digests(smoke_grid / "results")
    assert len(expected) == 30 + 5 + 4
    assert store_digests(folder.results) == expected
    folder.assert_nothing_is_left()
    folder.assert_only_whole_files_are_left()
    # Every page too, made by jobs in the order of their needs.
    pages = {path.name for path in (smoke_grid / "reports").glob("*.html")}
    assert {path.name for path in folder.reports.glob("*.html")} == pages
    assert all("source-sha256" in (folder.reports / name).read_text() for name in pages - {"index.html"})
    # And either executor finds the other's work done.
    again = folder.run("grid", "--noise-models", "charlm")
    assert (again[0], again[2]) == (0, "")
    assert "39 cells are done already, 0 to do" in again[1]
    assert "done in" not in again[1]


@pytest.mark.slow
@pytest.mark.parametrize("executor", [[], ENGINE], ids=["local", "snakemake"])
def test_cells_whose_trials_are_trained_apart_have_the_same_digests(
    executor: list[str], folder: Folder, undisturbed: Digests
) -> None:
    words = ["--models", "charlm", "--activations", *ACTIVATIONS, *flags(VALUES), "--trials-per-job", "1", *executor]
    code, output, error = folder.run("grid", *words)
    assert (code, error) == (0, ""), output
    assert store_digests(folder.results) == {cell: found for cell, found in undisturbed.items() if "charlm" in cell[0]}
    # Each trial by itself, and nothing of it left when the cell is through.
    assert len(re.findall(r"^\S+\.trials-\d-\d: done in", output, re.MULTILINE)) == 4
    assert list((folder.results / "checkpoints").iterdir()) == []
    folder.assert_only_whole_files_are_left()


# --- kills -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_killed_kernel_engine_and_command_change_nothing_in_the_store(folder: Folder, undisturbed: Digests) -> None:
    words = [*CELLS, "--checkpoint-seconds", "0", *ENGINE]
    grid = folder.start("grid", *words)
    wait_for(lambda: training(folder))
    processes_of(folder, "ipykernel_launcher")[0].kill()
    wait_for(lambda: list(folder.results.glob("workflow/*/trouble/*.json")))
    wait_for(lambda: training(folder))
    (engine,) = processes_of(folder, "from snakemake.cli import main")
    engine.kill()
    output, error = grid.communicate(timeout=60)
    assert grid.returncode == 2
    assert "its kernel was killed by signal SIGKILL" in output
    assert error.count("\n") == 1
    assert "Snakemake was killed by signal SIGKILL; jobs at work go on, and the same command goes on" in error
    orphans = processes_of(folder, "repro_lib step")
    assert orphans, "the jobs went down with the engine"

    # Again, and this time the command is killed, with which the engine goes.
    grid = folder.start("grid", *words)
    wait_for(lambda: processes_of(folder, "from snakemake.cli import main"))
    grid.kill()
    grid.communicate()
    wait_for(lambda: not processes_of(folder, "from snakemake.cli import main"), 10)

    code, output, error = folder.run("grid", *words)
    assert (code, error) == (0, ""), output
    # One result file a cell: what was in flight was waited for, and not made a second time.
    assert store_digests(folder.results) == undisturbed
    folder.assert_nothing_is_left(20)
    folder.assert_only_whole_files_are_left()


@pytest.mark.slow
def test_a_second_command_is_told_who_is_at_work_and_the_first_cancels_its_jobs_when_told_to_stop(folder: Folder) -> None:
    grid = folder.start("grid", *CELLS, "--max_iters", "4000", *ENGINE)
    wait_for(lambda: training(folder))
    code, _, error = folder.run("grid", *CELLS, "--max_iters", "4000", *ENGINE)
    assert code == 2
    assert re.fullmatch(rf"repro: process {grid.pid} on \S+ is at work on this grid since .*\n", error)
    # How things stand can be asked meanwhile, as with the local executor.
    status = [sys.executable, "-m", "repro_lib", "status", "--profile", "smoke", *CELLS, "--max_iters", "4000"]
    status += ["--corpus", str(folder.corpus), "--results-dir", str(folder.results)]
    said = subprocess.run(status, capture_output=True, text=True, check=False).stdout
    assert len(re.findall(r"^\S+ +in work: process \d+ on \S+ since ", said, re.MULTILINE)) == 2
    grid.send_signal(signal.SIGTERM)
    _, error = grid.communicate(timeout=90)
    assert grid.returncode == 143
    assert error == "repro: interrupted; what is finished is kept, and the same command goes on from there\n"
    folder.assert_nothing_is_left(20)
    folder.assert_only_whole_files_are_left()


KILL_ONE = """
import os, sys
if "ipykernel_launcher" in sys.orig_argv:
    import repro_lib.experiment as experiment
    honest = experiment.run_experiment
    def run_experiment(model, activation, *words, **more):
        if model == "tinylstm":  # 00_quickstart trains charlm
            os.kill(os.getpid(), 9)
        return honest(model, activation, *words, **more)
    experiment.run_experiment = run_experiment
"""


@pytest.mark.slow
def test_a_cell_that_is_killed_three_times_is_reported_and_the_rest_goes_on(
    folder: Folder, undisturbed: Digests, tmp_path: Path
) -> None:
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(KILL_ONE)
    words = ["--models", *MODELS, "--activations", "relu", *flags(VALUES), *ENGINE]
    code, output, error = folder.run("grid", *words, PYTHONPATH=str(tmp_path / "hook"))
    assert (code, error) == (1, ""), output
    failed = re.findall(r"^FAILED (.*)$", output, re.MULTILINE)
    assert len(failed) == 1, failed
    assert failed[0].startswith("tinylstm-relu: its kernel was killed by signal SIGKILL")
    assert failed[0].endswith("10_train-tinylstm-relu.failed.ipynb), 3 times in a row")
    log = next(folder.results.glob("workflow/*/snakemake.log")).read_text()
    assert log.count("Trying to restart job") == 2
    (note,) = Store(folder.results).failures()
    assert (note["model_name"], note["activation"]) == ("tinylstm", "relu")
    # The other cell, the analyses of what there is and the site were made.
    found = store_digests(folder.results)
    assert found == {cell: undisturbed[cell] for cell in undisturbed if cell[0] == "charlm-relu"}
    assert "source-sha256" in (folder.reports / "30_cross_model.html").read_text()
    assert "killed by signal SIGKILL" in (folder.reports / "index.html").read_text()


# --- what is missing or wrong ----------------------------------------------------------------------------------------


@pytest.fixture
def words(corpus_file: Path, tmp_path: Path) -> list[str]:
    folders = ["--results-dir", str(tmp_path / "results"), "--reports-dir", str(tmp_path / "reports")]
    return ["grid", "--profile", "smoke", "--models", "tinylstm", "--corpus", str(corpus_file), *folders]


def sentence(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("repro: ")
    assert error.count("\n") == 1
    return error


def test_without_snakemake_the_flag_explains_how_to_get_it(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "snakemake", None)  # how Python itself notes that a module cannot be imported
    said = sentence([*words, *ENGINE], capsys)
    assert "Snakemake is not installed: pip install '.[cluster]' in this folder adds it" in said


def test_an_unknown_profile_executor_or_option_is_named(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    said = sentence([*words, *ENGINE, "--profile-dir", "slrm"], capsys)
    assert "no profile 'slrm': expected a folder with a config.yaml, or one of kubernetes, local, slurm" in said
    said = sentence([*words, *ENGINE, "--", "--executor", "lsf"], capsys)
    assert "Snakemake's executor 'lsf' is not installed (pip install snakemake-executor-plugin-lsf)" in said
    said = sentence([*words, *ENGINE, "--", "--executor", "dryrun"], capsys)
    assert "Snakemake's executor 'dryrun' makes nothing; repro status says what there is to do" in said
    said = sentence([*words, "--profile-dir", "local"], capsys)
    assert "are for Snakemake: add --executor snakemake" in said
    said = sentence([*words, *ENGINE, "--trials-per-job", "0"], capsys)
    assert "--trials-per-job must be at least 1, got 0" in said


def test_without_sbatch_or_kubectl_it_says_where_to_give_the_command(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    said = sentence([*words, *ENGINE, "--profile-dir", "kubernetes"], capsys)
    assert "kubectl is not on this machine" in said
    said = sentence([*words, *ENGINE, "--profile-dir", "slurm"], capsys)
    assert "Slurm's sbatch is not on this machine: give the command on a login node" in said


def test_an_engine_that_can_do_no_job_says_its_reason_and_where_to_look(
    words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    said = sentence([*words, *ENGINE, "--", "--no-such-option"], capsys)
    assert re.search(r"Snakemake ended with \d+ jobs that could not even be begun \(", said)
    assert "unrecognized arguments: --no-such-option" in said
    (log,) = (tmp_path / "results").glob("workflow/*/snakemake.log")
    assert f"see {log}" in said


def test_what_slurm_answers_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")  # no sinfo to ask
    answer = "SLURM sbatch failed. The error message was 'sbatch: error: invalid partition specified: nope\n"
    assert (refusal(answer) or "").startswith("Slurm refuses the jobs (invalid partition specified: nope); set the right one")
    # That of a later job is its own matter: the others go on.
    assert refusal(f"Job 3 has been submitted with SLURM jobid 7\n{answer}") is None
    # But the first job is small; that it was taken says nothing of those that train.
    first = "Job 1 has been submitted with SLURM jobid 6 (log: .snakemake/slurm_logs/rule_corpus/corpus/6.log)."
    assert (refusal(f"{first}\n{answer}") or "").startswith("Slurm refuses the jobs")
    assert "choose one with larger nodes" in (refusal("sbatch: error: Requested node configuration is not available") or "")
    assert "(--workers)" in (refusal("sbatch: error: Job violates accounting/QOS policy (job submit limit)") or "")
    assert refusal("sbatch: error: Batch job submission failed: Socket timed out on send/recv operation") is None
    assert refusal("rule cell: invalid partition of the data") is None


@pytest.mark.slow
def test_workers_that_cannot_write_to_the_folder_are_asked_about(folder: Folder, tmp_path: Path) -> None:
    """The command can write, its jobs cannot: their shell is put into a sandbox where the folder is read-only."""
    shell = tmp_path / "shell"
    mount = f"mount --bind {folder.results} {folder.results} && mount -o remount,bind,ro {folder.results}"
    shell.write_text(f'#!/bin/bash\nexec unshare --mount /bin/bash -c \'{mount} && exec /bin/bash "$@"\' bash "$@"\n')
    shell.chmod(0o755)
    folder.results.mkdir()
    if subprocess.run([str(shell), "-c", f"! touch {folder.results}/x 2>/dev/null"], check=False).returncode != 0:
        pytest.skip("this machine gives no process a read-only view of a folder (needs root and mount namespaces)")
    words = ["--models", "tinylstm", "--activations", "relu", *ENGINE, "--", "--shell-executable", str(shell)]
    code, _, error = folder.run("grid", *words)
    assert code == 2
    assert error.count("\n") == 1
    assert f"can every worker read and write {folder.results / 'workflow'}" in error


OTHER_VERSION = """
# Processes of jobs have another repro_lib than the command: as if they were on a machine that was not brought up to date.
import importlib.metadata, os, sys
if "step" in sys.orig_argv or "OTHER_VERSION" in os.environ:
    os.environ["OTHER_VERSION"] = "1"
    there = importlib.metadata.version
    importlib.metadata.version = lambda name: "0.0.1" if name == "repro-lib" else there(name)
"""


@pytest.mark.slow
def test_workers_with_another_version_are_told_of_once_and_train_nothing(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(OTHER_VERSION)
    code, output, error = folder.run("grid", *CELLS, *ENGINE, PYTHONPATH=str(tmp_path / "site"))
    assert (code, error.count("\n")) == (2, 1), output + error
    here = importlib.metadata.version("repro-lib")
    assert f"nothing was trained, because the first job failed: this worker has repro_lib 0.0.1 instead of {here}" in error
    assert "FAILED" not in output
    assert not list(folder.results.glob("*.json"))
    folder.assert_nothing_is_left(20)
    # And once the workers are right, the same command does it all.
    code, output, error = folder.run("grid", *CELLS, *ENGINE)
    assert (code, error) == (0, ""), output


KUBECTL = """#!{python}
# Stands in for kubectl: a job is a process of this machine, its state a file. A manifest must be what Kubernetes would take.
import json, os, subprocess, sys, yaml
from pathlib import Path

state = Path(__file__).parent / "jobs"
words = [word for word in sys.argv[1:] if not word.startswith("-")]
if words[0] == "create":
    job = yaml.safe_load(sys.stdin)
    assert (job["apiVersion"], job["kind"], job["spec"]["backoffLimit"]) == ("batch/v1", "Job", 0), job
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["requests"]["memory"].endswith("Mi"), container
    assert isinstance(job["spec"]["template"]["spec"]["activeDeadlineSeconds"], int), job
    state.mkdir(exist_ok=True)
    name = job["metadata"]["generateName"] + str(len(list(state.iterdir())))
    line = '"$0" "$@"; echo $? > ' + str(state / (name + ".ended"))
    process = subprocess.Popen(["/bin/bash", "-c", line, *container["command"]], start_new_session=True,
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    (state / name).write_text(str(process.pid))
    print("job.batch/" + name)
elif words[0] == "get":
    name = words[1].partition("/")[2]
    ended = state / (name + ".ended")
    code = ended.read_text().strip() if ended.exists() else ""
    print(name + "/" + ("1/" if code == "0" else "/1" if code else "/"), end="")
elif words[0] == "delete":
    for name in words[1:]:
        os.killpg(int((state / name.partition("/")[2]).read_text()), 15)
"""


@pytest.mark.slow
def test_the_profile_for_kubernetes_starts_each_job_as_a_pod_and_cancels_it(
    folder: Folder, undisturbed: Digests, tmp_path: Path
) -> None:
    """With a stand-in for kubectl: no test of Kubernetes, but of all that is ours."""
    (tmp_path / "bin").mkdir()
    kubectl = tmp_path / "bin" / "kubectl"
    kubectl.write_text(KUBECTL.replace("{python}", sys.executable))
    kubectl.chmod(0o755)
    path = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    words = ["--models", "charlm", "--activations", "relu", "--profile-dir", "kubernetes", *ENGINE, "--workers", "2"]
    behind = ["--", "--seconds-between-status-checks", "1", "--latency-wait", "10"]
    grid = folder.start("grid", *words, *flags(VALUES | {"max_iters": 4000}), *behind, **path)
    wait_for(lambda: training(folder))
    grid.send_signal(signal.SIGTERM)
    _, error = grid.communicate(timeout=90)
    assert grid.returncode == 143, error
    folder.assert_nothing_is_left(20)
    code, output, error = folder.run("grid", *words, *flags(VALUES), *behind, **path)
    assert (code, error) == (0, ""), output
    assert store_digests(folder.results) == {cell: found for cell, found in undisturbed.items() if cell[0] == "charlm-relu"}
    made = {re.sub(r"-\d+$", "", path.name) for path in (tmp_path / "bin" / "jobs").iterdir() if not path.suffix}
    assert made >= {"repro-charlm-relu", "repro-20-deep-dive-charlm", "repro-site"}
    folder.assert_nothing_is_left(20)


def test_the_profiles_are_for_the_executors_that_the_extra_installs() -> None:
    import importlib.util

    import yaml

    folder = Path(__file__).parents[1] / "workflow" / "profiles"
    settings = {path.parent.name: yaml.safe_load(path.read_text()) for path in folder.glob("*/config.yaml")}
    executors = {name: found["executor"] for name, found in settings.items()}
    assert executors == {"local": "local", "slurm": "slurm", "kubernetes": "cluster-generic"}
    for executor in set(executors.values()) - {"local"}:
        assert importlib.util.find_spec(f"snakemake_executor_plugin_{executor.replace('-', '_')}") is not None


def test_the_snakefile_is_readable_by_the_snakemake_of_the_lock(words: list[str], tmp_path: Path) -> None:
    from repro_lib.agenda import Agenda
    from repro_lib.cells import GridRequest, plan_cells
    from repro_lib.planning import make_plan

    overrides = {"corpus": words[words.index("--corpus") + 1], "trials": 3}
    folders = {"results_dir": tmp_path / "results", "reports_dir": tmp_path / "reports"}
    request = GridRequest(["tinylstm"], ["relu", "gelu"], "smoke", overrides, 1, trials_per_job=1, **folders)
    cells = plan_cells(request.models, request.activations, request.profile, request.overrides)
    plan = make_plan(Agenda(request, cells, [], tmp_path, with_notebooks=True))
    (tmp_path / "plan.json").write_text(plan.model_dump_json())
    snakefile = Path(__file__).parents[1] / "workflow" / "Snakefile"
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile), "--directory", str(tmp_path), "--dry-run"]
    done = subprocess.run(
        [*command, "--cores", "1"], capture_output=True, text=True, check=False, env={**os.environ, "HOME": str(tmp_path)}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    counts = dict(re.findall(r"^(\w+) +(\d+)$", done.stdout + done.stderr, re.MULTILINE))
    assert counts == {
        name: str(number)
        for name, number in {
            "corpus": 1,
            "trials": 6,
            "cell": 2,
            "deep_dive": 1,
            "analysis": 6,
            "site": 1,
            "all": 1,
            "total": 18,
        }.items()
    }
    assert json.loads((tmp_path / "plan.json").read_text())["jobs"]
