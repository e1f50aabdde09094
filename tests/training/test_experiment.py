"""``run_experiment`` end to end, on a small text and with tiny models: train, store, reuse, extend, fail."""

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kinds import MakeResult, Tiny
from test_resume import EXPLOSIVE, MODELS

from repro_lib import Config, run_experiment
from repro_lib.analysis.study import load_study
from repro_lib.config import GRID_ACTIVATIONS, ConfigError
from repro_lib.data import CorpusError, Dataset
from repro_lib.metrics.prediction_difference import metric_names, probabilities_from_logits
from repro_lib.models.registry import build_model, count_parameters
from repro_lib.store.schema import Result, ResultError, TrialRecord
from repro_lib.store.store import Store
from repro_lib.training.checkpoints import sweep
from repro_lib.training.experiment import CellTraining
from repro_lib.training.origin import describe_environment
from repro_lib.training.progress import Progress, listening
from repro_lib.training.trainer import TrainingDiverged, predict_logits


def files_of(store: Store) -> dict[Path, tuple[int, bytes]]:
    """Every file of a results folder with its time and content."""
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in store.folder.rglob("*") if path.is_file()}


def digests(record: TrialRecord) -> tuple[str, str, str]:
    return record.init_sha256, record.weights_sha256, record.predictions_sha256


def no_training(now: Progress) -> None:
    raise AssertionError(f"trial {now.trial} was trained")


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory, tiny: Tiny) -> tuple[Store, Result]:
    """charlm with gelu, three trials, trained once for the tests that only look."""
    folder = tmp_path_factory.mktemp("cell") / "results"
    return Store(folder), run_experiment("charlm", "gelu", tiny("charlm", trials=3), results_dir=folder)


def test_a_cell_is_trained_and_measured(cell: tuple[Store, Result], tiny: Tiny, dataset: Dataset, corpus_file: Path) -> None:
    _, result = cell
    assert (result.model_name, result.activation, result.profile) == ("charlm", "gelu", "smoke")
    assert [(record.trial, record.seed) for record in result.trials] == [(1, 42), (2, 43), (3, 44)]
    assert len({digests(record) for record in result.trials}) == 3
    assert result.avg_val_loss == pytest.approx(np.mean([record.val_loss for record in result.trials]))
    assert result.avg_val_accuracy == pytest.approx(np.mean([record.val_accuracy for record in result.trials]))
    assert 0 < result.avg_relative_pd < 2
    assert 0 < result.mean_deviation_pd < 4 / 3
    assert result.corpus.sha256 == dataset.corpus.sha256
    assert (result.evaluation.sha256, result.evaluation.tokens) == (dataset.windows.sha256, dataset.windows.tokens)
    assert result.config_sha256 == tiny("charlm").sha256(dataset.corpus.sha256)
    assert result.config["vocab_size"] == dataset.vocab_size
    assert not result.synthetic
    assert result.environment["torch"] == torch.__version__
    # It names no folder of the machine.
    assert result.corpus.name == corpus_file.name
    assert str(Path.home()) not in str(result.environment)
    model = build_model("charlm", tiny("charlm", vocab_size=dataset.vocab_size), "gelu")
    assert result.parameters == count_parameters(model)
    prefixes = {"pd" if name == "relative_pd" else name for name in metric_names()}
    of_pairs = {f"{prefix}_{pair}" for prefix in prefixes for pair in ("1_2", "1_3", "2_3")}
    assert set(result.reproducibility_metrics) == {*metric_names()} | of_pairs


def test_the_stored_weights_make_the_stored_predictions(cell: tuple[Store, Result], tiny: Tiny, dataset: Dataset) -> None:
    store, result = cell
    model = build_model("charlm", tiny("charlm", vocab_size=dataset.vocab_size), "gelu")
    for trial in (1, 2, 3):
        model.load_state_dict(store.weights(result, trial))
        logits = predict_logits(model, dataset.windows, 32).flatten(0, 1).numpy()
        # Both are rounded.
        exact = np.log(probabilities_from_logits(logits))
        assert np.abs(exact - store.predictions(result, trial).logits).max() < 0.005
        assert result.trials[trial - 1].val_accuracy == pytest.approx(
            100 * np.mean(logits.argmax(1) == store.predictions(result, trial).labels)
        )


