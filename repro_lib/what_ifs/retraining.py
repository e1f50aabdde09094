"""Train two trials small and watch their loss and their disagreement; it can be stopped at any step.

It goes through the suite's own trainer. The second trial follows the first, so that their predictions after the same steps
can be compared as they come.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from repro_lib import metrics
from repro_lib.analysis import Study
from repro_lib.config import Config, ConfigError
from repro_lib.data import CorpusError, load_dataset
from repro_lib.notes import Note
from repro_lib.progress import Progress
from repro_lib.schema import ResultError
from repro_lib.store import Store
from repro_lib.training import TrainingDiverged, train_trial
from repro_lib.trajectories import Trajectory, trajectory
from repro_lib.what_ifs.definition import View
from repro_lib.what_ifs.lines import Axis, Line, LinePanel
from repro_lib.what_ifs.wording import nothing_yet

TITLE = "Train two trials yourself"
HOW = "Run this cell in JupyterLab to train your own, with a stop button: jupyter lab notebooks/50_what_if.ipynb"
MEASURES = ("total_variation", "churn")
_COLOURS = ("#0072B2", "#D55E00")
_DASHES = ("", "6 3")


class _Stopped(Exception):
    """Somebody pressed stop."""


@dataclass
class Watched:
    """What is known of two trials so far: their training losses and, at kept steps, how much their predictions differ."""

    cell: str
    max_iters: int
    losses: tuple[list[tuple[int, float]], ...] = field(default_factory=lambda: ([], []))
    differences: list[tuple[int, dict[str, float]]] = field(default_factory=list)

    def view(self, sentence: str) -> View:
        """Loss by iteration and disagreement by step."""
        return View((self._losses(), self._differences()), sentence)

    def sentence(self) -> str:
        """How far both are."""
        ends = [f"trial {k} {curve[-1][1]:.3f} nats after {curve[-1][0]}" for k, curve in enumerate(self.losses, 1) if curve]
        said = f"{self.cell}: training loss of {' and '.join(ends) or 'nothing yet'} of {self.max_iters} steps"
        if self.differences:
            step, values = self.differences[-1]
            numbers = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in values.items())
            said += f"; after step {step} the two trials disagree: {numbers}"
        return f"{said}. Two trials make one pair, so there is no interval."

    def _losses(self) -> LinePanel:
        seen = [loss for curve in self.losses for _, loss in curve] or [4.5, 2.0]
        lines = tuple(
            Line(f"trial {k + 1}", [float(i) for i, _ in curve], [loss for _, loss in curve], _COLOURS[k], _DASHES[k])
            for k, curve in enumerate(self.losses)
            if curve
        )
        ends = ", ".join(f"{line.label} {line.y[-1]:.3f}" for line in lines)
        y = Axis("nats per character", min(seen) - 0.1, max(seen) + 0.1)
        return LinePanel("Training loss", Axis("step", 0, self.max_iters), y, ends or "nothing yet", lines)

    def _differences(self) -> LinePanel:
        steps = [float(step) for step, _ in self.differences]
        lines = tuple(
            Line(name.replace("_", " "), steps, [values[name] for _, values in self.differences], _COLOURS[k], _DASHES[k], True)
            for k, name in enumerate(MEASURES)
            if steps
        )
        told = "; ".join(f"step {step} " + ", ".join(f"{v:.3f}" for v in values.values()) for step, values in self.differences)
        x = Axis("step (spread evenly on a log scale)", 1, max(self.max_iters, 2), log=True)
        return LinePanel("Disagreement of the two trials", x, Axis("0 to 1", 0, 1), told or "nothing yet", lines)


class Retraining:
    """Two trials being trained in a thread of their own; ``changed`` is called from it whenever there is something new.

    While it runs torch computes with one thread in the whole process, as everywhere in the suite.
    """

    def __init__(
        self, model: str, activation: str, iterations: int, changed: Callable[[Retraining], None], **values: Any
    ) -> None:
        self.watched = Watched(f"{model} with {activation}", iterations)
        self.state = "running"
        self._asked = (model, activation, iterations, values)
        self._changed = changed
        self._kept: dict[int, Tensor] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="retraining", daemon=True)

    def start(self) -> None:
        """Begin; errors end up in ``state`` as a sentence."""
        self._thread.start()

    def stop(self) -> None:
        """End after the present step; what was seen stays."""
        self._stop.set()

    def wait(self, seconds: float | None = None) -> None:
        """Until it has ended, or so many seconds."""
        self._thread.join(seconds)

    @property
    def running(self) -> bool:
        """Whether it still trains."""
        return self.state == "running"

    def view(self) -> View:
        """What there is to see now."""
        said = self.watched.sentence()
        return self.watched.view(said if self.state in ("running", "done") else f"{said} {self.state}")

    def _work(self) -> None:
        model, activation, iterations, values = self._asked
        try:
            warmup = min(10, max(1, iterations // 4))
            asked = {"max_iters": iterations, "warmup_iters": warmup, "eval_interval": iterations, "trials": 2}
            config = Config.for_model(model, "quick", **asked | values)
            dataset = load_dataset(config)
            config = config.with_corpus(dataset.vocab_size)
            for trial in (1, 2):
                trained = train_trial(model, activation, config, dataset, trial, self._progress)
                self._compare(trial, trained.steps[-1], trained.step_logits[-1])
            self.state = "done"
        except _Stopped:
            self.state = "Stopped."
        except (ConfigError, CorpusError, TrainingDiverged, ValueError) as problem:
            self.state = f"It ended: {problem}."
        self._changed(self)

    def _progress(self, progress: Progress) -> None:
        if self._stop.is_set():
            raise _Stopped
        self.watched.losses[progress.trial - 1].append((progress.iteration, progress.train_loss))
        if progress.kept is not None:
            self._compare(progress.trial, progress.iteration, progress.kept.flatten(0, 1))
        self._changed(self)

    def _compare(self, trial: int, step: int, logits: Tensor) -> None:
        """Remember the first trial's predictions (tokens, V); compare the second's with them."""
        if trial == 1:
            self._kept[step] = logits
            return
        first, second = (metrics.probabilities_from_logits(seen) for seen in (self._kept[step], logits))
        values = {name: metrics.PAIR_METRICS[name](first, second) for name in MEASURES}
        self.watched.differences.append((step, values))


def recorded_training(store: Store, study: Study) -> Watched | Note:
    """The same picture of the first two trials of a stored cell, for where nothing can be trained."""
    if not study.results:
        return nothing_yet(f"{TITLE}:")
    problem = "it needs a cell with two trials"
    for result in study.results:
        try:
            return _watched(trajectory(store, result))
        except ResultError as error:
            problem = str(error).replace(f"{store.folder}/", "")
    return Note(f"{TITLE}: nothing was recorded, for {problem}. {HOW}")


def _watched(followed: Trajectory) -> Watched:
    result = followed.result
    losses = tuple(list(trial.train_loss_curve) for trial in result.trials[:2])
    differences = [
        (step, {name: float(followed.matrices[name][place, 0, 1]) for name in MEASURES})
        for place, step in enumerate(followed.steps)
        if step > 0
    ]
    return Watched(f"{result.model_name} with {result.activation}", followed.max_iters, losses, differences)
