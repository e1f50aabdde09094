"""Result files: their schema, how they are written, and how a folder of them is read.

One JSON file per cell and run in ``results/``; beside it, per trial, the logits in ``predictions/`` and the final
weights in ``weights/``. A file is either read as it was written (``content_sha256`` decides) or refused with a reason.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from types import EllipsisType
from typing import Annotated, Any, Literal, Self, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from repro_lib import metrics
from repro_lib.activations import canonical_activation
from repro_lib.config import Layer, canonical_json, check_model
from repro_lib.consistency import contradictions
from repro_lib.data import EVALUATION_BLOCK, LARGEST_VOCABULARY
from repro_lib.determinism import sha256_of_tensors
from repro_lib.files import UnusableFile, read_bounded, write_atomically
from repro_lib.tensor_files import HEADER_BYTES, read_tensors, write_tensors

SCHEMA_VERSION = 1
# A result is some 10 KB per trial; anything beyond this is not one of ours.
LARGEST_RESULT_BYTES = 64 * 2**20
# A note of a failure is a sentence.
_LARGEST_NOTE_BYTES = 2**20
# Messages repeat what a file says; no more of it than can be read.
_LONGEST_REASON = 300

Sha256 = Field(pattern=r"^[0-9a-f]{64}$")
Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-z0-9_.]+$")]
# Words from elsewhere, such as the name of a file, of a length that a page can show.
_LONGEST_WORDS = 10_000
Words = Annotated[str, Field(max_length=_LONGEST_WORDS)]
# Kinds of tensor files, each with a folder of its own and a digest in the trial's record.
TensorKind = Literal["predictions", "weights", "steps"]
TENSOR_KINDS: tuple[TensorKind, ...] = get_args(TensorKind)
Curve = list[tuple[int, Annotated[float, Field(ge=0)]]]


class ResultError(ValueError):
    """A result or prediction file that cannot be used; the message names the file and the reason."""


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def __getitem__(self, name: str) -> Any:
        if name not in type(self).model_fields:
            raise KeyError(f"{name!r}; known: {', '.join(type(self).model_fields)}")
        return getattr(self, name)


class CorpusRecord(Part):
    """Which text was used."""

    name: Words
    sha256: str = Sha256


class EvaluationRecord(Part):
    """Which characters were scored, and how many."""

    sha256: str = Sha256
    tokens: int = Field(ge=1, le=2**20)
    unigram_cross_entropy: float = Field(ge=0)


class TrialRecord(Part):
    """One trained model. Losses in nats per character, accuracy in per cent, curves of (iteration, loss)."""

    trial: int = Field(ge=1)
    seed: int = Field(ge=0)
    train_loss_curve: Curve
    val_loss_curve: Curve
    val_loss: float = Field(ge=0)
    val_accuracy: float = Field(ge=0, le=100)
    seconds: float = Field(ge=0)
    init_sha256: str = Sha256
    weights_sha256: str = Sha256
    predictions_sha256: str = Sha256
    # None: made by a version that kept no predictions during training.
    steps_sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    # The trials that were trained as one with this one, itself among them; None: it was trained by itself.
    stack: list[int] | None = None


class Result(Part):
    """All that one run of a cell found out. Fields are read as attributes or as items.

    ``avg_relative_pd`` and ``mean_deviation_pd`` are None where there is no pair (one trial). In
    ``reproducibility_metrics``, ``pd_1_2`` is the relative PD of trials 1 and 2, ``churn`` the average of a metric over
    all pairs and ``churn_1_2`` its value for one.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    model_name: Name
    activation: Name
    parameters: int = Field(ge=1)
    profile: Name | None
    config: dict[str, Any]
    config_sources: dict[str, Layer]
    config_sha256: str = Sha256
    corpus: CorpusRecord
    evaluation: EvaluationRecord
    avg_relative_pd: float | None = Field(ge=0, le=2)
    mean_deviation_pd: float | None = Field(ge=0)
    avg_val_loss: float = Field(ge=0)
    avg_val_accuracy: float = Field(ge=0, le=100)
    reproducibility_metrics: dict[str, float | None]
    trials: list[TrialRecord] = Field(min_length=1, max_length=10_000)
    flags: list[Words]
    synthetic: bool
    environment: dict[Words, Words | None]
    timestamp: AwareDatetime

    @cached_property
    def comparison_key(self) -> str:
        """Results with the same key may stand in one statistic: all but model, activation, size and schedule agree."""
        return self._key(self.synthetic)

    @cached_property
    def measured_key(self) -> str:
        """The comparison key of measured results that agree with this one in all but, perhaps, being synthetic."""
        return self._key(False)

    def _key(self, synthetic: bool) -> str:
        config = self.config
        same = [self.corpus.sha256, self.evaluation.sha256, self.profile, config["vary"], config["execution"], config["device"]]
        return hashlib.sha256(canonical_json([*same, config["seed"], synthetic]).encode()).hexdigest()[:12]

    def pairs(self, metric: str = "relative_pd") -> dict[tuple[int, int], float]:
        """The metric for each pair of trials (numbered from 1)."""
        prefix = "pd" if metric == "relative_pd" else metric
        n = len(self.trials)
        values = {
            (i, j): self.reproducibility_metrics[f"{prefix}_{i}_{j}"] for i in range(1, n + 1) for j in range(i + 1, n + 1)
        }
        return {pair: float("inf") if value is None else value for pair, value in values.items()}

    def to_json(self) -> str:
        """The text of the result file, ``content_sha256`` first."""
        content = self.model_dump(mode="json")
        digest = hashlib.sha256(canonical_json(content).encode()).hexdigest()
        return json.dumps({"content_sha256": digest, **content}, indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, source: str = "this text") -> Self:
        """Read a result file's text; ResultError says what is wrong with it."""
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ResultError(
                f"{source} is not a whole JSON file ({error}); it may be cut off: delete it and run the cell again"
            ) from None
        if not isinstance(content, dict):
            raise ResultError(f"{source} is not a result file: a JSON object was expected")
        version = content.get("schema_version")
        if version != SCHEMA_VERSION or isinstance(version, bool):
            said = repr(version)[:_LONGEST_REASON]
            raise ResultError(f"{source} has schema version {said}, this program reads {SCHEMA_VERSION}; run the cell again")
        claimed = content.pop("content_sha256", None)
        try:
            canonical = canonical_json(content)
            actual = hashlib.sha256(canonical.encode()).hexdigest()
        except (ValueError, RecursionError):
            canonical, actual = "", None
        if claimed is None:
            raise ResultError(f"{source} has no content_sha256; it was not written by this program or a key is missing")
        if actual != claimed:
            raise ResultError(
                f"{source} was changed after it was written (content_sha256 does not fit); delete it and run the cell again"
            )
        try:
            result = cls.model_validate_json(canonical)
        except ValidationError as error:
            raise ResultError(f"{source} is not a valid result: {first_problem(error)}") from None
        for sentence in contradictions(result):
            raise ResultError(f"{source} is not a valid result: {sentence[:_LONGEST_REASON]}")
        return result


