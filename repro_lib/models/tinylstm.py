"""TinyLSTM: the grid's negative control, and TinyLSTMReadout, which does have an activation (176 K and 208 K parameters)."""

from torch import Tensor, nn

from repro_lib.config import Config
from repro_lib.models.activations import canonical_activation
from repro_lib.models.layers import Dropout, Embedding, FeedForward

# Hidden width of the readout per width: 201 at width 140. Another one would be another model to the results that are stored.
READOUT_PER_WIDTH = 23 / 16


class TinyLSTM(nn.Module):
    """Token ids (B, T) -> logits (B, T, V). The gates of an LSTM are sigmoid and tanh by definition.

    The activation is checked and then not used."""

    def __init__(self, config: Config, vocab_size: int, activation: str) -> None:
        super().__init__()
        # Five bit-identical rows in the grid prove that nothing but the activation differs between the cells of a model.
        canonical_activation(activation)
        self.embedding = Embedding(vocab_size, config.n_embd, None, config.dropout)
        self.lstm = nn.LSTM(config.n_embd, config.n_embd, config.n_layer, batch_first=True)
        self.dropout = Dropout(config.dropout)
        self.head = nn.Linear(config.n_embd, vocab_size)

    def forward(self, tokens: Tensor) -> Tensor:
        x, _ = self.lstm(self.embedding(tokens))  # (B, T) -> (B, T, C)
        return self.head(self.dropout(x))  # (B, T, C) -> (B, T, V)


class TinyLSTMReadout(nn.Module):
    """The same with a feed-forward readout that holds the activation: does an LSTM care?"""

    def __init__(self, config: Config, vocab_size: int, activation: str) -> None:
        super().__init__()
        hidden = round(READOUT_PER_WIDTH * config.n_embd)
        self.embedding = Embedding(vocab_size, config.n_embd, None, config.dropout)
        self.lstm = nn.LSTM(config.n_embd, config.n_embd, config.n_layer, batch_first=True)
        self.dropout = Dropout(config.dropout)
        self.readout = FeedForward(config.n_embd, hidden, vocab_size, activation)

    def forward(self, tokens: Tensor) -> Tensor:
        x, _ = self.lstm(self.embedding(tokens))  # (B, T) -> (B, T, C)
        return self.readout(self.dropout(x))  # (B, T, C) -> (B, T, V)
