"""What the leading metrics count: which characters of the vocabulary, and how far trials are from what knows no context.

Over the k most frequent characters of the training text a metric takes these entries of the vocabulary alone, at every place
of the evaluation text: relative PD is their mean, total variation their sum.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from repro_lib.analysis.contrasts import REFERENCE
from repro_lib.analysis.formatting import number, unbroken
from repro_lib.analysis.notes import Note
from repro_lib.analysis.slices import share_held
from repro_lib.analysis.stored_models import corpus_of
from repro_lib.analysis.study import Study, pair_matrix
from repro_lib.data import CorpusError, make_dataset
from repro_lib.metrics.all_pairs import Counted, count_by_character, kl_to_predictor, unanimity
from repro_lib.metrics.given import Float64
from repro_lib.metrics.prediction_difference import PAIR_METRICS, probabilities_from_logits
from repro_lib.metrics.uncertainty import TRIALS_FOR_INTERVAL, Estimate, jackknife_pairwise, relative_contrast
from repro_lib.store.schema import Result, ResultError
from repro_lib.store.store import Store

LEADING = ("relative_pd", "total_variation")


@dataclass(frozen=True, eq=False)
class CountedCell:
    """A cell's two leading metrics by character, the most frequent of the training text first; ``table``: its other numbers."""

    activation: str
    counted: Counted
    table: dict[str, str]

    @property
    def n(self) -> int:
        """Number of trials."""
        return len(self.counted.improbable)

    def over(self, metric: str, k: int) -> Float64:
        """One of ``LEADING`` between all trials, (N, N), over the k most frequent characters."""
        return getattr(self.counted, metric)[:k].sum(axis=0) / (k if metric == "relative_pd" else 1)

    def estimate(self, metric: str, k: int) -> Estimate:
        """Its mean over the pairs with its jackknife interval."""
        return jackknife_pairwise(self.over(metric, k), PAIR_METRICS[metric].largest)

    def against(self, reference: "CountedCell", metric: str, k: int) -> Estimate:
        """By how many per cent it is above that of the reference, seed k leaving both; of the seeds that both have."""
        n = min(self.n, reference.n)
        return relative_contrast(self.over(metric, k)[:n, :n], reference.over(metric, k)[:n, :n], paired=True)


@dataclass(frozen=True, eq=False)
class CountedModel:
    """The cells of a model that could be read, whether they are bit-``identical``, and a sentence for each that could not."""

    model: str
    cells: tuple[CountedCell, ...]
    identical: bool
    gaps: tuple[str, ...] = ()

    @property
    def steps(self) -> tuple[int, ...]:
        """The k of a curve: 10, 15, ... up to the whole vocabulary."""
        vocabulary = len(self.cells[0].counted.relative_pd) if self.cells else 0
        return (*range(10, vocabulary, 5), vocabulary)

    def compared(self) -> Iterator[tuple[CountedCell, CountedCell]]:
        """Each cell with that of relu; none where relu's is missing or all are bit-identical."""
        reference = [cell for cell in self.cells if cell.activation == REFERENCE and not self.identical]
        return ((cell, reference[0]) for cell in self.cells if reference and cell is not reference[0])

    @cached_property
    def curves(self) -> pd.DataFrame:
        """The contrasts with relu: activation, metric, k, n, per_cent with _low and _high (95 % jackknife)."""
        rows = [
            {"activation": cell.activation, "metric": metric, "k": k, "n": min(cell.n, relu.n)}
            | cell.against(relu, metric, k).columns("per_cent")
            for (cell, relu), metric, k in product(self.compared(), LEADING, self.steps)
        ]
        return pd.DataFrame(rows, columns=["activation", "metric", "k", "n", "per_cent", "per_cent_low", "per_cent_high"])

    def table(self) -> pd.DataFrame | Note:
        """A row per activation: agreement of all trials, KL beside its reference lines, what improbable characters make."""
        if not self.cells:
            return Note(f"No cell of {self.model} has predictions of two trials to count.")
        return pd.DataFrame({cell.activation: {"N": cell.n} | cell.table for cell in self.cells}).T

    def sentences(self) -> list[str]:
        """For each activation what its contrast is over all characters and over the fewest, and whether its sign stays."""
        said = []
        for activation, rows in self.curves.groupby("activation", sort=False):
            parts = []
            for metric, curve in rows.groupby("metric", sort=False):
                all_of_them, fewest = (Estimate.in_row(curve.iloc[end], "per_cent") for end in (-1, 0))
                turns = curve["per_cent"].min() < 0 < curve["per_cent"].max()
                parts.append(
                    f"{PAIR_METRICS[str(metric)].words} {all_of_them:+z.1f %} over all {curve['k'].iloc[-1]} characters, "
                    f"{fewest:+z.1f %} over the {curve['k'].iloc[0]} most frequent"
                    + (" (the sign of the estimate changes with k)" if turns else "")
                )
            n = int(rows["n"].iloc[0])
            interval = "95 % intervals" if n >= TRIALS_FOR_INTERVAL else "no interval"
            said.append(f"{self.model}: {activation} against relu: {'; '.join(parts)} (N = {n}, {interval}).")
        why = (
            "is bit-identical with every activation" if self.identical else "needs relu and another activation with two trials"
        )
        return said or [f"No contrast over the most frequent characters: {self.model} {why}."]


