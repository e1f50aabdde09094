"""One cell of the grid: N trials of one model with one activation, and the prediction difference between them.

Its trials are trained, or found where a killed run or another process left them, and stored one by one."""

import contextlib
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch

from repro_lib.config import Config, ConfigError, check_model
from repro_lib.data import TEXT_CHANGED, CorpusError, Dataset, corpus_sha256, load_dataset
from repro_lib.metrics import all_pairs, prediction_difference
from repro_lib.models.activations import canonical_activation
from repro_lib.models.determinism import deterministic_arithmetic
from repro_lib.models.registry import parameters_of
from repro_lib.store.predictions import Predictions, compact, compare_all, fineness, predictions_from, restored, trial_tensors
from repro_lib.store.schema import (
    TENSOR_KINDS,
    CorpusRecord,
    EvaluationRecord,
    Result,
    ResultError,
    TensorKind,
    TrialRecord,
    metric_numbers,
)
from repro_lib.store.store import results_store
from repro_lib.system.leases import cell_lease, hold, trial_lease
from repro_lib.training.checkpoints import CHECKPOINT_SECONDS, CellCheckpoints, check_interval, sweep
from repro_lib.training.origin import Origin, describe_environment, made_here, made_otherwise
from repro_lib.training.progress import ProgressCallback, tell
from repro_lib.training.trainer import KEPT_BLOCK_STEP, TrainedTrial, TrainingDiverged, train_trial

Kept = tuple[TrialRecord, Predictions]  # a trial of which everything is stored
CONSTANT = 1e-6  # of probabilities that are the same from one place of the text to the next; rounding is some 1e-8


