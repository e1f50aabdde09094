"""Tensors in files, as safetensors: bytes and a JSON header, nothing that could run. Read whole or refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from repro_lib.files import UnusableFile, read_bounded, write_atomically

# The header takes some 100 bytes for each tensor.
HEADER_BYTES = 2**20
# What this program stores. A file of another kind is not one of ours, and some kinds have no digest.
DTYPES = (torch.float32, torch.float64, torch.int64, torch.uint8)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write tensors and words about them as one safetensors file that appears whole or not at all.

    Equal tensors and words give equal bytes.
    """
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    content = safetensors.torch.save(contiguous, metadata=metadata)
    if len(metadata) > 1:
        # The library puts the words in an order that changes from one process to the next.
        header, end = _header(content)
        header["__metadata__"] = dict(sorted(metadata.items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)  # the tensors begin at a multiple of 8 bytes
        content = len(text).to_bytes(8, "little") + text + content[end:]
    write_atomically(path, content)


def read_tensors(path: Path, largest: int) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file of at most ``largest`` bytes, and the words about them.

    A copy in memory: what happens to the file later does not reach it. Raises OSError if the file cannot be read,
    UnusableFile if it is too large, cut off, or not what this program writes.
    """
    content = read_bounded(path, largest)
    try:
        tensors = safetensors.torch.load(content)
    except (safetensors.SafetensorError, KeyError) as error:  # KeyError: a type of number that torch lacks
        raise UnusableFile(f"is no whole safetensors file ({str(error).removeprefix('Error while deserializing: ')})") from None
    foreign = {str(tensor.dtype) for tensor in tensors.values()} - {str(dtype) for dtype in DTYPES}
    if foreign:
        raise UnusableFile(f"holds numbers of type {', '.join(sorted(foreign))}, which this program does not write")
    # The library has checked the header, but gives its words only for files that it opens itself.
    return tensors, _header(content)[0].get("__metadata__", {})


def _header(content: bytes) -> tuple[dict[str, Any], int]:
    """The JSON header of a safetensors file and where it ends."""
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), end
