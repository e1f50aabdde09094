"""Does the common learning rate favour one activation? Each cell at several rates, and what the common one costs it in loss."""

from typing import Any

import pandas as pd

from repro_lib.analysis.contrasts import LEADING, contrasts_at_own_rates
from repro_lib.analysis.evidence import Evidence
from repro_lib.analysis.frames import pair_matrix, rows_of
from repro_lib.analysis.notes import Note, say
from repro_lib.analysis.once import once
from repro_lib.metrics.prediction_difference import PAIR_METRICS
from repro_lib.metrics.uncertainty import Estimate, jackknife_pairwise, mean_interval


@once
def rate_check(evidence: Evidence) -> pd.DataFrame:
    """Every cell that was trained at several learning rates, a row for each rate; empty where none was.

    Columns: model, activation, rate, common (whether it is that of the study), best (lowest mean loss of this cell), n; with
    _low and _high: val_loss (nats), cost (nats: by how much the common rate's loss is above this one's, seed by seed), and
    both leading metrics."""
    rows = []
    for model in evidence.candidates():
        for activation in evidence.activations:
            runs = evidence.runs_by("learning_rate", model, activation)
            best = min(runs, key=lambda run: run.avg_val_loss, default=None)
            for run in sorted(runs, key=lambda run: run.config["learning_rate"]) if len(runs) > 1 else ():
                gaps = [own.val_loss - other.val_loss for own, other in zip(runs[0].trials, run.trials, strict=False)]
                rate = {
                    "rate": run.config["learning_rate"],
                    "common": run is runs[0],
                    "best": run is best,
                    "n": len(run.trials),
                }
                estimates = {"val_loss": mean_interval([trial.val_loss for trial in run.trials]), "cost": mean_interval(gaps)}
                estimates |= {m: jackknife_pairwise(pair_matrix(run, m), PAIR_METRICS[m].largest) for m in LEADING}
                columns = {name: value for key, of in estimates.items() for name, value in of.columns(key).items()}
                rows.append({"model": model, "activation": activation} | rate | columns)
    return pd.DataFrame(rows, columns=_COLUMNS)


_COLUMNS = ["model", "activation", "rate", "common", "best", "n"]
_COLUMNS += [f"{name}{end}" for name in ("val_loss", "cost", *LEADING) for end in ("", "_low", "_high")]


def rate_check_views(evidence: Evidence, model: str) -> list[pd.DataFrame | Note]:
    """A model at each rate as a table, and in words: what the common rate costs, and every contrast at the best rates.

    The best of several noisy losses looks better than it is, so the costs are a little too high."""
    frame = rate_check(evidence)
    own = frame[frame["model"] == model]
    if evidence.identical(model):
        return [Note(f"{model} is the same with every activation, so no rate favours one of them.")]
    if own.empty:
        how = f"To see whether it favours one of them: repro grid --models {model} --rates 0.5 2"
        return [Note(f"All activations of {model} were trained at one learning rate. {how}")]
    table = [
        {
            "Activation": row["activation"],
            "Rate": f"{row['rate']:g}{' (common)' if row['common'] else ''}{' (best)' if row['best'] else ''}",
            "N": row["n"],
            "Validation loss": f"{Estimate.in_row(row, 'val_loss'):.3f}",
            "Relative PD": f"{Estimate.in_row(row, 'relative_pd'):.4f}",
            "Total variation": f"{Estimate.in_row(row, 'total_variation'):.4f}",
        }
        for row in rows_of(own)
    ]
    best, common = own[own["best"]], own.loc[own["common"], "rate"].iloc[0]
    costs = "; ".join(f"{row['activation']} {_cost(row)}" for row in rows_of(best))
    about = f"{model}, N = {int(best['n'].min())}"
    said = [f"{about}: the common rate of {common:g} costs in validation loss: {costs}."]
    said += [_at_best_rates(evidence, model, metric) for metric in LEADING]
    return [pd.DataFrame(table).set_index("Activation"), say(*said)]


def _cost(row: dict[str, Any]) -> str:
    cost = Estimate.in_row(row, "cost").written("{:.3f}".format, " nats")
    return "nothing" if row["common"] else f"{cost}, best at {row['rate']:g}"


def _at_best_rates(evidence: Evidence, model: str, metric: str) -> str:
    frame = contrasts_at_own_rates(evidence, metric)
    parts = [
        f"{row['activation']} {Estimate.in_row(row, 'per_cent'):+.1f %}, {row['verdict']} at N = {row['n']}"
        for row in rows_of(frame[frame["model"] == model].dropna(subset=["per_cent"]))
    ]
    about = f"{PAIR_METRICS[metric].words} against {evidence.reference}"
    return f"Each at its best rate, {about}: {'; '.join(parts) or 'nothing to compare'}."
