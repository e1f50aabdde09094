"""A results folder written by an earlier version (commit 7d1bcdd) is read whole, and gone on with where it ends.

``data/store_7d1bcdd`` holds two cells of two trials, trained on the small text beside them:

    for model in ("charlm", "tinylstm"):
        config = Config.for_model(model, "smoke", corpus="text.txt", trials=2, max_iters=4, n_embd=16)
        run_experiment(model, "relu", config, results_dir="results")

and then ``repro process``, which made ``pd/``. Never make it anew: that it is old is what it is for."""

import shutil
from pathlib import Path

import pytest
import torch

from repro_lib.config import Config
from repro_lib.store.pair_matrices import load_pair_matrices, pair_matrices_path
from repro_lib.store.schema import Result
from repro_lib.store.store import Store
from repro_lib.training.experiment import run_experiment

OLD = Path(__file__).parents[1] / "data" / "store_7d1bcdd"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """The old text in another folder: a result belongs to what was read, not to where it lay."""
    return Path(shutil.copy(OLD / "text.txt", tmp_path / "elsewhere.txt"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A copy of the old results folder."""
    return Store(shutil.copytree(OLD / "results", tmp_path / "results"))


def newest(store: Store, model: str) -> Result:
    """The newest result of a model; nothing in the folder is refused."""
    results, refused = store.load()
    assert refused == []
    return [result for _, result in results if result.model_name == model][-1]


def states(store: Store) -> dict[Path, tuple[int, bytes]]:
    """When each file was written last, and what it holds."""
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in store.folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("model", ["charlm", "tinylstm"])
def test_everything_in_it_is_read(model: str, store: Store) -> None:
    before, result = states(store), newest(store, model)
    assert (len(result.trials), result.environment["git_commit"]) == (2, "7d1bcddccc1788f4a0a953602c73422b9a678c89")
    # Each of these compares the file with the digest that the result recorded.
    for trial in (1, 2):
        assert store.predictions(result, trial).logits.shape == (512, 4)
        assert sum(tensor.numel() for tensor in store.weights(result, trial).values()) == result.parameters
        snapshots = store.snapshots(result, trial)
        assert (snapshots.steps[0], snapshots.steps[-1]) == (0, 4)
        assert snapshots.logits.shape == (len(snapshots.steps), 256, 4)
    assert states(store) == before


def test_its_pair_matrices_are_read_and_not_computed_again(store: Store) -> None:
    result = newest(store, "charlm")
    shutil.rmtree(store.folder / "predictions")
    matrix = load_pair_matrices(store, [result]).matrix("relative_pd")
    assert matrix[0, 1] == pytest.approx(result.avg_relative_pd)
    path = pair_matrices_path(store, result)
    assert path.read_bytes() == (OLD / "results" / "pd" / path.name).read_bytes()


def test_a_third_trial_is_all_that_is_trained(store: Store, text: Path) -> None:
    before, old = states(store), newest(store, "tinylstm")
    if old.environment["torch"] != torch.__version__:
        pytest.skip(f"trials of torch {old.environment['torch']} are not gone on with by another one")
    config = Config.for_model("tinylstm", "smoke", corpus=str(text), trials=3, max_iters=4, n_embd=16)
    run_experiment("tinylstm", "relu", config, results_dir=store.folder)
    result, after = newest(store, "tinylstm"), states(store)
    # A record holds the seconds that its training took: it would differ had the trial been trained again.
    assert (len(result.trials), result.trials[:2]) == (3, old.trials)
    assert result.config_sha256 == old.config_sha256
    assert {path: after[path] for path in before} == before
    stem = f"tinylstm-relu-{old.config_sha256[:12]}-trial3.safetensors"
    for kind in ("predictions", "weights", "steps"):
        assert [path.name for path in after.keys() - before.keys() if path.parent.name == kind] == [stem]
    assert store.snapshots(result, 3).steps == store.snapshots(result, 1).steps
