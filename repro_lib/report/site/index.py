"""The site in a folder to open in a browser: executed notebooks become pages, result files the index over them."""

import functools
import re
import sys
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from repro_lib.analysis.contrasts import leading_contrasts
from repro_lib.analysis.evidence import Evidence
from repro_lib.analysis.frames import rows_of
from repro_lib.analysis.notes import visible
from repro_lib.analysis.own_runs import HEADS, others_in_words, own_runs_sentence, run_rows
from repro_lib.analysis.study import Study
from repro_lib.config import MODEL_DEFAULTS, PROFILES, project_root
from repro_lib.data import CORPORA
from repro_lib.report.answer import answer, verdict_in_both
from repro_lib.report.notebook_names import ANALYSES, TRAIN, analyses_of, deep_dive_stem, expected_stems, train_stem
from repro_lib.report.own_files import DOCUMENTS, refuse_foreign
from repro_lib.report.sentences import flagged, provenance
from repro_lib.report.site import charts
from repro_lib.report.site.page import ReportError, render_notebook
from repro_lib.report.site.page_parts import (
    NOTEBOOK_NAME,
    SCRIPT,
    TEMPLATES,
    Cell,
    frame_of,
    in_order,
    made_from,
    navigation,
    title_of,
    typeset,
)
from repro_lib.report.site.search import write_search
from repro_lib.store.schema import Result
from repro_lib.store.store import Store
from repro_lib.system.files import write_atomically


@dataclass(frozen=True)
class SiteReport:
    """What ``build_site`` did: the stems of the pages that it made, a sentence for all that is wrong, and the answer."""

    index: Path
    rendered: tuple[str, ...]
    problems: tuple[str, ...]
    answer: str


def build_site(
    results_dir: Path,
    reports_dir: Path,
    expected_cells: Sequence[Cell] = (),
    profile: str | None = None,
    configs: Sequence[str] = (),
    *,
    config: str | None = None,
    analyses: Sequence[str] | None = None,
    running: bool = False,
) -> SiteReport:
    """Render each executed notebook whose page is missing or was made from something else, then ``index.html``.

    A notebook that cannot be rendered, and a file that had to be left out, is named in ``problems``. ``profile``, ``configs``,
    ``config``: whose results the index shows (see ``Study.load``); of one ``config`` it is the only page, for the notebooks are
    a grid's. ``analyses``: those that are expected beside what is executed; None: as of a grid of these cells.
    """
    study = Study.load(Store(results_dir), profile=profile, configs=configs, config=config)
    results = {(result.model_name, result.arm): result for result in study.results}
    expected = ([], [], []) if config else _expected(results_dir, [*expected_cells], [] if running else [*results], analyses)
    notebooks, navigated, analyses = expected
    refuse_foreign(reports_dir, stems=("index", *notebooks, *expected_stems(navigated, analyses)))
    rendered, problems = _render(results_dir, reports_dir, notebooks, navigated, analyses)
    _write_stand_ins(reports_dir, navigated, analyses)
    # A run of two models misses no third one.
    cells = in_order([*expected_cells, *results])
    models, activations = (tuple(dict.fromkeys(names)) for names in zip(*cells, strict=True)) if results else ((), ())
    study = replace(study, models=models, activations=activations)
    contrasts = leading_contrasts(Evidence.from_results(study))
    said = answer(study, contrasts)
    drawn = "" if running else _drawn(contrasts)  # a second, for which a grid would wait after each of its cells
    listed = [] if config else cells
    stems = dict.fromkeys([*expected_stems(listed, analyses), *notebooks])
    # A stand-in is no page: what nothing was made from is not linked.
    pages = {stem for stem in stems if made_from(reports_dir / f"{stem}.html")}
    failures = {} if config else _failures(results_dir, results)
    figures, unexplained = _figures(reports_dir / "plots", list(dict(cells)))
    html = environment().get_template("index.html.j2").render(
        site=frame_of(navigation("index", listed, analyses), "index.html", "none", SCRIPT if drawn else ""), running=running,
        folder=results_dir, results=list(results.values()), profiles=PROFILES, chart=drawn,
        answer=said, made_of=provenance(study), reference=study.reference, factor=study.factor,
        identical=study.identical, warning=flagged(study) if any(result.flags for result in study.results) else "",
        contrasts={(row["model"], row["activation"]): row for row in rows_of(contrasts)}, verdict=verdict_in_both,
        cards=[stem for stem in stems if not stem.startswith(f"{TRAIN}-")], deep_dive_stem=deep_dive_stem,
        published=_published_beside(reports_dir), pages=pages, figures=figures, failures=failures,
        rows=_rows(study, cells, pages, failures, _notebooks(results_dir, ".partial") if running else None),
        failed_notebooks=_notebooks(results_dir, ".failed"),
        corpora=[entry for entry in CORPORA.values() if entry["sha256"] in {r.corpus.sha256 for r in results.values()}],
        documents=[(name, about) for name, about in DOCUMENTS.items() if (reports_dir / name).is_file()],
        notes=[*others_in_words(study.others), *study.refused, *problems, *unexplained],
        own_runs=run_rows(study.own_runs), own_runs_sentence=" ".join(own_runs_sentence(study.own_runs, "report")), heads=HEADS,
    )  # fmt: skip
    if drawn:
        charts.write_script(reports_dir)
    write_atomically(reports_dir / "index.html", typeset(visible(html)))
    if not running:
        write_search(reports_dir, ["index", *stems])
    return SiteReport(reports_dir / "index.html", tuple(rendered), (*problems, *study.refused, *unexplained), said)


