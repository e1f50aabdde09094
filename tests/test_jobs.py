"""One job of a plan, as a scheduler starts it, and what a plan says of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from repro_lib.agenda import Agenda
from repro_lib.cells import Cell, GridRequest, plan_cells, plan_variants
from repro_lib.experiment import run_experiment
from repro_lib.lease import cell_lease, hold
from repro_lib.planning import make_plan, plan_name, program, seconds_of, step_of
from repro_lib.plans import Notes, Plan, PlanError, read_plan
from repro_lib.store import Store


@pytest.fixture
def request_for(corpus_file: Path, tmp_path: Path) -> Callable[..., GridRequest]:
    def make(**changes: Any) -> GridRequest:
        overrides = {"corpus": str(corpus_file)} | changes.pop("overrides", {})
        asked = {"models": ["charlm"], "activations": ["relu", "smelu_1.5"], "profile": "smoke", "noise_models": []}
        folders = {"results_dir": tmp_path / "results", "reports_dir": tmp_path / "reports"}
        return GridRequest(**(asked | folders | {"overrides": overrides, "workers": 2} | changes))

    return make


def agenda_of(request: GridRequest) -> Agenda:
    cells = plan_cells(request.models, request.activations, request.profile, request.overrides)
    variants = plan_variants(cells, request.profile, request.overrides, request.noise_models)
    return Agenda(request, cells, variants, request.results_dir, with_notebooks=True)


def write(plan: Plan, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "plan.json"
    path.write_text(plan.model_dump_json())
    return path


def step(plan: Path, key: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "repro_lib", "step", str(plan), key]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


# --- the plan --------------------------------------------------------------------------------------------------------


def test_a_plan_says_what_comes_before_what(request_for: Callable[..., GridRequest]) -> None:
    plan = make_plan(agenda_of(request_for()))
    needs = {job.key: job.needs for job in plan.jobs}
    cells = ("charlm-relu", "charlm-smelu_1.5")
    assert [needs[key] for key in cells] == [("corpus",)] * 2
    assert needs["20_deep_dive-charlm"] == cells
    assert needs["40_claims"] == (*cells, "20_deep_dive-charlm")
    assert {"30_cross_model", "50_what_if", "plots_and_summary", "20_deep_dive-charlm"} < set(needs["site"])
    # Nothing needs what comes later in the plan.
    order = {job.key: k for k, job in enumerate(plan.jobs)}
    assert all(order[need] < order[job.key] for job in plan.jobs for need in job.needs)


def test_parts_of_a_cell_come_before_it_and_cost_their_share(request_for: Callable[..., GridRequest]) -> None:
    request = request_for(overrides={"trials": 5}, trials_per_job=2, profile="quick")
    agenda = agenda_of(request)
    plan = make_plan(agenda)
    parts = [job for job in plan.jobs if job.kind == "trials" and job.key.startswith("charlm-relu")]
    assert [job.key for job in parts] == [f"charlm-relu.trials-{first}-{last}" for first, last in ((1, 2), (3, 4), (5, 5))]
    assert plan.job("charlm-relu").needs == ("corpus", *(job.key for job in parts))
    assert parts[0].priority > parts[2].priority > plan.job("charlm-relu").priority
    for job in plan.jobs:
        if job.kind not in ("corpus", "site"):
            found = step_of(agenda, job.key)
            assert found is not None
            assert found.key.replace(" ", "_") == job.key
    with pytest.raises(PlanError, match="the grid has no job 'charlm-rleu'"):
        step_of(agenda, "charlm-rleu")


def test_a_plans_folder_is_named_by_what_is_asked_and_not_by_how_it_is_run(request_for: Callable[..., GridRequest]) -> None:
    name = plan_name(request_for())
    assert name == plan_name(request_for(workers=9, force=True, cell_timeout=5.0, checkpoint_seconds=1.0))
    others = [plan_name(request_for(models=["tinylstm"])), plan_name(request_for(trials_per_job=1))]
    assert len({name, *others, plan_name(request_for(overrides={"trials": 7}))}) == 4


def test_long_cells_come_first_and_large_ones_ask_for_more(request_for: Callable[..., GridRequest]) -> None:
    models = ["charlm", "minigpt", "tinylstm"]
    jobs = {job.key: job for job in make_plan(agenda_of(request_for(models=models, profile="full"))).jobs}
    large, small, other = (jobs[f"{model}-relu"] for model in ("minigpt", "charlm", "tinylstm"))
    assert large.priority > small.priority > other.priority > jobs["site"].priority
    assert large.runtime > small.runtime >= other.runtime
    assert large.mem_mb > small.mem_mb > jobs["site"].mem_mb > 1000
    assert (large.gpu, jobs["site"].gpu) == (1, 0)


def test_a_time_limit_of_ones_own_is_given_by_the_scheduler_too(request_for: Callable[..., GridRequest]) -> None:
    jobs = {job.key: job for job in make_plan(agenda_of(request_for(cell_timeout=7200.0))).jobs}
    assert jobs["charlm-relu"].limit == 7200
    assert 120 < jobs["charlm-relu"].runtime < 180
    assert jobs["site"].runtime < 120
    jobs = {job.key: job for job in make_plan(agenda_of(request_for(cell_timeout=1e9))).jobs}
    assert jobs["charlm-relu"].runtime == 24 * 60


def test_estimates_follow_what_was_measured(request_for: Callable[..., GridRequest], make_result: Any, store: Store) -> None:
    request = request_for(models=["charlm", "convlm"])
    cells = agenda_of(request).cells
    before = {cell.label: cell.training_seconds() for cell in cells}
    assert seconds_of(cells, store) == before
    config = cells[0].config
    result = make_result("charlm", "relu", trials=config.trials, config=config)  # 0.25 s a trial
    store.save(result)
    store.save(result.model_copy(update={"synthetic": True, "activation": "gelu"}))
    measured = seconds_of(cells, store)
    assert measured["charlm-relu"] == pytest.approx(0.25 * config.trials)
    factor = measured["charlm-relu"] / before["charlm-relu"]
    assert measured["convlm-relu"] == pytest.approx(factor * before["convlm-relu"]), "another model, for want of its own"


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "cannot be read here (No such file or directory)"), ("{", "is no plan of this version"), ("[]", "is no plan")],
)
def test_a_plan_that_cannot_be_used_is_refused_in_a_sentence(content: str | None, said: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "plan.json").write_text(content)
    done = step(tmp_path / "plan.json", "corpus")
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


# --- the job ---------------------------------------------------------------------------------------------------------


def test_a_job_makes_its_cell_notes_how_it_ended_and_does_it_once(request_for: Callable[..., GridRequest]) -> None:
    request = request_for()
    path = write(make_plan(agenda_of(request)), request.results_dir / "workflow" / "p")
    notes = Notes(path.parent)
    for said in ("", ": made by another process meanwhile"):
        done = step(path, "charlm-smelu_1.5")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("charlm-smelu_1.5 done after ")
        assert done.stdout.strip().endswith(said)
        ended = notes.ended("charlm-smelu_1.5")
        assert ended is not None
        assert ended.end == "done"
    assert len(list(request.results_dir.glob("*.json"))) == 1
    assert notes.at_work() == {}
    assert step(path, "charlm-rleu").stderr.startswith("repro: the plan has no job 'charlm-rleu'; it has, for example, corpus")


def test_an_error_of_the_cell_itself_is_noted_so_that_the_rest_goes_on(request_for: Callable[..., GridRequest]) -> None:
    explosive = {"learning_rate": 10.0, "weight_decay": 10.0, "warmup_iters": 0, "max_iters": 60}
    request = request_for(activations=["relu"], overrides=explosive)
    path = write(make_plan(agenda_of(request)), request.results_dir / "workflow" / "p")
    done = step(path, "charlm-relu")
    assert done.returncode == 1
    ended = Notes(path.parent).ended("charlm-relu")
    assert ended is not None
    assert ended.end == "failed"
    assert "the loss became" in (ended.said or "")


def at_work_on(notes: Notes, key: str, plan: Path) -> subprocess.Popen[str]:
    """A job that has begun to train."""
    command = [sys.executable, "-m", "repro_lib", "step", str(plan), key]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        if "iteration" in (notes.progress(key).read_text() if notes.progress(key).exists() else ""):
            return process
        time.sleep(0.05)
    pytest.fail(f"it never began to train: {process.communicate()}")


def test_a_killed_job_is_not_through_and_the_next_attempt_goes_on_from_its_checkpoint(
    request_for: Callable[..., GridRequest], tmp_path: Path
) -> None:
    import psutil

    request = request_for(activations=["relu"], overrides={"max_iters": 400}, checkpoint_seconds=0.0)
    path = write(make_plan(agenda_of(request)), request.results_dir / "workflow" / "p")
    notes = Notes(path.parent)
    process = at_work_on(notes, "charlm-relu", path)
    (kernel,) = [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if "ipykernel_launcher" in " ".join(child.cmdline())
    ]
    assert list((request.results_dir / "checkpoints").glob("*.safetensors"))
    kernel.kill()
    output, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (1, ""), output
    assert "charlm-relu killed after" in output
    assert notes.ended("charlm-relu") is None
    trouble = notes.trouble("charlm-relu")
    assert trouble is not None
    assert "killed by signal SIGKILL" in (trouble[1].said or "")
    assert step(path, "charlm-relu").returncode == 0
    notebook = (request.results_dir / "notebooks" / "10_train-charlm-relu.ipynb").read_text()
    assert "goes on from iteration" in notebook
    (cell,) = agenda_of(request).cells
    whole = run_experiment("charlm", "relu", cell.config, results_dir=tmp_path / "whole")
    stored = cell.result(Store(request.results_dir))
    assert stored is not None
    assert [t.weights_sha256 for t in stored.trials] == [t.weights_sha256 for t in whole.trials]


def test_a_cancelled_job_tidies_up(request_for: Callable[..., GridRequest]) -> None:
    request = request_for(activations=["relu"], overrides={"max_iters": 4000})
    path = write(make_plan(agenda_of(request)), request.results_dir / "workflow" / "p")
    notes = Notes(path.parent)
    process = at_work_on(notes, "charlm-relu", path)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM
    assert error.startswith("repro: interrupted")
    assert notes.at_work() == {}
    assert list(request.results_dir.rglob("*.lease")) == []
    assert notes.ended("charlm-relu") is None


def test_a_job_waits_for_whoever_has_its_cell_in_work_and_takes_what_that_one_made(
    request_for: Callable[..., GridRequest],
) -> None:
    """As after the engine was killed: its job goes on, and the new engine's waits for it."""
    request = request_for(activations=["relu"])
    agenda = agenda_of(request)
    (cell,) = agenda.cells
    path = write(make_plan(agenda), request.results_dir / "workflow" / "p")
    command = [sys.executable, "-u", "-m", "repro_lib", "step", str(path), "charlm-relu"]
    with hold(cell_lease(request.results_dir, "charlm", "relu", cell.config_sha256), "charlm with relu"):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert f"process {os.getpid()} on" in (said := process.stdout.readline())
        assert said.strip().endswith("waiting for it")
        assert process.poll() is None
    run_experiment("charlm", "relu", cell.config, results_dir=request.results_dir)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert len(list(request.results_dir.glob("*.json"))) == 1


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("torch", "2.12.0", "this worker has torch {here.torch} instead of 2.12.0"),
        ("repro_lib", "0.0.9", "this worker has repro_lib {here.repro_lib} instead of 0.0.9"),
        ("code_sha256", "0" * 64, "this worker has another source of repro_lib"),
    ],
)
def test_a_worker_with_another_program_says_so_and_trains_nothing(
    name: str, value: str, said: str, request_for: Callable[..., GridRequest]
) -> None:
    request = request_for(activations=["relu"])
    plan = make_plan(agenda_of(request))
    planned = plan.model_copy(update={"program": plan.program.model_copy(update={name: value})})
    path = write(planned, request.results_dir / "workflow" / "p")
    done = step(path, "charlm-relu")
    assert done.returncode == 1
    assert said.format(here=program()) in done.stdout
    assert "give every machine the environment of ./setup.sh" in done.stdout
    assert list(request.results_dir.glob("*.json")) == []


def test_a_plan_is_read_back_as_it_was_written(request_for: Callable[..., GridRequest], tmp_path: Path) -> None:
    plan = make_plan(agenda_of(request_for(trials_per_job=1)))
    assert read_plan(write(plan, tmp_path)) == plan
    assert json.loads((tmp_path / "plan.json").read_text())["request"]["trials_per_job"] == 1


def test_memory_grows_with_what_is_kept_for_the_gradient(request_for: Callable[..., GridRequest]) -> None:
    (cell,) = agenda_of(request_for(activations=["relu"])).cells
    wider = Cell("charlm", "relu", cell.config.model_copy(update={"batch_size": cell.config.batch_size * 2}), "")
    assert 1.5 < wider.training_bytes() / cell.training_bytes() <= 2
