"""The disagreement of a study's cells taken apart, into slices of the text and swapped characters."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from repro_lib.analysis import slices
from repro_lib.analysis.frames import pair_matrix
from repro_lib.analysis.slices import PairedTrials, slice_frame, swapped_pairs
from repro_lib.analysis.stored_models import training_counts
from repro_lib.analysis.study import Study
from repro_lib.data import CorpusError
from repro_lib.metrics.churn_and_influence import ChurnAndError, churn_and_error
from repro_lib.store.derived import derived
from repro_lib.store.schema import Result, ResultError
from repro_lib.store.store import Store

HEADS = {
    "frequency": "Frequency in the training text",
    "context": "Characters of context",
    "confidence": "Mean largest probability",
    "class": "Kind of character",
}
KINDS = ("rare", "uncertain")


# What the slicings must know of the text: its characters (V,) and their shares in the training part (V,).
TrainingText = tuple[tuple[str, ...], NDArray[np.float64]]


@dataclass(frozen=True)
class CellAnatomy:
    """One cell of ``n`` trials taken apart.

    ``slices``: ``slice_frame`` of the four slicings of ``HEADS``, one below the other; ``kinds``: the same for the characters
    of ``KINDS``. ``swaps``: ``swapped_pairs``, with the characters themselves in ``first`` and ``second``."""

    model: str
    activation: str
    n: int
    slices: pd.DataFrame
    kinds: pd.DataFrame
    swaps: pd.DataFrame


@dataclass(frozen=True)
class Gap:
    """A cell that could not be taken apart: in ``words`` short enough for a figure, and the ``reason`` in full."""

    model: str
    activation: str
    words: str
    reason: str


@dataclass(frozen=True)
class Anatomies:
    """The cells of a study (of some models) that could be taken apart, and the others, both in the study's order."""

    cells: tuple[CellAnatomy, ...]
    gaps: tuple[Gap, ...]

    def cell(self, model: str, activation: str) -> CellAnatomy | None:
        """The anatomy of one cell, or None where there is none."""
        return next((cell for cell in self.cells if (cell.model, cell.activation) == (model, activation)), None)

    def sentence(self) -> str:
        """Which cells are left out, and why: one line per reason, with the first of equal reasons in full."""
        if not self.gaps:
            return ""
        lines = []
        # A line per cell would be a page long where nothing is there.
        for words in dict.fromkeys(gap.words for gap in self.gaps):
            alike = [gap for gap in self.gaps if gap.words == words]
            by_model = {gap.model: [other.activation for other in alike if other.model == gap.model] for gap in alike}
            named = "; ".join(f"{model} with {', '.join(activations)}" for model, activations in by_model.items())
            lines.append(f"Not taken apart: {named} ({alike[0].reason}).")
        return "\n".join(lines)


def dissect(store: Store, study: Study, models: Sequence[str] | None = None) -> Anatomies:
    """Take every expected cell (of ``models``) apart, one at a time: only its float32 logits are in memory at once."""
    texts: dict[tuple[str, float], TrainingText] = {}
    found = [
        _dissect_cell(store, study.result(model, activation), texts, model, activation)
        for model in (models if models is not None else study.models)
        for activation in study.activations
    ]
    cells = tuple(cell for cell in found if isinstance(cell, CellAnatomy))
    return Anatomies(cells, tuple(gap for gap in found if isinstance(gap, Gap)))


def _take_apart(paired: PairedTrials, text: TrainingText, block_size: int) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    # The three frames of ``CellAnatomy`` from the compared trials of a cell whose context is ``block_size``.
    vocabulary, frequencies = text
    frequency, confidence = slices.by_frequency(paired.labels, frequencies), slices.by_confidence(paired.confidence)
    context, kind = slices.by_context(len(paired.labels), block_size), slices.by_class(paired.labels, vocabulary)
    slicings = (frequency, context, confidence, kind)
    # Whole slices put together, so that the two kinds add up from what the tables show.
    chosen = ((frequency, slices.RARE), (confidence, slices.UNCERTAIN))
    merged = [slices.merged_slices(*several, name) for several, name in zip(chosen, KINDS, strict=True)]
    kinds = [slice_frame(paired, slicing).iloc[:1] for slicing in merged]
    swaps = swapped_pairs(paired)
    named = {column: [vocabulary[i] for i in swaps[column]] for column in ("first", "second")}
    frames = [slice_frame(paired, slicing) for slicing in slicings]
    return pd.concat(frames, ignore_index=True), pd.concat(kinds, ignore_index=True), swaps.assign(**named)


def training_text(result: Result) -> TrainingText:
    """The text a result was trained on; CorpusError if it is not here or has changed."""
    # The training part alone: what a model could learn, not what it is scored on.
    vocabulary, counts = training_counts(result)
    return vocabulary, counts / counts.sum()


def _dissect_cell(
    store: Store, result: Result | None, texts: dict[tuple[str, float], TrainingText], model: str, activation: str
) -> CellAnatomy | Gap:
    if result is None:
        return Gap(model, activation, "missing", "there is no result yet; run ./run_papermill.sh")
    if len(result.trials) < 2:  # said before anything is read, for it needs no file
        alone = "one trial only, so there is nothing to compare; run the cell with --trials 3"
        return Gap(model, activation, "one trial", alone)
    # Cells of one study share their text: it is read and counted once.
    key = result.corpus.sha256, result.config["train_split"]

    def frames() -> list[dict[Any, Any]]:
        if key not in texts:
            texts[key] = training_text(result)
        paired = slices.pair_trials([store.predictions(result, trial.trial) for trial in result.trials])
        return [frame.to_dict("list") for frame in _take_apart(paired, texts[key], result.config["block_size"])]

    # The notebook of the model shows it, and that of all models.
    name = f"slices-{model}-{activation}-{result.config_sha256[:12]}"
    trials = [trial.predictions_sha256 for trial in result.trials]
    try:
        found = derived(store.folder, name, [trials, result.evaluation.sha256, *key, result.config["block_size"]], frames)
    except (ResultError, CorpusError) as problem:
        return Gap(model, activation, "no predictions", str(problem))
    return CellAnatomy(model, activation, len(trials), *map(pd.DataFrame, found))


def churn_against_error(result: Result) -> ChurnAndError:
    """``churn_and_influence.churn_and_error`` of a result; it needs no predictions."""
    return churn_and_error(pair_matrix(result, "churn"), [1 - trial.val_accuracy / 100 for trial in result.trials])
