"""Everything that decides whether two runs give the same bits: random streams, threads, arithmetic.

A trial owns three independent random streams (initialisation, data order, dropout). Nothing in the library reads
a global random generator, so a stream can be varied while the others are held fixed."""

import bisect
import contextlib
import hashlib
import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
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

    Dropout masks are drawn on ``device``. Raises ValueError for a trial below 1."""
    if trial < 1:
        raise ValueError(f"there is no trial {trial}: trials count from 1")
    seeds = {name: _derive(seed + trial - 1 if name in vary else seed, name) for name in STREAM_NAMES}
    # Initialisation and data order are drawn on the CPU for every device.
    places = ("cpu", "cpu", device)
    return Streams(*(torch.Generator(place).manual_seed(seeds[name]) for place, name in zip(places, STREAM_NAMES, strict=True)))


@torch.no_grad()
def flip_one_bit(model: nn.Module, seed: int) -> str:
    """Change one weight, drawn from ``seed``, by the smallest step that float32 knows. Returns the name of its matrix.

    The least by which two trainings can differ (Summers & Dinneen 2021, arXiv 2103.04514)."""
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


def _flushes_denormals() -> bool:
    # torch has no way to ask. 1e-39 is below the smallest normal float32.
    return torch.tensor([1e-39], dtype=torch.float32, device="cpu").mul(1).item() == 0.0


def _attribute(owner: Any, name: str, value: Any) -> tuple[Callable[[], Any], Callable[[Any], None], Any]:
    return partial(getattr, owner, name), partial(setattr, owner, name), value


def _set_default_device(device: torch.device | None) -> None:
    # None and not "cpu", which would have every call of torch ask a handler of its own.
    torch.set_default_device(None if device is None or device.type == "cpu" else device)


# torch adds this switch to the module at run time, where type checkers do not see it.
_DEBUG: Any = torch.utils.deterministic
_BACKENDS: Any = torch.backends
# What a program, a notebook or a start-up file may have set, and what training is done with: how to read it, how to set it,
# and the value, which is torch's own default where no reason is given.
_PINNED: tuple[tuple[Callable[[], Any], Callable[[Any], Any], Any], ...] = (
    # The number of threads changes how floating-point sums are split and so their last bits.
    (torch.get_num_threads, torch.set_num_threads, 1),
    # This mode holds two switches: deterministic kernels, and whether a lack of one is an error or a warning.
    (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode, "error"),
    # A debugging aid that writes NaN into every new tensor first: nothing here reads uninitialised memory.
    _attribute(_DEBUG, "fill_uninitialized_memory", False),
    (torch.get_default_dtype, torch.set_default_dtype, torch.float32),
    (torch.get_default_device, _set_default_device, None),
    *((partial(torch.is_autocast_enabled, kind), partial(torch.set_autocast_enabled, kind), False) for kind in ("cpu", "cuda")),
    (torch.backends.cuda.flash_sdp_enabled, torch.backends.cuda.enable_flash_sdp, True),
    (torch.backends.cuda.mem_efficient_sdp_enabled, torch.backends.cuda.enable_mem_efficient_sdp, True),
    (torch.backends.cuda.cudnn_sdp_enabled, torch.backends.cuda.enable_cudnn_sdp, True),
    (torch.backends.cuda.math_sdp_enabled, torch.backends.cuda.enable_math_sdp, True),
    _attribute(_BACKENDS.mkldnn, "enabled", True),
    _attribute(_BACKENDS.cudnn, "benchmark", False),
    # In what precision products of float32 are made: as they are, save where torch itself takes TF32.
    *(
        _attribute(of, "fp32_precision", "none")
        for of in (_BACKENDS.mkldnn.matmul, _BACKENDS.mkldnn.conv, _BACKENDS.mkldnn.rnn)
    ),
    _attribute(_BACKENDS.cuda.matmul, "fp32_precision", "none"),
    *(_attribute(of, "fp32_precision", "tf32") for of in (_BACKENDS.cudnn.conv, _BACKENDS.cudnn.rnn)),
    (_flushes_denormals, torch.set_flush_denormal, False),
)


@contextlib.contextmanager
def deterministic_arithmetic() -> Iterator[None]:
    """One thread, deterministic kernels and torch's own defaults within the block; the caller's settings return afterwards.

    What decides a trial's bits is its configuration alone, not what its process did before."""
    # Without it cuBLAS has no deterministic matrix products; it is read when CUDA starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = [read() for read, _, _ in _PINNED]
    try:
        for _, pin, value in _PINNED:
            pin(value)
        # Tensors that are made in inference mode cannot be trained with.
        with torch.inference_mode(False):
            yield
    finally:
        for (_, pin, _), value in zip(_PINNED, before, strict=True):
            pin(value)
