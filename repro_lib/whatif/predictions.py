"""Stored predictions for what-ifs: the logits of a model's cells, as much of the text as a quick redraw allows, compared fast.

The comparisons are those of ``repro_lib.metrics`` in float32 wherever its range allows, several times as fast and equal to
six digits (tested). Shapes: N trials, V characters, tokens of the evaluation text."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from repro_lib.analysis.notes import Note
from repro_lib.analysis.slices import parts
from repro_lib.analysis.study import Study
from repro_lib.data import EVALUATION_BLOCK
from repro_lib.metrics.uncertainty import Estimate
from repro_lib.models.determinism import deterministic_arithmetic
from repro_lib.store.schema import Result, ResultError
from repro_lib.store.store import Store
from repro_lib.whatif.definition import Parameter, Row, Value, View, WhatIf, control
from repro_lib.whatif.wording import cell_name, reach, unanswered

Floats = NDArray[np.floating]
# Probabilities compared for one value, over all pairs of all cells of a model: about 20 ms, for a page makes seventy of them.
# 15 pairs of half the text fit.
MOST_COMPARED = 10_000_000
# Of the text at least so many blocks, for one is part of a scene: with 20 trials of five cells a value then takes 60 ms.
FEWEST_BLOCKS = 4
# Logits that spread no wider than this have probabilities well inside float32; others are taken in float64.
WIDEST = 80.0


@dataclass(frozen=True, eq=False)
class CellLogits:
    """A cell's ``logits`` (N, tokens, V) float32 and the true characters' ``labels`` (tokens,)."""

    activation: str
    logits: Tensor
    labels: Tensor

    @property
    def n(self) -> int:
        """Number of trials."""
        return len(self.logits)

    @cached_property
    def _spread(self) -> float:
        return float(self.logits.max() - self.logits.min())

    def probabilities(self, part: slice = slice(None), temperature: float = 1.0) -> Floats:
        """softmax(logits / temperature) of a part of the text, (N, part, V)."""
        logits = self.logits[:, part]
        # Beyond this spread float32 rounds the smallest probabilities to 0, and they make most of relative PD.
        if self._spread / temperature > WIDEST:
            logits = logits.double()
        return (logits / temperature).softmax(dim=-1).numpy()


@dataclass(frozen=True, eq=False)
class ModelLogits:
    """The cells of a model on every ``step``-th evaluation block; ``left_out``: a sentence per cell that cannot be shown."""

    cells: tuple[CellLogits, ...]
    step: int
    left_out: tuple[str, ...]

    def where(self) -> str:
        """On which text the numbers are, for a sentence."""
        tokens = len(self.cells[0].labels)
        if self.step == 1:
            return f"on all {tokens:,} evaluation characters"
        ending = {1: "st", 2: "nd", 3: "rd"}.get(self.step if self.step < 20 else self.step % 10, "th")
        return f"on {tokens:,} evaluation characters (every {self.step}{ending} block)"

    def told(self, sentence: str, counts: Iterable[int] = ()) -> str:
        """A sentence about these cells, how far it carries, and which cells it is not about. ``counts``: of fewer trials."""
        return " ".join([sentence, reach(list(counts) or [cell.n for cell in self.cells]), *self.left_out])


class StoredPredictions:
    """The stored predictions of a study's cells with at least two trials, read model by model when needed, and kept."""

    def __init__(self, store: Store, study: Study) -> None:
        self.store, self.study = store, study
        self._models: dict[str, ModelLogits] = {}

    def models(self, least: int = 2) -> list[str]:
        """The models of which a cell with at least so many trials can be read."""
        return [model for model in self.study.models if any(cell.n >= least for cell in self.of(model).cells)]

    def of(self, model: str) -> ModelLogits:
        """The cells of one model; none where nothing is there."""
        if model not in self._models:
            results = [self.study.result(model, activation) for activation in self.study.activations]
            self._models[model] = self._read([r for r in results if r and not r.synthetic and len(r.trials) > 1])
        return self._models[model]

    def missing(self, title: str, least: int = 2) -> Note:
        """What to say where no model can be shown."""
        most = max((len(result.trials) for result in self.study.results), default=0)
        gaps = [gap for model in self.study.models for gap in self.of(model).left_out]
        needs = " ".join(["It needs the stored predictions of the trials.", *gaps[:1]])
        if most < least:
            needs = f"It needs N >= {least} trials per cell, here N = {most}; run: repro grid --trials {least}"
        return unanswered(title, self.study, needs)

    def _read(self, results: Sequence[Result]) -> ModelLogits:
        if not results:
            return ModelLogits((), 1, ())
        step = sampling_step([len(r.trials) for r in results], results[0].evaluation.tokens, results[0].config["vocab_size"])
        cells, left_out = [], []
        for result in results:
            # One lost file costs one cell, not the question.
            try:
                trials = [self.store.predictions(result, record.trial) for record in result.trials]
            except ResultError as problem:
                # Files are named from the results folder on: a report says nothing about the machine.
                why = str(problem).replace(f"{self.store.folder}/", "")
                left_out.append(f"{cell_name(result)} is left out: {why}.")
                continue
            logits = torch.stack([every_block(torch.from_numpy(trial.logits), step) for trial in trials])
            cells.append(CellLogits(result.arm, logits, every_block(torch.from_numpy(trials[0].labels), step)))
        return ModelLogits(tuple(cells), step, tuple(left_out))


