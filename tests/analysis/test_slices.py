"""Disagreement slice by slice: worked by hand, by brute force, and by the identity that the slices add up. No training."""

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from repro_lib.analysis import slices
from repro_lib.analysis.slices import SLICE_METRICS, Slicing, pair_trials, slice_frame, swapped_pairs
from repro_lib.data import EvaluationWindows
from repro_lib.metrics import prediction_difference
from repro_lib.metrics.churn_and_influence import churn_and_error, trial_influence
from repro_lib.store.predictions import Predictions
from repro_lib.store.schema import ResultError

T3 = 4.302652729911275  # Student's t, two-sided 95 %, 2 degrees of freedom


def trial_of(probabilities: list[list[float]], labels: list[int], evaluation: str = "e") -> Predictions:
    with np.errstate(divide="ignore"):
        logits = np.log(np.array(probabilities)).astype(np.float32)
    return Predictions(logits, np.array(labels), evaluation)


def random_trials(n: int = 3, tokens: int = 1300, v: int = 9, seed: int = 3) -> list[Predictions]:
    """More characters than one part of the text, so that the parts are joined."""
    rng = np.random.default_rng(seed)
    labels, common = rng.integers(v, size=tokens), rng.normal(size=(tokens, v))
    logits = [(common + rng.normal(size=(tokens, v)) * (0.3 + k / 10)).astype(np.float32) for k in range(n)]
    return [Predictions(one, labels, "e") for one in logits]


def thirds(tokens: int) -> Slicing:
    return Slicing("thirds", ("a", "b", "nobody", "c"), np.arange(tokens) % 7 % 3 + (np.arange(tokens) % 7 % 3 == 2))


def by_hand() -> slices.PairedTrials:
    """Three trials, three characters; the first trial and the third disagree about the first character only."""
    labels, rest = [0, 1, 1], [[0.5, 0.5], [0.25, 0.75]]
    return pair_trials([trial_of([[p, 1 - p], *rest], labels) for p in (0.8, 0.6, 0.2)])


def test_pairs_by_hand():
    paired = by_hand()
    assert paired.n == 3
    # Pairs (1, 2), (1, 3), (2, 3) of .8, .6, .2.
    assert paired.differences["total_variation"][:, 0] == pytest.approx([0.2, 0.6, 0.4], abs=1e-6)
    # 2 (.2/1.4 + .2/.6) / 2, 2 (.6/1 + .6/1) / 2, 2 (.4/.8 + .4/1.2) / 2
    assert paired.differences["relative_pd"][:, 0] == pytest.approx([0.2 / 1.4 + 0.2 / 0.6, 1.2, 0.5 + 1 / 3], abs=1e-6)
    assert paired.differences["churn"].tolist() == [[0, 0, 0], [1, 0, 0], [1, 0, 0]]
    assert paired.mean("churn").tolist() == pytest.approx([2 / 3, 0.0, 0.0])
    assert paired.confidence == pytest.approx([(0.8 + 0.6 + 0.8) / 3, 0.5, 0.75], abs=1e-6)
    # A tie is the first character's, as in metrics.churn.
    assert paired.errors.tolist() == [[False, True, False], [False, True, False], [True, True, False]]


def test_rows_average_to_the_metrics_of_their_pair():
    trials = random_trials(4)
    paired = pair_trials(trials)
    for row, (one, other) in enumerate(combinations(trials, 2)):
        for name in SLICE_METRICS:
            expected = getattr(prediction_difference, name)(one.probabilities, other.probabilities)
            assert paired.differences[name][row].mean() == pytest.approx(expected, rel=1e-12), name
    assert paired.confidence == pytest.approx(np.mean([t.probabilities.max(axis=1) for t in trials], axis=0), rel=1e-12)
    assert paired.errors.mean(axis=1).tolist() == [prediction_difference.error_rate(t.logits, t.labels) for t in trials]
    # Impossible characters are no difference, and improbable ones count as much as probable ones.
    paired = pair_trials([trial_of([[1.0, 0.0, 0.0]], [0]), trial_of([[0.5, 0.5, 0.0]], [0])])
    assert paired.differences["relative_pd"][0, 0] == pytest.approx(2 * (0.5 / 1.5 + 1 + 0) / 3)
    tiny = 1e-30
    paired = pair_trials([trial_of([[1.0, tiny]], [0]), trial_of([[1.0, 3 * tiny]], [0])])
    assert paired.differences["relative_pd"][0, 0] == pytest.approx((0 + 2 * 2 / 4) / 2, rel=1e-5)


