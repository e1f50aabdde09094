"""Unfinished work of a cell, kept so that a killed run goes on: the state of a trial in training, and finished trials.

In ``results/checkpoints/``. A file is used if it is whole (a digest covers all of it) and was made for the same trial with
the same program on the same kind of machine: only then the resumed trial ends with the bits of one that was never stopped.
What is damaged is put aside and named, and its trial begins again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import ConfigDict, Field

from repro_lib.config import ConfigError, canonical_json
from repro_lib.store.schema import LARGEST_RESULT_BYTES, Part, Result, TrialRecord
from repro_lib.store.store import Store
from repro_lib.store.tensors import HEADER_BYTES, read_tensors, sha256_of_tensors, write_tensors
from repro_lib.system.files import UnusableFile, read_bounded, remove_leftovers, write_atomically
from repro_lib.system.leases import remove_void
from repro_lib.training.origin import Origin, Unsuitable
from repro_lib.training.progress import tell
from repro_lib.training.state import TrialState

# Seconds of training between two checkpoints: what a kill can cost at most.
CHECKPOINT_SECONDS = 30.0
# They take longer where saving takes more than this share of the time, and until the first one its cost is an estimate.
_COST_SHARE = 0.01
_ESTIMATED_BYTES_PER_SECOND = 1e8
# Of one trial (trial3), or of trials that train as one (trial1to10); ``last`` is the last of them.
_TRIALS = r"trial(?:(?P<first>\d{1,5})to)?(?P<last>\d{1,5})\."
_NAME = re.compile(r"(?P<model>[a-z0-9_]+)-(?P<activation>[a-z0-9_.]+)-(?P<config>[0-9a-f]{12})-" + _TRIALS)
_NOT_SAVED = "no checkpoint could be saved to {} ({}); training goes on without"

_T = TypeVar("_T")


class _Kept(Part):
    """A record in JSON with a digest of its content and, where it has tensors beside it, of those."""

    # Earlier versions wrote more; what is read is covered by the digest.
    model_config = ConfigDict(extra="ignore")

    format: int = Field(default=1, ge=1, le=1)
    origin: Origin

    def sealed(self, tensors_sha256: str = "") -> str:
        """The JSON text, ``content_sha256`` first."""
        content = self.model_dump(mode="json")
        return json.dumps({"content_sha256": _digest(content, tensors_sha256), **content}, indent=1, allow_nan=False) + "\n"

    @classmethod
    def unsealed(cls, text: str | bytes, tensors_sha256: str = "") -> Self:
        """Read what ``sealed`` wrote; UnusableFile says what is wrong."""
        try:
            content = json.loads(text)
            claimed = content.pop("content_sha256")
            whole = claimed == _digest(content, tensors_sha256)
            record = cls.model_validate_json(canonical_json(content)) if whole else None
        # Whatever text lies there is refused in one sentence. ValueError: no JSON, or not that of a checkpoint.
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:100]
            raise UnusableFile(f"is no whole checkpoint ({reason})") from None
        if record is None:
            raise UnusableFile("was changed after it was written (content_sha256 does not fit)")
        return record


class _SavedState(_Kept):
    """What is said in words about the tensors of a trial's state."""

    iteration: int = Field(ge=1)
    seconds: float = Field(ge=0)


class _FinishedTrials(_Kept):
    """One trial, or a stack, that is trained, of a cell that is not through."""

    records: list[TrialRecord]