class FailureNote(Part):
    """Why a cell failed. What else a note says is kept and not looked at."""

    model_config = ConfigDict(extra="allow")

    model_name: Words
    activation: Words
    config_sha256: Words | None = None
    reason: Words


@dataclass(frozen=True)
class Predictions:
    """Logits of one trial on the evaluation windows: (tokens, V) float32, with the labels (tokens,) they answer."""

    logits: NDArray[np.float32]
    labels: NDArray[np.int64]
    evaluation_sha256: str

    @cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """(tokens, V) in float64."""
        return metrics.probabilities_from_logits(self.logits)


@dataclass(frozen=True, eq=False)
class Snapshots:
    """Predictions of one trial during training: after ``steps`` iterations (the last: at the end) logits (S, tokens, V).

    The tokens, with their ``labels``, are every 16th evaluation block.
    """

    steps: tuple[int, ...]
    logits: NDArray[np.float32]
    labels: NDArray[np.int64]


def compare(first: Predictions, second: Predictions) -> dict[str, float]:
    """Every pairwise metric of two trials. Refuses predictions made on different evaluation windows."""
    check_same_windows(first, second)
    return metrics.pair_metrics(first.probabilities, second.probabilities, first.labels)


def check_same_windows(first: Predictions, second: Predictions) -> None:
    """ResultError unless both were made on the same evaluation windows."""
    if first.evaluation_sha256 != second.evaluation_sha256:
        raise ResultError(
            "these predictions were made on different evaluation windows "
            f"({first.evaluation_sha256[:12]} and {second.evaluation_sha256[:12]}), so their difference means nothing"
        )


