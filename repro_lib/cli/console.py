"""The terminal as it is: closed, full, narrow, or without some of our characters. No work stops for what cannot be shown."""

import contextlib
import io
import os
import sys
from typing import TextIO

from repro_lib.analysis.notes import visible

# What terminals of another encoding get instead; all else that they lack becomes a question mark.
_PLAIN = str.maketrans(
    {"–": "-", "—": "-", "−": "-", "…": "...", "×": "x", "±": "+-", "→": "->", "≤": "<=", "≥": ">=", "\xa0": " "}
)


class Output(io.TextIOBase):
    """A stream to print on that never raises: the first thing that could not be written is kept as ``error``."""

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.error = stream, None

    @property
    def encoding(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Of the stream below: rich draws with plain characters where it is no Unicode."""
        return self.stream.encoding or "utf-8"

    def isatty(self) -> bool:
        return self.stream.isatty()

    def fileno(self) -> int:
        return self.stream.fileno()

    def write(self, text: str) -> int:
        with self._noting():
            try:
                self.stream.write(text)
            except UnicodeEncodeError:
                plain = text.translate(_PLAIN).encode(self.encoding, "replace")
                self.stream.write(plain.decode(self.encoding))
        return len(text)

    def flush(self) -> None:
        with self._noting():
            self.stream.flush()

    @contextlib.contextmanager
    def _noting(self):
        try:
            yield
        except (OSError, ValueError) as error:  # ValueError: the stream was closed
            self.error: Exception | None = self.error or error
            # What is left in its buffer would be tried once more, and complained of, when Python ends.
            with contextlib.suppress(OSError, ValueError):
                sink = os.open(os.devnull, os.O_WRONLY)
                os.dup2(sink, self.stream.fileno())
                os.close(sink)


def open_streams() -> None:
    """Put the null device where standard input, output or errors are closed: the next file opened would take their place."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is taken, and these are looked at in order. What we start inherits it.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8", closefd=False))


def complain(sentence: object) -> None:
    """A sentence for standard error, if it can be written."""
    with contextlib.suppress(OSError, ValueError):
        Output(sys.stderr).write(visible(f"repro: {sentence}\n"))
        sys.stderr.flush()
