"""The text of a result file: read as it was written, or refused with a reason."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from repro_lib.config import Config, canonical_json
from repro_lib.store.schema import Result, ResultError
from repro_lib.store.store import Store, read_result
from repro_lib.system.files import write_atomically

MakeResult = Callable[..., Result]


RESULT_KEYS = {
    *("schema_version", "content_sha256", "model_name", "activation", "parameters", "profile", "config", "config_sources"),
    *("config_sha256", "corpus", "evaluation", "avg_relative_pd", "mean_deviation_pd", "avg_val_loss", "avg_val_accuracy"),
    *("reproducibility_metrics", "trials", "flags", "synthetic", "environment", "timestamp"),
}


TRIAL_KEYS = {
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


def test_a_result_is_read_as_it_was_written(make_result: MakeResult, store: Store) -> None:
    for result in (make_result(), make_result("tinylstm", "smelu_1.5", trials=1), make_result(synthetic=True, trials=4)):
        assert read_result(store.save(result)) == result


def test_a_result_file_has_its_documented_keys(make_result: MakeResult) -> None:
    content = json.loads(make_result().to_json())
    assert set(content) == RESULT_KEYS
    assert next(iter(content)) == "content_sha256"
    assert set(content["trials"][0]) == TRIAL_KEYS
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
    for key in RESULT_KEYS - {"content_sha256", "schema_version"}:
        path.write_text(signed({name: value for name, value in content.items() if name != key}))
        assert re.search(rf"is not a valid result: {key}: Field required", refusal(path))
    del content["content_sha256"]
    path.write_text(json.dumps(content))
    assert "has no content_sha256" in refusal(path)
    path.write_text(signed({key: value for key, value in content.items() if key != "schema_version"}))
    assert "has schema version None" in refusal(path)


def test_a_trial_without_any_one_of_its_keys_is_refused(make_result: MakeResult, store: Store) -> None:
    path = store.save(make_result())
    for key in set(TRIAL_KEYS) - {"steps_sha256", "stack"}:  # those that may be missing
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
