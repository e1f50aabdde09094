"""CharLM: a small pre-norm transformer, the reference (430 K parameters)."""

from torch import Tensor, nn

from repro_lib.config import Config
from repro_lib.models.layers import Embedding, TransformerBlock


class CharLM(nn.Module):
    """Token ids (B, T) -> logits (B, T, V). Learnt positions; separate input and output matrices."""

    biases = True

    def __init__(self, config: Config, vocab_size: int, activation: str) -> None:
        super().__init__()
        self.embedding = Embedding(vocab_size, config.n_embd, config.block_size, config.dropout)
        size = config.n_embd, config.n_head, activation, config.dropout, self.biases
        self.blocks = nn.Sequential(*(TransformerBlock(*size) for _ in range(config.n_layer)))
        self.norm = nn.LayerNorm(config.n_embd, bias=self.biases)
        self.head = nn.Linear(config.n_embd, vocab_size, bias=self.biases)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)  # (B, T) -> (B, T, C)
        x = self.blocks(x)
        return self.head(self.norm(x))  # (B, T, C) -> (B, T, V)