def compare_all(predictions: Sequence[Predictions], threads: int = 1) -> dict[str, NDArray[np.float64]]:
    """Every pairwise metric of N trials in each evaluation window of 256 characters: (N(N-1)/2, windows) by name.

    Pairs in the order of ``itertools.combinations``; the mean over windows is the metric of ``compare``. Refuses
    predictions made on different evaluation windows.
    """
    if not predictions:
        return {}
    for other in predictions[1:]:
        check_same_windows(predictions[0], other)
    probabilities = [trial.probabilities for trial in predictions]
    return metrics.pair_metrics_by_block(probabilities, predictions[0].labels, EVALUATION_BLOCK, threads)


class Store:
    """A results folder. Reading never changes it."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    def save(self, result: Result) -> Path:
        """Write a new result file; an existing one is never overwritten."""
        stamp = result.timestamp.astimezone(UTC).strftime("%Y%m%d_%H%M%S")
        stem, text = f"{result.model_name}-{result.activation}-{stamp}", result.to_json()
        for suffix in ["", *(f"-{k}" for k in range(2, 1000))]:
            path = self.folder / f"{stem}{suffix}.json"
            try:
                write_atomically(path, text, replace=False)
            except FileExistsError:
                continue
            return path
        raise ResultError(f"a thousand results named {stem} exist already in {self.folder}")

    def load(self) -> tuple[list[tuple[Path, Result]], list[str]]:
        """All readable results, oldest first, and a sentence for each file that was refused."""
        good, refused = [], []
        for path in sorted(self.folder.glob("*.json")):
            try:
                good.append((path, read_result(path)))
            except ResultError as error:
                refused.append(str(error))
        good.sort(key=_age)
        return good, refused

    def candidates(self, model: str, activation: str) -> Iterable[Result]:
        """Readable results of one cell, newest first, without opening those of other cells."""
        found = []
        for path in self.folder.glob(f"{model}-{activation}-*.json"):
            try:
                result = read_result(path)
            except ResultError:
                continue
            if (result.model_name, result.activation) == (model, activation) and not result.synthetic:
                found.append((path, result))
        return [result for _, result in sorted(found, key=_age, reverse=True)]

    def find(
        self,
        model: str,
        activation: str,
        config_sha256: str,
        trials: int = 1,
        profile: str | EllipsisType | None = ...,
    ) -> Result | None:
        """The newest result of this cell and configuration with at least ``trials`` trials.

        ``profile``: only one made with this profile (None: with none); ``...`` takes any.
        """
        for result in self.candidates(model, activation):
            fits = profile is ... or result.profile == profile
            if fits and result.config_sha256 == config_sha256 and len(result.trials) >= trials:
                return result
        return None

    def trial_path(self, kind: TensorKind, model: str, activation: str, config_sha256: str, trial: int) -> Path:
        """Where the predictions, weights or kept steps of a trial (numbered from 1) lie."""
        check_model(model)
        return self.folder / kind / f"{model}-{canonical_activation(activation)}-{config_sha256[:12]}-trial{trial}.safetensors"

    def save_tensors(self, path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> str:
        """Write tensors as safetensors and return their digest."""
        write_tensors(path, tensors, metadata)
        return sha256_of_tensors(tensors)

    def predictions(self, result: Result, trial: int) -> Predictions:
        """The stored logits of a trial (numbered from 1), checked against the digest in the result."""
        tensors, evaluation = self._tensors("predictions", result, trial), result.evaluation
        return predictions_from(tensors, evaluation.sha256, evaluation.tokens, _name(result, trial))

    def weights(self, result: Result, trial: int) -> dict[str, torch.Tensor]:
        """The stored final weights of a trial (numbered from 1), checked against the digest in the result."""
        return self._tensors("weights", result, trial)

    def snapshots(self, result: Result, trial: int) -> Snapshots:
        """The predictions kept while a trial (numbered from 1) was trained, checked against the digest in the result."""
        if result.trials[trial - 1].steps_sha256 is None:
            raise ResultError(
                f"{result.model_name} with {result.activation} was trained by a version that kept no predictions during "
                "training; run the cell again with --force"
            )
        tensors = self._tensors("steps", result, trial)
        logits, labels, steps = (tensors.get(name, torch.empty(0)) for name in ("logits", "labels", "steps"))
        if logits.ndim != 3 or steps.ndim != 1 or logits.shape[0] != len(steps) or not _answers(logits[-1:].squeeze(0), labels):
            raise ResultError(f"the kept steps of {_name(result, trial)}, do not fit together; run the cell again with --force")
        return Snapshots(tuple(steps.tolist()), logits.numpy(), labels.numpy())

    def _tensors(self, kind: TensorKind, result: Result, trial: int) -> dict[str, torch.Tensor]:
        path = self.trial_path(kind, result.model_name, result.activation, result.config_sha256, trial)
        return trial_tensors(path, kind, result.trials[trial - 1], result.evaluation.tokens, result.parameters)

    def record_failure(self, model: str, activation: str, config_sha256: str, reason: str, **details: Any) -> Path:
        """Note in ``failed/`` why a cell failed. The next run tries it again."""
        now = datetime.now(UTC)
        path = self.folder / "failed" / f"{model}-{activation}-{config_sha256[:12]}.json"
        note = {
            "model_name": model,
            "activation": activation,
            "config_sha256": config_sha256,
            "reason": reason[:_LONGEST_WORDS],
        }
        write_atomically(path, json.dumps(note | details | {"timestamp": now.isoformat()}, indent=1, default=str) + "\n")
        return path

    def forget_failure(self, model: str, activation: str, config_sha256: str) -> None:
        """Remove the note of an earlier failure once the cell has succeeded."""
        (self.folder / "failed" / f"{model}-{activation}-{config_sha256[:12]}.json").unlink(missing_ok=True)

    def failures(self) -> list[dict[str, Any]]:
        """The notes of failed cells."""
        notes = []
        for path in sorted((self.folder / "failed").glob("*.json")):
            try:
                note = json.loads(read_bounded(path, _LARGEST_NOTE_BYTES))
                FailureNote.model_validate(note)
            except (OSError, ValueError, RecursionError):  # pydantic's ValidationError is a ValueError
                continue
            notes.append(note)
        return notes


def read_result(path: Path) -> Result:
    """Read and check one result file."""
    try:
        text = read_bounded(path, LARGEST_RESULT_BYTES)
    except UnusableFile as error:
        raise ResultError(f"{path} {error}") from None
    except OSError as error:
        raise ResultError(f"{path} cannot be read ({error.strerror})") from None
    return Result.from_json(text, str(path))


def first_problem(error: ValidationError) -> str:
    """Pydantic's first complaint, with its place, in a line."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part)[:_LONGEST_REASON] for part in first["loc"])
    return f"{place or 'all of it'}: {first['msg']}"[:_LONGEST_REASON]


