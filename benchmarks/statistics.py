"""``python -m benchmarks.statistics``: what the rule for contrasts is worth, on simulated trials that differ as ours do.

Every trial of a cell has an effect of its own (node), every pair of trials some noise beside it (pair): PD of trials i and j =
mean x (1 + node_i + node_j + pair_ij). Both spreads are taken from ``published/results``, model by model. The rule is that of
``analysis.contrasts``, in arrays; ``tests/test_statistics.py`` compares the two.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import stdtr, stdtrit

from repro_lib.analysis.evidence import Evidence
from repro_lib.config import MARGIN
from repro_lib.metrics.cells import cv_beside_noise
from repro_lib.metrics.given import Float64
from repro_lib.metrics.hypothesis_tests import SIGNIFICANCE, holm
from repro_lib.metrics.uncertainty import CONFIDENCE

ACTIVATIONS = 5  # the first is relu
COUNTS = (10, 12, 20)
# What the effects of trials of one seed have in common where the seeds are shared: about what they have in the published study.
SHARED = 0.2
SPREADS = {
    "equal": (1, 1, 1, 1, 1), "2 x": (1, 2, 1, 2, 1), "4 x": (1, 4, 1, 4, 1), "4 x in relu": (4, 1, 1, 1, 1),
}  # fmt: skip
# Grids simulated at once, so that they fit into memory.
_AT_ONCE = 500


@dataclass(frozen=True)
class Design:
    """How trials of a grid differ.

    ``node``, ``pair``: standard deviations per model, shares of the mean; ``spread``: a factor to both, per activation;
    ``shared``: correlation of the effects of one seed; ``odd``: share of trials whose PD with all others is twice as large;
    ``effects``: true difference of each activation from relu, a share.
    """

    node: tuple[float, ...]
    pair: tuple[float, ...]
    spread: tuple[float, ...] = SPREADS["equal"]
    shared: float = 0.0
    odd: float = 0.0
    effects: tuple[float, ...] = (0.0,) * ACTIVATIONS


@dataclass(frozen=True)
class Judged:
    """Contrasts of simulated grids, (grids, models x activations but relu): what was measured and what the rule makes of it."""

    difference: Float64
    error: Float64
    p_holm: Float64
    p_equal: Float64

    supported = property(lambda self: self.p_holm <= SIGNIFICANCE)
    # As ``verdict_on_difference``: what is there is supported, however small.
    equal = property(lambda self: (self.p_equal <= SIGNIFICANCE) & ~self.supported)


def measured_spreads(evidence: Evidence, metric: str = "relative_pd") -> Design:
    """The spreads of trials and of pairs in a study, as shares of the mean: per model the mean variance of its activations."""
    found = []
    for model in evidence.candidates():
        parts = [node_and_pair(evidence.matrix(model, name, metric)) for name in evidence.activations]
        found.append(np.sqrt(np.mean(parts, axis=0)))
    node, pair = np.transpose(found)
    return Design(tuple(node.tolist()), tuple(pair.tolist()))


def node_and_pair(matrix: Float64) -> tuple[float, float]:
    """The two relative variances of one cell (N, N): of a trial's effect, 0 where the estimate is negative, and of a pair."""
    n = len(matrix)
    sums = matrix.sum(axis=1)
    mean = sums.sum() / (n * (n - 1))
    effects = (sums - sums.mean()) / (n - 2)
    rest = (matrix - mean - effects[:, None] - effects) / mean
    pair = float(np.square(rest[np.triu_indices(n, 1)]).sum() / (n * (n - 3) / 2))
    return max(float((effects / mean).var(ddof=1)) - pair / (n - 2), 0.0), pair


def simulate(rng: np.random.Generator, grids: int, n: int, design: Design) -> Float64:
    """The PD of all pairs of trials, (grids, models, activations, pairs), pairs in the order of ``np.triu_indices``."""
    first, second = np.triu_indices(n, 1)
    shape = grids, len(design.node), ACTIVATIONS
    # Per model and activation, and once more for what is within a cell.
    spread = np.array(design.spread)[:, None]
    node, pair = (np.array(of)[:, None, None] * spread for of in (design.node, design.pair))
    common = np.sqrt(design.shared) * rng.standard_normal((*shape[:2], 1, n))
    effects = node * (common + np.sqrt(1 - design.shared) * rng.standard_normal((*shape, n)))
    pd = 1 + effects[..., first] + effects[..., second] + pair * rng.standard_normal((*shape, len(first)))
    if design.odd:
        odd = rng.random((*shape, n)) < design.odd
        pd *= np.where(odd[..., first] | odd[..., second], 2, 1)
    return pd * (1 + np.array(design.effects)[:, None])


