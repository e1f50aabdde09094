"""Prediction difference while models are trained, and between runs of different length that each decayed fully.

From the predictions that every trial keeps at log-spaced steps, for every 16th evaluation block."""

# A snapshot of a long run and the end of a short one are not the same thing: the learning rate of the short run has gone down
# to zero. So both stand side by side, over steps and over the loss reached.

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from repro_lib.analysis import slices
from repro_lib.analysis.once import once
from repro_lib.analysis.selection import with_other
from repro_lib.analysis.study import Study
from repro_lib.metrics import prediction_difference as metrics
from repro_lib.metrics.uncertainty import Float64, jackknife_pairwise, mean_interval, without_each
from repro_lib.store.predictions import Snapshots
from repro_lib.store.schema import Result, ResultError
from repro_lib.store.store import Store

# The measures followed through training.
FOLLOWED = slices.SLICE_METRICS
# Trials count as parted from the step on after which they always predict another character for five in a hundred. Before
# any training that is so for nearly all characters; learning their frequencies brings the trials together first.
PARTED = 0.05


@dataclass(frozen=True, eq=False)
class Trajectory:
    """One cell through training.
    ``steps``: S iterations after which predictions were kept, the last being the end. ``losses``: (S, N) in nats on the
    kept text. ``matrices``: per metric of ``FOLLOWED`` (S, N, N)."""

    result: Result
    steps: tuple[int, ...]
    losses: Float64
    matrices: dict[str, Float64]

    @property
    def activation(self) -> str:
        """The activation of the cell."""
        return self.result.arm

    @property
    def n(self) -> int:
        """Number of trials."""
        return self.losses.shape[1]

    @property
    def max_iters(self) -> int:
        """Length of the run."""
        return self.steps[-1]

    @once
    def frame(self) -> pd.DataFrame:
        """One row per kept step: step, n, loss and each metric with _low and _high (over trials)."""
        rows = []
        for k, step in enumerate(self.steps):
            row = {"step": step, "n": self.n} | mean_interval(self.losses[k]).columns("loss")
            for name in FOLLOWED:
                row |= jackknife_pairwise(self.matrices[name][k], metrics.PAIR_METRICS[name].largest).columns(name)
            rows.append(row)
        return pd.DataFrame(rows)

    def parted_at(self) -> int | None:
        """The first kept step from which on churn stays above ``PARTED``; None if it ends below."""
        churn = [without_each(matrix)[0] for matrix in self.matrices["churn"]]
        together = [k for k, value in enumerate(churn) if value <= PARTED]
        first = together[-1] + 1 if together else 0
        return self.steps[first] if first < len(self.steps) else None


def trajectory(store: Store, result: Result) -> Trajectory:
    """Follow the trials of a cell through training. ResultError below 2 trials, or where kept predictions are missing."""
    if len(result.trials) < 2:
        raise ResultError(f"disagreement needs two trials, {result.model_name} with {result.arm} has one")
    # A figure, a sentence and a what-if ask for the same ones.
    found, digests = vars(store).setdefault("_trajectories", {}), tuple(record.steps_sha256 for record in result.trials)
    if None in digests or digests not in found:
        kept = [store.snapshots(result, record.trial) for record in result.trials]
        if len({snapshots.steps for snapshots in kept}) > 1:
            raise ResultError(f"the trials of {result.model_name} with {result.arm} kept predictions at different steps")
        found[digests] = kept[0].steps, *_followed(kept)
    return Trajectory(result, *found[digests])


def load_trajectories(store: Store, study: Study, model: str) -> tuple[list[Trajectory], list[str]]:
    """Of every activation of a model that can be followed; and a sentence for each that cannot."""
    results = {name: study.result(model, name) for name in study.activations}
    followed, gaps = follow(store, filter(None, results.values()))
    return followed, [*gaps, *(f"{model} with {name} is missing." for name, result in results.items() if result is None)]


def follow(store: Store, results: Iterable[Result]) -> tuple[list[Trajectory], list[str]]:
    """Those of these results whose kept predictions are at hand; and a sentence for each of the others."""
    followed, gaps = [], []
    for result in results:
        try:
            followed.append(trajectory(store, result))
        except ResultError as problem:
            gaps.append(f"{result.model_name} with {result.arm} cannot be followed: {problem}.")
    return followed, gaps


def other_lengths(store: Store, stored: Sequence[Result], result: Result) -> list[Trajectory]:
    """Runs among ``stored`` that differ from ``result`` in length alone, the shortest first, the newest of each length.
    Runs whose kept predictions are gone are left out."""
    # Stored results come oldest first.
    return follow(store, with_other("max_iters", stored, result))[0]


def parting_sentence(followed: Sequence[Trajectory]) -> str:
    """When the trials of each activation part."""
    if not followed:
        return "No cell can be followed through training."
    parts = []
    for cell in followed:
        step = cell.parted_at()
        when = "never" if step is None else "from the start" if step == cell.steps[0] else f"from step {step}"
        parts.append(f"{cell.activation} {when}")
    steps, n = ", ".join(map(str, followed[0].steps)), min(cell.n for cell in followed)
    apart = f"More than {100 * PARTED:.0f} % of the trials' most probable characters differ for good"
    return f"{apart}: {'; '.join(parts)} (looked at: steps {steps}; N = {n} trials)."


def _followed(kept: Sequence[Snapshots]) -> tuple[Float64, dict[str, Float64]]:
    """Losses (S, N) and, per metric, (S, N, N)."""
    steps, n = len(kept[0].steps), len(kept)
    losses, found = np.zeros((steps, n)), {name: np.zeros((math.comb(n, 2), steps)) for name in FOLLOWED}
    # Step by step, so that N float64 arrays (tokens, V) are in memory and not S times as many.
    for step in range(steps):
        losses[step] = [metrics.cross_entropy(trial.logits[step], trial.labels) for trial in kept]
        probabilities = metrics.probabilities_from_logits([trial.logits[step] for trial in kept])
        for name, values in slices.by_token(probabilities, probabilities.argmax(axis=2)).items():
            found[name][:, step] = values.mean(axis=1)
    return losses, {name: slices.pair_matrices(values, n) for name, values in found.items()}
