"""The commands and their flags."""

# Imports neither torch nor pandas, so that ``repro --help`` answers at once.

from __future__ import annotations

import argparse
import difflib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, get_args

from repro_lib import __version__
from repro_lib.analysis.notes import visible
from repro_lib.config import (
    ACTIVATIONS,
    DEVICES,
    GRID_ACTIVATIONS,
    MARGIN,
    MODEL_DEFAULTS,
    PROFILES,
    REFERENCE,
    Config,
    project_root,
)
from repro_lib.report.notebook_names import ANALYSES

# No flags of the configuration: the corpus has one of its own, with another help, and the text decides on the vocabulary.
_NOT_A_FLAG = {"corpus", "vocab_size"}
_GRID = ("the profile's", f"{' '.join(GRID_ACTIVATIONS)}; with --factor {REFERENCE}")
_PROFILES = "; ".join([*(f"{name}: {profile['about']}" for name, profile in PROFILES.items()), "default: quick"])
_CORPUS_HELP = "a name of repro prepare-data --list, or the path of a text file; default: shakespeare"
_NORMALISE_HELP = "use a copy of the text, in data/, without byte-order marks, carriage returns and NULs, and in the form NFC"
_COMPARE = "your own models: how much they disagree, and whether two recipes differ in that; exit code 3: a gate failed"
_CLEAN = "name what nothing needs any more (leftovers of killed runs, trials that no result names), ask, and remove it"


_FIRST = """what to do first:
  repro grid                       the whole grid, the analysis and the report site, in minutes
  repro status                     what of it is done
  repro compare A.npy B.npy        your own models' predictions
  repro COMMAND --help             all that a command takes"""


