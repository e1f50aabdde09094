"""Tensors in files and their digests. Safetensors: bytes and a JSON header, nothing that could run."""

import hashlib
import json
import math
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from repro_lib.system.files import UnusableFile, read_bounded, write_atomically

# The header takes some 100 bytes for each tensor.
HEADER_BYTES = 2**20
# What this program stores. A file of another kind is not one of ours, and some kinds have no digest.
DTYPES = (torch.float32, torch.float64, torch.int64, torch.uint8)
# These only in packed files, and under these names in their words.
_PACKED = {str(dtype).removeprefix("torch."): dtype for dtype in (*DTYPES, torch.int32, torch.int8)}
# The library writes several words in an order that changes from one process to the next; one has no order. So all
# words go into one, as JSON, and equal tensors and words give equal bytes.
_WORDS = "words"


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str], packed: bool = False) -> None:
    """Write tensors and words about them as one safetensors file, whole or not at all; equal ones give equal bytes.
    ``packed``: deflated, without loss, so that what repeats takes no space."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    if packed:
        kinds = {name: [str(tensor.dtype).removeprefix("torch."), *tensor.shape] for name, tensor in contiguous.items()}
        contiguous = {name: _pack(tensor) for name, tensor in contiguous.items()}
        metadata = metadata | {"packed": json.dumps(kinds, sort_keys=True)}
    write_atomically(path, safetensors.torch.save(contiguous, metadata={_WORDS: json.dumps(metadata, sort_keys=True)}))


def read_tensors(path: Path, largest: int) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file of at most ``largest`` bytes, and the words about them.
    OSError if it cannot be read, UnusableFile if it is too large, cut off, or not what this program writes."""
    # A copy in memory: what happens to the file later does not reach it.
    content = read_bounded(path, largest)
    try:
        tensors = safetensors.torch.load(content)
    except (safetensors.SafetensorError, KeyError) as error:  # KeyError: a type of number that torch lacks
        raise UnusableFile(f"is no whole safetensors file ({str(error).removeprefix('Error while deserializing: ')})") from None
    if foreign := {str(tensor.dtype) for tensor in tensors.values()} - {str(dtype) for dtype in DTYPES}:
        raise UnusableFile(f"holds numbers of type {', '.join(sorted(foreign))}, which this program does not write")
    # The library gives words only for files that it opens itself. The header begins after its length in 8 bytes.
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    stored = header.get("__metadata__", {})
    if stored.keys() != {_WORDS}:  # written before there was one key, or by somebody else
        return tensors, stored
    try:
        words = json.loads(stored[_WORDS])
    except (ValueError, RecursionError):
        words = None
    if not isinstance(words, dict) or not all(isinstance(word, str) for word in words.values()):
        raise UnusableFile("has words about its tensors that this program did not write")
    return _unpacked(tensors, words.pop("packed"), largest) if "packed" in words else tensors, words


def sha256_of_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _pack(tensor: Tensor) -> Tensor:
    # Byte by byte of all numbers: the high bytes are alike, the low ones nearly random. Matches farther than the byte before
    # are not looked for, which finds nothing here and takes five times as long.
    planes = tensor.numpy().reshape(-1).view(np.uint8).reshape(-1, tensor.element_size()).T
    deflating = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS, 9, zlib.Z_RLE)
    return torch.frombuffer(bytearray(deflating.compress(planes.tobytes()) + deflating.flush()), dtype=torch.uint8)


def _unpacked(tensors: Mapping[str, Tensor], kinds: str, largest: int) -> dict[str, Tensor]:
    # Of at most ``largest`` bytes in all: a small file can claim to hold, and hold, a thousand times as much.
    try:
        shapes: dict[str, tuple[torch.dtype, list[int]]] = {
            name: (_PACKED[dtype], shape) for name, (dtype, *shape) in json.loads(kinds).items()
        }
        sizes = {name: dtype.itemsize * math.prod(shape) for name, (dtype, shape) in shapes.items()}
        if shapes.keys() != tensors.keys() or not all(size >= 0 for size in sizes.values()) or sum(sizes.values()) > largest:
            raise ValueError
        return {name: _unpack(tensors[name], sizes[name], *shapes[name]) for name in shapes}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError, zlib.error):
        raise UnusableFile("holds packed numbers that cannot be unpacked") from None


def _unpack(packed: Tensor, size: int, dtype: torch.dtype, shape: list[int]) -> Tensor:
    inflating = zlib.decompressobj(-zlib.MAX_WBITS)
    # One byte more: what goes on has another length than it says. Zero would mean without end.
    planes = np.frombuffer(inflating.decompress(packed.numpy().tobytes(), size + 1), np.uint8)
    numbers = planes.reshape(dtype.itemsize, size // dtype.itemsize).T.copy()
    return torch.from_numpy(numbers.reshape(-1)).view(dtype).reshape(shape)
