"""Where the randomness comes from: the same cell with one source of it at a time (Summers & Dinneen 2021, arXiv 2103.04514)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from repro_lib.analysis import METRIC_LIMITS, METRICS, Study, pair_matrix
from repro_lib.config import canonical_json
from repro_lib.formatting import small
from repro_lib.results import Result, ResultError, Store
from repro_lib.statistics import jackknife_pairwise
from repro_lib.trajectories import Trajectory, trajectory

# In the order of tables and figures: the value of ``vary``, and what differs between the trials then.
SOURCES = {
    "all": "initial weights, data order and dropout masks",
    "init": "initial weights only",
    "order": "data order only",
    "dropout": "dropout masks only",
    "bit": "the last bit of one initial weight",
    "none": "nothing: the same trial again",
}


@dataclass(frozen=True)
class NoiseSources:
    """One cell with each source of randomness alone.

    ``results``: by source, those that were run. ``states``: by source ``measured``, ``not applicable: ...`` or ``not run``.
    """

    model: str
    activation: str
    results: dict[str, Result]
    states: dict[str, str]

    def frame(self) -> pd.DataFrame:
        """One row per source: source, varies, state, n, each metric with _low and _high; NaN where it was not run."""
        rows: list[dict[str, Any]] = []
        for source, words in SOURCES.items():
            row: dict[str, Any] = {"source": source, "varies": words, "state": self.states[source], "n": 0}
            result = self.results.get(source)
            if result:
                row["n"] = len(result.trials)
                for name in METRICS:
                    estimate = jackknife_pairwise(pair_matrix(result, name), METRIC_LIMITS[name])
                    row |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
            rows.append(row)
        columns = ["source", "varies", "state", "n", *(f"{name}{end}" for name in METRICS for end in ("", "_low", "_high"))]
        return pd.DataFrame(rows, columns=columns)

    def table(self) -> pd.DataFrame:
        """The same for people."""
        rows = []
        for _, row in self.frame().iterrows():
            measured = bool(row["n"])
            numbers = {
                "Relative PD": with_interval(row, "relative_pd") if measured else row["state"],
                "Total variation": with_interval(row, "total_variation") if measured else "",
                "Churn": with_interval(row, "churn") if measured else "",
            }
            rows.append({"Varies between trials": row["varies"], "N": row["n"] if measured else "–"} | numbers)
        return pd.DataFrame(rows, index=list(SOURCES))

    def sentence(self) -> str:
        """What the sources say, with N and intervals; a warning where repeating the same trial changes anything."""
        parts = []
        for source, result in self.results.items():
            estimate = jackknife_pairwise(pair_matrix(result, "total_variation"), METRIC_LIMITS["total_variation"])
            ends = f"95 % interval {small(estimate.low)} to {small(estimate.high)}" if estimate.has_interval else "no interval"
            parts.append(f"{source} {small(estimate.value)} ({ends}, N = {estimate.n})")
        said = f"{self.model} with {self.activation}: total variation by source of randomness: {'; '.join(parts)}."
        if "none" not in self.results:
            return said
        if len({trial.predictions_sha256 for trial in self.results["none"].trials}) > 1:
            return (
                f"{said} Warning: the same trial repeated gave other predictions: this machine does not compute reproducibly."
            )
        return f"{said} Without any source the trials are the same to the last bit: PD exactly 0."

    def trajectories(self, store: Store) -> dict[str, Trajectory]:
        """By source the cell through training, of those whose kept predictions are at hand."""
        found = {}
        for source, result in self.results.items():
            try:
                found[source] = trajectory(store, result)
            except ResultError:
                continue
        return found


def noise_sources(stored: Sequence[Result], study: Study, model: str) -> NoiseSources | None:
    """The sources of randomness of a model, for the activation of which most were run; None where none was.

    ``stored``: the results to look through; they must agree with the study's in all but ``vary`` and the number of trials.
    """
    best: NoiseSources | None = None
    for activation in study.activations:
        reference = study.result(model, activation)
        if reference is None:
            continue
        found = {_source(other): other for other in stored if _same_but_vary(reference, other)} | {
            _source(reference): reference
        }
        known = {source: found[source] for source in SOURCES if source in found and len(found[source].trials) > 1}
        if len(known) > 1 and (best is None or len(known) > len(best.results)):
            best = NoiseSources(model, activation, known, _states(reference, known))
    return best


def how_to_run(model: str) -> str:
    """What to do where no source of randomness was run on its own."""
    return (
        f"The sources of randomness of {model} were not run one by one; make them with: repro grid --noise-models {model} "
        "(or one at a time: repro train --vary init, order, dropout, bit or none)"
    )


def with_interval(row: Mapping[Any, Any] | pd.Series, name: str) -> str:
    """A value of a table's row with its interval; what is small but not 0 does not look like 0."""
    value, low, high = row[name], row[f"{name}_low"], row[f"{name}_high"]
    return small(value) if math.isnan(low) else f"{small(value)} ({small(low)} to {small(high)})"


def _states(reference: Result, found: dict[str, Result]) -> dict[str, str]:
    states = {source: "measured" if source in found else "not run" for source in SOURCES}
    if reference.config["dropout"] == 0:
        # Without dropout that source is no source, whatever was run.
        states["dropout"] = "not applicable: the model has no dropout"
    return states


def _source(result: Result) -> str:
    return str(result.config["vary"])


def _same_but_vary(reference: Result, other: Result) -> bool:
    def rest(result: Result) -> str:
        values = {name: value for name, value in result.config.items() if name not in ("vary", "trials", "corpus")}
        about = [result.model_name, result.activation, result.corpus.sha256, result.evaluation.sha256, result.synthetic]
        return canonical_json([about, values])

    return other.config["vary"] != reference.config["vary"] and rest(reference) == rest(other)
