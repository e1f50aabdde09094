"""``python -m published.rebuild [--out DIR]``: tables, figures, report, conclusions and answer from the committed results.

Without ``--out`` the committed ones are written again, in place: ``git status`` then says whether anything differs.
"""

import argparse
import textwrap
from pathlib import Path

import pandas as pd

from published.rebuild.figures import figures
from published.rebuild.report import report
from published.rebuild.sentences import answer
from published.rebuild.stores import HERE, Published
from published.rebuild.tables import TABLES, csv
from published.rebuild.tokens import TOKEN_TABLES, token_tables
from repro_lib.analysis.contrasts import leading_contrasts
from repro_lib.report.answer import answer as of_the_site
from repro_lib.report.publish import write_conclusions
from repro_lib.system.files import write_atomically

README = HERE.parent / "README.md"
BEGINNING, END = "<!-- by python -m published.rebuild -->", "<!-- to here -->"
LINKS = "[The report](published/RESEARCH_REPORT.md) has every number and limit; [the rules](published/PROTOCOL.md) came first."


def main() -> None:
    """Write everything below the folder that was asked for; in place also the answer in README."""
    parser = argparse.ArgumentParser(prog="python -m published.rebuild", description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE, metavar="DIR", help="default: published/ itself")
    parser.add_argument(
        "--predictions-from", type=Path, metavar="RESULTS", help="a results folder with predictions: the token tables anew"
    )
    asked = parser.parse_args()
    rebuild(Published(), asked.out, asked.predictions_from)
    if asked.out == HERE:
        write_atomically(
            README, with_answer(README.read_text(encoding="utf-8"), (HERE / "answer.md").read_text(encoding="utf-8"))
        )


def rebuild(published: Published, out: Path, predictions: Path | None = None) -> None:
    """Tables, figures, conclusions, report and the answer; SystemExit where the edition is not whole."""
    if gaps := published.missing():
        raise SystemExit(f"{published.folder} lacks {'; '.join(gaps)}; published/README.md has the commands that make it")
    frames = {name: make(published) for name, make in TABLES.items()}
    if predictions:
        for name, frame in token_tables(predictions).items():
            write_atomically(out / "tables" / f"{name}.csv", csv(frame))
    for name in frames:
        write_atomically(out / "tables" / f"{name}.csv", csv(frames[name]))
    frames |= {name: pd.read_csv(HERE / "tables" / f"{name}.csv") for name in TOKEN_TABLES}
    plots = figures(published, frames)
    for plot in plots:
        write_atomically(out / "figures" / f"{plot.name}.png", plot.png())
    write_conclusions(published.study, published.evidence, out / "reports")
    said = answer(frames, of_the_site(published.study, leading_contrasts(published.evidence)))
    write_atomically(out / "answer.md", "\n\n".join(said) + "\n")
    write_atomically(out / "RESEARCH_REPORT.md", report(published, frames, plots, said))
    print("\n".join(said))


def with_answer(readme: str, said: str) -> str:
    """README with the answer between its two marks, in lines as long as its others."""
    before, _, rest = readme.partition(BEGINNING)
    _, _, after = rest.partition(END)
    lines = "\n\n".join(
        part if part.startswith("|") else textwrap.fill(part, 120, break_long_words=False, break_on_hyphens=False)
        for part in (*said.strip().split("\n\n"), LINKS)
    )
    return f"{before}{BEGINNING}\n\n{lines.strip()}\n\n{END}{after}"


if __name__ == "__main__":
    main()
