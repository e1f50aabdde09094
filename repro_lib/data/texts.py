"""A text and its name: read from a file, checked, and found again."""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import os
import shlex
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from repro_lib.config import project_root
from repro_lib.data.corpora import CORPORA, fetched
from repro_lib.data.tokens import CorpusError, Tokens, bpe_of, bytes_of_utf_8, characters_of
from repro_lib.system.files import UnusableFile, read_bounded, write_atomically

# Folders of texts, for all processes of a run.
FOLDERS_VARIABLE = "REPRO_CORPUS_DIR"
# Where this process has read texts of which results know the digest alone.
_SEEN: dict[str, Path] = {}
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
    cut: Tokens | None = field(default=None, compare=False, repr=False)  # None: into its characters
    marked: bool = field(default=False, compare=False, repr=False)  # a byte-order mark in front, which is no part of it

    @cached_property
    def tokens(self) -> Tokens:
        """What the text is cut into."""
        return self.cut or characters_of(self.text, self.name)

    def notice(self) -> str:
        """What of the text somebody may not know of and ``normalised`` takes out, with counts; empty where there is nothing."""
        other = () if unicodedata.is_normalized("NFC", self.text) else self.text.split()
        counts = {
            "byte-order marks": self.text.count("\ufeff") + self.marked,
            "carriage returns": self.text.count("\r"),
            "NULs": self.text.count("\0"),
            "words in another Unicode form than NFC": sum(not unicodedata.is_normalized("NFC", word) for word in other),
        }
        found = ", ".join(f"{what} ({count:,})" for what, count in counts.items() if count)
        return f"{self.name} has {found}; --normalise takes them out" if found else ""

    def cut_into(self, kind: str, train_split: float, folder: Path | None = None) -> Corpus:
        """The same text in other tokens: characters, bytes or bpe:N, which is trained on the training part alone and kept
        in ``folder``. CorpusError where that is not possible."""
        if kind == "characters":
            return replace(self, cut=None)
        if kind == "bytes":
            return replace(self, cut=bytes_of_utf_8())
        training, folder = self.text[: int(len(self.text) * train_split)], folder or project_root() / "data"
        return replace(self, cut=bpe_of(kind, training, folder))

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


def text_folders() -> list[Path]:
    """Where texts are looked for: the folders of ``--corpus-dir`` (REPRO_CORPUS_DIR, joined as in PATH), then data/."""
    given = os.environ.get(FOLDERS_VARIABLE, "").split(os.pathsep)
    return [*(Path(folder) for folder in given if folder), project_root() / "data"]


def look_in(folder: Path) -> None:
    """Look for texts in this folder first, here and in all processes that are started from here."""
    folders = dict.fromkeys([str(folder.resolve()), *os.environ.get(FOLDERS_VARIABLE, "").split(os.pathsep)])
    os.environ[FOLDERS_VARIABLE] = os.pathsep.join(filter(None, folders))


def load_corpus(name_or_path: str, data_dir: Path | None = None) -> Corpus:
    """A named corpus, or any UTF-8 text file given by its path or by its name in one of ``text_folders``. Never downloads."""
    path, entry = _place(name_or_path, data_dir), CORPORA.get(name_or_path)
    if entry is None:
        if path is None:
            raise CorpusError(f"no corpus {name_or_path!r}: it is neither one of {', '.join(CORPORA)} nor a text file")
        corpus = _read_text(path, path.name)
        _SEEN[corpus.sha256] = path.resolve()
        return corpus
    command = f"repro prepare-data --corpus {name_or_path}"
    if path is None:
        raise CorpusError(f"corpus {name_or_path!r} is not in data/; fetch it with: {command}")
    if (corpus := _read_text(path, name_or_path)).sha256 != entry["sha256"]:
        digests = f"its SHA-256 is {corpus.sha256}, expected {entry['sha256']}"
        raise CorpusError(f"{path} is not the {name_or_path} corpus ({digests}); delete it and run: {command}")
    return corpus


def _place(name_or_path: str, data_dir: Path | None) -> Path | None:
    # Where a text lies: data/ comes after what the user named or stands in.
    *first, last = [data_dir] if data_dir else text_folders()
    path = Path(f"{name_or_path}.txt" if name_or_path in CORPORA else name_or_path).expanduser()
    here = [] if name_or_path in CORPORA else [path]
    return next((place for place in [*(folder / path for folder in first), *here, last / path] if place.is_file()), None)


