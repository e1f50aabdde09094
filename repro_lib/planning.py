"""From a grid to the jobs of a plan, and from a job of a plan to the work itself."""

from __future__ import annotations

import hashlib
import math
import statistics
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

import torch
from pydantic import TypeAdapter

from repro_lib.agenda import CLOSING_JOBS, PART_MARK, Agenda
from repro_lib.agenda import Job as Step
from repro_lib.cells import Cell, GridRequest, plan_cells, plan_variants
from repro_lib.config import Config, canonical_json
from repro_lib.data import prepare_corpus
from repro_lib.notebook_names import deep_dive_stem
from repro_lib.origin import code_sha256
from repro_lib.plans import Job, Kind, Plan, PlanError, Program, read_plan
from repro_lib.steps import MADE_ELSEWHERE
from repro_lib.store import Store
from repro_lib.summary import publish

CORPUS, SITE = "corpus", "site"
# MiB of a job without its model: the command, its worker with torch, the notebook's kernel.
_PROCESSES_MB = 1500
# Minutes that a scheduler grants before it ends a job, which then goes on from its checkpoint with twice the time.
_LEAST_MINUTES = 10
_TIMES_THE_ESTIMATE = 4
# No job asks for more: schedulers refuse long ones, and what is ended in time goes on from its checkpoint.
_MOST_MINUTES = 24 * 60
# Before anything was measured in this store: a card is taken to do what so many cores do. A guess; no card was at hand.
_CORES_OF_A_CARD = 50
# The wall clock of a job that trains nothing.
_LIGHT_LIMIT_SECONDS = 1800.0
_REQUEST = TypeAdapter(GridRequest)


def program() -> Program:
    """What this process would train with."""
    return Program(torch=torch.__version__, repro_lib=metadata.version("repro-lib"), code_sha256=code_sha256())


def plan_name(request: GridRequest) -> str:
    """The folder of a grid's plan: the same for the same grid, however often and with however many workers it is run."""
    asked = _REQUEST.dump_python(request, mode="json", exclude={"workers", "force", "cell_timeout", "checkpoint_seconds"})
    return f"{request.profile or 'own'}-{hashlib.sha256(canonical_json(asked).encode()).hexdigest()[:8]}"


def make_plan(agenda: Agenda) -> Plan:
    """The jobs of a grid, whether they are done or not. Notebooks only: ``repro train`` has no plan."""
    request = _REQUEST.dump_python(agenda.request, mode="json")
    return Plan(program=program(), request=request, jobs=tuple(_jobs(agenda)))


def seconds_of(cells: Iterable[Cell], store: Store) -> dict[str, float]:
    """An estimate of each cell's training on one core or card, by label, corrected by what was measured in this store.

    By the median of the model's own stored results on the same device, else of all models'.
    """
    ratios: dict[tuple[str, str], list[float]] = {}
    for _, result in store.load()[0]:
        # Not validated: an older result may hold what is refused by now.
        config = Config.model_construct(**result.config)
        estimate = Cell(result.model_name, result.activation, config, result.config_sha256).training_seconds()
        if not result.synthetic and estimate > 0:
            ratio = sum(trial.seconds for trial in result.trials) / estimate * config.trials / len(result.trials)
            for model in (result.model_name, ""):
                ratios.setdefault((config.device, model), []).append(ratio)
    measured = {key: statistics.median(found) for key, found in ratios.items()}
    corrected = {}
    for cell in cells:
        device = cell.config.device
        unknown = 1 / _CORES_OF_A_CARD if device == "cuda" else 1.0
        factor = measured.get((device, cell.model)) or measured.get((device, "")) or unknown
        corrected[cell.label] = cell.training_seconds() * factor
    return corrected


def do_job(plan_file: Path, key: str, progress: Path) -> str | None:
    """Do the job ``key`` of a plan, unless it is done. Returns a remark, if there is one.

    Raises PlanError if this machine has another program than the plan was made with, and whatever the step raises.
    """
    plan = read_plan(plan_file)
    if (difference := plan.program.difference(program())) is not None:
        raise PlanError(
            f"this worker has {difference}, so its bits could differ; give every machine the environment of ./setup.sh and run "
            "the same command again"
        )
    agenda = _agenda(plan, progress.parent)
    if key == CORPUS:
        for corpus in {cell.config.corpus for cell in agenda.cells}:
            prepare_corpus(corpus)
        return None
    if key == SITE:
        return _build_site(agenda)
    step = step_of(agenda, key)
    if step is None:
        return MADE_ELSEWHERE
    # The step says how far it is in a file named after it; the job's own name has no spaces.
    arguments = step.arguments
    if "progress" in arguments:
        arguments = arguments | {"progress": progress}
    return step.function(**arguments)


