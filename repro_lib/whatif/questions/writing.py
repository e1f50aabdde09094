"""What would this model write? The continuations of one prompt by two trials, with their differences marked."""

import html
from difflib import SequenceMatcher
from typing import NamedTuple

import torch

from repro_lib.analysis.notes import Note
from repro_lib.analysis.stored_models import corpus_of, write_samples
from repro_lib.analysis.study import Study
from repro_lib.data import CorpusError
from repro_lib.store.schema import Result, ResultError
from repro_lib.store.store import Store
from repro_lib.whatif.wording import cell_name, reason, unanswered

TITLE = "What would this model write?"
HOW = "Run this cell in JupyterLab to choose model, trials and prompt yourself: jupyter lab notebooks/50_what_if.ipynb"
PROMPT_CHARACTERS = 32
LENGTH = 80
_TEXT = "white-space:pre-wrap;font-family:monospace;line-height:1.7;margin:.3em 0"
# Underlined and bold: never colour alone, and readable on light and dark.
_DIFFERENT = "font-weight:bold;text-decoration:underline;background:rgba(230,120,0,.22)"


class Continuations(NamedTuple):
    """What two trials of a cell wrote after a prompt, each (greedy, sampled)."""

    cell: str
    prompt: str
    trials: tuple[int, int]
    first: tuple[str, str]
    second: tuple[str, str]

    def sentence(self) -> str:
        """Where the greedy texts part, and on which characters."""
        who = f"Trials {self.trials[0]} and {self.trials[1]} of {self.cell}"
        for place, (here, there) in enumerate(zip(self.first[0], self.second[0], strict=True), 1):
            if here != there:
                return f"{who}, each taking its most probable character, part at character {place}: {here!r} against {there!r}."
        return f"{who} write the same {len(self.first[0])} characters when each takes its most probable one."

    def html(self) -> str:
        """The four texts side by side; what one trial has and the other does not is marked. Everything is escaped."""
        rows = []
        for k, how in enumerate(("most probable character each time (greedy)", "sampled, with the same random numbers")):
            texts = _marked(self.first[k], self.second[k]), _marked(self.second[k], self.first[k])
            columns = "".join(
                f'<div style="flex:1 1 17em;min-width:14em"><strong>Trial {trial}</strong>, {how}'
                f'<div style="{_TEXT}">{text}</div></div>'
                for trial, text in zip(self.trials, texts, strict=True)
            )
            rows.append(f'<div style="display:flex;flex-wrap:wrap;gap:.6em 1.6em">{columns}</div>')
        return f'<p>Prompt:</p><div style="{_TEXT}">{html.escape(self.prompt)}</div>{"".join(rows)}'


def cells_that_write(study: Study) -> dict[str, Result]:
    """By ``model with activation`` the results of which two trials can be compared."""
    return {cell_name(result): result for result in study.results if len(result.trials) > 1 and not result.synthetic}


def continuations(
    store: Store, result: Result, prompt: str, trials: tuple[int, int] = (1, 2), length: int = LENGTH, seed: int = 0
) -> Continuations:
    """Let two trials continue a prompt; CorpusError or ResultError where text or weights are missing or do not fit."""
    if not prompt:
        raise CorpusError("the prompt is empty; give it at least one character")
    first, second = write_samples(store, result, corpus_of(result), prompt, length, trials, seed)
    return Continuations(cell_name(result), prompt, trials, first, second)


def recorded_continuations(store: Store, study: Study) -> Continuations | Note:
    """An example for where nobody can ask for another: the first cell that can write, after the first evaluation characters."""
    cells, problem = cells_that_write(study), ""
    # Weights may have been deleted to save room: whatever cell still has them will do.
    for result in cells.values():
        try:
            prompt = torch.from_numpy(store.predictions(result, 1).labels[:PROMPT_CHARACTERS])
            return continuations(store, result, corpus_of(result).decode(prompt))
        except (ResultError, CorpusError) as error:
            problem = problem or f"Nothing now: {reason(error, store)}"
    return unanswered(TITLE, study, problem or "It needs two trials of a cell; run: repro grid --trials 2")


def _marked(text: str, other: str) -> str:
    # What ``other`` has too, in the same order, stays as it is. autojunk would take a space, in every word, for noise.
    parts = SequenceMatcher(None, text, other, autojunk=False).get_opcodes()
    pieces = ((kind, html.escape(text[start:end])) for kind, start, end, _, _ in parts if end > start)
    mark = f'<mark style="{_DIFFERENT};color:inherit">'
    return "".join(piece if kind == "equal" else f"{mark}{piece}</mark>" for kind, piece in pieces)
