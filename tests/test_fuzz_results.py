"""Twelve thousand mutated result files: each is read as it was written or refused with a named reason.

A file that was signed anew may be another valid one; then it says exactly what it holds, its numbers can be true together,
and whatever reads a results folder can show it.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import math
import random
import re
import signal
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from repro_lib.analysis import Study
from repro_lib.config import MODEL_DEFAULTS, Config, canonical_json
from repro_lib.experiment import run_experiment
from repro_lib.metrics import METRIC_LIMITS, metric_names
from repro_lib.results import Result, ResultError, Store, read_result
from repro_lib.site_pages import write_index
from repro_lib.summary import summarise_store

OF_BYTES, OF_VALUES = 7000, 5000
REASONS = (
    "is not a whole JSON file (",
    "is not a result file: a JSON object was expected",
    "has schema version ",
    "has no content_sha256; ",
    "was changed after it was written (content_sha256 does not fit); ",
    "is not a valid result: ",
)
JUNK: list[Any] = [None, True, False, 0, 1, -1, 2, 1.5, -0.0, 1e-320, 1e308, 10**40, 2**63, "", "x", "0", "nan", "\ud800", "\0"]
JUNK += ["<script>alert(1)</script>", "../../x", "0" * 64, "A" * 64, "x" * 20_000, [], {}, [[]], [[1, 2]], {"x": None}]
JUNK += [[0] * 1000, "2025-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "relu", "charlm", "quick"]
# Of one file, on a machine that is busy with other things too.
SLOW_SECONDS = 60


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, tiny: Callable[..., Config]) -> Path:
    """The result file of a trained cell of three trials."""
    store = Store(tmp_path_factory.mktemp("fuzz"))
    run_experiment("charlm", "smelu_05", tiny("charlm", trials=3), results_dir=store.folder)
    (path,) = store.folder.glob("*.json")
    return path


@contextlib.contextmanager
def no_hang() -> Iterator[None]:
    """An error if the block is at work for longer than anything here takes."""

    def give_up(*_: object) -> None:
        raise TimeoutError("a file keeps its reader busy")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(SLOW_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def read_or_reason(path: Path) -> Result | str:
    """The result of a file, or the reason for which it is refused, without the path; any other error is the test's."""
    try:
        with no_hang():
            return read_result(path)
    except ResultError as error:
        said = str(error)
        assert said.startswith(f"{path} ")
        said = said.removeprefix(f"{path} ")
        assert said.startswith(REASONS), said
        assert len(said) < 1000
        return said


def mutated_bytes(content: bytes, chooser: random.Random) -> bytes:
    """One to three bytes or pieces flipped, cut, dropped, doubled, zeroed, moved or replaced."""
    for _ in range(chooser.choice([1, 1, 1, 2, 3])):
        kind = chooser.choice(["flip", "digit", "cut", "drop", "double", "zero", "noise", "move", "insert"])
        place, size = chooser.randrange(len(content) or 1), chooser.choice([1, 1, 2, 8, 64, 1024])
        before, piece, after = content[:place], content[place : place + size], content[place + size :]
        if kind == "flip" and piece:
            piece, after = bytes([piece[0] ^ (1 << chooser.randrange(8))]), content[place + 1 :]
        elif kind == "digit":
            digits = [match.start() for match in re.finditer(rb"\d", content)] or [0]
            place = chooser.choice(digits)
            before, piece, after = content[:place], str(chooser.randrange(10)).encode(), content[place + 1 :]
        elif kind == "cut":
            piece = after = b""
        elif kind == "move":
            rest = before + after
            target = chooser.randrange(len(rest) + 1)
            before, after = rest[:target], rest[target:]
        else:
            words = {"drop": b"", "double": piece * 2, "zero": bytes(len(piece)), "noise": chooser.randbytes(len(piece))}
            piece = words.get(kind, chooser.choice(b'"{}[],:0123456789.eE- \n\\').to_bytes(1, "big") + piece)
        content = before + piece + after
    return content


