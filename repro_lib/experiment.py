"""One cell of the grid: N trials of one model with one activation, and the prediction difference between them."""

from __future__ import annotations

import contextlib
import functools
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Self

import numpy as np
import torch

from repro_lib import metrics
from repro_lib.activations import canonical_activation
from repro_lib.checkpoints import CHECKPOINT_SECONDS, CellCheckpoints, Notice, Origin, check_interval, code_sha256, sweep
from repro_lib.config import Config, ConfigError, check_model, project_root
from repro_lib.data import Dataset, corpus_sha256, load_dataset
from repro_lib.lease import Lease, cell_lease, hold, trial_lease
from repro_lib.models import build_model, count_parameters
from repro_lib.predictions import Predictions, compare_all, predictions_from, trial_tensors
from repro_lib.schema import TENSOR_KINDS, CorpusRecord, EvaluationRecord, Result, ResultError, TensorKind, TrialRecord
from repro_lib.stacked import train_stack
from repro_lib.store import Store
from repro_lib.training import KEPT_BLOCK_STEP, ProgressCallback, TrainedTrial, TrainingDiverged, train_trial

# Probabilities that differ by less from one place of the text to the next are the same ones: rounding is some 1e-8.
CONSTANT = 1e-6
# A trial of which everything is stored.
Kept = tuple[TrialRecord, Predictions]


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
    notice: Notice = print,
) -> Result:
    """Train the trials of one cell, measure how much they disagree, and store the result.

    Unless ``force``, a stored result of the same configuration is returned instead of training again, and its trials are
    kept when more are asked for or when another profile means the same configuration. A bare ``config`` is completed
    with the model's defaults.

    A run that is killed, at whatever moment, is gone on with by the next one and ends with the same bits: finished trials
    are kept, and a trial or a stack in training saves its state every ``checkpoint_seconds`` (0: after each iteration; less
    often where saving would take more than 1 % of the time). ``notice`` is told in one sentence what a user should know of
    that.

    Raises ConfigError, CorpusError, ValueError or TypeError for bad input, TrainingDiverged for a loss that is no number,
    StackTooLarge if stacked trials do not fit into the memory of the device,
    LeaseHeldError if another process is training this cell, LeaseLostError if the results folder was deleted meanwhile,
    WriteError if it cannot be written.
    """
    store, config, asked = _asked(model, activation, config, results_dir, data_dir, checkpoint_seconds)
    if not force and (stored := store.find(*asked, config.trials, config.profile)):
        return stored
    cell = _Cell.load(store, asked, config, data_dir)
    with hold(cell_lease(store.folder, *asked), f"{model} with {cell.activation}") as lease:
        # Somebody else may have finished it between that look and the lease.
        if not force and (stored := store.find(*asked, config.trials, config.profile)):
            return stored
        stored = None if force else store.find(*asked)
        if stored and stored.environment.get("torch") != torch.__version__:
            # Trials of two torch versions may differ in their last bits; a result never mixes them.
            stored = None
        checkpoints = CellCheckpoints(store, cell.origin(), checkpoint_seconds, notice)
        records, predictions = _reusable_trials(store, stored)
        while len(records) < config.trials:
            try:
                found, _ = cell.obtain(checkpoints, cell.next_trials(checkpoints, len(records)), progress)
            except TrainingDiverged:
                # The cell will never be whole, whatever its other trials did.
                checkpoints.remove(config.trials)
                raise
            records += [record for record, _ in found]
            predictions += [prediction for _, prediction in found]
        result = summarise(*asked[:2], cell.config, cell.config_sha256, cell.dataset, records, predictions)
        lease.confirm()
        store.save(result)
        checkpoints.remove(len(records))
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
    notice: Notice = print,
) -> int:
    """Train some trials of a cell (numbered from 1) and keep them for ``run_experiment``, which joins them.

    What is there already is not trained again. Processes may train different trials of a cell at the same time; a trial that
    is kept counts where the cell is joined with the same program, torch and kind of machine, and is trained anew elsewhere.
    Returns how many trials were trained here. Arguments and errors as of ``run_experiment``.
    """
    store, config, asked = _asked(model, activation, config, results_dir, data_dir, checkpoint_seconds)
    stored = None if force else store.find(*asked)
    there = len(stored.trials) if stored and stored.environment.get("torch") == torch.__version__ else 0
    missing = [trial for trial in trials if there < trial <= config.trials]
    if not missing:
        return 0
    cell = _Cell.load(store, asked, config, data_dir)
    checkpoints = CellCheckpoints(store, cell.origin(), checkpoint_seconds, notice)
    trained = 0
    for together in _stacks(missing) if config.stacked else [range(trial - 1, trial) for trial in missing]:
        trained += len(together) * cell.obtain(checkpoints, together, progress)[1]
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
    by_window, numbers = compare_all(predictions), combinations(range(1, len(records) + 1), 2)
    pairs = {pair: {name: float(of[k].mean()) for name, of in by_window.items()} for k, pair in enumerate(numbers)}
    averages = {name: float(np.mean([pair[name] for pair in pairs.values()])) for name in metrics.metric_names() if pairs}
    unigram = dataset.unigram_cross_entropy
    return Result(
        model_name=model,
        activation=activation,
        parameters=_parameters(model, config, activation),
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
        flags=[*_constant(records, predictions), *_flags(records, pairs, unigram)],
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
    store = Store(results_dir or project_root() / "results")
    sweep(store)
    return store, config, (model, activation, config.sha256(corpus_sha256(config.corpus, data_dir)))


def _reusable_trials(store: Store, stored: Result | None) -> tuple[list[TrialRecord], list[Predictions]]:
    if stored is None:
        return [], []
    return list(stored.trials), [store.predictions(stored, record.trial) for record in stored.trials]


def _stacks(trials: Sequence[int]) -> list[range]:
    """Trials numbered from 1, as 0-based ranges of those that follow each other."""
    first = [trial for trial in trials if trial - 1 not in trials]
    last = [trial for trial in trials if trial + 1 not in trials]
    return [range(start - 1, stop) for start, stop in zip(sorted(first), sorted(last), strict=True)]


@dataclass(frozen=True)
class _Cell:
    """A cell at work: where its trials go, and where those of a killed run are found."""

    store: Store
    model: str
    activation: str
    config: Config
    config_sha256: str
    dataset: Dataset

    @classmethod
    def load(cls, store: Store, asked: tuple[str, str, str], config: Config, data_dir: Path | None) -> Self:
        """The cell that the store knows by these names, with its data."""
        model, activation, config_sha256 = asked
        dataset = load_dataset(config, data_dir)
        return cls(store, model, activation, config.with_corpus(dataset.vocab_size), config_sha256, dataset)

    def obtain(self, checkpoints: CellCheckpoints, trials: range, progress: ProgressCallback | None) -> tuple[list[Kept], bool]:
        """These trials (0-based; one, or a stack), and whether they were trained here. One process works on a trial."""
        names = (self.store.folder, self.model, self.activation, self.config_sha256)
        with contextlib.ExitStack() as held:
            leases = [
                held.enter_context(hold(trial_lease(*names, k + 1), f"{self.model} with {self.activation}, trial {k + 1},"))
                for k in trials
            ]
            if found := self.finished(checkpoints, trials):
                return found, False
            return self.train(checkpoints, trials, progress, leases), True

    def origin(self) -> Origin:
        """What its checkpoints are made for and with."""
        machine = describe_environment(self.config.device)
        return Origin(
            model_name=self.model,
            activation=self.activation,
            config_sha256=self.config_sha256,
            evaluation_sha256=self.dataset.windows.sha256,
            trial=1,
            last_trial=1,
            code_sha256=code_sha256(),
            **{name: str(machine[name]) for name in ("torch", "device", "cpu")},
        )

    def next_trials(self, checkpoints: CellCheckpoints, done: int) -> range:
        """What trains next when so many trials are there, as 0-based numbers: one trial, or, stacked, all that are missing.

        A stack that a killed run left unfinished is finished first, as the one that it was; none reaches into the next.
        """
        if not self.config.stacked:
            return range(done, done + 1)
        if end := checkpoints.end_of_stack(done + 1, self.config.trials):
            return range(done, end)
        beginning = checkpoints.next_beginning(done + 1)
        return range(done, min(beginning - 1, self.config.trials) if beginning else self.config.trials)

    def finished(self, checkpoints: CellCheckpoints, trials: range) -> list[Kept] | None:
        """Trials that a killed run had finished (one, or a stack), if their records and all tensors are there and whole."""
        records = checkpoints.finished(trials.start + 1, trials.stop)
        try:
            return [self._stored(record) for record in records] if records else None
        except ResultError as error:
            checkpoints.notice(f"{checkpoints.name_of(trials.start + 1, trials.stop)}, is trained again: {error}")
            return None

    def train(
        self, checkpoints: CellCheckpoints, trials: range, progress: ProgressCallback | None, leases: Sequence[Lease]
    ) -> list[Kept]:
        """Train one trial, or several as a stack, or what is left of it, and store them."""
        own = checkpoints.of_trials(trials.start + 1, trials.stop)
        what = (self.model, self.activation, self.config, self.dataset)
        try:
            if self.config.stacked:
                trained = train_stack(*what, trials, progress, own)
            else:
                trained = [train_trial(*what, trials.start, progress, own)]
        except TrainingDiverged:
            # Nobody goes on from here: this configuration does the same again. Others may be at work on other trials.
            own.remove()
            raise
        for lease in leases:
            lease.confirm()
        kept = [self._keep(trial) for trial in trained]
        checkpoints.keep_finished([record for record, _ in kept])
        return kept

    def _stored(self, record: TrialRecord) -> Kept:
        """A trial whose tensors are stored already; ResultError if they are not there or not whole."""
        name, windows = f"{self.model} with {self.activation}, trial {record.trial}", self.dataset.windows
        size = (windows.tokens, _parameters(self.model, self.config, self.activation))
        found = {kind: trial_tensors(self._path(kind, record.trial), kind, record, *size) for kind in TENSOR_KINDS}
        return record, predictions_from(found["predictions"], windows.sha256, windows.tokens, name)

    def _keep(self, trained: TrainedTrial) -> Kept:
        """Store the logits and weights of a trained trial; its record names them by their digests."""
        windows = self.dataset.windows
        labels, kept_labels = windows.targets.flatten(), windows.every(KEPT_BLOCK_STEP).targets.flatten()
        tensors = {
            "weights": trained.weights,
            "predictions": {"logits": trained.logits, "labels": labels},
            "steps": {"logits": trained.step_logits, "labels": kept_labels, "steps": torch.tensor(trained.steps)},
        }
        about = {"evaluation_sha256": windows.sha256, "config_sha256": self.config_sha256}
        fields = {name: getattr(trained, name) for name in TrialRecord.model_fields if hasattr(trained, name)}
        fields |= {
            f"{kind}_sha256": self.store.save_tensors(self._path(kind, trained.trial), tensors[kind], about)
            for kind in TENSOR_KINDS
        }
        return TrialRecord(**fields), Predictions(trained.logits.numpy(), labels.numpy(), windows.sha256)

    def _path(self, kind: TensorKind, trial: int) -> Path:
        return self.store.trial_path(kind, self.model, self.activation, self.config_sha256, trial)


def _parameters(model: str, config: Config, activation: str) -> int:
    return count_parameters(build_model(model, config.model_copy(update={"device": "cpu"}), activation))


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


def _constant(records: Sequence[TrialRecord], predictions: Sequence[Predictions]) -> list[str]:
    """A flag for each trial that reads nothing, and so agrees with others of its kind; its loss may be what it will."""
    return [
        f"constant: trial {record.trial} gives each character the same probability, whatever the text before it"
        for record, of_trial in zip(records, predictions, strict=True)
        if np.ptp(of_trial.probabilities, axis=0).max() < CONSTANT
    ]


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
