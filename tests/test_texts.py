"""Texts as they come and where they lie: what is noticed, what is normalised, and that results find their text again."""

import json
import os
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from conftest import word_like_text

from repro_lib import Config, run_experiment
from repro_lib.analysis.stored_models import corpus_of
from repro_lib.cli.main import main
from repro_lib.data import CorpusError, find_corpus, load_corpus, prepare_corpus, texts
from repro_lib.report.text_views import Passage, samples
from repro_lib.store.schema import Result
from repro_lib.store.store import Store


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in a folder of its own, whose data/ is empty, and nothing remembered of texts."""
    monkeypatch.setattr(texts, "project_root", lambda: tmp_path / "project")
    monkeypatch.setattr(texts, "_SEEN", {})
    monkeypatch.delenv(texts.FOLDERS_VARIABLE, raising=False)
    (tmp_path / "project" / "data").mkdir(parents=True)
    return tmp_path / "project"


# --- what is noticed


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("plain text\n", ""),
        ("\ufeffone\ufefftwo", "own.txt has byte-order marks (2); --normalise takes them out"),
        ("a\r\nb\rc", "own.txt has carriage returns (2); --normalise takes them out"),
        ("a\0b", "own.txt has NULs (1); --normalise takes them out"),
        ("cafe\u0301 naïve \u212b", "own.txt has words in another Unicode form than NFC (2); --normalise takes them out"),
        ("\ufeffa\r\n", "own.txt has byte-order marks (1), carriage returns (1); --normalise takes them out"),
    ],
)
def test_what_of_a_text_may_not_be_known_is_counted_in_one_sentence(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_bytes(text.encode())
    corpus = load_corpus(str(tmp_path / "own.txt"))
    assert corpus.notice() == said
    clean = texts.normalised(corpus.text)
    assert not set(clean) & set("\r\0\ufeff")
    assert unicodedata.is_normalized("NFC", clean)
    assert texts.normalised(clean) == clean
    assert texts.normalised("a\r\nb\rc\nd") == "a\nb\nc\nd"


def test_the_default_text_with_a_mark_and_windows_line_ends_is_itself_again_once_normalised(
    elsewhere: Path, corpus_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "windows.txt"
    own.write_bytes(b"\xef\xbb\xbf" + corpus_file.read_bytes().replace(b"\n", b"\r\n"))
    assert main(["prepare-data", "--corpus", str(own)]) == 0
    lines = corpus_file.read_text().count("\n")
    assert f"windows.txt has byte-order marks (1), carriage returns ({lines:,}); --normalise" in capsys.readouterr().out
    assert main(["prepare-data", "--corpus", str(own), "--normalise"]) == 0
    said = capsys.readouterr().out
    assert "--normalise" not in said
    assert said.startswith("windows.normalised.txt: ")
    assert (elsewhere / "data" / "windows.normalised.txt").read_bytes() == corpus_file.read_bytes()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("To be, or not to be. " * 24, "are shorter than one evaluation window of 257; use a longer text"),
        ("a" * 9000, "has one character alone, 'a': there is nothing to predict"),
        ("a" * 50, "has one character alone, 'a': there is nothing to predict"),
    ],
)
@pytest.mark.parametrize("tokens", ["characters", "bytes", "bpe:256"])
def test_a_text_that_cannot_be_trained_on_is_refused_in_a_sentence(
    text: str, said: str, tokens: str, elsewhere: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own.txt").write_text(text)
    command = ["train", "--model", "charlm", "--profile", "smoke", "--corpus", str(tmp_path / "own.txt"), "--tokens", tokens]
    assert main([*command, "--results-dir", str(tmp_path / "r"), "--reports-dir", str(tmp_path / "p")]) == 2
    assert said in capsys.readouterr().err


# --- where a text lies


def test_a_result_finds_its_text_by_its_digest_alone(elsewhere: Path, corpus_file: Path, tmp_path: Path, store: Store) -> None:
    own = tmp_path / "mine" / "own text.txt"
    own.parent.mkdir()
    shutil.copy(corpus_file, own)
    result = run_experiment(
        "tinylstm", "relu", Config.for_model("tinylstm", "smoke", corpus=str(own)), results_dir=store.folder
    )
    assert (result.config["corpus"], result.corpus.name) == ("own text.txt", "own text.txt")
    assert str(tmp_path) not in result.to_json()
    assert corpus_of(result).text == corpus_file.read_text(), "this process knows where it was"
    texts._SEEN.clear()
    with pytest.raises(CorpusError, match=r"'own text.txt' \(SHA-256 .*\) is not here; put it into data/, or name its folder"):
        corpus_of(result)
    moved = tmp_path / "moved" / "under another name.md"
    moved.parent.mkdir()
    own.rename(moved)
    (moved.parent / "a picture.png").write_bytes(b"\x89PNG\0\0\xff")
    texts.look_in(moved.parent)
    assert corpus_of(result).sha256 == result.corpus.sha256
    del os.environ[texts.FOLDERS_VARIABLE]
    moved.rename(elsewhere / "data" / "again.txt")
    assert corpus_of(result).text == corpus_file.read_text()
    (elsewhere / "data" / "again.txt").rename(elsewhere / "data" / "own text.txt")
    (elsewhere / "data" / "own text.txt").write_text("changed")
    with pytest.raises(CorpusError, match=r"the text 'own text\.txt' has changed since this result was made"):
        corpus_of(result)


def test_an_old_result_finds_its_text_where_its_path_says(elsewhere: Path, corpus_file: Path, corpus: Any) -> None:
    assert find_corpus(str(corpus_file), corpus.sha256).text == corpus.text


def test_a_named_corpus_may_lie_in_a_shared_folder(elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(texts.CORPORA["shakespeare"], "sha256", "0" * 64)
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "shakespeare.txt").write_text("not it")
    texts.look_in(tmp_path / "shared")
    with pytest.raises(CorpusError, match=r"shared/shakespeare.txt is not the shakespeare corpus"):
        prepare_corpus("shakespeare")


@pytest.mark.slow
def test_a_grid_leaves_no_path_of_its_text_and_its_pages_stay_as_they_are_if_moved(corpus_file: Path, tmp_path: Path) -> None:
    def repro(*words: str, place: Path) -> None:
        where = ["--results-dir", str(place / "results"), "--reports-dir", str(place / "reports")]
        done = subprocess.run(
            [sys.executable, "-m", "repro_lib", *words, *where], capture_output=True, encoding="utf-8", cwd=place, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    first, second = tmp_path / "first-user", tmp_path / "second"
    (first / "texts of mine").mkdir(parents=True)
    text = first / "texts of mine" / "own.txt"
    shutil.copy(corpus_file, text)
    models = ["--models", "charlm", "--activations", "relu", "gelu"]
    repro("grid", *models, "--profile", "smoke", "--noise-models", "--corpus", str(text), place=first)
    for path in (path for path in first.rglob("*") if path.is_file() and path != text):
        assert b"texts of mine" not in path.read_bytes(), path
    notebook = json.loads((first / "results" / "notebooks" / "20_deep_dive-charlm.ipynb").read_text())
    assert "Total variation of a character" in json.dumps(notebook), "the text was there"
    report = ["report", *models, "--profile", "smoke", "--corpus-dir"]
    repro(*report, str(text.parent), place=first)
    shutil.move(first, second)
    before = {path.name: path.read_bytes() for path in (second / "reports").glob("*.html")}
    repro(*report, str(second / "texts of mine"), place=second)
    assert {path.name: path.read_bytes() for path in (second / "reports").glob("*.html")} == before


# --- whole cells


def trained(store: Store, folder: Path, **config: Any) -> Result:
    return run_experiment("charlm", "relu", Config.for_model("charlm", "smoke", trials=2, **config), results_dir=store.folder)


@pytest.mark.slow
@pytest.mark.parametrize("tokens", ["characters", "bytes", "bpe:512"])
@pytest.mark.parametrize("corpus", ["shakespeare", "networkx", "mishnah"])
def test_every_corpus_trains_in_every_kind_of_tokens_and_shows_its_text(corpus: str, tokens: str, store: Store) -> None:
    prepare_corpus(corpus)
    result = trained(store, store.folder, corpus=corpus, tokens=tokens)
    assert result.corpus.name == corpus
    # An untrained model needs about log2 V bits for each token.
    assert 1 < result.avg_val_loss * result.bits_per_nat < 8.5
    trials = [store.predictions(result, record.trial) for record in result.trials]
    from repro_lib.analysis.slices import pair_trials

    page = Passage("charlm with relu", pair_trials(trials), corpus_of(result), 0)._repr_html_()
    assert 'dir="auto"' in page
    text = corpus_of(result).decode(trials[0].labels[:256].tolist())
    words = [word for word in text.split() if word.isalpha() and len(word) > 1]
    if tokens == "characters":
        assert all(f">{character}</span>" in page for word in words for character in word)
    assert "⏎" in page or "\n" not in text
    assert samples(store, result, (1, 2), length=20).sentence()


MEASURED = """
import json, re, sys, time
start = time.monotonic()
from repro_lib import Config, run_experiment
first = []
config = Config.for_model("charlm", "smoke", corpus=sys.argv[1], trials=2, **json.loads(sys.argv[3]))
note = lambda _: first.append(time.monotonic() - start)
result = run_experiment("charlm", "relu", config, results_dir=sys.argv[2], progress=note)
# Not ru_maxrss, which begins with what the process that started this one had.
peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 2**20
print(json.dumps([peak, first[0], result.config["vocab_size"], result.evaluation.tokens]))
"""


def measured(text: Path, folder: Path, **config: Any) -> list[float]:
    command = [sys.executable, "-c", MEASURED, str(text), str(folder), json.dumps(config)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
    return json.loads(done.stdout)


@pytest.mark.slow
def test_a_text_of_100_mb_trains_in_little_memory_and_soon(tmp_path: Path) -> None:
    text = tmp_path / "long.txt"
    text.write_text((word_like_text(1_000_000) * 100)[:100_000_000])
    peak, first, _, tokens = measured(text, tmp_path / "r")
    assert peak < 1.5, "GB"
    assert first < 60, "seconds to the first report"
    assert tokens == 16_384


@pytest.mark.slow
def test_32768_tokens_go_through_training_and_the_comparison_of_trials_in_bounded_memory(tmp_path: Path) -> None:
    text = tmp_path / "wide.txt"
    text.write_text("".join(chr(0x4E00 + k * 7919 % 20_900) + chr(0xAC00 + k * 6007 % 11_100) for k in range(150_000)))
    peak, _, vocabulary, tokens = measured(text, tmp_path / "r", block_size=32, batch_size=2)
    assert (vocabulary, tokens) == (32_000, 2048)
    assert peak < 3, "GB"
