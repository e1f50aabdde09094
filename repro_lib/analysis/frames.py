"""Results as tidy frames: one row per cell, trial, pair of trials or point of a curve.

Nothing here is filled in: a cell that was expected and is not there is a row of NaN."""

import math
from collections import Counter
from collections.abc import Sequence
from itertools import combinations, product
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from repro_lib.config import ACTIVATIONS, GRID_ACTIVATIONS, GRID_MODELS, MODEL_DEFAULTS, PROFILES
from repro_lib.metrics.prediction_difference import PAIR_METRICS
from repro_lib.metrics.uncertainty import jackknife_pairwise, mean_interval
from repro_lib.store.schema import Result, ResultError

METRICS = PAIR_METRICS.keys()


def check_comparable(results: Sequence[Result], include_synthetic: bool = False) -> None:
    """ResultError unless they may stand in one study: one per cell, keys all equal (``include_synthetic``: but for that)."""
    cells = Counter((result.model_name, result.arm) for result in results)
    if twice := sorted(cell for cell, count in cells.items() if count > 1):
        raise ResultError(f"more than one result for {' with '.join(twice[0])}; choose with selection.select_comparable first")
    if len({result.measured_key if include_synthetic else result.comparison_key for result in results}) > 1:
        raise ResultError(
            "these results differ in corpus, evaluation text, profile, vary, seed, execution or device (or some are "
            "synthetic), so they do not belong in one statistic; choose with selection.select_comparable first"
        )


def cells_frame(
    results: Sequence[Result],
    models: Sequence[str] | None = None,
    activations: Sequence[str] | None = None,
    include_synthetic: bool = False,
) -> pd.DataFrame:
    """One row per expected cell; a missing one has n = 0 and NaN. ``Study.dictionary`` says what the columns are; the intervals
    of metrics are of the jackknife, those of loss and accuracy Student's."""
    check_comparable(results, include_synthetic)
    by_cell = {(result.model_name, result.arm): _cell_row(result) for result in results}
    cells = product(models or expected_models(results), activations or expected_activations(results))
    missing = {"n": 0, "flags": "", "cut": False, "synthetic": False}
    rows = [{"model": model, "activation": name} | by_cell.get((model, name), missing) for model, name in cells]
    numbers = [f"{name}{end}" for name in (*METRICS, "val_loss", "val_accuracy") for end in ("", "_low", "_high")]
    numbers += ["bits_per_byte", "mean_deviation_pd", "unanimity", "churn_per_error", "unigram_loss", "parameters", "seconds"]
    columns = ["model", "activation", "n", *numbers, "cut", "flags", "profile", "synthetic"]
    # A column of whole numbers beside one that has a hole would change its type with the results.
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(numbers, "float64"))


def _cell_row(result: Result) -> dict[str, Any]:
    estimates = {name: jackknife_pairwise(pair_matrix(result, name), PAIR_METRICS[name].largest) for name in METRICS}
    estimates["val_loss"] = mean_interval([trial.val_loss for trial in result.trials])
    estimates["val_accuracy"] = mean_interval([trial.val_accuracy for trial in result.trials], 0.0, 100.0)
    row = {column: value for name, estimate in estimates.items() for column, value in estimate.columns(name).items()}
    error = 1 - row["val_accuracy"] / 100
    row |= {name: result[name] for name in ("mean_deviation_pd", "unanimity", "parameters", "profile", "synthetic")}
    return row | {
        "n": len(result.trials),
        "bits_per_byte": result.avg_val_loss * result.bits_per_nat,
        "churn_per_error": row["churn"] / error if error > 0 else math.nan,
        "unigram_loss": result.evaluation.unigram_cross_entropy,
        "seconds": sum(trial.seconds for trial in result.trials),
        "cut": is_cut(result),
        "flags": "; ".join(result.flags),
    }


def trials_frame(results: Sequence[Result]) -> pd.DataFrame:
    """One row per trained model (``Study.trials``)."""
    digests = ("init_sha256", "weights_sha256", "predictions_sha256")
    columns = ("trial", "seed", "val_loss", "val_accuracy", "seconds", *digests)
    rows = [(r.model_name, r.arm, *(getattr(trial, name) for name in columns)) for r in results for trial in r.trials]
    return pd.DataFrame(rows, columns=["model", "activation", *columns])


def pairs_frame(results: Sequence[Result]) -> pd.DataFrame:
    """One row per pair of trials of a cell (``Study.pairs``)."""
    rows = []
    for result in results:
        matrices = [pair_matrix(result, name) for name in METRICS]
        for i, j in combinations(range(len(result.trials)), 2):
            rows.append((result.model_name, result.arm, i + 1, j + 1, *(matrix[i, j] for matrix in matrices)))
    return pd.DataFrame(rows, columns=["model", "activation", "first", "second", *METRICS])


def curves_frame(results: Sequence[Result]) -> pd.DataFrame:
    """One row per point of a loss curve (``Study.curves``)."""
    rows = []
    for result in results:
        for trial in result.trials:
            for split, curve in (("train", trial.train_loss_curve), ("validation", trial.val_loss_curve)):
                rows += [(result.model_name, result.arm, trial.trial, split, step, loss) for step, loss in curve]
    return pd.DataFrame(rows, columns=["model", "activation", "trial", "split", "iteration", "loss"])


def pair_matrix(result: Result, metric: str = "relative_pd") -> NDArray[np.float64]:
    """A metric between the N trials of a cell as a symmetric (N, N) matrix with a zero diagonal; NaN where it was not known."""
    matrix = np.where(np.eye(len(result.trials)), 0.0, math.nan)
    for (i, j), value in result.pairs(metric).items() if metric in result.reproducibility_metrics else ():
        matrix[i - 1, j - 1] = matrix[j - 1, i - 1] = value
    return matrix


def rows_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame as plain dictionaries."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def is_cut(result: Result) -> bool:
    """Whether the model was trained smaller than its full size, which was another one in some earlier version."""
    full, layer = MODEL_DEFAULTS.get(result.model_name, {}), result.config_sources
    return any(result.config[name] < full.get(name, 0) and layer.get(name) != "model" for name in ("n_layer", "n_embd"))


def expected_models(results: Sequence[Result]) -> tuple[str, ...]:
    """The models of the grids of these results' profiles, and whatever else they hold."""
    expected = set().union(*(PROFILES[r.profile]["models"] for r in results if r.profile in PROFILES))
    return in_order(expected | {r.model_name for r in results}, tuple(MODEL_DEFAULTS)) or GRID_MODELS


def expected_activations(results: Sequence[Result]) -> tuple[str, ...]:
    """The same of activations."""
    expected = set(GRID_ACTIVATIONS) if any(r.profile in PROFILES for r in results) else set()
    return in_order(expected | {r.arm for r in results}, ACTIVATIONS) or GRID_ACTIVATIONS


def in_order(names: set[str], known: tuple[str, ...]) -> tuple[str, ...]:
    """Known names in their usual order, then the others by name."""
    return (*(name for name in known if name in names), *sorted(names - set(known)))
