"""Stored predictions, checked against the digests that results name, and compared trial with trial.

Shapes: N trials, S snapshots, V vocabulary; tokens are the scored positions, in evaluation windows of 256."""

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from repro_lib.config import Config
from repro_lib.data import EVALUATION_BLOCK, LARGEST_PREDICTIONS, LARGEST_VOCABULARY
from repro_lib.metrics import all_pairs, prediction_difference
from repro_lib.store.schema import ResultError, TensorKind, TrialRecord
from repro_lib.store.tensors import HEADER_BYTES, read_tensors, sha256_of_tensors
from repro_lib.system.files import UnusableFile

Tensors = Mapping[str, torch.Tensor]
# How many steps of stored log-probabilities there are: 900 / 2 to a nat at probability 1, fewer by 1 + |log p| / 2 for less
# probable characters, and more where all lie closer together than a trained model's, whose standard deviation is 2.7 nats.
# Of each true character's there is one byte more, for some metrics look at nothing else. Measured: docs/how_it_runs.md.
_STEPS, _SPREAD, _LEAST_SPREAD, _BYTE = 900, 2.7, 1e-3, 254
# Bits of a float32 that are rounded away in stored weights: 13 significant ones stay, of 24.
_BITS = 11
# Words in a file: the digest of what was trained, which its result names, and that of what is stored.
EXACT, STORED = "exact_sha256", "stored_sha256"
# Logits of a trial that are restored at once: over up to 1,024 characters those of the whole text.
_LARGEST_PART = 2**24
_CODED = ("codes", "lowest", "scales", "rests")


@dataclass(frozen=True)
class Predictions:
    """Logits of one trial on the evaluation windows: (tokens, V) float32, with the labels (tokens,) they answer.
    As they are stored: the trained model's, or their log-probabilities rounded (see ``compact``)."""

    logits: NDArray[np.float32]
    labels: NDArray[np.int64]
    evaluation_sha256: str

    @cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """(tokens, V) in float64."""
        return prediction_difference.probabilities_from_logits(self.logits)


@dataclass(frozen=True, eq=False)
class Snapshots:
    """Predictions of one trial during training, on every 16th evaluation block: logits (S, tokens, V) after ``steps``."""

    steps: tuple[int, ...]
    logits: NDArray[np.float32]
    labels: NDArray[np.int64]


def compare(first: Predictions, second: Predictions) -> dict[str, float]:
    """Every pairwise metric of two trials by name, over all tokens. ResultError if their evaluation windows differ."""
    check_same_windows(first, second)
    return prediction_difference.pair_metrics(first.probabilities, second.probabilities, first.labels)


def check_same_windows(first: Predictions, *others: Predictions) -> None:
    """ResultError unless these were made on the same evaluation windows."""
    for other in others:
        if first.evaluation_sha256 != other.evaluation_sha256:
            both = f"{first.evaluation_sha256[:12]} and {other.evaluation_sha256[:12]}"
            different = f"these predictions were made on different evaluation windows ({both})"
            raise ResultError(f"{different}, so their difference means nothing")


class Compared(NamedTuple):
    """Metrics by name: of P pairs of trials (P,), and of each in each evaluation window of 256 characters (P, windows)."""

    pairs: dict[str, NDArray[np.float64]]
    windows: dict[str, NDArray[np.float64]]


def compare_all(predictions: Sequence[Predictions], threads: int = 1) -> Compared:
    """What ``compare`` gives of every pair of N >= 1 trials, in the order of ``itertools.combinations``; raises as it does."""
    check_same_windows(*predictions)
    logits, labels = [trial.logits for trial in predictions], predictions[0].labels
    softmax = prediction_difference.probabilities_from_logits
    windows = all_pairs.pair_metrics_by_block(logits, labels, EVALUATION_BLOCK, threads, softmax)
    pairs = {name: of.mean(axis=1) for name, of in windows.items()}
    # A function from elsewhere need be no mean over windows.
    for name in all_pairs.asked_by_pair():
        metric = prediction_difference.PAIR_METRICS[name]
        pairs[name] = np.array([metric(a.probabilities, b.probabilities, labels) for a, b in combinations(predictions, 2)])
    return Compared(pairs, windows)


