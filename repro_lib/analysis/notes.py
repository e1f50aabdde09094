"""Sentences that a notebook shows as text, and what is said where there is nothing to show yet."""

import html
import re
from dataclasses import dataclass

# What a terminal would obey and no page may hold.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
NO_RESULTS = "no results yet: run ./run_papermill.sh"


@dataclass(frozen=True)
class Note:
    """Sentences, one paragraph per line, that a notebook shows as text."""

    text: str

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        # That there is nothing yet, and what to do about it, is the size of a button: the one thing to see on an empty page.
        words, _, command = NO_RESULTS.partition("./")
        frame = "display:inline-block;border:2px solid;border-radius:8px;padding:.5em 1em;margin:.3em 0"
        button = f'<p style="{frame}">{words}<code style="font-weight:bold">./{command}</code></p>'
        return "".join(button if line == NO_RESULTS else f"<p>{html.escape(line)}</p>" for line in self.text.splitlines())


def visible(text: str) -> str:
    """Text that may hold words from elsewhere, with the signs of its control characters in their places."""
    return _CONTROL.sub(lambda found: chr(0x2400 + ord(found[0])) if found[0] < " " else "\N{REPLACEMENT CHARACTER}", text)


def say(*sentences: str) -> Note:
    """Sentences as paragraphs for a notebook, each once."""
    return Note("\n".join(dict.fromkeys(filter(None, sentences))))
