"""What a result file says: its records, how it is written, and how its text is read.

A text is either read as it was written (``content_sha256`` decides) or refused with one sentence."""

# The digest finds what was changed by accident; it is no signature, and nobody is kept from inventing numbers in a folder of
# their own. What is checked beside it are honest mistakes: files joined by hand, or written by a program with a fault.

import contextlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from html import escape
from itertools import combinations
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, AwareDatetime, Field, PrivateAttr, ValidationError, model_validator

from repro_lib.config import Layer, canonical_json, check_model
from repro_lib.data import CORPORA
from repro_lib.metrics.prediction_difference import PAIR_METRICS
from repro_lib.models.activations import canonical_activation
from repro_lib.store.parts import Part, Sha256, digest_of

SCHEMA_VERSION = 1
# A result is some 10 KB per trial; anything beyond this is not one of ours.
LARGEST_RESULT_BYTES = 64 * 2**20
# Messages repeat what a file says; no more of it than can be read.
_LONGEST_REASON = 300
# Begins every digest of a thing that was never measured, and can be read where digests are cut to 12 characters.
# A SHA-256 begins so once in 2^48.
SYNTHETIC_MARK = "facadefacade"

Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-z0-9_.]+$")]
# Words from elsewhere, such as the name of a file, of a length that a page can show.
LONGEST_WORDS = 10_000
Words = Annotated[str, Field(max_length=LONGEST_WORDS)]
_OF_A_PAIR = re.compile(r"_\d+_\d+$")
# Kinds of tensor files. Each names a folder and a digest in the trial's record, so the snapshots taken during training
# keep the name that they had in the first stores.
TensorKind = Literal["predictions", "weights", "steps"]
TENSOR_KINDS: tuple[TensorKind, ...] = get_args(TensorKind)
# What of an environment decides the last bits of a training. Earlier versions did not record the instructions.
ORIGIN = ("torch", "device", "cpu", "instructions")
Curve = list[tuple[int, Annotated[float, Field(ge=0)]]]


class ResultError(ValueError):
    """A result or prediction file that cannot be used; the message names the file and the reason."""


class CorpusRecord(Part):
    """Which text was used."""

    name: Words
    sha256: str = Sha256


class EvaluationRecord(Part):
    """Which tokens were scored, and how many; and how many bytes they are, which earlier versions did not say."""

    sha256: str = Sha256
    tokens: int = Field(ge=1, le=2**20)
    bytes: Annotated[int, Field(ge=1)] | None = None
    unigram_cross_entropy: float = Field(ge=0)


class TrialRecord(Part):
    """One trained model. Losses in nats per token, accuracy in per cent, curves of (iteration, loss)."""

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


def _canonical(activation: str) -> str:
    # Under two spellings one cell would count as two.
    if canonical_activation(activation) != activation:
        raise ValueError(f"{activation!r} is stored as {canonical_activation(activation)!r}")
    return activation