def fineness(config: Config) -> int:
    """How many times as many steps log-probabilities get as where trials start apart; 0: all bits are kept."""
    streams = {name for name in config.vary_streams if name != "dropout" or config.dropout > 0}
    if config.warm_share:  # what was drawn at the start is not what they start from
        streams -= {"init"}
    # Trials that repeat each other or start a bit apart differ by less than any step: a relative PD of 3e-5 came out as 6e-5.
    return 0 if not streams else 1 if "init" in streams else 4


def compact(kind: TensorKind, tensors: Tensors, finer: int = 1) -> dict[str, torch.Tensor]:
    """What is stored in place of a trial's tensors of this kind: a third of the bytes, and metrics change by less than 1e-4.

    Logits, (tokens, V) or (S, tokens, V), become whole numbers from which ``restored`` makes log-probabilities; the most
    probable character of each token stays what it is. Weights are rounded to 13 significant bits. ``finer``: see ``fineness``.
    """
    if not finer or not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        return dict(tensors)
    if kind == "weights":
        return {name: _rounded(tensor) if tensor.dtype == torch.float32 else tensor for name, tensor in tensors.items()}
    logits, labels = tensors["logits"].numpy(), tensors["labels"].numpy()
    coded = [_coded(each, labels, finer * _STEPS) for each in (logits if logits.ndim == 3 else logits[None])]
    columns = {name: torch.from_numpy(np.stack([each[name] for each in coded])) for name in coded[0]}
    return {name: tensor for name, tensor in tensors.items() if name != "logits"} | columns


def _rounded(weights: torch.Tensor) -> torch.Tensor:
    bits = weights.contiguous().view(torch.int32)
    return ((bits + (1 << (_BITS - 1))) & -(1 << _BITS)).view(torch.float32)


def _coded(logits: NDArray[np.float32], labels: NDArray[np.int64], steps: int) -> dict[str, NDArray[Any]]:
    # In numpy, whose numbers do not depend on the number of threads.
    exact = logits.astype(np.float64)
    exact -= logits.max(axis=1, keepdims=True)
    exact -= np.log(np.exp(exact).sum(axis=1, keepdims=True))
    scale = steps * max(1.0, _SPREAD / max(float(exact.std()), _LEAST_SPREAD))
    # In place, for with a large vocabulary each copy is half a gigabyte.
    np.multiply(np.log1p(np.divide(exact, -2, out=exact), out=exact), scale, out=exact)
    codes, tokens, tops = np.rint(exact).astype(np.int32), np.arange(len(exact)), logits.argmax(axis=1)
    # Where rounding would make another character as probable as the first, that one goes a step ahead: churn stays exact.
    first = codes[tokens, tops]
    codes[tokens, tops] = np.iinfo(np.int32).max
    codes[tokens, tops] = np.minimum(first, codes.min(axis=1) - 1)
    rest = (exact[tokens, labels] - codes[tokens, labels]).clip(-0.5, 0.5)
    lowest = codes.min(axis=0)
    # By character, not by token: what is alike lies together then.
    columns = {"codes": (codes - lowest).T.copy(), "lowest": lowest, "scales": np.float64(scale)}
    return columns | {"rests": np.rint(rest * _BYTE).astype(np.int8)}


def restored(tensors: Tensors) -> dict[str, torch.Tensor]:
    """A trial's tensors with ``logits`` again, from what ``compact`` made of them; others as they are."""
    if "codes" not in tensors:
        return dict(tensors)
    others = {name: tensor for name, tensor in tensors.items() if name not in _CODED}
    codes, lowest, scales, rests = (tensors.get(name, torch.empty(0)).numpy() for name in _CODED)
    labels = tensors.get("labels", torch.empty(0))
    s, v, n = codes.shape if codes.ndim == 3 else (0, 0, 0)
    # What does not fit together has no logits, and whoever wants some says so.
    if lowest.shape != (s, v) or scales.shape != (s,) or rests.shape != (s, n) or not _are_labels(labels, n, v):
        return others
    logits, size = _room((s, n, v)), max(1, _LARGEST_PART // (s * v))
    for part in (slice(start, min(start + size, n)) for start in range(0, n, size)):
        steps = (codes[:, :, part] + lowest[:, :, None]).transpose(0, 2, 1).astype(np.float64)
        steps[:, np.arange(steps.shape[1]), labels.numpy()[part]] += rests[:, part] / _BYTE
        logits[:, part] = -2 * np.expm1(steps / scales[:, None, None])
    made = torch.from_numpy(logits)
    return others | {"logits": made if "steps" in tensors else made.squeeze(0)}


def _room(shape: tuple[int, ...]) -> NDArray[np.float32]:
    # Logits over a large vocabulary lie in a file without a name, so that those of many trials need not fit into memory.
    if math.prod(shape) <= _LARGEST_PART:
        return np.empty(shape, np.float32)
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, np.float32, "w+", shape=shape)


