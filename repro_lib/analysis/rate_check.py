"""Does the common learning rate favour one activation? Each cell at several rates, and what the common one costs it in loss."""

from collections.abc import Collection, Sequence
from typing import Any

import pandas as pd

from repro_lib.analysis.contrasts import LEADING, contrasts_frame
from repro_lib.analysis.evidence import Evidence
from repro_lib.analysis.frames import pair_matrix, rows_of
from repro_lib.analysis.notes import Note, say
from repro_lib.metrics.prediction_difference import PAIR_METRICS
from repro_lib.metrics.uncertainty import Estimate, jackknife_pairwise, mean_interval
from repro_lib.store.schema import Result


def rate_check_views(evidence: Evidence, model: str) -> list[pd.DataFrame | Note]:
    """A model at each rate as a table, and in words: what the common rate costs, and every contrast at the best rates.

    The best of several noisy losses looks better than it is, so the costs are a little too high."""
    if evidence.identical(model):
        return [Note(f"{model} is the same with every activation, so no rate favours one of them.")]
    # The common rate's run comes first.
    runs = {name: evidence.runs_by("learning_rate", model, name) for name in evidence.activations}
    runs = {name: of for name, of in runs.items() if len(of) > 1}
    if not runs:
        how = f"To see whether it favours one of them: repro grid --models {model} --rates 0.5 2"
        return [Note(f"The runs of {model} here have one learning rate. {how}")]
    rated = at_best_rates(evidence)
    best = {run.arm: run for run in rated.results if run.model_name == model and run.arm in runs}
    table = [
        {
            "Activation": name,
            "Rate": f"{run.config['learning_rate']:g}{' (common)' * (run is of[0])}{' (best)' * (run is best[name])}",
        }
        | _numbers(run)
        for name, of in runs.items()
        for run in sorted(of, key=lambda run: run.config["learning_rate"])
    ]
    costs = "; ".join(f"{name} {_cost(of[0], best[name])}" for name, of in runs.items())
    common, n = next(iter(runs.values()))[0].config["learning_rate"], min(len(run.trials) for run in best.values())
    said = [f"{model}, N = {n}: the common rate of {common:g} costs in validation loss: {costs}."]
    said += [_at_best_rates(rated, model, best, metric) for metric in LEADING]
    return [pd.DataFrame(table).set_index("Activation"), say(*said)]


def at_best_rates(evidence: Evidence) -> Evidence:
    """The same family with every cell at that of its learning rates that has the lowest mean loss."""
    runs = {(run.model_name, run.arm): evidence.runs_by("learning_rate", run.model_name, run.arm) for run in evidence.results}
    return evidence.with_runs({cell: _best(of) for cell, of in runs.items()})


def _best(runs: Sequence[Result]) -> Result:
    # On the seeds that all of them have: others may be lucky ones.
    shared = set[int].intersection(*({trial.seed for trial in run.trials} for run in runs))
    return min(runs, key=lambda run: sum(trial.val_loss for trial in run.trials if trial.seed in shared))


def _numbers(run: Result) -> dict[str, Any]:
    loss = mean_interval([trial.val_loss for trial in run.trials])
    pds = (jackknife_pairwise(pair_matrix(run, metric), PAIR_METRICS[metric].largest) for metric in LEADING)
    return {"N": len(run.trials), "Validation loss": f"{loss:.3f}"} | {
        head: f"{pd:.4f}" for head, pd in zip(("Relative PD", "Total variation"), pds, strict=True)
    }


def _cost(common: Result, best: Result) -> str:
    gaps = [own.val_loss - other.val_loss for own, other in zip(common.trials, best.trials, strict=False)]
    cost = mean_interval(gaps).written("{:.3f}".format, " nats")
    return "nothing" if best is common else f"{cost}, best at {best.config['learning_rate']:g}"


def _at_best_rates(rated: Evidence, model: str, best: Collection[str], metric: str) -> str:
    rows = rows_of(contrasts_frame(rated, metric).query("model == @model").dropna(subset=["per_cent"]))
    parts = [
        f"{row['activation']} {Estimate.in_row(row, 'per_cent'):+.1f %}, {row['verdict']} at N = {row['n']}"
        for row in rows
        if row["activation"] in best and rated.reference in best
    ]
    about = f"{PAIR_METRICS[metric].words} against {rated.reference}"
    none = f"nothing to compare, for {rated.reference} was run at one rate"
    return f"Each at its best rate, {about}: {'; '.join(parts) or none}."
