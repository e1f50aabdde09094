"""The activation functions under study, and the one closed registry that names them.

An ungated one maps (..., C) to (..., C); a gated one maps (..., 2C) to (..., C), and the layer around it makes room
(``repro_lib.models.layers.FeedForward``). To add one: a function, a line in ``_BUILDERS``, its name in ``repro_lib.config``.
"""

import re
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Activation(nn.Module):
    """A function of (..., C) that gives (..., C); or, ``gated``, one of (..., 2C). ``title``: its name in tables of layers."""

    def __init__(self, title: str, function: Callable[[Tensor], Tensor], gated: bool = False) -> None:
        super().__init__()
        self.title, self.function, self.gated = title, function, gated

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)

    def extra_repr(self) -> str:
        return self.title


def swiglu(x: Tensor) -> Tensor:
    """swish(gate) * value with [gate, value] = x halved (Shazeer 2020, arXiv 2002.05202). (..., 2C) -> (..., C)."""
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


def smelu(x: Tensor, beta: float) -> Tensor:
    """Smooth ReLU of half-width ``beta`` > 0 (Shamir, Lin & Coviello 2020, arXiv 2010.09931). (..., C) -> (..., C).

    0 for x <= -beta; (x + beta)^2 / (4 beta) for abs(x) <= beta; x for x >= beta. ``beta`` towards 0 gives ReLU."""
    if torch.compiler.is_compiling():
        # The compiler fuses the plain formula and saves only x, too.
        return (x + beta).clamp(0.0, 2.0 * beta).square() * (0.25 / beta) + F.relu(x - beta)
    return _SmeLUFunction.apply(x, beta)  # pyright: ignore[reportReturnType]  (torch types apply as Any)


_BUILDERS: dict[str, Callable[[], Activation]] = {
    "relu": lambda: Activation("ReLU", F.relu),
    # x * Phi(x), the exact form with erf (Hendrycks & Gimpel 2016, arXiv 1606.08415).
    "gelu": lambda: Activation("GELU", F.gelu),
    # x * sigmoid(x), also called SiLU (Ramachandran et al. 2017, arXiv 1710.05941).
    "swish": lambda: Activation("Swish", F.silu),
    "swiglu": lambda: Activation("SwiGLU", swiglu, gated=True),
    "smelu_1": lambda: Activation("SmeLU", partial(smelu, beta=1.0)),
    "smelu_05": lambda: Activation("SmeLU", partial(smelu, beta=0.5)),
}
# One digit more before the point than after it: the canonical name of 0.123456789 is smelu_0123456789.
_SMELU_NAME = re.compile(r"smelu_(\d{1,10}(?:\.\d{1,9})?)")


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

    Raises TypeError for anything but a string, ValueError for an unknown name; the message lists the known ones."""
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
    return _BUILDERS[name]() if name in _BUILDERS else Activation("SmeLU", partial(smelu, beta=float(smelu_beta(name) or 0)))
