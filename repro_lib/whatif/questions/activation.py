"""What if the bend were wider? SmeLU beside the other activations, and where a trained model's own inputs to them lie."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from repro_lib.analysis.stored_models import load_trained
from repro_lib.analysis.study import Study
from repro_lib.data import EVALUATION_BLOCK
from repro_lib.models.activations import Activation, canonical_activation
from repro_lib.plots.activations import derivatives
from repro_lib.plots.style import PAGE_COLOUR
from repro_lib.store.schema import ResultError
from repro_lib.store.store import Store
from repro_lib.whatif.definition import WhatIf, control
from repro_lib.whatif.wording import cell_name, look_of

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
MEASURES: Sequence[str] = ("Value", "Slope", "Curvature")
INPUTS = "inputs, share per unit of x"
EMPTY = ("low", "high", "n", "reading")
# Between the points of ``derivatives``, from -WIDTH to WIDTH.
STEPS = 1200


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

    def sentence(self, beta: float) -> str:
        """How much of them the bend of SmeLU catches."""
        inputs = f"inputs to the activations of {self.name} (trial 1, {BLOCKS * EVALUATION_BLOCK:,} evaluation characters)"
        return f"{100 * self.within(beta):.0f} % of the {inputs} lie in that bend."


def activation_what_if(masses: Sequence[PreActivations] = ()) -> WhatIf:
    """Value, slope and curvature of SmeLU for every beta from 0.05 to 3 beside relu, gelu and swish.

    ``masses``: of which trained models the inputs can be laid beside the curves."""
    parameters = (
        control("beta", "SmeLU's beta", BETAS, 1.0),
        control("model", "Inputs of a trained model", [*(mass.name for mass in masses), NO_MODEL]),
    )
    # What depends on neither control, or on one of them, stands in the frame once.
    curves = [_curve(name, name, slice(None, None, 20), MEASURES) for name in BESIDE]
    for beta in BETAS:
        # A bend drawn through nine points, and straight lines: both sides of its ends, and the outermost.
        middle, half = STEPS // 2, round(beta / WIDTH * STEPS / 2)
        corners = {0, STEPS, *(min(max(middle + side * half + step, 0), STEPS) for side in (-1, 1) for step in (-1, 1))}
        bend = corners | {middle + round(half * k / 4) for k in range(-4, 5)}
        for points, measures in ((bend, MEASURES[:1]), (corners, MEASURES[1:])):
            curves.append(_curve(f"smelu_{beta:.2f}", "smelu", sorted(points), measures).assign(beta=beta))
    middles = (EDGES[1:] + EDGES[:-1]) / 2
    inputs = [pd.DataFrame({"x": middles, "value": mass.density, "label": INPUTS, "model": mass.name}) for mass in masses]
    frame = pd.concat([*curves, *inputs]).reindex(columns=["beta", "model", "measure", "label", "x", "value", *EMPTY])
    said = pd.DataFrame({"beta": BETAS, "model": None, "sentence": [_bend(beta) for beta in BETAS]})
    given = [
        pd.DataFrame({"beta": BETAS, "model": mass.name, "sentence": [mass.sentence(beta) for beta in BETAS]})
        for mass in masses
    ]
    looks = {"smelu": look_of("smelu_1"), INPUTS: (PAGE_COLOUR, "1 2")}
    return WhatIf("activation", TITLE, parameters, frame, pd.concat([said, *given]), along="x", looks=looks)


def _curve(name: str, label: str, points: slice | list[int], measures: Sequence[str]) -> pd.DataFrame:
    x, *curves = (values[points] for values in derivatives(canonical_activation(name), WIDTH))
    drawn = dict(zip(MEASURES, curves, strict=True))
    return pd.concat(pd.DataFrame({"measure": m, "label": label, "x": x, "value": drawn[m]}) for m in measures)


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


def _bend(beta: float) -> str:
    return (
        f"With beta {beta:g} SmeLU bends from slope 0 to slope 1 between {-beta:g} and {beta:g} with a curvature of "
        f"{1 / (2 * beta):.3g}, where relu jumps; gelu's and swish's largest curvatures, at 0, are 0.80 and 0.50."
    )
