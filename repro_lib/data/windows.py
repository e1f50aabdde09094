"""Training batches, drawn from the first part of a text, and the windows of the rest that every model is scored on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from repro_lib.config import Config
from repro_lib.data.texts import Corpus, load_corpus
from repro_lib.data.tokens import LARGEST_VOCABULARY, CorpusError

# 64 blocks as long as the longest context of a model, so that each is scored with the context it was made for.
EVALUATION_CHARACTERS = 16_384
EVALUATION_BLOCK = 256
# The most numbers in the predictions of a trial, 256 MB: from 4,096 tokens on there are fewer blocks, whose tokens are longer.
LARGEST_PREDICTIONS = 2**26


@dataclass(frozen=True)
class EvaluationWindows:
    """The fixed positions every model is scored on: blocks of 256 tokens spread over the validation text."""

    # (blocks, 256) each; the target of a position is the token after it. ``starts``: (blocks,).
    inputs: Tensor
    targets: Tensor
    starts: Tensor
    # Of the target tokens and their positions, and of nothing that depends on the model.
    sha256: str

    @property
    def tokens(self) -> int:
        """How many tokens are scored."""
        return self.targets.numel()

    def pieces(self, block_size: int) -> Iterator[tuple[int, Tensor]]:
        """(offset within the block, inputs (blocks, T)) for each piece of at most ``block_size`` tokens."""
        # A model with a shorter context reads each block in pieces, so that all are scored on the same tokens.
        for offset in range(0, self.inputs.shape[1], block_size):
            yield offset, self.inputs[:, offset : offset + block_size]

    def every(self, step: int) -> EvaluationWindows:
        """Every ``step``-th block only: a cheaper look at the same text, for curves."""
        return EvaluationWindows(self.inputs[::step], self.targets[::step], self.starts[::step], f"{self.sha256}/{step}")


@dataclass(frozen=True)
class Dataset:
    """A corpus made ready for training: token ids (one or two bytes each) and evaluation windows (int64)."""

    corpus: Corpus
    train: Tensor
    validation: Tensor
    windows: EvaluationWindows

    @property
    def vocab_size(self) -> int:
        """Number of tokens V."""
        return len(self.corpus.tokens.pieces)

    @property
    def unseen(self) -> list[str]:
        """The tokens of the validation text that are not in the training text: no model can learn them."""
        train, validation = (torch.bincount(part, minlength=self.vocab_size) for part in (self.train, self.validation))
        return [self.corpus.vocabulary[k] for k in ((validation > 0) & (train == 0)).nonzero().flatten().tolist()]

    @property
    def evaluation_bytes(self) -> int:
        """The bytes of the scored tokens in UTF-8, to which losses in bits per byte refer."""
        return int(self.corpus.tokens.lengths[self.windows.targets].sum())

    def batch(self, batch_size: int, block_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Random training windows: inputs and targets of shape (B, T); the offsets come from ``generator``."""
        return windows_at(self.train, self.offsets(batch_size, block_size, generator), block_size)

    def offsets(self, batch_size: int, block_size: int, generator: torch.Generator) -> Tensor:
        """Where the windows of a batch start in the training text: (B,), drawn from ``generator``."""
        return torch.randint(len(self.train) - block_size, (batch_size,), generator=generator)

    @cached_property
    def unigram_cross_entropy(self) -> float:
        """Loss in nats of predicting tokens by their frequency in training; a model not below it has learnt nothing."""
        # Counts start at one, so that a token unseen in training does not make it infinite.
        counts = torch.bincount(self.train, minlength=self.vocab_size).double() + 1
        return float(-(counts / counts.sum()).log()[self.windows.targets].mean())


def windows_at(text: Tensor, offsets: Tensor, block_size: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets (..., T), int64, that start at ``offsets`` (...) of the token ids ``text``, on the same device."""
    # (windows, T + 1) as a view: no copy of the text.
    sequences = text.unfold(0, block_size + 1, 1)[offsets].long()
    return sequences[..., :-1].contiguous(), sequences[..., 1:].contiguous()


def load_dataset(config: Config, data_dir: Path | None = None) -> Dataset:
    """The dataset of a configuration. CorpusError if the text is missing, too short or not text."""
    corpus = load_corpus(config.corpus, data_dir).cut_into(config.tokens, config.train_split, data_dir)
    return make_dataset(corpus, config.train_split, config.block_size, config.text_share)


def make_dataset(corpus: Corpus, train_split: float, block_size: int, text_share: float = 1.0) -> Dataset:
    """Split the corpus, encode it, cut the evaluation windows, and leave ``text_share`` of the training text, its beginning."""
    # One border, no shuffling: the validation text is what comes after, as for a reader; overlapping windows would leak it.
    border, size = int(len(corpus.text) * train_split), len(corpus.tokens.pieces)
    if size > LARGEST_VOCABULARY:
        raise CorpusError(
            f"corpus {corpus.name!r} has {size:,} different characters, more than the {LARGEST_VOCABULARY:,} "
            "for which predictions can be kept; use tokens = bytes or bpe:4096"
        )
    if corpus.text.count(corpus.text[:1]) == len(corpus.text):
        raise CorpusError(f"corpus {corpus.name!r} has one character alone, {corpus.text[:1]!r}: there is nothing to predict")
    parts = (corpus.text[:border], corpus.text[border:])
    train, validation = (torch.from_numpy(corpus.tokens.encode(part)) for part in parts)
    first_position, train = len(train), train[: int(len(train) * text_share)]
    if len(train) < block_size + 1:
        raise CorpusError(
            f"corpus {corpus.name!r}: {len(train)} {corpus.tokens.unit} of training text are shorter than one window of "
            f"{block_size + 1}; use a longer text or a smaller block_size"
        )
    return Dataset(corpus, train, validation, _evaluation_windows(validation, corpus, first_position))


def _evaluation_windows(validation: Tensor, corpus: Corpus, first_position: int) -> EvaluationWindows:
    # Up to 64 blocks of 256 tokens.
    room = (len(validation) - 1) // EVALUATION_BLOCK
    blocks = min(EVALUATION_CHARACTERS, LARGEST_PREDICTIONS // len(corpus.tokens.pieces)) // EVALUATION_BLOCK
    blocks = min(blocks, room)
    if blocks < 1:
        raise CorpusError(
            f"corpus {corpus.name!r}: {len(validation)} {corpus.tokens.unit} of validation text are shorter than one "
            f"evaluation window of {EVALUATION_BLOCK + 1}; use a longer text or a smaller train_split"
        )
    last = len(validation) - 1 - EVALUATION_BLOCK
    starts = torch.tensor([round(k * last / max(blocks - 1, 1)) for k in range(blocks)])
    inputs, targets = windows_at(validation, starts, EVALUATION_BLOCK)
    # Positions within the whole text, little-endian: the same digest for the same tokens on every machine.
    digest = hashlib.sha256(f"{corpus.sha256}|{EVALUATION_BLOCK}|".encode())
    digest.update((starts + first_position + 1).numpy().astype("<i8").tobytes())
    digest.update(corpus.tokens.bytes_of(targets.flatten().tolist()))
    if corpus.tokens.kind != "characters":
        # Where one token ends and the next begins, too: the same bytes can be cut in other ways.
        digest.update(f"|{corpus.tokens.kind}|{corpus.tokens.sha256}".encode() + targets.numpy().astype("<i8").tobytes())
    return EvaluationWindows(inputs, targets, starts, digest.hexdigest())
