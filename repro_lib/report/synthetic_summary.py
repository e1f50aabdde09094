"""``SYNTHETIC_DATA_SUMMARY.md``: every synthetic result of a store, what it is for, and what it is not for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC
from pathlib import Path

from repro_lib.analysis.formatting import literally, number
from repro_lib.store.schema import SYNTHETIC_MARK, Result

_WHAT_THEY_ARE = """\
# Synthetic results

Every number below was made up. Nothing was trained for it and nothing was measured.

- **For**: demonstrations, trying out reports, scale tests.
- **Not for**: any statement about a model or an activation, any statistic, any claim, any publication.
- **Where they show**: only where asked for, with `repro process --include-synthetic` (which writes to `with_synthetic/` in the
  reports folder) or `Study.load(..., include_synthetic=True)`. There they are hatched and marked, and beside measured results
  no mean, CV, rank, win or count includes them. The notebooks, the report site, `summary.txt`, `plots/`, `repro status`
  and every claim leave them out. Training never takes one for a trained cell.
- **Fillers of gaps** (`repro synthesize --missing`) give way to the measured cell as soon as there is one. Their relative PD,
  loss and accuracy are the means of the model's measured cells, so by construction they show nothing new.
- **How to tell**: `"synthetic": true` in the file, the flag, digests that begin with `{mark}`. To be rid of them, delete the
  files.
"""


def synthetic_summary(entries: Sequence[tuple[Path, Result]]) -> str:
    """The text of ``SYNTHETIC_DATA_SUMMARY.md``: every synthetic result among ``entries`` (``Store.load``), in Markdown."""
    measured = {_place(result) for _, result in entries if not result.synthetic}
    rows = []
    for path, result in entries:
        if result.synthetic:
            state = "replaced: the cell is measured" if _place(result) in measured else "shown only where asked for"
            neighbours = result.environment.get("neighbours")
            made = ("; ".join(result.flags) or "the file does not say") + (f". Files: {neighbours}" if neighbours else "")
            distance = math.nan if result.avg_relative_pd is None else result.avg_relative_pd
            cells = (path.name, result.model_name, result.activation, f"{number(distance, 4)} (synthetic)",
                     str(len(result.trials)), f"{result.timestamp.astimezone(UTC):%Y-%m-%d %H:%M}", state, made)  # fmt: skip
            rows.append("| " + " | ".join(_cell_text(text) for text in cells) + " |")
    head = "| file | model | activation | relative PD | trials | made, UTC | state | how, and from what |\n" + "|---" * 8 + "|"
    listed = "\n".join([f"{len(rows)} synthetic results are in the store.", "", head, *rows])
    return _WHAT_THEY_ARE.format(mark=SYNTHETIC_MARK) + "\n" + (listed if rows else "There is none in the store.") + "\n"


def _place(result: Result) -> tuple[str, ...]:
    """What a measured result must have to take the place of a synthetic one."""
    return result.model_name, result.activation, result.measured_key, result.config_sha256


def _cell_text(text: str) -> str:
    return literally(text).replace("|", "\\|")