def means(pd: Float64, n: int) -> tuple[Float64, Float64]:
    """The mean of each cell (...,), and without each of its trials (..., N), from its pairs (..., pairs)."""
    first, second = np.triu_indices(n, 1)
    belongs = np.zeros((len(first), n))
    belongs[np.arange(len(first)), first] = belongs[np.arange(len(first)), second] = 1
    total = pd.sum(axis=-1)
    return total / len(first), (total[..., None] - pd @ belongs) / (len(first) - n + 1)


def judge(pd: Float64, n: int, margin: float = MARGIN / 100) -> Judged:
    """The rule: jackknife of the difference, seed by seed, its t test with Holm, two one-sided tests with Bonferroni."""
    whole, without = means(pd, n)

    def contrast(times: float) -> tuple[Float64, Float64]:
        value = whole[..., 1:] - times * whole[..., :1]
        error = jackknife_error(without[..., 1:, :] - times * without[..., :1, :])
        return value.reshape(len(value), -1), error.reshape(len(value), -1)

    (difference, error), (above, above_error), (below, below_error) = map(contrast, (1.0, 1 - margin, 1 + margin))
    p = 2 * stdtr(n - 1, -abs(difference) / error)
    p_equal = np.maximum(stdtr(n - 1, -above / above_error), stdtr(n - 1, below / below_error))
    return Judged(difference, error, holm(p), np.minimum(p_equal * p.shape[1], 1.0))


def jackknife_error(without: Float64) -> Float64:
    """The standard error of a number from its values without each seed, (..., N)."""
    n = without.shape[-1]
    return np.sqrt((n - 1) / n * np.square(without - without.mean(axis=-1, keepdims=True)).sum(axis=-1))


