"""Everything that decides whether two runs give the same bits: random streams, threads, digests.

A trial owns three independent random streams (initialisation, data order, dropout). Nothing in the library reads
a global random generator, so a stream can be varied while the others are held fixed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.utils.deterministic
from torch import Tensor

STREAM_NAMES = ("init", "order", "dropout")


@dataclass(frozen=True)
class Streams:
    """The random streams of one trial."""

    init: torch.Generator
    order: torch.Generator
    dropout: torch.Generator


def streams_for_trial(seed: int, trial: int = 0, vary: tuple[str, ...] = STREAM_NAMES, device: str = "cpu") -> Streams:
    """Streams of trial ``trial`` (0-based): those named in ``vary`` use ``seed + trial``, the others ``seed``.

    Initialisation and data order are drawn on the CPU for every device; dropout masks are drawn on ``device``.
    """
    unknown = set(vary) - set(STREAM_NAMES)
    if unknown:
        raise ValueError(f"unknown random stream {sorted(unknown)}; known: {', '.join(STREAM_NAMES)}")

    def stream(name: str, where: str) -> torch.Generator:
        stream_seed = seed + trial if name in vary else seed
        return torch.Generator(where).manual_seed(_derive(stream_seed, name))

    return Streams(stream("init", "cpu"), stream("order", "cpu"), stream("dropout", device))


def _derive(seed: int, name: str) -> int:
    """A 63-bit seed for one stream; hashing keeps the streams of neighbouring seeds unrelated."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@contextlib.contextmanager
def deterministic_arithmetic() -> Iterator[None]:
    """One thread and deterministic kernels within the block; the caller's settings return afterwards.

    The number of threads changes how floating-point sums are split and so their last bits.
    """
    # Without it cuBLAS has no deterministic matrix products; it is read when CUDA starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    threads = torch.get_num_threads()
    # The debug mode holds both switches: deterministic kernels, and whether a lack of one is an error or a warning.
    mode = torch.get_deterministic_debug_mode()
    # torch adds this switch to the module at run time, where type checkers do not see it.
    debug: Any = torch.utils.deterministic
    fill = debug.fill_uninitialized_memory
    try:
        torch.set_num_threads(1)
        torch.set_deterministic_debug_mode("error")
        # A debugging aid that writes NaN into every new tensor first: nothing here reads uninitialised memory.
        debug.fill_uninitialized_memory = False
        yield
    finally:
        debug.fill_uninitialized_memory = fill
        torch.set_deterministic_debug_mode(mode)
        torch.set_num_threads(threads)


def sha256_of_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
