"""Everything that decides whether two runs give the same bits: random streams, threads, arithmetic.

A trial owns three independent random streams (initialisation, data order, dropout). Nothing in the library reads
a global random generator, so a stream can be varied while the others are held fixed.
"""

from __future__ import annotations

import bisect
import contextlib
import hashlib
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.utils.deterministic
from torch import nn

STREAM_NAMES = ("init", "order", "dropout")


@dataclass(frozen=True)
class Streams:
    """The random streams of one trial."""

    init: torch.Generator
    order: torch.Generator
    dropout: torch.Generator


def streams_for_trial(seed: int, trial: int = 1, vary: tuple[str, ...] = STREAM_NAMES, device: str = "cpu") -> Streams:
    """Streams of trial ``trial`` (from 1): those named in ``vary`` use ``seed + trial - 1``, the others ``seed``.

    Dropout masks are drawn on ``device``. Raises ValueError for a trial below 1.
    """
    if trial < 1:
        raise ValueError(f"there is no trial {trial}: trials count from 1")
    seeds = {name: _derive(seed + trial - 1 if name in vary else seed, name) for name in STREAM_NAMES}
    # Initialisation and data order are drawn on the CPU for every device.
    places = ("cpu", "cpu", device)
    return Streams(*(torch.Generator(place).manual_seed(seeds[name]) for place, name in zip(places, STREAM_NAMES, strict=True)))


@torch.no_grad()
def flip_one_bit(model: nn.Module, seed: int) -> str:
    """Change one weight, drawn from ``seed``, by the smallest step that float32 knows. Returns the name of its matrix.

    The least by which two trainings can differ (Summers & Dinneen 2021, arXiv 2103.04514).
    """
    # Among those that are felt: not 0, whose neighbours are too small, nor in an embedding, whose character may never occur.
    embeddings = {id(layer.weight) for layer in model.modules() if isinstance(layer, nn.Embedding)}
    matrices = {name: p for name, p in model.named_parameters() if p.ndim >= 2 and id(p) not in embeddings}
    # Drawn among all weights alike, so that a large matrix is hit more often than a small one.
    counts = [int(tensor.count_nonzero()) for tensor in matrices.values()]
    if not sum(counts):
        raise ValueError("there is no weight to flip a bit of: all matrices are 0")
    generator = torch.Generator().manual_seed(_derive(seed, "bit"))
    place, ends = int(torch.randint(sum(counts), (), generator=generator)), list(itertools.accumulate(counts))
    k = bisect.bisect_right(ends, place)
    name, tensor = list(matrices.items())[k]
    tensor.view(torch.int32)[tuple(tensor.nonzero()[place - ends[k]].tolist())] ^= 1  # counted from the matrix's end
    return name


def _derive(seed: int, name: str) -> int:
    # 63 bits for one stream; hashing keeps the streams of neighbouring seeds unrelated.
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@contextlib.contextmanager
def deterministic_arithmetic() -> Iterator[None]:
    """One thread and deterministic kernels within the block; the caller's settings return afterwards."""
    # Without it cuBLAS has no deterministic matrix products; it is read when CUDA starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    threads = torch.get_num_threads()
    # The debug mode holds both switches: deterministic kernels, and whether a lack of one is an error or a warning.
    mode = torch.get_deterministic_debug_mode()
    # torch adds this switch to the module at run time, where type checkers do not see it.
    debug: Any = torch.utils.deterministic
    fill = debug.fill_uninitialized_memory
    try:
        # Their number changes how floating-point sums are split and so their last bits.
        torch.set_num_threads(1)
        torch.set_deterministic_debug_mode("error")
        # A debugging aid that writes NaN into every new tensor first: nothing here reads uninitialised memory.
        debug.fill_uninitialized_memory = False
        yield
    finally:
        debug.fill_uninitialized_memory = fill
        torch.set_deterministic_debug_mode(mode)
        torch.set_num_threads(threads)
