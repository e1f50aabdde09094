"""The grid by Snakemake: the same cells, the same steps, on this machine, on Slurm or on Kubernetes.

Snakemake decides where and when; what is done is decided by result files alone. Before it starts, the notes of what is
done are brought in line with the results; while it works one looks at the notes that its jobs leave, on whatever machine
they are. One process at a time runs a plan. When it is killed, jobs at work go on; the same command goes on from there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from repro_lib.agenda import PART_MARK, Step
from repro_lib.agenda import Job as Step
from repro_lib.cells import Cell, GridRequest
from repro_lib.config import project_root
from repro_lib.console import Display
from repro_lib.engine_checks import EngineError, Profile, refusal
from repro_lib.files import write_atomically
from repro_lib.lease import hold
from repro_lib.planning import CORPUS, SITE, make_plan, plan_name, step_of
from repro_lib.plans import Job, Notes
from repro_lib.processes import describe_exit, exit_signal
from repro_lib.progress import progress_share
from repro_lib.runs import ATTEMPTS, GridReport, Run
from repro_lib.scratch import scratch_folder
from repro_lib.steps import executed_path
from repro_lib.worker_process import visible_cards
from repro_lib.workers import Outcome, Task

_LOOK_SECONDS = 0.5
# The index is brought up to date this often at most: on a shared folder that costs more than on a disk.
_PUBLISH_SECONDS = 10.0
# How long Snakemake is given to cancel its jobs after Ctrl-C.
_CANCEL_SECONDS = 60.0
# It ends with this process, however that ends, and its temporary files lie where they go with it; its jobs have lives, and
# temporary files, of their own.
_SNAKEMAKE = """import sys, tempfile
from repro_lib.processes import die_with
die_with(int(sys.argv[1]))
tempfile.tempdir = sys.argv[2]
from snakemake.cli import main
main(sys.argv[3:])"""


def run_grid_by_engine(
    request: GridRequest, display: Display, profile: str | None, options: Sequence[str], workers: int | None
) -> GridReport:
    """Have Snakemake do the grid. ``profile``: a folder, or the name of one of ``workflow/profiles``; None: local.

    ``options`` are handed on to Snakemake; ``workers``: how many jobs at a time, if not what the profile says. Raises
    EngineError, LeaseHeldError where another process runs the same grid, and what the local grid raises.
    """
    chosen = Profile.load(profile or "local", options)
    chosen.check()
    if chosen.is_local:
        flags = ["--cores", str(request.workers), "--resources", f"gpu={max(1, len(visible_cards()))}"]
    else:
        flags = ["--jobs", str(workers)] if workers else []
        # However many jobs there are at a time, they do not share the cores of this machine.
        request = dataclasses.replace(request, workers=1)
    return _EngineRun(request, display, chosen, [*flags, *options]).work()


class _EngineRun(Run):
    """One run of a plan by Snakemake. ``options`` go to Snakemake."""

    def __init__(self, request: GridRequest, display: Display, profile: Profile, options: Sequence[str]) -> None:
        super().__init__(request, display, request.results_dir, with_notebooks=True)
        self.profile, self.options = profile, options
        self.folder = request.results_dir / "workflow" / plan_name(request)
        self.notes = Notes(self.folder)
        self.jobs: dict[str, Job] = {}
        self.through: set[str] = set()
        self.troubles: dict[str, float] = {}
        self.published = self.spent = 0.0

    def work(self) -> GridReport:
        """Do everything; KeyboardInterrupt has the engine cancel its jobs."""
        todo = [cell for cell in (*self.cells, *self.variants) if self.agenda.wanted(cell)]
        self.check(todo, trains_here=self.profile.is_local)
        with hold(self.folder / "engine.lease", "this grid"):
            self._write_plan()
            self.display.started(len(todo), len(self.cells) + len(self.variants) - len(todo))
            try:
                if self.jobs.keys() - self.through > {SITE}:
                    self.publish(running=True)
                    self._work_through()
                self.look_for_lost_results()
            finally:
                self.display.close()
                self.publish(running=False)
        return self.report

    def _write_plan(self) -> None:
        """Write the plan and bring the notes in line with what is there: a note of nothing else keeps a job from running."""
        plan = make_plan(self.agenda)
        self.jobs = {job.key: job for job in plan.jobs}
        write_atomically(self.folder / "plan.json", plan.model_dump_json(indent=1) + "\n")
        (self.folder / "logs").mkdir(exist_ok=True)
        for job in plan.jobs:
            # In the order of the plan, so that no note is older than one that it builds on.
            if self._is_done(job):
                self._count_as_done(job)
        # The first job looks at the corpus and the program of a worker, which only training depends on.
        if not any(job.kind == "cell" and job.key not in self.through for job in plan.jobs):
            self._count_as_done(self.jobs[CORPUS])
        self.notes.forget(self.jobs.keys() - self.through)

    def _is_done(self, job: Job) -> bool:
        if job.kind in ("corpus", "trials", "site") or not self.through.issuperset(set(job.needs) - {CORPUS}):
            return False
        return step_of(self.agenda, job.key) is None

    def _count_as_done(self, job: Job) -> None:
        self.through.add(job.key)
        self.notes.keep(job.key, Outcome(_task(job.key), "done", None, 0.0))

    # --- while Snakemake works

    def _work_through(self) -> None:
        """Run Snakemake until every job is through, giving up those that it has tried often enough."""
        while self.jobs.keys() - self.through:
            code = self._run_snakemake()
            if exit_signal(code) is not None:
                raise EngineError(
                    f"Snakemake {describe_exit(code)}; jobs at work go on, and the same command goes on from what is finished"
                )
            ready = [job for key, job in self.jobs.items() if key not in self.through and self.through.issuperset(job.needs)]
            if ready and not any(self.notes.tried(job.key) for job in ready):
                raise EngineError(self._why_not_begun(len(ready)))
            exhausted = [job for job in ready if self.notes.tried(job.key) >= ATTEMPTS]
            if ready and not exhausted:
                raise EngineError(
                    f"Snakemake ended before {len(ready)} jobs were through (see {self._log()}); jobs at work go on, and the "
                    "same command goes on from what is finished"
                )
            for job in exhausted:
                self._give_up(job)

    def _run_snakemake(self) -> int:
        """Start Snakemake and follow it to its end; returns its exit code."""
        command = ["--snakefile", str(_snakefile()), "--profile", str(self.profile.folder)]
        command += ["--directory", str(self.folder), "--scheduler", "greedy"]
        # Locks and time stamps are not what keeps jobs apart and decides what is done here (see the head of this file).
        command += ["--nolock", "--rerun-incomplete", "--rerun-triggers", "mtime", "--keep-going", "--nocolor"]
        command += [*self.options, "--retries", str(ATTEMPTS - 1)]
        # A profile may bring commands of its own.
        environment = os.environ | {"PATH": f"{self.profile.folder}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
        with (
            scratch_folder() as temporary,
            open(self._log(), "ab") as log,
            subprocess.Popen(
                [sys.executable, "-c", _SNAKEMAKE, str(os.getpid()), str(temporary), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            ) as process,
            open(self._log(), "rb") as words,
        ):
            words.seek(0, os.SEEK_END)
            said = ""
            try:
                while True:
                    ended = process.poll() is not None
                    self._look()
                    said += words.read().decode(errors="replace")
                    if why := refusal(said):
                        raise EngineError(why)
                    if ended:
                        break
                    time.sleep(_LOOK_SECONDS)
            finally:
                _end(process)
        self._look()
        return process.returncode

    def _look(self) -> None:
        """Tell what has ended or got into trouble since the last look, and show what is at work."""
        over = self.notes.all_through() - self.through
        for key in [key for key in self.jobs if key in over]:
            if outcome := self.notes.ended(key):
                self._ended(self.jobs[key], outcome)
        for key in (self.jobs.keys() - self.through) & self.notes.troubled():
            found = self.notes.trouble(key)
            if found and self.troubles.get(key, 0.0) < found[0]:
                self.troubles[key] = found[0]
                self.display.note(f"{key}: {found[1].said}; it is tried {ATTEMPTS} times in all")
        running = {key: file for key, file in self.notes.at_work().items() if key in self.jobs.keys() - self.through}
        self.display.update(running, self._share(running))

    def _ended(self, job: Job, outcome: Outcome) -> None:
        if job.kind == "corpus" and outcome.end != "done":
            raise EngineError(f"nothing was trained, because the first job failed: {outcome.said}")
        self.through.add(job.key)
        self.spent += _cost(job)
        step = self._step(job)
        message = self.settle(step, outcome)
        self.display.update({}, self._share({}))
        if step.cell or outcome.end != "done" or job.kind not in ("corpus", "site"):
            self.display.finished(job.key, message, is_cell=step.cell is not None)
        if step.cell and time.monotonic() - self.published >= _PUBLISH_SECONDS:
            self.published = time.monotonic()
            self.publish(running=True)

    def _give_up(self, job: Job) -> None:
        """Have a job count as through that Snakemake has tried often enough, so that what comes after it can be done."""
        found = self.notes.trouble(job.key)
        if found is None:
            said = (
                f"its job was ended {ATTEMPTS} times from outside, as by a limit of time or memory, or by hand (see "
                f"{self.notes.log(job.key)})"
            )
            outcome = Outcome(_task(job.key), "failed", said, 0.0)
        else:
            outcome = found[1]
        self.notes.keep(job.key, outcome, last=True)
        self._ended(job, outcome)

    def _step(self, job: Job) -> Step:
        """What ``settle`` needs to know of a job."""
        cells = {cell.label: cell for cell in (*self.cells, *self.variants)}
        if job.kind == "cell":
            return self.agenda.cell(cells[job.key])
        part_of: Cell | None = cells.get(job.key.partition(PART_MARK)[0])
        output = executed_path(self.request.results_dir, job.key)
        return Step(job.key, print, {}, cost=0.0, part_of=part_of, output=output)

    def _share(self, running: dict[str, Path]) -> float:
        """Part of all known work that is done, by estimated seconds."""
        partial = sum(_cost(self.jobs[key]) * progress_share(file) for key, file in running.items())
        total = self.spent + sum(_cost(self.jobs[key]) for key in self.jobs.keys() - self.through)
        return (self.spent + partial) / total if total else 1.0

    def _why_not_begun(self, count: int) -> str:
        lines = [line.strip() for line in self._log().read_text(errors="replace").splitlines()]
        said = ([line for line in lines if "rror" in line] or lines or ["it said nothing"])[-1][:300]
        return (
            f"Snakemake ended with {count} jobs that could not even be begun ({said}); can every worker read and write "
            f"{self.folder}? see {self._log()}"
        )

    def _log(self) -> Path:
        return self.folder / "snakemake.log"


def _end(process: subprocess.Popen[bytes]) -> None:
    """End Snakemake as Ctrl-C does, so that it cancels its jobs; and then all that it has started here."""
    if process.poll() is not None:
        return
    with _undisturbed():
        family = psutil.Process(process.pid).children(recursive=True)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_CANCEL_SECONDS)
        _, alive = psutil.wait_procs(family, timeout=5)
        for member in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        process.kill()


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Another Ctrl-C does not cut it short."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _snakefile() -> Path:
    return project_root() / "workflow" / "Snakefile"


def _task(key: str) -> Task:
    """A name for an outcome that comes from a note."""
    return Task(key, print, {})


def _cost(job: Job) -> float:
    return job.priority + 5.0
