"""ConvLM: dilated causal convolutions in the manner of WaveNet; no attention, no positions (430 K parameters)."""

from torch import Tensor, nn

from repro_lib.config import Config
from repro_lib.models.layers import CausalConvBlock, Embedding

# Hidden width of a block per width: 152 at width 128, which makes seven blocks 430 K parameters.
HIDDEN_PER_WIDTH = 19 / 16


class ConvLM(nn.Module):
    """Token ids (B, T) -> logits (B, T, V). Dilations 1, 2, 4, ...: seven layers see exactly 128 characters."""

    def __init__(self, config: Config, vocab_size: int, activation: str) -> None:
        super().__init__()
        hidden = round(HIDDEN_PER_WIDTH * config.n_embd)
        self.embedding = Embedding(vocab_size, config.n_embd, None, config.dropout)
        self.blocks = nn.Sequential(
            *(CausalConvBlock(config.n_embd, hidden, 2**i, activation, config.dropout) for i in range(config.n_layer))
        )
        self.norm = nn.LayerNorm(config.n_embd)
        self.head = nn.Linear(config.n_embd, vocab_size)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)  # (B, T) -> (B, T, C)
        x = self.blocks(x)
        return self.head(self.norm(x))  # (B, T, C) -> (B, T, V)
