"""What a study measured, cell by cell: the matrices between trials from which contrasts and claims are computed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from repro_lib.analysis.frames import METRICS, pair_matrix
from repro_lib.analysis.selection import identical_models, with_other
from repro_lib.analysis.study import Study
from repro_lib.config import MARGIN, REFERENCE
from repro_lib.metrics.uncertainty import Estimate, Float64, jackknife
from repro_lib.store.pair_matrices import PairMatrices, load_pair_matrices
from repro_lib.store.schema import Result, ResultError
from repro_lib.store.store import Store


@dataclass(frozen=True)
class Evidence:
    """The measured results of a study, in which trial k of all cells has the same seed.

    ``models`` and ``activations``: what was expected. ``comparisons``: per model, where the predictions or ``results/pd/`` are
    at hand. ``gaps``: a sentence for each model whose trials could not be compared by evaluation windows. ``margin``: per cent
    of the reference within which two activations count as equal. ``runs``: the results, and those that differ from one of them
    in length or learning rate alone. ``reference``: the arm that others are compared with."""

    results: tuple[Result, ...]
    models: tuple[str, ...]
    activations: tuple[str, ...]
    comparisons: dict[str, PairMatrices]
    gaps: tuple[str, ...] = ()
    margin: float = MARGIN
    runs: tuple[Result, ...] = ()
    reference: str = REFERENCE

    @classmethod
    def load(cls, store: Store, study: Study, models: Sequence[str] | None = None) -> Evidence:
        """The evidence of a study: comparisons are read, or computed from the predictions and kept; with ``models``, theirs."""
        compared, gaps = {}, []
        for model in study.models if models is None else models:
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
        """The evidence of a study from its result files alone: but for ``compared`` nothing by evaluation windows."""
        # Numbers that were made up are no evidence, wherever else they may be shown.
        results = tuple(result for result in study.results if not result.synthetic)
        runs = (*results, *study.variants)
        return cls(results, study.models, study.activations, compared or {}, tuple(gaps), study.margin, runs, study.reference)

    @property
    def metrics(self) -> list[str]:
        """The metrics that are known of any cell: not one that was registered since, where predictions are gone."""
        known = {name for result in self.results for name in result.reproducibility_metrics}
        return [name for name in METRICS if name in known] or [*METRICS]

    @cached_property
    def _cells(self) -> dict[tuple[str, str], Result]:
        return {(result.model_name, result.arm): result for result in self.results}

    @cached_property
    def _matrices(self) -> dict[tuple[str, str, str], Float64]:
        return {}  # every contrast of a metric asks for the same ones, and so does every claim

    @cached_property
    def _identical(self) -> tuple[str, ...]:
        return identical_models(self.results)

    def trials(self, model: str, activation: str) -> int:
        """How many trained models of a cell there are."""
        return len(self._cells[model, activation].trials) if (model, activation) in self._cells else 0

    def parameters(self, model: str) -> float:
        """Parameters of a model, NaN where it is missing."""
        found = [result.parameters for result in self.results if result.model_name == model]
        return float(np.mean(found)) if found else math.nan

    def has(self, model: str, activation: str) -> bool:
        """Whether a cell has at least one pair of trials."""
        return self.trials(model, activation) > 1

    def matrix(self, model: str, activation: str, metric: str, n: int | None = None) -> Float64:
        """The metric between the trials of a cell, or the first ``n`` of them: (N, N), NaN where it is not known."""
        key = (model, activation, metric)
        if key not in self._matrices:
            self._matrices[key] = pair_matrix(self._cells[model, activation], metric)
        return self._matrices[key][:n, :n]

    def identical(self, model: str) -> bool:
        """Whether all activations of a model, two at least, predict the same bits trial by trial."""
        return model in self._identical

    def candidates(self) -> tuple[str, ...]:
        """The models that can tell activations apart, in order; those without any trial among them."""
        return tuple(model for model in self.models if not self.identical(model))

    def shared(self, cells: Sequence[tuple[str, str]]) -> int:
        """How many trials, and so seeds, all of these (model, activation) cells have."""
        return min((self.trials(*cell) for cell in cells), default=0)

    def runs_by(self, setting: str, model: str, activation: str) -> list[Result]:
        """The result of a cell and after it those that differ from it in this setting alone; none where it is missing."""
        own = self._cells.get((model, activation))
        return [own, *with_other(setting, self.runs, own)] if own else []

    def with_runs(self, others: Mapping[tuple[str, str], Result]) -> Evidence:
        """The same with other runs of these (model, activation) cells."""
        return replace(self, results=tuple(others.get(cell, own) for cell, own in self._cells.items()))

    def estimate(
        self, cells: Sequence[tuple[str, str]], statistic: Callable[[Float64], float], metric: str, **bounds: Any
    ) -> Estimate:
        """A function of the mean PDs of these (model, activation) cells with its jackknife interval, from the seeds of all."""
        n = self.shared(cells)
        if n < 2:
            return Estimate(math.nan, math.nan, math.nan, n)
        return jackknife([self.matrix(*cell, metric, n) for cell in cells], statistic, **bounds)
