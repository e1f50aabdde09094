"""The grid by Snakemake: the plan that ``workflow/Snakefile`` works on, and ``repro grid --executor snakemake``.

Snakemake decides where and when, tries again what was killed, and says what it does; only results say what is done."""

import contextlib
import dataclasses
import importlib.util
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from repro_lib.config import ROOT_VARIABLE, checkout, project_root
from repro_lib.grid.cells import Cell, GridRequest
from repro_lib.grid.display import Display
from repro_lib.grid.local import GridReport, Run
from repro_lib.grid.pool import Outcome
from repro_lib.grid.snakemake.run_job import WorkflowError, plan_folder
from repro_lib.grid.tasks import SUMMARY, Job, Tasks
from repro_lib.report.notebook_names import deep_dive_stem
from repro_lib.system.files import write_atomically
from repro_lib.system.leases import hold
from repro_lib.system.processes import describe_exit, die_with, exit_signal
from repro_lib.training.origin import code_sha256

# What a job asks for that trains nothing: MiB for the command, its worker with torch and the notebook's kernel; minutes that a
# scheduler grants; seconds after which its worker is stopped.
_LIGHT = {"mem_mb": 1500, "runtime": 10, "gpu": 0, "priority": 0, "limit": 1800.0}
# Training is granted more than its estimate: what is ended starts again, if from its checkpoint. A card is taken to do what so
# many cores do: a guess, for no card was at hand.
_TIMES_THE_ESTIMATE, _CORES_OF_A_CARD = 4, 50
_WORKFLOW = Path(__file__).with_name("workflow")
# How often the reports are brought up to date meanwhile, and how long Snakemake is given to cancel its jobs, in seconds.
_PUBLISH_SECONDS, _CANCEL_SECONDS = 20.0, 60.0


def write_plan(request: GridRequest, folder: Path) -> None:
    """Write a grid's ``plan.json``, and bring the marks of its jobs in ``done/`` in line with the results that are there."""
    tasks, now = Tasks(request, folder), time.time()
    jobs, to_do = plan_jobs(tasks), {step.name for step in tasks.to_do()}
    marks = {key: folder / "done" / job["kind"] / key for key, job in jobs.items()}
    # The corpus and the site have no result that could be looked at.
    to_do |= {"corpus"} if any(jobs[k]["kind"] == "cell" for k in to_do) and not marks["corpus"].exists() else set()
    # Snakemake makes no missing mark anew for a site that is newer than all others.
    to_do |= {"site"} if to_do or not marks["site"].exists() or not (request.reports_dir / "index.html").exists() else set()
    for key, mark in marks.items():
        mark.parent.mkdir(parents=True, exist_ok=True)
        if key in to_do:
            mark.unlink(missing_ok=True)
        else:
            # One time for all: none is older than one that it builds on, and Snakemake has no reason to make it again.
            mark.touch()
            os.utime(mark, (now, now))
    asked = {"request": TypeAdapter(GridRequest).dump_python(request, mode="json"), "jobs": jobs}
    write_atomically(folder / "plan.json", json.dumps({"code_sha256": code_sha256()} | asked, indent=1) + "\n")


def plan_jobs(tasks: Tasks) -> dict[str, dict[str, Any]]:
    """All jobs of a grid by name, done or not, each after what it needs: its rule, its needs, what it asks for."""
    cells = [*tasks.cells, *tasks.variants]
    # A plan does not change while it is worked on: it lists the parts of a cell that is through, too.
    forced = Tasks(dataclasses.replace(tasks.request, force=True), tasks.folder)
    jobs = {"corpus": {"kind": "corpus", "needs": []} | _LIGHT}
    for cell in cells:
        parts = {step.name: _training(cell, step, tasks.request) for step in forced.parts(cell)}
        jobs |= {key: {"kind": "trials", "needs": ["corpus", *cell.needs]} | asked for key, asked in parts.items()}
        # It joins its parts, and trains what they left: all of it where its machine is of another kind.
        asked = _training(cell, forced.cell(cell), tasks.request)
        jobs[cell.label] = {"kind": "cell", "needs": ["corpus", *cell.needs, *parts]} | asked
    through, dives = [cell.label for cell in cells], dict.fromkeys(deep_dive_stem(cell.model) for cell in tasks.cells)
    jobs |= {key: {"kind": "deep_dive", "needs": through} | _LIGHT for key in dives}
    before, analyses = [*through, *dives], [*tasks.analysis_names, SUMMARY.replace(" ", "_")]
    jobs |= {key: {"kind": "analysis", "needs": before} | _LIGHT for key in analyses}
    return jobs | {"site": {"kind": "site", "needs": [*before, *analyses]} | _LIGHT}


def _training(cell: Cell, step: Job, request: GridRequest) -> dict[str, Any]:
    # A cell, or some of its trials. Longer ones come first.
    on_card = cell.config.device == "cuda"
    seconds = step.cost / (_CORES_OF_A_CARD if on_card else 1)
    minutes = _LIGHT["runtime"] + (request.cell_timeout or _TIMES_THE_ESTIMATE * seconds) / 60
    memory = _LIGHT["mem_mb"] + math.ceil(cell.training_bytes() / 2**20)
    asked = {"mem_mb": memory, "gpu": int(on_card), "priority": round(seconds)}
    return asked | {"runtime": math.ceil(minutes), "limit": step.limit}


