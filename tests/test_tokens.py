"""Kinds of tokens: characters, bytes, BPE; what they share, and what no kind may see."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from test_data import corpus_of

from repro_lib.config import Config, ConfigError, digest_of_values
from repro_lib.data import Corpus, CorpusError, Dataset, load_dataset, make_dataset
from repro_lib.data.tokens import bytes_of_utf_8

KINDS = ("characters", "bytes", "bpe:256", "bpe:300")
TEXTS = {
    "English": "To be, or not to be: that is the question.\n",
    "French": "Où est l'été ? Là-bas, où l'œuvre naïve dort.\n",
    "Russian": "Все счастливые семьи похожи друг на друга.\n",
    "Hebrew": "מאימתי קורין את שמע בערבית.\n",
    "Hebrew with points": "בְּרֵאשִׁ֖ית בָּרָ֣א אֱלֹהִ֑ים\n",
    "Japanese": "吾輩は猫である。名前はまだ無い。\n",
    "code": "def f(x):\n\treturn {k: v for k, v in x.items()}  # 🙂\r\n",
}


def dataset_of(text: str, kind: str, folder: Path, split: float = 0.8) -> Dataset:
    return make_dataset(corpus_of(text).cut_into(kind, split, folder), split, block_size=16)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("language", TEXTS)
def test_every_text_comes_back_from_its_tokens(kind: str, language: str, tmp_path: Path) -> None:
    text = TEXTS[language] * 300
    dataset = dataset_of(text, kind, tmp_path)
    whole = torch.cat([dataset.train, dataset.validation])
    assert dataset.corpus.decode(whole) == text
    tokens = dataset.corpus.tokens
    assert tokens.lengths[whole].sum() == len(text.encode())
    assert dataset.evaluation_bytes == len(tokens.bytes_of(dataset.windows.targets.flatten().tolist()))
    # The border is in the same place of the text, whatever it is cut into.
    assert dataset.corpus.decode(dataset.train) == text[: int(len(text) * 0.8)]


@given(st.text(max_size=40))
def test_bytes_write_any_text(text: str) -> None:
    tokens = bytes_of_utf_8()
    assert tokens.encode(text).tolist() == list(text.encode("utf-8", "surrogatepass"))
    assert tokens.decode(tokens.encode(text).tolist()) == text


def test_a_byte_that_is_no_character_is_shown_by_its_number() -> None:
    tokens = bytes_of_utf_8()
    assert tokens.vocabulary[0xE6] == "\\xe6"
    assert tokens.vocabulary[ord("a")] == "a"
    assert tokens.decode("日".encode()[:2]) == "\\xe6\\x97"


def test_a_unigram_model_has_the_same_bits_per_byte_in_bytes_and_in_characters(corpus: Corpus, tmp_path: Path) -> None:
    """Of a text in ASCII, whose characters are its bytes: the counts of training are the same ones."""
    bits = []
    for kind in ("characters", "bytes"):
        dataset = make_dataset(corpus.cut_into(kind, 0.8, tmp_path), 0.8, 32)
        counts = torch.bincount(dataset.train, minlength=dataset.vocab_size).double()
        nats = float(-(counts / counts.sum()).log()[dataset.windows.targets].sum())
        bits.append(nats / math.log(2) / dataset.evaluation_bytes)
    assert bits[0] == pytest.approx(bits[1], rel=1e-12)
    assert 2 < bits[0] < 8


def test_bpe_finds_the_most_frequent_pair_first_and_does_not_see_the_validation_part(tmp_path: Path) -> None:
    text = "abab" * 2000 + "zqzq" * 2000
    tokens = corpus_of(text).cut_into("bpe:257", 0.5, tmp_path / "a").tokens
    assert tokens.pieces[-1] == b"ab"
    other = corpus_of("abab" * 2000 + "another validation part. " * 320).cut_into("bpe:257", 0.5, tmp_path / "b").tokens
    assert other.sha256 == tokens.sha256
    seen = {piece for piece in corpus_of(text).cut_into("bpe:300", 0.5, tmp_path / "d").tokens.pieces if len(piece) > 1}
    assert not any(b"z" in piece or b"q" in piece for piece in seen)


def test_bpe_is_kept_by_its_digest_and_made_anew_where_somebody_changed_it(tmp_path: Path) -> None:
    corpus = corpus_of(TEXTS["French"] * 300)
    first = corpus.cut_into("bpe:300", 0.8, tmp_path).tokens
    (kept,) = tmp_path.iterdir()
    assert kept.stem.endswith(first.sha256[:12])
    written = kept.stat().st_mtime_ns
    assert corpus.cut_into("bpe:300", 0.8, tmp_path).tokens.pieces == first.pieces
    assert kept.stat().st_mtime_ns == written
    kept.write_text(kept.read_text().replace("Ġ", "Ħ"))
    assert corpus.cut_into("bpe:300", 0.8, tmp_path).tokens.pieces == first.pieces


def test_what_is_scored_has_another_digest_for_each_kind(tmp_path: Path) -> None:
    digests = {dataset_of(TEXTS["code"] * 300, kind, tmp_path).windows.sha256 for kind in KINDS}
    assert len(digests) == len(KINDS)


def test_a_large_vocabulary_is_scored_on_fewer_tokens(tmp_path: Path) -> None:
    text = "".join(chr(0x4E00 + (k * 7919) % 20_000) for k in range(120_000))
    dataset = dataset_of(text, "characters", tmp_path)
    assert dataset.vocab_size == 20_000
    assert dataset.windows.tokens == 2**26 // 20_000 // 256 * 256 == 3328
    assert dataset.train.dtype == torch.int16
    assert dataset.corpus.decode(dataset.windows.targets[0]) in text


@pytest.mark.parametrize("wrong", ["words", "bpe", "bpe:255", "bpe:32769", "bpe:1e3", "bpe:0300", ""])
def test_other_kinds_are_refused(wrong: str) -> None:
    with pytest.raises(ConfigError, match="expected characters, bytes, or bpe:N with N from 256 to 32768"):
        Config(tokens=wrong)


def test_characters_leave_the_digest_of_a_configuration_as_it_was_before_there_were_kinds() -> None:
    # Of charlm's configuration in the published study, written down before there was such a field.
    config = Config.for_model("charlm", "study", execution="sequential")
    shakespeare = "2be4e34f9e4d4d8f54b8cb9f5de896c002023db19bff93eb27b01f72a7b9b9f1"
    assert config.sha256(shakespeare) == "019df55c352f1dc9f55a51662053e06cf255d10616998032f5f6ba44e2441609"
    values = config.model_dump()
    del values["tokens"]
    assert digest_of_values(values, shakespeare) == config.sha256(shakespeare)
    assert Config.for_model("charlm", "study", tokens="bytes").sha256(shakespeare) != config.sha256(shakespeare)


def test_bpe_without_its_package_says_how_to_have_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(CorpusError, match="needs the package tokenizers; install it with"):
        corpus_of(TEXTS["English"]).cut_into("bpe:300", 0.8, tmp_path)


def test_a_configuration_says_what_its_text_is_cut_into(corpus_file: Path, tmp_path: Path) -> None:
    config = Config.for_model("charlm", "smoke", corpus=str(corpus_file), tokens="bpe:300")
    dataset = load_dataset(config, tmp_path)
    assert dataset.vocab_size == 300
    assert np.mean(dataset.corpus.tokens.lengths[dataset.validation]) > 1.2