def judged_grids(rng: np.random.Generator, grids: int, n: int, design: Design) -> Judged:
    """``judge`` for many simulated grids."""
    parts = [judge(simulate(rng, min(_AT_ONCE, grids - k), n, design), n) for k in range(0, grids, _AT_ONCE)]
    names = ("difference", "error", "p_holm", "p_equal")
    return Judged(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


# --- what is measured: each yields rows of a table


def errors_and_coverage(rng: np.random.Generator, grids: int, design: Design) -> Iterator[tuple[str, ...]]:
    """The family's error and the coverage of 95 % intervals where nothing differs; and a cell's own coverage."""
    for name, spread in SPREADS.items():
        for seeds, shared, odd in (("separate", 0.0, 0.0), ("shared", SHARED, 0.0), ("separate, 10 % odd trials", 0.0, 0.1)):
            cells = []
            for n in (5, *COUNTS):
                of = replace(design, spread=spread, shared=shared, odd=odd)
                found = judged_grids(rng, grids, n, of)
                covered = (abs(found.difference) <= stdtrit(n - 1, (1 + CONFIDENCE) / 2) * found.error).mean()
                cells.append(f"{found.supported.any(axis=1).mean():.3f} / {covered:.3f}")
            yield (name, seeds, *cells)


def power(rng: np.random.Generator, grids: int, design: Design) -> Iterator[tuple[str, ...]]:
    """How often a true difference of one activation in every model is supported, and how often equal is said."""
    for effect in (0.0, 0.01, 0.02, 0.05, 0.10):
        cells = []
        for n in COUNTS:
            found = judged_grids(rng, grids, n, replace(design, effects=(0, effect, 0, 0, 0)))
            own = slice(0, None, ACTIVATIONS - 1)
            cells.append(f"{found.supported[:, own].mean():.2f} / {found.equal[:, own].mean():.2f}")
        yield (f"{100 * effect:.0f} %", *cells)


def equality_error(rng: np.random.Generator, grids: int, design: Design) -> Iterator[tuple[str, ...]]:
    """How often any of a family is called equal that lies at the margin, for all of it and for one activation a model."""
    for name, spread in list(SPREADS.items())[:3]:
        for side in (1, -1):
            cells = []
            for n in COUNTS:
                at = side * MARGIN / 100
                found = judged_grids(rng, grids, n, replace(design, spread=spread, effects=(0, at, at, at, at)))
                cells.append(f"{(found.p_equal <= SIGNIFICANCE).any(axis=1).mean():.3f}")
            yield (name, f"{side * MARGIN:+g} %", *cells)


def agreement(rng: np.random.Generator, grids: int, design: Design) -> Iterator[tuple[str, ...]]:
    """Of two activations with one true effect, both decided: how often the word is the same, and how often none contradicts.

    A contradiction: one is supported and not within the margin, the other within it and not supported.
    """
    for effect in (0.0, 0.01, 0.02, 0.03, 0.05, 0.10):
        cells = []
        for n in COUNTS:
            found = judged_grids(rng, grids, n, replace(design, effects=(0, effect, effect, 0, 0)))
            shape = (-1, len(design.node), ACTIVATIONS - 1)
            there, within = ((p <= SIGNIFICANCE).reshape(shape)[..., :2] for p in (found.p_holm, found.p_equal))
            decided = (there | within).all(axis=-1)
            same = there[..., 0] == there[..., 1]
            against = (there & ~within)[..., ::-1] & (within & ~there)
            count = max(int(decided.sum()), 1)
            shares = (1 - against.any(axis=-1)[decided].sum() / count, same[decided].sum() / count, decided.mean())
            cells.append(" / ".join(f"{share:.3f}" for share in shares))
        yield (f"{100 * effect:.0f} %", *cells)


def cv_coverage(rng: np.random.Generator, grids: int, design: Design) -> Iterator[tuple[str, ...]]:
    """How often the interval of the corrected CV holds the true one, in per cent over activations."""
    for cv in (0.0, 0.4, 1.0, 3.0):
        cells = []
        for n in COUNTS:
            covered = []
            for _ in range(grids):
                effects = rng.standard_normal(ACTIVATIONS)
                effects = cv / 100 * (effects - effects.mean()) / effects.std()
                pd = simulate(rng, 1, n, replace(design, effects=tuple(effects)))[0]
                for model in pd:
                    interval = cv_beside_noise([square(row, n) for row in model]).corrected
                    covered.append(interval.low <= cv + 1e-9 and cv <= interval.high)
            cells.append(f"{np.mean(covered):.3f}")
        yield (f"{cv:g} %", *cells)


def square(pairs: Float64, n: int) -> Float64:
    """The symmetric (N, N) matrix of the pairs of one cell."""
    matrix = np.zeros((n, n))
    matrix[np.triu_indices(n, 1)] = pairs
    return matrix + matrix.T


_N = tuple(f"N = {n}" for n in COUNTS)
TABLES = {
    "Nothing differs: family error / coverage of the 95 % interval": (errors_and_coverage, ("spread", "seeds", "N = 5", *_N)),
    "One activation differs in every model: supported / equal within the margin": (power, ("true difference", *_N)),
    "At the margin: called equal, any of 20": (equality_error, ("spread", "true difference", *_N)),
    "Two activations with one true effect, both decided: no contradiction / the same word / decided": (
        agreement, ("true difference", *_N)),
    "Coverage of the corrected CV's interval": (cv_coverage, ("true CV", *_N)),
}  # fmt: skip


def table(heads: Sequence[str], rows: Iterator[tuple[str, ...]]) -> str:
    """A table in Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *rows))


def main() -> None:
    """Print all tables."""
    from published.rebuild.stores import Published

    parser = argparse.ArgumentParser(prog="python -m benchmarks.statistics", description=__doc__)
    parser.add_argument("--grids", type=int, default=4_000, help="simulated grids of 20 contrasts a number; default: 4,000")
    asked, started = parser.parse_args(), time.monotonic()
    design = measured_spreads(Published().first.evidence)
    for name, values in (("trials", design.node), ("pairs", design.pair)):
        print(f"spread of {name}, %: " + ", ".join(f"{100 * value:.2f}" for value in values))
    rng = np.random.default_rng(2026)
    for title, (measure, heads) in TABLES.items():
        grids = max(asked.grids // 10, 1) if measure is cv_coverage else asked.grids
        print(f"\n{title}\n\n{table(heads, measure(rng, grids, design))}", flush=True)
    print(f"\n{asked.grids:,} grids a number, {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
