"""What is drawn while a cell trains: the losses of its trials so far, and how far these disagree."""

from collections.abc import Mapping, Sequence
from itertools import combinations, groupby
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from repro_lib.plots.style import PAGE_COLOUR
from repro_lib.plots.vega import alt
from repro_lib.training.progress import Progress
from repro_lib.training.state import CURVE_POINTS


def live_chart(progress: Progress, seen: Sequence[tuple[Any, ...]], tops: Mapping[tuple[int, int], NDArray[Any]]) -> Any:
    """Losses of the newest ten trials, a line each with its validation as points; beside them the churn between them.

    ``seen``: trial, iteration, training loss and newest validation loss (nats; None before the first) of every iteration.
    ``tops``: by iteration and trial the most probable token at each place of the kept text (tokens,)."""
    frame = pd.DataFrame(seen, columns=["trial", "iteration", "loss", "validation"]).astype({"validation": float})
    first, newest = frame["trial"].min(), frame["trial"].max()
    trials = [*range(max(first, newest - 9), min(progress.trials, max(newest, first + 9)) + 1)]
    frame = frame[frame["trial"].isin(trials)]
    # What it says between two looks at the validation text is what it said before.
    looks = frame.dropna().drop_duplicates(["trial", "validation"])
    stretch = np.ceil(frame["iteration"] * CURVE_POINTS / progress.max_iters)
    lines = frame.groupby(["trial", stretch])[["iteration", "loss"]].mean().reset_index("trial")
    # Colours that are no activation's.
    colour = alt.Color("trial:N", title="Trial").legend(orient="right").scale(domain=trials, scheme="tableau10")
    x = alt.X("iteration:Q").scale(domain=[0, progress.max_iters])
    losses = alt.Chart(lines).mark_line().encode(x, alt.Y("loss:Q", title="loss, nats per token").scale(zero=False), colour)
    dots = alt.Chart(looks).mark_point(filled=True, opacity=1).encode(x, alt.Y("validation:Q"), colour)
    parts: list[Any] = [alt.layer(losses, dots, title="Training loss; points: validation", height=200)]
    if progress.trials > 1:
        kept = groupby(sorted(key for key in tops if key[1] in trials), key=lambda key: key[0])
        pairs = [(at, [(tops[a] != tops[b]).mean() for a, b in combinations(of, 2)]) for at, of in kept]
        churn = pd.DataFrame([(at, 100 * np.mean(of)) for at, of in pairs if of], columns=["iteration", "churn"])
        ticks = [digit * 10**power for power in range(9) for digit in (1, 3)]
        x = alt.X("iteration:Q").axis(values=ticks).scale(type="log", domain=[1, max(progress.max_iters, 2)], nice=False)
        line = alt.Chart(churn, title="Disagreement between these trials", height=200)
        line = line.mark_line(color=PAGE_COLOUR, point={"color": PAGE_COLOUR})
        parts.append(line.encode(x, alt.Y("churn:Q", title="churn, % of tokens").scale(domain=[0, 100])))
    low, high = frame["loss"].min(), frame["loss"].max()
    words = f"Training loss by iteration, one line per trial, from {high:.2f} down to {low:.2f} nats"
    return alt.hconcat(*parts).properties(description=words)
