"""A results folder: files written whole or not at all, none overwritten, and one broken file does not hide the others."""

import lzma
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from kinds import MakeResult

from repro_lib.analysis.evidence import Evidence
from repro_lib.analysis.study import Study
from repro_lib.config import ConfigError
from repro_lib.store.schema import LARGEST_RESULT_BYTES, ResultError
from repro_lib.store.store import Store, read_result


def test_the_file_is_named_after_the_cell_and_its_time_in_utc(make_result: MakeResult, store: Store) -> None:
    path = store.save(make_result("charlm", "smelu_05"))
    assert path == store.folder / "charlm-smelu_05-20250101_120000.json"
    elsewhere = datetime(2025, 1, 2, 1, 30, tzinfo=timezone(timedelta(hours=2)))
    assert store.save(make_result(timestamp=elsewhere)).name == "charlm-relu-20250101_233000.json"


def test_saving_never_overwrites_and_what_is_saved_at_once_all_arrives(make_result: MakeResult, store: Store) -> None:
    first, second, third = (make_result(pd=pd) for pd in (0.1, 0.2, 0.3))
    paths = [store.save(result) for result in (first, second, third)]
    assert [path.name.removeprefix("charlm-relu-20250101_120000") for path in paths] == [".json", "-2.json", "-3.json"]
    assert [read_result(path) for path in paths] == [first, second, third]
    assert sorted(store.folder.iterdir()) == sorted(paths), "no temporary file stays behind"
    others = [make_result(activation="gelu", pd=k / 10) for k in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(store.save, others))
    loaded, refused = store.load("charlm-gelu-*")
    assert refused == []
    assert sorted(result.avg_relative_pd or 0 for _, result in loaded) == [k / 10 for k in range(8)]
    assert len(list(store.folder.iterdir())) == 3 + 8


def test_loading_gives_the_oldest_first_and_changes_nothing(make_result: MakeResult, store: Store) -> None:
    for minute in (3, 1, 2):
        store.save(make_result(minute=minute))
    before = {path: path.stat().st_mtime_ns for path in store.folder.iterdir()}
    loaded, refused = store.load()
    assert [result.timestamp.minute for _, result in loaded] == [1, 2, 3]
    assert refused == []
    assert {path: path.stat().st_mtime_ns for path in store.folder.iterdir()} == before


def test_a_compressed_result_is_read_and_a_damaged_or_endless_one_refused(make_result: MakeResult, store: Store) -> None:
    result = make_result()
    path = store.save(result)
    content = lzma.compress(path.read_bytes())
    packed = {"": content, "is cut short": content[:-40], "is no file packed with xz": path.read_bytes()}
    packed["is larger than 64 MiB"] = lzma.compress(bytes(LARGEST_RESULT_BYTES + 1), preset=0)
    path.unlink()
    for reason, found in packed.items():
        path.with_suffix(".json.xz").write_bytes(found)
        loaded, refused = store.load()
        assert ([of for _, of in loaded], [reason in sentence for sentence in refused]) == (
            ([], [True]) if reason else ([result], [])
        )


def test_a_folder_that_does_not_exist_holds_no_results(tmp_path: Path) -> None:
    store = Store(tmp_path / "nothing")
    assert (store.load(), store.find("charlm", "relu", "0" * 64), store.failures()) == (([], []), None, [])
    assert not store.folder.exists()


def test_a_file_that_cannot_be_read_is_refused_by_name_and_hides_no_other(make_result: MakeResult, store: Store) -> None:
    good = [make_result(minute=minute) for minute in (1, 2)]
    for result in good:
        store.save(result)
    names = [f"charlm-relu-2025010{day}_115959.json" for day in range(1, 5)]
    broken, huge, folder, link = (store.folder / name for name in names)
    broken.write_text("{")
    huge.write_text("{}")
    os.truncate(huge, LARGEST_RESULT_BYTES + 1)  # sparse: takes no room, and is not read
    folder.mkdir()
    link.symlink_to(store.folder / "nowhere")
    loaded, refused = store.load()
    assert [result for _, result in loaded] == good
    reasons = ("is not a whole JSON file", "is larger than 64 MiB", "cannot be read", "cannot be read")
    for name, reason, sentence in zip(names, reasons, refused, strict=True):
        assert name in sentence
        assert reason in sentence


