"""A cell at work: its trials trained one by one, or found where another run left them, and all of each stored."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from repro_lib.config import Config, ConfigError, check_model
from repro_lib.config.members import Member
from repro_lib.data import TEXT_CHANGED, CorpusError, corpus_sha256, load_dataset
from repro_lib.metrics.prediction_difference import cross_entropy, error_rate, total_variation
from repro_lib.models.activations import canonical_activation
from repro_lib.models.registry import parameters_of
from repro_lib.store.parts import digest_of
from repro_lib.store.predictions import Predictions, compact, fineness, predictions_from, restored, trial_tensors
from repro_lib.store.schema import TENSOR_KINDS, Result, ResultError, TensorKind, TrialRecord
from repro_lib.store.store import results_store
from repro_lib.system.leases import hold, trial_lease
from repro_lib.training.checkpoints import CHECKPOINT_SECONDS, CellCheckpoints, check_interval, sweep
from repro_lib.training.origin import Origin, made_here, made_otherwise
from repro_lib.training.progress import ProgressCallback, tell
from repro_lib.training.trainer import KEPT_BLOCK_STEP, TrainedTrial, TrainingDiverged, train_trial

Kept = tuple[TrialRecord, Predictions]  # a trial of which everything is stored


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
        self.earlier: list[tuple[Member, Result]] = []  # what is needed of other cells, once these are there

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
                if self.config.stacked:
                    from repro_lib.training.stacked import train_stack  # and with it torch's compiler, for seconds

                    trained = train_stack(*what, trials, progress, own)
                else:
                    trained = [train_trial(*what, trials.start, progress, own, self._weights_for(trials.start))]
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
        if self.config.ensemble > 1:
            return [self._keep(self._ensemble(trial)) for trial in range(1, self.config.trials + 1)]
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

    def _weights_for(self, trial: int) -> dict[str, list[dict[str, torch.Tensor]]]:
        # Of the earlier models that a trial needs, by what for.
        found: dict[str, list[dict[str, torch.Tensor]]] = {}
        for member, result in self.earlier:
            found.setdefault(member.role, []).append(self.store.weights(result, member.trial or trial))
        return found

    def _ensemble(self, trial: int) -> TrainedTrial:
        of = [(result.trials[trial - 1], self.store.predictions(result, trial)) for _, result in self.earlier]
        return ensembled(of, trial, self.config)

    def _keep(self, trained: TrainedTrial) -> Kept:
        windows = self.dataset.windows
        labels, kept = windows.targets.flatten(), windows.every(KEPT_BLOCK_STEP).targets.flatten()
        steps = {"logits": trained.step_logits, "labels": kept, "steps": torch.tensor(trained.steps)}
        tensors = dict(zip(TENSOR_KINDS, ({"logits": trained.logits, "labels": labels}, trained.weights, steps), strict=True))
        fields = {name: getattr(trained, name) for name in TrialRecord.model_fields if hasattr(trained, name)}
        kinds = TENSOR_KINDS if trained.weights else TENSOR_KINDS[:1]  # an ensemble's weights are its members'
        stored = {kind: compact(kind, tensors[kind], fineness(self.config)) for kind in kinds}
        about = {"evaluation_sha256": windows.sha256, "config_sha256": self.config_sha256}
        for kind in kinds:
            path = self._path(kind, trained.trial)
            fields[f"{kind}_sha256"] = self.store.save_tensors(path, tensors[kind], about, stored[kind])
        logits = restored(stored["predictions"])["logits"]  # those that all later stages read
        return TrialRecord(**fields), Predictions(logits.numpy(), labels.numpy(), windows.sha256)

    def _path(self, kind: TensorKind, trial: int) -> Path:
        return self.store.trial_path(kind, *self.names, trial)


def ensembled(members: Sequence[Kept], trial: int, config: Config) -> TrainedTrial:
    """Trial ``trial`` of an ensemble, from those of its members: their mean probabilities (Lakshminarayanan et al. 2016, arXiv
    1612.01474), or with ``nearest`` the predictions of that with the least total variation to them, the first of equal ones.

    Curves are the mean of those that predict, ``seconds`` the sum of all members'. It has no weights of its own."""
    probabilities = np.stack([predictions.probabilities for _, predictions in members])  # (members, tokens, V)
    mean, predicting = probabilities.mean(axis=0), list(members)
    # Probabilities below the smallest float are none: their logarithm would be no number.
    logits = np.log(np.maximum(mean, np.finfo(np.float64).tiny)).astype(np.float32)
    if config.ensemble_rule == "nearest":
        # Of two both are equally far, but for rounding.
        nearest = int(np.argmin([round(total_variation(own, mean), 12) for own in probabilities]))
        predicting, logits = [members[nearest]], members[nearest][1].logits
    records, labels = [record for record, _ in predicting], torch.from_numpy(members[0][1].labels)
    return TrainedTrial(
        trial=trial,
        seed=config.seed + trial - 1,
        train_loss_curve=_mean_curve([record.train_loss_curve for record in records]),
        val_loss_curve=_mean_curve([record.val_loss_curve for record in records]),
        val_loss=cross_entropy(logits := torch.from_numpy(logits), labels),
        val_accuracy=100 * (1 - error_rate(logits, labels)),
        seconds=sum(record.seconds for record, _ in members),
        init_sha256=digest_of([record.init_sha256 for record in records]),
        logits=logits,
        steps=[],
        step_logits=torch.empty(0),
        weights={},
        weights_sha256=digest_of([record.weights_sha256 for record in records]),
    )


def _mean_curve(curves: Sequence[Sequence[tuple[int, float]]]) -> list[tuple[int, float]]:
    # All members are as long, so that their points are at the same iterations.
    return [(points[0][0], float(np.mean([loss for _, loss in points]))) for points in zip(*curves, strict=True)]


def check_device(config: Config) -> None:
    """ConfigError if the device that a configuration asks for is not there."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device = 'cuda' was asked for, but torch finds no CUDA device here; use device = 'cpu'")
