"""Trials against trials, really trained: the same numbers as by hand; read back, extended, cut, and never trusted blindly."""

import json
import lzma
import shutil
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from kinds import Tiny

from repro_lib.data import EVALUATION_BLOCK
from repro_lib.metrics import prediction_difference
from repro_lib.store.pair_matrices import compressed, load_pair_matrices, pair_matrices_path
from repro_lib.store.predictions import compare
from repro_lib.store.schema import Result, ResultError
from repro_lib.store.store import Store
from repro_lib.training.experiment import run_experiment


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny: Tiny) -> Path:
    folder = tmp_path_factory.mktemp("comparisons") / "results"
    for activation in ("relu", "gelu"):
        run_experiment("charlm", activation, tiny("charlm", trials=3), results_dir=folder)
    return folder


@pytest.fixture
def store(trained: Path, tmp_path: Path) -> Store:
    return Store(shutil.copytree(trained, tmp_path / "results"))


def results_of(store: Store) -> list[Result]:
    by_activation = {result.activation: result for _, result in store.load()[0]}
    return [by_activation["relu"], by_activation["gelu"]]


def test_every_pair_of_trials_as_compared_one_by_one(store: Store) -> None:
    results = results_of(store)
    matrices = load_pair_matrices(store, results)
    assert [(t.activation, t.trial) for t in matrices.trials] == [(a, k) for a in ("relu", "gelu") for k in (1, 2, 3)]
    predictions = [store.predictions(result, k) for result in results for k in (1, 2, 3)]
    for i, j in combinations(range(6), 2):
        by_hand = compare(predictions[i], predictions[j])
        for name in prediction_difference.metric_names():
            assert matrices.matrix(name)[i, j] == matrices.matrix(name)[j, i] == pytest.approx(by_hand[name], rel=1e-12)
    assert (np.diag(matrices.matrix("churn")) == 0).all()


def test_windows_average_to_the_whole(store: Store) -> None:
    relu, gelu = results_of(store)
    matrices = load_pair_matrices(store, [relu, gelu])
    for result in (relu, gelu):
        for name in prediction_difference.metric_names():
            by_window = matrices.windows[result.activation][name]
            assert len(by_window) == result.evaluation.tokens // EVALUATION_BLOCK
            assert np.mean(by_window) == pytest.approx(result.reproducibility_metrics[name], rel=1e-9)
        errors = np.array(matrices.window_errors[result.activation])
        assert errors.shape == (3, result.evaluation.tokens // EVALUATION_BLOCK)
        assert 100 * (1 - errors.mean(axis=1)) == pytest.approx([trial.val_accuracy for trial in result.trials])


def test_what_is_stored_needs_no_predictions(store: Store) -> None:
    results = results_of(store)
    made = load_pair_matrices(store, results)
    assert pair_matrices_path(store, results[0]).is_file()
    shutil.rmtree(store.folder / "predictions")
    assert load_pair_matrices(store, results) == made
    only = load_pair_matrices(store, results[1:])
    assert [trial.activation for trial in only.trials] == ["gelu"] * 3
    assert only.matrix("churn") == pytest.approx(made.matrix("churn")[3:, 3:])
    turned = load_pair_matrices(store, results[::-1])
    assert turned.matrix("churn")[:3, 3:] == pytest.approx(made.matrix("churn")[3:, :3])


@pytest.mark.parametrize("damage", ["", "cut", "endless"])
def test_a_compressed_one_is_read_as_it_is(damage: str, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    results = results_of(store)
    path = pair_matrices_path(store, results[0])
    made = load_pair_matrices(store, results)
    content = lzma.compress(path.read_bytes())
    if damage == "endless":
        monkeypatch.setattr("repro_lib.store.pair_matrices.LARGEST_RESULT_BYTES", path.stat().st_size - 9)
    compressed(path).write_bytes(content[: len(content) // 2] if damage == "cut" else content)
    path.unlink()
    for folder in ("predictions", "weights"):
        shutil.rmtree(store.folder / folder)
    if damage:
        with pytest.raises(ResultError):
            load_pair_matrices(store, results)
    else:
        assert load_pair_matrices(store, results) == made
    assert not path.exists()


def test_more_trials_extend_it(store: Store, tiny: Tiny) -> None:
    results = results_of(store)
    before = load_pair_matrices(store, results)
    more = run_experiment("charlm", "relu", tiny("charlm", trials=4), results_dir=store.folder)
    after = load_pair_matrices(store, [more, results[1]])
    assert len(after.trials) == 7
    keep = [0, 1, 2, 4, 5, 6]
    assert (after.matrix("relative_pd")[np.ix_(keep, keep)] == before.matrix("relative_pd")).all()
    assert (after.matrix("relative_pd")[3, keep] > 0).all()
    assert len(after.window_errors["relu"]) == 4


@pytest.mark.parametrize("damage", ["a number", "cut", "not JSON", "too few pairs", "a metric less"])
def test_a_damaged_file_is_made_anew(damage: str, store: Store) -> None:
    results = results_of(store)
    made = load_pair_matrices(store, results)
    path = pair_matrices_path(store, results[0])
    whole = path.read_text()
    fewer = {name: values[:-1] for name, values in made.pairs.items()}
    less = {name: values for name, values in made.pairs.items() if name != "churn"}
    damaged = {
        "a number": whole.replace(json.dumps(made.pairs["churn"][0]), "0.123", 1),
        "cut": whole[:100],
        "not JSON": "[" * 5_000,
        # The digests of these two fit.
        "too few pairs": made.model_copy(update={"pairs": fewer}).to_json(),
        "a metric less": made.model_copy(update={"pairs": less}).to_json(),
    }
    path.write_text(damaged[damage])
    assert path.read_text() != whole
    assert load_pair_matrices(store, results) == made
    assert path.read_text() == whole


def test_predictions_that_are_gone_or_of_another_configuration_are_refused(store: Store) -> None:
    relu, gelu = results_of(store)
    with pytest.raises(ValueError, match="one model, one configuration and one evaluation text"):
        load_pair_matrices(store, [relu, gelu.model_copy(update={"config_sha256": "0" * 64})])
    store.trial_path("predictions", "charlm", "gelu", gelu.config_sha256, 2).unlink()
    with pytest.raises(ResultError, match="charlm"):
        load_pair_matrices(store, [relu, gelu])
    # A folder that cannot be written costs time only: a file in its place stops root, too.
    (store.folder / "pd").write_text("in the way")
    assert len(load_pair_matrices(store, [relu]).trials) == 3
