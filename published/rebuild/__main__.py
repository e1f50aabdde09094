"""``python -m published.rebuild [--out DIR]``: tables, figures, conclusions and report from the committed result files.

Without ``--out`` the committed ones are written again, in place: ``git status`` then says whether anything differs.
"""

import argparse
from pathlib import Path

import pandas as pd

from published.rebuild.figures import FIGURES
from published.rebuild.report import readme_sentences, report
from published.rebuild.stores import HERE, NotRunYet, Published
from published.rebuild.tables import TABLES, csv
from published.rebuild.tokens import TOKEN_TABLES, token_tables
from repro_lib.report.publish import write_conclusions
from repro_lib.system.files import write_atomically


def main() -> None:
    """Write everything below the folder that was asked for."""
    parser = argparse.ArgumentParser(prog="python -m published.rebuild", description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE, metavar="DIR", help="default: published/ itself")
    parser.add_argument(
        "--predictions-from", type=Path, metavar="RESULTS", help="a results folder with predictions: the token tables anew"
    )
    asked = parser.parse_args()
    published = Published()
    frames: dict[str, pd.DataFrame] = {}
    gaps: list[str] = []
    for name, make in TABLES.items():
        try:
            frames[name] = make(published)
        except NotRunYet as gap:
            gaps += [str(gap)] if str(gap) not in gaps else []
    if asked.predictions_from:
        made = token_tables(asked.predictions_from)
        for name, frame in made.items():
            write_atomically(asked.out / "tables" / f"{name}.csv", csv(frame))
    frames |= {name: pd.read_csv(HERE / "tables" / f"{name}.csv") for name in TOKEN_TABLES}
    for name in TABLES.keys() & frames.keys():
        write_atomically(asked.out / "tables" / f"{name}.csv", csv(frames[name]))
    plots = [draw(frames) for draw, needed in FIGURES.items() if needed <= frames.keys()]
    for plot in plots:
        write_atomically(asked.out / "figures" / f"{plot.name}.png", plot.png())
    write_conclusions(published.study, published.evidence, asked.out / "reports")
    write_atomically(asked.out / "RESEARCH_REPORT.md", report(published, frames, plots))
    print("\n".join([*readme_sentences(frames), *(f"not run yet: {gap}" for gap in gaps)]))


if __name__ == "__main__":
    main()
