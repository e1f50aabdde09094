"""Shared by all tests: one thread, a small text of our own, tiny configurations, a store in a temporary folder."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import combinations
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from browsing import chromium, small_grid  # noqa: F401  (fixtures of the browser tests)
from grids import folder, smoke_grid  # noqa: F401  (fixtures of the tests that run grids)
from hypothesis import settings
from kinds import MakeResult, Tiny
from what_if_store import what_if_folder, what_if_study  # noqa: F401  (fixtures of the tests of what-ifs)

from repro_lib.config import Config
from repro_lib.data import Corpus, Dataset, load_corpus, make_dataset
from repro_lib.metrics.prediction_difference import metric_names
from repro_lib.store.schema import CorpusRecord, EvaluationRecord, Result, TrialRecord
from repro_lib.store.store import Store

torch.set_num_threads(1)

# The same examples on every run and no folder of remembered ones: a test that fails here fails everywhere.
settings.register_profile("suite", deadline=None, derandomize=True, database=None, max_examples=60)
settings.load_profile("suite")

CORPUS_CHARACTERS = 40_000


def word_like_text(characters: int, seed: int = 7) -> str:
    """Text with words, lines and some regularity, the same on every machine. Not a loaded corpus: nothing is downloaded."""
    chooser = random.Random(seed)
    parts = ["ba", "ce", "di", "for", "gu", "han", "i", "ka", "lo", "mer", "nos", "o", "pra", "qui", "ru", "sto", "th", "we"]
    words = ["".join(chooser.choices(parts, k=chooser.randint(1, 3))) for _ in range(300)]
    lines: list[str] = []
    length = 0
    while length < characters:
        line = " ".join(chooser.choices(words, weights=range(300, 0, -1), k=chooser.randint(4, 9))).capitalize()
        lines.append(line + chooser.choice([".", ",", "!", ";"]))
        length += len(lines[-1]) + 1
    return "\n".join(lines)[: characters - 1] + "\n"


@pytest.fixture(autouse=True)
def environment_as_it_was() -> Iterator[None]:
    """What a command or a worker's function sets for the processes that it starts is not for those of the next test."""
    with patch.dict(os.environ):
        yield


@pytest.fixture(scope="session")
def corpus_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text file of 40,000 characters."""
    path = tmp_path_factory.mktemp("corpus") / "words.txt"
    path.write_text(word_like_text(CORPUS_CHARACTERS), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def corpus(corpus_file: Path) -> Corpus:
    """The same text, read."""
    return load_corpus(str(corpus_file))


@pytest.fixture(scope="session")
def dataset(corpus: Corpus) -> Dataset:
    """The same text, split, with its evaluation windows."""
    return make_dataset(corpus, train_split=0.8, block_size=32)


@pytest.fixture(scope="session")
def tiny(corpus_file: Path, corpus: Corpus) -> Tiny:
    """``tiny(model, **changes)``: a complete configuration of width 32 that trains in a blink on the small text."""

    def configure(model: str, **changes: Any) -> Config:
        config = Config.for_model(model, "smoke", **{"corpus": str(corpus_file), "trials": 2} | changes)
        # Of another text, or of a vocabulary that a test chose, it is left as it was asked for.
        return config if changes.keys() & {"corpus", "vocab_size"} else config.with_corpus(len(corpus.vocabulary))

    return configure


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty results folder."""
    return Store(tmp_path / "results")


def trial_records(config: Config, trials: int) -> list[TrialRecord]:
    same: dict[str, Any] = {"train_loss_curve": [(2, 3.25), (4, 3.0)], "val_loss_curve": [(2, 3.3), (4, 3.1)], "seconds": 0.25}
    same |= {"val_loss": 3.0625, "val_accuracy": 20.5, "weights_sha256": "b" * 64, "predictions_sha256": "d" * 64}
    return [TrialRecord(trial=k, seed=config.seed + k - 1, init_sha256=f"{k:064x}", **same) for k in range(1, trials + 1)]


@pytest.fixture(scope="session")
def make_result() -> MakeResult:
    """``make_result(model, activation, minute=..., **changes)``: a valid result whose numbers are made up by hand.

    ``pd`` becomes the relative PD of every pair, a quarter of it every other metric; ``changes`` replace fields."""

    def make(
        model: str = "charlm",
        activation: str = "relu",
        *,
        minute: int = 0,
        trials: int = 2,
        pd: float = 0.5,
        config: Config | None = None,
        corpus: str = "c" * 64,
        evaluation: str = "e" * 64,
        **changes: Any,
    ) -> Result:
        config = (config or Config.for_model(model, "smoke")).model_copy(update={"trials": trials})
        pairs = list(combinations(range(1, trials + 1), 2))
        numbers: dict[str, float] = {}
        for name in metric_names() if pairs else ():
            prefix, value = ("pd", pd) if name == "relative_pd" else (name, pd / 4)
            numbers |= {name: value, **{f"{prefix}_{i}_{j}": value for i, j in pairs}}
        fields: dict[str, Any] = {
            "model_name": model, "activation": activation, "parameters": 1234, "profile": config.profile,
            "config": config.model_dump(), "config_sources": dict(config.sources), "config_sha256": config.sha256(corpus),
            "corpus": CorpusRecord(name="words.txt", sha256=corpus),
            "evaluation": EvaluationRecord(sha256=evaluation, tokens=16384, unigram_cross_entropy=3.3),
            "avg_relative_pd": pd if pairs else None, "mean_deviation_pd": pd / 2 if pairs else None,
            "avg_val_loss": 3.0625, "avg_val_accuracy": 20.5, "reproducibility_metrics": numbers,
            "trials": trial_records(config, trials), "flags": [], "synthetic": False,
            "environment": {"python": "3.11.7", "git_commit": None},
            "timestamp": datetime(2025, 1, 1, 12, 0, tzinfo=UTC) + timedelta(minutes=minute),
        }  # fmt: skip
        return Result(**fields | changes)

    return make
