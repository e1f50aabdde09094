"""The names of files in the reports folder that are no pages, and that nothing of somebody else's is replaced there."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from repro_lib.analysis.notes import NO_RESULTS
from repro_lib.report.notebook_names import expected_stems
from repro_lib.system.files import LARGEST_NOTEBOOK_BYTES, UnusableFile, read_bounded

# Which results plots and summary were made from. It is the grid's alone; whoever else writes them takes it away.
NOTE = Path("plots", "inputs.json")
# What lies beside the pages, with a word on it.
DOCUMENTS = {
    "FINAL_CONCLUSIONS.md": "the conclusions in full",
    "claims.json": "the claims ledger",
    "summary.txt": "the console tables",
}
SYNTHETIC = "SYNTHETIC_DATA_SUMMARY.md"
# One of these is in all that was ever written there: the name of a digest of what it was made from, a heading, a plot's width.
_MARKS = re.compile(
    rb"\b(source-sha256|inputs_sha256|evaluation_sha256)\b|\A# (Conclusions|Synthetic results)\n|^RUNTIME \(training,|"
    rb"\A\x89PNG.{12}" + re.escape((1296).to_bytes(4, "big")) + b"|" + NO_RESULTS.encode(),
    re.DOTALL | re.MULTILINE,
)


def refuse_foreign(reports_dir: Path, models: Sequence[str] = (), stems: Iterable[str] = ()) -> None:
    """UnusableFile if a document, a plot of ``models`` or a page of ``stems`` would replace what this program did not make."""
    names = (*DOCUMENTS, SYNTHETIC, NOTE, "charts.js", "search.js", *(f"{stem}.html" for stem in stems))
    foreign = [path for path in (reports_dir / name for name in names) if path.exists() and not _is_marked(path)]
    drawn = [path for path in reports_dir.glob("plots/*.*") if models and path.suffix in (".png", ".txt")]
    # The words of a plot are known by the plot.
    if unknown := [path for path in drawn if not _is_marked(path.with_suffix(".png"))]:
        from repro_lib.plots.figures import plot_names  # and matplotlib with it, so only where there is a question

        foreign += [path for path in unknown if path.stem in plot_names(models)]
    if foreign:
        raise UnusableFile(f"{foreign[0]} was not made by this program; choose another --reports-dir")


def _is_marked(path: Path) -> bool:
    return path.exists() and bool(_MARKS.search(read_bounded(path, LARGEST_NOTEBOOK_BYTES)))


def refuse_foreign_reports(reports_dir: Path, cells: Sequence[tuple[str, str]]) -> None:
    """The same for all that a grid of these cells writes."""
    refuse_foreign(reports_dir, list(dict(cells)), ("index", *expected_stems(cells)))
