"""The frame of all pairs of trained models of a study, and the matrices in it, from which contrasts and claims are computed.

A row per pair (``pairs_between``): any number can be made again from that frame alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from repro_lib.analysis.frames import METRICS, pair_matrix
from repro_lib.analysis.selection import with_other
from repro_lib.analysis.study import Study
from repro_lib.config import MARGIN, REFERENCE
from repro_lib.metrics.uncertainty import Estimate, Float64, jackknife
from repro_lib.store.pair_matrices import PairMatrices, load_pair_matrices
from repro_lib.store.schema import Result, ResultError
from repro_lib.store.store import Store

_PAIR_COLUMNS = ["model", "parameters", "activation_1", "trial_1", "activation_2", "trial_2", "identical"]


@dataclass(frozen=True)
class Evidence:
    """All pairs of a study's trials.

    ``pairs``: see ``pairs_between``. ``models`` and ``activations``: what was expected. ``comparisons``: per model, where the
    predictions or ``results/pd/`` are at hand. ``gaps``: a sentence for each model whose trials could not be compared by
    evaluation windows. ``margin``: per cent of the reference within which two activations count as equal. ``runs``: the
    results, and those that differ from one of them in length or learning rate alone. ``reference``: the arm that others are
    compared with."""

    pairs: pd.DataFrame
    models: tuple[str, ...]
    activations: tuple[str, ...]
    comparisons: dict[str, PairMatrices]
    gaps: tuple[str, ...] = ()
    margin: float = MARGIN
    runs: tuple[Result, ...] = ()
    reference: str = REFERENCE

    @classmethod
    def load(cls, store: Store, study: Study) -> Evidence:
        """The evidence of a study: comparisons are read, or computed from the predictions and kept."""
        compared, gaps = {}, []
        for model in study.models:
            results = [result for result in study.results if result.model_name == model and not result.synthetic]
            try:
                # Arms that share no configuration are not compared trial by trial: no statistic needs that.
                if len({result.config_sha256 for result in results}) == 1:
                    compared[model] = load_pair_matrices(store, results)
            except ResultError as problem:
                gaps.append(f"{model}: no intervals over evaluation windows, for its trials cannot be compared ({problem}).")
        return cls.from_results(study, compared, gaps)

    @classmethod
    def from_results(cls, study: Study, compared: dict[str, PairMatrices] | None = None, gaps: Sequence[str] = ()) -> Evidence:
        """The evidence of a study from its result files alone: but for ``compared`` nothing across activations."""
        # Numbers that were made up are no evidence, wherever else they may be shown.
        results = [result for result in study.results if not result.synthetic]
        compared = compared or {}
        found = pairs_between(results, compared)
        runs = (*results, *study.variants)
        return cls(found, study.models, study.activations, compared, tuple(gaps), study.margin, runs, study.reference)

    @classmethod
    def of(cls, pairs: pd.DataFrame) -> Evidence:
        """The evidence of a frame alone: what it holds is what was expected."""
        activations = dict.fromkeys([*pairs["activation_1"], *pairs["activation_2"]])
        return cls(pairs, tuple(dict.fromkeys(pairs["model"])), tuple(activations), {})

    @property
    def metrics(self) -> list[str]:
        """The metrics that are known of any pair: not one that was registered since, where predictions are gone."""
        return [metric for metric in METRICS if self.pairs[metric].notna().any()] or [*METRICS]

    @cached_property
    def _blocks(self) -> dict[str, _Block]:
        return {str(model): _Block(rows) for model, rows in self.pairs.groupby("model", sort=False)}

    def _numbers(self, model: str, activation: str) -> set[int]:
        places = self._blocks[model].places if model in self._blocks else ()
        return {number for name, number in places if name == activation}

    def trials(self, model: str, activation: str) -> int:
        """How many trained models of a cell there are."""
        return len(self._numbers(model, activation))

    def parameters(self, model: str) -> float:
        """Parameters of a model, NaN where it is missing."""
        return float(self._blocks[model].rows["parameters"].iloc[0]) if model in self._blocks else math.nan

    def has(self, model: str, activation: str) -> bool:
        """Whether a cell has at least one pair of trials."""
        return self.trials(model, activation) > 1

    def matrix(self, model: str, activations: Sequence[str], metric: str, seeds: Sequence[int] | None = None) -> Float64:
        """The metric between all trials (or those of these numbers) of activations, in this order; NaN where not compared."""
        block, order = self._blocks[model], {activation: k for k, activation in enumerate(activations)}
        trials = [(name, number) for name, number in block.places if name in order and (seeds is None or number in seeds)]
        trials.sort(key=lambda trial: (order[trial[0]], trial[1]))
        chosen = [block.places[trial] for trial in trials]
        return block.full(metric)[np.ix_(chosen, chosen)]

    def identical(self, model: str) -> bool:
        """Whether all activations of a model, two at least, predict the same bits trial by trial."""
        return model in self._blocks and self._blocks[model].identical

    def candidates(self) -> tuple[str, ...]:
        """The models that can tell activations apart, in order; those without any trial among them."""
        return tuple(model for model in self.models if not self.identical(model))

    def shared(self, cells: Sequence[tuple[str, str]]) -> list[int]:
        """The numbers of the trials, and so the seeds, that all of these (model, activation) cells have."""
        return sorted(set.intersection(*(self._numbers(*cell) for cell in cells))) if cells else []

    def runs_by(self, setting: str, model: str, activation: str) -> list[Result]:
        """The result of a cell and after it those that differ from it in this setting alone; none where it is missing."""
        own = next((run for run in self.runs if (run.model_name, run.arm) == (model, activation)), None)
        return [own, *with_other(setting, self.runs, own)] if own else []

    def estimate(
        self, cells: Sequence[tuple[str, str]], statistic: Callable[[Float64], float], metric: str, **bounds: Any
    ) -> Estimate:
        """A function of the mean PDs of these (model, activation) cells with its jackknife interval, from the seeds of all."""
        seeds = self.shared(cells)
        if len(seeds) < 2:
            return Estimate(math.nan, math.nan, math.nan, len(seeds))
        return jackknife([self.matrix(m, [a], metric, seeds) for m, a in cells], statistic, **bounds)


class _Block:
    # The pairs of one model as matrices over its trials, which have places 0, 1, ... by activation and number.

    def __init__(self, rows: pd.DataFrame) -> None:
        self.rows = rows
        halves = [list(zip(rows[f"activation_{k}"], rows[f"trial_{k}"], strict=True)) for k in (1, 2)]
        # Sorted, so that the numbers do not depend on the order in which a frame lists its pairs.
        self.places = {trial: place for place, trial in enumerate(sorted({*halves[0], *halves[1]}))}
        self.first, self.second = (np.array([self.places[trial] for trial in half], dtype=np.intp) for half in halves)
        # By digests: two models may have equal PDs by chance, never equal bits.
        across = (rows["activation_1"] != rows["activation_2"]) & (rows["trial_1"] == rows["trial_2"])
        self.identical = bool(across.any() and rows["identical"][across].all())
        self._filled: dict[str, Float64] = {}

    def full(self, column: str) -> Float64:
        # Every contrast of a metric asks for the same matrix, and so does every claim.
        if column not in self._filled:
            matrix = np.zeros((len(self.places), len(self.places)))
            values = self.rows[column].to_numpy(dtype=np.float64)
            matrix[self.first, self.second] = matrix[self.second, self.first] = values
            self._filled[column] = matrix
        return self._filled[column]


def pairs_between(results: Sequence[Result], comparisons: dict[str, PairMatrices]) -> pd.DataFrame:
    """One row per pair of trained models of the same model, within and across activations.

    Columns: model, parameters; activation_1, trial_1, activation_2, trial_2; identical (the same final weights and
    predictions, by digest); each metric (NaN where two activations were not compared)."""
    rows: list[tuple[Any, ...]] = []
    for model in dict.fromkeys(result.model_name for result in results):
        cells = [result for result in results if result.model_name == model]
        parameters = float(np.mean([result.parameters for result in cells]))
        values = _values(cells, comparisons.get(model))
        trials = [(result.arm, record) for result in cells for record in result.trials]
        for (name, a), (other, b) in combinations(trials, 2):
            identical = (a.weights_sha256, a.predictions_sha256) == (b.weights_sha256, b.predictions_sha256)
            metrics = values.get(((name, a.trial), (other, b.trial)), (math.nan,) * len(METRICS))
            rows.append((model, parameters, name, a.trial, other, b.trial, identical, *metrics))
    return pd.DataFrame(rows, columns=[*_PAIR_COLUMNS, *METRICS])


def _values(cells: Sequence[Result], compared: PairMatrices | None) -> dict[Any, tuple[float, ...]]:
    # Every metric by pair: from the comparisons across cells, and within a cell from its file, which has the last word.
    sources = [([(trial.activation, trial.trial) for trial in compared.trials], compared.matrix)] if compared else []
    for result in cells:
        sources.append(([(result.arm, record.trial) for record in result.trials], partial(pair_matrix, result)))
    values = {}
    for names, matrix_of in sources:
        matrices = [matrix_of(metric) for metric in METRICS]
        for i, j in combinations(range(len(names)), 2):
            values[names[i], names[j]] = tuple(float(matrix[i, j]) for matrix in matrices)
    return values