def test_trials_that_cannot_be_compared_are_refused():
    first, second = random_trials(2)
    for others, said in (
        ([], "needs two trials, there is 1"),
        ([replace(second, evaluation_sha256="other")], "different evaluation windows"),
    ):
        with pytest.raises(ResultError, match=said):
            pair_trials([first, *others])


def test_bins_are_closed_below_and_slices_are_put_together():
    frequencies = np.array([0.0, 0.0009, 0.001, 0.01, 0.0199, 0.02, 0.05, 0.5])
    slicing = slices.by_frequency(np.array([7, 6, 5, 4, 3, 2, 1, 0]), frequencies)
    assert slicing.members.tolist() == [4, 4, 3, 2, 2, 1, 0, 0]
    assert len(slicing.slices) == 5
    assert slices.RARE == ("under 0.1 %", "0.1 to 1 %")
    slicing = slices.by_confidence(np.array([0.1, 0.25, 0.4999, 0.5, 0.75, 0.9, 1.0]))
    assert slicing.members.tolist() == [0, 1, 1, 2, 3, 4, 4]
    merged = slices.merged_slices(slicing, slices.UNCERTAIN, "uncertain")
    assert merged.slices == ("uncertain", "the others")
    assert merged.members.tolist() == [0, 0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("block_size", "names"),
    [
        (1, ("1",)),
        (6, ("1", "2", "3 to 4", "5 to 6")),
        (100, ("1", "2", "3 to 4", "5 to 8", "9 to 16", "17 to 32", "33 to 64", "65 to 100")),
        (1024, ("1", "2", "3 to 4", "5 to 8", "9 to 16", "17 to 32", "33 to 64", "65 to 128", "129 to 256")),
    ],
)
def test_the_context_is_what_the_pieces_of_the_windows_give(block_size: int, names: tuple[str, ...]):
    inputs = torch.zeros((3, 256), dtype=torch.int64)
    windows = EvaluationWindows(inputs, inputs, torch.arange(3), "x")
    # Position i of a piece is predicted from the i + 1 characters of the piece up to it.
    given = torch.cat([torch.arange(1, piece.shape[1] + 1).expand(3, -1) for _, piece in windows.pieces(block_size)], dim=1)
    slicing = slices.by_context(3 * 256, block_size)
    assert slicing.slices == names
    for name, length in zip([slicing.slices[k] for k in slicing.members], given.flatten().tolist(), strict=True):
        low, _, high = name.partition(" to ")
        assert int(low) <= length <= int(high or low)


def test_character_classes():
    kinds = {"aéß": "lower case", "AÉ": "upper case", " \t": "space", "\n": "line end", "019": "digit", "\x00": "other"}
    kinds |= {"中日": "cjk letter", "אב": "hebrew letter", "ひ": "hiragana letter", "\u05b8\u0301": "combining mark"}
    for characters, kind in (kinds | {".,;:!?'\"-[]{}&$—": "punctuation"}).items():
        # The class "other" is there only where it is needed.
        slicing = slices.by_class(np.arange(len(characters)), characters)
        assert {slicing.slices[k] for k in slicing.members} == {kind}
        assert set(slicing.slices) == {*slices.CLASSES, kind}
    # Of a token of several characters the first behind its spaces, of a byte that is no character by itself its number.
    tokens = {
        " the": "lower case",
        "\n\n": "line end",
        " ": "space",
        "  ": "space",
        "\\xe6": "part of a character",
        "()": "punctuation",
    }
    assert {token: slices.character_class(token) for token in tokens} == tokens


