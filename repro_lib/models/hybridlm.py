"""HybridLM: causal convolutions in front, a transformer behind, the activation in both (430 K parameters)."""

from torch import Tensor, nn

from repro_lib.config import Config
from repro_lib.models.layers import CausalConvBlock, Embedding, TransformerBlock

CONVOLUTIONS = 4


class HybridLM(nn.Module):
    """Token ids (B, T) -> logits (B, T, V). Four convolutions (dilations 1, 2, 4, 8), then ``n_layer`` transformer blocks."""

    def __init__(self, config: Config, vocab_size: int, activation: str) -> None:
        super().__init__()
        width = config.n_embd
        self.embedding = Embedding(vocab_size, width, config.block_size, config.dropout)
        self.convolutions = nn.Sequential(
            *(CausalConvBlock(width, width, 2**i, activation, config.dropout) for i in range(CONVOLUTIONS))
        )
        self.blocks = nn.Sequential(
            *(TransformerBlock(width, config.n_head, activation, config.dropout) for _ in range(config.n_layer))
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocab_size)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)  # (B, T) -> (B, T, C)
        x = self.convolutions(x)
        x = self.blocks(x)
        return self.head(self.norm(x))  # (B, T, C) -> (B, T, V)
