"""What if one predicted with the average of several trials? Prediction difference between averages, from stored predictions.

An average of k trained models is compared with the average of k others; nothing is trained for it."""

import math
from functools import cache

import numpy as np

from repro_lib.analysis.notes import Note
from repro_lib.analysis.slices import parts
from repro_lib.metrics.prediction_difference import PAIR_METRICS, relative_differences
from repro_lib.metrics.uncertainty import Estimate, jackknife_left_out
from repro_lib.models.determinism import deterministic_arithmetic
from repro_lib.whatif.definition import WhatIf, control
from repro_lib.whatif.predictions import Floats, ModelLogits, Numbers, StoredPredictions, of_predictions
from repro_lib.whatif.wording import alone, lowest_and_highest, ranking, trial_counts

# Two groups of one trial each need 2 trials, of two each 4: below that there is nothing to average.
LEAST_TRIALS = 4
# More ways to choose two groups than this are sampled.
MOST_SPLITS = 45

Split = tuple[tuple[int, ...], tuple[int, ...]]


def ensembles_what_if(predictions: StoredPredictions) -> WhatIf | Note:
    """Relative PD between averages of k trials, k = 1 ... N / 2. Needs N >= ``LEAST_TRIALS``."""
    measured = cache(lambda model: by_group_size(predictions.of(model)))
    counts = [cell.n for model in predictions.models(LEAST_TRIALS) for cell in predictions.of(model).cells]

    def see(read: ModelLogits, model: str, k: int) -> tuple[Numbers, str]:
        by_size = measured(model)
        found = {name: sizes[k - 1] if k <= len(sizes) else alone(math.nan) for name, sizes in by_size.items()}
        return {"Relative PD between averages": found}, _sentence(read, model, k, by_size)

    parameter = control("k", "Trials averaged", range(1, max(counts, default=2) // 2 + 1))
    title = "What if one predicted with the average of several trials?"
    return of_predictions("ensembles", title, predictions, parameter, see, "too few trials", LEAST_TRIALS, along="k")


@deterministic_arithmetic()
def by_group_size(read: ModelLogits) -> dict[str, list[Estimate]]:
    """By activation ``difference_of_averages`` for each k from 1 on for which there are trials enough."""
    cells = {cell.activation: cell.probabilities() for cell in read.cells}
    return {name: [difference_of_averages(p, k) for k in range(1, len(p) // 2 + 1)] for name, p in cells.items()}


def _ways(trials: int, k: int) -> int:
    return math.comb(trials, k) * math.comb(trials - k, k) // 2


def splits(trials: int, k: int) -> tuple[Split, ...]:
    """All ways to choose two groups of k of the trials, without regard to which is first; a sample if there are too many."""
    # A dictionary: each split once, in the order in which they were drawn.
    rng, drawn = np.random.default_rng(0), dict[Split, None]()
    while len(drawn) < min(_ways(trials, k), MOST_SPLITS):
        order = rng.permutation(trials)[: 2 * k].tolist()
        first, second = sorted((tuple(sorted(order[:k])), tuple(sorted(order[k:]))))
        drawn[first, second] = None
    return tuple(drawn)


def difference_of_averages(probabilities: Floats, k: int) -> Estimate:
    """Relative PD between averages of k of N trials, probabilities (N, tokens, V), mean over the ways to choose two groups.

    k = 1 is the PD of the cell. Each trial in turn is left out for the interval (the ways without it); there is none
    where every way needs all trials, or where the ways were sampled."""
    n, chosen = len(probabilities), splits(len(probabilities), k)
    values = np.array([_relative_pd(probabilities, split) for split in chosen])
    # Leaving a trial out of a sample of the ways would leave too few to tell its share from chance.
    if len(chosen) < _ways(n, k) or n - 1 < 2 * k:
        return Estimate(float(values.mean()), math.nan, math.nan, n)
    without = [values[[trial not in (*first, *second) for first, second in chosen]].mean() for trial in range(n)]
    return jackknife_left_out(float(values.mean()), np.array(without), 0.0, PAIR_METRICS["relative_pd"].largest)


def _relative_pd(probabilities: Floats, split: Split) -> float:
    tokens, total = probabilities.shape[1], 0.0
    for part in parts(tokens):
        p, q = (probabilities[list(group), part].mean(axis=0) for group in split)
        total += float(relative_differences(p, q).mean(axis=-1).sum(dtype=np.float64))
    return total / tokens


def _sentence(read: ModelLogits, model: str, k: int, by_size: dict[str, list[Estimate]]) -> str:
    estimates = {name: sizes[k - 1] for name, sizes in by_size.items() if k <= len(sizes)}
    if not estimates:
        counts = trial_counts(cell.n for cell in read.cells)
        return f"{model} has fewer than the {2 * k} trials per cell that averages of {k} need ({counts})."
    what = "single trials" if k == 1 else f"averages of {k} trials"
    words = f"The relative PD between {what} of {model} {read.where()} is {lowest_and_highest(estimates)}"
    if k > 1:
        best = ranking(estimates)[0]
        single = by_size[best][0].value
        saved = 100 * (1 - estimates[best].value / single) if single else 0.0
        words += f"; for {best} that is {saved:.0f} % less than between single trials"
    return read.told(f"{words}.", (estimate.n for estimate in estimates.values()))