# By measure and activation.
Numbers: TypeAlias = Mapping[str, Mapping[str, Estimate]]


def of_predictions(
    name: str,
    title: str,
    predictions: StoredPredictions,
    parameter: Parameter,
    see: Callable[[ModelLogits, str, Any], tuple[Numbers, str]],
    missing: str = "missing",
    least: int = 2,
    **more: Any,
) -> WhatIf | Note:
    """A what-if over the models with ``least`` trials: ``see`` gives numbers and a sentence for cells, their model and a value.
    A measure that ends with % is given as a share."""
    models = predictions.models(least)
    if not models:
        return predictions.missing(title, least)

    def view(model: str, **values: Value) -> View:
        numbers, sentence = see(predictions.of(model), model, values[parameter.name])
        looks = {measure: (100, 1) if measure.endswith("%") else (1, 3) for measure in numbers}
        rows = [
            Row(activation, number.scaled(looks[measure][0]), measure, looks[measure][1], missing)
            for measure, cells in numbers.items()
            for activation, number in cells.items()
        ]
        return View(rows, sentence)

    return WhatIf.of(name, title, (control("model", "Model", models), parameter), view, **more)


def sampling_step(trials: Sequence[int], tokens: int, vocab_size: int) -> int:
    """Every how many-th block can be compared in one redraw, given the numbers of trials of the cells."""
    step = math.ceil(sum(math.comb(n, 2) for n in trials) * tokens * vocab_size / MOST_COMPARED)
    return max(1, min(step, tokens // EVALUATION_BLOCK // FEWEST_BLOCKS))


def every_block(values: Tensor, step: int) -> Tensor:
    """Every ``step``-th block of 256 along the first dimension (tokens, ...)."""
    if step == 1:
        return values
    blocks = values[: len(values) // EVALUATION_BLOCK * EVALUATION_BLOCK].unflatten(0, (-1, EVALUATION_BLOCK))
    # A copy: a view would keep all of the text in memory.
    return blocks[::step].flatten(0, 1).clone()


class Compared(NamedTuple):
    """N trials against each other, (N, N) per metric, and ``true`` (N,): each one's mean probability of the true character."""

    relative_pd: NDArray[np.float64]
    total_variation: NDArray[np.float64]
    true: NDArray[np.float64]


@deterministic_arithmetic()
def compare_trials(cell: CellLogits, temperature: float = 1.0) -> Compared:
    """Compare the trials of a cell with their logits divided by a temperature."""
    n, tokens, _ = cell.logits.shape
    relative, variation, true = np.zeros((n, n)), np.zeros((n, n)), np.zeros(n)
    for part in parts(tokens):
        p, labels = torch.from_numpy(cell.probabilities(part, temperature)), cell.labels[part]
        true += p[:, torch.arange(len(labels)), labels].sum(dim=-1, dtype=torch.float64).numpy() / tokens
        # In place, for a page asks a thousand times: fresh arrays and looking at each anew would take twice as long.
        difference, total = torch.empty((2, *p.shape[1:]), dtype=p.dtype)
        for i, j in combinations(range(n), 2):
            torch.sub(p[i], p[j], out=difference).abs_()
            variation[i, j] += difference.sum().item() / 2 / tokens
            # Where both are 0 they agree, and 0/0 would be no number.
            total = torch.add(p[i], p[j], out=total).clamp_min_(torch.finfo(p.dtype).tiny)
            relative[i, j] += 2 * difference.div_(total).sum().item() / (tokens * p.shape[-1])
    return Compared(relative + relative.T, variation + variation.T, true)