def step_of(agenda: Agenda, key: str) -> Step | None:
    """The step behind a job's key; None if there is nothing to do for it now. PlanError for a key that is none."""
    cells = {cell.label: cell for cell in (*agenda.cells, *agenda.variants)}
    if key in cells:
        return agenda.cell(cells[key]) if agenda.wanted(cells[key]) else None
    label = key.partition(PART_MARK)[0]
    if label in cells:
        return next((step for step in agenda.parts(cells[label]) if job_key(step) == key), None)
    dives = {deep_dive_stem(cell.model): cell.model for cell in agenda.cells}
    if key in dives:
        return next(agenda.deep_dives([dives[key]]), None)
    if key in _analysis_keys():
        return next((step for step in agenda.analyses() if job_key(step) == key), None)
    raise PlanError(f"the grid has no job {key!r}")


def job_key(step: Step) -> str:
    """The name of a step's job, fit for a file."""
    return step.key.replace(" ", "_")


def _jobs(agenda: Agenda) -> Iterator[Job]:
    cells = [*agenda.cells, *agenda.variants]
    seconds = seconds_of(cells, agenda.store)
    yield _light(CORPUS, "corpus", ())
    for cell in cells:
        parts = agenda.parts(cell)
        for step in parts:
            share = len(step.arguments["trials"]) / cell.config.trials
            part = seconds[cell.label] * share
            yield _training(cell, step, "trials", (CORPUS,), part, _granted(agenda, part))
        joins = (CORPUS, *(job_key(step) for step in parts))
        # It trains what a part did not leave, all of it where its machine is of another kind.
        expected = 0.0 if parts else seconds[cell.label]
        yield _training(cell, agenda.cell(cell), "cell", joins, expected, _granted(agenda, seconds[cell.label]))
    dives = []
    for model in dict.fromkeys(cell.model for cell in agenda.cells):
        dives.append(deep_dive_stem(model))
        yield _light(dives[-1], "deep_dive", tuple(cell.label for cell in cells if cell.model == model))
    through = (*(cell.label for cell in cells), *dives)
    for key in _analysis_keys():
        yield _light(key, "analysis", through)
    yield _light(SITE, "site", (*through, *_analysis_keys()))


def _light(key: str, kind: Kind, needs: tuple[str, ...]) -> Job:
    """A job that trains nothing."""
    return Job(key=key, kind=kind, needs=needs, mem_mb=_PROCESSES_MB, runtime=_LEAST_MINUTES, limit=_LIGHT_LIMIT_SECONDS)


def _granted(agenda: Agenda, seconds: float) -> float:
    """Minutes that a scheduler grants a job that may have to train for so many seconds: not less than --cell-timeout."""
    return min(_LEAST_MINUTES + (agenda.request.cell_timeout or _TIMES_THE_ESTIMATE * seconds) / 60, _MOST_MINUTES)


def _training(cell: Cell, step: Step, kind: Kind, needs: tuple[str, ...], seconds: float, minutes: float) -> Job:
    """A job that is expected to train for so many seconds, and is granted so many ``minutes``."""
    return Job(
        key=job_key(step),
        kind=kind,
        needs=needs,
        mem_mb=_PROCESSES_MB + math.ceil(cell.training_bytes() / 2**20),
        runtime=math.ceil(minutes),
        gpu=int(cell.config.device == "cuda"),
        priority=1 + round(seconds),
        limit=step.limit or _LIGHT_LIMIT_SECONDS,
    )


def _agenda(plan: Plan, folder: Path) -> Agenda:
    request = _REQUEST.validate_python(plan.request)
    asked = (request.profile, request.overrides)
    cells = plan_cells(request.models, request.activations, *asked)
    variants = plan_variants(cells, *asked, request.noise_models)
    return Agenda(request, cells, variants, folder, with_notebooks=True)


def _build_site(agenda: Agenda) -> str | None:
    request, expected = agenda.request, [(cell.model, cell.activation) for cell in agenda.cells]
    site = publish(request.results_dir, request.reports_dir, expected, request.profile, agenda.configs(), running=False)
    return "; ".join(site.problems) or None


def _analysis_keys() -> list[str]:
    return [name.replace(" ", "_") for name in CLOSING_JOBS]
