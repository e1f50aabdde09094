"""Predictions that other programs wrote: a file per trained model, read a slice at a time; nothing in a file is ever run."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

# Columns, or arrays of an archive, that name the examples, and that hold the true answers.
_IDS = ("id", "ids", "example_id", "doc_id")
_LABELS = ("label", "labels", "target", "targets", "y_true")
_VALUES = ("predictions", "prediction", "probabilities", "logits")
# Where a file says on which examples its model was scored.
_DIGEST = "examples_sha256"
_PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".bin", ".joblib", ".dill")
_NUMBERS = {f"{kind}{8 * size}": f"<{kind.lower()}{size}" for kind in "FIU" for size in (2, 4, 8)}
_NUMBERS |= {"I8": "i1", "U8": "u1", "BOOL": "?", "BF16": "<u2"}


class ForeignError(ValueError):
    """Predictions that cannot be compared; the message is one sentence, and names the file where there is one."""


@dataclass(frozen=True, eq=False)
class Scored:
    """What one trained model predicted.

    ``values``: (examples,) or (examples, V), of which slices of examples are taken as of an array. ``ids`` and ``labels``:
    (examples,), where they are known; ``evaluation``: a digest of the examples; ``seed``: what the model was trained with."""

    name: str
    values: Any
    ids: NDArray[Any] | None = None
    labels: NDArray[Any] | None = None
    evaluation: str = ""
    seed: int | None = None


def read_scored(path: str | Path) -> Scored:
    """The predictions in a file, by the ending of its name; ``FILE:NAME`` takes that column or array of it.

    ``.npy``, ``.npz``, ``.safetensors``, ``.parquet`` (with pyarrow), ``.csv``, and sample logs of lm-evaluation-harness,
    ``.jsonl``. Arrays are mapped into memory or read when a slice is asked for, where the format allows it. ForeignError."""
    name, known = str(path), Path(path).exists() or ":" not in str(path)
    file, _, wanted = (name, "", "") if known else name.rpartition(":")
    place, ending = Path(file), Path(file).suffix.lower()
    if ending in _PICKLES:
        raise ForeignError(f"{file} may be a pickle, which can run code when it is read; save it as .npy or .safetensors")
    if ending not in _READERS:
        raise ForeignError(f"{file} is of no known format; known are {', '.join(_READERS)}")
    if not place.is_file():
        raise ForeignError(f"{file} is no file" if place.exists() else f"{file} does not exist")
    try:
        return _chosen(name, _READERS[ending](place, wanted), wanted)
    except ForeignError as error:
        raise ForeignError(f"{file} {error}") from None
    except ModuleNotFoundError:
        raise ForeignError(f"{file} needs pyarrow, which is not installed: pip install pyarrow") from None
    except Exception as error:  # of six formats' libraries, without a common base
        raise ForeignError(f"{file} cannot be read: {_one_line(error)}") from None


def _one_line(error: BaseException) -> str:
    # Libraries explain at length, and what they cite of a file may be of any length.
    said = str(error).strip() or type(error).__name__
    return said.splitlines()[0][:160]


def _chosen(name: str, arrays: dict[str, Any], wanted: str) -> Scored:
    evaluation = arrays.pop(_DIGEST, "")
    if not arrays or (wanted and wanted not in arrays):
        raise ForeignError(f"has no {wanted or 'array'!r}; it has {', '.join(arrays) or 'nothing'}"[:300])
    ids, labels = (next((key for key in names if key in arrays), None) for names in (_IDS, _LABELS))
    others = [key for key in arrays if key not in (ids, labels)] or [key for key in (labels,) if key]
    known = [key for key in others if key in _VALUES] if len(others) > 1 else others
    if not wanted and len(known) != 1:
        several = f"holds several arrays ({', '.join(others)}); name one: {name}:{others[0]}" if others else ""
        raise ForeignError(several[:300] or f"has no predictions beside {ids!r}")
    main = wanted or known[0]
    beside = {key: np.asarray(arrays[key][:]) for key in (ids, labels) if key and key != main}
    for key, column in beside.items():
        if column.shape != (len(arrays[main]),):
            raise ForeignError(f"has {key!r} of shape {column.shape} beside {len(arrays[main])} predictions")
    return Scored(name, arrays[main], beside.get(ids or ""), beside.get(labels or ""), evaluation)


class _Rows:
    """An array of a file, of which the examples are read that are asked for: mapped, all of it would count as our memory."""

    def __init__(self, path: Path, kind: Any, shape: tuple[int, ...], offset: int) -> None:
        self._path, self._kind, self.shape, self._offset = path, np.dtype(kind), shape, offset
        self._row = math.prod(shape[1:])
        if offset + math.prod(shape) * self._kind.itemsize > path.stat().st_size:
            raise ForeignError("is cut off")

    def __len__(self) -> int:
        return self.shape[0] if self.shape else 0

    def __getitem__(self, part: slice) -> NDArray[Any]:
        start, stop, _ = part.indices(len(self))
        count, skipped = (stop - start) * self._row, start * self._row * self._kind.itemsize
        return np.fromfile(self._path, self._kind, count, offset=self._offset + skipped).reshape(-1, *self.shape[1:])


class _Bfloat16(_Rows):
    def __getitem__(self, part: slice) -> NDArray[Any]:
        # NumPy has no such numbers: they are the upper halves of float32.
        return (super().__getitem__(part).astype(np.uint32) << 16).view(np.float32)


def _read_npy(path: Path, _: str) -> dict[str, Any]:
    # Refuses objects: they would be pickled.
    mapped = np.lib.format.open_memmap(path, mode="r")
    rows = mapped.ndim > 0 and mapped.flags.c_contiguous
    return {"array": _Rows(path, mapped.dtype, mapped.shape, mapped.offset) if rows else mapped}


def _read_npz(path: Path, _: str) -> dict[str, Any]:
    with open(path, "rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as archive:
        return {name: np.asarray(archive[name]) for name in archive.files}


def _read_safetensors(path: Path, _: str) -> dict[str, Any]:
    # The library checks the whole header, so that it can be taken at its word.
    with safe_open(path, "np"), open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    arrays: dict[str, Any] = {_DIGEST: header.pop("__metadata__", {}).get(_DIGEST, "")}
    for name, tensor in header.items():
        if (kind := tensor["dtype"]) not in _NUMBERS:
            raise ForeignError(f"holds numbers of type {kind}, which are not compared")
        found, place = _Bfloat16 if kind == "BF16" else _Rows, 8 + length + tensor["data_offsets"][0]
        arrays[name] = found(path, _NUMBERS[kind], tuple(tensor["shape"]), place)
    return arrays


def _read_parquet(path: Path, wanted: str) -> dict[str, Any]:
    from pyarrow import parquet  # pyright: ignore[reportMissingImports]

    file = parquet.ParquetFile(path, memory_map=True)
    names = [str(name) for name in file.schema_arrow.names]
    arrays: dict[str, Any] = {name: file.read([name])[name].to_numpy() for name in names if name in _IDS + _LABELS}
    own = [name for name in names if name not in arrays]
    # Several columns are one array, (examples, V).
    taken = {wanted: [wanted]} if wanted in own else {"predictions": own} if own and not wanted else {}
    return arrays | {name: _Groups(path, file, columns) for name, columns in taken.items()}


class _Groups:
    """Columns of a Parquet file as one array, of which the row groups are read that a slice of examples lies in."""

    def __init__(self, path: Path, file: Any, names: list[str]) -> None:
        self._path, self._file, self._names, self._lock = path, file, names, Lock()
        counts = [file.metadata.row_group(k).num_rows for k in range(file.num_row_groups)]
        self._ends = np.cumsum([0, *counts])
        # Slices follow each other, and two threads are at neighbouring ones.
        self._group = lru_cache(2)(self._read)
        self.shape = (sum(counts), *self._group(0).shape[1:]) if counts else (0,)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, part: slice) -> NDArray[Any]:
        start, stop, _ = part.indices(len(self))
        wanted = np.flatnonzero((self._ends[:-1] < stop) & (self._ends[1:] > start)).tolist()
        try:
            with self._lock:
                groups = [self._group(k)[max(start - self._ends[k], 0) : stop - self._ends[k]] for k in wanted]
        except Exception as error:  # pyarrow's have no common base
            raise ForeignError(f"{self._path} cannot be read: {_one_line(error)}") from None
        return np.concatenate(groups)

    def _read(self, k: int) -> NDArray[Any]:
        table = self._file.read_row_group(k, columns=self._names)
        columns = [self._array(table[name].combine_chunks()) for name in self._names]
        return columns[0] if len(columns) == 1 else np.column_stack(columns)

    @staticmethod
    def _array(column: Any) -> NDArray[Any]:
        # A list in each row is a row of probabilities; lists of several lengths are none, and reshape says so.
        lists = "list" in str(column.type).partition("<")[0]
        values = (column.flatten() if lists else column).to_numpy(zero_copy_only=False)
        return values.reshape(len(column), -1) if lists else values


def _read_csv(path: Path, _: str) -> dict[str, Any]:
    import pandas as pd

    # ``NA`` and ``null`` can be answers, an empty field or a NaN that a program wrote is none. Ids stay as they are written.
    with open(path, encoding="utf-8-sig", newline="") as file:
        heads, first = [*islice(csv.reader(file), 2), [], []][:2]
    if len(first) > len(heads):
        raise ForeignError("has lines with more fields than its first line has names")
    if heads and all(re.fullmatch(r"[-+.\d]+(e[-+]?\d+)?", name.strip(), re.IGNORECASE) for name in heads):
        raise ForeignError("begins with numbers where the names of its columns belong, such as id,prediction")
    kept = {"keep_default_na": False, "na_values": ["", "nan", "NaN"], "dtype": dict.fromkeys(_IDS, str)}
    table = pd.read_csv(path, **kept, low_memory=False)
    columns: dict[str, Any] = {str(name): _answers(table[name]) for name in table.columns}
    own = [name for name in columns if name not in _IDS + _LABELS]
    # Several columns of numbers are one array, (examples, V), and each can be asked for by its name.
    if len(own) > 1 and "predictions" not in own and all(columns[name].dtype.kind in "iuf" for name in own):
        columns["predictions"] = np.column_stack([columns[name] for name in own])
    return columns


def _answers(column: Any) -> NDArray[Any]:
    if column.dtype.kind in "iuf":
        return column.to_numpy()
    return column.astype(int).to_numpy() if column.dtype.kind == "b" else column.fillna("").astype(str).to_numpy(str)


def _read_samples(path: Path, _: str) -> dict[str, Any]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    if not all(isinstance(row, dict) and {"doc_id", "filtered_resps"} <= row.keys() for row in rows):
        raise ForeignError("has lines without doc_id and filtered_resps, which sample logs of lm-evaluation-harness have")
    # With several filters every example stands there once for each of them.
    rows = [row for row in rows if row.get("filter") == rows[0].get("filter")]
    replies = [row["filtered_resps"] for row in rows]
    arrays: dict[str, Any] = {"id": np.array([str(row["doc_id"]) for row in rows])}
    if all(isinstance(reply[0], str) for reply in replies):
        return arrays | {"predictions": np.array([reply[0] for reply in replies])}
    # Of a question with choices the log-likelihood of each; "True" beside it says that it is the greedy answer.
    scores = [[float(choice[0]) for choice in reply] for reply in replies]
    if min(map(len, scores)) < 2:
        raise ForeignError("is a log of a task without choices or texts, whose answers cannot be compared")
    targets = [str(row.get("target")) for row in rows]
    if all(target.isdecimal() for target in targets):
        arrays["label"] = np.array([int(target) for target in targets])
    # Questions of several lengths have no common V: what is left of them is the choice.
    alike = len(set(map(len, scores))) == 1
    return arrays | {"predictions": np.array(scores if alike else [int(np.argmax(row)) for row in scores])}


_READERS: dict[str, Callable[[Path, str], dict[str, Any]]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".safetensors": _read_safetensors,
    ".parquet": _read_parquet,
    ".csv": _read_csv,
    ".jsonl": _read_samples,
}
