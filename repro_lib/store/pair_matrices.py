"""Every trial of a model against every other one, whatever its activation: what statistics across activations need.

One file per model and configuration in ``results/pd/``, computed from the stored predictions, anew when trials are added. A
published study has them compressed, a third as large (``compressed``), and they are read as they are."""

# It can be read where the predictions, many times as large, no longer are: in a published study, for example.

import contextlib
import math
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from repro_lib.data import EVALUATION_BLOCK
from repro_lib.metrics.prediction_difference import PAIR_METRICS
from repro_lib.store.parts import Part, Sha256
from repro_lib.store.predictions import compare_all
from repro_lib.store.schema import LARGEST_RESULT_BYTES, Result, ResultError, metric_numbers
from repro_lib.store.store import Store
from repro_lib.system.files import UnusableFile, read_bounded, write_atomically

SCHEMA_VERSION = 1
Float64 = NDArray[np.float64]


class ComparedTrial(Part):
    """A trained model, named by what it predicts."""

    activation: str
    trial: int = Field(ge=1)
    predictions_sha256: str = Sha256


class PairMatrices(Part):
    """All M trained models of one model and configuration against each other; None stands for infinity.

    ``pairs``: per metric the upper triangle of the M x M matrix, row by row in the order of ``trials``. ``windows``: per
    activation and metric its mean over the pairs of trials by evaluation window; ``window_errors``: error rates by trial."""

    schema_version: Literal[1] = SCHEMA_VERSION
    model_name: str
    config_sha256: str = Sha256
    evaluation_sha256: str = Sha256
    trials: list[ComparedTrial]
    pairs: dict[str, list[float | None]]
    windows: dict[str, dict[str, list[float | None]]]
    window_errors: dict[str, list[list[float]]]

    def matrix(self, metric: str) -> Float64:
        """The metric between all trials, (M, M), symmetric with a zero diagonal; NaN where it was not known."""
        size = len(self.trials)
        matrix = np.zeros((size, size))
        rows, columns = np.triu_indices(size, k=1)
        values = [math.inf if value is None else value for value in self.pairs.get(metric, [math.nan] * len(rows))]
        matrix[rows, columns] = matrix[columns, rows] = values
        return matrix


def load_pair_matrices(store: Store, results: Sequence[Result]) -> PairMatrices:
    """The pair matrices of one model's results (one configuration, at most one result per activation).

    Read where all of them are there, otherwise computed from the stored predictions and written. Where those are gone, metrics
    that were registered since are missing. ResultError where they are needed for all, and missing or damaged; ValueError for
    results that do not belong together."""
    if len({(r.model_name, r.config_sha256, r.evaluation.sha256) for r in results}) != 1:
        raise ValueError("pair matrices are of one model, one configuration and one evaluation text")
    path = pair_matrices_path(store, results[0])
    wanted = [
        ComparedTrial(activation=result.activation, trial=record.trial, predictions_sha256=record.predictions_sha256)
        for result in results
        for record in result.trials
    ]
    # Of some activations all is there; one more trial has pairs with every other. The averages over windows are of all
    # trials of an activation, so those of fewer cannot be had from them.
    there, stored = None, _read(path)
    if stored and set(wanted) <= set(stored.trials):
        if stored.trials == wanted:
            there = stored
        elif all(len(stored.window_errors.get(result.activation, ())) == len(result.trials) for result in results):
            there = _restricted(stored, wanted)
    if there and there.pairs.keys() >= PAIR_METRICS.keys():
        return there
    try:
        matrices = _computed(store, results, wanted)
    except ResultError:
        if there:
            return there
        raise
    # The file only saves time: in a folder that cannot be written (a published one, a full disk) all is compared anew. What it
    # knows of other trials may be had from nowhere else.
    if not (stored and set(wanted) < set(stored.trials)):
        with contextlib.suppress(OSError):
            write_atomically(path, matrices.to_json())
    return matrices


def with_new_metrics(store: Store, result: Result) -> Result:
    """``result`` with the metrics that were registered since it was stored, as far as its predictions are there."""
    new = PAIR_METRICS.keys() - result.reproducibility_metrics.keys()
    if result.synthetic or len(result.trials) < 2 or not new:
        return result
    try:
        matrices = load_pair_matrices(store, [result])
    except ResultError:
        return result
    rows, columns = np.triu_indices(n := len(result.trials), k=1)
    pairs = {name: matrices.matrix(name)[rows, columns] for name in sorted(new & matrices.pairs.keys())}
    numbers = result.reproducibility_metrics | metric_numbers(pairs, n)
    return result.model_copy(update={"reproducibility_metrics": numbers})


def pair_matrices_path(store: Store, result: Result) -> Path:
    """Where the pair matrices of a result's model and configuration lie."""
    return store.folder / "pd" / f"{result.model_name}-{result.config_sha256[:12]}.json"


def compressed(path: Path) -> Path:
    """Where the compressed form of a result or of pair matrices lies, as the published study has them."""
    return path.with_name(f"{path.name}.xz")


def _computed(store: Store, results: Sequence[Result], trials: list[ComparedTrial]) -> PairMatrices:
    predictions = [store.predictions(result, record.trial) for result in results for record in result.trials]
    by_pair, by_window = compare_all(predictions)
    pairs = [(a.activation, b.activation) for a, b in combinations(trials, 2)]
    windows, window_errors = {}, {}
    for name in dict.fromkeys(trial.activation for trial in trials):
        own = [index for index, pair in enumerate(pairs) if pair == (name, name)]
        windows[name] = {metric: _finite_ones(of[own].mean(axis=0)) for metric, of in by_window.items()} if own else {}
        of_cell = [p for trial, p in zip(trials, predictions, strict=True) if trial.activation == name]
        # The share of characters whose most probable answer is wrong.
        wrong = [(p.logits.argmax(axis=1) != p.labels).reshape(-1, EVALUATION_BLOCK) for p in of_cell]
        window_errors[name] = [by_block.mean(axis=1).tolist() for by_block in wrong]
    return PairMatrices(
        model_name=results[0].model_name,
        config_sha256=results[0].config_sha256,
        evaluation_sha256=results[0].evaluation.sha256,
        trials=trials,
        pairs={name: _finite_ones(of) for name, of in by_pair.items()},
        windows=windows,
        window_errors=window_errors,
    )


def _restricted(stored: PairMatrices, wanted: Sequence[ComparedTrial]) -> PairMatrices:
    # In another order, too, where activations are asked for in another.
    order = [stored.trials.index(trial) for trial in wanted]
    rows, columns = np.triu_indices(len(order), k=1)
    activations = {trial.activation for trial in wanted}
    return stored.model_copy(
        update={
            "trials": list(wanted),
            "pairs": {name: _finite_ones(stored.matrix(name)[np.ix_(order, order)][rows, columns]) for name in stored.pairs},
            "windows": {name: of for name, of in stored.windows.items() if name in activations},
            "window_errors": {name: of for name, of in stored.window_errors.items() if name in activations},
        }
    )


def _read(path: Path) -> PairMatrices | None:
    # None where there is nothing that can be trusted: it is made again then.
    with contextlib.suppress(OSError, UnusableFile):
        stored = PairMatrices.unsealed(read_bounded(path if path.exists() else compressed(path), LARGEST_RESULT_BYTES))
        whole = math.comb(len(stored.trials), 2)
        return stored if all(len(values) == whole for values in stored.pairs.values()) else None
    return None


def _finite_ones(values: Float64) -> list[float | None]:
    # JSON has no infinity.
    return [float(value) if math.isfinite(value) else None for value in values]
