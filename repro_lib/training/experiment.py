"""One cell of the grid: N trials of one model with one activation, and the prediction difference between them.

Its trials are trained, or found where a killed run or another process left them, and stored one by one."""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from repro_lib.config import Config, without_neutral
from repro_lib.config.members import members, needed
from repro_lib.data import Dataset
from repro_lib.metrics import all_pairs, prediction_difference
from repro_lib.models.determinism import deterministic_arithmetic
from repro_lib.models.registry import parameters_of
from repro_lib.store.predictions import compare_all
from repro_lib.store.schema import CorpusRecord, EvaluationRecord, Result, metric_numbers
from repro_lib.system.leases import LeaseHeldError, cell_lease, hold
from repro_lib.training.cell import CellTraining, Kept
from repro_lib.training.checkpoints import CHECKPOINT_SECONDS, sweep
from repro_lib.training.origin import describe_environment
from repro_lib.training.progress import ProgressCallback, tell

# Seconds after which an earlier model is no longer waited for that another process trains.
PATIENCE_SECONDS = 24 * 3600
# Probabilities that differ by less from one place of the text to the next are the same ones: rounding is some 1e-8.
CONSTANT = 1e-6


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
    Earlier models that ``config`` needs (``members``) are found in the same folder or trained first, as cells of their own,
    for which another process is waited that trains them; ``force`` is not for them.
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
    _obtain_members(cell, progress)
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
    if cell.config.ensemble > 1:  # nothing is trained but its members
        return sum(train_trials(model, activation, one, trials, progress=progress, **where) for one in members(cell.config))
    stored = None if force else cell.extendable()
    there = len(stored.trials) if stored else 0
    missing = sorted({trial for trial in trials if there < trial <= cell.config.trials})
    if not missing:
        return 0
    cell.load()
    _obtain_members(cell, progress)
    # One by one; or, stacked, those that follow each other together.
    stacked, trained = cell.config.stacked, 0
    firsts = [trial for trial in missing if not (stacked and trial - 1 in missing)]
    ends = [trial + 1 for trial in missing if not (stacked and trial + 1 in missing)]
    for together in map(range, firsts, ends):
        trained += len(together) * cell.obtain(together, progress)[1]
    return trained


def _obtain_members(cell: CellTraining, progress: ProgressCallback | None) -> None:
    # Before the cell's own lease is taken, so that nobody waits for a process that waits itself.
    where: dict[str, Any] = {"results_dir": cell.store.folder, "data_dir": cell.data_dir, "checkpoint_seconds": cell.every}
    train = partial(run_experiment, cell.model, cell.activation, progress=progress, **where)
    cell.earlier = [(member, _when_free(partial(train, member.config))) for member in needed(cell.config)]


def _when_free(train: Callable[[], Result]) -> Result:
    # Whoever needs the same earlier model may be at work on it.
    patience = PATIENCE_SECONDS
    while True:
        try:
            return train()
        except LeaseHeldError as held:
            if patience == PATIENCE_SECONDS:
                tell(f"{held}; it is waited for")
            if (patience := patience - 1) < 0:
                raise
            time.sleep(1)


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
        parameters=parameters_of(model, config, activation) * (config.ensemble if config.ensemble_rule == "mean" else 1),
        profile=config.profile,
        # The path of a text is of this machine alone.
        config=without_neutral(config.model_dump()) | {"corpus": dataset.corpus.name},
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
