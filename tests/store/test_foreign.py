"""Files of other programs: every format gives the array that was written, and no bytes give a traceback or run anything."""

import importlib.util
import io
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from repro_lib import compare
from repro_lib.store.foreign import ForeignError, read_scored

P = np.random.default_rng(0).dirichlet(np.ones(3), size=40)
IDS = np.array([f"doc{k:02}" for k in range(40)])
ORDER = np.random.default_rng(1).permutation(40)
needs_pyarrow = pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="pyarrow is not in the lock")


def write_csv(path: Path, values: np.ndarray, ids: np.ndarray) -> None:
    rows = [",".join([name, *map(repr, row.tolist())]) for name, row in zip(ids, values, strict=True)]
    path.write_text("\n".join(["id,a,b,c", *rows]), encoding="utf-8")


def write_parquet(path: Path, values: np.ndarray, ids: np.ndarray) -> None:
    import pyarrow
    from pyarrow import parquet

    lists = pyarrow.FixedSizeListArray.from_arrays(values.ravel(), values.shape[1])
    parquet.write_table(pyarrow.table({"id": ids.tolist(), "probabilities": lists}), path, row_group_size=7)


WRITERS: dict[str, Callable[[Path, np.ndarray, np.ndarray], Any]] = {
    "npy": lambda path, values, _: np.save(path, values),
    "npz": lambda path, values, ids: np.savez(path, probs=values, id=ids),
    "safetensors": lambda path, values, _: safetensors.numpy.save_file({"probs": values}, path),
    "csv": write_csv,
    "parquet": write_parquet,
}
FORMATS = [pytest.param(name, marks=needs_pyarrow if name == "parquet" else []) for name in WRITERS]


