"""Results as tidy frames: one row per cell, trial, pair of trials or point of a curve.

Nothing is filled in: an expected cell that is not there is a row of NaN, and so is a mean over it. ``Study`` bundles them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from repro_lib import analysis
from repro_lib.analysis.formatting import counted
from repro_lib.analysis.selection import identical_models, own_runs_in_words, select_comparable, variants
from repro_lib.config import ACTIVATIONS, GRID_ACTIVATIONS, GRID_MODELS, MODEL_DEFAULTS, PROFILES, check_model, check_profile
from repro_lib.metrics.prediction_difference import PAIR_METRICS
from repro_lib.metrics.uncertainty import jackknife_pairwise, mean_interval
from repro_lib.models.activations import canonical_activation
from repro_lib.store.pair_matrices import with_new_metrics
from repro_lib.store.schema import Result, ResultError
from repro_lib.store.store import MARGIN, Store

METRICS = PAIR_METRICS.keys()


class NothingToShow(RuntimeError):
    """There is no usable result in the folder."""


@dataclass(frozen=True, repr=False)
class Study:
    """Comparable results of a grid, and which cells were expected of it.

    Its tables are pandas frames, made on first use: ``cells``, ``trials``, ``pairs``, ``contrasts``, ``curves``; ``dictionary``
    says what each column is. ``results``: at most one per cell, in the order of models and activations, synthetic ones last.
    ``identical``: models bit-identical across activations. ``refused``: a sentence for each file that could not be read.
    ``own_runs``: a sentence for each run by hand that is not among them. ``folder``: where they lie, and what is made of them
    may be kept. ``margin``: within so many per cent two activations count as equal. ``variants``: results that differ from one
    of them in the length of the run or the learning rate alone."""

    results: tuple[Result, ...]
    models: tuple[str, ...]
    activations: tuple[str, ...]
    identical: tuple[str, ...]
    refused: tuple[str, ...] = ()
    own_runs: tuple[str, ...] = ()
    folder: Path | None = None
    margin: float = MARGIN
    variants: tuple[Result, ...] = ()

    @classmethod
    def load(
        cls, store: Store, models: Sequence[str] | None = None, activations: Sequence[str] | None = None, **which: Any
    ) -> Study:
        """The newest comparable results of a folder (``which`` as in ``select_comparable``); with ``models``, among theirs.
        ConfigError for a profile that neither this version nor any result knows."""
        stored, refused = store.load()
        if (profile := which.get("profile")) and profile not in {result.profile for _, result in stored}:
            check_profile(profile)
        # First, so that the newest result of another model does not decide which are comparable.
        results = [result for _, result in stored if models is None or result.model_name in models]
        chosen = [with_new_metrics(store, result) for result in select_comparable(results, grids=store.grids(), **which)]
        if chosen and not (models or activations) and (asked := store.asked(chosen[0].profile)):
            named = zip(*asked, *((r.model_name, r.activation) for r in chosen), strict=True)
            models, activations = map(_in_order, map(set, named), (tuple(MODEL_DEFAULTS), ACTIVATIONS))
        study = cls.of(chosen, models, activations, refused, which.get("include_synthetic", False))
        beside = tuple(with_new_metrics(store, result) for result in variants(results, study.measured.results))
        own = {"own_runs": tuple(own_runs_in_words(results, study.results)), "margin": store.margin(), "variants": beside}
        return replace(study, folder=store.folder, **own)

    @classmethod
    def of(
        cls,
        results: Sequence[Result],
        models: Sequence[str] | None = None,
        activations: Sequence[str] | None = None,
        refused: Sequence[str] = (),
        include_synthetic: bool = False,
    ) -> Study:
        """A study of these results, which must be comparable (ResultError says what is wrong with them).
        Without ``models`` and ``activations`` a grid of its profile is expected and whatever else the results hold."""
        check_comparable(results, include_synthetic)
        models = [check_model(name) for name in models] if models else _expected_models(results)
        activations = [canonical_activation(name) for name in activations] if activations else _expected_activations(results)
        # Found before the filter: one activation alone cannot show that a model ignores it.
        measured = [result for result in results if not result.synthetic] or results
        identical = tuple(name for name in identical_models(measured) if name in models)
        chosen = [result for result in results if result.model_name in models and result.activation in activations]
        chosen.sort(key=lambda r: (r.synthetic, models.index(r.model_name), activations.index(r.activation)))
        return cls(tuple(chosen), tuple(models), tuple(activations), identical, tuple(refused))

    @cached_property
    def measured(self) -> Study:
        """What every statistic across cells rests on: this study as if its synthetic stand-ins were missing."""
        # Numbers that somebody chose would count as evidence. Where there are no others, all that is shown is labelled.
        real = tuple(result for result in self.results if not result.synthetic)
        return replace(self, results=real) if 0 < len(real) < len(self.results) else self

    @property
    def is_mixed(self) -> bool:
        """Whether synthetic stand-ins fill cells beside measured ones."""
        return self.measured is not self

    @property
    def is_synthetic(self) -> bool:
        """Whether all results are synthetic."""
        return bool(self.results) and all(result.synthetic for result in self.results)

    # On first use: a table of cells needs no curves, which are by far the longest.
    @cached_property
    def cells(self) -> pd.DataFrame:
        """One row per expected cell: each metric, loss and accuracy with its interval."""
        return cells_frame(self.results, self.models, self.activations, self.is_mixed)

    @cached_property
    def trials(self) -> pd.DataFrame:
        """One row per trained model: seed, loss, accuracy, digests."""
        return trials_frame(self.results)

    @cached_property
    def pairs(self) -> pd.DataFrame:
        """One row per pair of trials of a cell: every metric."""
        return pairs_frame(self.results)

    @cached_property
    def contrasts(self) -> pd.DataFrame:
        """One row per leading metric, model and activation: the difference from relu, its interval and its verdict."""
        return analysis.study_contrasts(analysis.Evidence.from_results(self))

    @cached_property
    def curves(self) -> pd.DataFrame:
        """One row per point of a loss curve."""
        return curves_frame(self.results)

    @property
    def dictionary(self) -> pd.DataFrame:
        """One row per column of these tables: table, column, unit, meaning."""
        return analysis.data_dictionary(self.tables)

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """All of them by name."""
        return {name: getattr(self, name) for name in ("cells", "trials", "pairs", "contrasts", "curves")}

    def __repr__(self) -> str:
        n = sorted({len(result.trials) for result in self.results}) or [0]
        made_up = ", synthetic" if self.is_synthetic else ", partly synthetic" if self.is_mixed else ""
        size = " x ".join([counted(len(self.models), "model"), counted(len(self.activations), "activation")])
        trials = f"N = {' to '.join(map(str, dict.fromkeys([n[0], n[-1]])))}"
        return f"Study({size}: {len(self.results)} of {counted(len(self.cells), 'cell')}, {trials}{made_up})"

    def _repr_html_(self) -> str:
        wide = self.cells.pivot(index="model", columns="activation", values="relative_pd").loc[list(self.models)]
        table = wide[list(self.activations)].to_html(float_format="{:.3f}".format, na_rep="–", border=0)
        return f"<p>{self!r}, relative PD:</p>{table}"

    def result(self, model: str, activation: str) -> Result | None:
        """The result of a cell, or None where it is missing."""
        return next((r for r in self.results if (r.model_name, r.activation) == (model, activation)), None)


def load_study(
    results_dir: Path | str,
    models: Sequence[str] = (),
    activations: Sequence[str] = (),
    profile: str | None = None,
    configs: Sequence[str] = (),
    *,
    include_synthetic: bool = False,
) -> Study:
    """The newest comparable results of a folder, of some models, activations or a profile only where those are named."""
    which = {"profile": profile, "configs": configs, "include_synthetic": include_synthetic}
    study = Study.load(Store(results_dir), models or None, activations or None, **which)
    if not study.results:
        # Why there is nothing: an empty folder, one full of damaged files and one of synthetic results look alike.
        refused = f" ({counted(len(study.refused), 'file', 'were')} refused: {study.refused[0]})" if study.refused else ""
        synthetic = sum(result.synthetic for _, result in Store(results_dir).load()[0])
        left_out = f" but {synthetic} synthetic ones (repro process --include-synthetic shows them)" if synthetic else ""
        nothing = f"no results yet in {results_dir}{left_out}{refused}; run ./run_papermill.sh or repro grid first"
        raise NothingToShow(" ".join([nothing, *study.own_runs]))
    return study


def check_comparable(results: Sequence[Result], include_synthetic: bool = False) -> None:
    """ResultError unless they may stand in one study: one per cell, keys all equal (``include_synthetic``: but for that)."""
    cells = Counter((result.model_name, result.activation) for result in results)
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
    by_cell = {(result.model_name, result.activation): _cell_row(result) for result in results}
    cells = product(models or _expected_models(results), activations or _expected_activations(results))
    missing = {"n": 0, "flags": "", "cut": False, "synthetic": False}
    rows = [{"model": model, "activation": name} | by_cell.get((model, name), missing) for model, name in cells]
    numbers = [f"{name}{end}" for name in (*METRICS, "val_loss", "val_accuracy") for end in ("", "_low", "_high")]
    numbers += ["mean_deviation_pd", "unanimity", "churn_per_error", "unigram_loss", "parameters", "seconds"]
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
    rows = [(r.model_name, r.activation, *(getattr(trial, name) for name in columns)) for r in results for trial in r.trials]
    return pd.DataFrame(rows, columns=["model", "activation", *columns])


def pairs_frame(results: Sequence[Result]) -> pd.DataFrame:
    """One row per pair of trials of a cell (``Study.pairs``)."""
    rows = []
    for result in results:
        matrices = [pair_matrix(result, name) for name in METRICS]
        for i, j in combinations(range(len(result.trials)), 2):
            rows.append((result.model_name, result.activation, i + 1, j + 1, *(matrix[i, j] for matrix in matrices)))
    return pd.DataFrame(rows, columns=["model", "activation", "first", "second", *METRICS])


def curves_frame(results: Sequence[Result]) -> pd.DataFrame:
    """One row per point of a loss curve (``Study.curves``)."""
    rows = []
    for result in results:
        for trial in result.trials:
            for split, curve in (("train", trial.train_loss_curve), ("validation", trial.val_loss_curve)):
                rows += [(result.model_name, result.activation, trial.trial, split, step, loss) for step, loss in curve]
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


def _expected_models(results: Sequence[Result]) -> tuple[str, ...]:
    expected = set().union(*(PROFILES[r.profile]["models"] for r in results if r.profile in PROFILES))
    return _in_order(expected | {r.model_name for r in results}, tuple(MODEL_DEFAULTS)) or GRID_MODELS


def _expected_activations(results: Sequence[Result]) -> tuple[str, ...]:
    expected = set(GRID_ACTIVATIONS) if any(r.profile in PROFILES for r in results) else set()
    return _in_order(expected | {r.activation for r in results}, ACTIVATIONS) or GRID_ACTIVATIONS


def _in_order(names: set[str], known: tuple[str, ...]) -> tuple[str, ...]:
    """Known names in their usual order, then the others by name."""
    return (*(name for name in known if name in names), *sorted(names - set(known)))
