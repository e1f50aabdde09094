"""What a scheduler is given: a grid's jobs in a file, and beside it who is through, at work or in trouble.

Only files, all below the folder of the plan, so that every engine and every machine that shares the folder can take part.
Needs neither torch nor an engine: a job that waits or is refused costs little.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from repro_lib.files import UnusableFile, WriteError, read_bounded, write_atomically
from repro_lib.worker_process import End
from repro_lib.workers import Outcome, Task

_LARGEST_PLAN_BYTES = 100_000_000
_LARGEST_NOTE_BYTES = 1_000_000

Kind = Literal["corpus", "trials", "cell", "deep_dive", "analysis", "site"]


class PlanError(RuntimeError):
    """A plan that cannot be read, or that this program cannot work on."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Job(_Part):
    """One job: what it needs to be through before it, and what it asks of the machine.

    ``key`` names it in commands and files; ``runtime`` is in minutes and ``mem_mb`` in MiB, both for the first attempt;
    ``limit`` is in seconds; longer jobs have a higher ``priority``.
    """

    key: str
    kind: Kind
    needs: tuple[str, ...] = ()
    threads: int = 1
    mem_mb: int
    runtime: int
    gpu: int = 0
    priority: int = 0
    limit: float


class Program(_Part):
    """What a job's bits depend on beside its configuration: a worker must have the same."""

    torch: str
    repro_lib: str
    code_sha256: str

    def difference(self, other: Program) -> str | None:
        """What ``other`` has otherwise, as ``torch 2.12.0 instead of 2.13.0``; None if nothing."""
        for name in ("torch", "repro_lib"):
            if getattr(self, name) != getattr(other, name):
                return f"{name} {getattr(other, name)} instead of {getattr(self, name)}"
        if self.code_sha256 != other.code_sha256:
            return f"another source of repro_lib ({other.code_sha256[:12]} instead of {self.code_sha256[:12]})"
        return None


class Plan(_Part):
    """A grid's jobs. ``request`` is what was asked for, as JSON (see ``planning``)."""

    format: Literal[1] = 1
    program: Program
    request: dict[str, Any]
    jobs: tuple[Job, ...]

    def job(self, key: str) -> Job:
        """The job of this name; PlanError if there is none."""
        for job in self.jobs:
            if job.key == key:
                return job
        raise PlanError(f"the plan has no job {key!r}; it has, for example, {', '.join(job.key for job in self.jobs[:5])}")


def read_plan(path: Path) -> Plan:
    """The plan in a file; PlanError where there is none that can be understood."""
    try:
        return Plan.model_validate_json(read_bounded(path, _LARGEST_PLAN_BYTES))
    except OSError as error:
        raise PlanError(
            f"the plan {path} cannot be read here ({error.strerror}); the results folder must have one path on every machine"
        ) from None
    except (UnusableFile, ValidationError) as error:
        reason = f"{error.errors()[0]['msg']}" if isinstance(error, ValidationError) else str(error)
        raise PlanError(f"{path} is no plan of this version ({reason}); repro grid --executor snakemake writes one") from None


class Notes:
    """The files beside a plan, by the key of a job.

    ``through/``: it is over, how it ended (Snakemake's outputs); ``tried/``: a byte for each attempt that was begun;
    ``progress/``: how far it is; ``trouble/``: how its last attempt ended that is to be repeated; ``logs/``: what it printed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def through(self, key: str) -> Path:
        """Where it says that a job is over."""
        return self.folder / "through" / f"{key}.json"

    def progress(self, key: str) -> Path:
        """Where a job at work says how far it is."""
        return self.folder / "progress" / f"{key}.json"

    def log(self, key: str) -> Path:
        """What the job printed."""
        return self.folder / "logs" / f"{key}.log"

    def _trouble(self, key: str) -> Path:
        return self.folder / "trouble" / f"{key}.json"

    def begin(self, key: str) -> None:
        """Note that an attempt begins; WriteError where notes cannot be written."""
        try:
            self._tried(key).parent.mkdir(exist_ok=True)
            with open(self._tried(key), "ab") as file:
                file.write(b".")
        except OSError as error:
            raise WriteError(self._tried(key), error) from None

    def tried(self, key: str) -> int:
        """How many attempts were begun."""
        try:
            return self._tried(key).stat().st_size
        except OSError:
            return 0

    def _tried(self, key: str) -> Path:
        return self.folder / "tried" / key

    def keep(self, key: str, outcome: Outcome, *, last: bool = False) -> None:
        """Note how an attempt ended. One that was killed makes the job count as through only if it is the ``last``."""
        text = json.dumps({"end": outcome.end, "said": outcome.said, "seconds": round(outcome.seconds, 1)}) + "\n"
        write_atomically(self._trouble(key) if outcome.end == "killed" and not last else self.through(key), text)

    def ended(self, key: str) -> Outcome | None:
        """How a job ended; None if it is not through."""
        return _read(self.through(key), key)

    def trouble(self, key: str) -> tuple[float, Outcome] | None:
        """How the last attempt of a job ended that was killed, with its time stamp; None if none was."""
        path = self._trouble(key)
        outcome = _read(path, key)
        try:
            return (path.stat().st_mtime, outcome) if outcome else None
        except OSError:
            return None

    def all_through(self) -> set[str]:
        """The keys of all jobs that are through."""
        return {path.stem for path in (self.folder / "through").glob("*.json")}

    def troubled(self) -> set[str]:
        """The keys of all jobs of which an attempt was killed."""
        return {path.stem for path in (self.folder / "trouble").glob("*.json")}

    def at_work(self) -> dict[str, Path]:
        """The jobs at work, with the files in which they say how far they are."""
        return {path.stem: path for path in sorted((self.folder / "progress").glob("*.json"))}

    def forget(self, keys: Iterable[str]) -> None:
        """Remove all that is noted of these jobs."""
        for key in keys:
            for path in (self.through(key), self._trouble(key), self._tried(key), self.progress(key), self.log(key)):
                path.unlink(missing_ok=True)


def _read(path: Path, key: str) -> Outcome | None:
    try:
        note = json.loads(read_bounded(path, _LARGEST_NOTE_BYTES))
        end: End = note["end"]
        return Outcome(Task(key, print, {}), end, note["said"], float(note["seconds"]))
    except (OSError, UnusableFile, ValueError, KeyError, TypeError):
        return None
