"""Predictions, weights and snapshots in files: they come back with their digest, or are refused with a reason."""

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from kinds import MakeResult

from repro_lib.store.schema import Result, ResultError
from repro_lib.store.store import Store
from repro_lib.store.tensors import read_tensors, write_tensors
from repro_lib.system.files import UnusableFile


def path_of(store: Store, kind: Any, trial: int) -> Path:
    return store.trial_path(kind, "charlm", "relu", "a" * 64, trial)


@pytest.fixture
def stored(make_result: MakeResult, store: Store) -> Result:
    """A result of two trials whose predictions and weights lie in the store."""
    generator, result, trials = torch.Generator().manual_seed(0), make_result(), []
    for record in result.trials:
        logits = {"logits": torch.randn(6, 4, generator=generator), "labels": torch.tensor([0, 1, 2, 3, 0, 1])}
        weights = {"head.weight": torch.randn(4, 3, generator=generator).T}  # not contiguous
        digests = {
            f"{kind}_sha256": store.save_tensors(path_of(store, kind, record.trial), tensors, {"about": "a test"})
            for kind, tensors in (("predictions", logits), ("weights", weights))
        }
        trials.append(record.model_copy(update=digests))
    evaluation = result.evaluation.model_copy(update={"tokens": 6})
    return result.model_copy(update={"trials": trials, "evaluation": evaluation, "config_sha256": "a" * 64})


def test_predictions_and_weights_come_back_with_the_digest_of_the_evaluation(stored: Result, store: Store) -> None:
    predictions = store.predictions(stored, 2)
    assert (predictions.logits.shape, predictions.logits.dtype.name) == ((6, 4), "float32")
    assert predictions.labels.tolist() == [0, 1, 2, 3, 0, 1]
    assert predictions.evaluation_sha256 == stored.evaluation.sha256
    assert predictions.probabilities.dtype.name == "float64"
    assert predictions.probabilities.sum(axis=1) == pytest.approx([1] * 6)
    assert store.weights(stored, 1)["head.weight"].shape == (3, 4)


def test_snapshots_come_back_and_a_result_without_them_says_so(stored: Result, store: Store) -> None:
    path, labels = path_of(store, "steps", 1), torch.tensor([0, 1, 2, 3, 0, 1])
    tensors = {"logits": torch.ones(3, 6, 4), "labels": labels, "steps": torch.tensor([0, 1, 4])}
    first = stored.trials[0].model_copy(update={"steps_sha256": store.save_tensors(path, tensors, {})})
    result = stored.model_copy(update={"trials": [first, stored.trials[1]]})
    kept = store.snapshots(result, 1)
    assert (kept.steps, kept.logits.shape, kept.labels.tolist()) == ((0, 1, 4), (3, 6, 4), labels.tolist())
    with pytest.raises(ResultError, match="charlm with relu was trained by a version that kept no predictions during training"):
        store.snapshots(result, 2)
    store.save_tensors(path, tensors | {"labels": labels.flip(0)}, {})
    with pytest.raises(ResultError, match="does not hold the steps its result names"):
        store.snapshots(result, 1)


@pytest.mark.parametrize("kind", ["predictions", "weights"])
def test_files_of_another_trial_and_missing_or_damaged_ones_say_what_to_do(kind: Any, stored: Result, store: Store) -> None:
    path, read = path_of(store, kind, 1), getattr(store, kind)
    whole, other = path.read_bytes(), path_of(store, kind, 2).read_bytes()
    unreadable = rf"{path.name} cannot be read .*--force"
    said = dict.fromkeys((whole[:-1], whole[:20], b"", b"\xff" * 64, b"not tensors"), unreadable)
    for content, reason in (said | {other: f"{path.name} does not hold the {kind} its result names"}).items():
        path.write_bytes(content)
        with pytest.raises(ResultError, match=reason):
            read(stored, 1)
    assert read(stored, 2)
    path.unlink()
    with pytest.raises(ResultError, match=rf"{path.name} is missing; run the cell again with --force"):
        read(stored, 1)


def test_any_changed_byte_of_the_predictions_is_found_or_makes_no_difference(stored: Result, store: Store) -> None:
    path = path_of(store, "predictions", 1)
    whole, logits = path.read_bytes(), store.predictions(stored, 1).logits.tolist()
    # Every byte of the header, whose end the numbers follow, and every other of the rest.
    for place in [*range(200), *range(200, len(whole), 2)]:
        for flip in (0x01, 0x80):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ flip]) + whole[place + 1 :])
            try:
                read = store.predictions(stored, 1).logits.tolist()
            except ResultError as error:
                read = str(error)
            assert read == logits or path.name in read


def test_tensor_files_are_safetensors_with_words_inside(stored: Result, store: Store, tmp_path: Path) -> None:
    path = path_of(store, "predictions", 1)
    with safetensors.safe_open(path, "pt") as file:
        words = json.loads(file.metadata()["words"])
        assert (words["about"], words["exact_sha256"]) == ("a test", stored.trials[0].predictions_sha256)
        assert set(file.keys()) == {"logits", "labels"}
    assert path.parent == store.folder / "predictions"
    # Words about tensors have one spelling, and come back.
    tensors, words = {"b": torch.zeros(3), "a": torch.arange(2)}, {"two": "2", "one": "\u00e9 \n {}"}
    write_tensors(tmp_path / "first", tensors, words)
    write_tensors(tmp_path / "second", dict(reversed(tensors.items())), dict(reversed(words.items())))
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    assert read_tensors(tmp_path / "first", 10_000)[1] == words


def test_words_as_earlier_versions_wrote_them_are_read_and_foreign_ones_refused(tmp_path: Path) -> None:
    path, tensors = tmp_path / "words.safetensors", {"a": torch.zeros(3)}
    for words in ({}, {"one": "1", "two": "2"}, {"checkpoint": "{}"}):
        path.write_bytes(safetensors.torch.save(tensors, metadata=words))
        assert read_tensors(path, 10_000)[1] == words
    for text in ("", "{", "[]", '{"one": 1}', "[" * 100_000):
        path.write_bytes(safetensors.torch.save(tensors, metadata={"words": text}))
        with pytest.raises(UnusableFile, match="words about its tensors"):
            read_tensors(path, 10**6)


def test_an_activation_has_one_tensor_file_however_it_is_spelled(store: Store) -> None:
    rest = ("a" * 64, 1)
    one, other = (store.trial_path("weights", "charlm", name, *rest) for name in ("smelu_0.50", "smelu_05"))
    assert one == other
    for model, activation in (("../charlm", "relu"), ("charlm", "../relu")):
        with pytest.raises(ValueError, match=r"unknown model|unknown activation"):
            store.trial_path("weights", model, activation, *rest)