def holders(value: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of every value within a JSON value."""
    for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()):
        yield value, key
        yield from holders(inner)


def mutated_values(content: dict[str, Any], chooser: random.Random) -> dict[str, Any]:
    """A copy with one to three values replaced, nudged, swapped, removed, added, renamed or doubled."""
    content = copy.deepcopy(content)
    for _ in range(chooser.choice([1, 1, 1, 2, 3])):
        places = list(holders(content))
        if not places:
            break
        holder, key = chooser.choice(places)
        value, kind = holder[key], chooser.choice(["junk", "nudge", "nudge", "swap", "remove", "add", "rename", "double"])
        if kind == "junk":
            holder[key] = copy.deepcopy(chooser.choice(JUNK))
        elif kind == "nudge":
            holder[key] = nudged(value, chooser)
        elif kind == "swap":
            other, place = chooser.choice(places)
            holder[key], other[place] = copy.deepcopy(other[place]), copy.deepcopy(value)
        elif kind == "remove":
            del holder[key]
        elif isinstance(holder, list):
            holder.insert(key, copy.deepcopy(value))
        elif kind == "rename":
            holder[f"{key}_"] = holder.pop(key)
        else:
            holder[chooser.choice(["x", "", "pd_1_4", "pd_2_1", "trial", "\ud800"])] = copy.deepcopy(value)
    return content


def nudged(value: Any, chooser: random.Random) -> Any:
    """A value that is like this one, and is not."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int):
        return chooser.choice([value + 1, value - 1, -value, float(value), str(value), value * 10**30])
    if isinstance(value, float):
        return chooser.choice([value * 1.001, -value, value + 2, math.nextafter(value, 9), round(value), str(value), [value]])
    if isinstance(value, str):
        return chooser.choice([value + "x", value[1:], value.upper(), value[::-1], value.replace("0", "1", 1), f" {value}"])
    return chooser.choice([[value], {"x": value}, list(value), None])


def sign(content: dict[str, Any]) -> str:
    """The text of a result file whose digest fits."""
    content = {key: value for key, value in content.items() if key != "content_sha256"}
    return json.dumps({"content_sha256": hashlib.sha256(canonical_json(content).encode()).hexdigest(), **content})


def assert_says_what_it_holds(result: Result, content: dict[str, Any]) -> None:
    """Nothing was guessed, rounded away or left out on the way from the file to the result."""
    read = result.model_dump(mode="json")
    given = {key: value for key, value in content.items() if key != "content_sha256"}
    assert datetime.fromisoformat(given.pop("timestamp")) == result.timestamp
    del read["timestamp"]
    for record in given["trials"]:
        record.setdefault("steps_sha256", None)
    assert equal(read, given), {key: value for key, value in read.items() if not equal(value, given[key])}


def equal(read: Any, given: Any) -> bool:
    """Whether two JSON values are the same, a number where a whole one stands for it being the nearest
    that there is, and what was left out being null."""
    if isinstance(read, dict) and isinstance(given, dict):
        return given.keys() <= read.keys() and all(equal(value, given.get(key)) for key, value in read.items())
    if isinstance(read, list) and isinstance(given, list):
        return len(read) == len(given) and all(map(equal, read, given))
    return type(read) in (type(given), float) and read == (float(given) if isinstance(read, float) else given)


def assert_can_be_true(result: Result) -> None:
    """What must hold in every result, worked out here again and not by the checks of the library."""
    assert result.model_name in MODEL_DEFAULTS
    config, trials, numbers = result.config, result.trials, result.reproducibility_metrics
    assert len(trials) >= config["trials"]
    assert [record.trial for record in trials] == list(range(1, len(trials) + 1))
    assert [record.seed for record in trials] == [config["seed"] + k for k in range(len(trials))]
    for name in ("val_loss", "val_accuracy"):
        assert result[f"avg_{name}"] == pytest.approx(sum(record[name] for record in trials) / len(trials), rel=1e-8)
    for record in trials:
        assert math.isfinite(record.val_loss)
        assert 0 <= record.val_accuracy <= 100
        for curve in (record.train_loss_curve, record.val_loss_curve):
            assert [iteration for iteration, _ in curve] == sorted({iteration for iteration, _ in curve})
            assert all(1 <= iteration <= config["max_iters"] and 0 <= loss < math.inf for iteration, loss in curve)
    pairs = list(combinations(range(1, len(trials) + 1), 2))
    assert set(numbers) == {
        name for metric in metric_names() for name in (metric, *(f"{short(metric)}_{i}_{j}" for i, j in pairs)) if pairs
    }
    for metric in metric_names() if pairs else ():
        values = list(result.pairs(metric).values())
        assert all(0 <= value <= METRIC_LIMITS[metric] * (1 + 1e-8) for value in values)
        average = numbers[metric]
        assert (math.inf if average is None else average) == pytest.approx(sum(values) / len(values), rel=1e-8)
    assert result.avg_relative_pd == (pytest.approx(numbers["relative_pd"], rel=1e-8) if pairs else None)
    flags = " ".join(result.flags)
    for record in trials:
        learnt = record.val_loss < result.evaluation.unigram_cross_entropy
        assert learnt or f"untrained: trial {record.trial} " in flags


def short(metric: str) -> str:
    return "pd" if metric == "relative_pd" else metric


def test_files_with_mutated_bytes_are_read_as_they_were_written_or_refused(written: Path, tmp_path: Path) -> None:
    whole, chooser, refused = written.read_bytes(), random.Random(11), dict[str, int]()
    original, path = read_result(written), tmp_path / written.name
    for _ in range(OF_BYTES):
        path.write_bytes(mutated_bytes(whole, chooser))
        read = read_or_reason(path)
        if isinstance(read, str):
            kind = next(reason for reason in REASONS if read.startswith(reason))
            refused[kind] = refused.get(kind, 0) + 1
        else:
            assert read == original
    assert sum(refused.values()) > 0.9 * OF_BYTES
    assert {REASONS[0], REASONS[3], REASONS[4]} <= refused.keys()


def test_files_with_mutated_values_are_refused_unless_signed_anew_and_valid(written: Path, tmp_path: Path) -> None:
    content, chooser, valid = json.loads(written.read_text()), random.Random(12), 0
    original, path = read_result(written), tmp_path / written.name
    for k in range(OF_VALUES):
        mutant = mutated_values(content, chooser)
        if k % 5 == 0:  # as an editor would save it
            path.write_text(json.dumps(mutant))
            read = read_or_reason(path)
            assert isinstance(read, str) or read == original
            continue
        path.write_text(sign(mutant))
        read = read_or_reason(path)
        if isinstance(read, Result):
            valid += 1
            assert_says_what_it_holds(read, mutant)
            assert_can_be_true(read)
            assert Result.from_json(read.to_json()) == read
    assert valid > 100, "hardly one is valid: what is accepted was not looked at"


def test_valid_files_of_any_content_can_be_shown(written: Path, tmp_path: Path) -> None:
    """Each as the newest result of its cell: in the tables and conclusions, in the summary, in the index."""
    content, chooser, shown = json.loads(written.read_text()), random.Random(13), 0
    while shown < 12:
        mutant = mutated_values(content, chooser)
        folder = tmp_path / str(shown)
        folder.mkdir(exist_ok=True)
        path = folder / written.name
        path.write_text(sign(mutant))
        read = read_or_reason(path)
        if isinstance(read, str) or read.synthetic:
            continue
        shown += 1
        with no_hang():
            study = Study.load(Store(folder))
            text = summarise_store(study, folder, folder / "reports", plots=False)
            write_index(folder, folder / "reports")
        assert "CHARLM" in text.upper()
        html = (folder / "reports" / "index.html").read_text()
        assert "<script>alert" not in html
        assert f"{read.avg_val_loss:.4f}" in html