def trial_tensors(path: Path, kind: TensorKind, record: TrialRecord, tokens: int, parameters: int) -> dict[str, torch.Tensor]:
    """The tensors of one kind of a trial, checked against the digest in its record.

    ``tokens`` and ``parameters``: of the evaluation text and the model, which say how large such a file can be.
    """
    numbers = parameters if kind == "weights" else tokens * (LARGEST_VOCABULARY + 2)
    try:
        tensors, _ = read_tensors(path, 4 * numbers + HEADER_BYTES)
    except FileNotFoundError:
        raise ResultError(f"{path} is missing; run the cell again with --force to make it") from None
    except (OSError, UnusableFile) as error:
        raise ResultError(f"{path} cannot be read ({error}); run the cell again with --force") from None
    if sha256_of_tensors(tensors) != record[f"{kind}_sha256"]:
        raise ResultError(f"{path} does not hold the {kind} its result names (the digest differs); run the cell with --force")
    return tensors


def predictions_from(tensors: dict[str, torch.Tensor], evaluation_sha256: str, tokens: int, name: str) -> Predictions:
    """The predictions of the trial called ``name``, if they are what a model can have answered to ``tokens`` characters."""
    logits, labels = tensors.get("logits", torch.empty(0)), tensors.get("labels", torch.empty(0))
    if not _answers(logits, labels) or len(labels) != tokens:
        raise ResultError(
            f"the predictions of {name}, are not logits of {tokens} characters with their labels; "
            "run the cell again with --force"
        )
    if not torch.isfinite(logits).all():
        raise ResultError(
            f"the predictions of {name}, contain NaN or infinity: "
            "the model did not train properly; run the cell again with --force"
        )
    return Predictions(logits.numpy(), labels.numpy(), evaluation_sha256)


