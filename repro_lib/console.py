"""What a terminal shows while the grid runs: a live table, or plain lines where nobody watches live."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from repro_lib.progress import read_progress, share_of


class Display(Protocol):
    """Who is told what happens. ``share`` is the part of all work that is done, 0 to 1."""

    def started(self, cells: int, done: int) -> None:
        """So many cells are to do, so many are done already."""

    def update(self, running: dict[str, Path], share: float) -> None:
        """What is in work now, with the file in which each says how far it is."""

    def finished(self, label: str, message: str, *, is_cell: bool) -> None:
        """A cell or another step ended."""

    def note(self, message: str) -> None:
        """Something happened that ends nothing, for example that a step is tried again."""

    def close(self) -> None:
        """Nothing more will come."""


def make_display(console: Console) -> Display:
    """Live in a terminal, plain lines elsewhere."""
    return LiveDisplay(console) if console.is_terminal else PlainDisplay(console)


class PlainDisplay:
    """A line per event, with the time left; for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self.console, self.clock = console, _Clock()
        self.cells = self.ended = 0

    def started(self, cells: int, done: int) -> None:
        self.cells = cells
        if done:
            self._say(f"{done} cells are done already, {cells} to do")

    def update(self, running: dict[str, Path], share: float) -> None:
        self.clock.share = share

    def finished(self, label: str, message: str, *, is_cell: bool) -> None:
        self.ended += is_cell
        count = f"[{self.ended}/{self.cells}] " if is_cell else ""
        self._say(f"{count}{label}: {message}; {self.clock.left()}")

    def note(self, message: str) -> None:
        self._say(message)

    def close(self) -> None:
        pass

    def _say(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


class LiveDisplay(PlainDisplay):
    """A bar for each running step and one for all, refreshed in place; finished steps scroll by above."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.live = Live(console=console, refresh_per_second=4, transient=True)

    def started(self, cells: int, done: int) -> None:
        super().started(cells, done)
        self.live.start()

    def update(self, running: dict[str, Path], share: float) -> None:
        super().update(running, share)
        table = Table.grid(padding=(0, 2))
        for label, file in running.items():
            place = read_progress(file)
            part = share_of(place)
            table.add_row(Text(label), ProgressBar(total=1.0, completed=part, width=30), Text(_place_in_words(place)))
        whole = ProgressBar(total=1.0, completed=share, width=30)
        table.add_row(Text(f"{self.ended} of {self.cells} cells", style="bold"), whole, Text(self.clock.left()))
        self.live.update(Group(table))

    def close(self) -> None:
        self.live.stop()


class _Clock:
    """Time left, from the share of the work done since the start."""

    def __init__(self) -> None:
        self.started, self.share = time.monotonic(), 0.0

    def left(self) -> str:
        elapsed = time.monotonic() - self.started
        if self.share < 0.01:
            return "time left not known yet"
        seconds = elapsed * (1 - self.share) / self.share
        return f"about {seconds / 60:.0f} min left" if seconds >= 90 else f"about {seconds:.0f} s left"


def _place_in_words(place: dict[str, Any]) -> str:
    if not place:
        return "starting"
    at_once = f" ({place['together']} at once)" if place["together"] > 1 else ""
    return "trial {trial}/{trials}{at_once}, iteration {iteration}/{max_iters}, loss {loss:.3f}".format(
        **place, at_once=at_once
    )
