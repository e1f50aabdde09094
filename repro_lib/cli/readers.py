"""The commands that show what is there: ``repro process``, ``repro report``, ``repro export``. Each returns its exit code."""

from argparse import Namespace
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from repro_lib.analysis.study import Study, load_study
from repro_lib.report import publish
from repro_lib.report.export import export as export_tables
from repro_lib.store.store import check_margin


def process(options: Namespace, console: Console) -> int:
    """Print the tables of a study, write them to ``summary.txt`` and draw its plots."""
    study, folder = _study(options, options.include_synthetic)
    # A folder of their own: the report site shows what lies in plots/, and it shows nothing synthetic.
    folder = folder / "with_synthetic" if options.include_synthetic else folder
    if options.margin is not None and check_margin(options.margin) != study.margin:
        study, folder = replace(study, margin=options.margin), folder / "exploratory"
    # A ledger of claims over part of the grid would take the place of the whole one.
    whole = not options.models and not options.activations and options.config is None
    with console.status("comparing trials and drawing plots"):
        text = publish.summarise_store(study, options.results_dir, folder, plots=not options.no_plots, claims=whole)
    console.print(text)
    if options.include_synthetic:
        publish.write_synthetic_summary(options.results_dir, options.reports_dir)
    if folder != options.reports_dir:
        console.print(f"summary and plots are in {folder}")
    return 0


def report(options: Namespace, console: Console) -> int:
    """Make pages of the executed notebooks, and the index over them; of one configuration the index alone."""
    with console.status("rendering the executed notebooks"):
        study, folder = _study(options)
        site = publish.build_reports(study, options.results_dir, folder, options.profile, options.config)
    for problem in site.problems:
        console.print(problem, style="red")
    console.print(f"the reports are in {site.index}")
    return 1 if site.problems else 0


def export(options: Namespace, console: Console) -> int:
    """Write the tables of a study into a folder, for other tools."""
    with console.status("writing tables"):
        files = export_tables(_study(options)[0], options.folder, options.format, figures=options.figures)
    console.print(f"{len(files)} files are in {options.folder}; dictionary.csv says what each column is")
    return 0


def _study(options: Namespace, include_synthetic: bool = False) -> tuple[Study, Path]:
    # And where it is shown: what is asked for beside the grid does not take the place of the grid's own reports.
    asked = (options.results_dir, options.models, options.activations, options.profile)
    study = load_study(*asked, config=options.config, include_synthetic=include_synthetic)
    own = f"config-{study.results[0].config_sha256[:8]}" if options.config is not None else ""
    return study, options.reports_dir / own
