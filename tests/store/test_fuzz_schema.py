"""Mutated result files: each is read as it was written, or refused with one sentence that names the file and the reason."""

import copy
import json
import math
import random
import re
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from kinds import MakeResult
from test_schema import signed

from repro_lib.store.schema import Result, ResultError
from repro_lib.store.store import Store, read_result

OF_BYTES, OF_VALUES = 500, 500
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


@pytest.fixture
def written(store: Store, make_result: MakeResult) -> Path:
    """The result file of a cell of three trials, two of which differ beyond what a logarithm can say."""
    result = make_result("charlm", "smelu_05", trials=3)
    infinite = {"log_prob_pd": None, "log_prob_pd_1_2": None}
    return store.save(result.model_copy(update={"reproducibility_metrics": result.reproducibility_metrics | infinite}))


def read_or_reason(path: Path) -> Result | str:
    """The result of a file, or which reason it is refused for; any other error is the test's."""
    try:
        return read_result(path)
    except ResultError as error:
        reason = str(error).removeprefix(f"{path} ")
        assert len(reason) < 1000
        return next(known for known in REASONS if reason.startswith(known))


def mutated_bytes(content: bytes, chooser: random.Random) -> bytes:
    """One to three bytes or pieces flipped, cut, dropped, doubled, zeroed, moved or replaced."""
    for _ in range(chooser.choice([1, 1, 1, 2, 3])):
        place, size = chooser.randrange(len(content) or 1), chooser.choice([1, 1, 2, 8, 64, 1024])
        before, piece, after = content[:place], content[place : place + size], content[place + size :]
        flipped = bytes(byte ^ (1 << chooser.randrange(8)) for byte in piece[:1]) + piece[1:]
        digits = re.sub(rb"\d", str(chooser.randrange(10)).encode(), piece)
        others = [b"", flipped, digits, piece * 2, bytes(len(piece)), chooser.randbytes(len(piece)), b'"' + piece, b"}" + piece]
        content = chooser.choice([before, after + before, *(before + other + after for other in others)])
    return content


def holders(value: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of every value within a JSON value."""
    for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()):
        yield value, key
        yield from holders(inner)


def mutated_values(content: dict[str, Any], chooser: random.Random) -> dict[str, Any]:
    """A copy with one to three values replaced, nudged, swapped, removed, added or doubled."""
    content = copy.deepcopy(content)
    for _ in range(chooser.choice([1, 1, 1, 2, 3])):
        places = list(holders(content))
        (holder, key), (other, place) = chooser.choice(places), chooser.choice(places)
        value, kind = holder[key], chooser.choice(["junk", "nudge", "nudge", "swap", "remove", "add"])
        if kind == "junk":
            holder[key] = copy.deepcopy(chooser.choice(JUNK))
        elif kind == "nudge":
            holder[key] = nudged(value, chooser)
        elif kind == "swap":
            holder[key], other[place] = copy.deepcopy(other[place]), copy.deepcopy(value)
        elif kind == "remove":
            del holder[key]
        elif isinstance(holder, list):
            holder.insert(key, copy.deepcopy(value))
        else:
            holder[chooser.choice([f"{key}_", "", "pd_1_4", "pd_2_1", "trial", "\ud800"])] = copy.deepcopy(value)
    return content


def nudged(value: Any, chooser: random.Random) -> Any:
    """A value that is like this one, and is not."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int | float):
        near = [value + 1, value - 1, value + 2, -value, value * 1.001, round(value)]
        return chooser.choice([*near, math.nextafter(value, 9), float(value), str(value), [value]])
    if isinstance(value, str):
        return chooser.choice([value + "x", value[1:], value.upper(), value[::-1], value.replace("0", "1", 1), f" {value}"])
    return chooser.choice([[value], {"x": value}, list(value), None])


def says_what_it_holds(result: Result, content: dict[str, Any]) -> bool:
    """Whether nothing was guessed, rounded away or left out on the way from the file to the result."""
    given = {key: value for key, value in content.items() if key != "content_sha256"} | {"timestamp": None}
    same_time = datetime.fromisoformat(content["timestamp"]) == result.timestamp
    return same_time and equal(result.model_dump(mode="json") | {"timestamp": None}, given)


def equal(read: Any, given: Any) -> bool:
    # A whole number may stand for the nearest fraction that there is, and what was left out is null.
    if isinstance(read, dict) and isinstance(given, dict):
        return given.keys() <= read.keys() and all(equal(value, given.get(key)) for key, value in read.items())
    if isinstance(read, list) and isinstance(given, list):
        return len(read) == len(given) and all(map(equal, read, given))
    return type(read) in (type(given), float) and read == (float(given) if isinstance(read, float) else given)


def test_files_with_mutated_bytes_are_read_as_they_were_written_or_refused(written: Path) -> None:
    whole, chooser, refused = written.read_bytes(), random.Random(11), Counter[str]()
    original = read_result(written)
    for _ in range(OF_BYTES):
        written.write_bytes(mutated_bytes(whole, chooser))
        read = read_or_reason(written)
        assert isinstance(read, str) or read == original
        refused.update([read] if isinstance(read, str) else [])
    assert refused.total() > 0.8 * OF_BYTES
    assert {REASONS[0], REASONS[4]} <= refused.keys()


def test_files_with_mutated_values_are_refused_unless_signed_anew_and_valid(written: Path) -> None:
    content, chooser, valid = json.loads(written.read_text()), random.Random(12), 0
    original = read_result(written)
    for k in range(OF_VALUES):
        mutant = mutated_values(content, chooser)
        if k % 5 == 0:  # as an editor would save it
            written.write_text(json.dumps(mutant))
            read = read_or_reason(written)
            assert isinstance(read, str) or read == original
            continue
        written.write_text(signed(mutant))
        read = read_or_reason(written)
        if isinstance(read, Result):
            valid += 1
            assert says_what_it_holds(read, mutant)
            assert Result.from_json(read.to_json()) == read
    assert valid > 15, "hardly one is valid: what is accepted was not looked at"
