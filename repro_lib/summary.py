"""From a results folder to what people look at: console tables, ``summary.txt``, plots, status, the site."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from repro_lib.config import canonical_json
from repro_lib.files import write_atomically
from repro_lib.lease import cell_holders
from repro_lib.results import Store

if TYPE_CHECKING:
    from repro_lib.analysis import Study
    from repro_lib.cells import Cell
    from repro_lib.evidence import Evidence
    from repro_lib.results import Result
    from repro_lib.site_pages import SiteReport

# In reports/plots/: which results the plots and the summary were made from.
_INPUTS_NOTE = "inputs.json"


class NothingToShow(RuntimeError):
    """There is no usable result in the folder."""


def load_study(
    results_dir: Path,
    models: Sequence[str] = (),
    activations: Sequence[str] = (),
    profile: str | None = None,
    configs: Sequence[str] = (),
    *,
    include_synthetic: bool = False,
) -> Study:
    """The newest comparable results of a folder, of some models, activations or a profile only where those are named."""
    from repro_lib.analysis import Study

    asked = {"models": models or None, "activations": activations or None, "profile": profile, "configs": configs}
    study = Study.load(Store(results_dir), **asked, include_synthetic=include_synthetic)
    if not study.results:
        refused = f" ({len(study.refused)} files were refused: {study.refused[0]})" if study.refused else ""
        synthetic = sum(result.synthetic for _, result in Store(results_dir).load()[0])
        left_out = f" but {synthetic} synthetic ones (repro process --include-synthetic shows them)" if synthetic else ""
        raise NothingToShow(f"no results yet in {results_dir}{left_out}{refused}; run ./run_papermill.sh or repro grid first")
    return study


def summarise_store(study: Study, results_dir: Path, reports_dir: Path, *, plots: bool, claims: bool = True) -> str:
    """The text of ``repro process``; it is also written to ``summary.txt``, with the plots beside it.

    ``claims``: also the ledger of claims, ``FINAL_CONCLUSIONS.md`` and ``claims.json``; never of a study that holds synthetic
    results.
    """
    from repro_lib.evidence import Evidence
    from repro_lib.summary_text import summary_text

    # What is written now is of this study; until the grid says otherwise it is not the grid's own.
    (reports_dir / "plots" / _INPUTS_NOTE).unlink(missing_ok=True)
    evidence = Evidence.load(Store(results_dir), study)
    text = summary_text(study, evidence)
    write_atomically(reports_dir / "summary.txt", text)
    if claims and not any(result.synthetic for result in study.results):
        write_conclusions(study, evidence, reports_dir)
    if plots:
        save_plots(study, reports_dir / "plots")
    return text


def write_conclusions(study: Study, evidence: Evidence, reports_dir: Path) -> None:
    """``FINAL_CONCLUSIONS.md`` for people and ``claims.json`` for programs."""
    from repro_lib.conclusions import claims_json, conclusions_markdown, ledger

    entries = ledger(evidence)
    write_atomically(reports_dir / "FINAL_CONCLUSIONS.md", conclusions_markdown(study, evidence, entries))
    write_atomically(reports_dir / "claims.json", claims_json(study, evidence, entries))


def write_synthetic_summary(results_dir: Path, reports_dir: Path, made: Sequence[Result] = ()) -> Path:
    """Store these synthetic results, then write ``SYNTHETIC_DATA_SUMMARY.md`` about all that the folder holds."""
    from repro_lib.synthetic_summary import synthetic_summary

    store, path = Store(results_dir), reports_dir / "SYNTHETIC_DATA_SUMMARY.md"
    for result in made:
        store.save(result)
    write_atomically(path, synthetic_summary(store.load()[0]))
    return path


def save_plots(study: Study, folder: Path) -> None:
    """Every plot of the study as PNG, with its alternative text in a file beside it."""
    from repro_lib.plots import all_plots

    for plot in all_plots(study):
        write_atomically(folder / f"{plot.name}.png", plot.png())
        write_atomically(folder / f"{plot.name}.txt", plot.alt + "\n")


def write_summary(
    results_dir: Path, reports_dir: Path, profile: str | None, configs: Sequence[str], inputs: Sequence[str]
) -> None:
    """The grid's last step: summary and plots, with a note of the results they were made from."""
    summarise_store(load_study(results_dir, profile=profile, configs=configs), results_dir, reports_dir, plots=True)
    write_atomically(reports_dir / "plots" / _INPUTS_NOTE, json.dumps(_digest(inputs)) + "\n")


def summary_is_current(reports_dir: Path, inputs: Sequence[str]) -> bool:
    """Whether summary and plots were made from just these results."""
    try:
        noted = json.loads((reports_dir / "plots" / _INPUTS_NOTE).read_text())
        written = [reports_dir / name for name in ("summary.txt", "FINAL_CONCLUSIONS.md", "claims.json")]
        return noted == _digest(inputs) and all(path.is_file() for path in written)
    except (OSError, ValueError):
        return False


