"""The text of a result file: read as it was written, or refused with a reason."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kinds import MakeResult

from repro_lib.store.parts import digest_of
from repro_lib.store.schema import ResultError
from repro_lib.store.store import Store, read_result

RESULT_KEYS = {
    *("schema_version", "content_sha256", "model_name", "activation", "parameters", "profile", "config", "config_sources"),
    *("config_sha256", "corpus", "evaluation", "avg_relative_pd", "mean_deviation_pd", "avg_val_loss", "avg_val_accuracy"),
    *("reproducibility_metrics", "trials", "flags", "unanimity", "synthetic", "environment", "timestamp"),
}
TRIAL_KEYS = {
    *("trial", "seed", "train_loss_curve", "val_loss_curve", "val_loss", "val_accuracy", "seconds", "init_sha256"),
    *("weights_sha256", "predictions_sha256", "steps_sha256", "stack"),
}


def signed(content: dict[str, Any]) -> str:
    """The text of a result file whose digest fits, whatever it holds."""
    content = {key: value for key, value in content.items() if key != "content_sha256"}
    return json.dumps({"content_sha256": digest_of(content), **content})


def refusal(path: Path, text: str | bytes | None = None) -> str:
    """Why a file (with this ``text``) is refused; the message names the file."""
    if text is not None:
        path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ResultError) as caught:
        read_result(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.fixture
def saved(make_result: MakeResult, store: Store) -> tuple[Path, dict[str, Any]]:
    """The file of a valid result, and what it holds."""
    path = store.save(make_result())
    return path, json.loads(path.read_text())


def test_a_result_is_read_as_it_was_written(make_result: MakeResult, store: Store) -> None:
    stacked = [record.model_copy(update={"stack": [1, 2]}) for record in make_result().trials]
    one, invented = make_result("tinylstm", "smelu_1.5", trials=1), make_result(synthetic=True, trials=4)
    for result in (make_result(), one, invented, make_result(trials=2).model_copy(update={"trials": stacked})):
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


def test_fields_are_read_as_attributes_or_as_items(make_result: MakeResult) -> None:
    result = make_result()
    assert result["avg_relative_pd"] == result.avg_relative_pd == 0.5
    assert result["trials"][0]["val_loss"] == result.trials[0].val_loss
    for wrong in ("avg_pd", "to_json", "__class__", "model_config"):
        with pytest.raises(KeyError, match="known: schema_version, model_name"):
            result[wrong]


def test_another_schema_version_is_refused_and_both_versions_are_named(saved: tuple[Path, Any]) -> None:
    for version in (0, 2, "1", None, [1]):
        reason = refusal(saved[0], signed(saved[1] | {"schema_version": version}))
        assert f"has schema version {version!r}, this program reads 1" in reason


def test_a_file_without_any_one_of_its_keys_is_refused(saved: tuple[Path, Any]) -> None:
    path, content = saved
    reasons = {key: f"is not a valid result: {key}: Field required" for key in RESULT_KEYS - {"unanimity"}}
    reasons |= {"content_sha256": "has no content_sha256", "schema_version": "has schema version None"}
    for key, reason in reasons.items():
        text = json.loads(signed({name: value for name, value in content.items() if name != key}))
        assert reason in refusal(path, json.dumps({name: value for name, value in text.items() if name != key}))
    first, second = content["trials"]
    for key in TRIAL_KEYS - {"steps_sha256", "stack"}:  # those that may be missing
        reason = refusal(path, signed(content | {"trials": [first, {n: v for n, v in second.items() if n != key}]}))
        assert f"trials.1.{key}: Field required" in reason


WRONG = [("avg_relative_pd", "0.5"), ("avg_relative_pd", 2.5), ("avg_val_accuracy", 101), ("parameters", 1.5), ("synthetic", 0)]
WRONG += [("trials", []), ("config_sha256", "abc"), ("model_name", "../../etc/passwd"), ("activation", "a/b")]
WRONG += [("timestamp", "yesterday"), ("colour", "red")]


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_a_value_of_the_wrong_kind_is_refused_by_name(key: str, value: Any, saved: tuple[Path, Any]) -> None:
    assert f"is not a valid result: {key}" in refusal(saved[0], signed(saved[1] | {key: value}))


def numbers(**changes: float | None) -> Callable[[Any], None]:
    return lambda content: content["reproducibility_metrics"].update(changes)


@pytest.mark.parametrize(
    ("mistake", "reason"),
    [
        # Trials put together by hand, or in the wrong order.
        (lambda content: content["trials"].reverse(), "trials: number 1 is called trial 2"),
        (lambda content: content["trials"].extend(content["trials"] * 2_000), "trials: number 3 is called trial 1"),
        (lambda of: of["trials"].append(of["trials"][1] | {"trial": 3}), "reproducibility_metrics: relative_pd has no number"),
        (lambda content: content["trials"].pop(), "avg_relative_pd, mean_deviation_pd: they are there where"),
        # A number that was corrected in one place.
        (lambda content: content.update(avg_val_loss=3.0), "avg_val_loss: 3.0 is not the mean, 3.0625,"),
        (lambda content: content.update(avg_relative_pd=0.4), "avg_relative_pd: 0.4 is not the mean, 0.5,"),
        (numbers(churn=0.2), "reproducibility_metrics: churn: 0.2 is not the mean, 0.125,"),
        (numbers(churn_1_2=None), "reproducibility_metrics: churn lies between 0 and 1"),
        (numbers(js_divergence=0.7, js_divergence_1_2=0.7), "reproducibility_metrics: js_divergence lies between 0 and 0.6931"),
        (numbers(total_variation=-0.1, total_variation_1_2=-0.1), "reproducibility_metrics: total_variation lies between 0"),
        (lambda content: content["reproducibility_metrics"].pop("churn"), "reproducibility_metrics: churn has no average"),
        # What another version wrote.
        (lambda content: content["config"].pop("vary"), "config: vary is missing"),
        (lambda content: content.update(model_name="bigram"), "model_name: unknown model 'bigram'; known: charlm"),
        (lambda content: content.update(activation="smelu_0.5"), "activation: 'smelu_0.5' is stored as 'smelu_05'"),
        # A stand-in without the mark that says what it is.
        (lambda content: content["corpus"].update(sha256="facade" * 2 + "0" * 52), "synthetic: its digests are those of"),
    ],
)
def test_an_honest_mistake_is_named(mistake: Callable[[Any], None], reason: str, saved: tuple[Path, Any]) -> None:
    path, content = saved
    mistake(content)
    assert f"is not a valid result: {reason}" in refusal(path, signed(content))


def test_a_file_that_claims_millions_of_pairs_is_refused_before_they_are_listed(saved: tuple[Path, Any]) -> None:
    trials = [saved[1]["trials"][0] | {"trial": k} for k in range(1, 3_001)]
    reason = refusal(saved[0], signed(saved[1] | {"trials": trials}))
    assert "relative_pd has no number for each of the 4498500 pairs of trials" in reason


def test_what_json_does_not_have_is_refused(make_result: MakeResult, saved: tuple[Path, Any]) -> None:
    path, whole = saved[0], saved[0].read_text()
    for word in ("NaN", "Infinity", "-Infinity", "1e999"):
        changed = re.sub(r'"avg_val_loss": [\d.]+', f'"avg_val_loss": {word}', whole)
        assert changed != whole
        assert "was changed after it was written" in refusal(path, changed)
        # Nor can a result with such a number be made.
        with pytest.raises(ValueError, match="finite"):
            make_result(avg_val_loss=float(word))
    for content in (b"[]", b'"result"', b"1", b"null", b"true", b"\xff\xfe\x00", b"\x00" * 100, b"9" * 5000):
        assert re.search("a JSON object was expected|is not a whole JSON file", refusal(path, content))


@pytest.mark.parametrize(("opening", "closing"), ["[]", ('{"a":', "}")])
def test_nesting_of_any_depth_is_refused_and_not_a_crash(opening: str, closing: str, tmp_path: Path) -> None:
    path = tmp_path / "charlm-relu-20250101_120000.json"
    # Every depth around Python's limit: reading, signing and checking a value reach it at different ones.
    for depth in [50, 500, *range(sys.getrecursionlimit() - 150, sys.getrecursionlimit() + 5), 200_000]:
        nested = opening * depth + "1" + closing * depth
        for text in (nested, f'{{"schema_version": 1, "content_sha256": "{"0" * 64}", "config": {nested}}}'):
            assert refusal(path, text)