def _answers(logits: torch.Tensor, labels: torch.Tensor) -> bool:
    """Whether these can be logits (tokens, V) and labels (tokens,) of one text."""
    if logits.dtype != torch.float32 or labels.dtype != torch.int64 or logits.ndim != 2 or labels.shape != logits.shape[:1]:
        return False
    return labels.numel() > 0 and int(labels.min()) >= 0 and int(labels.max()) < logits.shape[1]


def _name(result: Result, trial: int) -> str:
    return f"{result.model_name} with {result.activation}, trial {trial}"


def select_comparable(
    results: Sequence[Result],
    key: str | None = None,
    profile: str | None = None,
    configs: Collection[str] = (),
    *,
    include_synthetic: bool = False,
) -> list[Result]:
    """The newest complete result of each cell among comparable ones: what one table or figure may hold.

    Real results of one ``comparison_key``; within a model one configuration, so that activations never differ in
    anything else. Without a ``key`` it is that of the newest result of ``profile``, or of the newest that was made with
    any profile: a cell trained by hand does not push a finished grid aside, nor does one in which a single source of
    randomness varies. Within a model the configuration with the most activations comes first, then the newest: two cells
    of another length do not push a finished row aside. ``configs`` (``config_sha256``) are preferred to all others, for the
    key and within a model: a grid shows its own cells and not those of a later run.

    ``include_synthetic``: after the real results a synthetic one for each cell that has none, where it agrees in all of
    the above with the real ones; where nothing real is chosen, synthetic results alone.
    """
    real = [result for result in results if not result.synthetic]
    chosen = _select(real, key, profile, configs)
    if not include_synthetic:
        return chosen
    synthetic = [result for result in results if result.synthetic]
    return chosen + _stand_ins(synthetic, chosen) if chosen else _select(synthetic, key, profile, configs)


def _select(results: Sequence[Result], key: str | None, profile: str | None, configs: Collection[str]) -> list[Result]:
    """``select_comparable`` among results that are all real or all synthetic."""
    by_age = sorted(results, key=lambda result: result.timestamp)
    if key is None:
        asked = [result for result in by_age if result.profile == profile] if profile else by_age
        wanted = [result for result in asked if result.config_sha256 in configs]
        preferred = wanted or [result for result in asked if result.profile] or asked
        preferred = [result for result in preferred if result.config["vary"] == "all"] or preferred
        key = preferred[-1].comparison_key if preferred else ""
    candidates = [result for result in by_age if result.comparison_key == key]
    activations: dict[tuple[str, str], set[str]] = {}
    for result in candidates:
        activations.setdefault((result.model_name, result.config_sha256), set()).add(result.activation)
    best: dict[str, tuple[bool, int]] = {}
    config: dict[str, str] = {}
    for result in candidates:  # from old to new, so that of equal ones the newest stays
        rank = (result.config_sha256 in configs, len(activations[result.model_name, result.config_sha256]))
        if rank >= best.get(result.model_name, rank):
            best[result.model_name], config[result.model_name] = rank, result.config_sha256
    chosen = {(r.model_name, r.activation): r for r in candidates if r.config_sha256 == config[r.model_name]}
    return list(chosen.values())


def _stand_ins(synthetic: Sequence[Result], real: Sequence[Result]) -> list[Result]:
    """The newest synthetic result of each cell that ``real`` lacks, among those that agree with ``real``.

    Within a model they have the configuration of its real results, or, where it has none, of its newest synthetic one.
    """
    keys = {result.measured_key for result in real}
    fitting = [result for result in sorted(synthetic, key=lambda result: result.timestamp) if result.measured_key in keys]
    configs = {result.model_name: result.config_sha256 for result in (*fitting, *real)}
    measured = {(result.model_name, result.activation) for result in real}
    chosen: dict[tuple[str, str], Result] = {}
    for result in fitting:
        cell = (result.model_name, result.activation)
        if cell not in measured and result.config_sha256 == configs[result.model_name]:
            chosen[cell] = result
    return list(chosen.values())


def _age(entry: tuple[Path, Result]) -> tuple[datetime, int]:
    """Sorts results from old to new. Within one second the number that ``save`` appends to the name decides."""
    path, result = entry
    last = path.stem.rpartition("-")[2]
    return result.timestamp, int(last) if last.isdecimal() else 1
