"""One cell looked at closely, as HTML for notebooks: where in the text its trials disagree, and what they write."""

import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch

from repro_lib.analysis.formatting import seen
from repro_lib.analysis.notes import Note
from repro_lib.analysis.slices import PairedTrials, pair_trials
from repro_lib.analysis.stored_models import corpus_of, write_samples
from repro_lib.analysis.study import Study
from repro_lib.data import EVALUATION_BLOCK, Corpus, CorpusError
from repro_lib.store.schema import Result, ResultError
from repro_lib.store.store import Store

# From this total variation on: (words, inline style). Never colour alone: the underline says the same. The text keeps
# the page's colour and the backgrounds are half transparent, so that both light and dark pages stay readable.
LEVELS = (
    (0.50, "0.50 and more", "background:rgba(230,120,0,.60);text-decoration:underline double"),
    (0.25, "0.25 to 0.50", "background:rgba(230,120,0,.38);text-decoration:underline"),
    (0.10, "0.10 to 0.25", "background:rgba(230,120,0,.18);text-decoration:underline dotted"),
)
# Bold, in a fixed-width font, so that nothing moves.
DIFFERENT_TOP1 = "font-weight:bold"
TEXT_STYLE = "white-space:pre-wrap;font-family:monospace;line-height:1.7;unicode-bidi:plaintext;margin:0.5em 0"


@dataclass(frozen=True, eq=False)
class Passage:
    """A ``block`` (from 0) of the evaluation text and, per character, how much the trials disagree about it; shown as HTML."""

    cell: str
    paired: PairedTrials
    corpus: Corpus
    block: int

    @property
    def title(self) -> str:
        """Which block of which cell it is."""
        return f"{self.cell}, N = {self.paired.n} trials, evaluation block {self.block + 1}"

    def __repr__(self) -> str:
        return f"{self.title}. {self.paired.sentence()}"

    def _repr_html_(self) -> str:
        part = slice(self.block * EVALUATION_BLOCK, (self.block + 1) * EVALUATION_BLOCK)
        text = self.corpus.tokens.spelled(self.paired.labels[part].tolist())
        numbers = (self.paired.mean(metric)[part] for metric in ("total_variation", "churn"))
        characters = "".join(map(self._character, text, *numbers))
        samples = [f'<span style="{style}">{words}</span>' for _, words, style in reversed(LEVELS)]
        legend = (
            "Total variation of a character's probabilities, mean over the pairs of trials: below 0.10 unmarked, "
            f'{", ".join(samples)}. <span style="{DIFFERENT_TOP1}">Bold</span>: the most probable character differs '
            "between some trials. ⏎ is the end of a line. Point at a character for its numbers."
        )
        said = f"{html.escape(self.paired.sentence())}<br>{legend}"
        if (unit := self.corpus.tokens.unit) != "characters":
            said = said.replace("character", unit[:-1]) + " · stands for a part of a character whose rest follows."
        return _figure(self.title, said, f'<div dir="auto" style="{TEXT_STYLE}">{characters}</div>')

    def _character(self, character: str, total_variation: float, top1: float) -> str:
        style = next((style for threshold, _, style in LEVELS if total_variation >= threshold), "")
        style = f"{style};{DIFFERENT_TOP1}".lstrip(";") if top1 > 0 else style
        pairs = math.comb(self.paired.n, 2)
        differing = f"most probable character differs in {round(top1 * pairs)} of {pairs} pairs"
        title = f"total variation {total_variation:.2f}; {differing}"
        shown = html.escape(seen(character)).replace("\n", "⏎\n")
        return f'<span title="{title}"' + (f' style="{style}"' if style else "") + f">{shown}</span>"


