"""When trials part: what a fork at each point of training leaves between its trials in the end."""

import numpy as np
import pandas as pd

from repro_lib.analysis.forks import VARIED, forks_frame, forks_sentence
from repro_lib.analysis.frames import rows_of
from repro_lib.analysis.notes import Note
from repro_lib.plots.style import Plot, draw_interval, new_figure, styled
from repro_lib.store.store import Store

_PANELS = {
    "total_variation": "Total variation (0 to 1)",
    "distance": "Distance of weights / their length",
    "barrier": "Barrier on the line between, nats",
}
_LOOKS = {"order": ("#0072B2", "o"), "bit": ("#D55E00", "s")}


def forks_views(store: Store, model: str) -> list[Plot | Note]:
    """What forks of a model leave, drawn and in words; a sentence where there are none."""
    frame = forks_frame(store, model)
    if frame.empty:
        return [Note(f"{model} was not forked during training; repro grid --profile forks does that with charlm.")]
    return [forks_view(frame, model), Note(forks_sentence(frame, model))]


@styled
def forks_view(frame: pd.DataFrame, model: str) -> Plot:
    """Three panels over the share of the steps after which trials fork; ``frame``: ``forks_frame``."""
    shares = sorted(frame["share"].unique())
    note = f"N = {frame['n'].min()} trials that are one until the fork, then differ in one thing; lines: 95 % intervals over "
    note += "trials. Barrier: how far the loss rises on the straight line between the weights of two trials."
    figure, body = new_figure(3.2, f"{model}: when do trials part?", note)
    said = []
    for axes, (column, title) in zip(body.subplots(1, len(_PANELS)), _PANELS.items(), strict=True):
        for varies, rows in frame.groupby("varies", sort=False):
            (colour, marker), label = _LOOKS[str(varies)], VARIED[str(varies)]
            x = np.array([shares.index(share) for share in rows["share"]])
            axes.plot(x, rows[column], color=colour, marker=marker, markersize=5, label=label)
            if column == "total_variation":
                draw_interval(axes, x, rows, column, ecolor=colour, elinewidth=0.9, alpha=0.6)
            values = ", ".join(f"{row[column]:.3g} at {100 * row['share']:g} %" for row in rows_of(rows))
            said.append(f"{title.lower()} with {label} {values}")
        axes.set_xticks(range(len(shares)), [f"{100 * share:g}" for share in shares])
        axes.set(title=title, xlabel="forked after this share of the steps, %")
        axes.set_ylim(bottom=min(0.0, float(frame[column].min())))
    figure.axes[0].legend(frameon=False)
    return Plot.of(figure, f"{model}_forks", f"What forks of {model} leave in the end: {'; '.join(said)}.")
