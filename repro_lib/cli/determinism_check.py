"""Making the determinism certificate: trainings in processes of their own, one of them killed, and two probes.

Every training is what the grid does, ``run_experiment`` in the grid's own pool of workers; only small. The digests of all
its trials must come out the same whoever trains beside it, and whether or not it was killed on the way.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import statistics
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from repro_lib.config import Config, canonical_json
from repro_lib.data import Dataset, load_dataset, prepare_corpus
from repro_lib.grid.pool import Outcome, Pool, Task
from repro_lib.metrics.prediction_difference import cross_entropy, error_rate
from repro_lib.models.determinism import deterministic_arithmetic, streams_for_trial
from repro_lib.models.registry import build_model, model_names
from repro_lib.store.certificate import LONGEST_LINE, Certificate, Check, CheckName, Machine
from repro_lib.store.predictions import Predictions
from repro_lib.store.schema import TENSOR_KINDS, CorpusRecord, TrialRecord
from repro_lib.store.store import Store
from repro_lib.system.temporary import scratch_folder
from repro_lib.training.checkpoints import CHECKPOINT_SECONDS
from repro_lib.training.environment_record import describe_environment
from repro_lib.training.experiment import check_device, run_experiment, summarise
from repro_lib.training.progress import Progress, listening
from repro_lib.training.trainer import make_optimizer, training_step

ACTIVATION, TRIALS, ITERATIONS = "swiglu", 2, 12
# The cell that is killed, for convolution, attention, dropout and a gate in one; and where, in (trial, iteration).
KILLED_MODEL, KILLED_AT = "hybridlm", (2, 7)
# No training of this size takes so long.
_LIMIT_SECONDS = 300.0
# The causality probe changes these of so many characters.
_CHANGED, _CONTEXT, _CHARACTERS = (1, 2, 3, 7, 16, 33, 62, 63), 64, 65

Digests = dict[str, str]


def certify(corpus: str, device: str, workers: int) -> Certificate:
    """Make the certificate of this machine: cells trained by one process, and by ``workers`` (2 or more) at once.

    Raises ConfigError or CorpusError for a device or a corpus that is not there.
    """
    started = time.monotonic()
    configs = {model: _tiny(model, corpus, device) for model in model_names()}
    config = configs[KILLED_MODEL]
    check_device(config)
    prepare_corpus(corpus)
    dataset = load_dataset(config)
    with scratch_folder() as folder:
        reference, trained = train_in_many_ways(folder, configs, workers)
    return Certificate(
        checks=[*trained, check_constant_predictors(config, dataset), check_causality(device)],
        digests=reference,
        workers=workers,
        corpus=CorpusRecord(name=dataset.corpus.name, sha256=dataset.corpus.sha256),
        slowdown=measure_slowdown(config, dataset) if device == "cuda" else None,
        seconds=round(time.monotonic() - started, 1),
        machine=Machine.model_validate(describe_environment(device)),
        timestamp=datetime.now(UTC).replace(microsecond=0),
    )


def _tiny(model: str, corpus: str, device: str) -> Config:
    return Config.for_model(model, "smoke", corpus=corpus, device=device, trials=TRIALS, max_iters=ITERATIONS)


def _check(name: CheckName, problem: str | None, said: str) -> Check:
    """``said`` is what was found where there is no problem."""
    return Check(name=name, passed=problem is None, said=(problem or said)[:LONGEST_LINE])


# --- trainings


def train_in_many_ways(folder: Path, configs: Mapping[str, Config], workers: int) -> tuple[Digests, list[Check]]:
    """Train every cell with one worker, then with many at once, then one cell killed and resumed.

    Returns the digests of the first of these, and two checks.
    """
    with contextlib.closing(Pool(1)) as pool:
        failed = _train_all(pool, configs, folder / "alone")
    reference = digests_of(folder / "alone")
    with contextlib.closing(Pool(workers)) as pool:
        failed = failed or _train_all(pool, configs, folder / "at-once")
        at_once = digests_of(folder / "at-once")
        problem = failed or _no_difference_between_trials(reference) or _difference(reference, at_once)
        said = f"{len(reference)} digests of {len(configs)} cells are the same from one process and from {workers} at once"
        checks = [_check("processes", problem, said)]
        expected = {name: value for name, value in reference.items() if name.startswith(f"{KILLED_MODEL} ")}
        problem = _kill_and_resume(pool, configs[KILLED_MODEL], folder / "killed")
    problem = problem or _difference(expected, digests_of(folder / "killed"))
    trial, iteration = KILLED_AT
    killed = f"{KILLED_MODEL} with {ACTIVATION}, killed by SIGKILL in iteration {iteration} of trial {trial} and resumed,"
    checks.append(_check("resumed", problem, f"{killed} has the same {len(expected)} digests as undisturbed"))
    return reference, checks


def train(model: str, config: Config, results_dir: Path, killed_at: tuple[int, int] | None = None) -> str | None:
    """A worker's task: train a cell; with ``killed_at`` end this very process in that (trial, iteration) with SIGKILL.

    Returns what ``run_experiment`` has to say about unfinished work.
    """

    def watch(now: Progress) -> None:
        if (now.trial, now.iteration) == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)

    every = CHECKPOINT_SECONDS if killed_at is None else 0.0
    with listening() as heard:
        run_experiment(model, ACTIVATION, config, results_dir=results_dir, checkpoint_seconds=every, progress=watch)
    return "; ".join(heard) or None


def digests_of(results_dir: Path) -> Digests:
    """Each digest of each trial in a results folder, and one of all the other numbers of each cell."""
    found = {}
    for _, result in Store(results_dir).load()[0]:
        cell = f"{result.model_name} with {result.activation}"
        for record in result.trials:
            for kind in ("init", *TENSOR_KINDS):
                found[f"{cell}, trial {record.trial}, {kind}"] = str(record[f"{kind}_sha256"])
        # Curves, losses, metrics: all but when it was and how long it took.
        numbers = result.model_dump(mode="json", exclude={"timestamp": True, "trials": {"__all__": {"seconds"}}})
        found[f"{cell}, numbers"] = hashlib.sha256(canonical_json(numbers).encode()).hexdigest()
    return found


def _work(pool: Pool, *tasks: Task) -> list[Outcome]:
    for task in tasks:
        pool.submit(task)
    outcomes = []
    while pool.busy:
        outcomes += pool.step(timeout=0.5)
    return outcomes


def _task(model: str, config: Config, folder: Path, killed_at: tuple[int, int] | None = None) -> Task:
    arguments = {"model": model, "config": config, "results_dir": folder, "killed_at": killed_at}
    return Task(model, train, arguments, _LIMIT_SECONDS)


def _train_all(pool: Pool, configs: Mapping[str, Config], folder: Path) -> str | None:
    """Train all cells; a sentence if one cannot be trained."""
    outcomes = _work(pool, *(_task(model, config, folder) for model, config in configs.items()))
    return next((f"{o.task.key} could not be trained: {o.said}" for o in outcomes if o.end != "done"), None)


def _kill_and_resume(pool: Pool, config: Config, folder: Path) -> str | None:
    """Have a worker killed in mid-training and another one go on; a sentence if that is not what happened."""
    (killed,) = _work(pool, _task(KILLED_MODEL, config, folder, KILLED_AT))
    if killed.end != "killed":
        return f"the process that was to be killed ended otherwise: {killed.said or killed.end}"
    (resumed,) = _work(pool, _task(KILLED_MODEL, config, folder))
    if resumed.end != "done":
        return f"the killed training could not be resumed: {resumed.said}"
    trial, iteration = KILLED_AT
    if f"trial {trial}, goes on from iteration {iteration - 1}" not in (resumed.said or ""):
        return f"the killed training was not resumed from its checkpoint: {resumed.said or 'it began again'}"
    return None


def _difference(expected: Digests, found: Digests) -> str | None:
    names = [name for name in expected | found if expected.get(name) != found.get(name)]
    return f"{len(names)} of {len(expected)} digests of the same training differ, the first: {names[0]}" if names else None


def _no_difference_between_trials(digests: Digests) -> str | None:
    """Digests that never differ would prove nothing; those of trials with other seeds must."""
    first = [name for name in digests if ", trial 1, " in name and not name.endswith(("numbers", "steps"))]
    equal = [name for name in first if digests[name] == digests.get(name.replace(", trial 1, ", ", trial 2, "))]
    return f"two trials with different seeds have the same digest: {equal[0]}" if equal else None


# --- probes


def check_constant_predictors(config: Config, dataset: Dataset) -> Check:
    """Two trials that answer every place alike have a PD of 0, and must be flagged; two that know the text must not."""
    labels, characters = dataset.windows.targets.flatten(), dataset.vocab_size
    frequencies = {name: torch.bincount(text, minlength=characters) + 1.0 for name, text in _texts(dataset).items()}
    rows = {f"the frequencies of the {name} text": counts.log() for name, counts in frequencies.items()}
    rows |= {"all characters alike": torch.zeros(characters), "one character": 20 * F.one_hot(labels[0], characters).float()}
    missed = [name for name, row in rows.items() if not _is_flagged(row.expand(len(labels), -1), config, dataset)]
    problem = f"two trials that always answer {missed[0]} are not flagged" if missed else None
    if _is_flagged(20 * F.one_hot(labels, characters).float(), config, dataset):
        problem = problem or "two trials that know the text are flagged as if they had learnt nothing"
    return _check("constant predictor", problem, f"{len(rows)} that answer every place alike are flagged, with their PD of 0")


def _texts(dataset: Dataset) -> dict[str, Tensor]:
    return {"training": dataset.train, "evaluation": dataset.windows.targets.flatten()}


def _is_flagged(logits: Tensor, config: Config, dataset: Dataset) -> bool:
    """Whether a cell of two trials that both predict these logits (tokens, V) is flagged as having learnt nothing."""
    labels = dataset.windows.targets.flatten()
    predictions = [Predictions(logits.numpy(), labels.numpy(), dataset.windows.sha256)] * TRIALS
    digest = "0" * 64
    records = [
        TrialRecord(
            trial=k + 1,
            seed=config.seed + k,
            train_loss_curve=[],
            val_loss_curve=[],
            val_loss=cross_entropy(logits, labels),
            val_accuracy=100 * (1 - error_rate(logits, labels)),
            seconds=0.0,
            init_sha256=digest,
            weights_sha256=digest,
            predictions_sha256=digest,
            steps_sha256=None,
        )
        for k in range(TRIALS)
    ]
    full = config.with_corpus(dataset.vocab_size)
    flags = summarise(KILLED_MODEL, ACTIVATION, full, digest, dataset, records, predictions).flags
    return any(flag.startswith(("untrained: ", "constant: ")) for flag in flags)


def check_causality(device: str) -> Check:
    """Changing a character must leave all logits before it bit-equal, for every registered model at its full size."""
    problems = [f"{model} {problem}" for model in model_names() if (problem := _leak(_lively_model(model, device)))]
    said = f"in {len(model_names())} models a changed character leaves all logits before it as they were, bit by bit"
    return _check("causality", problems[0] if problems else None, said)


@torch.no_grad()
def _lively_model(model: str, device: str) -> nn.Module:
    """A model in which every weight has a say: branches that start at zero would hide what they pass on."""
    config = Config.for_model(model, vocab_size=_CHARACTERS, block_size=_CONTEXT, device=device)
    built, generator = build_model(model, config, ACTIVATION).eval(), torch.Generator().manual_seed(0)
    for parameter in built.parameters():
        parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator).to(device))
    return built


@torch.no_grad()
def _leak(model: nn.Module) -> str | None:
    """What is wrong with how a model sees its text; None if nothing is."""
    device = next(model.parameters()).device
    text = torch.randint(_CHARACTERS, (_CONTEXT,), generator=torch.Generator().manual_seed(1))
    texts = text.repeat(len(_CHANGED), 1)  # (B, T), one changed character in each
    with deterministic_arithmetic():
        before = model(texts.to(device)).cpu()  # (B, T, V)
        for row, place in enumerate(_CHANGED):
            texts[row, place] = (texts[row, place] + 1) % _CHARACTERS
        after = model(texts.to(device)).cpu()
    for row, place in enumerate(_CHANGED):
        if not torch.equal(before[row, :place], after[row, :place]):
            return f"sees character {place} before its time"
        if torch.equal(before[row, place:], after[row, place:]):
            return f"does not see character {place} at all"
    return None


# --- what it costs


def measure_slowdown(config: Config, dataset: Dataset, rounds: int = 5, steps: int = 20) -> float:
    """Seconds of training steps with deterministic algorithms over seconds without: of ``rounds`` alternating ones the medians.

    Of the model at its full size, on the device of ``config``, whatever else that changes.
    """
    full = Config.for_model(KILLED_MODEL, corpus=config.corpus, device=config.device).with_corpus(dataset.vocab_size)
    streams = streams_for_trial(full.seed, device=full.device)
    model = build_model(KILLED_MODEL, full, ACTIVATION, streams=streams)
    optimizer = make_optimizer(model, full)

    def seconds(deterministic: bool) -> float:
        with deterministic_arithmetic() if deterministic else contextlib.nullcontext():
            _wait_for(full.device)
            started = time.perf_counter()
            for iteration in range(1, steps + 1):
                batch = dataset.batch(full.batch_size, full.block_size, streams.order)
                training_step(model, optimizer, *batch, iteration, full)
            _wait_for(full.device)
            return time.perf_counter() - started

    taken: dict[bool, list[float]] = {True: [], False: []}
    for k in range(rounds + 1):
        for deterministic, times in taken.items():
            spent = seconds(deterministic)
            if k:  # in the first round libraries load and caches fill
                times.append(spent)
    return statistics.median(taken[True]) / statistics.median(taken[False])


def _wait_for(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
