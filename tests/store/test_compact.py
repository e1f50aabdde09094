"""Predictions, snapshots and weights as they are stored: rounded and packed, and what that does to the metrics."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kinds import Tiny

from repro_lib.data import Dataset
from repro_lib.metrics.prediction_difference import pair_metrics, probabilities_from_logits
from repro_lib.store.predictions import compact, compare_all, fineness, restored, trial_tensors
from repro_lib.store.schema import ResultError, TrialRecord
from repro_lib.store.store import Store
from repro_lib.store.tensors import read_tensors, sha256_of_tensors, write_tensors
from repro_lib.system.files import UnusableFile, share
from repro_lib.training.experiment import run_experiment
from repro_lib.training.trainer import TrainedTrial, train_trial

LABELS = torch.arange(32) % 9


def all_metrics(first: Any, second: Any, labels: Any) -> dict[str, float]:
    p, q = (probabilities_from_logits(logits) for logits in (first, second))
    return pair_metrics(p, q, labels)


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        ("charlm", {"max_iters": 40}),
        ("charlm", {"max_iters": 2, "vary": "order"}),
        ("convlm", {"vary": "dropout"}),
        ("tinylstm", {"vary": "init"}),
    ],
)
def test_metrics_keep_four_digits(model: str, changes: dict[str, Any], tiny: Tiny, dataset: Dataset, store: Store) -> None:
    config, labels = tiny(model, **changes).with_corpus(dataset.vocab_size), dataset.windows.targets.flatten()
    trained: list[TrainedTrial] = [train_trial(model, "gelu", config, dataset, trial) for trial in (1, 2)]
    read = []
    for trial in trained:
        path = store.trial_path("predictions", model, "gelu", "a" * 64, trial.trial)
        exact = {"logits": trial.logits, "labels": labels}
        digest = store.save_tensors(path, exact, {}, compact("predictions", exact, fineness(config)))
        assert path.stat().st_size < 0.5 * 4 * trial.logits.numel()
        record = TrialRecord.model_construct(predictions_sha256=digest)
        read.append(trial_tensors(path, "predictions", record, len(labels), 1)["logits"])
        assert torch.equal(read[-1].argmax(dim=1), trial.logits.argmax(dim=1))
    exact, found = all_metrics(*(t.logits for t in trained), labels), all_metrics(*read, labels)
    assert exact["relative_pd"] > 1e-3
    assert found == pytest.approx(exact, rel=1e-4)
    assert found["churn"] == exact["churn"]


@pytest.mark.parametrize("spread", [0.0, 1e-9, 1e-4, 1.0, 30.0, 1e4])
def test_the_most_probable_character_stays_what_it_is_and_others_about_where_they_were(spread: float) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = spread * torch.randn(32, 9, generator=generator)
    logits[3], logits[4, 2:4], logits[5, 7] = 0.0, logits[4].max() + spread, logits[5].max()  # ties
    back = restored(compact("predictions", {"logits": logits, "labels": LABELS}))
    assert torch.equal(back["logits"].argmax(dim=1), logits.argmax(dim=1))
    assert torch.equal(back["labels"], LABELS)
    exact = logits.double().log_softmax(dim=1)
    assert ((back["logits"] - exact).abs() <= 0.004 * (1 - exact / 2)).all()
    steps = {"logits": torch.stack([logits, logits / 7]), "labels": LABELS, "steps": torch.tensor([0, 4])}
    assert torch.equal(restored(compact("steps", steps))["logits"][0], back["logits"])


def test_trials_that_may_hardly_differ_keep_all_bits(tiny: Tiny) -> None:
    found = {vary: fineness(tiny("charlm", vary=vary)) for vary in ("all", "init+bit", "order", "dropout", "bit", "none")}
    assert found == {"all": 1, "init+bit": 1, "order": 4, "dropout": 4, "bit": 0, "none": 0}
    assert fineness(tiny("charlm", vary="dropout+bit", dropout=0.0)) == 0
    # A start that is the same for all is no randomness, whatever is drawn.
    assert fineness(tiny("charlm", warm_share=0.5)) == 4


def test_weights_keep_thirteen_bits_and_what_is_no_number_stays() -> None:
    weights = {"a": torch.randn(100, generator=torch.Generator().manual_seed(0)), "n": torch.arange(3)}
    stored = compact("weights", weights)
    assert ((stored["a"] - weights["a"]).abs() <= weights["a"].abs() * 2**-13).all()
    assert torch.equal(stored["n"], weights["n"])
    assert not torch.equal(stored["a"], weights["a"])
    for kind in ("weights", "predictions"):
        lost = {"logits": torch.full((32, 9), torch.nan), "labels": LABELS}
        assert sha256_of_tensors(compact(kind, lost)) == sha256_of_tensors(lost)


def test_a_result_has_the_numbers_of_its_files_and_digests_of_all_bits(tiny: Tiny, dataset: Dataset, store: Store) -> None:
    results = {
        vary: run_experiment("charlm", "relu", tiny("charlm", vary=vary), results_dir=store.folder) for vary in ("all", "bit")
    }
    config = tiny("charlm", vary="all").with_corpus(dataset.vocab_size)
    trained = train_trial("charlm", "relu", config, dataset, 1)
    labels = dataset.windows.targets.flatten()
    for vary, result in results.items():
        assert result.trials[0].predictions_sha256 == sha256_of_tensors({"logits": trained.logits, "labels": labels})
        assert result.trials[0].weights_sha256 == sha256_of_tensors(trained.weights)
        read = [store.predictions(result, record.trial) for record in result.trials]
        assert np.array_equal(read[0].logits, trained.logits.numpy()) == (vary == "bit")
        pairs = compare_all(read).pairs
        assert {name: result.pairs(name)[1, 2] for name in pairs} == {name: of[0] for name, of in pairs.items()}


def test_what_does_not_fit_together_is_refused(tmp_path: Path) -> None:
    stored = compact("predictions", {"logits": torch.randn(32, 9), "labels": LABELS})
    for name, wrong in (("codes", stored["codes"][0]), ("labels", LABELS + 9), ("rests", stored["rests"][:, 1:])):
        assert "logits" not in restored(stored | {name: wrong})
    path = tmp_path / "packed.safetensors"
    write_tensors(path, {"zeros": torch.zeros(2**20)}, {}, packed=True)
    assert path.stat().st_size < 10_000
    assert read_tensors(path, 2**22)[0]["zeros"].shape == (2**20,)
    with pytest.raises(UnusableFile, match="cannot be unpacked"):
        read_tensors(path, 2**22 - 1)
    packed = {"zeros": torch.frombuffer(bytearray(b"\x03\x00"), dtype=torch.uint8)}
    for kinds in (
        "no JSON",
        "[]",
        "{}",
        *(json.dumps({"zeros": kind}) for kind in (["float32", 1], ["float32", -1], ["object"], 3)),
    ):
        write_tensors(path, packed, {"packed": kinds})
        with pytest.raises(UnusableFile, match="cannot be unpacked"):
            read_tensors(path, 2**22)


def test_equal_files_share_their_bytes_until_one_is_replaced(store: Store) -> None:
    names = [("relu", 1), ("gelu", 1), ("gelu", 2)]
    paths = [store.trial_path("weights", "tinylstm", activation, "a" * 64, trial) for activation, trial in names]
    for path, value in zip(paths, (0.0, 0.0, 1.0), strict=True):
        store.save_tensors(path, {"w": torch.full((9,), value)}, {})
    assert paths[0].samefile(paths[1])
    assert not paths[0].samefile(paths[2])
    assert [path.name for path in paths[0].parent.iterdir() if path.name.startswith(".")] == []
    before = paths[0].read_bytes()
    store.save_tensors(paths[1], {"w": torch.ones(9)}, {})
    assert (paths[0].read_bytes(), paths[1].samefile(paths[2])) == (before, True)
    paths[1].unlink()
    assert paths[2].exists()
    # Nothing of somebody else's is linked to.
    (paths[0].parent / "tinylstm-swish-aaaaaaaaaaaa-trial1.safetensors").symlink_to(paths[2])
    paths[1].write_bytes(paths[2].read_bytes())
    paths[2].rename(paths[2].with_name("elsewhere"))
    share(paths[1], "tinylstm-*")
    assert paths[1].stat().st_nlink == 1


def test_a_changed_file_is_not_what_its_result_names(store: Store) -> None:
    path, exact = store.trial_path("weights", "charlm", "relu", "a" * 64, 1), {"w": torch.randn(9)}
    record = TrialRecord.model_construct(weights_sha256=store.save_tensors(path, exact, {}, compact("weights", exact)))
    assert trial_tensors(path, "weights", record, 1, 9)
    tensors, words = read_tensors(path, 2**20)
    for changed in ({"w": tensors["w"] * 2}, exact):
        write_tensors(path, changed, words, packed=True)
        with pytest.raises(ResultError, match="does not hold the weights its result names"):
            trial_tensors(path, "weights", record, 1, 9)