def test_a_cell_that_is_done_is_not_trained_again(cell: tuple[Store, Result], tiny: Tiny) -> None:
    store, result = cell
    before = files_of(store)
    for trials in (3, 2, 1):
        again = run_experiment("charlm", "gelu", tiny("charlm", trials=trials), results_dir=store.folder, progress=no_training)
        assert again == result
    assert files_of(store) == before


def test_more_trials_train_only_the_missing_ones(store: Store, tiny: Tiny, cell: tuple[Store, Result]) -> None:
    two = run_experiment("charlm", "gelu", tiny("charlm", trials=2), results_dir=store.folder)
    before = files_of(store)
    seen: list[Progress] = []
    three = run_experiment("charlm", "gelu", tiny("charlm", trials=3), results_dir=store.folder, progress=seen.append)
    assert {now.trial for now in seen} == {3}
    assert three.trials[:2] == two.trials
    assert three.pairs()[1, 2] == two.pairs()[1, 2]
    assert files_of(store).items() >= before.items(), "nothing that was there is touched"
    # Extended or trained at once: the same bits and the same numbers.
    at_once = cell[1]
    assert [digests(record) for record in three.trials] == [digests(record) for record in at_once.trials]
    assert three.reproducibility_metrics == at_once.reproducibility_metrics
    assert three.mean_deviation_pd == at_once.mean_deviation_pd
    assert store.find("charlm", "gelu", three.config_sha256, trials=3) == three


def test_what_is_written_last_counts_whatever_clocks_said_before(store: Store, tiny: Tiny, make_result: MakeResult) -> None:
    config = tiny("charlm", max_iters=2)
    first = run_experiment("charlm", "gelu", config, results_dir=store.folder)
    # As if it had been stored with a clock a day ahead.
    (path,) = store.folder.glob("*.json")
    path.unlink()
    store.save(first.model_copy(update={"timestamp": first.timestamp + timedelta(days=1)}))
    # A trial in training that a kill has left of `--force`, by a clock that is right again.
    begun = store.folder / "checkpoints" / f"charlm-gelu-{first.config_sha256[:12]}-trial1.safetensors"
    begun.write_text("x")
    sweep(store)
    assert begun.exists()
    begun.unlink()
    with listening() as heard:
        again = run_experiment("charlm", "gelu", config, results_dir=store.folder, force=True)
    assert heard == [f"the clock was ahead when results were stored; this one, the newest, is stamped {again.timestamp}"]
    assert store.find("charlm", "gelu", first.config_sha256) == again
    assert load_study(store.folder).results == (again,)
    more = run_experiment("charlm", "gelu", config.model_copy(update={"trials": 3}), results_dir=store.folder)
    # Of another cell that nobody compares with these: it decides what is shown.
    last = store.stamped(make_result("tinylstm", "relu"))
    assert first.timestamp < again.timestamp < more.timestamp < last.timestamp
    assert load_study(store.folder).results == (more,)
    store.save(last)
    assert load_study(store.folder).results == (last,)
    note = store.record_failure("charlm", "gelu", first.config_sha256, "why")
    assert json.loads(note.read_text())["timestamp"] > last.timestamp.isoformat()


