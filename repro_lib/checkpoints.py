"""Unfinished work of a cell, kept so that a killed run goes on: the state of a trial in training, and finished trials.

Two generations of a trial's state lie in ``results/checkpoints/``; where the newest is damaged the one before serves, and
then the start. A file is used if it is whole (a digest covers all of it) and was made for the same trial with the same
program on the same kind of machine: only then the resumed trial ends with the bits of one that was never stopped.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar, TypeVar

from pydantic import Field

from repro_lib.config import ConfigError
from repro_lib.files import UnusableFile, read_bounded, remove_leftovers, write_atomically
from repro_lib.lease import remove_void
from repro_lib.schema import LARGEST_RESULT_BYTES, Part, Result, Sha256, TrialRecord
from repro_lib.signed import Signed
from repro_lib.store import Store
from repro_lib.tensors import HEADER_BYTES, read_tensors, sha256_of_tensors, write_tensors
from repro_lib.trial_state import StateError, TrialState

# Seconds of training between two checkpoints: what a kill can cost at most.
CHECKPOINT_SECONDS = 30.0
# They take longer where saving takes more than this share of the time, and until the first one its cost is an estimate.
_COST_SHARE = 0.01
_ESTIMATED_BYTES_PER_SECOND = 1e8
# What a checkpoint's bits depend on beside the configuration; a changed program does not go on with the old one's work.
_CODE = (
    "activations.py",
    "data.py",
    "determinism.py",
    "metrics.py",
    "training.py",
    "stacked.py",
    "trial_state.py",
    "models/*.py",
)
# Of one trial (trial3), or of trials that train as one (trial1to10); ``last`` is the last of them.
_TRIALS = r"trial(?:(?P<first>\d{1,5})to)?(?P<last>\d{1,5})\."
_NAME = re.compile(r"(?P<model>[a-z0-9_]+)-(?P<activation>[a-z0-9_.]+)-(?P<config>[0-9a-f]{12})-" + _TRIALS)

Notice = Callable[[str], None]
_T = TypeVar("_T")


class Origin(Part):
    """What a checkpoint was made for and with. Where all of it is equal, the bits are."""

    model_name: str
    activation: str
    config_sha256: str = Sha256
    evaluation_sha256: str = Sha256
    trial: int = Field(ge=1)
    # The last of the trials that train as one from ``trial`` on; ``trial`` itself where it trains alone.
    last_trial: int = Field(ge=1)
    torch: str
    device: str
    cpu: str
    code_sha256: str = Sha256

    def difference(self, other: Origin) -> str | None:
        """The first thing that ``other`` has otherwise, in words."""
        for name in type(self).model_fields:
            if self[name] != other[name]:
                what = name.removesuffix("_sha256").replace("_", " ")
                return f"it was made with {what} {str(self[name])[:40]}, this is {str(other[name])[:40]}"
        return None


class _Kept(Signed):
    """What is kept of unfinished work."""

    kind: ClassVar[str] = "checkpoint"

    origin: Origin


class _SavedState(_Kept):
    """What is said in words about the tensors of a trial's state."""

    iteration: int = Field(ge=1)
    seconds: float = Field(ge=0)
    init_sha256: str = Sha256


class _FinishedTrials(_Kept):
    """One trial, or a stack, that is trained, of a cell that is not through."""

    records: list[TrialRecord]


_S = TypeVar("_S", bound=_Kept)


