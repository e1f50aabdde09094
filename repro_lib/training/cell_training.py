"""A cell at work: its trials are trained, or found where a killed run or another process left them, and stored one by one."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import torch

from repro_lib.config import Config
from repro_lib.data import Dataset, load_dataset
from repro_lib.models.registry import build_model, count_parameters
from repro_lib.store.predictions import Predictions, predictions_from, trial_tensors
from repro_lib.store.schema import TENSOR_KINDS, ResultError, TensorKind, TrialRecord
from repro_lib.store.store import Store
from repro_lib.system.leases import Lease, hold, trial_lease
from repro_lib.training.checkpoints import CellCheckpoints
from repro_lib.training.environment_record import describe_environment
from repro_lib.training.origin import Origin, code_sha256
from repro_lib.training.progress import ProgressCallback, tell
from repro_lib.training.stacked import train_stack
from repro_lib.training.trainer import KEPT_BLOCK_STEP, TrainedTrial, TrainingDiverged, train_trial

# A trial of which everything is stored.
Kept = tuple[TrialRecord, Predictions]


@dataclass(frozen=True)
class CellTraining:
    """A cell at work: where its trials go, and where those of a killed run are found. Trials count from 1."""

    store: Store
    model: str
    activation: str
    config: Config
    config_sha256: str
    dataset: Dataset
    checkpoint_seconds: float

    @classmethod
    def load(
        cls, store: Store, asked: tuple[str, str, str], config: Config, data_dir: Path | None, checkpoint_seconds: float
    ) -> Self:
        """The cell that the store knows by these names, with its data; only from here on its configuration is complete."""
        model, activation, config_sha256 = asked
        dataset = load_dataset(config, data_dir)
        complete = config.with_corpus(dataset.vocab_size)
        return cls(store, model, activation, complete, config_sha256, dataset, checkpoint_seconds)

    @cached_property
    def checkpoints(self) -> CellCheckpoints:
        """What is kept of its unfinished work."""
        machine = describe_environment(self.config.device)
        origin = Origin(
            model_name=self.model,
            activation=self.activation,
            config_sha256=self.config_sha256,
            evaluation_sha256=self.dataset.windows.sha256,
            trial=1,
            last_trial=1,
            code_sha256=code_sha256(),
            **{name: str(machine[name]) for name in ("torch", "device", "cpu")},
        )
        return CellCheckpoints(self.store, origin, self.checkpoint_seconds)

    def next_trials(self, done: int) -> range:
        """What trains next when so many trials are there: one trial, or, stacked, all that are missing.

        A stack that a killed run left unfinished is finished first, as the one that it was; none reaches into the next.
        """
        first, last = done + 1, self.config.trials
        if not self.config.stacked:
            return range(first, first + 1)
        # The bits of a stack hang on which trials are in it, so that a smaller or larger one would not go on with its work.
        if end := self.checkpoints.end_of_stack(first, last):
            return range(first, end + 1)
        return range(first, min(self.checkpoints.next_beginning(first) or last + 1, last + 1))

    def obtain(self, trials: range, progress: ProgressCallback | None) -> tuple[list[Kept], bool]:
        """These trials (one, or a stack), and whether they were trained here. One process works on a trial."""
        names = (self.store.folder, self.model, self.activation, self.config_sha256)
        with contextlib.ExitStack() as held:
            leases = [
                held.enter_context(hold(trial_lease(*names, trial), f"{self.model} with {self.activation}, trial {trial},"))
                for trial in trials
            ]
            if finished := self._finished(trials):
                return finished, False
            return self._train(trials, progress, leases), True

    def _finished(self, trials: range) -> list[Kept] | None:
        """Trials that a killed run had finished (one, or a stack), if their records and all tensors are there and whole."""
        records = self.checkpoints.finished(trials)
        try:
            return [self._stored(record) for record in records] if records else None
        except ResultError as error:
            tell(f"{self.checkpoints.name_of(trials)}, is trained again: {error}")
            return None

    def _train(self, trials: range, progress: ProgressCallback | None, leases: Sequence[Lease]) -> list[Kept]:
        """Train one trial, or several as a stack, or what is left of it, and store them."""
        own = self.checkpoints.of_trials(trials)
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
        # After the tensors: a record that is there vouches for them.
        self.checkpoints.keep_finished([record for record, _ in kept])
        return kept

    def _stored(self, record: TrialRecord) -> Kept:
        """A trial whose tensors are stored already; ResultError if they are not there or not whole."""
        name, windows = f"{self.model} with {self.activation}, trial {record.trial}", self.dataset.windows
        size = (windows.tokens, parameters_of(self.model, self.config, self.activation))
        tensors = {kind: trial_tensors(self._path(kind, record.trial), kind, record, *size) for kind in TENSOR_KINDS}
        return record, predictions_from(tensors["predictions"], windows.sha256, windows.tokens, name)

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


def parameters_of(model: str, config: Config, activation: str) -> int:
    """Trainable parameters of a cell's model; on the CPU, for a GPU has better to do than to hold it."""
    return count_parameters(build_model(model, config.model_copy(update={"device": "cpu"}), activation))
