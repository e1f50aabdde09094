"""Stored predictions, checked against the digests that results name, and compared trial with trial.

Shapes: N trials, S snapshots, V vocabulary; tokens are the scored positions, in evaluation windows of 256.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from repro_lib.data import EVALUATION_BLOCK, LARGEST_VOCABULARY
from repro_lib.metrics import all_pairs, prediction_difference
from repro_lib.store.schema import ResultError, TensorKind, TrialRecord
from repro_lib.store.tensors import HEADER_BYTES, read_tensors, sha256_of_tensors
from repro_lib.system.files import UnusableFile


@dataclass(frozen=True)
class Predictions:
    """Logits of one trial on the evaluation windows: (tokens, V) float32, with the labels (tokens,) they answer."""

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
    _check_same_windows(first, second)
    return prediction_difference.pair_metrics(first.probabilities, second.probabilities, first.labels)


def _check_same_windows(first: Predictions, *others: Predictions) -> None:
    for other in others:
        if first.evaluation_sha256 != other.evaluation_sha256:
            both = f"{first.evaluation_sha256[:12]} and {other.evaluation_sha256[:12]}"
            raise ResultError(
                f"these predictions were made on different evaluation windows ({both}), so their difference means nothing"
            )


class Compared(NamedTuple):
    """Metrics by name: of P pairs of trials (P,), and of each in each evaluation window of 256 characters (P, windows)."""

    pairs: dict[str, NDArray[np.float64]]
    windows: dict[str, NDArray[np.float64]]


def compare_all(predictions: Sequence[Predictions], threads: int = 1) -> Compared:
    """Every pairwise metric of N >= 1 trials, of a pair what ``compare`` gives. Raises as it does.

    Pairs in the order of ``itertools.combinations``.
    """
    _check_same_windows(*predictions)
    logits, labels = [trial.logits for trial in predictions], predictions[0].labels
    softmax = prediction_difference.probabilities_from_logits
    windows = all_pairs.pair_metrics_by_block(logits, labels, EVALUATION_BLOCK, threads, softmax)
    pairs = {name: of.mean(axis=1) for name, of in windows.items()}
    # A function from elsewhere need be no mean over windows.
    for name in all_pairs.asked_by_pair():
        metric = prediction_difference.PAIR_METRICS[name]
        pairs[name] = np.array([metric(a.probabilities, b.probabilities, labels) for a, b in combinations(predictions, 2)])
    return Compared(pairs, windows)


def trial_tensors(path: Path, kind: TensorKind, record: TrialRecord, tokens: int, parameters: int) -> dict[str, torch.Tensor]:
    """The tensors of one kind of a trial, checked against the digest in its record; ResultError says what is wrong."""
    # A file is read whole, so its size is bounded first, by the evaluation text's tokens or the model's parameters: a
    # label takes 8 bytes, as two numbers of the logits do.
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
    if logits.dtype != torch.float32 or labels.dtype != torch.int64 or logits.ndim != 2 or labels.shape != logits.shape[:1]:
        return False
    return labels.numel() > 0 and int(labels.min()) >= 0 and int(labels.max()) < logits.shape[1]