@pytest.mark.parametrize("ending", FORMATS)
def test_every_format_gives_the_array_that_was_written(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"p.{ending}"
    WRITERS[ending](path, P, IDS)
    scored = read_scored(path)
    assert scored.values.shape == P.shape
    assert np.array_equal(scored.values[5:23], P[5:23])
    assert np.array_equal(scored.values[38:50], P[38:])
    if scored.ids is not None:
        assert scored.ids.tolist() == IDS.tolist()
    other = tmp_path / f"q.{ending}"
    moved = ORDER if scored.ids is not None else np.arange(40)
    WRITERS[ending](other, P[::-1][moved], IDS[moved])
    expected = np.abs(P - P[::-1]).sum(axis=1).mean() / 2
    assert compare([path, other]).numbers["total_variation"].value == pytest.approx(expected)


@needs_pyarrow
def test_columns_of_parquet_are_one_array_or_asked_for_by_name(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    columns = {"doc_id": list(range(40)), "a": P[:, 0], "b": P[:, 1], "c": P[:, 2], "label": P.argmax(axis=1)}
    parquet.write_table(pyarrow.table(columns), path := tmp_path / "p.parquet", row_group_size=11)
    assert np.array_equal(read_scored(path).values[9:30], P[9:30])
    assert np.array_equal(read_scored(f"{path}:b").values[0:40], P[:, 1])


def test_half_precision_names_of_arrays_and_what_the_examples_were(tmp_path: Path) -> None:
    tensors = {"logits": torch.from_numpy(P).to(torch.bfloat16), "rest": torch.zeros(2)}
    safetensors.torch.save_file(tensors, path := tmp_path / "b.safetensors", {"examples_sha256": "a" * 64})
    scored = read_scored(path)
    assert scored.evaluation == "a" * 64
    assert np.array_equal(scored.values[3:9], tensors["logits"][3:9].float().numpy())
    assert read_scored(f"{path}:rest").values.shape == (2,)
    safetensors.torch.save_file(tensors, other := tmp_path / "c.safetensors", {"examples_sha256": "b" * 64})
    with pytest.raises(ForeignError, match="made on different examples"):
        compare([f"{path}:logits", f"{other}:logits"])
    np.savez(two := tmp_path / "two.npz", first=P, second=P)
    with pytest.raises(ForeignError, match=r"holds several arrays \(first, second\); name one: .*two.npz:first"):
        read_scored(two)
    assert np.array_equal(read_scored(f"{two}:second").values, P)
    with pytest.raises(ForeignError, match="has no 'third'; it has first, second"):
        read_scored(f"{two}:third")


def test_two_columns_of_a_table(tmp_path: Path) -> None:
    """An answer may be ``NA``, an id keeps its zeros, and a table of several models is asked for column by column."""
    (one := tmp_path / "1.csv").write_text("id,answer\n007,NA\n08,yes\n9,\n", encoding="utf-8")
    (two := tmp_path / "2.csv").write_text("id,answer\n9,\n08,no\n007,NA\n", encoding="utf-8-sig")
    (true := tmp_path / "l.csv").write_text("id,label\n9,maybe\n007,NA\n08,yes\n", encoding="utf-8")
    found = compare([one, two], labels=true)
    assert (found.kind, found.numbers["churn"].value, found.models["accuracy"].tolist()) == ("texts", 1 / 3, [2 / 3, 1 / 3])
    assert sorted(found.examples["example"]) == ["007", "08", "9"]
    (table := tmp_path / "t.csv").write_text("run1,run2\n0.5,0.4\n0.25,0.25\n", encoding="utf-8")
    assert compare([f"{table}:run1", f"{table}:run2"]).numbers["total_variation"].value == pytest.approx(0.05)


def sample(k: int, answers: list, target: object = 1, name: str = "none") -> str:
    return json.dumps({"doc_id": k, "target": target, "filter": name, "filtered_resps": answers, "resps": [answers]})


def test_sample_logs_of_lm_evaluation_harness(tmp_path: Path) -> None:
    choices = [[["-1.5", "False"], ["-0.5", "True"]], [["-2.0", "True"], ["-3.0", "False"]]]
    for name, rows in {"a": choices, "b": choices[::-1]}.items():
        (tmp_path / f"{name}.jsonl").write_text("\n".join(sample(k, row) for k, row in enumerate(rows)), encoding="utf-8")
    found = compare([tmp_path / "a.jsonl", tmp_path / "b.jsonl"])
    assert (found.kind, found.numbers["churn"].value, found.numbers["accuracy"].value) == ("logits", 1.0, 0.5)
    ragged = [choices[0], [["-2", "True"], ["-3", "False"], ["-4", "False"]]]
    (path := tmp_path / "c.jsonl").write_text("\n".join(sample(k, row) for k, row in enumerate(ragged)), encoding="utf-8")
    assert read_scored(path).values.tolist() == [1, 0]
    # With two filters every document stands there twice.
    texts = [sample(k, [str(k)], "long", name) for name in ("strict", "flexible") for k in range(3)]
    (path := tmp_path / "d.jsonl").write_text("\n".join(texts), encoding="utf-8")
    assert read_scored(path).values.tolist() == ["0", "1", "2"]


class Trap:
    """What runs when it is unpickled."""

    def __reduce__(self) -> tuple:
        return (open, ("/nonexistent/was-unpickled", "w"))


def test_no_pickle_is_ever_loaded(tmp_path: Path) -> None:
    trap = np.array([Trap(), Trap()], dtype=object)
    np.save(tmp_path / "a.npy", trap, allow_pickle=True)
    np.savez(tmp_path / "b.npz", trap)
    for name in ("c.pkl", "d.pt", "e.npy", "f.npz", "g.safetensors", "h.csv", "i.jsonl"):
        (tmp_path / name).write_bytes(b"\x80\x02cbuiltins\nopen\n(S'/nonexistent/was-unpickled'\nS'w'\ntR.")
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(ForeignError, match="^" + re.escape(str(path))) as error:
            read_scored(path)
        assert "nonexistent" not in str(error.value).removeprefix(str(path))


MISTAKES = {
    "ids.csv": ("id,p\n1,0.5\n1,0.25\n", "has the id '1' twice"),
    "other.csv": ("id,p\n1,0.5\n3,0.25\n", "the example '2' is in"),
    "none.csv": ("p\n0.5\n0.25\n", "has ids of its examples and"),
    "bare.csv": ("0.5\n0.25\n", "begins with numbers where the names of its columns belong"),
    "wide.csv": ("id,p\n1,0.5,7\n2,0.25,8\n", "more fields than its first line has names"),
    "empty.csv": ("", "cannot be read: No columns"),
    "hole.csv": ("id,p\n1,0.5\n2,\n", "NaN or infinity"),
    "only.csv": ("id\n1\n2\n", "has no predictions beside 'id'"),
    "log.jsonl": ('{"doc": 1}\n', "has lines without doc_id and filtered_resps"),
    "one.jsonl": (sample(0, [["-3", "True"]]), "a task without choices or texts"),
    "p.txt": ("0.5", "is of no known format; known are .npy"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_sentence(name: str, tmp_path: Path) -> None:
    (good := tmp_path / "good.csv").write_text("id,p\n1,0.5\n2,0.25\n", encoding="utf-8")
    (path := tmp_path / name).write_text(MISTAKES[name][0], encoding="utf-8")
    with pytest.raises(ForeignError) as error:
        compare([good, path])
    assert MISTAKES[name][1] in str(error.value)


def mutated(content: bytes, drawn: np.random.Generator) -> bytes:
    # Cut, doubled, bytes changed, bytes from elsewhere, a number made another one: what disks, editors and people do.
    kind, at = drawn.integers(6), int(drawn.integers(len(content)))
    if kind == 0:
        return content[:at]
    if kind == 1:
        return content[:at] + content[at // 2 :]
    if kind == 2:
        return content[:at] + drawn.bytes(int(drawn.integers(1, 9))) + content[at + 4 :]
    if kind == 3:
        other = re.sub(rb"\d+", lambda number: b"%d" % drawn.integers(10 ** min(len(number[0]), 9)), content[: at + 200])
        return other + content[at + 200 :]
    swapped = bytearray(content)
    for place in drawn.integers(len(content), size=int(drawn.integers(1, 20))):
        swapped[place] = int(drawn.integers(256))
    return bytes(swapped) if kind == 4 else content.replace(content[at : at + 2], b"-", 3)


def outcome(*paths: Path) -> str:
    """Why files cannot be compared; any other exception than ours is a bug."""
    try:
        found = compare(paths)
    except ForeignError as error:
        return str(error)
    assert "nan" not in found.sentences()[0]
    return ""


def compare_mutations(folder: Path, count: int) -> dict[str, int]:
    drawn, said = np.random.default_rng(9), {"compared": 0, "refused": 0}
    sources = {name: buffer.getvalue() for name in WRITERS if (buffer := written(name, folder))}
    sources["jsonl"] = "\n".join(sample(k, [["-1.5", "False"], ["-0.5", "True"]]) for k in range(40)).encode()
    for k in range(count):
        ending = list(sources)[k % len(sources)]
        (good := folder / f"good.{ending}").write_bytes(sources[ending])
        (path := folder / f"mutated{k}.{ending}").write_bytes(mutated(sources[ending], drawn))
        sentence = outcome(good, path)
        assert "\n" not in sentence
        assert sentence == "" or str(folder) in sentence or "labels" in sentence, sentence
        said["refused" if sentence else "compared"] += 1
        path.unlink()
    return said


def written(name: str, folder: Path) -> io.BytesIO | None:
    if name == "parquet" and importlib.util.find_spec("pyarrow") is None:
        return None
    WRITERS[name](path := folder / f"written.{name}", P, IDS)
    return io.BytesIO(path.read_bytes())


@pytest.mark.parametrize("count", [100, pytest.param(2_000, marks=pytest.mark.slow)])
def test_mutated_files_are_compared_or_refused_in_a_sentence(count: int, tmp_path: Path) -> None:
    said = compare_mutations(tmp_path, count)
    assert said["refused"] > count / 4


def test_a_header_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f8", "fortran_order": False, "shape": (10**13, 100)})
    (tmp_path / "a.npy").write_bytes(buffer.getvalue() + b"x" * 100)
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("probs.npy", buffer.getvalue() + b"x" * 100)
    for name in ("a.npy", "b.npz"):
        with pytest.raises(ForeignError, match="cannot be read"):
            read_scored(tmp_path / name)