@deterministic_arithmetic()
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

    Unless ``force``, a stored result of the same configuration is returned, and its trials are kept when more are asked for.
    A bare ``config`` is completed with the model's defaults. A killed run is gone on with by the next, to the same bits: its
    state is saved every ``checkpoint_seconds`` (0: after each iteration; never for more than 1 % of the time).
    Raises ConfigError, CorpusError, ValueError or TypeError for bad input, TrainingDiverged for a loss that is no number,
    StackTooLarge, LeaseHeldError if another process trains this cell, LeaseLostError if the results folder was deleted
    meanwhile, WriteError if it cannot be written."""
    cell = CellTraining(model, activation, config, results_dir, data_dir, checkpoint_seconds)
    whole = (*cell.names, cell.config.trials, cell.config.profile)
    if not force and (stored := cell.store.find(*whole)):
        sweep(cell.store)  # a run may have been killed when its result was just stored
        return stored
    cell.load()
    with hold(cell_lease(cell.store.folder, *cell.names), f"{model} with {cell.activation}") as lease:
        # Somebody else may have finished it between that look and the lease.
        if not force and (stored := cell.store.find(*whole)):
            return stored
        trials = cell.all_trials(None if force else cell.extendable(), progress)
        result = summarise(*cell.names[:2], cell.config, cell.config_sha256, cell.dataset, trials)
        # Where the folder was deleted meanwhile another process may have begun anew: its result is not to meet this one.
        lease.confirm()
        if (result := cell.store.stamped(result)).timestamp > datetime.now(UTC):
            tell(f"the clock was ahead when results were stored; this one, the newest, is stamped {result.timestamp}")
        cell.store.save(result)
        cell.checkpoints.remove(len(trials))
        cell.store.forget_failure(*cell.names)
    return result


@deterministic_arithmetic()
def train_trials(
    model: str,
    activation: str,
    config: Config,
    trials: Sequence[int],
    *,
    force: bool = False,
    progress: ProgressCallback | None = None,
    **where: Any,
) -> int:
    """Train some trials of a cell (numbered from 1) and keep them for ``run_experiment``, which joins them.

    What is there already is not trained again; what is kept counts where the cell is joined with the same torch and on the
    same kind of machine. Returns how many were trained here. Errors and other arguments (``where``) as of ``run_experiment``.
    """
    cell = CellTraining(model, activation, config, **where)
    stored = None if force else cell.extendable()
    there = len(stored.trials) if stored else 0
    missing = sorted({trial for trial in trials if there < trial <= cell.config.trials})
    if not missing:
        return 0
    cell.load()
    # One by one; or, stacked, those that follow each other together.
    stacked, trained = cell.config.stacked, 0
    firsts = [trial for trial in missing if not (stacked and trial - 1 in missing)]
    ends = [trial + 1 for trial in missing if not (stacked and trial + 1 in missing)]
    for together in map(range, firsts, ends):
        trained += len(together) * cell.obtain(together, progress)[1]
    return trained


class CellTraining:
    """A cell at work: where its trials go, and where those of a killed run are found. Trials count from 1."""

    def __init__(
        self,
        model: str,
        activation: str,
        config: Config | None,
        results_dir: Path | str | None = None,
        data_dir: Path | None = None,
        checkpoint_seconds: float = CHECKPOINT_SECONDS,
    ) -> None:
        """What was asked for, checked; nothing is read but the text."""
        self.model, self.activation = model, canonical_activation(activation)
        self.config, self.data_dir = (config or Config()).resolved_for(check_model(model)), data_dir
        check_device(self.config)
        self.every, self.store = check_interval(checkpoint_seconds), results_store(results_dir or "")
        self.config_sha256 = self.config.sha256(corpus_sha256(self.config.corpus, data_dir))
        self.names = (self.model, self.activation, self.config_sha256)  # by these the store knows the cell

    def load(self) -> None:
        """Read the data; only from here on the configuration is complete, and trials can be obtained."""
        # Before any is looked for: checkpoints that a killed run left beside its result are no unfinished work.
        sweep(self.store)
        self.dataset = load_dataset(self.config, self.data_dir)
        if self.config.sha256(self.dataset.corpus.sha256) != self.config_sha256:
            raise CorpusError(TEXT_CHANGED.format(self.dataset.corpus.name))
        self.config = self.config.with_corpus(self.dataset.vocab_size)
        about = {"model_name": self.model, "activation": self.activation, "config_sha256": self.config_sha256}
        about |= made_here(self.config.device)
        origin = Origin(evaluation_sha256=self.dataset.windows.sha256, trial=1, last_trial=1, **about)
        self.checkpoints = CellCheckpoints(self.store, origin, self.every)

    def extendable(self) -> Result | None:
        """The stored result that more trials can join, of however many it is."""
        stored = self.store.find(*self.names)
        if stored and (why := made_otherwise(stored.environment, self.config.device)):
            tell(f"the stored trials of {self.model} with {self.activation} are not joined, for {why}; all are trained here")
            return None
        return stored

    def obtain(self, trials: range, progress: ProgressCallback | None) -> tuple[list[Kept], bool]:
        """These trials (one, or a stack), and whether they were trained here. One process works on a trial."""
        own, what = self.checkpoints.of_trials(trials), (self.model, self.activation, self.config, self.dataset)
        with contextlib.ExitStack() as held:
            work = {trial: f"{self.checkpoints.of_trials([trial]).name}," for trial in trials}
            leases = [held.enter_context(hold(trial_lease(self.store.folder, *self.names, k), work[k])) for k in trials]
            # Asked only under the lease: whoever held it may have finished them.
            records = own.finished()
            try:
                if records:
                    return [self._stored(record) for record in records], False
            except ResultError as error:
                tell(f"{own.name}, is trained again: {error}")
            try:
                stack = (*what, trials, progress, own)
                trained = _train_stack(*stack) if self.config.stacked else [train_trial(*what, trials.start, progress, own)]
            except TrainingDiverged:
                # Nobody goes on from here: this configuration does the same again. Others may be at work on other trials.
                own.path.unlink(missing_ok=True)
                raise
            except KeyboardInterrupt as stop:
                stop.add_note(f"{own.name}, was stopped; asked for again it {own.place}")
                raise
            for lease in leases:
                lease.confirm()
            kept = [self._keep(trial) for trial in trained]
            # After the tensors: a record that is there vouches for them.
            own.keep_finished([record for record, _ in kept])
            return kept, True

    def all_trials(self, stored: Result | None, progress: ProgressCallback | None) -> list[Kept]:
        """Those that are stored, and those that are missing, trained or found."""
        kept = [(record, self.store.predictions(stored, record.trial)) for record in stored.trials] if stored else []
        while len(kept) < self.config.trials:
            first, last = len(kept) + 1, self.config.trials
            trials = self.checkpoints.stack_from(first, last) if self.config.stacked else range(first, first + 1)
            try:
                kept += self.obtain(trials, progress)[0]
            except TrainingDiverged:
                # The cell will never be whole, whatever its other trials did.
                self.checkpoints.remove(self.config.trials)
                raise
        return kept

    def _stored(self, record: TrialRecord) -> Kept:
        # A trial whose tensors are stored already; ResultError if they are not there or not whole.
        windows = self.dataset.windows
        size = (windows.tokens, parameters_of(self.model, self.config, self.activation))
        # All kinds are read, for the record vouches for all; only the predictions are needed here.
        tensors = {kind: trial_tensors(self._path(kind, record.trial), kind, record, *size) for kind in TENSOR_KINDS}
        name = self.checkpoints.of_trials([record.trial]).name
        return record, predictions_from(tensors["predictions"], windows.sha256, windows.tokens, name)

    def _keep(self, trained: TrainedTrial) -> Kept:
        windows = self.dataset.windows
        labels, kept = windows.targets.flatten(), windows.every(KEPT_BLOCK_STEP).targets.flatten()
        steps = {"logits": trained.step_logits, "labels": kept, "steps": torch.tensor(trained.steps)}
        tensors = dict(zip(TENSOR_KINDS, ({"logits": trained.logits, "labels": labels}, trained.weights, steps), strict=True))
        fields = {name: getattr(trained, name) for name in TrialRecord.model_fields if hasattr(trained, name)}
        stored = {kind: compact(kind, of, fineness(self.config)) for kind, of in tensors.items()}
        about = {"evaluation_sha256": windows.sha256, "config_sha256": self.config_sha256}
        for kind in TENSOR_KINDS:
            path = self._path(kind, trained.trial)
            fields[f"{kind}_sha256"] = self.store.save_tensors(path, tensors[kind], about, stored[kind])
        logits = restored(stored["predictions"])["logits"]  # those that all later stages read
        return TrialRecord(**fields), Predictions(logits.numpy(), labels.numpy(), windows.sha256)

    def _path(self, kind: TensorKind, trial: int) -> Path:
        return self.store.trial_path(kind, *self.names, trial)


def _train_stack(*stack: Any) -> list[TrainedTrial]:
    from repro_lib.training.stacked import train_stack  # and with it torch's compiler, for seconds

    return train_stack(*stack)


def check_device(config: Config) -> None:
    """ConfigError if the device that a configuration asks for is not there."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device = 'cuda' was asked for, but torch finds no CUDA device here; use device = 'cpu'")


