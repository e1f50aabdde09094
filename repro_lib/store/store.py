"""A folder of results: what lies where, how it is written, and how it is found again.

One JSON file per cell and run in ``results/``; beside it, per trial, the logits in ``predictions/``, the final weights in
``weights/`` and the snapshots of the logits during training in ``steps/``; notes of failed cells in ``failed/``."""

import contextlib
import functools
import glob
import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import EllipsisType
from typing import Any

import torch

from repro_lib.config import MARGIN, ConfigError, check_model, project_root
from repro_lib.models.activations import canonical_activation
from repro_lib.store.predictions import EXACT, STORED, Predictions, Snapshots, predictions_from, snapshots_from, trial_tensors
from repro_lib.store.schema import LARGEST_RESULT_BYTES, LONGEST_WORDS, Result, ResultError, TensorKind
from repro_lib.store.tensors import sha256_of_tensors, write_tensors
from repro_lib.system.files import LARGEST_NOTEBOOK_BYTES, UnusableFile, read_bounded, share, write_atomically

# Results under the names that they are given, and what is in them under any.
_RESULT_NAME = re.compile(r"[\w.]+-[\w.]+-\d{8}_\d{6}(-\d+)?\.json(\.xz)?")
_RESULT_KEYS = (b'"content_sha256"', b'"schema_version"')
# A note of a failure is a sentence.
_LARGEST_NOTE_BYTES = 2**20


