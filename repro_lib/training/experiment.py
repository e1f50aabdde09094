"""One cell of the grid: N trials of one model with one activation, and the prediction difference between them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path

import numpy as np
import torch

from repro_lib.config import Config, ConfigError, check_model, project_root
from repro_lib.data import Dataset, corpus_sha256
from repro_lib.metrics import prediction_difference
from repro_lib.models.activations import canonical_activation
from repro_lib.store.predictions import Predictions, compare_all
from repro_lib.store.schema import CorpusRecord, EvaluationRecord, Result, TrialRecord
from repro_lib.store.store import Store
from repro_lib.system.leases import cell_lease, hold
from repro_lib.training.cell_training import CellTraining, Kept, parameters_of
from repro_lib.training.checkpoints import CHECKPOINT_SECONDS, check_interval, sweep
from repro_lib.training.environment_record import describe_environment
from repro_lib.training.progress import ProgressCallback
from repro_lib.training.trainer import TrainingDiverged

# Probabilities that differ by less from one place of the text to the next are the same ones: rounding is some 1e-8.
CONSTANT = 1e-6


def run_experiment(
    model: str,
    activation: str,
    config: Config | None = None,
    *,
    results_dir: Path | str | None = None,
    data_dir: Path | None = None,
    force: bool = False,
    progress: ProgressCallback | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> Result:
    """Train the trials of one cell, measure how much they disagree, and store the result.

    Unless ``force``, a stored result of the same configuration is returned instead of training again, and its trials are
    kept when more are asked for or when another profile means the same configuration. A bare ``config`` is completed
    with the model's defaults.

    A run that is killed, at whatever moment, is gone on with by the next one and ends with the same bits: finished trials
    are kept, and a trial or a stack in training saves its state every ``checkpoint_seconds`` (0: after each iteration; less
    often where saving would take more than 1 % of the time). What a user should know of that is said in one sentence, by
    the logger ``repro_lib``, or printed where nobody has set up logging.

    Raises ConfigError, CorpusError, ValueError or TypeError for bad input, TrainingDiverged for a loss that is no number,
    StackTooLarge if stacked trials do not fit into the memory of the device,
    LeaseHeldError if another process is training this cell, LeaseLostError if the results folder was deleted meanwhile,
    WriteError if it cannot be written.
    """
    store, config, asked = _asked(model, activation, config, results_dir, data_dir, checkpoint_seconds)
    if not force and (stored := store.find(*asked, config.trials, config.profile)):
        return stored
    cell = CellTraining.load(store, asked, config, data_dir, checkpoint_seconds)
    with hold(cell_lease(store.folder, *asked), f"{model} with {cell.activation}") as lease:
        # Somebody else may have finished it between that look and the lease.
        if not force and (stored := store.find(*asked, config.trials, config.profile)):
            return stored
        stored = None if force else store.find(*asked)
        trials = _all_trials(cell, stored if stored and _same_torch(stored) else None, progress)
        records, predictions = [record for record, _ in trials], [prediction for _, prediction in trials]
        result = summarise(*asked[:2], cell.config, cell.config_sha256, cell.dataset, records, predictions)
        lease.confirm()
        store.save(result)
        cell.checkpoints.remove(len(records))
        store.forget_failure(*asked)
    return result


def train_trials(
    model: str,
    activation: str,
    config: Config,
    trials: Sequence[int],
    *,
    results_dir: Path | str | None = None,
    data_dir: Path | None = None,
    force: bool = False,
    progress: ProgressCallback | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> int:
    """Train some trials of a cell (numbered from 1) and keep them for ``run_experiment``, which joins them.

    What is there already is not trained again. Processes may train different trials of a cell at the same time; a trial that
    is kept counts where the cell is joined with the same torch and on the same kind of machine, and is trained anew elsewhere.
    Returns how many trials were trained here. Arguments and errors as of ``run_experiment``.
    """
    store, config, asked = _asked(model, activation, config, results_dir, data_dir, checkpoint_seconds)
    stored = None if force else store.find(*asked)
    there = len(stored.trials) if stored and _same_torch(stored) else 0
    missing = [trial for trial in trials if there < trial <= config.trials]
    if not missing:
        return 0
    cell = CellTraining.load(store, asked, config, data_dir, checkpoint_seconds)
    trained = 0
    for together in _stacks(missing) if config.stacked else [range(trial, trial + 1) for trial in missing]:
        trained += len(together) * cell.obtain(together, progress)[1]
    return trained


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
    # A metric of a pair is its mean over the windows: they are of one size, so that each character counts alike.
    by_window, numbers = compare_all(predictions), combinations(range(1, len(records) + 1), 2)
    pairs = {pair: {name: float(of[k].mean()) for name, of in by_window.items()} for k, pair in enumerate(numbers)}
    averages = {
        name: float(np.mean([pair[name] for pair in pairs.values()])) for name in prediction_difference.metric_names() if pairs
    }
    unigram = dataset.unigram_cross_entropy
    # Whole seconds, as in the name of the file: what is read back is then equal to what was written.
    timestamp = datetime.now(UTC).replace(microsecond=0)
    return Result(
        model_name=model,
        activation=activation,
        parameters=parameters_of(model, config, activation),
        profile=config.profile,
        config=config.model_dump(),
        config_sources=dict(config.sources),
        config_sha256=config_sha256,
        corpus=CorpusRecord(name=dataset.corpus.name, sha256=dataset.corpus.sha256),
        evaluation=EvaluationRecord(
            sha256=dataset.windows.sha256, tokens=dataset.windows.tokens, unigram_cross_entropy=unigram
        ),
        avg_relative_pd=averages.get("relative_pd"),
        mean_deviation_pd=prediction_difference.mean_deviation_pd([p.probabilities for p in predictions]) if pairs else None,
        avg_val_loss=float(np.mean([record.val_loss for record in records])),
        avg_val_accuracy=float(np.mean([record.val_accuracy for record in records])),
        reproducibility_metrics=_flat_metrics(averages, pairs),
        trials=list(records),
        flags=[*_constant(records, predictions), *_flags(records, pairs, unigram)],
        synthetic=False,
        environment=describe_environment(config.device),
        timestamp=timestamp,
    )


def _asked(
    model: str,
    activation: str,
    config: Config | None,
    results_dir: Path | str | None,
    data_dir: Path | None,
    checkpoint_seconds: float,
) -> tuple[Store, Config, tuple[str, str, str]]:
    """The store, the complete configuration, and by which names the store knows the cell; checked, and swept."""
    activation = canonical_activation(activation)
    config = (config or Config()).resolved_for(check_model(model))
    check_device(config)
    check_interval(checkpoint_seconds)
    # Here, before anything is asked of the folder: checkpoints that a killed run left beside its result are no unfinished work.
    store = Store(results_dir or project_root() / "results")
    sweep(store)
    return store, config, (model, activation, config.sha256(corpus_sha256(config.corpus, data_dir)))


def _same_torch(stored: Result) -> bool:
    """Whether more trials can join a result: those of two torch versions may differ in their last bits and are never mixed."""
    return stored.environment.get("torch") == torch.__version__


def _all_trials(cell: CellTraining, stored: Result | None, progress: ProgressCallback | None) -> list[Kept]:
    """Those that are stored, and those that are missing, trained or found."""
    kept: list[Kept] = []
    if stored:
        kept += [(record, cell.store.predictions(stored, record.trial)) for record in stored.trials]
    while len(kept) < cell.config.trials:
        try:
            kept += cell.obtain(cell.next_trials(len(kept)), progress)[0]
        except TrainingDiverged:
            # The cell will never be whole, whatever its other trials did.
            cell.checkpoints.remove(cell.config.trials)
            raise
    return kept


def _stacks(trials: Sequence[int]) -> list[range]:
    """Trials that follow each other, together."""
    first = [trial for trial in trials if trial - 1 not in trials]
    last = [trial for trial in trials if trial + 1 not in trials]
    return [range(start, end + 1) for start, end in zip(sorted(first), sorted(last), strict=True)]


def _flat_metrics(averages: dict[str, float], pairs: dict[tuple[int, int], dict[str, float]]) -> dict[str, float | None]:
    """Averages by name, then each metric of each pair; an infinite value becomes None, which JSON can hold."""
    flat = dict(averages)
    for name in averages:
        prefix = "pd" if name == "relative_pd" else name
        flat |= {f"{prefix}_{i}_{j}": pair[name] for (i, j), pair in pairs.items()}
    # log_prob_pd is infinite where one model alone gives a character no chance; a flag says of which pair.
    return {name: value if np.isfinite(value) else None for name, value in flat.items()}


def _flags(records: Sequence[TrialRecord], pairs: dict[tuple[int, int], dict[str, float]], unigram: float) -> list[str]:
    """What a reader must know before using the numbers.

    A model that does not beat the frequencies of the characters has learnt nothing; two models that err on shares a and b of
    the text can differ in no less than abs(a - b) of it and in no more than a + b, or something is broken.
    """
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
        # 1e-9: accuracies are stored in per cent, and lose a bit on the way there and back.
        if not low - 1e-9 <= pair["churn"] <= high + 1e-9:
            flags.append(f"impossible churn: {pair['churn']:.4f} for trials {i} and {j} lies outside {low:.4f} to {high:.4f}")
        if not np.isfinite(pair["log_prob_pd"]):
            flags.append(f"infinite log_prob_pd: trials {i} and {j} give a true character probability 0 in one of them only")
    return flags


def _constant(records: Sequence[TrialRecord], predictions: Sequence[Predictions]) -> list[str]:
    """A flag for each trial that reads nothing, and so agrees with others of its kind; its loss may be what it will."""
    return [
        f"constant: trial {record.trial} gives each character the same probability, whatever the text before it"
        for record, of_trial in zip(records, predictions, strict=True)
        if np.ptp(of_trial.probabilities, axis=0).max() < CONSTANT
    ]