def count_model(store: Store, study: Study, model: str) -> CountedModel:
    """Every cell of a model with at least two trials, counted by character from its stored predictions."""
    results = [result for result in study.results if result.model_name == model and len(result.trials) > 1]
    cells, gaps, shares = [], [], None
    for result in results:
        try:
            # Comparable results share their text.
            shares = shares_in_training(result) if shares is None else shares
            logits = [store.predictions(result, trial.trial).logits for trial in result.trials]
        except (ResultError, CorpusError) as problem:
            gaps.append(f"{model} with {result.activation}: {problem}.")
            continue
        counted = count(logits, shares, probabilities_from_logits)
        cells.append(CountedCell(result.activation, counted, _about(result, counted, logits, shares)))
    return CountedModel(model, tuple(cells), model in study.identical, tuple(gaps))


def shares_in_training(result: Result) -> Float64:
    """(V,) the share of each character in the training text; CorpusError if it is not here or has changed."""
    dataset = make_dataset(corpus_of(result), result.config["train_split"], result.config["block_size"])
    # Counts start at one, as those of the unigrams' loss: a character that training lacks has no infinite divergence.
    counts = np.bincount(dataset.train.numpy(), minlength=dataset.vocab_size) + 1
    return counts / counts.sum()


def count(models: Sequence[Any], shares: Float64, probabilities_of: Any = np.asarray) -> Counted:
    """``count_by_character``, the most frequent character first; ``shares`` (V,) in the training text."""
    order = np.argsort(-shares, kind="stable")
    found = count_by_character(models, probabilities_of)
    return Counted(found.relative_pd[order], found.total_variation[order], found.improbable)


def _about(result: Result, counted: Counted, logits: Sequence[Any], shares: Float64) -> dict[str, str]:
    trials = [probabilities_from_logits(one) for one in logits]
    divergence = jackknife_pairwise(pair_matrix(result, "kl_divergence"))
    held = share_held(counted.improbable, counted.relative_pd.mean(axis=0), 1.0).scaled(100)
    predictors = {"to the unigrams": shares, "to the uniform": np.full_like(shares, 1 / len(shares))}
    return {
        "All trials agree, %": number(100 * unanimity(trials), 1),
        "KL between trials, nats": unbroken(f"{divergence:.4f}"),
        **{head: number(float(np.mean(kl_to_predictor(trials, q))), 3) for head, q in predictors.items()},
        "Relative PD from under 0.0001, %": unbroken(f"{held:.1f}"),
    }
