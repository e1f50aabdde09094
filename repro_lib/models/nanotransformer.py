"""NanoTransformer: CharLM without dropout and without biases (does regularisation matter?) (430 K parameters)."""

from __future__ import annotations

from torch import Tensor, nn

from repro_lib.config import Config
from repro_lib.models.layers import Embedding, TransformerBlock


class NanoTransformer(nn.Module):
    """Token ids (B, T) -> logits (B, T, V). No dropout: Config.for_model refuses any."""

    def __init__(self, config: Config, vocab_size: int, activation: str) -> None:
        super().__init__()
        self.embedding = Embedding(vocab_size, config.n_embd, config.block_size, dropout=0.0)
        self.blocks = nn.Sequential(
            *(
                TransformerBlock(config.n_embd, config.n_head, activation, dropout=0.0, bias=False)
                for _ in range(config.n_layer)
            )
        )
        self.norm = nn.LayerNorm(config.n_embd, bias=False)
        self.head = nn.Linear(config.n_embd, vocab_size, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)  # (B, T) -> (B, T, C)
        x = self.blocks(x)
        return self.head(self.norm(x))  # (B, T, C) -> (B, T, V)