def test_an_edited_text_is_another_corpus_and_trains_again(store: Store, tiny: Tiny, corpus_file: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text(corpus_file.read_text())
    first = run_experiment("tinylstm", "relu", tiny("tinylstm"), results_dir=store.folder)
    moved = tiny("tinylstm", corpus=str(mine))
    assert run_experiment("tinylstm", "relu", moved, results_dir=store.folder, progress=no_training) == first
    mine.write_text(corpus_file.read_text()[:-2] + "?\n")
    edited = run_experiment("tinylstm", "relu", moved, results_dir=store.folder)
    assert edited.corpus.sha256 != first.corpus.sha256
    assert edited.config_sha256 != first.config_sha256
    assert edited.comparison_key != first.comparison_key
    # Edited after it was asked what it says, and before it is read to train on it.
    asked = CellTraining("tinylstm", "relu", moved, store.folder)
    mine.write_text(corpus_file.read_text())
    with pytest.raises(CorpusError, match=r"mine\.txt was changed while it was trained on; .*the same command"):
        asked.load()


@pytest.mark.parametrize("execution", ["sequential", "stacked"])
def test_tinylstm_is_identical_under_all_five_activations(execution: str, store: Store, tiny: Tiny) -> None:
    config = tiny("tinylstm", max_iters=2, execution=execution)
    cells = [run_experiment("tinylstm", name, config, results_dir=store.folder) for name in GRID_ACTIVATIONS]
    assert len({cell.activation for cell in cells}) == 5
    for cell in cells[1:]:
        assert [digests(record) for record in cell.trials] == [digests(record) for record in cells[0].trials]
        assert cell.reproducibility_metrics == cells[0].reproducibility_metrics


@pytest.mark.parametrize("model", [model for model in MODELS if model != "tinylstm"])
def test_every_other_model_starts_alike_and_ends_apart_under_two_activations(model: str, store: Store, tiny: Tiny) -> None:
    first, second = (run_experiment(model, name, tiny(model), results_dir=store.folder) for name in ("swish", "smelu_05"))
    for one, other in zip(first.trials, second.trials, strict=True):
        assert one.init_sha256 == other.init_sha256
        assert one.weights_sha256 != other.weights_sha256
    assert first.avg_relative_pd != second.avg_relative_pd


def test_a_bare_config_is_completed_for_the_model_and_its_sources_recorded(store: Store, corpus_file: Path) -> None:
    config = Config(corpus=str(corpus_file), max_iters=1, trials=1, batch_size=2, n_embd=32)
    result = run_experiment("nanotransformer", "swiglu", config, results_dir=store.folder)
    explicit = {name for name, layer in result.config_sources.items() if layer == "explicit"}
    assert explicit == {"corpus", "max_iters", "trials", "batch_size", "n_embd"}
    assert result.config["dropout"] == 0.0
    assert (result.config_sources["dropout"], result.config_sources["seed"]) == ("model", "base")
    assert result.config_sources["vocab_size"] == "corpus"
    assert result.profile is None


@pytest.mark.parametrize("execution", ["sequential", "stacked"])
def test_a_diverged_cell_says_where_and_leaves_nothing_to_go_on_from(execution: str, store: Store, tiny: Tiny) -> None:
    config = tiny("convlm", execution=execution, **EXPLOSIVE)
    with pytest.raises(TrainingDiverged, match=r"for convlm with swiglu, trial [12], iteration \d+; lower the learning rate"):
        run_experiment("convlm", "swiglu", config, results_dir=store.folder, checkpoint_seconds=0)
    assert store.load() == ([], [])
    assert not list(store.folder.rglob("*.safetensors"))


def test_predictions_that_are_gone_or_altered_are_not_extended(store: Store, tiny: Tiny) -> None:
    result = run_experiment("tinylstm", "relu", tiny("tinylstm"), results_dir=store.folder)
    path = store.trial_path("predictions", "tinylstm", "relu", result.config_sha256, 2)
    three: dict[str, Any] = {"config": tiny("tinylstm", trials=3), "results_dir": store.folder}
    store.save_tensors(path, {"logits": torch.ones(512, 4)}, {})
    with pytest.raises(ResultError, match=r"trial2\.safetensors does not hold the predictions .*--force"):
        run_experiment("tinylstm", "relu", **three)
    path.unlink()
    with pytest.raises(ResultError, match=r"trial2\.safetensors is missing; .*--force"):
        run_experiment("tinylstm", "relu", **three)
    repaired = run_experiment("tinylstm", "relu", **three, force=True)
    assert [digests(record) for record in repaired.trials[:2]] == [digests(record) for record in result.trials]
    assert len(list(store.folder.glob("*.json"))) == 2, "the old result is kept"


def test_a_success_removes_the_note_of_an_earlier_failure(store: Store, tiny: Tiny, dataset: Dataset) -> None:
    config = tiny("tinylstm", trials=1)
    store.record_failure("tinylstm", "relu", config.sha256(dataset.corpus.sha256), "out of luck")
    run_experiment("tinylstm", "relu", config, results_dir=store.folder)
    assert store.failures() == []


def test_bad_input_is_refused_before_anything_is_written(store: Store, tiny: Tiny, tmp_path: Path) -> None:
    bad: list[tuple[str, Config | None, type[Exception], str]] = [
        ("charlmm", None, ConfigError, "unknown model 'charlmm'"),
        ("convlm", tiny("charlm"), ConfigError, "resolved for 'charlm' and cannot be used for 'convlm'"),
        ("charlm", tiny("charlm", corpus=str(tmp_path / "none.txt")), CorpusError, "no corpus"),
        ("charlm", tiny("charlm", block_size=40_000), CorpusError, "shorter than one window"),
        ("charlm", tiny("charlm", vocab_size=5), ConfigError, "vocab_size is 5, but the corpus has"),
    ]
    if not torch.cuda.is_available():
        bad.append(("charlm", tiny("charlm", device="cuda"), ConfigError, "no CUDA device"))
    for model, config, error, message in bad:
        with pytest.raises(error, match=message):
            run_experiment(model, "relu", config, results_dir=store.folder)
    for seconds in (-1, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match=r"checkpoint_seconds = .* expected a number of seconds, 0 or more"):
            run_experiment("charlm", "gelu", tiny("charlm"), results_dir=store.folder, checkpoint_seconds=seconds)
    assert not store.folder.exists()


@pytest.mark.parametrize("what", ["none", "no program", "not executable", "a folder"])
def test_a_machine_without_a_git_that_works_can_train_and_says_that_the_commit_is_unknown(
    what: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if what == "a folder":
        (tmp_path / "git").mkdir()
    elif what != "none":
        (tmp_path / "git").write_text("for another processor")
        (tmp_path / "git").chmod(0o755 if what == "no program" else 0o644)
    monkeypatch.setenv("PATH", str(tmp_path))
    describe_environment.cache_clear()
    environment = describe_environment("cpu")
    describe_environment.cache_clear()
    assert environment["git_commit"] is None
    assert environment["python"]


def test_a_profile_that_means_the_same_labels_the_trials_anew_and_trains_nothing(store: Store, tiny: Tiny) -> None:
    config = tiny("convlm")
    by_hand = Config(**{name: getattr(config, name) for name in Config.model_fields if name not in ("vocab_size", "execution")})
    first = run_experiment("convlm", "relu", by_hand, results_dir=store.folder)
    second = run_experiment("convlm", "relu", config, results_dir=store.folder, progress=no_training)
    assert (first.profile, second.profile) == (None, "smoke")
    assert first.config_sha256 == second.config_sha256
    assert second.trials == first.trials
    assert run_experiment("convlm", "relu", config, results_dir=store.folder) == second


@pytest.mark.parametrize("name", ["torch", "cpu", "instructions"])
def test_trials_of_another_origin_are_not_mixed_into_a_result(name: str, store: Store, tiny: Tiny) -> None:
    result = run_experiment("convlm", "relu", tiny("convlm", trials=1), results_dir=store.folder)
    (path,) = store.folder.glob("*.json")
    path.unlink()
    store.save(result.model_copy(update={"environment": result.environment | {name: "another"}}))
    seen: list[Progress] = []
    with listening() as heard:
        both = run_experiment("convlm", "relu", tiny("convlm", trials=2), results_dir=store.folder, progress=seen.append)
    assert {now.trial for now in seen} == {1, 2}
    own = str(describe_environment("cpu")[name])[:40]
    why = f"it was made with {name} another, this is {own}"
    assert heard == [f"the stored trials of convlm with relu are not joined, for {why}; all are trained here"]
    # What an earlier version did not record is no difference.
    for path in store.folder.glob("*.json"):
        path.unlink()
    store.save(both.model_copy(update={"environment": {k: v for k, v in both.environment.items() if k != name}}))
    seen.clear()
    run_experiment("convlm", "relu", tiny("convlm", trials=3), results_dir=store.folder, progress=seen.append)
    assert {now.trial for now in seen} == {3}


def test_what_restricts_the_instructions_is_recorded() -> None:
    script = "from repro_lib.training.origin import describe_environment; print(describe_environment('cpu')['instructions'])"
    variables = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "COMPATIBLE"}
    line = [sys.executable, "-c", script]
    done = subprocess.run(line, env=os.environ | variables, capture_output=True, text=True, check=True)
    assert done.stdout == "DEFAULT, ONEDNN_MAX_CPU_ISA=AVX2, MKL_CBWR=COMPATIBLE\n"
