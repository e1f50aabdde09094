"""The activation functions themselves as figures: value, slope and curvature."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from repro_lib.models.activations import canonical_activation, get_activation
from repro_lib.plots.style import WIDTH_INCHES, Plot, colour_of, styled

# Odd, so that 0, where ReLU bends, is one of them.
_POINTS = 1201
# The curvature of ReLU is a spike of no finite height; the axis ends here and the caption says so.
_HIGHEST_CURVATURE = 1.6
_LINE_STYLES = ("-", "--", "-.", ":", (0, (6, 2, 1, 2, 1, 2)))

Curves = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


def derivatives(activation: str, width: float) -> Curves:
    """x, value, slope (by automatic differentiation) and curvature (difference of slopes), each of shape (points,).

    For ungated activations; ``x`` runs from -width to width.
    """
    function = get_activation(activation)
    if function.gated:
        raise ValueError(f"{activation} takes two numbers per output and has no curve; draw an ungated activation")
    x = torch.linspace(-width, width, _POINTS, dtype=torch.float64, requires_grad=True)
    value = function(x)
    # The slope by automatic differentiation is the one that training uses, also where a formula has a bend.
    (slope,) = torch.autograd.grad(value.sum(), x)
    points, slopes = x.detach().numpy(), slope.numpy()
    return points, value.detach().numpy(), slopes, np.gradient(slopes, points)


@styled
def activation_curves(activations: Sequence[str], width: float = 3.0) -> Plot:
    """Value, slope and curvature of several ungated activations, side by side."""
    curves = {name: derivatives(name, width) for name in map(canonical_activation, activations)}
    looks = zip(map(colour_of, curves), cycle(_LINE_STYLES), strict=False)
    minima = ", ".join(f"{name} {value.min():.2f}" for name, (_, value, *_) in curves.items())
    alt = f"Value, slope and curvature of {', '.join(curves)} from {-width:g} to {width:g}. Lowest values: {minima}."
    return Plot.of(_three_panels(curves, looks), "activation_curves", alt)


@styled
def smelu_family(betas: Sequence[float], width: float = 3.0) -> Plot:
    """Value, slope and curvature of SmeLU for several half-widths, dark to light with growing beta."""
    curves = {f"beta {beta:g}": derivatives(f"smelu_{beta:g}", width) for beta in betas}
    looks = [(str(0.75 * k / max(len(betas) - 1, 1)), "-") for k in range(len(betas))]
    alt = f"SmeLU for beta {', '.join(f'{beta:g}' for beta in betas)}: the slope rises from 0 to 1 between -beta and beta, "
    alt += "so the curvature is 1 / (2 beta) there and 0 elsewhere."
    return Plot.of(_three_panels(curves, looks), "smelu_family", alt)


def _three_panels(named: Mapping[str, Curves], looks: Iterable[tuple[str, Any]]) -> Figure:
    figure = Figure(figsize=(WIDTH_INCHES, 3.4), layout="constrained")
    axes = figure.subplots(1, 3)
    for axis, title in zip(axes, ("value", "slope", "curvature"), strict=True):
        axis.set(title=title, xlabel="x")
    for (label, (points, *lines)), (colour, line_style) in zip(named.items(), looks, strict=False):
        for axis, line in zip(axes, lines, strict=True):
            axis.plot(points, line, color=colour, linestyle=line_style, linewidth=1.8, label=label)
    axes[2].set_ylim(-0.4, _HIGHEST_CURVATURE)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(named))
    return figure
