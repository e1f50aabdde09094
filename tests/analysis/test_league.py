"""The league of arms: costs by hand, changes that are those of the contrasts, and arms that do not differ."""

from pathlib import Path

import pytest
from kinds import Tiny
from test_study import make_result

from repro_lib.analysis.contrasts import contrasts_frame
from repro_lib.analysis.evidence import Evidence
from repro_lib.analysis.league import costs, league, league_study, pareto_front
from repro_lib.analysis.study import Study
from repro_lib.config import GRID_ACTIVATIONS, MODEL_DEFAULTS
from repro_lib.report.contrast_tables import league_sentences, league_table
from repro_lib.store.designs import Design, DesignCell, note_design
from repro_lib.store.schema import Result
from repro_lib.store.store import Store
from repro_lib.training.experiment import run_experiment


def with_settings(**settings: object) -> Result:
    config = make_result().config | settings
    return make_result(config=config)


# A step of the plain recipe goes forward once and back, three in all, for 60 x 8 x 128 tokens.
@pytest.mark.parametrize(
    ("settings", "training", "serving"),
    [
        ({}, 1, 1),
        ({"max_iters": 240}, 4, 1),
        ({"ema_decay": 0.9}, 1, 1),
        ({"codistill_weight": 1.0}, 2, 1),
        ({"ensemble": 5}, 5, 5),
        ({"ensemble": 3, "ensemble_rule": "nearest"}, 3, 1),
        # Three teachers that are trained for it, and asked at every step: a third of a step each.
        ({"distill_weight": 0.5, "teachers": 3}, 3 + 1 + 3 / 3, 1),
        # The earlier model is there anyway, and asked at every step.
        ({"anchor_weight": 0.5}, 1 + 1 / 3, 1),
        ({"warm_share": 0.75}, 1, 1),
    ],
)
def test_costs_are_those_counted_by_hand(settings: dict[str, object], training: float, serving: float) -> None:
    # A mean of k models has k times their parameters; make_result leaves the number as it is.
    together = settings.get("ensemble", 1) if settings.get("ensemble_rule") != "nearest" else 1
    result = with_settings(**settings).model_copy(update={"parameters": 430_000 * together})
    own, base = costs(result), costs(with_settings())
    assert own["training"] / base["training"] == pytest.approx(training)
    assert own["serving"] / base["serving"] == pytest.approx(serving)


@pytest.mark.parametrize("model", MODEL_DEFAULTS)
def test_every_model_at_the_size_of_a_profile_has_costs(model: str) -> None:
    """Those without attention keep a number of heads that need not fit their width."""
    assert costs(make_result(model)) == {"training": 430_000 * 3 * 60 * 8 * 128, "serving": 430_000}


def test_changes_are_those_of_the_contrasts_and_the_lowest_comes_first() -> None:
    results = [
        make_result("charlm", name, tuple(x + k / 10 for x in (0.4, 0.5, 0.6)))
        for name, k in (("relu", 1), ("gelu", 0), ("swish", 2))
    ]
    evidence = Evidence.from_results(Study.of(results, ["charlm"], ["relu", "gelu", "swish"]))
    frame = league(evidence)
    assert frame["activation"].tolist() == ["gelu", "relu", "swish"]
    assert frame["total_variation"].tolist() == pytest.approx([0.5, 0.6, 0.7])
    of_contrasts = contrasts_frame(evidence, "churn").set_index("activation")
    for row in frame[frame["activation"] != "relu"].itertuples():
        assert row.per_cent_churn == of_contrasts.loc[row.activation, "per_cent"]
    assert frame.loc[1, ["per_cent_churn", "per_cent_at_loss"]].isna().all(), "the reference is compared with nothing"
    assert league_table(evidence, "charlm").index.tolist() == ["gelu", "relu (reference)", "swish"]
    (sentence,) = league_sentences(evidence)
    assert "charlm, 2 arms against relu, N = 3: not decided below 10 trials;" in sentence
    assert "lowest so far gelu (-16.7 %)." in sentence
    ten = [
        make_result("charlm", a, tuple(level + 0.001 * (k % 3) for k in range(45)))
        for a, level in zip(GRID_ACTIVATIONS, (0.6, 0.4, 0.45, 0.48, 0.51), strict=True)
    ]
    (sentence,) = league_sentences(Evidence.from_results(Study.of(ten, ["charlm"], GRID_ACTIVATIONS)))
    assert "total variation is lower in 4 (gelu (-33.3 %), swish (-25.0 %), swiglu (-20.0 %) and 1 other)." in sentence


def test_arms_of_other_seeds_are_not_told_apart_and_equal_ones_differ_by_nothing(tiny: Tiny, tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    settings = {"as it was": {}, "other seeds": {"seed": 1042}, "another look": {"eval_interval": 1}}
    cells = []
    for arm, values in settings.items():
        result = run_experiment("charlm", "relu", tiny("charlm", trials=4, **values), results_dir=store.folder)
        cells.append(DesignCell(model_name="charlm", arm=arm, activation="relu", config_sha256=result.config_sha256))
    design = Design(factor="seed", reference="as it was", profile="smoke", cells=cells)
    note_design(store, design)
    store.note_grid([], factor="seed")
    study = league_study(store)
    assert (study.factor, len(study.results)) == ("seed", 3)
    contrasts = contrasts_frame(Evidence.load(store, study)).set_index("activation")
    assert contrasts.loc["another look", "difference"] == 0
    assert contrasts.loc["other seeds", "difference_low"] < 0 < contrasts.loc["other seeds", "difference_high"]
    assert contrasts.loc["other seeds", "difference"] != 0
    # The same study without the arm that trains other models is one whose arms are the same to the last bit.
    same = design.model_copy(update={"cells": [cells[0], cells[2]]})
    note_design(store, same)
    assert league_study(store).identical == ("charlm",)


def test_nobody_on_the_front_is_beaten_in_both() -> None:
    assert pareto_front({"a": (1.0, 0.5), "b": (2.0, 0.6), "c": (0.5, 0.7)}) == ["b", "a"]
