"""Result files: written whole or not at all, read as written or refused with a reason."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from repro_lib.config import Config, canonical_json
from repro_lib.store.schema import LARGEST_RESULT_BYTES, Result, ResultError
from repro_lib.store.store import Store, read_result
from repro_lib.store.tensors import read_tensors, write_tensors
from repro_lib.system.files import UnusableFile, write_atomically

MakeResult = Callable[..., Result]

DESIGN_KEYS = {
    *("schema_version", "content_sha256", "model_name", "activation", "parameters", "profile", "config", "config_sources"),
    *("config_sha256", "corpus", "evaluation", "avg_relative_pd", "mean_deviation_pd", "avg_val_loss", "avg_val_accuracy"),
    *("reproducibility_metrics", "trials", "flags", "synthetic", "environment", "timestamp"),
}
DESIGN_TRIAL_KEYS = {
    *("trial", "seed", "train_loss_curve", "val_loss_curve", "val_loss", "val_accuracy", "seconds", "init_sha256"),
    *("weights_sha256", "predictions_sha256", "steps_sha256", "stack"),
}


def signed(content: dict[str, Any]) -> str:
    """The text of a result file whose digest fits, whatever it holds."""
    content = {key: value for key, value in content.items() if key != "content_sha256"}
    return json.dumps({"content_sha256": hashlib.sha256(canonical_json(content).encode()).hexdigest(), **content})


def refusal(path: Path) -> str:
    """Why a file is refused; the message names the file."""
    with pytest.raises(ResultError) as caught:
        read_result(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


# --- writing and reading


def test_a_result_is_read_as_it_was_written(make_result: MakeResult, store: Store) -> None:
    for result in (make_result(), make_result("tinylstm", "smelu_1.5", trials=1), make_result(synthetic=True, trials=4)):
        assert read_result(store.save(result)) == result


def test_a_result_file_has_the_keys_of_the_design(make_result: MakeResult) -> None:
    content = json.loads(make_result().to_json())
    assert set(content) == DESIGN_KEYS
    assert next(iter(content)) == "content_sha256"
    assert set(content["trials"][0]) == DESIGN_TRIAL_KEYS
    assert {"name", "sha256"} <= set(content["corpus"])
    assert {"sha256", "tokens"} <= set(content["evaluation"])
    assert {"python", "git_commit"} <= set(content["environment"])
    assert content["content_sha256"] == json.loads(signed(content))["content_sha256"]


@pytest.mark.parametrize("stacks", [[[1]], [[1, 2], [1, 2], [3]]])
def test_a_result_says_which_trials_were_trained_as_one(stacks: list[list[int]], make_result: MakeResult) -> None:
    result = make_result(trials=len(stacks), config=Config.for_model("charlm", "smoke", execution="stacked"))
    trials = [record.model_copy(update={"stack": stack}) for record, stack in zip(result.trials, stacks, strict=True)]
    result = result.model_copy(update={"trials": trials})
    assert [record.stack for record in Result.from_json(result.to_json()).trials] == stacks


def test_fields_are_read_as_attributes_or_as_items(make_result: MakeResult) -> None:
    result = make_result()
    assert result["avg_relative_pd"] == result.avg_relative_pd == 0.5
    assert result["trials"][0]["val_loss"] == result.trials[0].val_loss
    for wrong in ("avg_pd", "to_json", "__class__", "model_config"):
        with pytest.raises(KeyError, match="known: schema_version, model_name"):
            result[wrong]


def test_a_result_cannot_be_changed(make_result: MakeResult) -> None:
    with pytest.raises(ValueError, match="frozen"):
        make_result().avg_relative_pd = 0.0


def test_the_file_is_named_after_the_cell_and_its_time_in_utc(make_result: MakeResult, store: Store) -> None:
    path = store.save(make_result("charlm", "smelu_05"))
    assert path == store.folder / "charlm-smelu_05-20250101_120000.json"
    elsewhere = datetime(2025, 1, 2, 1, 30, tzinfo=timezone(timedelta(hours=2)))
    assert store.save(make_result(timestamp=elsewhere)).name == "charlm-relu-20250101_233000.json"


def test_saving_never_overwrites(make_result: MakeResult, store: Store) -> None:
    first, second, third = (make_result(pd=pd) for pd in (0.1, 0.2, 0.3))
    paths = [store.save(result) for result in (first, second, third)]
    assert [path.name.removeprefix("charlm-relu-20250101_120000") for path in paths] == [".json", "-2.json", "-3.json"]
    assert [read_result(path) for path in paths] == [first, second, third]
    assert sorted(store.folder.iterdir()) == sorted(paths), "no temporary file stays behind"


def test_results_saved_at_the_same_moment_all_arrive(make_result: MakeResult, store: Store) -> None:
    results = [make_result(pd=k / 10) for k in range(8)]
    threads = [threading.Thread(target=store.save, args=(result,)) for result in results]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    loaded, refused = store.load()
    assert refused == []
    assert sorted(result.avg_relative_pd or 0 for _, result in loaded) == [k / 10 for k in range(8)]
    assert len(list(store.folder.iterdir())) == 8


def test_loading_gives_the_oldest_first_and_changes_nothing(make_result: MakeResult, store: Store) -> None:
    for minute in (3, 1, 2):
        store.save(make_result(minute=minute))
    before = {path: path.stat().st_mtime_ns for path in store.folder.iterdir()}
    loaded, refused = store.load()
    assert [result.timestamp.minute for _, result in loaded] == [1, 2, 3]
    assert refused == []
    assert {path: path.stat().st_mtime_ns for path in store.folder.iterdir()} == before


def test_a_folder_that_does_not_exist_holds_no_results(tmp_path: Path) -> None:
    store = Store(tmp_path / "nothing")
    assert store.load() == ([], [])
    assert store.find("charlm", "relu", "0" * 64) is None
    assert store.failures() == []
    assert not store.folder.exists()


# --- files that are refused


def test_a_truncated_file_is_refused_wherever_it_is_cut(make_result: MakeResult, store: Store) -> None:
    path = store.save(make_result())
    whole = path.read_bytes()
    for length in [0, 1, *range(2, len(whole) - 1, 97), len(whole) - 2]:
        path.write_bytes(whole[:length])
        assert "is not a whole JSON file" in refusal(path)


@pytest.mark.parametrize("version", [0, 2, "1", None, [1]])
def test_another_schema_version_is_refused_and_both_versions_are_named(
    version: Any, make_result: MakeResult, store: Store
) -> None:
    path = store.save(make_result())
    path.write_text(signed(json.loads(path.read_text()) | {"schema_version": version}))
    assert f"has schema version {version!r}, this program reads 1" in refusal(path)


def test_a_file_without_any_one_of_its_keys_is_refused(make_result: MakeResult, store: Store) -> None:
    path = store.save(make_result())
    content = json.loads(path.read_text())
    for key in DESIGN_KEYS - {"content_sha256", "schema_version"}:
        path.write_text(signed({name: value for name, value in content.items() if name != key}))
        assert re.search(rf"is not a valid result: {key}: Field required", refusal(path))
    del content["content_sha256"]
    path.write_text(json.dumps(content))
    assert "has no content_sha256" in refusal(path)
    path.write_text(signed({key: value for key, value in content.items() if key != "schema_version"}))
    assert "has schema version None" in refusal(path)


def test_a_trial_without_any_one_of_its_keys_is_refused(make_result: MakeResult, store: Store) -> None:
    path = store.save(make_result())
    for key in set(DESIGN_TRIAL_KEYS) - {"steps_sha256", "stack"}:  # those that may be missing
        content = json.loads(make_result().to_json())
        del content["trials"][1][key]
        path.write_text(signed(content))
        assert f"trials.1.{key}: Field required" in refusal(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("avg_relative_pd", "0.5"),
        ("avg_relative_pd", 2.5),
        ("avg_val_accuracy", 101),
        ("parameters", 1.5),
        ("synthetic", 0),
        ("trials", []),
        ("config_sha256", "abc"),
        ("model_name", "../../etc/passwd"),
        ("activation", "a/b"),
        ("timestamp", "yesterday"),
        ("colour", "red"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_by_name(key: str, value: Any, make_result: MakeResult, store: Store) -> None:
    path = store.save(make_result())
    path.write_text(signed(json.loads(path.read_text()) | {key: value}))
    assert f"is not a valid result: {key}" in refusal(path)


def numbers(**changes: float | None) -> Callable[[Any], None]:
    return lambda content: content["reproducibility_metrics"].update(changes)


@pytest.mark.parametrize(
    ("mistake", "reason"),
    [
        # Trials put together by hand, or in the wrong order.
        (lambda content: content["trials"].reverse(), "trials: number 1 is called trial 2"),
        (lambda content: content["trials"].extend(content["trials"] * 2_000), "trials: number 3 is called trial 1"),
        (
            lambda content: content["trials"].append(content["trials"][1] | {"trial": 3}),
            "reproducibility_metrics: relative_pd has no number",
        ),
        (lambda content: content["trials"].pop(), "avg_relative_pd, mean_deviation_pd: they are there where"),
        # A number that was corrected in one place.
        (lambda content: content.update(avg_val_loss=3.0), "avg_val_loss: 3.0 is not the mean, 3.0625,"),
        (lambda content: content.update(avg_relative_pd=0.4), "avg_relative_pd: 0.4 is not the mean, 0.5,"),
        (numbers(churn=0.2), "reproducibility_metrics: churn: 0.2 is not the mean, 0.125,"),
        (numbers(churn_1_2=None), "reproducibility_metrics: churn lies between 0 and 1"),
        (numbers(js_divergence=0.7, js_divergence_1_2=0.7), "reproducibility_metrics: js_divergence lies between 0 and 0.6931"),
        (
            numbers(total_variation=-0.1, total_variation_1_2=-0.1),
            "reproducibility_metrics: total_variation lies between 0",
        ),
        (lambda content: content["reproducibility_metrics"].pop("churn"), "reproducibility_metrics: churn has no average"),
        # What another version wrote.
        (lambda content: content["config"].pop("vary"), "config: vary is missing"),
        (lambda content: content.update(model_name="bigram"), "model_name: unknown model 'bigram'; known: charlm"),
        (lambda content: content.update(activation="smelu_0.5"), "activation: 'smelu_0.5' is stored as 'smelu_05'"),
        # A stand-in without the mark that says what it is.
        (lambda content: content["corpus"].update(sha256="facade" * 2 + "0" * 52), "synthetic: its digests are those of"),
    ],
)
def test_an_honest_mistake_is_named(mistake: Callable[[Any], None], reason: str, make_result: MakeResult, store: Store) -> None:
    path = store.save(make_result())
    content = json.loads(path.read_text())
    mistake(content)
    path.write_text(signed(content))
    assert f"is not a valid result: {reason}" in refusal(path)


def test_a_file_that_claims_millions_of_pairs_is_refused_before_they_are_listed(make_result: MakeResult, store: Store) -> None:
    path = store.save(make_result())
    content = json.loads(path.read_text())
    content["trials"] = [content["trials"][0] | {"trial": k} for k in range(1, 3_001)]
    path.write_text(signed(content))
    assert "relative_pd has no number for each of the 4498500 pairs of trials" in refusal(path)


def test_every_altered_digit_is_found(make_result: MakeResult, store: Store) -> None:
    path = store.save(make_result())
    whole = path.read_text()
    digits = [match.start() for match in re.finditer(r"\d", whole)]
    assert len(digits) > 300
    for place in digits[::5]:
        other = str((int(whole[place]) + 1) % 10)
        path.write_text(whole[:place] + other + whole[place + 1 :])
        in_a_key_we_need = whole[:place].endswith(("content_sha", "content_sha2", "content_sha25"))
        expected = (
            ("has no content_sha256",) if in_a_key_we_need else ("was changed after it", "schema version", "not a whole JSON")
        )
        assert any(words in refusal(path) for words in expected)


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_json_does_not_have_are_refused(word: str, make_result: MakeResult, store: Store) -> None:
    path = store.save(make_result())
    path.write_text(re.sub(r'"avg_val_loss": [\d.]+', f'"avg_val_loss": {word}', path.read_text()))
    assert word in path.read_text()
    assert "was changed after it was written" in refusal(path)


def test_a_result_with_a_number_that_is_not_finite_cannot_be_made(make_result: MakeResult) -> None:
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="finite"):
            make_result(avg_val_loss=bad)
        with pytest.raises(ValueError, match="finite"):
            make_result(reproducibility_metrics={"pd_1_2": bad})


@pytest.mark.parametrize("text", ["[]", "[1, 2]", '"result"', "1", "null", "true"])
def test_json_that_is_no_object_is_refused(text: str, store: Store) -> None:
    path = store.folder / "charlm-relu-20250101_120000.json"
    write_atomically(path, text)
    assert "a JSON object was expected" in refusal(path)


@pytest.mark.parametrize(("opening", "closing"), ["[]", ('{"a":', "}")])
def test_nesting_of_any_depth_is_refused_and_not_a_crash(opening: str, closing: str, store: Store) -> None:
    path = store.folder / "charlm-relu-20250101_120000.json"
    # Every depth around Python's limit: reading, signing and checking a value reach it at different ones.
    for depth in [50, 500, *range(sys.getrecursionlimit() - 150, sys.getrecursionlimit() + 5), 200_000]:
        nested = opening * depth + "1" + closing * depth
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'{{"schema_version": 1, "content_sha256": "{"0" * 64}", "config": {nested}}}')
        assert refusal(path)
        path.write_text(nested)
        assert refusal(path)


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00", b"\x00" * 100, b'{"a": "\xff"}', b"9" * 5000, b'{"schema_version": \\ud800}']
)
def test_bytes_that_are_no_text_are_refused(content: bytes, store: Store) -> None:
    path = store.folder / "charlm-relu-20250101_120000.json"
    write_atomically(path, content)
    assert refusal(path)


def test_a_huge_file_is_refused_before_it_is_read(store: Store) -> None:
    path = store.folder / "charlm-relu-20250101_120000.json"
    write_atomically(path, "{}")
    os.truncate(path, LARGEST_RESULT_BYTES + 1)  # sparse: takes no room
    assert "is larger than 64 MiB" in refusal(path)


def test_a_folder_or_a_dead_link_with_the_name_of_a_result_is_refused(store: Store) -> None:
    (store.folder / "charlm-relu-20250101_120000.json").mkdir(parents=True)
    (store.folder / "charlm-relu-20250102_120000.json").symlink_to(store.folder / "nowhere")
    loaded, refused = store.load()
    assert loaded == []
    assert len(refused) == 2
    assert all("cannot be read" in sentence for sentence in refused)


def test_one_broken_file_does_not_hide_the_others(make_result: MakeResult, store: Store) -> None:
    good = [make_result(minute=minute) for minute in (1, 2)]
    for result in good:
        store.save(result)
    (store.folder / "charlm-relu-20250101_115959.json").write_text("{")
    loaded, refused = store.load()
    assert [result for _, result in loaded] == good
    assert len(refused) == 1
    assert "20250101_115959" in refused[0]


# --- predictions and weights


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


# --- failed cells


def test_a_failure_is_noted_beside_the_results_and_forgotten_on_success(store: Store, make_result: MakeResult) -> None:
    result = make_result()
    store.record_failure("charlm", "relu", result.config_sha256, "the loss became nan", notebook=Path("x.ipynb"))
    (note,) = store.failures()
    assert note["reason"] == "the loss became nan"
    assert note["notebook"] == "x.ipynb"
    assert datetime.fromisoformat(note["timestamp"]).tzinfo == UTC
    assert list(store.folder.glob("*.json")) == [], "only result files lie directly in the folder"
    assert store.find("charlm", "relu", result.config_sha256) is None
    store.forget_failure("charlm", "relu", result.config_sha256)
    store.forget_failure("charlm", "relu", result.config_sha256)
    assert store.failures() == []


def test_broken_notes_of_failures_do_not_hide_the_others(store: Store) -> None:
    store.record_failure("charlm", "relu", "0" * 64, "why")
    for name, content in [("a", b"{"), ("b", b"[]"), ("c", b"{}"), ("d", b"\xff"), ("e", b"[" * 100_000)]:
        (store.folder / "failed" / f"{name}.json").write_bytes(content)
    assert [note["reason"] for note in store.failures()] == ["why"]


# --- the files themselves


def test_a_file_is_replaced_whole_or_kept(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "file.txt"
    write_atomically(path, "one")
    write_atomically(path, b"two")
    assert path.read_text() == "two"
    with pytest.raises(FileExistsError):
        write_atomically(path, "three", replace=False)
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "\ud800")
    assert path.read_text() == "two"
    assert list(path.parent.iterdir()) == [path]


def test_a_write_that_fails_half_way_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_atomically(path, "old")
    # The system refuses to let this process write files longer than 10,000 bytes, as a full disk would.
    script = (
        "import resource, sys; from pathlib import Path; from repro_lib.system.files import write_atomically\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
        "write_atomically(Path(sys.argv[1]), 'x' * 1_000_000)"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", script, str(path)], cwd=root, capture_output=True, text=True, check=False)
    assert "OSError" in done.stderr
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_as_readable_as_any_other_new_file(tmp_path: Path) -> None:
    write_atomically(tmp_path / "ours", "x")
    (tmp_path / "plain").write_text("x")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ours", "plain")]
    assert modes[0] == modes[1]


def test_writing_onto_a_folder_leaves_no_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        write_atomically(tmp_path / "taken", "x")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_a_folder_without_hard_links_keeps_results_whole_and_overwrites_none(
    store: Store, make_result: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    first, second = store.save(make_result()), store.save(make_result(pd=0.25))
    assert first != second
    assert [result.avg_relative_pd for _, result in store.load()[0]] == [0.5, 0.25]
    assert not list(store.folder.glob(".*.tmp"))