class Store:
    """A results folder. Reading never changes it. Trials are numbered from 1."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    def save(self, result: Result) -> Path:
        """Write a new result file; an existing one is never overwritten."""
        stem = f"{result.model_name}-{result.activation}-{result.timestamp.astimezone(UTC):%Y%m%d_%H%M%S}"
        path, number = self.folder / f"{stem}.json", 1
        while True:
            # The name is taken by writing, not looked up before: between the two another process could take it.
            with contextlib.suppress(FileExistsError):
                write_atomically(path, result.to_json(), replace=False)
                return path
            number += 1
            path = self.folder / f"{stem}-{number}.json"

    def stamped(self, result: Result) -> Result:
        """The same with the time of this moment, or just after the newest that is stored, where a clock was wrong:
        the newest is what counts, and that is the one that was written last."""
        return result.model_copy(update={"timestamp": self._now().replace(microsecond=0)})

    def _now(self) -> datetime:
        now = datetime.now(UTC)
        # By their names first: reading all takes seconds.
        ahead = [path.stem for path in self.folder.glob("*.json") if path.stem.split("-")[2:3] > [f"{now:%Y%m%d_%H%M%S}"]]
        return max([now, *(r.timestamp + timedelta(seconds=1) for name in ahead for _, r in self.load(glob.escape(name))[0])])

    def load(self, names: str = "*") -> tuple[list[tuple[Path, Result]], list[str]]:
        """All readable results, oldest first, and a sentence for each file that was refused; ``names``: a pattern for both.
        What neither has the name of a result nor looks like one is somebody else's, and passed over."""
        good, refused = [], []  # one broken file shall not hide the others
        for path in (*self.folder.glob(f"{names}.json"), *self.folder.glob(f"{names}.json.xz")):
            try:
                good.append((path, read_result(path)))
            except ResultError as error:
                refused += [str(error)] if _may_be_ours(path) else []
        return sorted(good, key=_age), sorted(refused)

    def candidates(self, model: str, activation: str) -> Iterable[Result]:
        """Readable measured results of one cell, newest first, without opening those of other cells."""
        of_cell = reversed(self.load(f"{model}-{activation}-*")[0])
        # A file may have been renamed by hand: what it says decides, not what it is called.
        return [r for _, r in of_cell if (r.model_name, r.activation) == (model, activation) and not r.synthetic]

    def find(
        self, model: str, activation: str, config_sha256: str, trials: int = 1, profile: str | EllipsisType | None = ...
    ) -> Result | None:
        """The newest result of this cell and configuration with at least ``trials`` trials, made with this profile
        (None: with none; ``...``: with any)."""
        for result in self.candidates(model, activation):
            fits = profile is ... or result.profile == profile
            if fits and result.config_sha256 == config_sha256 and len(result.trials) >= trials:
                return result
        return None

    def trial_path(self, kind: TensorKind, model: str, activation: str, config_sha256: str, trial: int) -> Path:
        """Where the predictions, weights or snapshots (``steps``) of a trial lie."""
        # Names come from the command line too, and become parts of a path here.
        check_model(model)
        return self.folder / kind / f"{model}-{canonical_activation(activation)}-{config_sha256[:12]}-trial{trial}.safetensors"

    def save_tensors(
        self,
        path: Path,
        tensors: dict[str, torch.Tensor],
        about: dict[str, str],
        rounded: dict[str, torch.Tensor] | None = None,
    ) -> str:
        """Write a trial's tensors, or ``rounded`` ones in their place; returns the digest of ``tensors`` either way."""
        digest, stored = sha256_of_tensors(tensors), rounded or tensors
        write_tensors(path, stored, about | {EXACT: digest, STORED: sha256_of_tensors(stored)}, packed=True)
        # A model without activations leaves the same bytes for each of them, and so does a trial that is repeated.
        model, *_, config, _ = path.name.split("-")
        share(path, f"{model}-*-{config}-*{path.suffix}")
        return digest

    def predictions(self, result: Result, trial: int) -> Predictions:
        """The stored logits of a trial, checked against the digest in the result; ResultError as for all tensors."""
        tensors, evaluation = self._tensors("predictions", result, trial), result.evaluation
        return predictions_from(tensors, evaluation.sha256, evaluation.tokens, _name(result, trial))

    def weights(self, result: Result, trial: int) -> dict[str, torch.Tensor]:
        """The stored final weights of a trial, checked against the digest in the result."""
        return self._tensors("weights", result, trial)

    def snapshots(self, result: Result, trial: int) -> Snapshots:
        """The predictions kept while a trial was trained, checked against the digest in the result."""
        if result.trials[trial - 1].steps_sha256 is None and result.config.get("ensemble", 1) == 1:
            why = "was trained by a version that kept no predictions during training; run the cell again with --force"
            raise ResultError(f"{result.model_name} with {result.activation} {why}")
        return snapshots_from(self._tensors("steps", result, trial), _name(result, trial))

    def _tensors(self, kind: TensorKind, result: Result, trial: int) -> dict[str, torch.Tensor]:
        if kind != "predictions" and (size := result.config.get("ensemble", 1)) > 1:
            has = f"is an ensemble of {size} models, and has no {kind} of its own; those of its members have"
            raise ResultError(f"{result.model_name} with {result.activation} {has}")
        path = self.trial_path(kind, result.model_name, result.activation, result.config_sha256, trial)
        return trial_tensors(path, kind, result.trials[trial - 1], result.evaluation.tokens, result.parameters)

    def grids(self) -> list[str]:
        """The ``config_sha256`` of all grids that were run in this folder, those of the newest last."""
        return self._noted_grids()["configs"]

    def newest_factor(self) -> str | None:
        """What differed between the arms of the newest grid that was run in this folder; None: the activation alone."""
        return self._noted_grids()["factor"]

    def asked(self, profile: str | None) -> list[tuple[str, str]]:
        """The cells (model, activation) that grids of a profile were asked for in this folder."""
        return [(model, activation) for name, model, activation in self._noted_grids()["asked"] if name == profile]

    def _noted_grids(self) -> dict[str, Any]:
        path, nothing = self.declared("grids.json"), {"configs": [], "asked": [], "factor": None}
        try:
            noted = nothing | json.loads(read_bounded(path, _LARGEST_NOTE_BYTES))
            whole = isinstance(noted["configs"], list) and isinstance(noted["factor"], str | None)
            if whole and all(isinstance(of, str) for of in noted["configs"]) and all(len(cell) == 3 for cell in noted["asked"]):
                return noted
        except FileNotFoundError:
            return nothing
        except (OSError, UnusableFile, ValueError, KeyError, TypeError, RecursionError):
            pass
        raise ResultError(f"{path} does not list the configurations of the grids that were run; delete it")

    def note_grid(
        self, configs: Iterable[str], asked: Iterable[tuple[str | None, str, str]] = (), factor: str | None = None
    ) -> None:
        """Note the configurations of a grid, its own and not those of its other lengths and rates, the cells (profile, model,
        activation) that it was ``asked`` for, and what its arms differ in, if not in their activations alone."""
        own, before = dict.fromkeys(configs), self._noted_grids()
        noted = {"configs": [*(config for config in before["configs"] if config not in own), *own], "factor": factor}
        noted["asked"] = [*before["asked"], *(cell for cell in map(list, asked) if cell not in before["asked"])]
        if noted != before:
            write_atomically(self.declared("grids.json"), json.dumps(noted) + "\n")

    def margin(self) -> float:
        """The margin of equality in per cent of the reference, as the study of this folder declared it."""
        path = self.declared("study.json")
        try:
            margin = json.loads(read_bounded(path, _LARGEST_NOTE_BYTES))["margin_per_cent"] if path.exists() else MARGIN
            return check_margin(margin)
        except (OSError, UnusableFile, ValueError, KeyError, TypeError, RecursionError, ConfigError):
            wanted = f'two activations count as equal; expected a file such as {{"margin_per_cent": {MARGIN:g}}}'
            raise ResultError(f"{path} does not say within what margin {wanted}") from None

    def declare(self, margin: float | None) -> None:
        """Note the margin of equality before anything is judged; ConfigError where another one was declared."""
        path = self.declared("study.json")
        asked = MARGIN if margin is None else check_margin(margin)
        with contextlib.suppress(FileExistsError):
            if not any(self.folder.glob("*-*-*.json")):
                content = {"margin_per_cent": asked, "declared": datetime.now(UTC).isoformat(timespec="seconds")}
                write_atomically(path, json.dumps(content, indent=1) + "\n", replace=False)
        if margin is not None and margin != (declared := self.margin()):
            raise ConfigError(
                f"the study in {self.folder} has a margin of {declared:g} %, and one of {margin:g} % would be chosen after the "
                "data; leave out --margin, or give the new study a --results-dir of its own"
            )

    def declared(self, name: str) -> Path:
        """Where what was declared before the first result is kept."""
        # In a folder of its own: only result files lie directly in the store.
        return self.folder / "declared" / name

    def record_failure(self, model: str, activation: str, config_sha256: str, reason: str, **details: Any) -> Path:
        """Note in ``failed/`` why a cell failed. The next run tries it again."""
        cell = {"model_name": model, "activation": activation, "config_sha256": config_sha256}
        note = {**cell, "reason": reason[:LONGEST_WORDS], **details, "timestamp": self._now().isoformat()}
        path = self._failure_path(model, activation, config_sha256)
        write_atomically(path, json.dumps(note, indent=1, default=str) + "\n")
        return path

    def forget_failure(self, model: str, activation: str, config_sha256: str) -> None:
        """Remove the note of an earlier failure once the cell has succeeded."""
        with contextlib.suppress(OSError):  # gone already, or another user's; a result counts for more
            self._failure_path(model, activation, config_sha256).unlink()

    def _failure_path(self, model: str, activation: str, config_sha256: str) -> Path:
        # In a folder of their own: only result files lie directly in the store.
        return self.folder / "failed" / f"{model}-{activation}-{config_sha256[:12]}.json"

    def failures(self) -> list[dict[str, Any]]:
        """The notes of failed cells. One that cannot be read is left out: the cell is tried again either way."""
        notes = []
        for path in sorted((self.folder / "failed").glob("*.json")):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
                note = json.loads(read_bounded(path, _LARGEST_NOTE_BYTES))
                # What else a note says is kept and not looked at.
                if all(isinstance(note[name], str) for name in ("model_name", "activation", "config_sha256", "reason")):
                    notes.append(note)
        return notes


