"""The simulation measures the rule that judges our studies, and the rule meets what is asked of it, in a small version."""

import math

import numpy as np
import pytest
from test_study import make_result

from benchmarks import statistics
from benchmarks.statistics import SHARED, SPREADS, Design, judged_grids
from published.rebuild.stores import Published
from repro_lib.analysis.contrasts import contrasts_frame
from repro_lib.analysis.evidence import Evidence
from repro_lib.analysis.verdicts import EQUAL, SUPPORTED

# The spreads of the published study, rounded; the next test holds them against it.
OURS = Design((0.0064, 0.0061, 0.0043, 0.0035, 0.0135), (0.0132, 0.0094, 0.0070, 0.0082, 0.0225))
NAMES = ("relu", "gelu", "swish", "swiglu", "smelu_1")
GRIDS = 1_000


def test_the_spreads_are_those_of_the_published_study() -> None:
    found = statistics.measured_spreads(Published().first.evidence)
    assert found.node == pytest.approx(OURS.node, abs=1e-4)
    assert found.pair == pytest.approx(OURS.pair, abs=1e-4)


def test_planted_spreads_are_found_again() -> None:
    pd_ = statistics.simulate(np.random.default_rng(0), 300, 10, OURS)
    parts = [[statistics.node_and_pair(statistics.square(grid[model, 0], 10)) for grid in pd_] for model in range(5)]
    node, pair = np.sqrt(np.mean(parts, axis=1)).T
    assert pair == pytest.approx(OURS.pair, rel=0.03)
    assert node == pytest.approx(OURS.node, rel=0.15)


@pytest.mark.parametrize("effect", [0.0, 0.03])
def test_the_rule_in_arrays_is_the_rule_of_the_library(effect: float) -> None:
    design = Design(OURS.node, OURS.pair, SPREADS["2 x"], SHARED, effects=(0, effect, 0, effect, 0))
    pd_ = statistics.simulate(np.random.default_rng(1), 1, 10, design)
    models = [f"model {k}" for k in range(len(pd_[0]))]
    results = [
        make_result("charlm", name, tuple(pairs)).model_copy(update={"model_name": model})
        for model, cells in zip(models, pd_[0], strict=True)
        for name, pairs in zip(NAMES, cells, strict=True)
    ]
    frame = contrasts_frame(Evidence(tuple(results), tuple(models), NAMES, {}))
    judged = statistics.judge(pd_, 10)
    assert frame["difference"].tolist() == pytest.approx(judged.difference[0])
    assert frame["p_holm"].tolist() == pytest.approx(judged.p_holm[0])
    assert frame["p_equal"].tolist() == pytest.approx(judged.p_equal[0])
    assert (frame["verdict"] == SUPPORTED).tolist() == judged.supported[0].tolist()
    assert (frame["verdict"] == EQUAL).tolist() == judged.equal[0].tolist()
    assert len(set(frame["verdict"])) == 3 - (effect == 0)


def above(share: float, n: int = GRIDS) -> float:
    """What a share is at most measured as, but for two errors of so many grids."""
    return share + 2 * math.sqrt(share * (1 - share) / n)


@pytest.mark.parametrize(("spread", "most"), [("equal", 0.055), ("2 x", 0.055), ("4 x", 0.07), ("4 x in relu", 0.07)])
def test_the_familys_error_and_the_coverage(spread: str, most: float) -> None:
    rng = np.random.default_rng(2026)
    for shared, odd in ((0.0, 0.0), (SHARED, 0.0), (0.0, 0.1)):
        found = judged_grids(rng, GRIDS, 10, Design(OURS.node, OURS.pair, SPREADS[spread], shared, odd))
        assert 0 < found.supported.any(axis=1).mean() <= above(most)
        covered = (abs(found.difference) <= statistics.stdtrit(9, 0.975) * found.error).mean()
        assert 0.93 <= covered <= 0.97 + 0.005


def test_the_power_and_the_error_of_equality() -> None:
    rng = np.random.default_rng(2027)
    first = slice(0, None, 4)  # gelu in every model
    for effect, least in ((0.05, 0.8), (0.10, 0.99)):
        found = judged_grids(rng, 200, 10, Design(OURS.node, OURS.pair, effects=(0, effect, 0, 0, 0)))
        assert found.supported[:, first].mean() >= least
    assert judged_grids(rng, 200, 10, OURS).equal.mean() >= 0.5
    for margin in (0.03, -0.03):
        found = judged_grids(rng, GRIDS, 10, Design(OURS.node, OURS.pair, effects=(0, *[margin] * 4)))
        assert (found.p_equal <= 0.05).any(axis=1).mean() <= above(0.05)


def test_two_activations_with_one_true_effect_are_not_told_apart() -> None:
    rows = list(statistics.agreement(np.random.default_rng(2028), 300, OURS))
    without_contradiction = [float(cell.split(" / ")[0]) for row in rows for cell in row[1:]]
    assert min(without_contradiction) >= 0.94  # .96 with 4,000 grids
    same_word = {row[0]: [float(cell.split(" / ")[1]) for cell in row[1:]] for row in rows}
    assert min(share for effect in ("0 %", "3 %", "5 %", "10 %") for share in same_word[effect]) >= 0.95


def test_the_corrected_cvs_interval_covers() -> None:
    rows = list(statistics.cv_coverage(np.random.default_rng(2029), 20, OURS))
    assert all(float(cell) >= 0.89 for row in rows for cell in row[1:]), "of 100 studies each"
    assert 0.93 <= np.mean([float(cell) for row in rows for cell in row[1:]]) <= 0.98


def test_the_command_prints_every_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["benchmarks.statistics", "--grids", "10"])
    statistics.main()
    printed = capsys.readouterr().out
    assert [title for title in statistics.TABLES if title not in printed] == []
    assert "nan" not in printed
