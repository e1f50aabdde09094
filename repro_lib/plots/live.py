"""What is drawn while a cell trains: the losses of its trials so far, and how far these disagree."""

from collections.abc import Mapping, Sequence
from itertools import combinations, groupby
from operator import itemgetter
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from repro_lib.plots.style import PAGE_COLOUR
from repro_lib.plots.vega import alt
from repro_lib.training.progress import Progress
from repro_lib.training.state import CURVE_POINTS

_WIDTH, _HEIGHT = 300, 200
_DASHES = ([1, 0], [7, 3], [2, 2], [9, 3, 2, 3])


def live_chart(progress: Progress, seen: Sequence[tuple[Any, ...]], tops: Mapping[tuple[int, int], NDArray[Any]]) -> Any:
    """Losses over iterations, a line per trial and its validation as points; beside them the churn between trials.
    Of more than ten trials the newest ten.

    ``seen``: trial, iteration, training loss and newest validation loss (nats; None before the first) of every iteration.
    ``tops``: by iteration and trial the most probable token at each place of the kept text (tokens,)."""
    frame = pd.DataFrame(seen, columns=["trial", "iteration", "loss", "validation"]).astype({"validation": float})
    last = min(progress.trials, max(frame["trial"].max(), frame["trial"].min() + 9))
    trials = [*range(max(last - 9, frame["trial"].min()), last + 1)]
    frame = frame[frame["trial"].isin(trials)]
    # What it says between two looks at the validation text is what it said before.
    looks = frame.dropna().drop_duplicates(["trial", "validation"])
    stretch = np.ceil(frame["iteration"] * CURVE_POINTS / progress.max_iters)
    lines = frame.groupby(["trial", stretch])[["iteration", "loss"]].mean().reset_index("trial")
    # Colours that are no activation's; dashes for who sees none.
    legend = alt.Legend(title="Trial", orient="right", symbolSize=500)
    dashes = alt.Scale(domain=trials, range=[_DASHES[k % len(_DASHES)] for k in range(len(trials))])
    colour = alt.Color("trial:N", legend=legend, scale=alt.Scale(domain=trials, scheme="tableau10"))
    dash = alt.StrokeDash("trial:N", legend=legend, scale=dashes)
    x = alt.X("iteration:Q", scale=alt.Scale(domain=[0, progress.max_iters]))
    y = alt.Y("loss:Q", title="loss, nats per token", scale=alt.Scale(zero=False))
    losses = alt.Chart(lines).mark_line(strokeWidth=1.5).encode(x, y, colour, dash)
    dots = alt.Chart(looks).mark_point(filled=True, size=40, opacity=1).encode(x, alt.Y("validation:Q"), colour)
    parts = [alt.layer(losses, dots, title="Training loss; points: validation", width=_WIDTH, height=_HEIGHT)]
    if progress.trials > 1:
        kept = sorted(key for key in tops if key[1] in trials)
        rows = [(at, _churn([tops[key] for key in of])) for at, of in groupby(kept, key=itemgetter(0))]
        apart = pd.DataFrame(rows, columns=["iteration", "churn"]).dropna()
        ticks = alt.Axis(values=[digit * 10**power for power in range(9) for digit in (1, 3)])
        x = alt.X("iteration:Q", axis=ticks, scale=alt.Scale(type="log", domain=[1, max(progress.max_iters, 2)], nice=False))
        y = alt.Y("churn:Q", title="churn, % of tokens", scale=alt.Scale(domain=[0, 100]))
        line = alt.Chart(apart).mark_line(color=PAGE_COLOUR, point={"color": PAGE_COLOUR}).encode(x, y)
        parts.append(line.properties(title="Disagreement between the trials so far", width=_WIDTH, height=_HEIGHT))
    low, high = frame["loss"].min(), frame["loss"].max()
    words = f"Training loss by iteration, one line per trial, from {high:.2f} down to {low:.2f} nats"
    return alt.hconcat(*parts).properties(description=words)


def _churn(tops: Sequence[NDArray[Any]]) -> float:
    # In per cent, the mean over pairs; NaN where there is no pair yet.
    return 100 * float(np.mean([(a != b).mean() for a, b in combinations(tops, 2)] or [np.nan]))
