"""The activation functions under study, and the one closed registry that names them.

An ungated one maps (..., C) to (..., C); a gated one maps (..., 2C) to (..., C), and the layer around it makes room
(``repro_lib.models.layers.FeedForward``). To add one: a class, a line in ``_BUILDERS``, its name in ``repro_lib.config``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Activation(nn.Module):
    """Base class: ``gated`` says whether the last dimension is halved."""

    gated: bool = False


class ReLU(Activation):
    """max(x, 0). Shape (..., C) -> (..., C)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x)


class GELU(Activation):
    """x * Phi(x), the exact form with erf (Hendrycks & Gimpel 2016, arXiv 1606.08415). (..., C) -> (..., C)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x, approximate="none")


class Swish(Activation):
    """x * sigmoid(x), also called SiLU (Ramachandran et al. 2017, arXiv 1710.05941). (..., C) -> (..., C)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x)


class SwiGLU(Activation):
    """swish(gate) * value with [gate, value] = x halved (Shazeer 2020, arXiv 2002.05202). (..., 2C) -> (..., C)."""

    gated = True

    def forward(self, x: Tensor) -> Tensor:
        gate, value = x.chunk(2, dim=-1)
        return F.silu(gate) * value


class _SmeLUFunction(torch.autograd.Function):
    # It keeps one tensor for the backward pass; three ``torch.where`` branches would keep several.
    @staticmethod
    def forward(x: Tensor, beta: float) -> Tensor:
        # With u = clamp(x + beta, 0, 2 beta) all three pieces are one formula: u^2 / (4 beta) + relu(x - beta).
        bend = (x + beta).clamp_(0.0, 2.0 * beta)
        return bend.square_().mul_(0.25 / beta).add_((x - beta).clamp_(min=0.0))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        x, ctx.beta = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        slope = (x * (0.5 / ctx.beta) + 0.5).clamp(0.0, 1.0)
        return grad_outputs[0] * slope, None


class SmeLU(Activation):
    """Smooth ReLU of half-width ``beta`` (Shamir, Lin & Coviello 2020, arXiv 2010.09931). (..., C) -> (..., C).

    0 for x <= -beta; (x + beta)^2 / (4 beta) for abs(x) <= beta; x for x >= beta. ``beta`` towards 0 gives ReLU.
    """

    def __init__(self, beta: float) -> None:
        super().__init__()
        if not 0.0 < beta < float("inf"):
            raise ValueError(f"SmeLU needs a finite beta > 0, got {beta!r}")
        self.beta = beta

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            # The compiler fuses the plain formula and saves only x, too.
            return (x + self.beta).clamp(0.0, 2.0 * self.beta).square() * (0.25 / self.beta) + F.relu(x - self.beta)
        return _SmeLUFunction.apply(x, self.beta)  # pyright: ignore[reportReturnType]  (torch types apply as Any)

    def extra_repr(self) -> str:
        return f"beta={self.beta:g}"


_BUILDERS: dict[str, Callable[[], Activation]] = {
    "relu": ReLU,
    "gelu": GELU,
    "swish": Swish,
    "swiglu": SwiGLU,
    "smelu_1": lambda: SmeLU(1.0),
    "smelu_05": lambda: SmeLU(0.5),
}
# One digit more before the point than after it: the canonical name of 0.123456789 is smelu_0123456789.
_SMELU_NAME = re.compile(r"smelu_(\d{1,10}(?:\.\d{1,9})?)")


def activation_names() -> tuple[str, ...]:
    """The registered names. Besides them ``smelu_<beta>`` is understood for every beta > 0."""
    return tuple(_BUILDERS)


def smelu_beta(name: str) -> Decimal | None:
    """The beta that a name of the form ``smelu_<beta>`` means, or None for every other name."""
    match = _SMELU_NAME.fullmatch(name)
    if not match:
        return None
    digits = match[1]
    # A leading 0 has the point after it (``smelu_05`` is 0.5, ``smelu_025`` is 0.25); anything else is a plain number.
    if digits.startswith("0") and "." not in digits:
        digits = f"0.{digits[1:]}0"
    return Decimal(digits)


def canonical_activation(name: str) -> str:
    """The one name under which results of this activation are stored: ``smelu_0.50`` gives ``smelu_05``.

    Raises TypeError for anything but a string, ValueError for an unknown name; the message lists the known ones.
    """
    if not isinstance(name, str):
        raise TypeError(f"an activation is given by its name, such as 'gelu'; got an object of type {type(name).__name__}")
    beta = smelu_beta(name)
    if beta is not None and beta > 0:
        plain = f"{beta.normalize():f}"
        return "smelu_" + (plain.replace("0.", "0", 1) if beta < 1 else plain)
    if name not in _BUILDERS:
        known = ", ".join(_BUILDERS)
        raise ValueError(f"unknown activation {name!r}; known: {known}, and smelu_<beta> for any beta > 0 (smelu_025 is 0.25)")
    return name


def get_activation(name: str) -> Activation:
    """A fresh module for ``name``. Errors as in ``canonical_activation``."""
    name = canonical_activation(name)
    # What is not registered and got this far is smelu_<beta>.
    return _BUILDERS[name]() if name in _BUILDERS else SmeLU(float(smelu_beta(name) or 0))
