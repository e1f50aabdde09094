"""From a results folder to what people look at: ``summary.txt``, plots, the ledger of claims, the site."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from repro_lib.analysis.notes import visible
from repro_lib.report.own_files import NOTE, SYNTHETIC, refuse_foreign, refuse_foreign_reports
from repro_lib.store.store import Store, digest_note, noted_digest
from repro_lib.system.files import write_atomically

# The rest is imported where it is used: whoever plans or runs the grid imports this module, and need not load pandas for it.
if TYPE_CHECKING:
    from repro_lib.analysis.evidence import Evidence
    from repro_lib.analysis.study import Study
    from repro_lib.report.site.index import SiteReport
    from repro_lib.store.schema import Result


def summarise_store(study: Study, results_dir: Path, reports_dir: Path, *, plots: bool, claims: bool = True) -> str:
    """The text of ``repro process``, also written to ``summary.txt``; with ``plots`` and the ledger of ``claims`` beside it."""
    from repro_lib.analysis.evidence import Evidence
    from repro_lib.report.console_summary import summary_text

    refuse_foreign(reports_dir, study.models if plots else ())
    (reports_dir / NOTE).unlink(missing_ok=True)
    evidence = Evidence.load(Store(results_dir), study)
    text = visible(_exploratory(study, Store(results_dir)) + summary_text(study, evidence))
    write_atomically(reports_dir / "summary.txt", text)
    # Nothing that was made up may decide a claim.
    if claims and not any(result.synthetic for result in study.results):
        write_conclusions(study, evidence, reports_dir)
    if plots:
        save_plots(study, reports_dir / "plots")
    return text


def _exploratory(study: Study, store: Store) -> str:
    # What is not as the study declared it, or as all its cells are judged together.
    said, declared = [], store.margin()
    if study.margin != declared:
        said.append(f"judged with a margin of {study.margin:g} %, where {declared:g} % is that of the study.")
    own, whole = ({(r.model_name, r.arm, r.config_sha256) for r in of.results} for of in (study, study.family(store)))
    if own < whole:
        said.append(f"verdicts are corrected for these {len(own)} cells, of the {len(whole)} that the study has.")
    return "".join(f"EXPLORATORY: {line}\n" for line in said)


def write_conclusions(study: Study, evidence: Evidence, reports_dir: Path) -> None:
    """``FINAL_CONCLUSIONS.md`` for people and ``claims.json`` for programs."""
    from repro_lib.report.claims_ledger import claims_json, conclusions_markdown, ledger

    entries = ledger(evidence)
    write_atomically(reports_dir / "FINAL_CONCLUSIONS.md", conclusions_markdown(study, evidence, entries))
    write_atomically(reports_dir / "claims.json", claims_json(study, evidence, entries))


def write_synthetic_summary(results_dir: Path, reports_dir: Path, made: Sequence[Result] = ()) -> Path:
    """Store these synthetic results, then write ``SYNTHETIC_DATA_SUMMARY.md`` about all that the folder holds."""
    from repro_lib.report.console_summary import synthetic_summary

    refuse_foreign(reports_dir)
    store, path = Store(results_dir), reports_dir / SYNTHETIC
    for result in [store.stamped(result) for result in made]:
        store.save(result)
    write_atomically(path, synthetic_summary(store.load()[0]))
    return path


def save_plots(study: Study, folder: Path) -> None:
    """Every plot of the study as PNG, with its alternative text in a file beside it."""
    from repro_lib.plots.figures import all_plots

    # The text is for who cannot see the picture; the site takes both from here.
    for plot in all_plots(study):
        write_atomically(folder / f"{plot.name}.png", plot.png())
        write_atomically(folder / f"{plot.name}.txt", plot.alt + "\n")


def write_summary(results_dir: Path, reports_dir: Path, profile: str | None, configs: Sequence[str], digest: str) -> None:
    """The grid's last job: summary and plots, with a note of the results they were made from."""
    from repro_lib.analysis.study import load_study

    summarise_store(load_study(results_dir, profile=profile, configs=configs), results_dir, reports_dir, plots=True)
    write_atomically(reports_dir / NOTE, json.dumps({"metadata": {"repro": digest_note(digest)}}) + "\n")


def summary_is_current(reports_dir: Path, digest: str) -> bool:
    """Whether summary and plots were made from just the results of this digest."""
    written = all((reports_dir / name).is_file() for name in ("summary.txt", "FINAL_CONCLUSIONS.md", "claims.json"))
    return written and noted_digest(reports_dir / NOTE) == digest


def build_reports(study: Study, results_dir: Path, reports_dir: Path, profile: str | None, config: str | None) -> SiteReport:
    """Render whatever notebook is executed, with an index over the expected cells; of one ``config`` the index alone."""
    from repro_lib.report.site.index import build_site

    cells = list(product(study.models, study.activations))
    refuse_foreign_reports(reports_dir, cells)
    (reports_dir / NOTE).unlink(missing_ok=True)
    save_plots(study, reports_dir / "plots")
    return build_site(results_dir, reports_dir, cells, profile, config=config)
