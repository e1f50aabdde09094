"""A plain loop that does what the earlier study's code does, written here to compare with: nothing in the suite uses it.

Eager PyTorch with its default number of threads; one attention head after another with a masked softmax; batches stacked
from Python slices; every 50 iterations the loss on 50 batches each of training and validation text; at the end two
accuracies of 1,000 single windows and, for each pair of models, 1,000 single-window predictions of both; one cell after
another. Sizes and recipe are the suite's, so that the work that matters is the same.
"""

import time
from dataclasses import dataclass
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from repro_lib.config import Config
from repro_lib.data import Dataset

EVALUATE_EVERY, EVALUATION_BATCHES, SINGLE_WINDOWS = 50, 50, 1_000
_WITH_POSITIONS = ("charlm", "nanotransformer", "hybridlm")  # those with attention
_ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "swish": nn.SiLU}


class _Head(nn.Module):
    def __init__(self, width: int, size: int, context: int) -> None:
        super().__init__()
        self.key, self.query, self.value = (nn.Linear(width, size) for _ in range(3))
        self.register_buffer("mask", torch.tril(torch.ones(context, context)))

    def forward(self, x: Tensor) -> Tensor:
        T = x.shape[1]
        scores = self.query(x) @ self.key(x).transpose(-2, -1) * self.value.out_features**-0.5
        scores = scores.masked_fill(self.mask[:T, :T] == 0, float("-inf"))  # pyright: ignore[reportIndexIssue]
        return F.softmax(scores, dim=-1) @ self.value(x)


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int, context: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(_Head(width, width // heads, context) for _ in range(heads))
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(torch.cat([head(x) for head in self.heads], dim=-1))


class _Block(nn.Module):
    def __init__(self, config: Config, activation: str) -> None:
        super().__init__()
        width = config.n_embd
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.attention = _Attention(width, config.n_head, config.block_size)
        self.feed_forward = nn.Sequential(nn.Linear(width, 4 * width), _ACTIVATIONS[activation](), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.norms[0](x)))
        return x + self.dropout(self.feed_forward(self.norms[1](x)))


class _Convolution(nn.Module):
    """Conv1d in the layout (B, C, T), padded on the left."""

    def __init__(self, width: int, hidden: int, dilation: int, activation: str, dropout: float) -> None:
        super().__init__()
        self.dilation = dilation
        self.norm = nn.LayerNorm(width)
        self.convolution = nn.Conv1d(width, hidden, 2, dilation=dilation)
        self.activation = _ACTIVATIONS[activation]()
        self.project = nn.Conv1d(hidden, width, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        y = F.pad(self.norm(x).transpose(1, 2), (self.dilation, 0))
        return x + self.dropout(self.project(self.activation(self.convolution(y))).transpose(1, 2))


class BaselineModel(nn.Module):
    """charlm, nanotransformer, convlm, hybridlm or tinylstm of the suite's size, written plainly."""

    def __init__(self, name: str, config: Config, vocab_size: int, activation: str) -> None:
        super().__init__()
        width = config.n_embd
        self.tokens = nn.Embedding(vocab_size, width)
        self.positions = nn.Embedding(config.block_size, width) if name in _WITH_POSITIONS else None
        dilations = {"convlm": (1, 2, 4, 8, 16, 32, 64), "hybridlm": (1, 2, 4, 8)}.get(name, ())
        hidden = round(19 / 16 * width) if name == "convlm" else width
        layers: list[nn.Module] = [_Convolution(width, hidden, d, activation, config.dropout) for d in dilations]
        if name in _WITH_POSITIONS:
            layers += [_Block(config, activation) for _ in range(config.n_layer)]
        self.blocks = nn.Sequential(*layers)
        self.lstm = nn.LSTM(width, width, config.n_layer, batch_first=True) if name == "tinylstm" else None
        self.head = nn.Linear(width, vocab_size)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens)
        if self.positions:
            x = x + self.positions.weight[: tokens.shape[1]]
        x = self.lstm(x)[0] if self.lstm else self.blocks(x)
        return self.head(x)


@dataclass(frozen=True)
class BaselineSeconds:
    """Seconds of the parts of one cell, as measured: ``iterations`` training steps, one evaluation, one accuracy of 1,000
    windows, 1,000 predictions of one model."""

    iterations: int
    training: float
    evaluation: float
    accuracy: float
    predictions: float

    def of_cell(self, max_iters: int, trials: int) -> float:
        """Scaled to a whole cell: the training with its evaluations, two accuracies a trial, two models a pair."""
        one = self.training / self.iterations * max_iters + self.evaluation * (max_iters // EVALUATE_EVERY)
        pairs = len(list(combinations(range(trials), 2)))
        return trials * (one + 2 * self.accuracy) + 2 * pairs * self.predictions


def time_baseline(name: str, activation: str, config: Config, dataset: Dataset, iterations: int = 50) -> BaselineSeconds:
    """Time the parts of one cell with as many threads as PyTorch takes by itself."""
    torch.manual_seed(0)
    text = dataset.train.tolist(), dataset.validation.tolist()
    model = BaselineModel(name, config, dataset.vocab_size, activation)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate)
    _train(model, optimizer, text[0], config, 2)  # warm-up
    training = _timed(lambda: _train(model, optimizer, text[0], config, iterations))
    evaluation = _timed(lambda: [_evaluate(model, part, config) for part in text])
    accuracy = _timed(lambda: _accuracy(model, text[1], config))
    predictions = _timed(lambda: _predictions(model, text[1], config))
    return BaselineSeconds(iterations, training, evaluation, accuracy, predictions)


def run_cell(name: str, activation: str, config: Config, dataset: Dataset) -> float:
    """Seconds of a whole cell, done in full: what ``BaselineSeconds.of_cell`` estimates."""
    text = dataset.train.tolist(), dataset.validation.tolist()
    started, models = time.perf_counter(), []
    for trial in range(config.trials):
        torch.manual_seed(trial)
        model = BaselineModel(name, config, dataset.vocab_size, activation)
        optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate)
        for _ in range(config.max_iters // EVALUATE_EVERY):
            _train(model, optimizer, text[0], config, EVALUATE_EVERY)
            for part in text:
                _evaluate(model, part, config)
        for _ in range(2):
            _accuracy(model, text[1], config)
        models.append(model)
    for pair in combinations(models, 2):
        for model in pair:
            _predictions(model, text[1], config)
    return time.perf_counter() - started


def _timed(work: object) -> float:
    started = time.perf_counter()
    work()  # pyright: ignore[reportCallIssue]
    return time.perf_counter() - started


def _batch(text: list[int], config: Config) -> tuple[Tensor, Tensor]:
    starts = torch.randint(len(text) - config.block_size - 1, (config.batch_size,)).tolist()
    x = torch.stack([torch.tensor(text[s : s + config.block_size]) for s in starts])
    y = torch.stack([torch.tensor(text[s + 1 : s + 1 + config.block_size]) for s in starts])
    return x, y


def _train(model: nn.Module, optimizer: torch.optim.Optimizer, text: list[int], config: Config, iterations: int) -> None:
    model.train()
    for _ in range(iterations):
        x, y = _batch(text, config)
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@torch.no_grad()
def _evaluate(model: nn.Module, text: list[int], config: Config) -> None:
    model.eval()
    for _ in range(EVALUATION_BATCHES):
        x, y = _batch(text, config)
        F.cross_entropy(model(x).flatten(0, 1), y.flatten()).item()


@torch.no_grad()
def _accuracy(model: nn.Module, text: list[int], config: Config) -> float:
    model.eval()
    right = 0
    for start in torch.randint(len(text) - config.block_size - 1, (SINGLE_WINDOWS,)).tolist():
        x = torch.tensor([text[start : start + config.block_size]])
        right += int(model(x)[0, -1].argmax().item() == text[start + config.block_size])
    return right / SINGLE_WINDOWS


@torch.no_grad()
def _predictions(model: nn.Module, text: list[int], config: Config) -> None:
    model.eval()
    for start in torch.randint(len(text) - config.block_size - 1, (SINGLE_WINDOWS,)).tolist():
        F.softmax(model(torch.tensor([text[start : start + config.block_size]]))[0], dim=-1)
