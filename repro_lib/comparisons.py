"""Every trial of a model against every other one, whatever its activation: what statistics across activations need.

One file per model and configuration in ``results/pd/``: the trials x trials matrix of each metric over all activations,
and what the evaluation windows say one by one. It is computed from the stored predictions, anew when trials are
added, and can be read where the predictions no longer are.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from repro_lib import metrics
from repro_lib.config import canonical_json
from repro_lib.data import EVALUATION_BLOCK
from repro_lib.files import read_bounded, write_atomically
from repro_lib.results import LARGEST_RESULT_BYTES, Part, Predictions, Result, Sha256, Store, compare_all

SCHEMA_VERSION = 1
Float64 = NDArray[np.float64]


class ComparedTrial(Part):
    """A trained model, named by what it predicts."""

    activation: str
    trial: int = Field(ge=1)
    predictions_sha256: str = Sha256


class Comparisons(Part):
    """All M trained models of one model and configuration against each other.

    ``pairs``: per metric the upper triangle of the M x M matrix, row by row in the order of ``trials`` (None: infinite).
    ``windows``: per activation and metric its mean over the pairs of trials in each evaluation window. ``window_errors``:
    per activation, trials x windows, the error rate.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    model_name: str
    config_sha256: str = Sha256
    evaluation_sha256: str = Sha256
    trials: list[ComparedTrial]
    pairs: dict[str, list[float | None]]
    windows: dict[str, dict[str, list[float | None]]]
    window_errors: dict[str, list[list[float]]]

    def matrix(self, metric: str) -> Float64:
        """The metric between all trials, (M, M), symmetric with a zero diagonal."""
        size = len(self.trials)
        matrix = np.zeros((size, size))
        rows, columns = np.triu_indices(size, k=1)
        values = [math.inf if value is None else value for value in self.pairs[metric]]
        matrix[rows, columns] = matrix[columns, rows] = values
        return matrix

    def to_json(self) -> str:
        """The text of the file, ``content_sha256`` first."""
        content = self.model_dump(mode="json")
        return json.dumps({"content_sha256": _digest(content), **content}, allow_nan=False) + "\n"


def compare_activations(store: Store, results: Sequence[Result]) -> Comparisons:
    """The comparisons of one model's results (one configuration, at most one result per activation).

    Read from ``results/pd/`` where all of them are there, otherwise computed from the stored predictions and written.
    Raises ResultError where predictions that are needed are missing or damaged, ValueError for results that do not belong
    together.
    """
    if len({(r.model_name, r.config_sha256, r.evaluation.sha256) for r in results}) != 1:
        raise ValueError("comparisons are of one model, one configuration and one evaluation text")
    path = comparisons_path(store, results[0])
    known = _read(path)
    wanted = _trials_of(results)
    if known and known.trials == wanted:
        return known
    if known and set(wanted) <= set(known.trials) and all(_has_windows(known, result) for result in results):
        return _restricted(known, wanted)
    made = _computed(store, results)
    # The file only saves time: in a folder that cannot be written (a published one, a full disk) all is compared anew.
    with contextlib.suppress(OSError):
        write_atomically(path, made.to_json())
    return made


def comparisons_path(store: Store, result: Result) -> Path:
    """Where the comparisons of a result's model and configuration lie."""
    return store.folder / "pd" / f"{result.model_name}-{result.config_sha256[:12]}.json"


def _trials_of(results: Sequence[Result]) -> list[ComparedTrial]:
    return [
        ComparedTrial(activation=result.activation, trial=record.trial, predictions_sha256=record.predictions_sha256)
        for result in results
        for record in result.trials
    ]


def _computed(store: Store, results: Sequence[Result]) -> Comparisons:
    predictions = [store.predictions(result, record.trial) for result in results for record in result.trials]
    trials = _trials_of(results)
    by_window = compare_all(predictions)  # (pairs, windows) by metric
    owners = [(a.activation, b.activation) for a, b in combinations(trials, 2)]
    windows, window_errors = {}, {}
    for result in results:
        own = [place for place, owner in enumerate(owners) if owner == (result.activation, result.activation)]
        windows[result.activation] = {n: _finite_ones(of[own].mean(axis=0)) for n, of in by_window.items()} if own else {}
        mine = [p for trial, p in zip(trials, predictions, strict=True) if trial.activation == result.activation]
        window_errors[result.activation] = [_errors_by_window(p) for p in mine]
    return Comparisons(
        model_name=results[0].model_name,
        config_sha256=results[0].config_sha256,
        evaluation_sha256=results[0].evaluation.sha256,
        trials=trials,
        pairs={name: _finite_ones(by_window[name].mean(axis=1)) if owners else [] for name in metrics.metric_names()},
        windows=windows,
        window_errors=window_errors,
    )


def _errors_by_window(predictions: Predictions) -> list[float]:
    wrong = predictions.logits.argmax(axis=1) != predictions.labels
    return wrong.reshape(-1, EVALUATION_BLOCK).mean(axis=1).tolist()


def _pair_key(a: ComparedTrial, b: ComparedTrial) -> tuple[tuple[str, int, str], tuple[str, int, str]]:
    return (a.activation, a.trial, a.predictions_sha256), (b.activation, b.trial, b.predictions_sha256)


def _known_pairs(known: Comparisons) -> Iterator[tuple[Any, dict[str, float]]]:
    """Pairs by their trials, in both orders, for the order of activations may have changed."""
    columns = {name: [math.inf if value is None else value for value in values] for name, values in known.pairs.items()}
    for place, (a, b) in enumerate(combinations(known.trials, 2)):
        pair = {name: values[place] for name, values in columns.items()}
        first, second = _pair_key(a, b)
        yield (first, second), pair
        yield (second, first), pair


def _has_windows(known: Comparisons, result: Result) -> bool:
    """Whether the averages over windows are of just this result's trials."""
    return len(known.window_errors.get(result.activation, ())) == len(result.trials)


def _restricted(known: Comparisons, wanted: Sequence[ComparedTrial]) -> Comparisons:
    values = dict(_known_pairs(known))
    in_order = [values[_pair_key(a, b)] for a, b in combinations(wanted, 2)]
    activations = {trial.activation for trial in wanted}
    return known.model_copy(
        update={
            "trials": list(wanted),
            "pairs": {name: _finite_ones(np.array([pair[name] for pair in in_order])) for name in known.pairs},
            "windows": {name: by for name, by in known.windows.items() if name in activations},
            "window_errors": {name: by for name, by in known.window_errors.items() if name in activations},
        }
    )


def _read(path: Path) -> Comparisons | None:
    """What is stored, or None where there is nothing that can be trusted: it is made again then."""
    try:
        content = json.loads(read_bounded(path, LARGEST_RESULT_BYTES))
        claimed = content.pop("content_sha256")
        if claimed != _digest(content):
            return None
        found = Comparisons.model_validate(content)
    except (OSError, ValueError, ValidationError, KeyError, AttributeError, RecursionError):
        return None
    complete = set(found.pairs) == set(metrics.metric_names())
    return found if complete and all(len(p) == math.comb(len(found.trials), 2) for p in found.pairs.values()) else None


def _finite_ones(values: Float64) -> list[float | None]:
    return [float(value) if math.isfinite(value) else None for value in values]


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()
