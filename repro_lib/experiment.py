"""One cell of the grid: N trials of one model with one activation, and the prediction difference between them."""

from __future__ import annotations

import functools
import platform
import subprocess
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path

import numpy as np
import torch

from repro_lib import metrics
from repro_lib.activations import canonical_activation
from repro_lib.config import Config, ConfigError, check_model, project_root
from repro_lib.data import Dataset, corpus_sha256, load_dataset
from repro_lib.models import build_model, count_parameters
from repro_lib.results import CorpusRecord, EvaluationRecord, Predictions, Result, Store, TrialRecord, compare
from repro_lib.stacked import train_stack
from repro_lib.training import KEPT_BLOCK_STEP, ProgressCallback, TrainedTrial, train_trial


def run_experiment(
    model: str,
    activation: str,
    config: Config | None = None,
    *,
    results_dir: Path | str | None = None,
    data_dir: Path | None = None,
    force: bool = False,
    progress: ProgressCallback | None = None,
) -> Result:
    """Train the trials of one cell, measure how much they disagree, and store the result.

    Unless ``force``, a stored result of the same configuration is returned instead of training again, and its trials are
    kept when more are asked for or when another profile means the same configuration. A bare ``config`` is completed
    with the model's defaults.

    Raises ConfigError, CorpusError, ValueError or TypeError for bad input, TrainingDiverged for a loss that is no number.
    """
    activation = canonical_activation(activation)
    config = (config or Config()).resolved_for(check_model(model))
    check_device(config)
    store = Store(results_dir or project_root() / "results")
    config_sha256 = config.sha256(corpus_sha256(config.corpus, data_dir))
    stored = None if force else store.find(model, activation, config_sha256, config.trials, config.profile)
    if stored:
        return stored
    stored = None if force else store.find(model, activation, config_sha256)
    if stored and stored.environment.get("torch") != torch.__version__:
        # Trials of two torch versions may differ in their last bits; a result never mixes them.
        stored = None
    dataset = load_dataset(config, data_dir)
    config = config.with_corpus(dataset.vocab_size)
    records, predictions = _reusable_trials(store, stored)
    for trained in _train_missing(model, activation, config, dataset, range(len(records), config.trials), progress):
        record, prediction = _keep(store, trained, model, activation, config_sha256, dataset)
        records.append(record)
        predictions.append(prediction)
    result = summarise(model, activation, config, config_sha256, dataset, records, predictions)
    store.save(result)
    store.forget_failure(model, activation, config_sha256)
    return result


def _train_missing(
    model: str, activation: str, config: Config, dataset: Dataset, missing: Sequence[int], progress: ProgressCallback | None
) -> Iterable[TrainedTrial]:
    """The missing trials (0-based numbers): each as soon as it is trained, or, as one stack, all at its end."""
    if config.stacked and missing:
        return train_stack(model, activation, config, dataset, missing, progress)
    return (train_trial(model, activation, config, dataset, trial, progress) for trial in missing)