class CellCheckpoints:
    """The checkpoints of one cell. ``notice`` is told in one sentence whatever a user should know."""

    def __init__(self, store: Store, origin: Origin, every: float, notice: Notice) -> None:
        self.folder, self.every, self.notice = store.folder / "checkpoints", check_interval(every), notice
        self.origin = origin
        self.stem = f"{origin.model_name}-{origin.activation}-{origin.config_sha256[:12]}"

    def of_trials(self, first: int, last: int) -> TrialCheckpoints:
        """Those of the trials that train as one, from ``first`` to ``last`` (numbered from 1), or of one alone."""
        name = self.name_of(first, last)
        return TrialCheckpoints(
            name, self._path(first, last, "safetensors"), self._origin(first, last), self.every, self.notice
        )

    def keep_finished(self, records: Sequence[TrialRecord]) -> None:
        """Note that a trial, or a stack, is through (its tensors are stored already), and remove its checkpoints."""
        first, last = records[0].trial, records[-1].trial
        note = _FinishedTrials(origin=self._origin(first, last), records=list(records))
        try:
            write_atomically(self._path(first, last, "json"), note.signed())
        except OSError as error:
            self.notice(_not_saved(self.folder, error))
        else:
            self.of_trials(first, last).remove()

    def finished(self, first: int, last: int) -> list[TrialRecord] | None:
        """The records of the trials ``first`` to ``last`` (from 1) that an earlier run finished, if they can be used."""
        path, origin = self._path(first, last, "json"), self._origin(first, last)

        def read() -> list[TrialRecord]:
            note = _FinishedTrials.from_signed(read_bounded(path, LARGEST_RESULT_BYTES))
            there, told = [record.trial for record in note.records], range(note.origin.trial, note.origin.last_trial + 1)
            if there != list(told):
                raise UnusableFile(f"is of the trials {[*told]} and holds {there}")
            return _usable(note, origin).records

        return _read_or_put_aside(path, read, self.notice)

    def end_of_stack(self, first: int, trials: int) -> int | None:
        """The last trial of the largest stack from ``first`` on, within ``trials`` trials, that an earlier run worked at."""
        own = [match for _, match in _files(self.folder) if match[0].startswith(f"{self.stem}-trial")]
        ends = [int(match["last"]) for match in own if int(match["first"] or match["last"]) == first]
        return max((last for last in ends if last <= trials), default=None)

    def next_beginning(self, first: int) -> int | None:
        """Where the first trial or stack after ``first`` begins that an earlier run, or another process, worked at."""
        own = [match for _, match in _files(self.folder) if match[0].startswith(f"{self.stem}-trial")]
        beginnings = [int(match["first"] or match["last"]) for match in own]
        return min((start for start in beginnings if start > first), default=None)

    def name_of(self, first: int, last: int) -> str:
        """How users are told of a trial, or of trials that train as one."""
        numbers = f"trial {first}" if first == last else f"trials {first} to {last} as one"
        return f"{self.origin.model_name} with {self.origin.activation}, {numbers}"

    def remove(self, trials: int) -> None:
        """Remove all that is kept of the first ``trials`` trials: their result is stored."""
        for path, match in _files(self.folder):
            if match[0].startswith(f"{self.stem}-trial") and int(match["last"]) <= trials:
                path.unlink(missing_ok=True)

    def _path(self, first: int, last: int, ending: str) -> Path:
        numbers = f"{first}" if first == last else f"{first}to{last}"
        return self.folder / f"{self.stem}-trial{numbers}.{ending}"

    def _origin(self, first: int, last: int) -> Origin:
        return self.origin.model_copy(update={"trial": first, "last_trial": last})


class TrialCheckpoints:
    """The two newest states of one trial, or of a stack, and when the next one is due.

    ``name``: what it is in words. ``spent``: seconds that saving has taken.
    """

    def __init__(self, name: str, path: Path, origin: Origin, every: float, notice: Notice) -> None:
        self.name, self.path, self.previous = name, path, path.with_suffix(".previous.safetensors")
        self.origin, self.every, self.notice = origin, every, notice
        self.saved, self.spent = 0, 0.0
        self._next = math.inf
        self._complained = False

    def resume(self, trial: TrialState) -> None:
        """Put a trial, as it was before its first step, to its newest state that can be used, if there is one."""
        there = [path for path in (self.path, self.previous) if path.exists()]
        largest = trial.largest_bytes()
        for path in there:
            saved = _read_or_put_aside(path, lambda path=path: self._restored(path, trial, largest), self.notice)
            if saved:
                trial.seconds = saved.seconds
                self.notice(f"{self.name}, goes on from iteration {trial.iteration}")
                break
        else:
            if there:
                self.notice(f"{self.name}, starts from its first iteration")
        self._plan(largest / _ESTIMATED_BYTES_PER_SECOND)

    def due(self) -> bool:
        """Whether it is time to save."""
        return time.monotonic() >= self._next

    def save(self, state: TrialState, seconds: float) -> None:
        """Save the state as the newest; the newest so far becomes the one before.

        A folder that cannot be written is no reason to stop: it is said once, and training goes on.
        """
        started = time.monotonic()
        tensors = state.tensors()
        words = _SavedState(origin=self.origin, iteration=state.iteration, seconds=seconds, init_sha256=state.init_sha256)
        try:
            if self.path.exists():
                os.replace(self.path, self.previous)
            write_tensors(self.path, tensors, {"checkpoint": words.signed(sha256_of_tensors(tensors))})
            self.saved += 1
        except OSError as error:
            if not self._complained:
                self.notice(_not_saved(self.path.parent, error))
            self._complained = True
        cost = time.monotonic() - started
        self.spent += cost
        self._plan(cost)

    def remove(self) -> None:
        """Remove both generations."""
        for path in (self.path, self.previous):
            path.unlink(missing_ok=True)

    def _plan(self, cost: float) -> None:
        """When the next one is due, if saving takes ``cost`` seconds. An interval of 0 asks for all, at any cost."""
        self._next = time.monotonic() + (max(self.every, cost / _COST_SHARE) if self.every else 0.0)

    def _restored(self, path: Path, trial: TrialState, largest: int) -> _SavedState:
        tensors, words = read_tensors(path, largest + HEADER_BYTES)
        saved = _usable(_SavedState.from_signed(words.get("checkpoint", ""), sha256_of_tensors(tensors)), self.origin)
        if saved.init_sha256 != trial.init_sha256:
            raise UnusableFile("comes from other initial weights")
        try:
            trial.restore(tensors, saved.iteration)
        except StateError as error:
            raise UnusableFile(f"does not hold this trial: {error}") from None
        return saved


