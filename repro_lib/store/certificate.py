"""The determinism certificate: what ``repro doctor --determinism`` found on a machine, kept in the results folder.

The index of the reports shows it. It is read as it was written, or not at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self, get_args

from pydantic import AwareDatetime, Field, model_validator

from repro_lib.store.checksummed import Signed
from repro_lib.store.schema import CorpusRecord, Part
from repro_lib.system.files import UnusableFile, read_bounded, write_atomically

# Some 200 bytes for each trial.
_LARGEST_BYTES = 2**20
_HOW = "repro doctor --determinism"

LONGEST_LINE = 500
Line = Annotated[str, Field(min_length=1, max_length=LONGEST_LINE)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
CheckName = Literal["processes", "resumed", "constant predictor", "causality"]
CHECK_NAMES: tuple[CheckName, ...] = get_args(CheckName)


class Check(Part):
    """One of the things that were looked at: whether it is as it must be, and what was compared, in a sentence."""

    name: CheckName
    passed: bool
    said: Line


class Machine(Part):
    """With what the certificate was made: that for which it holds."""

    python: Line
    torch: Line
    device: Line
    cpu: Line
    git_commit: Line | None

    def difference(self, environment: Mapping[str, str | None]) -> str | None:
        """What of the things that decide bits a result was made with otherwise, in words."""
        for name in ("torch", "device", "cpu"):
            other = environment.get(name)
            if other != self[name]:
                return f"{name} {self[name]}, these results with {other or 'an unknown one'}"
        return None


class Certificate(Signed):
    """What was compared, and what came out.

    ``digests``: by cell, trial and kind, from the run that the others were compared with. ``workers``: how many trained at
    once in the other one. ``slowdown``: seconds of a training step with deterministic algorithms over seconds without,
    on CUDA; None where it was not measured.
    """

    kind: ClassVar[str] = "certificate"

    checks: list[Check]
    digests: dict[Line, Digest] = Field(max_length=1000)
    workers: int = Field(ge=2, le=1000)
    corpus: CorpusRecord
    slowdown: float | None = Field(gt=0)
    seconds: float = Field(ge=0)
    machine: Machine
    timestamp: AwareDatetime

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if tuple(check.name for check in self.checks) != CHECK_NAMES:
            raise ValueError(f"checks must be {', '.join(CHECK_NAMES)}, in this order")
        if self.timestamp.utcoffset():
            raise ValueError("timestamp must be in UTC")
        if self.passed and not self.digests:
            raise ValueError("nothing was compared")
        return self

    @property
    def passed(self) -> bool:
        """Whether all is as it must be."""
        return all(check.passed for check in self.checks)

    @property
    def outcome(self) -> str:
        """In a word or two."""
        return "passed" if self.passed else "FAILED"

    def stale(self, environments: Iterable[Mapping[str, str | None]]) -> str | None:
        """Why it does not speak for results that were made in these environments; None where it does."""
        differences = (self.machine.difference(environment) for environment in environments)
        return next((difference for difference in differences if difference), None)


def certificate_path(results_dir: Path) -> Path:
    """Where the newest certificate of a results folder lies."""
    return results_dir / "certificate" / "determinism.json"


def write_certificate(results_dir: Path, certificate: Certificate) -> Path:
    """Store a certificate in place of the one before. WriteError if the folder cannot be written."""
    path = certificate_path(results_dir)
    write_atomically(path, certificate.signed())
    return path


def certificate_or_reason(results_dir: Path) -> tuple[Certificate | None, str]:
    """The certificate of a results folder, or None and why there is none that can be used, in words without a path."""
    path = certificate_path(results_dir)
    try:
        return Certificate.from_signed(read_bounded(path, _LARGEST_BYTES)), ""
    except (FileNotFoundError, NotADirectoryError):
        return None, f"not certified yet: run {_HOW}"
    except UnusableFile as error:
        return None, f"not certified: {path.name} {error}; run {_HOW}"
    except OSError as error:
        return None, f"not certified: {path.name} cannot be read ({error.strerror})"
