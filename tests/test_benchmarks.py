"""The benchmarks run and measure what they say; how fast anything is, no test asks."""

import json
import math
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

from benchmarks import peak
from benchmarks.baseline import BaselineModel, BaselineSeconds
from benchmarks.executors import Overhead, Work, large_plan, longest_chain, wall_clock, work_of
from benchmarks.grid import GridTiming, time_grid
from benchmarks.peak import work_of as work_of_a_step
from repro_lib.config import SMALL_MODELS, Config
from repro_lib.models.registry import build_model, count_parameters
from repro_lib.store.store import Store


@pytest.mark.parametrize("model", SMALL_MODELS)
def test_the_baseline_has_the_size_of_the_suites_model(model: str) -> None:
    config = Config.for_model(model, "cpu").with_corpus(76)
    baseline = BaselineModel(model, config, 76, "gelu")
    assert count_parameters(baseline) == pytest.approx(count_parameters(build_model(model, config, "gelu")), rel=0.05)
    logits = baseline(torch.zeros((2, config.block_size), dtype=torch.long))
    assert logits.shape == (2, config.block_size, 76)


def test_a_baseline_cell_by_hand() -> None:
    # 2 trials of 100 iterations: 2 (100 * .1 + 2 evaluations of 3 s + 2 accuracies of 1 s) + 1 pair * 2 models * 7 s.
    assert BaselineSeconds(50, 5.0, 3.0, 1.0, 7.0).of_cell(100, 2) == pytest.approx(2 * (10 + 6 + 2) + 14)


def test_the_work_of_a_transformer_by_hand() -> None:
    config = Config.for_model("charlm", "cpu").with_corpus(76)
    model = build_model("charlm", config, "relu").eval()
    work = work_of_a_step(model, config, torch.zeros((4, 128), dtype=torch.long))
    rows = 4 * 128
    expected = {(rows, 128, 384): 2, (rows, 128, 128): 2, (rows, 128, 512): 2, (rows, 512, 128): 2, (rows, 128, 76): 1}
    assert work.shapes == expected
    # Per token: 6 FLOPs a parameter, and 12 x 2 layers x width 128 x context 128 for attention.
    assert work.flops == pytest.approx(rows * (6 * count_parameters(model) + 12 * 2 * 128 * 128))


@pytest.mark.slow
def test_the_command_measures_a_share_of_the_peak_and_writes_json(corpus_file: Path, tmp_path: Path) -> None:
    target = tmp_path / "found.json"
    asked = ["steps", "--quick", "--models", "tinylstm", "--activations", "relu", "gelu", "--profile", "smoke"]
    command = [sys.executable, "-m", "benchmarks", *asked, "--corpus", str(corpus_file), "--json", str(target)]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    content = json.loads(target.read_text())
    assert [(row["model"], row["activation"]) for row in content["steps"]] == [("tinylstm", "relu"), ("tinylstm", "gelu")]
    for row in content["steps"]:
        assert 0 < row["low"] <= row["utilisation"] <= row["high"]
        assert math.isfinite(row["high"])
        assert row["gflops"] == pytest.approx(row["tokens_per_second"] * 6 * row["parameters"] / 1e9)
    assert "torch" in content["machine"]


@pytest.mark.slow
def test_the_command_for_stacks_times_each_size_beside_sequential_training(corpus_file: Path, tmp_path: Path) -> None:
    target = tmp_path / "found.json"
    asked = ["--device", "cpu", "--models", "charlm", "tinylstm", "--trials", "1", "2", "--repetitions", "2", "--steps", "1"]
    command = [sys.executable, "-m", "benchmarks.stacked", *asked, "--corpus", str(corpus_file), "--json", str(target)]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    content = json.loads(target.read_text())
    found = content["stacks"]
    assert [(row["model"], row["trials"]) for row in found] == [(m, n) for m in ("charlm", "tinylstm") for n in (1, 2)]
    for row in found:
        assert row["execution"] == "stacked"
        assert row["milliseconds_per_trial"] == pytest.approx(row["milliseconds"] / row["trials"])
        assert 0 < row["low"] <= row["utilisation"] <= row["high"]
        assert math.isfinite(row["high"])
        assert row["sequential_milliseconds"] > 0
    tokens, (lstm, _) = 8 * 64, found[2:]
    assert lstm["gflops"] * 1e6 * lstm["milliseconds"] == pytest.approx(6 * lstm["parameters"] * tokens)
    assert content["machine"]["device"] == "cpu"


def test_the_peak_of_a_stack_counts_the_products_of_all_its_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak, "rate", lambda once, seconds, device: once() or 2.0)
    work = peak.Work(Counter({(8, 3, 5): 4}), 0.0, 8)
    assert peak.peak_flops(work) == 2.0 * 6 * 8 * 3 * 5 * 4
    assert peak.peak_flops(work, trials=7) == 7 * peak.peak_flops(work)


def test_what_a_grid_spends_beside_training_by_hand() -> None:
    # Two cores for 50 s, of which 80 were training: 20 s for 10 cells.
    timed = GridTiming("smoke", 2, 10, 5.0, 50.0, core_seconds=100.0, training=80.0, again=1.0, megabytes=1.0)
    assert timed.beside_training == pytest.approx(20)
    assert timed.share_of(training=90.0, cells=5) == pytest.approx(10 / 100)


@pytest.mark.slow
def test_a_real_grid_is_timed_from_outside(corpus_file: Path) -> None:
    words = ["--models", "tinylstm", "--activations", "relu", "--noise-models"]
    timed = time_grid("smoke", str(corpus_file), 1, *words)
    assert timed.cells == 1
    assert 0 < timed.first_report <= timed.wall
    assert 0 < timed.training < timed.core_seconds
    assert 0 < timed.again < timed.wall


def test_a_grid_that_fails_is_no_timing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="exit code"):
        time_grid("smoke", str(tmp_path / "no.txt"), 1)


def test_a_wall_clock_by_hand() -> None:
    # Two long jobs and three short ones, then one that needs them all. Longest first, on two workers: 4+2, 4+1+1, then 3.
    work = {name: Work(seconds, (), seconds) for name, seconds in {"a": 4.0, "b": 4.0, "c": 2.0, "d": 1.0, "e": 1.0}.items()}
    work["end"] = Work(3.0, tuple(work), 0.0)
    assert wall_clock(work, 1) == 12 + 3
    assert wall_clock(work, 2) == 6 + 3
    assert wall_clock(work, 100) == longest_chain(work) == 4 + 3
    # Never less than either bound.
    for workers in range(1, 8):
        assert wall_clock(work, workers) >= max(longest_chain(work), 15 / workers)


def test_the_large_study_has_its_cells_and_trials_apart_hold_the_same_training(store: Store) -> None:
    whole, by_cell = large_plan(store, "shakespeare", None)
    apart, by_trial = large_plan(store, "shakespeare", 1)
    assert sum(job["kind"] == "cell" for job in whole.values()) == 7 * 12
    assert sum(job["kind"] == "trials" for job in apart.values()) == 7 * 12 * 32
    assert sum(by_cell.values()) == pytest.approx(sum(by_trial.values()))
    work = work_of(apart, by_trial, Overhead(2.0, 40.0))
    assert work["charlm-relu.trials-1-1"].seconds == by_trial["charlm-relu.trials-1-1"] + 2
    assert work["charlm-relu"].seconds == 2
