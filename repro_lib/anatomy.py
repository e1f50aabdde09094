"""One cell looked at closely: what the model is made of, where in the text its trials disagree, what they write.

The views at the end return something a notebook shows as HTML, in light and dark; where predictions, weights or the
text are not at hand they return a sentence that says so.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations, takewhile

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from repro_lib.analysis import Study
from repro_lib.config import Config
from repro_lib.data import EVALUATION_BLOCK, Corpus, CorpusError, load_corpus
from repro_lib.findings import Note
from repro_lib.models import build_model
from repro_lib.predictions import Predictions
from repro_lib.sampling import config_of, write_samples
from repro_lib.schema import Result, ResultError
from repro_lib.store import Store

Float64 = NDArray[np.float64]

# From this total variation on: (words, inline style). Never colour alone: the underline says the same. The text keeps
# the page's colour and the backgrounds are half transparent, so that both light and dark pages stay readable.
LEVELS = (
    (0.50, "0.50 and more", "background:rgba(230,120,0,.60);text-decoration:underline double"),
    (0.25, "0.25 to 0.50", "background:rgba(230,120,0,.38);text-decoration:underline"),
    (0.10, "0.10 to 0.25", "background:rgba(230,120,0,.18);text-decoration:underline dotted"),
)
# Bold, in a fixed-width font, so that nothing moves.
DIFFERENT_TOP1 = "font-weight:bold"
TEXT_STYLE = "white-space:pre-wrap;font-family:monospace;line-height:1.7;margin:0.5em 0"


@dataclass(frozen=True)
class Disagreement:
    """How much the trials of a cell disagree about each evaluation character.

    ``labels``: (tokens,) the characters' ids. ``top1``: (tokens,) share of the pairs of trials whose most probable
    character differs; its mean is the churn. ``total_variation``: (tokens,) mean over the pairs; its mean is the metric.
    """

    labels: NDArray[np.int64]
    top1: Float64
    total_variation: Float64

    def typical_block(self) -> int:
        """The block of 256 characters whose total variation is the median one: neither the best nor the worst."""
        blocks = len(self.labels) // EVALUATION_BLOCK
        means = self.total_variation[: blocks * EVALUATION_BLOCK].reshape(blocks, EVALUATION_BLOCK).mean(axis=1)
        return int(np.argsort(means, kind="stable")[(blocks - 1) // 2])

    def sentence(self) -> str:
        """How the disagreement is spread over the text, in words."""
        ranked = np.sort(self.total_variation)[::-1]
        tenth = ranked[: max(1, len(ranked) // 10)].sum() / max(ranked.sum(), np.finfo(float).tiny)
        return (
            f"For {100 * np.mean(self.top1 > 0):.1f} % of the {len(self.top1):,} evaluation characters the trials do not all "
            "have the same most probable character; the tenth of the characters with the most disagreement holds "
            f"{100 * tenth:.0f} % of the total variation."
        )


@dataclass(frozen=True)
class Passage:
    """A piece of the evaluation text and, per character, how much the trials disagree about it; shown as HTML."""

    title: str
    text: str
    top1: Float64
    total_variation: Float64
    pairs: int
    about: str

    def __repr__(self) -> str:
        return f"{self.title}. {self.about}"

    def _repr_html_(self) -> str:
        characters = "".join(map(self._character, self.text, self.total_variation, self.top1))
        samples = [f'<span style="{style}">{words}</span>' for _, words, style in reversed(LEVELS)]
        legend = (
            "Total variation of a character's probabilities, mean over the pairs of trials: below 0.10 unmarked, "
            f'{", ".join(samples)}. <span style="{DIFFERENT_TOP1}">Bold</span>: the most probable character differs '
            "between some trials. ⏎ is the end of a line. Point at a character for its numbers."
        )
        return (
            f'<figure style="margin:1em 0"><figcaption><strong>{html.escape(self.title)}</strong>'
            f"<br>{html.escape(self.about)}<br>{legend}</figcaption>"
            f'<div style="{TEXT_STYLE}">{characters}</div></figure>'
        )

    def _character(self, character: str, total_variation: float, top1: float) -> str:
        style = next((style for threshold, _, style in LEVELS if total_variation >= threshold), "")
        if top1 > 0:
            style = f"{style};{DIFFERENT_TOP1}".lstrip(";")
        differing = round(top1 * self.pairs)
        title = f"total variation {total_variation:.2f}; most probable character differs in {differing} of {self.pairs} pairs"
        shown = "⏎\n" if character == "\n" else html.escape(character)
        return f'<span title="{title}"' + (f' style="{style}"' if style else "") + f">{shown}</span>"


@dataclass(frozen=True)
class Samples:
    """What some trials of a cell wrote after the same prompt: (greedy, sampled) per trial; shown side by side."""

    title: str
    prompt: str
    written: Sequence[tuple[str, str]]

    @property
    def common(self) -> int:
        """How many characters all greedy texts share at their beginning."""
        columns = zip(*(greedy for greedy, _ in self.written), strict=True)
        return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))

    def sentence(self) -> str:
        """Where the greedy texts part."""
        if len(self.written) < 2:
            return "One trial only: nothing to compare."
        texts = f"The greedy texts of {len(self.written)} trials"
        if self.common == len(self.written[0][0]):
            return f"{texts} are equal over all {self.common} characters."
        if self.common == 0:
            return f"{texts} part at the first character."
        return f"{texts} agree on the first {self.common} characters and part after them (underlined)."

    def __repr__(self) -> str:
        return f"{self.title}. {self.sentence()}"

    def _repr_html_(self) -> str:
        columns = []
        for trial, (greedy, sampled) in enumerate(self.written, start=1):
            same, rest = html.escape(greedy[: self.common]), html.escape(greedy[self.common :])
            marked = f'{same}<span style="{LEVELS[2][2]}">{rest}</span>' if rest else same
            columns.append(
                f'<div style="flex:1 1 16em;min-width:14em"><strong>Trial {trial}</strong>'
                f'<div style="{TEXT_STYLE}">{marked}</div><em>sampled</em>'
                f'<div style="{TEXT_STYLE}">{html.escape(sampled)}</div></div>'
            )
        return (
            f'<figure style="margin:1em 0"><figcaption><strong>{html.escape(self.title)}</strong><br>{self.sentence()} '
            "Sampled texts use the same random numbers in every trial."
            f'<br>Prompt:<div style="{TEXT_STYLE}">{html.escape(self.prompt)}</div></figcaption>'
            f'<div style="display:flex;flex-wrap:wrap;gap:1.5em">{"".join(columns)}</div></figure>'
        )


def layer_table(model: str, config: Config, activation: str) -> pd.DataFrame:
    """The layers of a model in the order they are called, with the shapes seen in one forward pass and their parameters.

    Columns: layer (repeated blocks are one row with a * for their number), type, input and output (B batch), parameters
    (of one) and times. A layer that is used as a plain matrix is not called and has no shapes.
    """
    network = build_model(model, config, activation).eval()
    shapes: dict[str, tuple[str, str]] = {}
    layers = [(name, m) for name, m in network.named_modules() if not list(m.children()) or list(m.parameters(recurse=False))]
    hooks = [layer.register_forward_hook(_shape_recorder(shapes, name)) for name, layer in layers]
    with torch.inference_mode():
        network(torch.zeros(2, config.block_size, dtype=torch.int64))
    for hook in hooks:
        hook.remove()
    layers.sort(key=_call_order([name for name, _ in layers], list(shapes)))
    rows = [
        (
            ".".join("*" if part.isdigit() else part for part in name.split(".")),
            type(layer).__name__,
            *shapes.get(name, ("–", "–")),
            sum(parameter.numel() for parameter in layer.parameters(recurse=False)),
        )
        for name, layer in layers
    ]
    columns = ["layer", "type", "input", "output", "parameters"]
    return pd.DataFrame(rows, columns=columns).groupby(columns, sort=False).size().rename("times").reset_index()


def token_disagreement(predictions: Sequence[Predictions]) -> Disagreement:
    """Per-character disagreement between N >= 2 trials. ResultError for fewer, or for different evaluation windows."""
    if len(predictions) < 2:
        raise ResultError(f"disagreement needs two trials, there is {len(predictions)}; run the cell with --trials 3")
    if len({prediction.evaluation_sha256 for prediction in predictions}) > 1:
        raise ResultError("these predictions were made on different evaluation windows, so their difference means nothing")
    labels = predictions[0].labels
    top1, total_variation, pairs = np.zeros(len(labels)), np.zeros(len(labels)), 0
    for first, second in combinations(predictions, 2):
        p, q = first.probabilities, second.probabilities  # (tokens, V)
        top1 += p.argmax(axis=1) != q.argmax(axis=1)
        total_variation += np.abs(p - q).sum(axis=1) / 2
        pairs += 1
    return Disagreement(labels, top1 / pairs, total_variation / pairs)


def passage(disagreement: Disagreement, corpus: Corpus, title: str, pairs: int, block: int) -> Passage:
    """One evaluation block (from 0) of 256 characters with its disagreement; ``pairs`` of trials were compared."""
    part = slice(block * EVALUATION_BLOCK, (block + 1) * EVALUATION_BLOCK)
    text = corpus.decode(torch.from_numpy(disagreement.labels[part]))
    numbers = disagreement.top1[part], disagreement.total_variation[part]
    return Passage(f"{title}, evaluation block {block + 1}", text, *numbers, pairs, disagreement.sentence())


def layer_view(study: Study, model: str) -> pd.DataFrame:
    """The layer table of a model as it was run, with one activation; without a result, at full size."""
    result = next((result for result in study.results if result.model_name == model), None)
    if result is None:
        return layer_table(model, Config.for_model(model).with_corpus(65), study.activations[0])
    return layer_table(model, config_of(result), result.activation)


def disagreement_views(store: Store, study: Study, model: str, activations: Sequence[str]) -> list[Passage | Note]:
    """A coloured passage for each of these activations: the same one, which is typical for the first of them."""
    views: list[Passage | Note] = []
    block = None
    for activation in activations:
        try:
            result = _result(study, model, activation)
            corpus, n = _corpus_of(result), len(result.trials)
            found = token_disagreement([store.predictions(result, trial) for trial in range(1, n + 1)])
        except (ResultError, CorpusError) as problem:
            views.append(Note(f"No passage for {model} with {activation}: {problem}"))
            continue
        block = found.typical_block() if block is None else block
        title = f"{model} with {activation}, N = {n} trials"
        views.append(passage(found, corpus, title, n * (n - 1) // 2, block))
    return views or [Note(f"No passage for {model}: there is no result yet; run ./run_papermill.sh")]


def samples_views(
    store: Store, study: Study, model: str, activations: Sequence[str], length: int = 120, trials: int = 3
) -> list[Samples | Note]:
    """What the first ``trials`` trials write after the first 48 evaluation characters, for each of these activations."""
    views: list[Samples | Note] = []
    for activation in activations:
        try:
            result = _result(study, model, activation)
            corpus = _corpus_of(result)
            prompt = corpus.decode(torch.from_numpy(store.predictions(result, 1).labels[:48]))
            numbers = range(1, min(trials, len(result.trials)) + 1)
            written = write_samples(store, result, corpus, prompt, length, numbers)
        except (ResultError, CorpusError) as problem:
            views.append(Note(f"No samples of {model} with {activation}: {problem}"))
            continue
        views.append(Samples(f"{model} with {activation}", prompt, written))
    return views or [Note(f"No samples of {model}: there is no result yet; run ./run_papermill.sh")]


def _result(study: Study, model: str, activation: str) -> Result:
    result = study.result(model, activation)
    if result is None:
        raise ResultError("there is no result of it yet; run ./run_papermill.sh")
    return result


def _corpus_of(result: Result) -> Corpus:
    """The text a result was made with; CorpusError if it is not here or has changed."""
    corpus = load_corpus(result.config["corpus"])
    if corpus.sha256 != result.corpus.sha256:
        raise CorpusError(f"the text {result.corpus.name!r} has changed since this result was made")
    return corpus


def _shape_recorder(shapes: dict[str, tuple[str, str]], name: str) -> Callable[..., None]:
    def record(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor | tuple[Tensor, ...]) -> None:
        # An LSTM returns its state beside the output.
        first = output[0] if isinstance(output, tuple) else output
        shapes[name] = (_shape(inputs[0]), _shape(first))

    return record


def _call_order(named: Sequence[str], called: Sequence[str]) -> Callable[[tuple[str, nn.Module]], int]:
    """A sort key; a layer that was not called stays behind the one it is listed after."""
    places: dict[str, int] = {}
    place = -1
    for name in named:
        place = called.index(name) if name in called else place
        places[name] = place
    return lambda layer: places[layer[0]]


def _shape(tensor: Tensor) -> str:
    return f"({', '.join(['B', *map(str, tensor.shape[1:])])})"