def check_device(config: Config) -> None:
    """ConfigError if the device that a configuration asks for is not there."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device = 'cuda' was asked for, but torch finds no CUDA device here; use device = 'cpu'")


def summarise(
    model: str,
    activation: str,
    config: Config,
    config_sha256: str,
    dataset: Dataset,
    records: Sequence[TrialRecord],
    predictions: Sequence[Predictions],
) -> Result:
    """The result of a cell from its trained trials."""
    pairs = {(i + 1, j + 1): compare(predictions[i], predictions[j]) for i, j in combinations(range(len(records)), 2)}
    averages = {name: float(np.mean([pair[name] for pair in pairs.values()])) for name in metrics.metric_names() if pairs}
    unigram = dataset.unigram_cross_entropy
    return Result(
        model_name=model,
        activation=activation,
        parameters=count_parameters(build_model(model, config.model_copy(update={"device": "cpu"}), activation)),
        profile=config.profile,
        config=config.model_dump(),
        config_sources=dict(config.sources),
        config_sha256=config_sha256,
        corpus=CorpusRecord(name=dataset.corpus.name, sha256=dataset.corpus.sha256),
        evaluation=EvaluationRecord(
            sha256=dataset.windows.sha256, tokens=dataset.windows.tokens, unigram_cross_entropy=unigram
        ),
        avg_relative_pd=averages.get("relative_pd"),
        mean_deviation_pd=metrics.mean_deviation_pd([p.probabilities for p in predictions]) if pairs else None,
        avg_val_loss=float(np.mean([record.val_loss for record in records])),
        avg_val_accuracy=float(np.mean([record.val_accuracy for record in records])),
        reproducibility_metrics=_flat_metrics(averages, pairs),
        trials=list(records),
        flags=_flags(records, pairs, unigram),
        synthetic=False,
        environment=describe_environment(config.device),
        timestamp=datetime.now(UTC).replace(microsecond=0),
    )


@functools.cache
def describe_environment(device: str) -> dict[str, str | None]:
    """What the numbers were made with; never a path or a host name."""
    try:
        command = ["git", "rev-parse", "HEAD"]
        commit = subprocess.run(command, cwd=project_root(), capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:  # a cluster worker or a container may have no git
        commit = ""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "cpu": _cpu_name(),
        "git_commit": commit or None,
    }


def _reusable_trials(store: Store, stored: Result | None) -> tuple[list[TrialRecord], list[Predictions]]:
    if stored is None:
        return [], []
    return list(stored.trials), [store.predictions(stored, record.trial) for record in stored.trials]


def _keep(
    store: Store, trained: TrainedTrial, model: str, activation: str, config_sha256: str, dataset: Dataset
) -> tuple[TrialRecord, Predictions]:
    """Store the logits and weights of a trained trial; its record names them by their digests."""
    labels = dataset.windows.targets.flatten()
    about = {"evaluation_sha256": dataset.windows.sha256, "config_sha256": config_sha256}

    def path(kind: str) -> Path:
        return store.trial_path(kind, model, activation, config_sha256, trained.trial)  # pyright: ignore[reportArgumentType]

    kept_labels = dataset.windows.every(KEPT_BLOCK_STEP).targets.flatten()
    steps = {"logits": trained.step_logits, "labels": kept_labels, "steps": torch.tensor(trained.steps)}
    record = TrialRecord(
        **{name: getattr(trained, name) for name in TrialRecord.model_fields if hasattr(trained, name)},
        weights_sha256=store.save_tensors(path("weights"), trained.weights, about),
        predictions_sha256=store.save_tensors(path("predictions"), {"logits": trained.logits, "labels": labels}, about),
        steps_sha256=store.save_tensors(path("steps"), steps, about),
    )
    return record, Predictions(trained.logits.numpy(), labels.numpy(), dataset.windows.sha256)


def _flat_metrics(averages: dict[str, float], pairs: dict[tuple[int, int], dict[str, float]]) -> dict[str, float | None]:
    """Averages by name, then each metric of each pair; an infinite value becomes None, which JSON can hold."""
    flat = dict(averages)
    for name in averages:
        prefix = "pd" if name == "relative_pd" else name
        flat |= {f"{prefix}_{i}_{j}": pair[name] for (i, j), pair in pairs.items()}
    return {name: value if np.isfinite(value) else None for name, value in flat.items()}


def _flags(records: Sequence[TrialRecord], pairs: dict[tuple[int, int], dict[str, float]], unigram: float) -> list[str]:
    """What a reader must know before using the numbers (DESIGN, sanity gate)."""
    flags = []
    for record in records:
        if record.val_loss >= unigram:
            flags.append(
                f"untrained: trial {record.trial} has validation loss {record.val_loss:.3f}, "
                f"not below the unigrams' {unigram:.3f}"
            )
    if not pairs:
        flags.append("one trial only: there is no pair to compare")
    errors = {record.trial: 1 - record.val_accuracy / 100 for record in records}
    for (i, j), pair in pairs.items():
        low, high = abs(errors[i] - errors[j]), errors[i] + errors[j]
        if not low - 1e-9 <= pair["churn"] <= high + 1e-9:
            flags.append(f"impossible churn: {pair['churn']:.4f} for trials {i} and {j} lies outside {low:.4f} to {high:.4f}")
        if not np.isfinite(pair["log_prob_pd"]):
            flags.append(f"infinite log_prob_pd: trials {i} and {j} give a true character probability 0 in one of them only")
    return flags


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