def summarise(
    model: str, activation: str, config: Config, config_sha256: str, dataset: Dataset, trials: Sequence[Kept]
) -> Result:
    """The result of a cell from its trained trials."""
    records, predictions = [record for record, _ in trials], [prediction for _, prediction in trials]
    compared, numbers = compare_all(predictions).pairs, combinations(range(1, len(records) + 1), 2)
    pairs = {pair: {name: float(of[k]) for name, of in compared.items()} for k, pair in enumerate(numbers)}
    metrics, windows, unigram = metric_numbers(compared, len(records)), dataset.windows, dataset.unigram_cross_entropy
    scored = {"sha256": windows.sha256, "tokens": windows.tokens, "bytes": dataset.evaluation_bytes}
    together = (prediction_difference.probabilities_from_logits, prediction_difference.mean_deviation_pd, all_pairs.unanimity)
    deviation, agree = all_pairs.over_parts([p.logits for p in predictions], *together) if pairs else (None, None)
    return Result(
        model_name=model,
        activation=activation,
        parameters=parameters_of(model, config, activation),
        profile=config.profile,
        config=config.model_dump() | {"corpus": dataset.corpus.name},  # the path of a text is of this machine alone
        config_sources=dict(config.sources),
        config_sha256=config_sha256,
        corpus=CorpusRecord(name=dataset.corpus.name, sha256=dataset.corpus.sha256),
        evaluation=EvaluationRecord(unigram_cross_entropy=unigram, **scored),
        avg_relative_pd=metrics.get("relative_pd"),
        mean_deviation_pd=deviation,
        avg_val_loss=float(np.mean([record.val_loss for record in records])),
        avg_val_accuracy=float(np.mean([record.val_accuracy for record in records])),
        reproducibility_metrics=metrics,
        trials=records,
        flags=_flags(trials, pairs, unigram),
        unanimity=agree,
        synthetic=False,
        environment=describe_environment(config.device),
        # Whole seconds, as in the name of the file: what is read back is then equal to what was written.
        timestamp=datetime.now(UTC).replace(microsecond=0),
    )


def _flags(trials: Sequence[Kept], pairs: dict[tuple[int, int], dict[str, float]], unigram: float) -> list[str]:
    # What a reader must know before using the numbers.
    flags, errors = [], {record.trial: 1 - record.val_accuracy / 100 for record, _ in trials}
    for record, predictions in trials:
        # A trial that reads nothing agrees with others of its kind; its loss may be what it will.
        probabilities = prediction_difference.probabilities_from_logits
        if all_pairs.over_parts([predictions.logits], probabilities, lambda part: np.ptp(part[0], axis=0).max())[0] < CONSTANT:
            same = "gives each character the same probability, whatever the text before it"
            flags.append(f"constant: trial {record.trial} {same}")
        # A model that does not beat the frequencies of the characters has learnt nothing.
        if record.val_loss >= unigram:
            of_unigrams = f"not below the unigrams' {unigram:.3f}"
            flags.append(f"untrained: trial {record.trial} has validation loss {record.val_loss:.3f}, {of_unigrams}")
    if not pairs:
        flags.append("one trial only: there is no pair to compare")
    for (i, j), pair in pairs.items():
        # Two models that err on shares a and b of the text differ in no less than abs(a - b) of it and in no more than a + b.
        low, high = abs(errors[i] - errors[j]), errors[i] + errors[j]
        # 1e-9: accuracies are stored in per cent, and lose a bit on the way there and back.
        if not low - 1e-9 <= pair["churn"] <= high + 1e-9:
            flags.append(f"impossible churn: {pair['churn']:.4f} for trials {i} and {j} lies outside {low:.4f} to {high:.4f}")
        if not np.isfinite(pair["log_prob_pd"]):
            flags.append(f"infinite log_prob_pd: trials {i} and {j} give a true character probability 0 in one of them only")
    return flags