class _Unsuitable(Exception):
    """A whole file that was made for or with something else."""


def check_interval(seconds: float) -> float:
    """``seconds`` if it can be the time between checkpoints (0: after every iteration); else ConfigError."""
    if not 0 <= seconds < math.inf:
        raise ConfigError(f"checkpoint_seconds = {seconds} is not possible: expected a number of seconds, 0 or more")
    return seconds


def sweep(store: Store) -> None:
    """Remove what killed runs left: half-written files, leases, and checkpoints of trials whose result is stored."""
    remove_leftovers(store.folder)
    remove_void(store.folder / "leases")
    for path, match in _files(store.folder / "checkpoints"):
        for result in store.candidates(match["model"], match["activation"]):
            if result.config_sha256.startswith(match["config"]) and _is_left_over(path, int(match["last"]), result):
                path.unlink(missing_ok=True)


def put_aside(store: Store) -> list[Path]:
    """Damaged checkpoints that were put aside and wait for somebody to look at them."""
    return sorted((store.folder / "checkpoints").glob("*.damaged*"))


def _is_left_over(path: Path, last: int, result: Result) -> bool:
    """Whether the result holds the trials of this file and is not older: a cell that is being trained again has newer files."""
    try:
        return last <= len(result.trials) and path.stat().st_mtime < result.timestamp.timestamp() + 1
    except FileNotFoundError:
        return False


def _files(folder: Path) -> Iterator[tuple[Path, re.Match[str]]]:
    """Checkpoints and records of finished trials in a folder; not what was put aside."""
    for path in sorted(folder.glob("*-trial*")):
        match = _NAME.match(path.name)
        if match and path.suffix in (".safetensors", ".json"):
            yield path, match


def _usable(found: _S, origin: Origin) -> _S:
    difference = found.origin.difference(origin)
    if difference:
        raise _Unsuitable(difference)
    return found


def _read_or_put_aside(path: Path, read: Callable[[], _T], notice: Notice) -> _T | None:
    """What ``read`` makes of a file; None where there is none or it cannot be used, which ``notice`` is told."""
    try:
        return read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except _Unsuitable as difference:
        notice(f"the checkpoint {path.name} is not used, for {difference}")
    except OSError as error:
        notice(f"the checkpoint {path.name} is not used, for it cannot be read ({error.strerror})")
    except UnusableFile as error:
        notice(f"the checkpoint {path.name} {error}; it was put aside as {_put_aside(path)}")
    return None


def _put_aside(path: Path) -> str:
    """Give a damaged file a name under which nobody takes it for a checkpoint; what was put aside before is kept."""
    k = 1
    while (aside := path.with_name(f"{path.name}.damaged{'' if k == 1 else f'-{k}'}")).exists():
        k += 1
    with contextlib.suppress(OSError):  # where nothing can be written it stays, and is refused again
        os.replace(path, aside)
    return aside.name


def _not_saved(folder: Path, error: OSError) -> str:
    return f"no checkpoint could be saved to {folder} ({error.strerror}); training goes on without"


@functools.cache
def code_sha256() -> str:
    """Digest of the source of all that decides a trial's bits."""
    here = Path(__file__).parent
    files = sorted(path for pattern in _CODE for path in here.glob(pattern))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
