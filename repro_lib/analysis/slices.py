"""Where the trials of one cell disagree, slice by slice of the evaluation text: pure functions of arrays.

Shapes: N trials, P = N (N - 1) / 2 pairs of them in the order (1, 2), (1, 3), ..., V characters, S slices. The values of the
slices, weighted by their characters, add up to the metric of the cell. Intervals are conditional on text and slicing."""

import math
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from repro_lib.data import EVALUATION_BLOCK
from repro_lib.metrics import prediction_difference as metrics
from repro_lib.metrics.churn_and_influence import jackknife_ratio
from repro_lib.metrics.uncertainty import Estimate, Float64, jackknife_pairwise, mean_interval, without_each
from repro_lib.store.predictions import Predictions, check_same_windows
from repro_lib.store.schema import ResultError

Int64 = NDArray[np.int64]
# The measures that are shown by slice. ``metrics`` has more; these three are a mean over characters of something simple.
SLICE_METRICS = ("relative_pd", "total_variation", "churn")

# Shares of the training text. Characters of the first two bins are called rare.
FREQUENCY_EDGES = (0.001, 0.01, 0.02, 0.05)
FREQUENCY_SLICES = ("under 0.1 %", "0.1 to 1 %", "1 to 2 %", "2 to 5 %", "5 % and more")
RARE = FREQUENCY_SLICES[:2]
# Mean over the trials of the largest probability. In the first two bins no character has half of it: uncertain.
CONFIDENCE_EDGES = (0.25, 0.5, 0.75, 0.9)
CONFIDENCE_SLICES = ("under 0.25", "0.25 to 0.5", "0.5 to 0.75", "0.75 to 0.9", "0.9 and more")
UNCERTAIN = CONFIDENCE_SLICES[:2]
CLASSES = ("lower case", "upper case", "space", "line end", "punctuation", "digit")