class Result(Part):
    """All that one run of a cell found out. Relative PD and mean deviation are None where there is one trial, so no pair.

    In ``reproducibility_metrics``, ``pd_1_2`` is the relative PD of trials 1 and 2, ``churn`` the average of a metric over
    all pairs and ``churn_1_2`` its value for one; None stands for infinity, which JSON does not have."""

    _indent: ClassVar[int | None] = 1  # people read result files
    schema_version: Literal[1] = SCHEMA_VERSION
    model_name: Annotated[Name, AfterValidator(check_model)]
    activation: Annotated[Name, AfterValidator(_canonical)]
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
    # The share of characters on which all trials have the same top-1. None: one trial, or an earlier version made it.
    unanimity: float | None = Field(None, ge=0, le=1)
    synthetic: bool
    environment: dict[Words, Words | None]
    timestamp: AwareDatetime
    _arm: str | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        # What every reader takes for granted: the values that decide what may be compared, and trials 1 to N.
        if missing := {"vary", "execution", "device", "seed", "trials", "max_iters"} - self.config.keys():
            raise ValueError(f"config: {', '.join(sorted(missing))} is missing")
        for number, record in enumerate(self.trials, start=1):
            if record.trial != number:
                raise ValueError(f"trials: number {number} is called trial {record.trial}")
        # Whoever copies a synthetic result and drops the mark from it shall not have a measured one.
        digests = [self.corpus.sha256, *(record.weights_sha256 for record in self.trials)]
        if not self.synthetic and any(digest.startswith(SYNTHETIC_MARK) for digest in digests):
            raise ValueError("synthetic: its digests are those of a synthetic result, but it says that it is none")
        for name in ("val_loss", "val_accuracy"):
            _check_mean(f"avg_{name}", self[f"avg_{name}"], [record[name] for record in self.trials])
        alone = len(self.trials) == 1
        if alone != (self.avg_relative_pd is None) or alone != (self.mean_deviation_pd is None):
            raise ValueError("avg_relative_pd, mean_deviation_pd: they are there where there are two trials or more")
        if not alone:
            _check_mean("avg_relative_pd", self.avg_relative_pd, list(self.pairs().values()))
            self._metrics_are_whole()
        return self

    def _metrics_are_whole(self) -> None:
        # Metrics come and go with versions: each that is there has all its pairs, and its range where it is known here.
        numbers = self.reproducibility_metrics
        # The name of a metric may end as that of a pair's number does; it has pairs of its own then.
        names = dict.fromkeys(name for name in numbers if not _OF_A_PAIR.search(name) or f"{name}_1_2" in numbers)
        for name in names:
            values = list(self.pairs(name).values())
            largest = PAIR_METRICS[name].largest if name in PAIR_METRICS else math.inf
            if name in PAIR_METRICS and not all(0 <= value <= largest * (1 + 1e-9) for value in values):
                raise ValueError(f"reproducibility_metrics: {name} lies between 0 and {largest:.4g}")
            _check_mean(f"reproducibility_metrics: {name}", numbers[name], values)
        for number in numbers.keys() - names.keys():
            metric = _OF_A_PAIR.sub("", number)
            if (metric := "relative_pd" if metric == "pd" else metric) not in names:
                raise ValueError(f"reproducibility_metrics: {metric} has no average")

    @property
    def arm(self) -> str:
        """What it is called among those it is compared with: its activation, unless a design has another name for it."""
        return self._arm or self.activation

    def as_arm(self, name: str) -> Self:
        """The same result under the name of an arm: what arms differ in is then no reason not to compare it."""
        named = self.model_copy()
        named._arm = name
        vars(named).pop("_keys", None)
        return named

    def __repr__(self) -> str:
        cell = f"{self.model_name} with {self.arm}, N = {len(self.trials)}"
        pd = "" if self.avg_relative_pd is None else f", relative PD {self.avg_relative_pd:.4f}"
        return f"Result({cell}{pd}, loss {self.avg_val_loss:.3f} nats{', synthetic' if self.synthetic else ''})"

    def _repr_html_(self) -> str:
        heads = ("trial", "seed", "loss, nats", "accuracy, %")
        rows = [(str(t.trial), str(t.seed), f"{t.val_loss:.3f}", f"{t.val_accuracy:.2f}") for t in self.trials[:20]]
        body = "".join(f"<tr><td>{'</td><td>'.join(row)}</td></tr>" for row in rows)
        head = "".join(f'<th scope="col">{name}</th>' for name in heads)
        return f"<p>{escape(repr(self))}</p><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def pairs(self, metric: str = "relative_pd") -> dict[tuple[int, int], float]:
        """The metric for each pair of trials (numbered from 1); ValueError for one that has not all its pairs."""
        n = len(self.trials)
        numbers, prefix = self.reproducibility_metrics, _prefix(metric)
        # Counted before anything is listed: 10,000 trials have fifty million pairs, and a small file can claim them.
        if math.comb(n, 2) <= len(numbers):
            with contextlib.suppress(KeyError):
                values = {(i, j): numbers[f"{prefix}_{i}_{j}"] for i, j in combinations(range(1, n + 1), 2)}
                return {pair: math.inf if value is None else value for pair, value in values.items()}
        raise ValueError(f"reproducibility_metrics: {metric} has no number for each of the {math.comb(n, 2)} pairs of trials")

    @property
    def bits_per_nat(self) -> float:
        """What makes bits per byte of a loss in nats per token: tokens / (ln 2 x bytes); NaN where the bytes are not known."""
        ascii_texts = {entry["sha256"] for entry in CORPORA.values() if entry["size"][0] == entry["size"][1]}
        count = self.evaluation.bytes or (self.evaluation.tokens if self.corpus.sha256 in ascii_texts else math.nan)
        return self.evaluation.tokens / (math.log(2) * count)

    @property
    def comparison_key(self) -> str:
        """Results with the same key may stand in one statistic: all but model, activation, size and schedule agree."""
        return self._keys[self.synthetic]

    @property
    def measured_key(self) -> str:
        """The comparison key of measured results that agree with this one in all but, perhaps, being synthetic."""
        return self._keys[False]

    @cached_property
    def _keys(self) -> list[str]:
        same = [self.corpus.sha256, self.evaluation.sha256, self.profile]
        same += [self.config[name] for name in (("device",) if self._arm else ("vary", "execution", "device", "seed"))]
        return [digest_of([*same, synthetic])[:12] for synthetic in (False, True)]

    @classmethod
    def from_json(cls, text: str | bytes, source: str = "this text") -> Self:
        """Read a result file's text; ResultError says what is wrong with it."""
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            advice = "it may be cut off: delete it and run the cell again"
            raise ResultError(f"{source} is not a whole JSON file ({error}); {advice}") from None
        if not isinstance(content, dict):
            raise ResultError(f"{source} is not a result file: a JSON object was expected")
        version = content.get("schema_version")
        if type(version) is not int or version != SCHEMA_VERSION:
            known = f"this program reads {SCHEMA_VERSION}; run the cell again"
            raise ResultError(f"{source} has schema version {repr(version)[:_LONGEST_REASON]}, {known}")
        claimed = content.pop("content_sha256", None)
        if claimed is None:
            raise ResultError(f"{source} has no content_sha256; it was not written by this program or a key is missing")
        try:
            intact = claimed == digest_of(content)
        except (ValueError, RecursionError):  # NaN, or nested beyond what can be walked
            intact = False
        if not intact:
            changed = "was changed after it was written (content_sha256 does not fit)"
            raise ResultError(f"{source} {changed}; delete it and run the cell again")
        try:
            # As text, for only from JSON does strict take a string for a time and a list for a tuple.
            return cls.model_validate_json(canonical_json(content))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            # What validators of ours say names its place itself, and has none here.
            place = "".join(f"{str(part)[:_LONGEST_REASON]}." for part in first["loc"]).rstrip(".")
            message = (f"{place}: " if place else "") + first["msg"].removeprefix("Value error, ")
            raise ResultError(f"{source} is not a valid result: {message[:_LONGEST_REASON]}") from None


def metric_numbers(pairs: Mapping[str, Sequence[float] | NDArray[np.float64]], trials: int) -> dict[str, float | None]:
    """The ``reproducibility_metrics`` of a result: by metric the value of each pair, in the order of ``combinations``."""
    places = list(combinations(range(1, trials + 1), 2))
    numbers = {name: float(np.mean(values)) for name, values in pairs.items() if places}
    for name, values in pairs.items():
        numbers |= {f"{_prefix(name)}_{i}_{j}": float(value) for (i, j), value in zip(places, values, strict=True)}
    # log_prob_pd, for one, is infinite where one model alone gives a character no chance.
    return {name: None if math.isinf(value) else value for name, value in numbers.items()}


def _prefix(metric: str) -> str:
    return "pd" if metric == "relative_pd" else metric


def _check_mean(name: str, average: float | None, values: list[float]) -> None:
    mean, average = math.fsum(values) / len(values), math.inf if average is None else average
    # Equal but for the last digits, which another order of adding changes; and infinity is close to nothing but itself.
    if not math.isclose(average, mean, rel_tol=1e-9, abs_tol=1e-12):
        raise ValueError(f"{name}: {average} is not the mean, {mean:.6g}, of what it is the average of")