def test_json_of_somebody_else_is_passed_over_and_ours_under_another_name_is_not(store: Store, make_result: MakeResult) -> None:
    result = make_result()
    store.save(result).rename(store.folder / "kept for later.json")
    theirs = {
        "package": '{"name": "x", "version": "1"}',
        "list": "[]",
        "notes": "{ // text",
        "deep": "[" * 5_000,
        "tsconfig.1": "",
    }
    for name, text in theirs.items():
        (store.folder / f"{name}.json").write_text(text)
    (store.folder / "folder.json").mkdir()
    assert store.load() == ([(store.folder / "kept for later.json", result)], [])
    assert store.find("charlm", "relu", result.config_sha256) is None, "found by name, and it has another"
    text = result.to_json()
    (store.folder / "half.json").write_text(text[: len(text) // 2])
    (store.folder / "changed.json").write_text(text.replace("0.5", "0.25", 1))
    (store.folder / "charlm-relu-20250101_120000-2.json").write_text("{}")
    assert [sentence.split("/")[-1].split()[0] for sentence in store.load()[1]] == [
        "changed.json",
        "charlm-relu-20250101_120000-2.json",
        "half.json",
    ]


def test_a_failure_is_noted_beside_the_results_and_forgotten_on_success(store: Store, make_result: MakeResult) -> None:
    result = make_result()
    store.record_failure("charlm", "relu", result.config_sha256, "the loss became nan", notebook=Path("x.ipynb"))
    (note,) = store.failures()
    assert (note["reason"], note["notebook"]) == ("the loss became nan", "x.ipynb")
    assert datetime.fromisoformat(note["timestamp"]).tzinfo == UTC
    assert list(store.folder.glob("*.json")) == [], "only result files lie directly in the folder"
    assert store.find("charlm", "relu", result.config_sha256) is None
    store.forget_failure("charlm", "relu", result.config_sha256)
    store.forget_failure("charlm", "relu", result.config_sha256)
    assert store.failures() == []
    # Broken notes do not hide the others.
    store.record_failure("charlm", "relu", "0" * 64, "why")
    for name, content in [("a", b"{"), ("b", b"[]"), ("c", b"{}"), ("d", b"\xff"), ("e", b"[" * 100_000)]:
        (store.folder / "failed" / f"{name}.json").write_bytes(content)
    assert [note["reason"] for note in store.failures()] == ["why"]


def test_the_margin_is_declared_before_the_first_result_alone(make_result: MakeResult, store: Store, tmp_path: Path) -> None:
    assert store.margin() == 3.0, "the usual one where none was declared"
    store.declare(5.0)
    store.declare(None)
    assert (store.margin(), Study.load(store).margin, Evidence.load(store, Study.load(store)).margin) == (5.0, 5.0, 5.0)
    store.save(make_result())
    store.declare(5.0)
    with pytest.raises(ConfigError, match=r"has a margin of 5 %, and one of 2 % would be chosen after the data; leave out"):
        store.declare(2.0)
    # Results are there and nothing was declared: then the usual one holds.
    late = Store(tmp_path / "late")
    late.save(make_result())
    with pytest.raises(ConfigError, match="has a margin of 3 %"):
        late.declare(5.0)
    for broken in ("", "[]", '{"margin_per_cent": "wide"}', '{"margin_per_cent": -1}', '{"margin_per_cent": NaN}'):
        (store.folder / "declared" / "study.json").write_text(broken)
        with pytest.raises(ResultError, match=r"study\.json does not say within what margin"):
            store.margin()
    assert store.load()[1] == [], "it is no result, and hides none"
