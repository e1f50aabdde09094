"""A text and its name: read from a file, checked, and found again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from repro_lib.config import project_root
from repro_lib.data.corpora import CORPORA, fetched
from repro_lib.data.tokens import CorpusError, Tokens, characters_of
from repro_lib.system.files import UnusableFile, read_bounded, write_atomically

# Beyond this a text does not fit the purpose (and memory) of a study of small models.
LARGEST_CORPUS_BYTES = 256 * 2**20
TEXT_CHANGED = (
    "{} was changed while it was trained on; results of the old text are kept, and the same command trains on the new one"
)


@dataclass(frozen=True)
class Corpus:
    """A text with its name and the SHA-256 of its UTF-8 bytes."""

    name: str
    text: str
    sha256: str

    @cached_property
    def tokens(self) -> Tokens:
        """What the text is cut into."""
        return characters_of(self.text, self.name)

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The tokens as text (V,), in the order of their ids; of characters those of the whole text, sorted."""
        return self.tokens.vocabulary

    def encode(self, text: str) -> Tensor:
        """Token ids (T,), int64. Raises CorpusError for a character outside the vocabulary."""
        return torch.from_numpy(self.tokens.encode(text)).long()

    def decode(self, tokens: Tensor | Sequence[int]) -> str:
        """The text of token ids (T,)."""
        return self.tokens.decode(torch.as_tensor(tokens).tolist())


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
    target = (data_dir or project_root() / "data") / f"{name_or_path}.txt"
    if name_or_path in CORPORA and not target.is_file():
        text = fetched(name_or_path, target)
        if (digest := _sha256(text)) != CORPORA[name_or_path]["sha256"]:
            raise CorpusError(f"the text fetched for {name_or_path!r} is another one (SHA-256 {digest}); nothing was kept")
        # Whole or not at all: whoever stops the download leaves no half of a text.
        write_atomically(target, text)
    return load_corpus(name_or_path, data_dir)


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