# Of each cell what the table says. ``at_work``: the notebooks of a grid that runs; None: there is no such grid.
def _rows(
    study: Study, cells: Sequence[Cell], pages: set[str], failures: Mapping[str, str], at_work: Collection[str] | None
) -> list[dict[str, Any]]:
    results = {(result.model_name, result.arm): result for result in study.results}
    # A cell of too few trials has no interval, and the index says so.
    known = rows_of(study.cells.dropna(subset=["relative_pd_low"]))
    intervals = {(row["model"], row["activation"]): (row["relative_pd_low"], row["relative_pd_high"]) for row in known}
    # A result settles everything, and a notebook at work is not the one that failed before.
    absent = dict.fromkeys(failures, "failed") | dict.fromkeys(at_work or (), "running")
    rows = []
    for cell in cells:
        stem, result = train_stem("-".join(cell)), results.get(cell)
        state = "done" if result else absent.get(stem, "missing" if at_work is None else "waiting")
        rows.append({
            "model": cell[0], "activation": cell[1], "result": result, "state": state, "interval": intervals.get(cell),
            "report": f"{stem}.html" if result and stem in pages else None,
            "reason": failures[stem] if state == "failed" else "",
            # How often each kind of flag, the word before the colon, was raised.
            "flag_kinds": Counter(flag.split(":")[0] for flag in result.flags) if result else {},
        })  # fmt: skip
    return rows


# The executed notebooks, and the cells and analyses of the navigation. It names what is expected, not what is there, so that
# one more finished cell costs one page; but no cell that was trained without a notebook, for there will be no page of it.
def _expected(
    results_dir: Path, cells: list[Cell], results: list[Cell], analyses: Sequence[str] | None
) -> tuple[list[str], list[Cell], list[str]]:
    notebooks = sorted(_notebooks(results_dir))
    matches = [match for match in map(NOTEBOOK_NAME.fullmatch, notebooks) if match and match["activation"]]
    executed = [(match["model"], match["activation"]) for match in matches]
    bare = {cell for cell in results if cell not in executed}
    navigated = in_order([*((model, "" if (model, name) in bare else name) for model, name in cells), *executed])
    wanted = analyses_of([*cells, *executed, *results]) if analyses is None else analyses
    return notebooks, navigated, [name for name in ANALYSES if name in wanted or name in notebooks]


def _drawn(contrasts: pd.DataFrame) -> str:
    if sys.flags.optimize > 1:  # Altair is written by its own docstrings
        return ""
    from repro_lib.plots.forest import forest

    chart = forest(contrasts)
    return charts.section_of(chart) if chart else ""


