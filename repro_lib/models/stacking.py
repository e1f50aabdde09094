"""S trained models in one: the layers that hold weights hold S versions of them, everything else runs as it is.

Shapes: S stacked trials, B batch, T time, C width, V vocabulary. The trials lie side by side in the batch, (S x B, T, C),
one after another. What has no weights (attention, activations, shifts in time) treats them like any other sequence of the
batch, so that a model's own code is used and needs no second version; what has weights does one batched matrix product,
(S, B x T, inputs) by (S, inputs, outputs). ``torch.func.vmap`` would be the other way: in torch 2.13 it has no rule for
attention on the CPU, none for an LSTM, and ``torch.compile`` does not take it with an autograd function inside."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from repro_lib.models.layers import Dropout, Embedding, draw_places, mask_of_places, words_of_places


class StackedModel(nn.Module):
    """S models of the same kind and size as one: token ids (S, B, T) -> logits (S, B, T, V), as they compute in training.

    Each model's numbers are those it would compute alone, up to the rounding of batched products. Dropout masks are drawn
    by ``draw_masks`` before each forward pass, for each model from its own generator in the order in which it would draw
    them alone. ``shape`` is the (B, T) of the batches. Raises TypeError for a layer that cannot be stacked."""

    def __init__(self, models: Sequence[nn.Module], shape: tuple[int, int]) -> None:
        super().__init__()
        self.size = len(models)
        self.model = _stacked(models)
        self._dropouts = self._find_dropouts(shape, next(models[0].parameters()).device)

    def forward(self, tokens: Tensor) -> Tensor:
        logits = self.model(tokens.flatten(0, 1))  # (S, B, T) -> (S x B, T) -> (S x B, T, V)
        return logits.unflatten(0, (self.size, -1))

    def draw_masks(self, generators: Sequence[torch.Generator]) -> None:
        """Draw the masks of the next forward pass, those of model k from ``generators[k]``."""
        for dropout in self._dropouts:
            dropout.draw(generators)

    def weights_of(self, k: int) -> dict[str, Tensor]:
        """The weights of model ``k`` (0-based) under the names they have in the model itself; views, not copies."""
        return {name: stacked.detach()[k] for name, stacked in self.model.named_parameters()}

    @torch.no_grad()
    def _find_dropouts(self, shape: tuple[int, int], device: torch.device) -> list[_StackedDropout]:
        # In the order of the forward pass, each with room for its masks.
        order: list[_StackedDropout] = []

        def note(layer: nn.Module, inputs: tuple[Tensor]) -> None:
            assert isinstance(layer, _StackedDropout)
            order.append(layer)
            layer.make_room(inputs[0].shape, device)

        layers = [layer for layer in self.modules() if isinstance(layer, _StackedDropout)]
        hooks = [layer.register_forward_pre_hook(note) for layer in layers]
        self(torch.zeros(self.size, *shape, dtype=torch.int64, device=device))
        for hook in hooks:
            hook.remove()
        if Counter(order) != Counter(layers):
            raise TypeError("a stack must use each of its dropout layers once in a forward pass; give each place its own")
        return order


class _StackedLinear(nn.Module):
    """(S x B, ..., inputs) -> (S x B, ..., outputs), one batched product."""

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.weight = _together([layer.weight for layer in layers])  # (S, outputs, inputs)
        self.bias = _together([layer.bias for layer in layers]) if layers[0].bias is not None else None  # (S, outputs)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(self.weight.shape[0], -1, x.shape[-1])
        return _product(rows, self.weight, self.bias).view(*x.shape[:-1], -1)


class _StackedLayerNorm(nn.Module):
    """(S x B, ..., C) -> the same: normalised alike, scaled and shifted by each model's own weights."""

    def __init__(self, layers: Sequence[nn.LayerNorm]) -> None:
        super().__init__()
        self.width, self.eps = layers[0].normalized_shape, layers[0].eps
        self.weight = _together([layer.weight for layer in layers])  # (S, C)
        self.bias = _together([layer.bias for layer in layers]) if layers[0].bias is not None else None

    def forward(self, x: Tensor) -> Tensor:
        rows = F.layer_norm(x, self.width, eps=self.eps).view(self.weight.shape[0], -1, x.shape[-1])
        y = rows * self.weight[:, None] if self.bias is None else torch.addcmul(self.bias[:, None], rows, self.weight[:, None])
        return y.view(x.shape)


class _StackedTable(nn.Module):
    def __init__(self, layers: Sequence[nn.Embedding]) -> None:
        super().__init__()
        self.weight = _together([layer.weight for layer in layers])  # (S, rows, C); ``_StackedEmbedding`` reads them