class _Parser(argparse.ArgumentParser):
    def _print_message(self, message: str, file: Any = None) -> None:
        super()._print_message(visible(message), file)

    def error(self, message: str) -> NoReturn:
        # Those of all commands: what complains of words left over is the parser above them.
        words, among = re.search(r"(?:arguments: |choice: ')([\w-]+)", message), message.partition("choose from")[2]
        flags = [flag for command in self.commands.values() for flag in command._option_string_actions]
        near = difflib.get_close_matches(words[1], re.findall("'([^']+)'", among) or flags, 1) if words else []
        takers = [name for name, command in self.commands.items() if words and words[1] in command._option_string_actions]
        meant = [f"{near[0]} is of repro {', '.join(takers)}"] if takers else [f"did you mean {name}?" for name in near]
        # Not the usage, which may be forty lines: the flags are many.
        self.exit(2, f"{self.prog}: {'; '.join([message, *meant])} ({self.prog} --help says more)\n")

    @property
    def commands(self) -> dict[str, argparse.ArgumentParser]:
        """Its commands by name."""
        subparsers = (action.choices for action in self._actions if isinstance(action, argparse._SubParsersAction))
        return dict(next(subparsers, {}))


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command line; ``command`` among its options names the command."""
    parser = _Parser(
        prog="repro",
        description="Does the choice of activation function change how reproducible a small language model's predictions are?",
        epilog=_FIRST,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"repro {__version__}", help="print the version and exit")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name: str, about: str) -> argparse.ArgumentParser:
        # Abbreviated flags are refused: --max-iter would be taken for --max-iters today and for another flag tomorrow.
        sub = commands.add_parser(name, help=about, description=about, allow_abbrev=False)
        for folder in ("results", "reports"):
            # Of the project, not of the current folder: the notebooks look there too, from wherever they are opened.
            default = project_root() / folder
            sub.add_argument(f"--{folder}-dir", type=_folder, default=default, metavar="DIR", help=f"default: {folder}/")
        about = "where texts are found again, beside data/; default: the variable REPRO_CORPUS_DIR"
        sub.add_argument("--corpus-dir", type=_folder, metavar="DIR", help=about)
        sub.set_defaults(command=name)
        return sub

    prepare = add("prepare-data", "fetch and check a corpus")
    prepare.add_argument("--corpus", default="shakespeare", help=_CORPUS_HELP)
    prepare.add_argument("--normalise", action="store_true", help=_NORMALISE_HELP)
    prepare.add_argument("--list", action="store_true", help="the named corpora: size, characters, language, licence")
    train = add("train", "train cells without notebooks, at the model's full size unless a profile is given")
    _add_selection(train, ("", " ".join(GRID_ACTIVATIONS)))
    train.add_argument("--profile", metavar="NAME", help=f"one of {', '.join(PROFILES)}; default: none, full size")
    _add_running(train)
    _add_grid(add("grid", "run the notebooks of all cells, the analysis and the report site"))
    _add_readers(add)
    notebooks = add("notebooks", "copy the notebooks into a folder, over no file that is there")
    notebooks.add_argument("folder", type=_folder, metavar="DIR", help="made if need be")
    _add_clean(add("clean", _CLEAN))
    _add_synthesize(add("synthesize", "make synthetic results, for demonstrations and scale tests only"))
    # Not in the list of commands: workflow/Snakefile calls it.
    job = commands.add_parser("run-job", description="do one job of a plan that workflow/Snakefile wrote", allow_abbrev=False)
    job.add_argument("plan", type=Path, help="the plan")
    job.add_argument("key", help="the job's name in it")
    job.set_defaults(command="run-job")
    _add_doctor(add("doctor", "is this machine ready, and does it repeat itself?"))
    _add_compare(add("compare", _COMPARE))
    return parser


def _add_readers(add: Callable[[str, str], argparse.ArgumentParser]) -> None:
    # The commands that show what is there.
    process = add("process", "print the tables, write summary.txt and draw the plots from what is there")
    _add_selection(process)
    process.add_argument("--no-plots", action="store_true", help="tables only")
    about = "judge equality by another margin, as exploratory, in exploratory/ of the reports folder; default: as declared"
    process.add_argument("--margin", type=float, metavar="PER_CENT", help=about)
    about = "show synthetic results where nothing is measured, marked, in with_synthetic/ of the reports folder"
    process.add_argument("--include-synthetic", action="store_true", help=about)
    report = add("report", "turn the executed notebooks into the HTML site")
    _add_selection(report)
    export = add("export", "write the tables of a study for other tools, with a dictionary of their columns")
    export.add_argument("folder", type=_folder, metavar="DIR", help="made if need be; an earlier export in it is replaced")
    forms = ("csv", "parquet", "latex")
    export.add_argument("--format", choices=forms, default="csv", help="default: csv; parquet needs pyarrow")
    export.add_argument("--figures", action="store_true", help="the figures as SVG and PDF, too")
    _add_selection(export)
    for reader in (process, report, export):
        reader.add_argument("--profile", metavar="NAME", help="whose results; default: the newest")
    status = add("status", "what is done, what failed, what is missing")
    _add_selection(status, _GRID)
    about = "the run of your own whose configuration begins so, in config-DIGITS/ of the reports folder; default: the grid's"
    for reader in (process, report, export, status):
        reader.add_argument("--config", metavar="DIGITS", help=about)
    _add_beside(status)
    _add_configuration(status)


def _add_grid(grid: argparse.ArgumentParser) -> None:
    _add_selection(grid, _GRID)
    _add_beside(grid)
    about = "what runs the cells: processes of this command, or Snakemake, which gets all behind --; default: local"
    grid.add_argument("--executor", choices=("local", "snakemake"), default="local", help=about)
    about = "Snakemake's settings: a folder, or one of workflow/profiles (local, slurm); default: local"
    grid.add_argument("--profile-dir", metavar="DIR", help=about)
    about = "train so many trials of a cell in a job of their own, beside the others; default: all of a cell in one"
    grid.add_argument("--trials-per-job", type=int, metavar="N", help=about)
    about = f"of {', '.join(ANALYSES)}, all or none; default: those that find something to compare"
    grid.add_argument("--analyses", nargs="+", choices=(*ANALYSES, "all", "none"), default=[], metavar="NAME", help=about)
    _add_running(grid)


def _add_beside(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--profile", default="quick", metavar="NAME", help=_PROFILES)
    about = (
        "models for which each source of randomness alone and shorter runs are made too; with no name: for none; "
        "default: those of the profile where its models are run"
    )
    parser.add_argument("--noise-models", nargs="*", metavar="NAME", help=about)
    about = "a setting and its values, in which the arms of the grid differ, instead of activations or crossed with them; "
    about += "x2 is twice what the profile has: dropout 0 0.1 0.3, batch_size x1 x4; default: none"
    parser.add_argument("--factor", nargs="+", default=[], metavar=("NAME", "VALUE"), help=about)
    about = "the arm that others are compared with: an activation, or a value of --factor; default: relu, or the first"
    parser.add_argument("--reference", metavar="ARM", help=about)
    for name, of, why in (
        ("lengths", "number of iterations", "for contrasts at equal loss: 0.5 0.8 1.2"),
        ("rates", "learning rate", "to see whether one rate favours an activation: 0.5 2"),
    ):
        about = f"also run every cell with these multiples of its {of}, {why}; default: none"
        parser.add_argument(f"--{name}", nargs="+", type=float, default=[], metavar="X", help=about)


def _add_doctor(doctor: argparse.ArgumentParser) -> None:
    doctor.add_argument("--corpus", default="shakespeare", help="the corpus to look for, or to train on; default: shakespeare")
    about = "train small cells in many ways, one of them killed, and compare all digests; exit code 0 if all are the same"
    doctor.add_argument("--determinism", action="store_true", help=about)
    about = "ask trained models in other batch sizes, threads and precision, and say how far their predictions move"
    doctor.add_argument("--inference", action="store_true", help=about)
    doctor.add_argument("--device", choices=DEVICES, default="cpu", help="with --determinism: where to train; default: cpu")


def _add_compare(compare: argparse.ArgumentParser) -> None:
    formats = ".npy, .npz, .safetensors, .parquet, .csv, .jsonl of lm-evaluation-harness; FILE:NAME takes one column or array"
    about = f"a file per trained model: {formats}; results:MODEL-ACTIVATION takes the trials of a stored cell"
    compare.add_argument("predictions", nargs="+", metavar="FILE", help=about)
    compare.add_argument("--against", nargs="+", metavar="FILE", help="the models of another recipe; default: none")
    compare.add_argument("--labels", metavar="FILE", help="the right answers, for accuracy and flips; default: none")
    kinds = ("auto", "probabilities", "logits", "event", "classes", "texts")
    compare.add_argument("--kind", choices=kinds, default="auto", help="what the files hold; default: auto, found out")
    about = f"two arms are equal within so many per cent of the reference; default: {MARGIN:g}"
    compare.add_argument("--margin", type=float, default=MARGIN, metavar="PER_CENT", help=about)
    compare.add_argument("--paired", action="store_true", help="file k of both arms was trained with the same seed")
    compare.add_argument("--update", action="store_true", help="FILE... replace those of --against")
    about = "exit with 3 where the interval shows it: by its lower bound for >, its upper one for <; repeatable; default: none"
    compare.add_argument("--fail-if", action="append", default=[], metavar="'churn > 0.05'", help=about)
    compare.add_argument("--html", metavar="FILE", help="write a page with figure and tables; default: none")
    compare.add_argument("--json", metavar="FILE", help="write every number; default: nowhere")


def _add_clean(clean: argparse.ArgumentParser) -> None:
    for flag, kind, lost in (("weights", "weights", "write no text"), ("snapshots", "steps", "show no training")):
        about = f"all stored {flag} too; deep dives then {lost}"
        clean.add_argument(f"--{flag}", action="append_const", dest="kinds", const=kind, default=[], help=about)
    clean.add_argument("--yes", action="store_true", help="do not ask")


def _add_selection(parser: argparse.ArgumentParser, defaults: tuple[str, str] = ("all there are", "all there are")) -> None:
    # Without a default for models these have to be named.
    several: dict[str, Any] = {"nargs": "+", "metavar": "NAME", "default": []}
    about = f"of {', '.join(MODEL_DEFAULTS)}" + (f"; default: {defaults[0]}" if defaults[0] else "")
    parser.add_argument("--models", "--model", **several, required=not defaults[0], help=about)
    about = f"of {', '.join(ACTIVATIONS)}, smelu_<beta>; default: {defaults[1]}"
    parser.add_argument("--activations", "--activation", **several, help=about)


def _add_running(parser: argparse.ArgumentParser) -> None:
    about = "two activations count as equal within so many per cent of the reference; declared once, before the first result"
    parser.add_argument("--margin", type=float, metavar="PER_CENT", help=f"{about}; default: {MARGIN:g}")
    about = "processes, one thread each; default: one per core, for CUDA one per card"
    parser.add_argument("--workers", type=int, metavar="N", help=about)
    parser.add_argument("--force", action="store_true", help="train again what is done already")
    about = "stop a cell or notebook that is still at work after so long; default: half an hour and 20 times its estimate"
    parser.add_argument("--cell-timeout", type=float, metavar="SECONDS", help=about)
    about = "save the state of each trial this often, so that a killed run goes on from there; default: 30"
    parser.add_argument("--checkpoint-seconds", type=float, default=30.0, metavar="S", help=about)
    _add_configuration(parser)


def _add_configuration(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--corpus", help=_CORPUS_HELP)
    parser.add_argument("--normalise", action="store_true", help=_NORMALISE_HELP)
    # From Config itself, so that no value can lack its flag. None is not given: profile and model decide then.
    settings = parser.add_argument_group("configuration", "each overrides the profile, which overrides the model's default")
    for name, field in Config.model_fields.items():
        if name not in _NOT_A_FLAG:
            kind = field.annotation if field.annotation in (int, float) else str
            choices = get_args(field.annotation) or None
            flag, about = f"--{name.replace('_', '-')}", f"{field.description}; default: the profile's"
            settings.add_argument(flag, type=kind, choices=choices, metavar=name.upper(), help=about)


def _add_synthesize(parser: argparse.ArgumentParser) -> None:
    _add_selection(parser, _GRID)
    parser.add_argument("--profile", metavar="NAME", help="default: quick; with --missing whose gaps, default: the newest")
    parser.add_argument("--trials", type=int, metavar="N", help="made-up trials per cell; default: 3")
    about = "a number between 0 and 2, or NAME=number for a model, an activation or model-activation; default: 0.5"
    parser.add_argument("--relative-pd", nargs="+", default=[], metavar="PD", help=about)
    parser.add_argument("--seed", type=int, help="of the made-up numbers; default: 42")
    parser.add_argument("--missing", action="store_true", help="fill the gaps of the results folder instead")


def _folder(name: str) -> Path:
    if not name:
        raise argparse.ArgumentTypeError("a folder's name is empty; is a variable unset?")
    return Path(os.path.expanduser(name))