@dataclass(frozen=True)
class PairedTrials:
    """What the pairs of N >= 2 trials do at every evaluation character.

    ``labels`` (tokens,): the true characters' ids. ``top1`` (N, tokens): the most probable character of each trial.
    ``confidence`` (tokens,): the largest probability, mean over the trials. ``differences``: for each of ``SLICE_METRICS``
    an array (P, tokens); the mean of a row is the metric of that pair."""

    labels: Int64
    vocab_size: int
    top1: Int64
    confidence: Float64
    differences: dict[str, Float64]

    @property
    def n(self) -> int:
        """Number of trials N."""
        return len(self.top1)

    @property
    def errors(self) -> NDArray[np.bool_]:
        """(N, tokens): whether the most probable character is not the true one."""
        return self.top1 != self.labels

    def mean(self, metric: str) -> Float64:
        """(tokens,): one of ``SLICE_METRICS``, mean over the pairs."""
        return self.differences[metric].mean(axis=0)

    def typical_block(self) -> int:
        """The block of 256 characters whose total variation is the median one: neither the best nor the worst."""
        blocks = len(self.labels) // EVALUATION_BLOCK
        means = self.mean("total_variation")[: blocks * EVALUATION_BLOCK].reshape(blocks, EVALUATION_BLOCK).mean(axis=1)
        return int(np.argsort(means, kind="stable")[(blocks - 1) // 2])

    def sentence(self) -> str:
        """How the disagreement is spread over the text, in words."""
        # At least one character, and no division by 0 where the trials are all alike.
        ranked = np.sort(self.mean("total_variation"))[::-1]
        tenth = ranked[: max(1, len(ranked) // 10)].sum() / max(ranked.sum(), np.finfo(float).tiny)
        return (
            f"For {100 * np.mean(self.mean('churn') > 0):.1f} % of the {len(ranked):,} evaluation characters the trials do not "
            "all have the same most probable character; the tenth of the characters with the most disagreement holds "
            f"{100 * tenth:.0f} % of the total variation."
        )


@dataclass(frozen=True)
class Slicing:
    """By ``name``, the evaluation characters belong to one of S ``slices`` each; ``members`` (tokens,): to which, from 0."""

    name: str
    slices: tuple[str, ...]
    members: Int64

    def means(self, values: Float64) -> Float64:
        """(rows, tokens) -> (rows, S): the mean of each row over each slice, NaN for a slice without characters."""
        counts = self.counts.astype(np.float64)
        sums = np.array([np.bincount(self.members, weights=row, minlength=len(self.slices)) for row in values])
        return np.divide(sums, counts, out=np.full_like(sums, math.nan), where=counts > 0)

    @property
    def counts(self) -> Int64:
        """(S,): how many characters each slice has."""
        return np.bincount(self.members, minlength=len(self.slices))


def pair_trials(trials: Sequence[Predictions]) -> PairedTrials:
    """Compare every pair of N >= 2 trials at every character, in one pass over the text.
    ResultError for fewer trials or different evaluation windows; ``Store.predictions`` has looked at the rest."""
    if len(trials) < 2:
        raise ResultError(f"disagreement needs two trials, there is {len(trials)}; run the cell with --trials 3")
    check_same_windows(*trials)
    n, (tokens, vocab_size), labels = len(trials), trials[0].logits.shape, trials[0].labels
    top1, confidence = np.empty((n, tokens), dtype=np.int64), np.empty(tokens)
    differences = {name: np.empty((math.comb(n, 2), tokens)) for name in SLICE_METRICS}
    for part in parts(tokens, vocab_size):
        probabilities = metrics.probabilities_from_logits([trial.logits[part] for trial in trials])  # (N, part, V)
        top1[:, part] = probabilities.argmax(axis=2)
        confidence[part] = probabilities.max(axis=2).mean(axis=0)
        for name, values in by_token(probabilities, top1[:, part]).items():
            differences[name][:, part] = values
    return PairedTrials(labels, vocab_size, top1, confidence, differences)


def by_token(probabilities: Float64, top1: Int64) -> dict[str, Float64]:
    """``SLICE_METRICS`` of every pair at every character, (P, tokens), from (N, tokens, V) and its ``argmax`` (N, tokens)."""
    # Every pair of the trials of a part while it is in the cache, and in place: fresh arrays would take as long again.
    difference, total = np.empty(probabilities.shape[1:]), np.empty(probabilities.shape[1:])
    variation, relative, churn = [], [], []
    for i, j in combinations(range(len(probabilities)), 2):
        np.abs(np.subtract(probabilities[i], probabilities[j], out=difference), out=difference)
        variation.append(difference.sum(axis=1) / 2)
        # 0/0 is 0.
        np.maximum(np.add(probabilities[i], probabilities[j], out=total), np.finfo(np.float64).tiny, out=total)
        relative.append(2 * np.divide(difference, total, out=difference).mean(axis=1))
        churn.append((top1[i] != top1[j]).astype(np.float64))
    return dict(zip(("total_variation", "relative_pd", "churn"), map(np.array, (variation, relative, churn)), strict=True))


def parts(tokens: int, vocab_size: int = 1024) -> Iterator[slice]:
    """Slices of 512 tokens, of a large vocabulary fewer: the probabilities of two trials of so many fit into a cache."""
    step = min(512, max(1, 512 * 1024 // vocab_size))
    return (slice(start, start + step) for start in range(0, tokens, step))


def by_frequency(labels: Int64, frequencies: Float64) -> Slicing:
    """By how frequent the true character is in the training text. ``frequencies`` (V,): shares that add up to 1."""
    return Slicing("frequency", FREQUENCY_SLICES, np.digitize(frequencies[labels], FREQUENCY_EDGES))


def by_context(tokens: int, block_size: int) -> Slicing:
    """By how many characters the model was given before the true one, in slices that double: 1, 2, 3 to 4, 5 to 8, ...
    The most it can be given: a convolutional model may look back less far."""
    # The text is read in blocks of 256 characters, and each in pieces of at most ``block_size`` (``EvaluationWindows.pieces``):
    # nothing is carried over, so the context starts at 1 again in every piece.
    longest = min(block_size, EVALUATION_BLOCK)
    given = np.arange(tokens) % EVALUATION_BLOCK % longest + 1
    lows = [1] + [2**k + 1 for k in range((longest - 1).bit_length())]  # 1, 2, 3, 5, 9, ...
    highs = [*(low - 1 for low in lows[1:]), longest]
    names = tuple(str(low) if low == high else f"{low} to {high}" for low, high in zip(lows, highs, strict=True))
    return Slicing("context", names, np.digitize(given, lows[1:]))


def by_confidence(confidence: Float64) -> Slicing:
    """By the model's own confidence: its largest probability, mean over the trials (tokens,)."""
    return Slicing("confidence", CONFIDENCE_SLICES, np.digitize(confidence, CONFIDENCE_EDGES))


def by_class(labels: Int64, vocabulary: Sequence[str]) -> Slicing:
    """By what kind of token the true one is; kinds beside ``CLASSES`` are there only where the text has such a token."""
    # The class of each token of the vocabulary, looked up for every label.
    kinds = [character_class(token) for token in vocabulary]
    names = (*CLASSES, *sorted({kinds[label] for label in np.unique(labels)} - {*CLASSES}))
    places = {name: place for place, name in enumerate(names)}
    return Slicing("class", names, np.array([places.get(kind, 0) for kind in kinds])[labels])


def character_class(token: str) -> str:
    """The kind of a character, or of a longer token's first one behind spaces: one of ``CLASSES``, the script of a letter
    without case (``hebrew letter``, ``cjk letter``), ``combining mark``, ``part of a character`` or ``other``."""
    # In this order: a line end is a space too, and what is none of these is told by its Unicode category.
    if len(token) == 4 and token.startswith("\\x"):
        return "part of a character"
    if (character := (token.lstrip(" ") or " ")[0]) == "\n":
        return "line end"
    kinds = {"space": str.isspace, "digit": str.isdigit, "lower case": str.islower, "upper case": str.isupper}
    if found := next((kind for kind, belongs in kinds.items() if belongs(character)), None):
        return found
    category = unicodedata.category(character)
    if category == "Lo":
        return f"{unicodedata.name(character, 'other').split()[0].lower()} letter"
    return {"P": "punctuation", "S": "punctuation", "M": "combining mark"}.get(category[0], "other")


def slice_frame(paired: PairedTrials, slicing: Slicing) -> pd.DataFrame:
    """One row per slice of one slicing, in its order; numbers of a slice without characters are NaN.

    Columns: slicing, slice, n (characters), share (of all characters); each of ``SLICE_METRICS``, error (rate, mean over the
    trials) and held (share of the cell's total variation that lies in the slice), with ``_low`` and ``_high``."""
    counts = slicing.counts
    # All slices of a metric at once: (N, S) and (S, N, N).
    errors = slicing.means(paired.errors.astype(np.float64))
    matrices = {name: pair_matrices(slicing.means(values), paired.n) for name, values in paired.differences.items()}
    whole = pair_matrices(paired.differences["total_variation"].mean(axis=1, keepdims=True), paired.n)[0]
    rows = []
    for k, name in enumerate(slicing.slices):
        row = {"slicing": slicing.name, "slice": name, "n": int(counts[k]), "share": counts[k] / len(slicing.members)}
        estimates = {m: jackknife_pairwise(values[k], metrics.PAIR_METRICS[m].largest) for m, values in matrices.items()}
        estimates["error"] = mean_interval(errors[:, k], 0.0, 1.0)
        estimates["held"] = share_held(matrices["total_variation"][k], whole, row["share"])
        for column, estimate in estimates.items():
            row |= estimate.columns(column)
        rows.append(row)
    return pd.DataFrame(rows)


def merged_slices(slicing: Slicing, chosen: Sequence[str], name: str) -> Slicing:
    """Two slices: ``name``, which is the ``chosen`` ones together, and ``the others``."""
    inside = np.isin(slicing.members, [slicing.slices.index(one) for one in chosen])
    return Slicing(slicing.name, (name, "the others"), np.where(inside, 0, 1))


def share_held(part: ArrayLike, whole: ArrayLike, share: float) -> Estimate:
    """The share of a pairwise metric, 0 to 1, that a slice with ``share`` of the characters holds; (N, N) of slice and cell.
    NaN where trials do not differ at all; 0 for a slice without characters."""
    if share == 0:
        return Estimate(0.0, math.nan, math.nan, len(np.asarray(whole)))
    value, without = without_each(part)
    return jackknife_ratio((share * value, share * without), without_each(whole), 1.0)


def swapped_pairs(paired: PairedTrials, top: int = 10) -> pd.DataFrame:
    """The characters that two trials most often put in each other's place: the ``top`` unordered pairs of top-1s.
    Columns: first, second (ids, first < second), count (of characters x pairs of trials), share (of all swaps)."""
    v = paired.vocab_size
    ordered = [np.sort(pair, axis=0) for pair in combinations(paired.top1, 2)]
    pairs, counts = np.unique(np.concatenate([(low * v + high)[low < high] for low, high in ordered]), return_counts=True)
    # Stable, so that of equally frequent swaps the same ones are shown on every machine.
    order = np.argsort(-counts, kind="stable")[:top]
    first, second = np.divmod(pairs[order], v)
    share = counts[order] / max(counts.sum(), 1)
    return pd.DataFrame({"first": first, "second": second, "count": counts[order], "share": share})


def pair_matrices(per_pair: Float64, n: int) -> Float64:
    """(P, S) -> (S, N, N), symmetric with a zero diagonal."""
    # The order of ``combinations`` is that of the upper triangle.
    matrices = np.zeros((per_pair.shape[1], n, n))
    rows, columns = np.triu_indices(n, k=1)
    matrices[:, rows, columns] = matrices[:, columns, rows] = per_pair.T
    return matrices
