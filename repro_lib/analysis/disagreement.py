"""How much the trials of a cell disagree about each character of the evaluation text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from repro_lib.analysis.slices import comparable_trials
from repro_lib.data import EVALUATION_BLOCK
from repro_lib.metrics.prediction_difference import total_variation_by_token
from repro_lib.store.predictions import Predictions

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Disagreement:
    """How much the trials of a cell disagree about each evaluation character.

    ``labels``: (tokens,) the characters' ids. ``top1``: (tokens,) share of the pairs of trials whose most probable
    character differs; its mean is the churn. ``total_variation``: (tokens,) mean over the pairs; its mean is the metric.
    """

    labels: NDArray[np.int64]
    top1: Float64
    total_variation: Float64

    def typical_block(self) -> int:
        """The block of 256 characters whose total variation is the median one: neither the best nor the worst."""
        blocks = len(self.labels) // EVALUATION_BLOCK
        means = self.total_variation[: blocks * EVALUATION_BLOCK].reshape(blocks, EVALUATION_BLOCK).mean(axis=1)
        return int(np.argsort(means, kind="stable")[(blocks - 1) // 2])

    def sentence(self) -> str:
        """How the disagreement is spread over the text, in words."""
        # At least one character, and no division by 0 where the trials are all alike.
        ranked = np.sort(self.total_variation)[::-1]
        tenth = ranked[: max(1, len(ranked) // 10)].sum() / max(ranked.sum(), np.finfo(float).tiny)
        return (
            f"For {100 * np.mean(self.top1 > 0):.1f} % of the {len(self.top1):,} evaluation characters the trials do not all "
            "have the same most probable character; the tenth of the characters with the most disagreement holds "
            f"{100 * tenth:.0f} % of the total variation."
        )


def token_disagreement(predictions: Sequence[Predictions]) -> Disagreement:
    """Per-character disagreement between N >= 2 trials; ResultError for what ``comparable_trials`` refuses."""
    comparable_trials(predictions)
    labels = predictions[0].labels
    top1, total_variation, pairs = np.zeros(len(labels)), np.zeros(len(labels)), 0
    # Two trials in float64 at a time: ten of them, 65 characters wide, would be 85 MB for 16,384 tokens.
    for first, second in combinations(predictions, 2):
        p, q = first.probabilities, second.probabilities  # (tokens, V)
        top1 += p.argmax(axis=1) != q.argmax(axis=1)
        total_variation += total_variation_by_token(p, q)
        pairs += 1
    return Disagreement(labels, top1 / pairs, total_variation / pairs)