def print_cells(console: Console, results_dir: Path, cells: Sequence[Cell]) -> None:
    """A table of these cells' results."""
    store, table = Store(results_dir), Table(title="relative PD between trials, 0 (same) to 2")
    for heading in ("model", "activation", "trials", "relative PD", "churn", "loss, nats", "accuracy, %", "flags"):
        table.add_column(heading, justify="left" if heading in ("model", "activation", "flags") else "right")
    for cell in cells:
        result = cell.result(store)
        if result is None:
            table.add_row(cell.model, cell.activation, *["–"] * 5, "missing")
            continue
        churn = result.reproducibility_metrics.get("churn")
        numbers = [_rounded(result.avg_relative_pd, 4), _rounded(churn, 4), _rounded(result.avg_val_loss, 4)]
        flags = "; ".join(result.flags)
        table.add_row(
            cell.model, cell.activation, str(len(result.trials)), *numbers, _rounded(result.avg_val_accuracy, 2), flags
        )
    console.print(table)


def print_status(console: Console, results_dir: Path, cells: Sequence[Cell]) -> int:
    """What of these cells is done, in work, failed or missing; which files were refused. Exit code 0: all done, 1: not yet."""
    store = Store(results_dir)
    failures = {
        (note["model_name"], note["activation"], note.get("config_sha256")): note["reason"] for note in store.failures()
    }
    done = 0
    for cell in cells:
        result = cell.result(store)
        if result:
            done += 1
            pd = _rounded(result.avg_relative_pd, 4)
            said = f"done, {len(result.trials)} trials, relative PD {pd}, {result.timestamp:%Y-%m-%d %H:%M} UTC"
        elif at_work := cell_holders(results_dir, cell.model, cell.activation, cell.config_sha256):
            # A process holds a lease of the cell and one of each trial that it has in work.
            since = {(one.process.pid, one.host): one.since for one in sorted(at_work, key=lambda one: one.since, reverse=True)}
            said = "in work: " + ", ".join(f"process {pid} on {host} since {when}" for (pid, host), when in since.items())
        elif reason := failures.get((cell.model, cell.activation, cell.config_sha256)):
            said = f"FAILED: {reason}"
        else:
            said = "missing"
        console.print(f"{cell.label:<28} {said}", markup=False, soft_wrap=True)
    for sentence in store.load()[1]:
        console.print(f"refused: {sentence}", markup=False, soft_wrap=True)
    print_damaged(console, results_dir)
    console.print(f"{done} of {len(cells)} cells done in {results_dir}", soft_wrap=True)
    return 0 if done == len(cells) else 1


def print_damaged(console: Console, results_dir: Path) -> None:
    """A line for each damaged checkpoint that was put aside: training went on without it, but a disk may be failing."""
    from repro_lib.checkpoints import put_aside

    for path in put_aside(Store(results_dir)):
        console.print(f"damaged: {path}; training went on from what is older, delete it once it was looked at", soft_wrap=True)


def build_reports(study: Study, results_dir: Path, reports_dir: Path, profile: str | None) -> SiteReport:
    """Render whatever notebook is executed, with an index over the expected cells."""
    (reports_dir / "plots" / _INPUTS_NOTE).unlink(missing_ok=True)
    save_plots(study, reports_dir / "plots")
    cells = [(model, activation) for model in study.models for activation in study.activations]
    return publish(results_dir, reports_dir, cells, profile, running=False)


def publish(
    results_dir: Path,
    reports_dir: Path,
    cells: Sequence[tuple[str, str]],
    profile: str | None,
    configs: Sequence[str] = (),
    *,
    running: bool,
) -> SiteReport:
    """Bring the site up to date with the executed notebooks and results that are there."""
    from repro_lib import in_short
    from repro_lib.analysis import Study
    from repro_lib.site_pages import build_site

    study = Study.load(Store(results_dir), profile=profile, configs=configs)
    measured = study.cells.dropna(subset=["relative_pd_low"])
    bounds = zip(measured["relative_pd_low"], measured["relative_pd_high"], strict=True)
    intervals = dict(zip(zip(measured["model"], measured["activation"], strict=True), bounds, strict=True))
    # Of the cells that the index shows: a run of two models misses no third one.
    there = [*cells, *((result.model_name, result.activation) for result in study.results)]
    models, activations = (list(dict.fromkeys(names)) for names in zip(*there, strict=True)) if there else ([], [])
    said = in_short.grid(Study.of(study.results, models, activations, study.refused)) if study.results else []
    shown = {"intervals": intervals, "in_short": said, "profile": profile, "configs": configs}
    return build_site(results_dir, reports_dir, cells, running=running, **shown)


def _rounded(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _digest(inputs: Sequence[str]) -> str:
    return hashlib.sha256(canonical_json(list(inputs)).encode()).hexdigest()