def test_slices_by_hand():
    paired = by_hand()
    frame = slice_frame(paired, Slicing("x", ("first", "rest"), np.array([0, 1, 1]))).set_index("slice")
    assert frame["n"].tolist() == [1, 2]
    assert frame["share"].tolist() == pytest.approx([1 / 3, 2 / 3])
    first = frame.loc["first"]
    assert first["churn"] == pytest.approx(2 / 3)
    assert first["total_variation"] == pytest.approx(0.4, abs=1e-6)
    # Without trial 1, 2, 3: .4, .6, .2; their mean .4, squares .08, variance 2/3 of it.
    half = T3 * math.sqrt(2 / 3 * 0.08)
    assert first["total_variation_high"] == pytest.approx(min(0.4 + half, 1.0), abs=1e-6)
    assert first["total_variation_low"] == 0.0
    # One trial of three is wrong about the first; about the rest each is wrong in one of two.
    assert frame["error"].tolist() == pytest.approx([1 / 3, 0.5])
    assert frame.loc["rest", ["churn", "relative_pd", "held"]].tolist() == pytest.approx([0, 0, 0], abs=1e-6)
    assert first["held"] == pytest.approx(1.0, abs=1e-6)


def test_the_share_held_by_brute_force():
    trials, slicing = random_trials(4), thirds(1300)
    frame = slice_frame(pair_trials(trials), slicing).set_index("slice")

    def share(chosen: list[Predictions]) -> float:
        total = part = 0.0
        for one, other in combinations(chosen, 2):
            gap = np.abs(one.probabilities - other.probabilities).sum(axis=1)
            total, part = total + gap.sum(), part + gap[slicing.members == 3].sum()
        return part / total

    without = np.array([share([t for t in trials if t is not left_out]) for left_out in trials])
    half = 3.182446305284263 * math.sqrt(3 / 4 * np.square(without - without.mean()).sum())
    whole = share(trials)
    held = frame.loc["c", ["held", "held_low", "held_high"]].tolist()
    assert held == pytest.approx([whole, whole - half, whole + half], rel=1e-10)
    assert frame["held"].sum() == pytest.approx(1.0, rel=1e-12)


def cell_slicings(paired: slices.PairedTrials, block_size: int) -> list[Slicing]:
    frequencies = np.geomspace(0.0001, 0.4, paired.vocab_size)
    return [
        slices.by_frequency(paired.labels, frequencies),
        slices.by_context(len(paired.labels), block_size),
        slices.by_confidence(paired.confidence),
        slices.by_class(paired.labels, "ab C\n.1DE"),
    ]


@given(st.integers(2, 5), st.integers(1, 300), st.integers(0, 50))
def test_slices_weighted_by_their_size_add_up_to_the_metric(n: int, block_size: int, seed: int):
    trials = random_trials(n, tokens=257 + seed, seed=seed)
    paired = pair_trials(trials)
    pairs = list(combinations([trial.probabilities for trial in trials], 2))
    for slicing in cell_slicings(paired, block_size):
        frame = slice_frame(paired, slicing)
        assert frame["n"].sum() == len(paired.labels)
        present = frame[frame["n"] > 0]
        for metric in SLICE_METRICS:
            whole = np.mean([getattr(prediction_difference, metric)(p, q) for p, q in pairs])
            assert (present["n"] * present[metric]).sum() / len(paired.labels) == pytest.approx(whole, rel=1e-12, abs=1e-15)
        # A churn is a count, and counts add up to the last one.
        counted = (present["n"] * present["churn"] * len(pairs)).round().astype(int).sum()
        assert counted == int(paired.differences["churn"].sum())
        assert (present["share"] * present["error"]).sum() == pytest.approx(paired.errors.mean(), rel=1e-12)


