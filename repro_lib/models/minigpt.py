"""MiniGPT: the GPT-2 shape at 10.8 M parameters, the one large model of the grid (does size matter?)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from repro_lib.config import Config
from repro_lib.models.layers import Embedding, TransformerBlock


class MiniGPT(nn.Module):
    """Token ids (B, T) -> logits (B, T, V). As in GPT-2 the output matrix is the token embedding, scaled by 1/sqrt(C)."""

    def __init__(self, config: Config, vocab_size: int, activation: str) -> None:
        super().__init__()
        self.embedding = Embedding(vocab_size, config.n_embd, config.block_size, config.dropout)
        self.blocks = nn.Sequential(
            *(TransformerBlock(config.n_embd, config.n_head, activation, config.dropout) for _ in range(config.n_layer))
        )
        self.norm = nn.LayerNorm(config.n_embd)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)  # (B, T) -> (B, T, C)
        x = self.blocks(x)
        # Scaled, for embeddings of order one would make the first predictions far too sure (Raffel et al. 2020).
        weight = self.embedding.tokens.weight * self.embedding.tokens.embedding_dim**-0.5
        return F.linear(self.norm(x), weight)  # (B, T, C) -> (B, T, V)
