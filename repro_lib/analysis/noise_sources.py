"""Where the randomness comes from: the same cell with one source of it at a time (Summers & Dinneen 2021, arXiv 2103.04514)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from repro_lib.analysis.formatting import small
from repro_lib.analysis.frames import METRICS, pair_matrix, rows_of
from repro_lib.analysis.selection import differs_in_sources
from repro_lib.analysis.study import Study
from repro_lib.analysis.trajectories import Trajectory, follow
from repro_lib.metrics.prediction_difference import PAIR_METRICS
from repro_lib.metrics.uncertainty import Estimate, jackknife_pairwise
from repro_lib.store.schema import Result
from repro_lib.store.store import Store

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
    """One cell with each source alone: the ``results`` there are, and the state of each (``measured``, ``not run``, ...)."""

    model: str
    activation: str
    results: dict[str, Result]
    states: dict[str, str]

    def frame(self) -> pd.DataFrame:
        """One row per source: source, varies, state, n, each known metric with _low and _high; NaN where it was not run."""
        rows: list[dict[str, Any]] = []
        for source, varied in SOURCES.items():
            row: dict[str, Any] = {"source": source, "varies": varied, "state": self.states[source], "n": 0}
            if result := self.results.get(source):
                row["n"] = len(result.trials)
                # Of a single trial no metric is known, and the columns are there all the same.
                for name in filter((result.reproducibility_metrics or METRICS).__contains__, METRICS):
                    row |= jackknife_pairwise(pair_matrix(result, name), PAIR_METRICS[name].largest).columns(name)
            rows.append(row)
        return pd.DataFrame(rows)

    def table(self) -> pd.DataFrame:
        """The same for people."""
        shown = {"Relative PD": "relative_pd", "Total variation": "total_variation", "Churn": "churn"}
        rows = []
        for row in rows_of(self.frame()):
            numbers = {head: Estimate.in_row(row, name).written(small) for head, name in shown.items()}
            cells = numbers if row["n"] else dict.fromkeys(shown, "") | {"Relative PD": row["state"]}
            rows.append({"Varies between trials": row["varies"], "N": row["n"] or "–"} | cells)
        return pd.DataFrame(rows, index=list(SOURCES))

    def sentence(self) -> str:
        """What the sources say, with N and intervals, and ``repeated``."""
        parts = []
        for source, result in self.results.items():
            estimate = jackknife_pairwise(pair_matrix(result, "total_variation"), PAIR_METRICS["total_variation"].largest)
            ends = f"95 % interval {small(estimate.low)} to {small(estimate.high)}" if estimate.has_interval else "no interval"
            parts.append(f"{source} {small(estimate.value)} ({ends}, N = {estimate.n})")
        told = f"total variation by source of randomness: {'; '.join(parts)}"
        return f"{self.model} with {self.activation}: {told}. {self.repeated()}"

    def repeated(self) -> str:
        """Whether the same trial again gives the same bits; by digest, for a PD that rounds to 0 would not show it."""
        name = f"{self.model} with {self.activation}"
        if "none" not in self.results:
            return f"{name}: the same trial was not repeated."
        if len({trial.predictions_sha256 for trial in self.results["none"].trials}) > 1:
            return f"Warning: {name} trained again gave other predictions: this machine does not compute reproducibly."
        return f"{name} trained again without any source of randomness is the same to the last bit: PD exactly 0."

    def trajectories(self, store: Store) -> dict[str, Trajectory]:
        """By source the cell through training, of those whose kept predictions are at hand."""
        # Where the kept predictions of one are gone, the others can be shown without it.
        return {source: run for source, result in self.results.items() for run in follow(store, [result])[0]}


def compare_sources(stored: Sequence[Result], study: Study, model: str) -> NoiseSources | None:
    """The sources of randomness of a model, for the activation of which most were run; None where none was.
    ``stored``: the results to look through; they must agree with the study's in all but ``vary`` and the number of trials."""
    best: NoiseSources | None = None
    for activation in study.activations:
        reference = study.result(model, activation)
        if reference is None:
            continue
        by_source = {other.config["vary"]: other for other in stored if differs_in_sources(reference, other)}
        by_source[reference.config["vary"]] = reference
        known = {name: by_source[name] for name in SOURCES if name in by_source and len(by_source[name].trials) > 1}
        # One source beside nothing explains nothing; of two activations the one that is known better.
        if len(known) > 1 and (best is None or len(known) > len(best.results)):
            states = {source: "measured" if source in known else "not run" for source in SOURCES}
            # Without dropout that source is no source, whatever was run.
            if reference.config["dropout"] == 0:
                states["dropout"] = "not applicable: the model has no dropout"
            best = NoiseSources(model, activation, known, states)
    return best


def how_to_run(study: Study) -> str:
    """What to do where no source of randomness was run on its own."""
    model, profile = study.models[0], study.results[0].profile if study.results else None
    command = f"repro grid --noise-models {model}" + (f" --profile {profile}" if profile else "")
    one_by_one = "or one at a time: repro train --vary init, order, dropout, bit or none"
    return f"No source of randomness was run on its own; to run them: {command} ({one_by_one})."
