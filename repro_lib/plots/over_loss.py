"""PD over validation loss, from runs of several lengths that each decayed fully: a curve per activation."""

import pandas as pd

from repro_lib.analysis.contrasts import LEADING
from repro_lib.analysis.evidence import Evidence
from repro_lib.analysis.frames import pair_matrix, rows_of
from repro_lib.analysis.notes import Note
from repro_lib.metrics.prediction_difference import PAIR_METRICS
from repro_lib.metrics.uncertainty import TRIALS_FOR_INTERVAL, jackknife_pairwise
from repro_lib.plots.style import Plot, activation_handles, colour_of, draw_interval, marker_of, new_figure, styled
from repro_lib.store.schema import Result


@styled
def over_loss_view(evidence: Evidence, model: str) -> Plot | Note:
    """Both leading metrics over the loss that each run reached; a sentence where there are no runs of other lengths."""
    if evidence.identical(model):
        return Note(f"{model} is the same with every activation, so there is nothing to compare at equal loss.")
    curves = {name: evidence.runs_by("max_iters", model, name) for name in evidence.activations}
    curves = {name: [run for run in runs if len(run.trials) > 1] for name, runs in curves.items()}
    curves = {name: runs for name, runs in curves.items() if runs}
    if all(len(runs) < 2 for runs in curves.values()):
        how = f"make them with: repro grid --models {model} --lengths 0.5 0.8 1.2"
        return Note(f"There are no runs of {model} of other lengths, so nothing can be compared at equal loss; {how}")
    least = min(len(run.trials) for runs in curves.values() for run in runs)
    lines = "95 % intervals over trials" if least >= TRIALS_FOR_INTERVAL else "none, for there are too few trials"
    note = f"Each mark is a run of its own whose learning rate decayed to 0; N = {least} trials or more; lines: {lines}. "
    note += "Where two curves lie on each other, the activations differ in how far they get, not in how well they reproduce."
    title = f"{model}: prediction difference over the loss reached"
    figure, body = new_figure(3.6, title, note, activation_handles(list(curves)))
    said = []
    for axes, metric in zip(body.subplots(1, len(LEADING)), LEADING, strict=True):
        for name, runs in curves.items():
            rows = pd.DataFrame([_end(run, metric) for run in runs]).sort_values("loss", ascending=False, ignore_index=True)
            axes.plot(rows["loss"], rows[metric], color=colour_of(name), marker=marker_of(name), markersize=5)
            draw_interval(axes, rows["loss"], rows, metric, ecolor=colour_of(name), elinewidth=0.8, alpha=0.5)
            ends = ", ".join(f"{row[metric]:.4f} at {row['loss']:.3f} nats" for row in rows_of(rows))
            said.append(f"{PAIR_METRICS[metric].words} with {name} {ends}")
        axes.invert_xaxis()
        axes.set(xlabel="validation loss, nats (better to the right)", title=PAIR_METRICS[metric].title)
    return Plot.of(figure, f"{model}_over_loss", f"Prediction difference of {model} over validation loss: {'; '.join(said)}.")


def _end(run: Result, metric: str) -> dict[str, float]:
    estimate = jackknife_pairwise(pair_matrix(run, metric), PAIR_METRICS[metric].largest)
    return {"loss": run.avg_val_loss} | estimate.columns(metric)
