"""What a model is made of: its layers in the order they are called, with shapes and parameters."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import torch
from torch import Tensor, nn

from repro_lib.analysis.generation import config_of
from repro_lib.analysis.study import Study
from repro_lib.config import Config
from repro_lib.models.registry import build_model


def layer_table(model: str, config: Config, activation: str) -> pd.DataFrame:
    """The layers of a model in the order they are called, with the shapes seen in one forward pass and their parameters.

    Columns: layer (repeated blocks are one row with a * for their number), type, input and output (B batch), parameters
    (of one) and times. A layer that is used as a plain matrix is not called and has no shapes.
    """
    network = build_model(model, config, activation).eval()
    shapes: dict[str, tuple[str, str]] = {}
    # Leaves, and modules with parameters of their own, such as a table of positions.
    layers = [(name, m) for name, m in network.named_modules() if not list(m.children()) or list(m.parameters(recurse=False))]
    hooks = [layer.register_forward_hook(_shape_recorder(shapes, name)) for name, layer in layers]
    with torch.inference_mode():
        network(torch.zeros(2, config.block_size, dtype=torch.int64))
    for hook in hooks:
        hook.remove()
    # In the order of the calls; a layer that was not called stays behind the one it is listed after.
    called, position, positions = list(shapes), -1, {}
    for name, _ in layers:
        positions[name] = position = called.index(name) if name in called else position
    rows = []
    for name, layer in sorted(layers, key=lambda named: positions[named[0]]):
        # Repeated blocks get one name, and so one row with their number.
        general = ".".join("*" if part.isdigit() else part for part in name.split("."))
        parameters = sum(parameter.numel() for parameter in layer.parameters(recurse=False))
        rows.append((general, type(layer).__name__, *shapes.get(name, ("–", "–")), parameters))
    columns = ["layer", "type", "input", "output", "parameters"]
    return pd.DataFrame(rows, columns=columns).groupby(columns, sort=False).size().rename("times").reset_index()


def layer_view(study: Study, model: str) -> pd.DataFrame:
    """The layer table of a model as it was run, with one activation; without a result, at full size."""
    result = next((result for result in study.results if result.model_name == model), None)
    # 65 characters, as tinyshakespeare has: the size of the vocabulary is not known before a text is read.
    if result is None:
        return layer_table(model, Config.for_model(model).with_corpus(65), study.activations[0])
    return layer_table(model, config_of(result), result.activation)


def _shape_recorder(shapes: dict[str, tuple[str, str]], name: str) -> Callable[..., None]:
    def record(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor | tuple[Tensor, ...]) -> None:
        # An LSTM returns its state beside the output.
        first = output[0] if isinstance(output, tuple) else output
        shapes[name] = _shape(inputs[0]), _shape(first)

    return record


def _shape(tensor: Tensor) -> str:
    return f"({', '.join(['B', *map(str, tensor.shape[1:])])})"