@dataclass(frozen=True)
class Samples:
    """What some trials of a cell wrote after the same prompt: (greedy, sampled) by trial; shown side by side."""

    title: str
    prompt: str
    written: Mapping[int, tuple[str, str]]

    @property
    def common(self) -> int:
        """How many characters all greedy texts share at their beginning: a sampled one may turn on the least change."""
        # Of equally many tokens, which may be of different lengths.
        columns = zip(*(greedy for greedy, _ in self.written.values()), strict=False)
        return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))

    def sentence(self) -> str:
        """Where the greedy texts part."""
        if len(self.written) < 2:
            return "One trial only: nothing to compare."
        where = f"agree on the first {self.common} characters and part after them (underlined)"
        if self.common == 0:
            where = "part at the first character"
        if len({greedy for greedy, _ in self.written.values()}) == 1:
            where = f"are equal over all {self.common} characters"
        return f"The greedy texts of {len(self.written)} trials {where}."

    def __repr__(self) -> str:
        return f"{self.title}. {self.sentence()}"

    def _repr_html_(self) -> str:
        columns = []
        for trial, (greedy, sampled) in self.written.items():
            same, rest = (html.escape(seen(text, marks=False)) for text in (greedy[: self.common], greedy[self.common :]))
            marked = f'{same}<span style="{LEVELS[2][2]}">{rest}</span>' if rest else same
            columns.append(
                f'<div style="flex:1 1 16em;min-width:14em"><strong>Trial {trial}</strong>'
                f'<div dir="auto" style="{TEXT_STYLE}">{marked}</div><em>sampled</em>'
                f'<div dir="auto" style="{TEXT_STYLE}">{html.escape(seen(sampled, marks=False))}</div></div>'
            )
        about = f"{self.sentence()} Sampled texts use the same random numbers in every trial."
        caption = f'{about}<br>Prompt:<div dir="auto" style="{TEXT_STYLE}">{html.escape(self.prompt)}</div>'
        return _figure(self.title, caption, f'<div style="display:flex;flex-wrap:wrap;gap:1.5em">{"".join(columns)}</div>')


def _figure(title: str, caption: str, body: str) -> str:
    head = f"<figcaption><strong>{html.escape(title)}</strong><br>{caption}</figcaption>"
    return f'<figure style="margin:1em 0">{head}{body}</figure>'


def disagreement_views(store: Store, study: Study, model: str, activations: Sequence[str]) -> list[Passage | Note]:
    """A coloured passage for each of these activations: the same one, which is typical for the first of them."""
    blocks: list[int] = []

    def view(result: Result) -> Passage:
        corpus = corpus_of(result)
        paired = pair_trials([store.predictions(result, record.trial) for record in result.trials])
        # The same passage for all activations, so that they can be compared by eye.
        blocks.append(paired.typical_block())
        return Passage(f"{model} with {result.arm}", paired, corpus, blocks[0])

    return _views(study, model, activations, "No passage for", view)


def samples_views(
    store: Store, study: Study, model: str, activations: Sequence[str], length: int = 80, trials: int = 3
) -> list[Samples | Note]:
    """What the first ``trials`` trials write after the first 32 evaluation characters, for each of these activations."""

    def view(result: Result) -> Samples:
        return samples(store, result, range(1, min(trials, len(result.trials)) + 1), length=length)

    return _views(study, model, activations, "No samples of", view)


def samples(store: Store, result: Result, trials: Sequence[int], prompt: str | None = None, length: int = 80) -> Samples:
    """What these trials write after a prompt, by default the first 32 evaluation characters.
    CorpusError or ResultError where text or weights are missing or do not fit."""
    corpus = corpus_of(result)
    if prompt is None:
        prompt = corpus.decode(torch.from_numpy(store.predictions(result, 1).labels[:32]))
    if not prompt:
        raise CorpusError("the prompt is empty; give it at least one character")
    written = write_samples(store, result, corpus, prompt, length, trials)
    return Samples(f"{result.model_name} with {result.arm}", prompt, dict(zip(trials, written, strict=True)))


# A sentence takes the place of a view whose result, predictions, weights or text are not at hand.
def _views(study: Study, model: str, names: Sequence[str], none: str, view: Callable[[Result], Any]) -> list[Any]:
    views = []
    for activation in names:
        result = study.result(model, activation)
        try:
            if result is None:
                raise ResultError("there is no result of it yet; run ./run_papermill.sh")
            views.append(view(result))
        except (ResultError, CorpusError) as problem:
            views.append(Note(f"{none} {model} with {activation}: {problem}"))
    return views or [Note(f"{none} {model}: there is no result yet; run ./run_papermill.sh")]
