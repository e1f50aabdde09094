"""The parts the six models are made of.

Shapes: B batch, T time, C width, V vocabulary, H heads. Every layer takes and returns (B, T, C) unless it says
otherwise. The activation is given by its name and nothing else about a layer depends on it, save that a gated
activation needs a wider first matrix and gets a narrower hidden layer in exchange."""

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from repro_lib.models.activations import get_activation

# Standard deviation of the token embeddings at the start, and amplitude of the positions.
EMBEDDING_SIZE = 0.05


class Dropout(nn.Module):
    """Dropout that draws its mask from the trial's own random stream instead of the global generator."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share
        self.generator: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.share == 0.0:
            return x
        # Never the global generator in its place: what is drawn there would depend on everything else that draws.
        if self.generator is None:
            raise RuntimeError("this dropout layer has no random stream; build the model with build_model")
        return x * dropout_mask(x.shape, self.share, self.generator, x.dtype)


def dropout_mask(shape: Sequence[int], share: float, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Tensor:
    """0 for a share of the places, 1 / (1 - share) for the others, drawn from ``generator`` on its device."""
    size = math.prod(shape)
    draws = torch.empty(words_of_places(size), dtype=torch.int64, device=generator.device)
    draw_places(draws, generator)
    return mask_of_places(draws.view(torch.int16)[:size].view(*shape), share, dtype)


def words_of_places(size: int) -> int:
    """How many words of 64 bits hold the draws of ``size`` places of a mask: four places share one, 16 bits each."""
    # One draw for four places is 2.5 times as fast as ``bernoulli_``.
    return -(-size // 4)


def draw_places(words: Tensor, generator: torch.Generator) -> None:
    """Fill words (int64) with what ``mask_of_places`` reads as numbers of 16 bits."""
    words.random_(-(2**63), None, generator=generator)


def mask_of_places(places: Tensor, share: float, dtype: torch.dtype) -> Tensor:
    """The mask that draws of 16 bits mean, -32,768 ... 32,767 all equally likely; the share is met to within 1 / 65,536."""
    last_kept = round((1.0 - share) * 65_536) - 32_769
    kept = places <= min(max(last_kept, -32_768), 32_767)
    return kept.to(dtype).mul_(1.0 / (1.0 - share))


class FeedForward(nn.Module):
    """Linear, activation, linear: (..., width_in) -> (..., width_out). The one place an activation is plugged in."""

    def __init__(self, width_in: int, hidden: int, width_out: int, activation: str, bias: bool = True) -> None:
        super().__init__()
        self.activation = get_activation(activation)
        # ``hidden`` is the width of an ungated one; a gated one gets the multiple of 4 that keeps the number of parameters.
        if self.activation.gated:
            hidden = max(4, 4 * round(hidden * (width_in + width_out) / (2 * width_in + width_out) / 4))
        self.expand = nn.Linear(width_in, 2 * hidden if self.activation.gated else hidden, bias=bias)
        self.project = nn.Linear(hidden, width_out, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.activation(self.expand(x)))


def _angles(length: int, width: int, device: torch.device | None = None) -> Tensor:
    """(T, C/2) angles: per character from 1 down to about 1/200, turns that suit contexts of a few hundred."""
    frequencies = 200.0 ** -(torch.arange(0, width, 2, dtype=torch.float32, device=device) / width)
    return torch.arange(length, dtype=torch.float32, device=device)[:, None] * frequencies


def rotate(x: Tensor) -> Tensor:
    """Rotary positions (Su et al. 2021, arXiv 2104.09864): (B, T, ..., D) -> the same, D even.

    Products of a rotated query and key depend on how far apart they are, so that attention to the previous character
    need not be learnt place by place."""
    # Neighbours in D are the two parts of a complex number that is turned: one pass over the memory, where sines and
    # cosines of halves take five.
    T, D = x.shape[1], x.shape[-1]
    if torch.compiler.is_compiling():
        return _rotate_in_parts(x)
    turns = _turns(T, D, x.device).view(T, *[1] * (x.ndim - 3), D // 2)
    numbers = torch.view_as_complex(x.float().unflatten(-1, (D // 2, 2)))
    return torch.view_as_real(numbers * turns).flatten(-2).to(x.dtype)


def _rotate_in_parts(x: Tensor) -> Tensor:
    # In real numbers, for the compiler: it makes one kernel of them and none of complex ones.
    T, D = x.shape[1], x.shape[-1]
    angles = _angles(T, D, x.device).view(T, *[1] * (x.ndim - 3), D // 2)
    real, imaginary = x.float().unflatten(-1, (D // 2, 2)).unbind(-1)
    turned = (real * angles.cos() - imaginary * angles.sin(), real * angles.sin() + imaginary * angles.cos())
    return torch.stack(turned, dim=-1).flatten(-2).to(x.dtype)


@lru_cache(maxsize=16)
def _turns(length: int, width: int, device: torch.device) -> Tensor:
    """(T, D/2) complex numbers of size 1: how far each pair is turned at each position."""
    with torch.inference_mode(False):  # kept for training, whoever asks first
        angles = _angles(length, width)
        return torch.polar(torch.ones_like(angles), angles).to(device)


class CausalSelfAttention(nn.Module):
    """Multi-head attention with rotary positions in which a position sees itself and what is before it."""

    def __init__(self, width: int, heads: int, bias: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.project = nn.Linear(width, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        B, T, C = x.shape
        # (B, T, 3C) -> (B, T, 2, H, C/H) and (B, T, 1, H, C/H)
        qk, v = self.qkv(x).view(B, T, 3, self.heads, C // self.heads).split((2, 1), dim=2)
        # Rotated before the heads move forward, while a position's numbers lie side by side: three of (B, H, T, C/H)
        q, k = rotate(qk).permute(2, 0, 3, 1, 4)
        v = v.squeeze(2).transpose(1, 2)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        # (B, H, T, C/H) -> (B, T, C)
        return self.project(y.transpose(1, 2).reshape(B, T, C))


class TransformerBlock(nn.Module):
    """Pre-norm attention and feed-forward, each beside a residual path."""

    def __init__(self, width: int, heads: int, activation: str, dropout: float, bias: bool = True) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, bias=bias)
        self.attention = CausalSelfAttention(width, heads, bias)
        self.feed_forward_norm = nn.LayerNorm(width, bias=bias)
        self.feed_forward = FeedForward(width, 4 * width, width, activation, bias)
        # One each: a layer that drops is used once in a forward pass, so that stacked trials can give it its masks.
        self.attention_dropout, self.feed_forward_dropout = Dropout(dropout), Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention_dropout(self.attention(self.attention_norm(x)))
        return x + self.feed_forward_dropout(self.feed_forward(self.feed_forward_norm(x)))


class CausalConvBlock(nn.Module):
    """Pre-norm dilated causal convolution of two taps, activation, 1x1 convolution, beside a residual path.

    A position sees itself and the one ``dilation`` before it."""

    def __init__(self, width: int, hidden: int, dilation: int, activation: str, dropout: float) -> None:
        super().__init__()
        self.dilation = dilation
        self.norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(2 * width, hidden, width, activation)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        # Zeros stand before the first character; both cuts keep the length T, also where T <= dilation.
        earlier = F.pad(y, (0, 0, self.dilation, 0))[:, : y.shape[1]]
        # Two taps side by side make the convolution one matrix product, (B, T, 2C) -> (B, T, hidden).
        return x + self.dropout(self.feed_forward(torch.cat([earlier, y], dim=-1)))


class Embedding(nn.Module):
    """Token ids (B, T) -> (B, T, C); with ``block_size`` a learnt position is added."""

    def __init__(self, vocab_size: int, width: int, block_size: int | None, dropout: float) -> None:
        super().__init__()
        # From empty weights: the constructor's own, drawn without storage, would first import torch's compiler, for a second.
        self.tokens = nn.Embedding.from_pretrained(torch.empty(vocab_size, width), freeze=False)
        self.positions = nn.Embedding.from_pretrained(torch.empty(block_size, width), freeze=False) if block_size else None
        self.dropout = Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens)
        if self.positions is not None:
            T, longest = tokens.shape[1], self.positions.num_embeddings
            if longest < T:
                raise ValueError(f"the input has {T} characters, but this model's context is {longest} (block_size)")
            x = x + self.positions.weight[:T]
        return self.dropout(x)


def use_dropout_stream(model: nn.Module, generator: torch.Generator) -> None:
    """Let every dropout layer of ``model`` draw from ``generator``."""
    for module in model.modules():
        if isinstance(module, Dropout):
            module.generator = generator


@torch.no_grad()
def initialise(model: nn.Module, generator: torch.Generator) -> None:
    """Draw all weights from ``generator``, in the order of the modules; biases are 0, norms 1."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            # 1/sqrt(inputs) keeps the size of the input whatever the width. What ends a residual branch is 0, so that a model
            # of any depth starts as its embedding and each layer adds only what it learns (Zhang, Dauphin & Ma 2019, arXiv
            # 1901.09321). With a head of 0.02 training starts from nearly uniform predictions.
            std = 0.0 if name.endswith("project") else 0.02 if name == "head" else 1 / math.sqrt(module.in_features)
            nn.init.normal_(module.weight, std=std, generator=generator)
        elif isinstance(module, nn.Embedding):
            # Positions are learnt from sinusoids of the same size on, at the turns of ``rotate`` (Vaswani et al. 2017).
            if name.endswith("positions"):
                angles = _angles(module.num_embeddings, module.embedding_dim)
                module.weight.copy_(EMBEDDING_SIZE * torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1))
            else:
                nn.init.normal_(module.weight, std=EMBEDDING_SIZE, generator=generator)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
        elif isinstance(module, nn.LSTM):
            _initialise_lstm(module, generator)
        if getattr(module, "bias", None) is not None and not isinstance(module, nn.LSTM):
            nn.init.zeros_(module.bias)  # pyright: ignore[reportArgumentType]


def _initialise_lstm(lstm: nn.LSTM, generator: torch.Generator) -> None:
    """Input matrices 1/sqrt(inputs), recurrent ones orthogonal per gate, forget gates open (Jozefowicz et al. 2015)."""
    width = lstm.hidden_size
    for name, parameter in lstm.named_parameters():
        if name.startswith("weight_ih"):
            nn.init.normal_(parameter, std=1 / math.sqrt(parameter.shape[1]), generator=generator)
        elif name.startswith("weight_hh"):
            for gate in parameter.split(width):
                nn.init.orthogonal_(gate, generator=generator)
        else:
            nn.init.zeros_(parameter)
            # Gates are stored as input, forget, cell, output; the two biases are added, so one of them gets the 1.
            if name.startswith("bias_ih"):
                parameter[width : 2 * width] = 1.0
