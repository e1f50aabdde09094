"""One job of the workflow, as Snakemake or a scheduler starts it: ``repro run-job PLAN JOB``.

In a worker like the local grid's. A job whose result is there ends at once, whatever Snakemake believes of it."""

import contextlib
import hashlib
import json
import platform
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from repro_lib.config import canonical_json, project_root
from repro_lib.grid.pool import LOOK_AGAIN_SECONDS, Outcome, Pool, Task
from repro_lib.system.files import UnusableFile, read_bounded, write_atomically
from repro_lib.system.leases import LeaseHeldError, remove_left

_LARGEST_PLAN_BYTES = 100_000_000
# Settings that say how a grid is run and not what it makes: with and without them it has the same folder.
_HOW_IT_IS_RUN = ("force", "cell_timeout", "checkpoint_seconds", "skip")


class WorkflowError(RuntimeError):
    """A plan that cannot be used here; or Snakemake is missing, or came to an end of its own."""


def plan_folder(config: Mapping[str, Any]) -> Path:
    """Where a grid's plan, marks and logs lie: ``results/workflow/<profile>-<digest of what is asked>``."""
    asked = canonical_json({name: value for name, value in config.items() if name not in _HOW_IT_IS_RUN})
    results = Path(config.get("results_dir") or project_root() / "results").resolve()
    return results / "workflow" / f"{config.get('profile', 'quick')}-{hashlib.sha256(asked.encode()).hexdigest()[:8]}"


def read_plan(path: Path) -> dict[str, Any]:
    """The plan in a file: ``program``, ``request`` and ``jobs``; WorkflowError where there is none."""
    try:
        return json.loads(read_bounded(path, _LARGEST_PLAN_BYTES))
    except (OSError, UnusableFile, ValueError) as error:
        raise WorkflowError(f"no plan can be read at {path} ({error}); the results need one path on every machine") from None


def run_job(plan_file: Path, key: str) -> Outcome:
    """Do one job in a worker of its own; ``failed/JOB`` beside the plan says why it is not done. Raises WorkflowError."""
    plan, why_not = read_plan(plan_file), plan_file.parent / "failed" / key
    write_atomically(why_not, f"its job was ended from outside, by hand or at a limit of time or memory (on {platform.node()})")
    task = Task(key, _work, {"plan_file": plan_file, "key": key}, plan["jobs"][key]["limit"])
    try:
        with contextlib.closing(Pool(1)) as pool:
            pool.submit(task)
            while (outcome := next(iter(pool.step(timeout=0.5)), None)) is None or outcome.end == "held":
                if outcome:
                    # After Snakemake was killed on a cluster its jobs go on. Their successors wait, and take what those make.
                    print(f"{key}: {outcome.said}; waiting for it", flush=True)
                    time.sleep(5 * LOOK_AGAIN_SECONDS)
                    pool.submit(task)
    finally:
        remove_left(Path(plan["request"]["results_dir"]))  # which other machines see late
    write_atomically(why_not, outcome.said or "no reason given")
    if outcome.end == "done":
        why_not.unlink()
    return outcome


def _work(plan_file: Path, key: str) -> str | None:
    """In the worker: the job itself. Returns a remark, or None."""
    # Here, because torch comes with them: whoever waits for the worker, or reads a plan, needs none.
    from pydantic import TypeAdapter

    from repro_lib.data import prepare_corpus
    from repro_lib.grid.cells import GridRequest
    from repro_lib.grid.tasks import Tasks
    from repro_lib.grid.worker import MADE_ELSEWHERE
    from repro_lib.training.origin import code_sha256

    plan = read_plan(plan_file)
    if code_sha256() != plan["code_sha256"]:
        said = "its machine has another source of repro_lib than the grid was planned with"
        raise WorkflowError(f"{said}; run the same command again")
    request = TypeAdapter(GridRequest).validate_python(plan["request"])
    tasks, kind = Tasks(request, Path(tempfile.gettempdir())), plan["jobs"][key]["kind"]
    if kind == "corpus":
        for corpus in {cell.config.corpus for cell in tasks.cells}:
            prepare_corpus(corpus)
        return None
    if kind == "site":
        return "; ".join(tasks.publish(running=False).problems) or None
    if (step := next((step for step in tasks.to_do() if step.name == key), None)) is None:
        return MADE_ELSEWHERE
    cell = (step.cell.model, step.cell.activation, step.cell.config_sha256) if step.cell else None
    try:
        remark = step.function(**step.arguments)
    except Exception as error:
        # Where `repro status` and the reports look.
        if cell and not isinstance(error, LeaseHeldError):
            tasks.store.record_failure(*cell, str(error) or repr(error))
        raise
    if cell:
        tasks.store.forget_failure(*cell)
    return remark
