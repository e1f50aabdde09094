"""What a terminal shows while the grid runs: bars that move in place, or plain lines alone where nobody watches live."""

import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from repro_lib.analysis.formatting import counted
from repro_lib.training.progress import progress_share, read_progress


class Display:
    """Tells what happens, a line per event; in a terminal, and not in logs and pipes, also how far everything is,
    with a bar for each job in work."""

    def __init__(self, console: Console) -> None:
        self.console, self.since = console, time.monotonic()
        self.share, self.cells, self.ended = 0.0, 0, 0  # part of all work that is done, cells in all and through
        # Labels and sentences hold names of files and errors of others: brackets in them are no markup.
        label, said = (TextColumn(text, markup=False) for text in ("{task.description}", "{task.fields[said]}"))
        columns = (label, BarColumn(30), said)
        self.bars = Progress(*columns, console=console, refresh_per_second=4, transient=True, disable=not console.is_terminal)

    def started(self, cells: int, done: int) -> None:
        """So many cells are to do, so many are done already."""
        self.cells = cells
        if done:
            self.note(f"{counted(done, 'cell', 'are')} done already, {cells} to do")
        self.whole = self.bars.add_task("", total=1.0, said="")
        self.bars.start()

    def update(self, running: dict[str, Path], share: float) -> None:
        """What is in work now, with the file in which each says how far it is; and the share of all work that is done."""
        self.share = share
        self.bars.update(self.whole, description=f"{self.ended} of {self.cells} cells", completed=share, said=self._left())
        # A label names one job, so that it can stand for its bar.
        shown = {bar.description: bar.id for bar in self.bars.tasks if bar.id != self.whole}
        for label in shown.keys() - running.keys():
            self.bars.remove_task(shown[label])
        for label, file in running.items():
            if label not in shown:
                shown[label] = self.bars.add_task(label, total=1.0, said="")
            self.bars.update(shown[label], completed=progress_share(file), said=_in_words(read_progress(file)))

    def finished(self, label: str, message: str, *, is_cell: bool) -> None:
        """A cell or another job ended."""
        self.ended += is_cell
        count = f"[{self.ended}/{self.cells}] " if is_cell else ""
        self.note("; ".join(filter(None, [f"{count}{label}: {message}", self._left()])))

    def note(self, message: str) -> None:
        """Something happened that ends nothing, for example that a job is tried again."""
        self.console.print(message, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        self.bars.stop()

    def _left(self) -> str:
        # By the share of all work, which weighs cells by their cost; rich would extrapolate a bar's last minute.
        # Before that one would extrapolate from how long the first processes took to start.
        if self.share < 0.01:
            return "time left not known yet"
        seconds = (time.monotonic() - self.since) * (1 - self.share) / self.share
        # A rough estimate has no seconds, and what is at work has some time left.
        return f"about {seconds / 60:.0f} min left" if seconds >= 60 else "under a minute left" if self.share < 1 else ""


def _in_words(told: dict[str, Any]) -> str:
    if not told:
        return "starting"
    at_once = f" ({told['together']} at once)" if told["together"] > 1 else ""
    return "trial {trial}/{trials}{at_once}, iteration {iteration}/{max_iters}, loss {loss:.3f}".format(**told, at_once=at_once)