class _StackedEmbedding(nn.Module):
    """Token ids (S x B, T) -> (S x B, T, C), as ``repro_lib.models.layers.Embedding``."""

    def __init__(self, layers: Sequence[Embedding]) -> None:
        super().__init__()
        self.tokens = _StackedTable([layer.tokens for layer in layers])
        positions = [layer.positions for layer in layers if layer.positions is not None]
        self.positions = _StackedTable(positions) if positions else None
        self.dropout = _stacked([layer.dropout for layer in layers])

    def forward(self, tokens: Tensor) -> Tensor:
        S, V, _ = self.tokens.weight.shape
        tokens = tokens.view(S, -1, tokens.shape[-1])
        # One table of S x V rows, in which each model finds its own.
        first_rows = V * torch.arange(S, device=tokens.device)[:, None, None]
        x = F.embedding(tokens + first_rows, self.tokens.weight.flatten(0, 1))  # (S, B, T, C)
        if self.positions is not None:
            x = x + self.positions.weight[:, None, : tokens.shape[-1]]
        return self.dropout(x.flatten(0, 1))


class _StackedDropout(nn.Module):
    """Dropout with masks drawn beforehand, each model's from its own stream."""

    words: Tensor  # (S, words): the draws
    places: Tensor  # (S, B, T, C): the same memory as numbers of 16 bits

    def __init__(self, layers: Sequence[Dropout]) -> None:
        super().__init__()
        self.size, self.share = len(layers), layers[0].share

    def make_room(self, shape: torch.Size, device: torch.device) -> None:
        # For the masks of an input (S x B, T, C).
        places = shape.numel() // self.size
        self.words = torch.zeros(self.size, words_of_places(places), dtype=torch.int64, device=device)
        self.places = self.words.view(torch.int16)[:, :places].view(self.size, -1, *shape[1:])

    def draw(self, generators: Sequence[torch.Generator]) -> None:
        for words, generator in zip(self.words, generators, strict=True):
            draw_places(words, generator)

    def forward(self, x: Tensor) -> Tensor:
        return x * mask_of_places(self.places, self.share, x.dtype).flatten(0, 1)


class _StackedLSTM(nn.Module):
    """(S x B, T, C) -> ((S x B, T, C), None): torch's own kernel, model by model, for it knows one set of weights."""

    def __init__(self, layers: Sequence[nn.LSTM]) -> None:
        super().__init__()
        first = layers[0]
        if first.bidirectional or first.proj_size or first.dropout or not first.batch_first or not first.bias:
            raise TypeError("only an LSTM of one direction with batch_first and biases, and nothing beside, can be stacked")
        self.depth, self.width = first.num_layers, first.hidden_size
        for name, _ in first.named_parameters():
            self.register_parameter(name, _together([layer.get_parameter(name) for layer in layers]))

    # The compiler would take it apart into thousands of operations, for minutes; it leaves it as it is.
    @torch.compiler.disable
    def forward(self, x: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]  (the decorator)
        weights = list(zip(*(stacked.unbind() for stacked in self.parameters()), strict=True))
        states = []
        for part, own in zip(x.chunk(len(weights)), weights, strict=True):
            start = part.new_zeros(self.depth, len(part), self.width)
            states.append(torch.lstm(part, (start, start), own, True, self.depth, 0.0, self.training, False, True)[0])
        return torch.cat(states), None


def _product(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    # (S, rows, inputs) by (S, outputs, inputs), plus (S, outputs): (S, rows, outputs)
    return torch.bmm(rows, weight.mT) if bias is None else torch.baddbmm(bias[:, None], rows, weight.mT)


def _together(tensors: Sequence[Tensor]) -> nn.Parameter:
    return nn.Parameter(torch.stack([tensor.detach() for tensor in tensors]))


_STACKED: dict[type[nn.Module], Callable[[Any], nn.Module]] = {
    nn.Linear: _StackedLinear,
    nn.LayerNorm: _StackedLayerNorm,
    nn.LSTM: _StackedLSTM,
    Embedding: _StackedEmbedding,
}


def _stacked(layers: Sequence[Any]) -> nn.Module:
    """The stacked form of S equal layers: its own where it has weights, else a copy around the stacked parts."""
    first = layers[0]
    kind = type(first)
    if kind in _STACKED:
        return _STACKED[kind](layers)
    if kind is Dropout:
        return _StackedDropout(layers) if first.share else first
    if [*first.parameters(recurse=False), *first.buffers(recurse=False)]:
        known = ", ".join(sorted(layer.__name__ for layer in _STACKED))
        raise TypeError(f"a layer of type {kind.__name__} has weights and no stacked form here; those that have: {known}")
    together = copy.copy(first)
    together._modules = {name: _stacked([layer.get_submodule(name) for layer in layers]) for name, _ in first.named_children()}
    return together
