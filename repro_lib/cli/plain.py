"""The console that all commands print on."""

# Apart from ``console``: help and complaints of the command line need no rich.

from typing import Any

from rich.console import Console
from rich.text import Text

from repro_lib.analysis.notes import visible

# Wider than any table of ours. Lines that are too long for a terminal it wraps by itself, and a pipe has no width.
WIDE = 10_000


class Plain(Console):
    """Prints text as it is: names of files and errors of others hold brackets and colons, and what terminals obey."""

    def __init__(self, file: Any, **look: Any) -> None:
        super().__init__(file=file, highlight=False, markup=False, emoji=False, **look)

    def render_str(self, text: str, **look: Any) -> Text:
        """As rich does for every text, the cells of tables too."""
        return super().render_str(visible(text), **look)
