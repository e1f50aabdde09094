"""The contrast with the reference over the k most frequent characters, for k from 10 to the whole vocabulary."""

from repro_lib.analysis.contrasts import LEADING
from repro_lib.analysis.counted import CountedModel
from repro_lib.analysis.notes import Note
from repro_lib.metrics.prediction_difference import PAIR_METRICS
from repro_lib.metrics.uncertainty import TRIALS_FOR_INTERVAL
from repro_lib.plots.style import Plot, activation_handles, colour_of, marker_of, new_figure, styled


@styled
def frequent_view(counted: CountedModel) -> Plot | Note:
    """Both leading metrics against the reference over k, a line per arm; a sentence where there is nothing to compare."""
    curves = counted.curves
    if curves.empty:
        return Note(*counted.sentences())
    least = curves["n"].min()
    bands = f"95 % jackknife interval, N = {least} trials" if least >= TRIALS_FOR_INTERVAL else "none: too few trials"
    note = (
        "Over the k most frequent characters of the training text, at every place of the evaluation text: relative PD is the "
    )
    note += f"mean over them, total variation the sum. Bands: {bands}; each k for itself, not corrected for looking at many."
    title = f"{counted.model}: does the difference from {counted.reference} depend on which characters count?"
    figure, body = new_figure(3.4, title, note, activation_handles(counted.compared))
    for axes, metric in zip(body.subplots(1, 2, sharey=True), LEADING, strict=True):
        axes.axhline(0, color="#888888", linewidth=1)
        for name, curve in curves[curves["metric"] == metric].groupby("activation", sort=False):
            colour = colour_of(str(name))
            axes.plot(curve["k"], curve["per_cent"], color=colour, marker=marker_of(str(name)), markersize=4)
            axes.fill_between(curve["k"], curve["per_cent_low"], curve["per_cent_high"], color=colour, alpha=0.12, linewidth=0)
        axes.set(title=PAIR_METRICS[metric].words, xlabel="k, characters that count")
    figure.axes[0].set_ylabel(f"against {counted.reference}, %")
    return Plot(f"{counted.model}_frequent_characters", lambda: (figure, " ".join(counted.sentences())))
