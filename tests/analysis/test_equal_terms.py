"""Contrasts at equal loss and at each activation's own best rate: by hand, in worlds that are planted, and out of a store."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from kinds import MakeResult

from repro_lib.analysis.contrasts import contrasts_at_equal_loss, contrasts_frame, leading_contrasts
from repro_lib.analysis.evidence import Evidence
from repro_lib.analysis.notes import Note
from repro_lib.analysis.rate_check import at_best_rates, rate_check_views
from repro_lib.analysis.study import Study, load_study
from repro_lib.analysis.verdicts import EQUAL, NOT_DECIDED, SUPPORTED
from repro_lib.config import Config
from repro_lib.metrics.equal_loss import means_at_equal_loss
from repro_lib.metrics.uncertainty import Float64, jackknife_left_out
from repro_lib.plots.over_loss import over_loss_view
from repro_lib.plots.style import Plot
from repro_lib.report.answer import answer
from repro_lib.report.contrast_tables import equal_loss_tables
from repro_lib.store.schema import Result
from repro_lib.store.store import Store

Make = MakeResult


@pytest.fixture
def make(make_result: MakeResult) -> Make:
    """A result of charlm whose trials have these losses, and pairs the mean of their two effects in every metric."""

    def of(activation: str, losses: Sequence[float], effects: Sequence[float], minute: int = 0, **explicit: Any) -> Result:
        config = Config.for_model("charlm", "quick", **explicit)
        n = len(losses)
        made = make_result("charlm", activation, config=config, trials=n, minute=minute)
        pairs = {(i, j): (effects[i - 1] + effects[j - 1]) / 2 for i, j in combinations(range(1, n + 1), 2)}
        mean = float(np.mean(list(pairs.values())))
        numbers: dict[str, float] = {}
        for name in ("relative_pd", "total_variation"):
            prefix = "pd" if name == "relative_pd" else name
            numbers |= {name: mean} | {f"{prefix}_{i}_{j}": value for (i, j), value in pairs.items()}
        # Of weights of their own: models that are the same with every activation are compared with nothing.
        digest = hashlib.sha256(activation.encode()).hexdigest()
        records = zip(made.trials, losses, strict=True)
        trials = [t.model_copy(update={"val_loss": float(x), "weights_sha256": digest}) for t, x in records]
        changes = {"trials": trials, "avg_val_loss": float(np.mean(losses)), "avg_relative_pd": mean}
        return made.model_copy(update={**changes, "reproducibility_metrics": numbers})

    return of


def evidence_of(store: Store, *results: Result) -> Evidence:
    for result in results:
        store.save(result)
    store.note_grid([results[0].config_sha256])
    return Evidence.load(store, Study.load(store, ["charlm"], ["relu", "gelu"]))


def test_at_equal_loss_by_hand() -> None:
    pd = np.array([[0, 0.1, 0.2], [0.1, 0, 0.3], [0.2, 0.3, 0]])
    # gelu reaches 2.0 in a whole run and 3.0 in a short one, relu 2.5: halfway, for gelu (.2 + .6) / 2 = .4, for relu .2.
    gelu = [(np.full(3, 2.0), 3 * pd), (np.full(3, 3.0), pd)]
    relu = [(np.full(3, 2.5), pd)]
    means, loss = means_at_equal_loss([gelu, relu])
    assert loss.tolist() == [2.5] * 4
    assert means[:, 0] == pytest.approx([0.4, 0.2])
    # Without trial 1 the pair (2, 3) is left, in every run at once; and so on.
    assert means[:, 1:] == pytest.approx(np.array([[0.6, 0.4, 0.2], [0.3, 0.2, 0.1]]))
    # Losses are those of the trials that are left, too: without trial 3 relu is at 2.4, and gelu at 2/5 of the way.
    means, loss = means_at_equal_loss([gelu, [(np.array([2.4, 2.4, 2.7]), pd)]])
    assert (loss[0], loss[3]) == pytest.approx((2.5, 2.4))
    assert means[0, 3] == pytest.approx(0.3 - 0.4 * 0.2)
    # No line is extended, and without a longer line of the better one there is nothing.
    assert math.isnan(means_at_equal_loss([gelu, [(np.full(3, 3.5), pd)]])[0][0, 0])
    assert math.isnan(means_at_equal_loss([gelu[:1], relu])[0][0, 0])


def planted(random: np.random.Generator, effect: float) -> list[list[tuple[Float64, Float64]]]:
    """Two arms on one curve, PD .7 - .4 (loss - 2), the first ``effect`` above it and .03 nats better at every length."""
    arms = []
    for gain, factor in ((0.03, 1 + effect), (0.0, 1.0)):
        runs = []
        for base in (2.0, 2.05, 2.12):
            losses = base - gain + random.normal(0, 0.01, 10)
            nodes = factor * (0.7 - 0.4 * (losses.mean() - 2)) + random.normal(0, 0.01, 10)
            runs.append((losses, (nodes[:, None] + nodes) / 2))
        arms.append(runs)
    return arms


@pytest.mark.parametrize("effect", [0.0, 0.05])
def test_the_interval_at_equal_loss_covers_what_was_planted(effect: float) -> None:
    random, covered, apart = np.random.default_rng(3), 0, 0
    for _ in range(300):
        arms = planted(random, effect)
        means, _ = means_at_equal_loss(arms)
        shares = means[0] / means[1] - 1
        found = jackknife_left_out(shares[0], shares[1:])
        covered += found.low <= effect <= found.high
        whole = np.array([_whole(runs[0][1]) for runs in arms])
        apart += effect == 0 and jackknife_left_out(*_ratio(whole)).low > 0
    # Two standard errors of 300 draws are .025. Without equal loss the better arm looks less reproducible, nearly always.
    assert 0.92 < covered / 300 < 0.98
    assert effect or apart > 150


def _whole(matrix: Float64) -> Float64:
    n = len(matrix)
    rows = [np.delete(np.delete(matrix, k, 0), k, 1) for k in range(n)]
    return np.array([of[np.triu_indices(len(of), 1)].mean() for of in (matrix, *rows)])


def _ratio(means: Float64) -> tuple[float, Float64]:
    shares = means[0] / means[1] - 1
    return float(shares[0]), shares[1:]


def test_what_is_a_difference_may_be_none_at_equal_loss(store: Store, make: Make) -> None:
    random = np.random.default_rng(0)
    noise = random.normal(0, 0.002, (4, 10))
    relu = make("relu", np.full(10, 2.0), 0.70 + noise[0])
    gelu = make("gelu", np.full(10, 1.9), 0.77 + noise[1])
    shorter = make("gelu", np.full(10, 2.1), 0.63 + noise[2], minute=1, max_iters=30)
    evidence = evidence_of(store, relu, gelu, shorter)
    frame = leading_contrasts(evidence).iloc[0]
    assert (frame["verdict"], frame["verdict_tv"]) == (SUPPORTED, SUPPORTED)
    assert frame["per_cent"] == pytest.approx(10, abs=0.5)
    assert (frame["verdict_at_loss"], frame["verdict_at_loss_tv"]) == (EQUAL, EQUAL)
    assert abs(frame["per_cent_at_loss"]) < 0.5
    assert (frame["loss_at_loss"], frame["lengths_at_loss"]) == (2.0, "30, 60")
    said = answer(Study.of([relu, gelu], ["charlm"], ["relu", "gelu"]), leading_contrasts(evidence))
    assert "1 of those supported in both can be compared, 1 is equal within the margin in both." in said
    [table] = equal_loss_tables(evidence, "charlm")
    assert table["At a loss of"].tolist() == ["2.000"]
    assert table["Verdict"].tolist() == [EQUAL]
    assert equal_loss_tables(evidence, "convlm") == []
    plot = over_loss_view(evidence, "charlm")
    assert isinstance(plot, Plot)
    assert "relative PD with gelu 0.6300 at 2.100 nats, 0.7691 at 1.900 nats;" in plot.alt
    # A run that somebody made by hand with few trials does not take the verdict from the others.
    store.save(make("gelu", [2.05] * 3, [0.6] * 3, minute=2, max_iters=40))
    again = contrasts_at_equal_loss(Evidence.load(store, Study.load(store, ["charlm"], ["relu", "gelu"])))
    assert again[["n", "verdict", "lengths"]].iloc[0].tolist() == [10, EQUAL, "30, 60"]


def test_nothing_is_said_at_equal_loss_where_there_is_one_length(store: Store, make: Make) -> None:
    evidence = evidence_of(store, make("relu", [2.0] * 3, [0.7] * 3), make("gelu", [1.9] * 3, [0.8] * 3))
    row = contrasts_at_equal_loss(evidence).iloc[0]
    assert (row["n"], row["verdict"]) == (0, NOT_DECIDED)
    assert row[["per_cent", "p", "loss"]].isna().all()
    assert equal_loss_tables(evidence) == []
    assert "repro grid --models charlm --lengths" in str(over_loss_view(evidence, "charlm"))
    [note] = rate_check_views(evidence, "charlm")
    assert isinstance(note, Note)
    assert "repro grid --models charlm --rates 0.5 2" in note.text


def test_each_activation_at_the_rate_that_suits_it(store: Store, make: Make) -> None:
    noise = np.random.default_rng(1).normal(0, 0.002, (3, 10))
    relu = make("relu", np.full(10, 2.0), 0.70 + noise[0])
    # Ten more trials at the common rate, lucky ones, make it no better.
    gelu = make("gelu", np.repeat([2.1, 1.5], 10), np.tile(0.77 + noise[1], 2))
    slower = [make(a, np.full(10, x), 0.70 + noise[2], minute=1, learning_rate=1e-3) for a, x in (("relu", 2.2), ("gelu", 1.9))]
    evidence = evidence_of(store, relu, gelu, *slower)
    assert contrasts_frame(evidence)["per_cent"].iloc[0] == pytest.approx(10, abs=0.5)
    table, said = rate_check_views(evidence, "charlm")
    assert list(table["Rate"]) == ["0.001", "0.007 (common) (best)", "0.001 (best)", "0.007 (common)"]
    costs = "relu nothing; gelu 0.200 nats (0.200 to 0.200), best at 0.001."
    assert f"the common rate of 0.007 costs in validation loss: {costs}" in str(said)
    # One family, of which every cell, of every model, is at its own rate.
    twice = [run.model_copy(update={"model_name": "convlm"}) for run in evidence.runs]
    both = replace(evidence, results=(*evidence.results, *twice[:2]), runs=(*evidence.runs, *twice))
    assert [run.config["learning_rate"] for run in at_best_rates(both).results] == [7e-3, 1e-3] * 2
    row = contrasts_frame(at_best_rates(evidence)).iloc[0]
    assert (row["verdict"], row["n"]) == (EQUAL, 10)
    assert f"Each at its best rate, relative PD against relu: gelu {row['per_cent']:+.1f} % (" in str(said)


def test_a_grid_that_ran_other_lengths_of_all_its_cells_is_shown_and_not_one_of_them(store: Store, make: Make) -> None:
    grid = [make(a, [2.0] * 3, [0.7] * 3, minute=0) for a in ("relu", "gelu")]
    for result in [*grid, *(make(a, [2.2] * 3, [0.6] * 3, minute=5, max_iters=30) for a in ("relu", "gelu"))]:
        store.save(result)
    store.note_grid([grid[0].config_sha256])
    assert {r.config["max_iters"] for r in load_study(store.folder, ["charlm"]).results} == {60}
    # What was run as a grid later is; and a file that is no list is said to be none.
    shorter = make("relu", [2.2] * 3, [0.6] * 3, max_iters=30)
    store.note_grid([shorter.config_sha256])
    assert {r.config["max_iters"] for r in load_study(store.folder, ["charlm"]).results} == {30}
    store.note_grid([grid[0].config_sha256])
    assert store.grids() == [shorter.config_sha256, grid[0].config_sha256]
    (store.folder / "declared" / "grids.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"grids\.json does not list the configurations of the grids that were run; delete it"):
        load_study(store.folder)
