"""Predictions, weights and snapshots in files: they come back with their digest, or are refused with a reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from repro_lib.store.schema import Result, ResultError
from repro_lib.store.store import Store
from repro_lib.store.tensors import read_tensors, write_tensors
from repro_lib.system.files import UnusableFile

MakeResult = Callable[..., Result]


@pytest.fixture
def stored(make_result: MakeResult, store: Store) -> Result:
    """A result of two trials whose predictions and weights lie in the store."""
    generator = torch.Generator().manual_seed(0)
    digests = []
    for trial in (1, 2):
        paths = {
            kind: store.trial_path(kind, "charlm", "relu", make_result().config_sha256, trial)
            for kind in ("predictions", "weights")
        }
        logits = {"logits": torch.randn(6, 4, generator=generator), "labels": torch.tensor([0, 1, 2, 3, 0, 1])}
        weights = {"head.weight": torch.randn(4, 3, generator=generator).T}  # not contiguous
        digests.append({"predictions_sha256": store.save_tensors(paths["predictions"], logits, {"about": "a test"})})
        digests[-1]["weights_sha256"] = store.save_tensors(paths["weights"], weights, {})
    trials = [record.model_copy(update=digest) for record, digest in zip(make_result().trials, digests, strict=True)]
    evaluation = make_result().evaluation.model_copy(update={"tokens": 6})
    return make_result(trials=2).model_copy(update={"trials": trials, "evaluation": evaluation})


def test_predictions_and_weights_come_back_with_the_digest_of_the_evaluation(stored: Result, store: Store) -> None:
    predictions = store.predictions(stored, 2)
    assert predictions.logits.shape == (6, 4)
    assert predictions.logits.dtype.name == "float32"
    assert predictions.labels.tolist() == [0, 1, 2, 3, 0, 1]
    assert predictions.evaluation_sha256 == stored.evaluation.sha256
    assert predictions.probabilities.dtype.name == "float64"
    assert predictions.probabilities.sum(axis=1) == pytest.approx([1] * 6)
    assert store.weights(stored, 1)["head.weight"].shape == (3, 4)


def test_snapshots_come_back_and_a_result_without_them_says_so(cell_with_snapshots: tuple[Store, Result]) -> None:
    store, result = cell_with_snapshots
    kept = store.snapshots(result, 1)
    assert kept.steps == (0, 1, 4)
    assert kept.logits.shape == (3, 6, 4)
    assert kept.labels.tolist() == [0, 1, 2, 3, 0, 1]
    with pytest.raises(ResultError, match="charlm with relu was trained by a version that kept no predictions during training"):
        store.snapshots(result, 2)
    path = store.trial_path("steps", "charlm", "relu", result.config_sha256, 1)
    store.save_tensors(path, {"logits": torch.zeros(3, 6, 4), "labels": torch.zeros(6), "steps": torch.tensor([0, 1, 4])}, {})
    with pytest.raises(ResultError, match="does not hold the steps its result names"):
        store.snapshots(result, 1)


@pytest.fixture
def cell_with_snapshots(make_result: MakeResult, store: Store) -> tuple[Store, Result]:
    """A result of two trials, the first with snapshots of three steps."""
    path = store.trial_path("steps", "charlm", "relu", make_result().config_sha256, 1)
    tensors = {"logits": torch.ones(3, 6, 4), "labels": torch.tensor([0, 1, 2, 3, 0, 1]), "steps": torch.tensor([0, 1, 4])}
    first, second = make_result(trials=2).trials
    first = first.model_copy(update={"steps_sha256": store.save_tensors(path, tensors, {})})
    return store, make_result(trials=2).model_copy(update={"trials": [first, second]})


@pytest.mark.parametrize("kind", ["predictions", "weights"])
def test_tensors_of_another_trial_are_refused(kind: Any, stored: Result, store: Store) -> None:
    first, second = (store.trial_path(kind, "charlm", "relu", stored.config_sha256, trial) for trial in (1, 2))
    first.write_bytes(second.read_bytes())
    with pytest.raises(ResultError, match=rf"trial1\.safetensors does not hold the {kind} its result names"):
        getattr(store, kind)(stored, 1)
    assert getattr(store, kind)(stored, 2)


@pytest.mark.parametrize("kind", ["predictions", "weights"])
def test_missing_truncated_and_foreign_tensor_files_are_refused_and_say_what_to_do(
    kind: Any, stored: Result, store: Store
) -> None:
    path = store.trial_path(kind, "charlm", "relu", stored.config_sha256, 1)
    whole = path.read_bytes()
    for content in (whole[:-1], whole[:20], b"", b"\xff" * 64, b"not tensors"):
        path.write_bytes(content)
        with pytest.raises(ResultError, match=r"trial1\.safetensors cannot be read .*--force"):
            getattr(store, kind)(stored, 1)
    path.unlink()
    with pytest.raises(ResultError, match=r"trial1\.safetensors is missing; run the cell again with --force"):
        getattr(store, kind)(stored, 1)


def test_any_changed_byte_of_the_predictions_is_found_or_makes_no_difference(stored: Result, store: Store) -> None:
    path = store.trial_path("predictions", "charlm", "relu", stored.config_sha256, 1)
    whole, logits = path.read_bytes(), store.predictions(stored, 1).logits.tolist()
    for place in range(len(whole)):
        for flip in (0x01, 0x80):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ flip]) + whole[place + 1 :])
            try:
                read = store.predictions(stored, 1).logits.tolist()
            except ResultError as error:
                read = str(error)
            assert read == logits or str(path) in read


def test_tensor_files_are_safetensors_with_the_digests_inside(stored: Result, store: Store) -> None:
    path = store.trial_path("predictions", "charlm", "relu", stored.config_sha256, 1)
    with safetensors.safe_open(path, "pt") as file:
        assert file.metadata() == {"words": '{"about": "a test"}'}
        assert set(file.keys()) == {"logits", "labels"}
    assert path.parent == store.folder / "predictions"


def test_words_about_tensors_have_one_spelling_and_come_back(tmp_path: Path) -> None:
    tensors, words = {"b": torch.zeros(3), "a": torch.arange(2)}, {"two": "2", "one": "\u00e9 \n {}"}
    write_tensors(tmp_path / "first", tensors, words)
    write_tensors(tmp_path / "second", dict(reversed(tensors.items())), dict(reversed(words.items())))
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    assert read_tensors(tmp_path / "first", 10_000)[1] == words


@pytest.mark.parametrize("words", [{}, {"one": "1", "two": "2"}, {"checkpoint": "{}"}])
def test_words_as_earlier_versions_wrote_them_are_read(words: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "old.safetensors"
    path.write_bytes(safetensors.torch.save({"a": torch.zeros(3)}, metadata=words))
    assert read_tensors(path, 10_000)[1] == words


@pytest.mark.parametrize("text", ["", "{", "[]", '{"one": 1}', "[" * 100_000])
def test_words_that_this_program_did_not_write_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    path.write_bytes(safetensors.torch.save({"a": torch.zeros(3)}, metadata={"words": text}))
    with pytest.raises(UnusableFile, match="words about its tensors"):
        read_tensors(path, 10**6)


def test_an_activation_has_one_tensor_file_however_it_is_spelled(store: Store) -> None:
    assert store.trial_path("weights", "charlm", "smelu_0.50", "a" * 64, 1) == store.trial_path(
        "weights", "charlm", "smelu_05", "a" * 64, 1
    )
    with pytest.raises(ValueError, match="unknown model"):
        store.trial_path("weights", "../charlm", "relu", "a" * 64, 1)
    with pytest.raises(ValueError, match="unknown activation"):
        store.trial_path("weights", "charlm", "../relu", "a" * 64, 1)
