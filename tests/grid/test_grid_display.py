"""What is shown while a grid runs: the same lines everywhere, bars where somebody watches."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from repro_lib.grid.display import Display


@pytest.mark.parametrize("terminal", [True, False])
def test_lines_are_told_everywhere_and_bars_in_a_terminal(terminal: bool, tmp_path: Path) -> None:
    told = {"trial": 1, "trials": 2, "together": 1, "iteration": 30, "max_iters": 40, "done": 30, "loss": 3.25}
    (tmp_path / "a.json").write_text(json.dumps(told))
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120)
    display = Display(console)
    display.started(2, 1)
    display.update({"charlm-gelu": tmp_path / "a.json", "charlm-[relu]": tmp_path / "not there yet"}, 0.0)
    display.bars.refresh()
    display.note("charlm-gelu: its kernel was killed; trying again")
    display.update({}, 0.5)
    display.finished("charlm-gelu", "relative PD 0.5", is_cell=True)
    display.close()
    output = console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    lines = ["1 cell is done already, 2 to do", "charlm-gelu: its kernel was killed; trying again"]
    for line in [*lines, "[1/2] charlm-gelu: relative PD 0.5; under a minute left"]:
        assert line in output
    bars = ["trial 1/2, iteration 30/40, loss 3.250", "0 of 2 cells", "time left not known yet", "charlm-[relu]", "starting"]
    assert [bar for bar in bars if (bar in output) is not terminal] == []


def test_the_time_left_is_a_rough_one_and_never_none_while_work_goes_on() -> None:
    told = {0.0: "; time left not known yet", 0.5: "; about 10 min left", 0.9: "; about 1 min left"}
    for share, said in (told | {1 - 1e-12: "; under a minute left", 1.0: ""}).items():
        display = Display(Console(file=io.StringIO()))
        display.share, display.since = share, display.since - 600
        display.finished("charlm", "done", is_cell=False)
        assert display.console.file.getvalue() == f"charlm: done{said}\n"  # pyright: ignore[reportAttributeAccessIssue]
