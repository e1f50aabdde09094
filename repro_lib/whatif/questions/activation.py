"""What if the bend were wider? SmeLU beside the other activations, and where a trained model's own inputs to them lie."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from repro_lib.analysis.stored_models import load_trained
from repro_lib.analysis.study import Study
from repro_lib.data import EVALUATION_BLOCK
from repro_lib.models.activations import Activation, canonical_activation
from repro_lib.plots.activations import derivatives
from repro_lib.store.schema import ResultError
from repro_lib.store.store import Store
from repro_lib.whatif.charts import Axis, Line, LinePanel
from repro_lib.whatif.definition import View, WhatIf, choice, slider
from repro_lib.whatif.wording import cell_name, colour_on_page, look_of

BETAS = tuple(round(0.05 * k, 2) for k in range(1, 61))
BESIDE = ("relu", "gelu", "swish")
# The curves run from -WIDTH to WIDTH, as in the notebook of the activations.
WIDTH = 3.0
# Evaluation blocks that a trained model reads for its pre-activations, and how finely they are counted.
BLOCKS = 4
BINS_PER_UNIT = 20
EDGES = np.linspace(-WIDTH, WIDTH, round(2 * WIDTH * BINS_PER_UNIT) + 1)
TITLE = "What if the bend of the activation were wider?"
NO_MODEL = "none"


@dataclass(frozen=True, eq=False)
class PreActivations:
    """What the activations of a trained model are given on some evaluation text: a name, and the values (n,) float32."""

    name: str
    values: NDArray[np.float32]

    @cached_property
    def density(self) -> NDArray[np.float64]:
        """(bins,) from -WIDTH to WIDTH: shares per unit of x of all values, those outside included."""
        counts, _ = np.histogram(self.values, EDGES)
        return counts / len(self.values) * BINS_PER_UNIT

    @cached_property
    def _sizes(self) -> NDArray[np.float64]:
        # In order, and in float64 as the beta that is looked up in them: sixty are asked for.
        return np.sort(np.abs(self.values)).astype(np.float64)

    def within(self, beta: float) -> float:
        """The share of values between -beta and beta."""
        return float(np.searchsorted(self._sizes, beta, side="right") / len(self.values))


def activation_what_if(masses: Sequence[PreActivations] = ()) -> WhatIf:
    """Value, slope and curvature of SmeLU for every beta from 0.05 to 3 beside relu, gelu and swish.

    ``masses``: of which trained models the inputs can be laid under the curves.
    """
    by_name = {mass.name: mass for mass in masses}
    # Every fourth point of the smooth ones is enough.
    others = {name: [values[::4] for values in derivatives(name, WIDTH)] for name in BESIDE}
    curves = cache(lambda beta: derivatives(canonical_activation(f"smelu_{beta:.2f}"), WIDTH))

    def see(beta: float, model: str) -> View:
        all_curves, mass = {**others, f"smelu, beta {beta:g}": curves(beta)}, by_name.get(model)
        return View(tuple(_panel(k, beta, all_curves, mass) for k in (1, 2, 3)), _sentence(beta, mass))

    parameters = (
        slider("beta", "SmeLU's beta", BETAS, 1.0, "{:.2f}".format),
        choice("model", "Inputs of a trained model", [*by_name, NO_MODEL]),
    )
    return WhatIf("activation", TITLE, parameters, see)


def measured_inputs(store: Store, study: Study) -> list[PreActivations]:
    """The pre-activations of the first trial of each model, with the first of its activations whose weights are there."""
    masses = []
    for model in study.models:
        for result in (r for r in study.results if r.model_name == model and not r.synthetic):
            try:
                network = load_trained(store, result, 1)
                labels = torch.from_numpy(store.predictions(result, 1).labels)
            except ResultError:
                continue
            values = pre_activations(network, labels, result.config["block_size"])
            if values is not None:
                masses.append(PreActivations(cell_name(result), values))
            break
    return masses


def pre_activations(network: torch.nn.Module, labels: torch.Tensor, block_size: int) -> NDArray[np.float32] | None:
    """All that the activations of a model are given while it reads ``BLOCKS`` blocks of ``labels`` (tokens,), if any."""
    seen: list[torch.Tensor] = []

    def record(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        # Of a gated activation the gate, the half that is bent.
        x = inputs[0].chunk(2, dim=-1)[0] if isinstance(module, Activation) and module.gated else inputs[0]
        seen.append(x.flatten())

    # Hooks see what really arrives, also where a model calls its activation from inside another layer.
    hooks = [m.register_forward_pre_hook(record) for m in network.modules() if isinstance(m, Activation)]
    blocks = labels[: BLOCKS * EVALUATION_BLOCK].unflatten(0, (-1, EVALUATION_BLOCK))
    with torch.inference_mode():
        network.eval()(blocks[:, :block_size])
    for hook in hooks:
        hook.remove()
    return torch.cat(seen).numpy() if seen else None


def _panel(which: int, beta: float, curves: Mapping[str, Sequence[Any]], mass: PreActivations | None) -> LinePanel:
    """Value (1), slope (2) or curvature (3) of all curves; the inputs lie under the values, their height is relative."""
    # The curvature of a narrow SmeLU is a spike: its axis ends where the others are still seen.
    names, limits = ("Value", "Slope", "Curvature (the axis ends at 2)"), ((-0.5, WIDTH), (-0.25, 1.25), (-0.5, 2.0))
    title, (low, high) = names[which - 1], limits[which - 1]
    area = None
    if mass is not None:
        area = ((EDGES[1:] + EDGES[:-1]) / 2, low + 0.6 * (high - low) * mass.density / mass.density.max())
    # SmeLU, in front of the others, has the colour of its family.
    looks, usual = {name: look_of(name) for name in BESIDE}, (colour_on_page("smelu_1"), "")
    lines = tuple(Line(name, curve[0], curve[which], *looks.get(name, usual)) for name, curve in curves.items())
    about = f"relu, gelu, swish and SmeLU with beta {beta:g} from {-WIDTH:g} to {WIDTH:g}"
    return LinePanel(title, Axis("input x", -WIDTH, WIDTH), Axis("", low, high), about, lines, area=area)


def _sentence(beta: float, mass: PreActivations | None) -> str:
    bend = (
        f"With beta {beta:g} SmeLU bends from slope 0 to slope 1 between {-beta:g} and {beta:g} with a curvature of "
        f"{1 / (2 * beta):.3g}, where relu jumps; gelu's and swish's largest curvatures, at 0, are 0.80 and 0.50"
    )
    if mass is None:
        return f"{bend}."
    given = f"of what the activations of {mass.name} (trial 1) are given on {BLOCKS * EVALUATION_BLOCK:,} evaluation characters"
    return f"{bend}. {100 * mass.within(beta):.0f} % {given} lies in that bend."