def run_grid_by_snakemake(
    request: GridRequest, config: Mapping[str, Any], display: Display, profile: str, options: Sequence[str], workers: int | None
) -> GridReport:
    """Have Snakemake do the grid, with its own words on the terminal. ``config``: the request as settings of the Snakefile.

    ``profile``: a folder with Snakemake's settings or a name in ``workflow/profiles``; ``options`` are handed on; ``workers``:
    jobs at a time, if not as the profile says. Raises WorkflowError, and LeaseHeldError where the same grid runs already."""
    flags = ["--profile", str(_find_profile(profile))]
    is_local = profile == "local" and not {"-e", "--executor"} & {option.partition("=")[0] for option in options}
    if is_local:
        # As many at a time as the local executor runs: one for each core, for CUDA one for each card.
        flags += ["--cores", str(request.workers), "--resources", f"gpu={request.workers}"]
    elif workers:
        flags += ["--jobs", str(workers)]
    run, folder = Run(request, display, request.results_dir, with_notebooks=True), plan_folder(config)
    todo = [cell for cell in run.all_cells if run.tasks.wanted(cell)]
    run.check(todo, trains_here=is_local)
    # Not Snakemake's own lock: that outlives a kill, and the same command would be refused.
    with hold(folder / "grid.lease", "this grid"):
        shutil.rmtree(folder / "failed", ignore_errors=True)
        write_atomically(folder / "config.json", json.dumps(config, indent=1) + "\n")
        try:
            _work_through(run, folder, [*flags, *options])
            # Of those whose job ended well: Snakemake may have been told to do a part, or nothing.
            marked = [cell for cell in run.all_cells if (folder / "done" / "cell" / cell.label).exists()]
            run.look_for_lost_results(marked)
        finally:
            run.publish(running=False)
    run.report.finished = sum(cell in marked for cell in todo)
    return run.report


def _find_profile(name: str) -> Path:
    if importlib.util.find_spec("snakemake") is None:
        how = "pip install '.[cluster]' in this folder adds it" if checkout() else "install the wheel with its extra [cluster]"
        raise WorkflowError(f"Snakemake is not installed: {how}")
    from snakemake.cli import get_profile_dir

    ours = _WORKFLOW / "profiles"
    if found := get_profile_dir(name) or get_profile_dir(str(ours / name)):
        return found[0].resolve()
    known = ", ".join(sorted(path.parent.name for path in ours.glob("*/config.yaml")))
    raise WorkflowError(f"no profile {name!r}: expected a folder with a config.yaml, or one of {known}")


def _work_through(run: Run, folder: Path, flags: Sequence[str]) -> None:
    # Again without what failed, so that the reports show what there is.
    failed: dict[str, str] = {}
    while code := _run_snakemake(run, folder, [*flags, "--config", f"skip={' '.join(failed)}"]):
        reasons = {path.name: path.read_text(encoding="utf-8") for path in (folder / "failed").glob("*")}
        if "corpus" in reasons:
            raise WorkflowError(f"nothing was trained, because the first job failed: {reasons['corpus']}")
        if exit_signal(code) or reasons.keys() <= failed.keys():
            run.report.failures["Snakemake"] = f"it {describe_exit(code)} before all was done; see its own words above"
            break
        failed |= reasons
    # What of it is still to do: a trial that failed by itself was tried again by its cell's own job.
    steps = {step.name: step for step in run.tasks.to_do()} if failed else {}
    for key in failed.keys() & steps.keys():
        run.settle(steps[key], Outcome(steps[key], "failed", failed[key], 0.0))


def _run_snakemake(run: Run, folder: Path, flags: Sequence[str]) -> int:
    # The reports are kept up to date meanwhile; returns its exit code.
    line = [sys.executable, "-m", "snakemake", "--snakefile", str(_WORKFLOW / "Snakefile")]
    line += ["--directory", str(folder.parent), "--configfile", str(folder / "config.json"), "--nolock"]
    line += ["--keep-going", "--rerun-incomplete", "--rerun-triggers", "mtime", *flags]
    # A session of its own: Ctrl-C reaches this process alone, which then ends all in order. However it ends, Snakemake ends
    # with it; jobs on a cluster have lives of their own.
    me = os.getpid()
    # Its cache lies with its logs, for a home may be read-only.
    told = {"XDG_CACHE_HOME": str(folder.parent / ".snakemake" / "cache"), ROOT_VARIABLE: str(project_root())}
    own = {"stdin": subprocess.DEVNULL, "env": os.environ | told}
    with subprocess.Popen[bytes](line, start_new_session=True, preexec_fn=lambda: die_with(me), **own) as process:
        try:
            run.publish(running=True)  # the index is there from the start, and what it imports does not come in between later
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return process.wait(_PUBLISH_SECONDS)
                run.publish(running=True)
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    # As Ctrl-C does, so that it cancels its jobs; and then what is left of it. Workers end with their jobs.
    if process.poll() is None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # another Ctrl-C does not cut it short
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_CANCEL_SECONDS)
            os.killpg(process.pid, signal.SIGKILL)