def check_margin(margin: float) -> float:
    """The same margin of equality; ConfigError unless it is a number of per cent above 0 and below 100."""
    if not 0 < float(margin) < 100:
        raise ConfigError(f"the margin is in per cent of the reference, above 0 and below 100, got {margin}")
    return float(margin)


def read_result(path: Path) -> Result:
    """Read and check one result file; ResultError names the file and the reason."""
    try:
        text = read_bounded(path, LARGEST_RESULT_BYTES)
    except UnusableFile as error:
        raise ResultError(f"{path} {error}") from None
    except OSError as error:
        raise ResultError(f"{path} cannot be read ({error.strerror})") from None
    return _result_of(text, str(path))


# A grid reads all results whenever there is a new one. The text decides, so that no change to a file passes unseen.
@functools.lru_cache(maxsize=1024)
def _result_of(text: str, name: str) -> Result:
    return Result.from_json(text, name)


def _may_be_ours(path: Path) -> bool:
    if _RESULT_NAME.fullmatch(path.name):
        return True
    with contextlib.suppress(OSError, UnusableFile):
        text = read_bounded(path, LARGEST_RESULT_BYTES)
        return all(key in text for key in _RESULT_KEYS)
    return False


def _name(result: Result, trial: int) -> str:
    return f"{result.model_name} with {result.activation}, trial {trial}"


def _age(entry: tuple[Path, Result]) -> tuple[datetime, int, Path]:
    path, result = entry
    last = path.stem.rpartition("-")[2]
    # Within one second the number that ``save`` appends to the name decides.
    return result.timestamp, int(last) if last.isdecimal() else 1, path


def results_store(results_dir: Path | str = "") -> Store:
    """The store in a folder; without one the project's own ``results/``."""
    return Store(results_dir or project_root() / "results")


# --- derived files: executed notebooks, which keep the digest of what they were made from in their metadata, and the summary
# with its plots, which keep it in a JSON file of the same form. Cells need no such thing: their result file alone decides.


# One form for all of them, so that there is one reader. That of notebooks, which allow any key in their metadata.
def digest_note(digest: str) -> dict[str, str]:
    """What the metadata of a derived JSON file hold under ``repro``."""
    return {"inputs_sha256": digest}


def noted_digest(file: Path) -> str | None:
    """The digest that a derived file was finished under; None if there is no such finished file. Raises nothing."""
    try:
        return json.loads(read_bounded(file, LARGEST_NOTEBOOK_BYTES))["metadata"]["repro"]["inputs_sha256"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        # What cannot be read, a half or a foreign file (nested more deeply than Python's parser goes), is made anew.
        return None
