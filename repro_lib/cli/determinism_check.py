"""``repro doctor --determinism``: does this machine give the same bits every time? Trainings and probes; nothing is kept."""

# Every training is what the grid does, ``run_experiment`` in the grid's own pool of workers; only small.

import contextlib
import io
import os
import signal
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console

from repro_lib.config import Config
from repro_lib.data import prepare_corpus
from repro_lib.grid.pool import Pool, Task
from repro_lib.grid.worker_process import End
from repro_lib.models.determinism import deterministic_arithmetic
from repro_lib.models.registry import build_model, model_names
from repro_lib.store.parts import digest_of
from repro_lib.store.schema import TENSOR_KINDS
from repro_lib.store.store import Store
from repro_lib.system.temporary import scratch_folder
from repro_lib.training.cell import check_device
from repro_lib.training.checkpoints import CHECKPOINT_SECONDS
from repro_lib.training.experiment import run_experiment
from repro_lib.training.progress import Progress

ACTIVATION, ITERATIONS = "swiglu", 12
# The cell that is killed, for convolution, attention, dropout and a gate in one; and where, in (trial, iteration): late
# enough that both a finished trial and the state of a half-trained one have to be found again.
KILLED_MODEL, KILLED_AT = "hybridlm", (2, 7)
# The causality probe changes these of so many characters: close ones, the last, and such as a dilated convolution skips.
_CHANGED, _CONTEXT, _CHARACTERS = (1, 2, 3, 7, 16, 33, 62, 63), 64, 65
Place = tuple[int, int]

# What is expected of a machine, in words, with what was found instead; None where it is so.
Findings = dict[str, str | None]


def check_determinism(console: Console, corpus: str, device: str, workers: int) -> int:
    """Train cells one at a time and ``workers`` (2 or more) at once, print what was compared; 0 if all is well, 1 if not.
    Raises ConfigError or CorpusError for a device or a corpus that is not there."""
    sizes = {"corpus": corpus, "device": device, "trials": 2, "max_iters": ITERATIONS}
    configs = {model: Config.for_model(model, "smoke", **sizes) for model in model_names()}
    check_device(configs[KILLED_MODEL])
    prepare_corpus(corpus)
    with scratch_folder() as folder, console.status("training small cells, killing one, comparing digests"):
        findings = train_in_many_ways(folder, configs, workers)
        for name, digest in digests_of(folder / "alone").items():
            console.print(f"      {digest[:12]}  {name}")
    findings |= probe_causality(device)
    for expected, problem in findings.items():
        console.print(f"FAIL  {problem}" if problem else f"ok    {expected}")
    failed = any(findings.values())
    console.print(f"torch {torch.__version__} on {device}: {'NOT ' if failed else ''}the same bits every time")
    return int(failed)


def train_in_many_ways(folder: Path, configs: Mapping[str, Config], workers: int) -> Findings:
    """Train every cell with one worker, then with many at once, then one cell killed and resumed; compare all digests."""
    one = {KILLED_MODEL: configs[KILLED_MODEL]}
    with contextlib.closing(Pool(1)) as pool:
        failed = _train(pool, folder / "alone", configs, "done")
    with contextlib.closing(Pool(workers)) as pool:
        failed = failed or _train(pool, folder / "at-once", configs, "done")
        lost = _train(pool, folder / "killed", one, "killed", killed_at=KILLED_AT)
        lost = lost or _train(pool, folder / "killed", one, "done", begins_at=KILLED_AT)
    alone, at_once, killed = (digests_of(folder / name) for name in ("alone", "at-once", "killed"))
    own = {name: digest for name, digest in alone.items() if name.startswith(f"{KILLED_MODEL} ")}
    weights = [digest for name, digest in alone.items() if name.endswith("weights")]
    # Digests that never differ would prove nothing: those of trials with other seeds must.
    alike = "trials with different seeds have the same weights" if len(set(weights)) < len(weights) else None
    same = f"{len(alone)} digests of {len(configs)} cells are the same from one process and from {workers} at once"
    resumed = f"{KILLED_MODEL}, killed by SIGKILL and resumed, has the same {len(own)} digests as undisturbed"
    return {same: failed or alike or difference(alone, at_once), resumed: lost or difference(own, killed)}


