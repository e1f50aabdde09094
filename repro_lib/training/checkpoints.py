"""Unfinished work of a cell, kept so that a killed run goes on: the state of a trial in training, and finished trials.

In ``results/checkpoints/``. A file is used if it is whole (a digest covers all of it) and was made for the same trial with
the same program on the same kind of machine: only then the resumed trial ends with the bits of one that was never stopped."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field

from repro_lib.config import ConfigError
from repro_lib.store.parts import Part
from repro_lib.store.schema import LARGEST_RESULT_BYTES, TrialRecord
from repro_lib.store.store import Store
from repro_lib.store.tensors import HEADER_BYTES, read_tensors, sha256_of_tensors, write_tensors
from repro_lib.system.files import UnusableFile, read_bounded, remove_files, write_atomically
from repro_lib.system.leases import remove_left
from repro_lib.training.origin import Origin, Unsuitable
from repro_lib.training.progress import tell
from repro_lib.training.state import TrialState

# Seconds of training between two checkpoints: what a kill can cost at most.
CHECKPOINT_SECONDS = 30.0
# They take longer where saving takes more than this share of the time, and until the first one its cost is an estimate.
_COST_SHARE = 0.01
_ESTIMATED_BYTES_PER_SECOND = 1e8
# Of one trial (trial3), or of trials that train as one (trial1to10); ``last`` is the last of them.
_TRIALS = r"trial(?:(?P<first>\d{1,5})to)?(?P<last>\d{1,5})\.(?:previous\.)?(?:safetensors|json)"
_NAME = re.compile(r"(?P<model>[a-z0-9_]+)-(?P<activation>[a-z0-9_.]+)-(?P<config>[0-9a-f]{12})-" + _TRIALS)
_NOT_SAVED = "no checkpoint could be saved to {} ({}); training goes on without"


class _Kept(Part):
    _indent = 1
    # Earlier versions wrote more; what is read is covered by the digest.
    model_config = ConfigDict(extra="ignore")

    format: int = Field(default=1, ge=1, le=1)
    origin: Origin


class _SavedState(_Kept):
    iteration: int = Field(ge=1)
    seconds: float = Field(ge=0)


class _FinishedTrials(_Kept):
    records: list[TrialRecord]


class CellCheckpoints:
    """The checkpoints of one cell, in the folder of its store. Trials count from 1."""

    def __init__(self, store: Store, origin: Origin, every: float) -> None:
        self.folder, self.every, self.origin = store.folder / "checkpoints", every, origin
        self.stem = f"{origin.model_name}-{origin.activation}-{origin.config_sha256[:12]}-trial"

    def of_trials(self, trials: Sequence[int]) -> TrialCheckpoints:
        """Those of trials that train as one, or of one alone."""
        return TrialCheckpoints(self, trials[0], trials[-1])

    def stack_from(self, first: int, last: int) -> range:
        """Which trials of ``first`` to ``last`` train next as one."""
        begun = [(int(match["first"] or match["last"]), int(match["last"])) for _, match in self._own()]
        # The bits of a stack hang on which trials are in it, so a smaller or larger one would not go on with its work: what a
        # killed run began is finished as it was (the largest), and no new stack reaches into what is begun further on.
        ends = [end for start, end in begun if start == first and end <= last]
        later = [start for start, _ in begun if first < start <= last]
        return range(first, max(ends) + 1 if ends else min(later, default=last + 1))

    def remove(self, trials: int) -> None:
        """Remove all that is kept of the first ``trials`` trials: their result is stored."""
        remove_files(path for path, match in self._own() if int(match["last"]) <= trials)

    def _own(self) -> list[tuple[Path, re.Match[str]]]:
        return [(path, match) for path, match in trial_files(self.folder) if match[0].startswith(self.stem)]


class TrialCheckpoints:
    """The newest state of one trial, or of a stack, and when the next one is due; its records once it is through.
    ``name``: what it is in words. ``costs``: the seconds that each saving took."""

    def __init__(self, cell: CellCheckpoints, first: int, last: int) -> None:
        self.origin, self.every = cell.origin.model_copy(update={"trial": first, "last_trial": last}), cell.every
        words, numbers = (f"trials {first} to {last} as one", f"{first}to{last}") if first < last else (f"trial {first}", first)
        self.name = f"{self.origin.model_name} with {self.origin.activation}, {words}"
        self.path, self._record = (cell.folder / f"{cell.stem}{numbers}{ending}" for ending in (".safetensors", ".json"))
        self.costs: list[float] = []
        # Of the saved state. Nothing is due before ``resume`` has looked: what is there must not be replaced unread.
        self.iteration, self._next, self._complained = 0, math.inf, False

    @property
    def place(self) -> str:
        """What these trials do when they are asked for again, in words."""
        return f"goes on from iteration {self.iteration}" if self.iteration else "starts from its first iteration"

    def keep_finished(self, records: Sequence[TrialRecord]) -> None:
        """Note that the trial, or the stack, is through (its tensors are stored already), and remove its state."""
        try:
            write_atomically(self._record, _FinishedTrials(origin=self.origin, records=list(records)).to_json())
        except OSError as error:
            tell(_NOT_SAVED.format(self.path.parent, error.strerror))
        else:
            # Only now: a kill between the two leaves both, and the record is asked for first.
            remove_files([self.path])

    def finished(self) -> list[TrialRecord] | None:
        """The records of these trials if an earlier run finished them, as one, and they can be used."""

        def read() -> list[TrialRecord]:
            note = _FinishedTrials.unsealed(read_bounded(self._record, LARGEST_RESULT_BYTES))
            # They count whatever source they were trained with, as those of a stored result do: where a change of the program
            # alters numbers, ``RECIPE_VERSION`` makes it another configuration.
            note.origin.check(self.origin, but="code_sha256")
            if note.origin != self.origin:
                tell(f"{self.name}, is kept as another version of this program trained it")
            return note.records

        return _read_or_put_aside(self._record, read)

    def resume(self, trial: TrialState) -> None:
        """Put a trial, as it was before its first step, to its saved state, if there is one that can be used."""
        largest = trial.largest_bytes()
        if self.path.exists():
            _read_or_put_aside(self.path, lambda: self._restore(trial, largest))
            self.iteration = trial.iteration
            tell(f"{self.name}, {self.place}")
        self._plan(largest / _ESTIMATED_BYTES_PER_SECOND)

    def due(self) -> bool:
        """Whether it is time to save."""
        return time.monotonic() >= self._next

    def save(self, state: TrialState, seconds: float) -> None:
        """Save the state in place of the one before, which stays until the new one is whole."""
        started = time.monotonic()
        tensors = state.tensors()
        # A digest of the tensors, and not of the file, whose words it is part of.
        words = _SavedState(origin=self.origin, iteration=state.iteration, seconds=seconds)
        try:
            write_tensors(self.path, tensors, {"checkpoint": words.to_json(beside=sha256_of_tensors(tensors))})
            self.iteration = state.iteration
        except OSError as error:
            # A folder that cannot be written is no reason to stop: it is said once, and training goes on.
            if not self._complained:
                tell(_NOT_SAVED.format(self.path.parent, error.strerror))
            self._complained = True
        self.costs.append(time.monotonic() - started)
        self._plan(self.costs[-1])

    def _plan(self, cost: float) -> None:
        # When the next one is due, if saving takes ``cost`` seconds. An interval of 0 asks for all, at any cost.
        self._next = time.monotonic() + (max(self.every, cost / _COST_SHARE) if self.every else 0.0)

    def _restore(self, trial: TrialState, largest: int) -> None:
        tensors, words = read_tensors(self.path, largest + HEADER_BYTES)
        saved = _SavedState.unsealed(words.get("checkpoint", ""), sha256_of_tensors(tensors))
        saved.origin.check(self.origin)
        if not trial.begins_like(tensors):
            raise Unsuitable("its predictions before training are others: this machine computes otherwise")
        trial.restore(tensors, saved.iteration)
        trial.seconds = saved.seconds


def check_interval(seconds: float) -> float:
    """``seconds`` if it can be the time between checkpoints (0: after every iteration); else ConfigError."""
    if not 0 <= seconds < math.inf:
        raise ConfigError(f"checkpoint_seconds = {seconds} is not possible: expected a number of seconds, 0 or more")
    return seconds


def sweep(store: Store) -> None:
    """Remove what killed runs left: half-written files, leases, and checkpoints of trials whose result is stored."""
    remove_left(store.folder)
    remove_files(of_stored_trials(store))


def of_stored_trials(store: Store) -> list[Path]:
    """The checkpoints of trials whose result is stored."""
    found = []
    for path, match in trial_files(store.folder / "checkpoints"):
        for result in store.candidates(match["model"], match["activation"]):
            holds = result.config_sha256.startswith(match["config"]) and int(match["last"]) <= len(result.trials)
            with contextlib.suppress(OSError):  # another process sweeps too
                # A cell that is being trained again has newer files. A second, for results are stamped with whole ones; a
                # result of tomorrow says nothing.
                if holds and path.stat().st_mtime < result.timestamp.timestamp() + 1 < time.time() + 2:
                    found.append(path)
                    break
    return found


def put_aside(store: Store) -> list[Path]:
    """Damaged checkpoints that were put aside and wait for somebody to look at them."""
    return sorted((store.folder / "checkpoints").glob("*.damaged*"))


def trial_files(folder: Path) -> list[tuple[Path, re.Match[str]]]:
    """Files that are named after trials of ours: ``model``, ``activation``, ``config`` (12 characters of its digest), ``last``.
    Of tensors, checkpoints and records of finished trials; not what was put aside."""
    return [(path, match) for path in sorted(folder.glob("*-trial*")) if (match := _NAME.fullmatch(path.name))]


def _read_or_put_aside(path: Path, read: Callable[[], Any]) -> Any:
    # None where there is no file or it cannot be used, of which the user is told.
    try:
        return read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (Unsuitable, OSError) as error:
        reason = f"it cannot be read ({error.strerror})" if isinstance(error, OSError) else error
        tell(f"the checkpoint {path.name} is not used, for {reason}")
    except UnusableFile as error:
        tell(f"the checkpoint {path.name} {error}; it was put aside as {_put_aside(path)}")
    return None


def _put_aside(path: Path) -> str:
    # Under its new name nobody takes a damaged file for a checkpoint. Only a person can say whether a disk is failing or
    # somebody edited the file: nothing is deleted, nor what was put aside before.
    names = (f"{path.name}.damaged{f'-{k}' if k > 1 else ''}" for k in itertools.count(1))
    aside = next(aside for aside in map(path.with_name, names) if not aside.exists())
    with contextlib.suppress(OSError):  # where nothing can be written it stays, and is refused again
        os.replace(path, aside)
    return aside.name