def find_corpus(name: str, sha256: str) -> Corpus:
    """The text with this digest, wherever it lies: among ``text_folders``, under any name, or where this process has read it;
    ``name`` is what it was called. CorpusError if it is nowhere."""
    if known := next((known for known, entry in CORPORA.items() if entry["sha256"] == sha256), None):
        return load_corpus(known)
    folders, changed = text_folders(), False
    called = [_SEEN.get(sha256), Path(name), *(folder / Path(name).name for folder in folders)]
    others = (path for folder in folders if folder.is_dir() for path in sorted(folder.iterdir()))
    for number, path in enumerate([*called, *others]):
        # What is no text is not the one that is looked for.
        with contextlib.suppress(CorpusError, OSError):
            if path and path.is_file():
                corpus = _read_text(path, Path(name).name)
                if corpus.sha256 == sha256:
                    return corpus
                changed |= number < len(called)
    if changed:
        raise CorpusError(f"the text {Path(name).name!r} has changed since this result was made")
    where = f"put it into data/, or name its folder with --corpus-dir or {FOLDERS_VARIABLE}"
    raise CorpusError(f"the text {Path(name).name!r} (SHA-256 {sha256[:12]}) is not here; {where}")


def corpus_sha256(name_or_path: str, data_dir: Path | None = None) -> str:
    """The digest of a corpus; for a named one without reading its text."""
    return CORPORA[name_or_path]["sha256"] if name_or_path in CORPORA else load_corpus(name_or_path, data_dir).sha256


def prepare_corpus(name_or_path: str, data_dir: Path | None = None) -> Corpus:
    """Fetch a named corpus into data/ unless it is already there and right; check any other text file."""
    if name_or_path in CORPORA and _place(name_or_path, data_dir) is None:
        target = (data_dir or project_root() / "data") / f"{name_or_path}.txt"
        text = fetched(name_or_path, target)
        if (digest := _sha256(text.encode())) != CORPORA[name_or_path]["sha256"]:
            raise CorpusError(f"the text fetched for {name_or_path!r} is another one (SHA-256 {digest}); nothing was kept")
        # Whole or not at all: whoever stops the download leaves no half of a text.
        write_atomically(target, text)
    return load_corpus(name_or_path, data_dir)


def normalised(text: str) -> str:
    """Without byte-order marks and NULs, with line feeds alone, and in Unicode's composed form (NFC)."""
    text = text.replace("\ufeff", "").replace("\0", "").replace("\r\n", "\n").replace("\r", "\n")
    return unicodedata.normalize("NFC", text)


def normalised_copy(path: Path) -> str:
    """Keep the ``normalised`` text of a file in data/, and return the name under which it is found there."""
    text = normalised(_read_text(path, path.name).text)
    name = f"{path.stem}.normalised{path.suffix or '.txt'}"
    write_atomically(project_root() / "data" / name, text)
    return name


def _read_text(path: Path, name: str) -> Corpus:
    try:
        raw = read_bounded(path, LARGEST_CORPUS_BYTES)
    except UnusableFile as error:
        raise CorpusError(f"{path} {error}; use a shorter text") from None
    # A zero in every other byte of what is mostly English, or a mark at the start.
    half = len(raw[:4096]) // 4
    wide = next((k for k in (0, 1) if half and raw[:4096][k::2].count(0) > half), None)
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff") or wide is not None:
        kind = "UTF-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else ("UTF-16BE", "UTF-16LE")[wide or 0]
        raise CorpusError(f"{path} is {kind}; {_convert(kind, path)}")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # Bytes that Latin-1 keeps for control characters are quotation marks and the like in Windows-1252.
        kind = "WINDOWS-1252" if any(byte in raw for byte in range(0x80, 0xA0)) else "ISO-8859-1"
        latin = f"it may be Latin-1; {_convert(kind, path)}"
        raise CorpusError(f"{path} is not UTF-8 text (byte {error.start}); {latin}") from None
    if not text:
        raise CorpusError(f"{path} is empty; a corpus needs at least a few thousand characters")
    marked = raw.startswith(codecs.BOM_UTF8)
    return Corpus(name, text, _sha256(memoryview(raw)[3 * marked :]), marked=marked)


def _convert(kind: str, path: Path) -> str:
    return f"convert it with: iconv -f {kind} -t UTF-8 {shlex.quote(path.name)} > {shlex.quote(f'{path.stem}.utf8.txt')}"


def _sha256(content: bytes | memoryview) -> str:
    return hashlib.sha256(content).hexdigest()