def _render(
    results_dir: Path, reports_dir: Path, stems: Sequence[str], cells: Sequence[Cell], analyses: Sequence[str]
) -> tuple[list[str], list[str]]:
    rendered, problems = [], []
    for stem in stems:
        notebook, output = results_dir / "notebooks" / f"{stem}.ipynb", reports_dir / f"{stem}.html"
        try:
            rendered += [stem] if render_notebook(notebook, output, navigation(stem, cells, analyses)) else []
        except ReportError as error:
            # It would pass for the notebook that is there now.
            output.unlink(missing_ok=True)
            problems.append(str(error))
    return rendered, problems


def _notebooks(results_dir: Path, ending: str = "") -> set[str]:
    # Stems of the executed notebooks: finished ones, or those ending in ``.failed`` or ``.partial``. A name that is not the
    # grid's could lead out of the reports folder, and is passed over.
    names = {path.name.removesuffix(f"{ending}.ipynb") for path in (results_dir / "notebooks").glob(f"*{ending}.ipynb")}
    return {name for name in names if NOTEBOOK_NAME.fullmatch(name) and not name.endswith((".failed", ".partial"))}


@functools.cache
def environment() -> jinja2.Environment:
    folders = [TEMPLATES / "site", TEMPLATES / "repro_report"]
    # What is shown is text from elsewhere, so it is escaped; a name that a template misspells is an error, not an empty place.
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(folders), autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {"title_of": title_of, "without": _without}
    return environment


# Messages name whole paths; a report that travels says nothing about the machine.
def _without(text: str, folder: Path) -> str:
    return text.replace(f"{folder}/", f"{folder.name}/")


# A page for every link of the navigation that leads nowhere yet.
def _write_stand_ins(reports_dir: Path, cells: Sequence[Cell], analyses: Sequence[str]) -> None:
    for stem in expected_stems(cells, analyses):
        path = reports_dir / f"{stem}.html"
        if made_from(path) is None:
            site = frame_of(navigation(stem, cells, analyses), path.name, "none")
            html = environment().get_template("pending.html.j2").render(site=site, title=title_of(stem))
            # An open browser, and tools that copy the site, see only what has changed.
            if not path.exists() or path.read_text(encoding="utf-8") != html:
                write_atomically(path, html)


def _published_beside(reports_dir: Path) -> str | None:
    page = "published/reports/index.html"
    # A reports folder elsewhere, or one that will be copied, must not lead out of itself to the published study.
    ours = reports_dir.resolve().parent == project_root().resolve()
    return f"../{page}" if ours and (project_root() / page).is_file() else None


def _failures(results_dir: Path, results: Mapping[Cell, Result]) -> dict[str, str]:
    # Moments in UTC, as ISO text, are in order as text is: a result stored since a notebook failed has settled it.
    done = {train_stem("-".join(cell)): result.timestamp.isoformat() for cell, result in results.items()}
    reasons = {}
    for note in Store(results_dir).failures():
        stem = train_stem(f"{note['model_name']}-{note['activation']}")
        if stem not in done or str(note.get("timestamp", "")) > done[stem]:
            reasons[stem] = str(note["reason"])
    unexplained = _notebooks(results_dir, ".failed") - done.keys()
    return dict(sorted((dict.fromkeys(unexplained, "its notebook stopped with an error") | reasons).items()))


def _figures(plots: Path, models: Sequence[str]) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Alternative texts of the figures by model ("" for those over all models) and name; a sentence for each without."""
    figures: dict[str, dict[str, str]] = {owner: {} for owner in ("", *models)}
    unexplained = []
    # From Z to A the four-panel figure comes first, accuracy after prediction difference.
    for path in sorted(plots.glob("*.png"), reverse=True):
        text = path.with_suffix(".txt")
        # The longest name, for those of tinylstm_readout begin with tinylstm_ too.
        owner = max((model for model in MODEL_DEFAULTS if path.name.startswith(f"{model}_")), key=len, default="")
        # Figures of models that are not shown were left by an earlier run.
        if owner not in figures:
            continue
        alternative = text.read_text(encoding="utf-8", errors="replace").strip() if text.is_file() else ""
        if re.fullmatch(r"[\w.-]+", path.name) and alternative:
            figures[owner][path.stem] = alternative
        else:
            unexplained.append(f"The figure plots/{path.name} is left out: its alternative text, {text.name}, is missing.")
    return {owner: found for owner, found in figures.items() if found}, unexplained