def test_a_slice_without_characters_has_no_numbers_and_holds_nothing():
    row = slice_frame(pair_trials(random_trials()), thirds(1300)).set_index("slice").loc["nobody"]
    assert (row["n"], row["share"], row["held"]) == (0, 0.0, 0.0)
    assert row[[*SLICE_METRICS, "error", "churn_low", "held_low"]].isna().all()

    # Two trials have values and no intervals.
    frame = slice_frame(pair_trials(random_trials(2)), thirds(1300)).dropna(subset=["churn"])
    assert len(frame) == 3
    bounds = [column for column in frame.columns if column.endswith(("_low", "_high"))]
    assert len(bounds) == 10
    assert frame[bounds].isna().all(axis=None)
    assert frame[[*SLICE_METRICS, "error", "held"]].notna().all(axis=None)
    # Identical trials do not disagree anywhere.
    paired = pair_trials(random_trials(1) * 3)
    frame = slice_frame(paired, thirds(1300)).dropna(subset=["churn"])
    assert (frame[[*SLICE_METRICS, "churn_low", "churn_high"]] == 0).all(axis=None)
    assert frame["held"].isna().all(), "a share of nothing"
    assert swapped_pairs(paired).empty


def test_swaps_by_hand():
    # First character: 0, 1, 1: two swaps of 0 and 1. Second: 2, 2, 0: two of 0 and 2. Third: 1, 0, 1: two more of 0 and 1.
    tops = [[0, 2, 1], [1, 2, 0], [1, 0, 1]]
    trials = [trial_of(np.where(np.eye(3)[top] > 0, 0.8, 0.1).tolist(), [0, 0, 0]) for top in tops]
    frame = swapped_pairs(pair_trials(trials))
    assert frame[["first", "second", "count"]].to_numpy().tolist() == [[0, 1, 4], [0, 2, 2]]
    assert frame["share"].tolist() == pytest.approx([2 / 3, 1 / 3])


def test_influence_by_hand():
    matrix = [[0, 0.4, 0.5], [0.4, 0, 0.6], [0.5, 0.6, 0]]
    frame = trial_influence(matrix, 2.0)
    numbers = frame[["trial", "score", "without", "influence"]].to_numpy()
    assert numbers == pytest.approx(np.array([[1, 0.45, 0.6, 0.1], [2, 0.5, 0.5, 0.0], [3, 0.55, 0.4, -0.1]]))
    assert frame["without_low"].isna().all(), "two trials have no interval"


def test_churn_and_error_by_hand():
    churn = [[0, 0.2, 0.3], [0.2, 0, 0.4], [0.3, 0.4, 0]]
    found = churn_and_error(churn, [0.5, 0.6, 0.7])
    assert [estimate.value for estimate in found] == pytest.approx([0.3, 0.6, 0.5, -0.3])
    # Without trial 1: .4 / .65, without 2: .3 / .6, without 3: .2 / .55.
    without = np.array([0.4 / 0.65, 0.3 / 0.6, 0.2 / 0.55])
    half = T3 * math.sqrt(2 / 3 * np.square(without - without.mean()).sum())
    assert found.ratio.high == pytest.approx(0.5 + half)
    # Residuals -.25, -.3, -.35: squares .005.
    half = T3 * math.sqrt(2 / 3 * 0.005)
    assert (found.residual.low, found.residual.high) == pytest.approx((-0.3 - half, -0.3 + half))
    # The ratio is cut at 0 and the residual at 1.
    found = churn_and_error([[0, 0.0, 0.9], [0.0, 0, 0.9], [0.9, 0.9, 0]], [0.1, 0.9, 0.2])
    assert found.ratio.low == 0.0
    assert -1.0 <= found.residual.low < found.residual.high == 1.0


def test_what_has_no_influence_no_interval_or_no_ratio():
    for n, score, ratio in ((1, math.nan, math.nan), (2, 0.3, 0.5)):
        frame = trial_influence(np.full((n, n), 0.3))
        assert frame[["without", "influence"]].isna().all(axis=None)
        assert frame["score"].tolist() == pytest.approx([score] * n, nan_ok=True)
        numbers = churn_and_error(np.full((n, n), 0.3), [0.6] * n)
        assert numbers.ratio.value == pytest.approx(ratio, nan_ok=True)
        assert not numbers.ratio.has_interval
        assert not numbers.residual.has_interval
    perfect = churn_and_error(np.zeros((3, 3)), [0.0, 0.0, 0.0])
    assert math.isnan(perfect.ratio.value)
    assert perfect.residual.value == 0.0
    with pytest.raises(ValueError, match="3 trials, 2 error rates"):
        churn_and_error(np.zeros((3, 3)), [0.1, 0.2])