class CellCheckpoints:
    """The checkpoints of one cell. The user is told in one sentence whatever he should know. Trials count from 1."""

    def __init__(self, store: Store, origin: Origin, every: float) -> None:
        self.folder, self.every, self.origin = store.folder / "checkpoints", check_interval(every), origin
        self.stem = f"{origin.model_name}-{origin.activation}-{origin.config_sha256[:12]}"

    def of_trials(self, trials: Sequence[int]) -> TrialCheckpoints:
        """Those of trials that train as one, or of one alone."""
        return TrialCheckpoints(self.name_of(trials), self._path(trials, "safetensors"), self._origin(trials), self.every)

    def keep_finished(self, records: Sequence[TrialRecord]) -> None:
        """Note that a trial, or a stack, is through (its tensors are stored already), and remove its checkpoint."""
        trials = [record.trial for record in records]
        note = _FinishedTrials(origin=self._origin(trials), records=list(records))
        try:
            write_atomically(self._path(trials, "json"), note.sealed())
        except OSError as error:
            tell(_NOT_SAVED.format(self.folder, error.strerror))
        else:
            # Only now: a kill between the two leaves both, and the record is asked for first.
            self.of_trials(trials).remove()

    def finished(self, trials: Sequence[int]) -> list[TrialRecord] | None:
        """The records of these trials if an earlier run finished them, as one, and they can be used.

        They count whatever source they were trained with, as those of a stored result do: where a change of the program alters
        numbers, ``RECIPE_VERSION`` makes it another configuration.
        """
        path, origin = self._path(trials, "json"), self._origin(trials)

        def read() -> list[TrialRecord]:
            note = _FinishedTrials.unsealed(read_bounded(path, LARGEST_RESULT_BYTES))
            there, told = [record.trial for record in note.records], range(note.origin.trial, note.origin.last_trial + 1)
            if there != list(told):
                raise UnusableFile(f"is of the trials {[*told]} and holds {there}")
            # Torch and the kind of machine count: they may change the last bits without anybody having changed the recipe.
            note.origin.check(origin, but="code_sha256")
            if note.origin != origin:
                tell(f"{self.name_of(trials)}, is kept as another version of this program trained it")
            return note.records

        return _read_or_put_aside(path, read)

    def end_of_stack(self, first: int, last: int) -> int | None:
        """The last trial of the largest stack from ``first`` on, up to ``last``, that an earlier run worked at."""
        return max((end for start, end in self._worked_at() if start == first and end <= last), default=None)

    def next_beginning(self, first: int) -> int | None:
        """Where the first trial or stack after ``first`` begins that an earlier run, or another process, worked at."""
        return min((start for start, _ in self._worked_at() if start > first), default=None)

    def name_of(self, trials: Sequence[int]) -> str:
        """How users are told of a trial, or of trials that train as one."""
        numbers = f"trial {trials[0]}" if len(trials) == 1 else f"trials {trials[0]} to {trials[-1]} as one"
        return f"{self.origin.model_name} with {self.origin.activation}, {numbers}"

    def remove(self, trials: int) -> None:
        """Remove all that is kept of the first ``trials`` trials: their result is stored."""
        for path, match in _files(self.folder):
            if match[0].startswith(f"{self.stem}-trial") and int(match["last"]) <= trials:
                path.unlink(missing_ok=True)

    def _worked_at(self) -> list[tuple[int, int]]:
        """First and last of each trial or stack of this cell of which something is kept."""
        own = [match for _, match in _files(self.folder) if match[0].startswith(f"{self.stem}-trial")]
        return [(int(match["first"] or match["last"]), int(match["last"])) for match in own]

    def _path(self, trials: Sequence[int], ending: str) -> Path:
        numbers = f"{trials[0]}" if len(trials) == 1 else f"{trials[0]}to{trials[-1]}"
        return self.folder / f"{self.stem}-trial{numbers}.{ending}"

    def _origin(self, trials: Sequence[int]) -> Origin:
        return self.origin.model_copy(update={"trial": trials[0], "last_trial": trials[-1]})