def _train(pool: Pool, folder: Path, configs: Mapping[str, Config], end: End, **places: Place) -> str | None:
    for model, config in configs.items():
        # No training of this size takes 300 seconds.
        pool.submit(Task(model, train, {"model": model, "config": config, "folder": folder, **places}, 300.0))
    outcomes = []
    while pool.busy:
        outcomes += pool.step(timeout=0.5)
    return next((f"{o.task.key} should be {end}, was {o.end}: {o.said}" for o in outcomes if o.end != end), None)


def train(model: str, config: Config, folder: Path, killed_at: Place | None = None, begins_at: Place | None = None) -> None:
    """A worker's task: train a cell; with ``killed_at`` end this very process in that (trial, iteration) with SIGKILL."""
    places: list[Place] = []

    def watch(now: Progress) -> None:
        places.append((now.trial, now.iteration))
        if places[-1] == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)

    # Where it will be killed each iteration is saved: there must be something to go on from.
    seconds = 0.0 if killed_at else CHECKPOINT_SECONDS
    with contextlib.redirect_stdout(io.StringIO()) as said:
        run_experiment(model, ACTIVATION, config, results_dir=folder, progress=watch, checkpoint_seconds=seconds)
    # Equal digests do not show that a killed training was gone on with: one from the first iteration on has them too.
    if begins_at and places[:1] != [begins_at]:
        raise RuntimeError(f"it did not go on from trial {begins_at[0]}, iteration {begins_at[1]}; {said.getvalue().strip()}")


def digests_of(results_dir: Path) -> dict[str, str]:
    """Each digest of each trial in a results folder, and one of all the other numbers of each cell."""
    digests = {}
    for _, result in Store(results_dir).load()[0]:
        cell = f"{result.model_name} with {result.activation}"
        for record in result.trials:
            digests |= {f"{cell}, trial {record.trial}, {kind}": record[f"{kind}_sha256"] for kind in ("init", *TENSOR_KINDS)}
        # Curves, losses, metrics: all but when it was and how long it took.
        numbers = result.model_dump(mode="json", exclude={"timestamp": True, "trials": {"__all__": {"seconds"}}})
        digests[f"{cell}, numbers"] = digest_of(numbers)
    return digests


def difference(expected: Mapping[str, str], found: Mapping[str, str]) -> str | None:
    """A sentence if two trainings differ in a digest, or one of them lacks it."""
    names = [name for name in {**expected, **found} if expected.get(name) != found.get(name)]
    return f"{len(names)} of {len(expected)} digests of the same training differ, the first: {names[0]}" if names else None


@torch.no_grad()
def probe_causality(device: str) -> Findings:
    """Changing a character must leave all logits before it bit-equal, for every registered model at its full size."""
    text = torch.randint(_CHARACTERS, (_CONTEXT,), generator=torch.Generator().manual_seed(1))
    # (B, T), with one changed character in each row of the second.
    texts = text.repeat(len(_CHANGED), 1)
    other, problems = (texts + F.one_hot(torch.tensor(_CHANGED), _CONTEXT)) % _CHARACTERS, []
    for name in model_names():
        config = Config.for_model(name, vocab_size=_CHARACTERS, block_size=_CONTEXT, device=device)
        model, generator = build_model(name, config, ACTIVATION).eval(), torch.Generator().manual_seed(0)
        # Every weight has a say: branches that start at zero would hide what they pass on.
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator).to(device))
        with deterministic_arithmetic():
            before, after = (model(batch.to(device)).cpu() for batch in (texts, other))  # (B, T, V)
        differs = (before != after).any(dim=2)  # (B, T)
        for k, row in zip(_CHANGED, differs, strict=True):
            problems += [f"{name} sees character {k} before its time"] if row[:k].any() else []
            problems += [f"{name} does not see character {k} at all"] if not row.any() else []
    expected = f"in {len(model_names())} models a changed character leaves all logits before it as they were, bit by bit"
    return {expected: next(iter(problems), None)}