def trial_tensors(path: Path, kind: TensorKind, record: TrialRecord, tokens: int, parameters: int) -> dict[str, torch.Tensor]:
    """The tensors of one kind of a trial, checked against the digest in its record; ResultError says what is wrong."""
    # A file is read whole, so its size is bounded first, by the evaluation text's tokens or the model's parameters: a
    # label takes 8 bytes, as two numbers of the logits do.
    # Pages show what is wrong, and a results folder may move: the name within it says enough.
    file = f"{path.parent.name}/{path.name}"
    numbers = parameters if kind == "weights" else min(tokens * LARGEST_VOCABULARY, 2 * LARGEST_PREDICTIONS) + 2 * tokens
    try:
        tensors, words = read_tensors(path, 4 * numbers + HEADER_BYTES)
    except FileNotFoundError:
        raise ResultError(f"{file} is missing; run the cell again with --force to make it") from None
    except (OSError, UnusableFile) as error:
        why = getattr(error, "strerror", None) or error
        raise ResultError(f"{file} cannot be read ({why}); run the cell again with --force") from None
    # A file without words is of an earlier version, and holds what was trained.
    digest = sha256_of_tensors(tensors)
    if words.get(STORED, digest) != digest or words.get(EXACT, digest) != record[f"{kind}_sha256"]:
        raise ResultError(f"{file} does not hold the {kind} its result names (the digest differs); run the cell with --force")
    return restored(tensors)


def predictions_from(tensors: dict[str, torch.Tensor], evaluation_sha256: str, tokens: int, name: str) -> Predictions:
    """The predictions of the trial called ``name``, if they are what a model can have answered to ``tokens`` characters."""
    logits, labels = tensors.get("logits", torch.empty(0)), tensors.get("labels", torch.empty(0))
    if not _answers(logits, labels) or len(labels) != tokens:
        wrong = f"are not logits of {tokens} characters with their labels"
    # The digest does not help here: a model that diverged was stored as faithfully as any other.
    elif not torch.isfinite(logits).all():
        wrong = "contain NaN or infinity: the model did not train properly"
    else:
        return Predictions(logits.numpy(), labels.numpy(), evaluation_sha256)
    raise ResultError(f"the predictions of {name}, {wrong}; run the cell again with --force")


def snapshots_from(tensors: dict[str, torch.Tensor], name: str) -> Snapshots:
    """The snapshots of the trial called ``name``: iterations (S,), logits (S, tokens, V) and labels (tokens,)."""
    logits, labels, steps = (tensors.get(key, torch.empty(0)) for key in ("logits", "labels", "steps"))
    if logits.ndim != 3 or steps.ndim != 1 or logits.shape[0] != len(steps) or not _answers(logits[-1:].squeeze(0), labels):
        raise ResultError(f"the snapshots of {name}, do not fit together; run the cell again with --force")
    return Snapshots(tuple(steps.tolist()), logits.numpy(), labels.numpy())


def _answers(logits: torch.Tensor, labels: torch.Tensor) -> bool:
    """Whether these can be logits (tokens, V), float32, and labels (tokens,), int64 below V, of one text."""
    return logits.dtype == torch.float32 and logits.ndim == 2 and _are_labels(labels, *logits.shape)


def _are_labels(labels: torch.Tensor, tokens: int, vocabulary: int) -> bool:
    if labels.dtype != torch.int64 or labels.shape != (tokens,):
        return False
    return tokens > 0 and int(labels.min()) >= 0 and int(labels.max()) < vocabulary