class TrialCheckpoints:
    """The newest state of one trial, or of a stack, and when the next one is due.

    ``name``: what it is in words. ``saved``, ``spent``: how many were saved, and the seconds that this has taken.
    """

    def __init__(self, name: str, path: Path, origin: Origin, every: float) -> None:
        self.name, self.path, self.origin, self.every = name, path, origin, every
        self.saved, self.spent = 0, 0.0
        # Nothing is due before ``resume`` has looked: what is there must not be replaced unread.
        self._next = math.inf
        self._complained = False

    def resume(self, trial: TrialState) -> None:
        """Put a trial, as it was before its first step, to its saved state, if there is one that can be used."""
        largest = trial.largest_bytes()
        if self.path.exists():
            saved = _read_or_put_aside(self.path, lambda: self._restored(trial, largest))
            if saved:
                trial.seconds = saved.seconds
            tell(f"{self.name}, {f'goes on from iteration {trial.iteration}' if saved else 'starts from its first iteration'}")
        self._plan(largest / _ESTIMATED_BYTES_PER_SECOND)

    def due(self) -> bool:
        """Whether it is time to save."""
        return time.monotonic() >= self._next

    def save(self, state: TrialState, seconds: float) -> None:
        """Save the state in place of the one before, which stays until the new one is whole.

        A folder that cannot be written is no reason to stop: it is said once, and training goes on.
        """
        started = time.monotonic()
        tensors = state.tensors()
        # A digest of the tensors, and not of the file, whose words it is part of.
        words = _SavedState(origin=self.origin, iteration=state.iteration, seconds=seconds)
        try:
            write_tensors(self.path, tensors, {"checkpoint": words.sealed(sha256_of_tensors(tensors))})
            self.saved += 1
        except OSError as error:
            if not self._complained:
                tell(_NOT_SAVED.format(self.path.parent, error.strerror))
            self._complained = True
        cost = time.monotonic() - started
        self.spent += cost
        self._plan(cost)

    def remove(self) -> None:
        """Remove what is saved."""
        self.path.unlink(missing_ok=True)

    def _plan(self, cost: float) -> None:
        """When the next one is due, if saving takes ``cost`` seconds. An interval of 0 asks for all, at any cost."""
        self._next = time.monotonic() + (max(self.every, cost / _COST_SHARE) if self.every else 0.0)

    def _restored(self, trial: TrialState, largest: int) -> _SavedState:
        tensors, words = read_tensors(self.path, largest + HEADER_BYTES)
        saved = _SavedState.unsealed(words.get("checkpoint", ""), sha256_of_tensors(tensors))
        saved.origin.check(self.origin)
        if not trial.begins_like(tensors):
            raise Unsuitable("its predictions before training are others: this machine computes otherwise")
        trial.restore(tensors, saved.iteration)
        return saved


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
        # A second, for results are stamped with whole ones.
        return last <= len(result.trials) and path.stat().st_mtime < result.timestamp.timestamp() + 1
    except FileNotFoundError:
        return False


def _files(folder: Path) -> Iterator[tuple[Path, re.Match[str]]]:
    """Checkpoints and records of finished trials in a folder; not what was put aside."""
    for path in sorted(folder.glob("*-trial*")):
        match = _NAME.match(path.name)
        if match and path.suffix in (".safetensors", ".json"):
            yield path, match


def _read_or_put_aside(path: Path, read: Callable[[], _T]) -> _T | None:
    """What ``read`` makes of a file; None where there is none or it cannot be used, of which the user is told."""
    try:
        return read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Unsuitable as difference:
        tell(f"the checkpoint {path.name} is not used, for {difference}")
    except OSError as error:
        tell(f"the checkpoint {path.name} is not used, for it cannot be read ({error.strerror})")
    except UnusableFile as error:
        tell(f"the checkpoint {path.name} {error}; it was put aside as {_put_aside(path)}")
    return None


def _put_aside(path: Path) -> str:
    """Give a damaged file a name under which nobody takes it for a checkpoint; what was put aside before is kept."""
    # Only a person can say whether a disk is failing or somebody edited the file: nothing is deleted.
    k = 1
    while (aside := path.with_name(f"{path.name}.damaged{'' if k == 1 else f'-{k}'}")).exists():
        k += 1
    with contextlib.suppress(OSError):  # where nothing can be written it stays, and is refused again
        os.replace(path, aside)
    return aside.name


def _digest(content: dict[str, Any], tensors_sha256: str) -> str:
    """It finds damage; it is no signature of anybody."""
    return hashlib.sha256(f"{canonical_json(content)}{tensors_sha256}".encode()).hexdigest()
