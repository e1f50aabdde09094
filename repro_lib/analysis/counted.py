"""What the leading metrics count: which characters of the vocabulary, and how far trials are from what knows no context.

Over the k most frequent characters of the training text a metric takes these entries of the vocabulary alone, at every place
of the evaluation text: relative PD is their mean, total variation their sum."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from repro_lib.analysis.contrasts import LEADING
from repro_lib.analysis.formatting import number
from repro_lib.analysis.frames import pair_matrix
from repro_lib.analysis.notes import Note
from repro_lib.analysis.slices import share_held
from repro_lib.analysis.stored_models import training_counts
from repro_lib.analysis.study import Study
from repro_lib.data import CorpusError
from repro_lib.metrics.all_pairs import Counted, count_by_character, kl_to_predictor, over_parts, unanimity
from repro_lib.metrics.given import Float64
from repro_lib.metrics.prediction_difference import PAIR_METRICS, probabilities_from_logits
from repro_lib.metrics.uncertainty import TRIALS_FOR_INTERVAL, Estimate, jackknife_pairwise, relative_contrast
from repro_lib.store.schema import Result, ResultError
from repro_lib.store.store import Store


@dataclass(frozen=True, eq=False)
class CountedModel:
    """The ``cells`` of a model by activation, characters in the order of their frequency; ``gaps``: why others are left out."""

    model: str
    cells: dict[str, Counted]
    identical: bool
    reference: str
    gaps: tuple[str, ...] = ()

    @property
    def steps(self) -> tuple[int, ...]:
        """The k of a curve: 10, 15, ... up to the whole vocabulary, of a large one 100 in equal ratios."""
        vocabulary = max((len(cell.relative_pd) for cell in self.cells.values()), default=0)
        if vocabulary <= 500:
            return (*range(10, vocabulary, 5), vocabulary)
        return tuple(dict.fromkeys(np.geomspace(10, vocabulary, 100).round().astype(int).tolist()))

    @property
    def compared(self) -> list[str]:
        """The activations that are compared with the reference; none where that is missing or all are bit-identical."""
        there = self.reference in self.cells and not self.identical
        return [name for name in self.cells if there and name != self.reference]

    def over(self, activation: str, metric: str, k: int) -> Float64:
        """One of ``LEADING`` between all trials, (N, N), over the k most frequent characters."""
        return getattr(self.cells[activation], metric)[:k].sum(axis=0) / (k if metric == "relative_pd" else 1)

    def against(self, activation: str, metric: str, k: int) -> Estimate:
        """By how many per cent it is above the reference's, each seed leaving both at once; of the seeds that both have."""
        first, second = (self.over(name, metric, k) for name in (activation, self.reference))
        n = min(len(first), len(second))
        return relative_contrast(first[:n, :n], second[:n, :n])

    @cached_property
    def curves(self) -> pd.DataFrame:
        """The contrasts with the reference: activation, metric, k, n, per_cent with _low and _high (95 % jackknife)."""
        rows = []
        for name, metric, k in product(self.compared, LEADING, self.steps):
            found = self.against(name, metric, k)
            rows.append({"activation": name, "metric": metric, "k": k, "n": found.n} | found.columns("per_cent"))
        return pd.DataFrame(rows)

    def sentences(self) -> list[str]:
        """For each activation what its contrast is over all characters and over the fewest, and whether its sign stays."""
        if not self.compared:
            needs = f"needs {self.reference} and another activation, each twice"
            why = "is bit-identical with every activation" if self.identical else needs
            return [f"No contrast over the most frequent characters: {self.model} {why}."]
        said = []
        for name, rows in self.curves.groupby("activation", sort=False):
            parts, n = [], rows["n"].iloc[0]
            for metric, curve in rows.groupby("metric", sort=False):
                fewest, whole = (Estimate.in_row(curve.iloc[end], "per_cent") for end in (0, -1))
                turns = " (the sign changes with k)" if curve["per_cent"].min() < 0 < curve["per_cent"].max() else ""
                few = f"{fewest:+z.1f %} over the {curve['k'].iloc[0]} most frequent characters{turns}"
                parts.append(f"{PAIR_METRICS[str(metric)].words} {few}, {whole.value:+z.1f} % over all {self.steps[-1]}")
            interval = "95 % intervals" if n >= TRIALS_FOR_INTERVAL else "no interval"
            said.append(f"{self.model}: {name} against {self.reference}: {'; '.join(parts)} (N = {n}, {interval}).")
        return said


def count_model(store: Store, study: Study, model: str) -> tuple[CountedModel, pd.DataFrame | Note]:
    """Every cell of a model with two trials or more, from its stored predictions; and for people a row per activation:
    how often all trials agree, KL beside its reference lines, what improbable characters make of relative PD."""
    cells, rows, gaps, shares = {}, {}, [], None
    for result in (result for result in study.results if result.model_name == model and len(result.trials) > 1):
        try:
            # Comparable results share their text.
            shares = shares_in_training(result) if shares is None else shares
            logits = [store.predictions(result, trial.trial).logits for trial in result.trials]
        except (ResultError, CorpusError) as problem:
            gaps.append(f"{model} with {result.arm}: {problem}.")
            continue
        counted = cells[result.arm] = count_by_character(logits, shares, probabilities_from_logits)
        rows[result.arm] = _row(result, counted, logits, shares)
    table = pd.DataFrame(rows).T if rows else Note(f"No cell of {model} has predictions of two trials to count.")
    return CountedModel(model, cells, model in study.identical, study.reference, tuple(gaps)), table


def shares_in_training(result: Result) -> Float64:
    """(V,) the share of each character in the training text; CorpusError if it is not here or has changed."""
    # Counts start at one, as those of the unigrams' loss: a character that training lacks has no infinite divergence.
    counts = training_counts(result)[1] + 1
    return counts / counts.sum()


def _row(result: Result, counted: Counted, logits: Sequence[Any], shares: Float64) -> dict[str, Any]:
    uniform = np.full_like(shares, 1 / len(shares))
    to_both = (lambda part, known=known: float(kl_to_predictor(part, known).mean()) for known in (shares, uniform))
    agree, to_unigrams, to_uniform = over_parts(logits, probabilities_from_logits, unanimity, *to_both)
    held = share_held(counted.improbable, counted.relative_pd.mean(axis=0), 1.0).scaled(100)
    return {
        "N": len(logits),
        "All trials agree, %": number(100 * agree, 1),
        "KL between trials, nats": f"{jackknife_pairwise(pair_matrix(result, 'kl_divergence')):.4f}",
        "to the unigrams": number(to_unigrams, 3),
        "to the uniform": number(to_uniform, 3),
        "Relative PD from under 0.0001, %": f"{held:.1f}",
    }
