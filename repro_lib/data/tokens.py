"""What a text is cut into: its characters, the bytes of its UTF-8, or pieces of words that BPE found in its training part.

Whatever the kind, a token stands for some bytes, so that losses can be given per byte and compared."""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from repro_lib.system.files import UnusableFile, read_bounded, write_atomically

# Predictions hold a number for each of these and each scored token (``windows.LARGEST_PREDICTIONS``).
LARGEST_VOCABULARY = 32_768
# BPE is many times as fast on short pieces, at whose ends a word is cut in two.
_BPE_PIECE = 2**12
# Longer texts are cut into tokens piece by piece: characters in 32 bits take four times the memory of a text in ASCII.
_PIECE = 2**20
_CODE_POINTS = 0x110000
_LARGEST_FILE = 64 * 2**20


class CorpusError(ValueError):
    """A corpus that cannot be had or used; the message says what to do."""


@dataclass(frozen=True, eq=False)
class Tokens:
    """A vocabulary of V tokens. ``pieces`` (V,): the bytes that each stands for, whose place is the token's id.

    ``sha256`` is that of the rules which cut a text, where these are not the text's own characters or bytes.

    >>> bytes_of_utf_8().decode(bytes_of_utf_8().encode("é").tolist())
    'é'
    """

    kind: str  # characters, bytes or bpe:N
    pieces: tuple[bytes, ...]
    cut: Callable[[str], Any]  # some text -> ids
    sha256: str = ""

    @property
    def unit(self) -> str:
        """What messages call them."""
        return "characters" if self.kind == "characters" else "tokens"

    @cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """(V,) the text of each token; of a byte that is no character by itself its number, as in ``\\xe6``."""
        return tuple(map(_shown, self.pieces))

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """(V,) the bytes of each token."""
        return np.array([len(piece) for piece in self.pieces])

    def encode(self, text: str) -> NDArray[np.uint8 | np.int16]:
        """Token ids (T,), in one byte each where V allows it; CorpusError for a character that is no token."""
        kind = np.uint8 if len(self.pieces) <= 256 else np.int16
        return np.concatenate([np.asarray(self.cut(piece)).astype(kind) for piece in _pieces(text)] or [np.empty(0, kind)])

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of token ids (T,); parts of a character whose rest is missing as in ``vocabulary``."""
        return _shown(self.bytes_of(tokens))

    def spelled(self, tokens: Sequence[int]) -> list[str]:
        """The text of each token: of parts of a character the last one has it, those before it a dot."""
        decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        return [decoder.decode(self.pieces[token]) or "·" for token in tokens]

    def bytes_of(self, tokens: Sequence[int]) -> bytes:
        """The bytes of token ids (T,)."""
        return b"".join([self.pieces[token] for token in tokens])


def characters_of(text: str, name: str) -> Tokens:
    """The distinct characters of a text, sorted. ``name`` is the text's, for messages."""
    there = np.zeros(_CODE_POINTS, bool)
    for piece in _pieces(text):
        there[_code_points(piece)] = True
    known = np.flatnonzero(there)
    ids = np.full(_CODE_POINTS, -1, np.int32)
    ids[known] = np.arange(len(known))

    def cut(text: str) -> NDArray[np.int32]:
        found = ids[_code_points(text)]
        if (strange := found < 0).any():
            raise CorpusError(f"the character {text[strange.argmax()]!r} does not occur in the corpus {name!r}")
        return found

    return Tokens("characters", tuple(chr(c).encode("utf-8", "surrogatepass") for c in known), cut)


def bytes_of_utf_8() -> Tokens:
    """The 256 bytes: any text can be written with them."""
    return Tokens("bytes", tuple(bytes([k]) for k in range(256)), lambda text: np.frombuffer(_utf_8(text), np.uint8))


def bpe_of(kind: str, training_text: str, folder: Path) -> Tokens:
    """Byte-level BPE of at most N tokens (``kind`` is bpe:N), trained on this text alone: Sennrich et al. 2016, arXiv
    1508.07909, over bytes as in GPT-2. Kept in ``folder`` under the digests of what it was made of and of what it is."""
    try:
        import tokenizers
    except ImportError:
        raise CorpusError(f"tokens = {kind!r} needs the package tokenizers; install it with: pip install tokenizers") from None
    # Threads of its own would not survive the forks of a grid.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    digest = hashlib.sha256(f"{kind}|{tokenizers.__version__}|".encode())
    for piece in _pieces(training_text):
        digest.update(_utf_8(piece))
    made_of = digest.hexdigest()
    found = _kept(folder, made_of)
    if found is None:
        trained = tokenizers.Tokenizer(tokenizers.models.BPE())
        trained.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
        size = int(kind.removeprefix("bpe:"))
        trainer = tokenizers.trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
        trained.train_from_iterator(_pieces(training_text, _BPE_PIECE), trainer)
        found = trained.to_str()
        # It only saves time: where nothing can be written it is trained again.
        with contextlib.suppress(OSError):
            write_atomically(folder / f"bpe-{made_of[:12]}-{_sha256(found)[:12]}.json", found)
    tokenizer = tokenizers.Tokenizer.from_str(found)
    names = [tokenizer.id_to_token(k) or "" for k in range(tokenizer.get_vocab_size())]
    numbers = _byte_numbers()
    pieces = tuple(bytes(numbers[letter] for letter in name) for name in names)

    def cut(text: str) -> list[int]:
        return [token for piece in tokenizer.encode_batch_fast([*_pieces(text, _BPE_PIECE)]) for token in piece.ids]

    return Tokens(kind, pieces, cut, _sha256(found))


def _kept(folder: Path, made_of: str) -> str | None:
    # A file that was changed has another digest than its name says, and is made anew.
    for path in sorted(folder.glob(f"bpe-{made_of[:12]}-*.json")):
        with contextlib.suppress(OSError, UnusableFile, UnicodeDecodeError):
            text = read_bounded(path, _LARGEST_FILE).decode()
            if path.stem.endswith(_sha256(text)[:12]):
                return text
    return None


def _byte_numbers() -> dict[str, int]:
    # Byte-level BPE writes each byte as one printable letter (Radford et al. 2019): those that are printable as themselves,
    # the others as the letters from 256 on.
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + k): byte for k, byte in enumerate(others)}


def _pieces(text: str, size: int = _PIECE) -> Iterator[str]:
    return (text[start : start + size] for start in range(0, len(text), size))


def _code_points(text: str) -> NDArray[np.uint32]:
    # A typed prompt may hold half a character.
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def _utf_8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _shown(piece: bytes) -> str:
    return piece.decode("utf-8", "backslashreplace")


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
