"""What the processor can do at best: matrix products of a model's own shapes, and nothing else.

A share of a peak says more than seconds: it is the same on an idle and on a slower machine. The peak is measured in the
same run, on the same core, with the other core as busy as it is while training.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from repro_lib.config import Config

Shape = tuple[int, int, int]  # rows, inputs, outputs of one matrix product


@dataclass(frozen=True)
class Work:
    """What one training step asks for.

    ``shapes``: how often each matrix product (rows, inputs, outputs) occurs in the forward pass; the backward pass does two
    more of the same size. ``flops``: model FLOPs of a step, 6 x parameters x tokens + attention (Chowdhery et al. 2022,
    arXiv 2204.02311, appendix B; attention 12 x layers x width x context per token, as if it were not causal).
    """

    shapes: Counter[Shape]
    flops: float
    tokens: int


def work_of(model: nn.Module, config: Config, inputs: Tensor) -> Work:
    """The work of a step of ``model`` on ``inputs`` (B, T), found by running it once."""
    shapes: Counter[Shape] = Counter()

    def note(module: nn.Module, arguments: tuple[Any, ...], _: object) -> None:
        assert isinstance(module, nn.Linear)
        shapes[arguments[0].numel() // module.in_features, module.in_features, module.out_features] += 1

    handles = [m.register_forward_hook(note) for m in model.modules() if isinstance(m, nn.Linear)]
    with torch.no_grad():
        model(inputs)
    for handle in handles:
        handle.remove()
    for module in model.modules():
        if isinstance(module, nn.LSTM):  # its two products of all steps, as if they could be done at once
            shapes[inputs.numel(), module.input_size, 4 * module.hidden_size] += module.num_layers
            shapes[inputs.numel(), module.hidden_size, 4 * module.hidden_size] += module.num_layers
    attention_layers = sum(type(module).__name__ == "CausalSelfAttention" for module in model.modules())
    parameters = sum(parameter.numel() for parameter in model.parameters())
    flops = 6 * parameters * inputs.numel() + 12 * attention_layers * config.n_embd * inputs.shape[1] * inputs.numel()
    return Work(shapes, float(flops), inputs.numel())


def peak_flops(
    work: Work, seconds: float = 0.5, *, trials: int | None = None, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> float:
    """FLOP/s of the forward and backward products of these shapes, measured for about ``seconds``.

    With ``trials`` each is a batched product of so many, as stacked trials do it.
    """
    stack, place = () if trials is None else (trials,), {"device": device, "dtype": dtype}
    operands = [
        (*(torch.randn(*stack, *shape, **place) for shape in ((rows, inner), (outer, inner), (rows, outer))), count)
        for (rows, inner, outer), count in work.shapes.items()
    ]
    flops = sum(6.0 * rows * inner * outer * count for (rows, inner, outer), count in work.shapes.items())

    def once() -> None:
        for x, w, g, count in operands:
            for _ in range(count):
                x @ w.mT
                g @ w
                g.mT @ x

    return (trials or 1) * flops * rate(once, seconds, device)


def rate(once: Callable[[], object], seconds: float, device: str) -> float:
    """How often ``once`` is done in a second, measured for about ``seconds``."""
    once()
    wait_for(device)
    rounds, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        once()
        wait_for(device)
        rounds += 1
    return rounds / (time.perf_counter() - started)


def wait_for(device: str) -> None:
    """Until a GPU has done all that it was given."""
    if device == "cuda":
        torch.cuda.synchronize()
