"""The arguments of the command line, and what they ask for. The only module that parses arguments."""

# Imports neither torch nor pandas, so that ``repro --help`` answers at once.

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from repro_lib.analysis.notes import visible
from repro_lib.config import (
    ACTIVATIONS,
    DEVICES,
    GRID_ACTIVATIONS,
    MARGIN,
    MODEL_DEFAULTS,
    PROFILES,
    Config,
    ConfigError,
    project_root,
)

if TYPE_CHECKING:
    from repro_lib.grid.cells import GridRequest

# No flags of the configuration: the corpus has one of its own, with another help, and the text decides on the vocabulary.
_NOT_A_FLAG = {"corpus", "vocab_size"}
# Flags that take several words, and those of a grid that say by what it is run.
_SEVERAL = {"models", "activations", "noise_models"}
_HOW_IT_IS_EXECUTED = {"command", "executor", "profile_dir", "engine_options", "workers"}


def parse(given: Sequence[str]) -> argparse.Namespace:
    """The options of a command line; ``command`` among them names the command. Exits with 2 where it makes no sense."""
    parser = _parser()
    # What stands behind -- is for Snakemake, in its own spelling.
    own = given[: given.index("--")] if "--" in given else given
    for word in given:
        # Bytes that are no text, which neither pages nor result files can hold, arrive as lone surrogates.
        if any("\ud800" <= character <= "\udfff" for character in word):
            parser.error(f"{repr(os.fsencode(word))[1:]} is not UTF-8; rename it, or choose another")
    options = parser.parse_args([_hyphenated(word) for word in own])
    folders = [getattr(options, name, None) for name in ("results_dir", "reports_dir")]
    if folders[0] and folders[1] and folders[0].resolve() == folders[1].resolve():
        parser.error(f"results and reports need a folder each, got {folders[0]} for both")
    options.engine_options = list(given[len(own) + 1 :])
    if options.engine_options and options.command != "grid":
        parser.error(f"only repro grid --executor snakemake takes options behind --, got {' '.join(options.engine_options)}")
    return options


def overrides(options: argparse.Namespace) -> dict[str, Any]:
    """The configuration values that were given on the command line."""
    given = {name: value for name in Config.model_fields if (value := getattr(options, name, None)) is not None}
    if "corpus" in given:
        given["corpus"] = one_path(given["corpus"])
    return given


def one_path(corpus: str) -> str:
    """Notebooks run in their own folder, so the path of a text must not depend on where the command was given.
    The name of a known corpus is that name, also where a file is called so; ``./shakespeare`` is the file."""
    if not (path := Path(os.path.expanduser(corpus))).is_file():
        return corpus
    from repro_lib.data import CORPORA

    return corpus if corpus in CORPORA else str(path.resolve())


def _folder(name: str) -> Path:
    if not name:
        raise argparse.ArgumentTypeError("a folder's name is empty; is a variable unset?")
    return Path(os.path.expanduser(name))


def request_of(options: argparse.Namespace) -> GridRequest:
    """What ``repro train`` and ``repro grid`` were asked for. ConfigError for numbers that are not possible."""
    from repro_lib.grid.cells import GridRequest
    from repro_lib.store.store import check_margin
    from repro_lib.training.checkpoints import check_interval

    workers = options.workers if options.workers is not None else _usual_workers(options)
    # repro train has no such flag: it trains a cell in one piece.
    per_job = getattr(options, "trials_per_job", None)
    for flag, count in (("--workers", workers), ("--trials-per-job", per_job)):
        if count is not None and count < 1:
            raise ConfigError(f"{flag} must be at least 1, got {count}")
    if options.cell_timeout is not None and not options.cell_timeout > 0:
        raise ConfigError(f"--cell-timeout must be more than 0 seconds, got {options.cell_timeout}")
    return GridRequest(
        **{name: getattr(options, name) for name in ("models", "activations", "profile", "force", "cell_timeout")},
        overrides=overrides(options),
        workers=workers,
        results_dir=options.results_dir.resolve(),
        reports_dir=options.reports_dir.resolve(),
        checkpoint_seconds=check_interval(options.checkpoint_seconds),
        noise_models=noise_models(options),
        trials_per_job=per_job,
        margin=None if options.margin is None else check_margin(options.margin),
    )


def grid_request(config: Mapping[str, Any]) -> GridRequest:
    """The request of settings of ``workflow/Snakefile``, which are the flags of ``repro grid``.
    A wrong one ends the program with a sentence, as on the command line; wrong values raise what they raise there."""
    words = ["grid"]
    for name, value in config.items():
        if name != "skip" and value is not None and value is not False:
            given = value if isinstance(value, list) else str(value).split() if name in _SEVERAL else [value]
            words += [f"--{name.replace('_', '-')}", *(str(word) for word in given if value is not True)]
    return request_of(_parser().parse_args(words))


def snakemake_config(options: argparse.Namespace) -> dict[str, Any]:
    """The flags of a grid as settings of ``workflow/Snakefile``: the way back."""
    given = {name: value for name, value in vars(options).items() if name not in _HOW_IT_IS_EXECUTED}
    # A flag without words says something of --noise-models alone.
    chosen = {name: value for name, value in given.items() if value is not None and (value != [] or name == "noise_models")}
    folders = {name: str(chosen[name].resolve()) for name in ("results_dir", "reports_dir")}
    return chosen | folders | {name: one_path(chosen[name]) for name in {"corpus"} & chosen.keys()}


def noise_models(options: argparse.Namespace) -> Sequence[str] | None:
    """Those asked for; None (the profile's own) for a whole profile, none for a selection of models."""
    asked = getattr(options, "noise_models", None)
    return () if asked is None and options.models else asked


def _usual_workers(options: argparse.Namespace) -> int:
    from repro_lib.grid.worker_process import visible_cards
    from repro_lib.system.processes import usable_cores

    # A card is not shared: a second process on it would take memory and wait its turn.
    on_cards = "cuda" in (options.device, PROFILES.get(options.profile, {}).get("values", {}).get("device"))
    return max(1, len(visible_cards())) if on_cards else usable_cores()


def _hyphenated(word: str) -> str:
    # The earlier study's --max_iters=5 is as good as our spelling. Of the flag alone: a value, such as a file's name, stays.
    flag, equals, value = word.partition("=")
    return flag.replace("_", "-") + equals + value if word.startswith("--") else word


class _Parser(argparse.ArgumentParser):
    def _print_message(self, message: str, file: Any = None) -> None:
        super()._print_message(visible(message), file)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="repro",
        description="Does the choice of activation function change how reproducible a small language model's predictions are?",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name: str, about: str) -> argparse.ArgumentParser:
        # Abbreviated flags are refused: --max-iter would be taken for --max-iters today and for another flag tomorrow.
        sub = commands.add_parser(name, help=about, description=about, allow_abbrev=False)
        for folder in ("results", "reports"):
            # Of the project, not of the current folder: the notebooks look there too, from wherever they are opened.
            default = project_root() / folder
            sub.add_argument(f"--{folder}-dir", type=_folder, default=default, metavar="DIR", help=f"default: {folder}/")
        sub.set_defaults(command=name)
        return sub

    prepare = add("prepare-data", "fetch and check a corpus")
    prepare.add_argument("--corpus", default="shakespeare", help="shakespeare, tinyshakespeare, or the path of a text file")
    train = add("train", "train cells without notebooks, at the model's full size unless a profile is given")
    _add_selection(train, required=True)
    train.add_argument("--profile", metavar="NAME", help=f"one of {', '.join(PROFILES)}; default: none")
    _add_running(train)
    _add_grid(add("grid", "run the notebooks of all cells, the analysis and the report site"))
    process = add("process", "print the tables, write summary.txt and draw the plots from what is there")
    _add_selection(process, required=False, activations=())
    process.add_argument("--no-plots", action="store_true", help="tables only")
    about = "judge equality by another margin, marked as exploratory, in exploratory/ of the reports folder"
    process.add_argument("--margin", type=float, metavar="PER_CENT", help=about)
    about = "show synthetic results where nothing is measured, marked, in with_synthetic/ of the reports folder"
    process.add_argument("--include-synthetic", action="store_true", help=about)
    report = add("report", "turn the executed notebooks into the HTML site")
    _add_selection(report, required=False, activations=())
    export = add("export", "write the tables of a study for other tools, with a dictionary of their columns")
    _add_export(export)
    for reader in (process, report, export):
        reader.add_argument("--profile", metavar="NAME", help="whose results; default: the newest")
    status = add("status", "what is done, what failed, what is missing")
    _add_selection(status, required=False)
    status.add_argument("--profile", default="quick", metavar="NAME", help=_profiles_help())
    _add_configuration(status)
    notebooks = add("notebooks", "copy the notebooks into a folder, over no file that is there")
    notebooks.add_argument("folder", type=_folder, metavar="DIR", help="made if need be")
    about = "name what nothing needs any more (leftovers of killed runs, trials that no result names), ask, and remove it"
    clean = add("clean", about)
    for flag, kind, lost in (("weights", "weights", "write no text"), ("snapshots", "steps", "show no training")):
        about = f"all stored {flag} too; deep dives then {lost}"
        clean.add_argument(f"--{flag}", action="append_const", dest="kinds", const=kind, default=[], help=about)
    clean.add_argument("--yes", action="store_true", help="do not ask")
    _add_synthesize(add("synthesize", "make synthetic results, for demonstrations and scale tests only"))
    # Not in the list of commands: workflow/Snakefile calls it.
    job = commands.add_parser("run-job", description="do one job of a plan that workflow/Snakefile wrote", allow_abbrev=False)
    job.add_argument("plan", type=Path, help="the plan")
    job.add_argument("key", help="the job's name in it")
    job.set_defaults(command="run-job")
    _add_doctor(add("doctor", "is this machine ready?"))
    return parser


def _add_grid(grid: argparse.ArgumentParser) -> None:
    _add_selection(grid, required=False)
    grid.add_argument("--profile", default="quick", metavar="NAME", help=_profiles_help())
    about = (
        "models for which each source of randomness alone and shorter runs are made too; with no name: for none; "
        "default: those of the profile where its models are run"
    )
    grid.add_argument("--noise-models", nargs="*", metavar="NAME", help=about)
    about = "what runs the cells: processes of this command, or Snakemake, which gets all behind --; default: local"
    grid.add_argument("--executor", choices=("local", "snakemake"), default="local", help=about)
    about = "Snakemake's settings: a folder, or one of workflow/profiles (local, slurm); default: local"
    grid.add_argument("--profile-dir", metavar="DIR", help=about)
    about = "train so many trials of a cell in a job of their own, beside the others; default: all of a cell in one"
    grid.add_argument("--trials-per-job", type=int, metavar="N", help=about)
    _add_running(grid)


def _add_doctor(doctor: argparse.ArgumentParser) -> None:
    doctor.add_argument("--corpus", default="shakespeare", help="the corpus to look for, or to train on")
    about = "train small cells in many ways, one of them killed, and compare all digests; exit code 0 if all are the same"
    doctor.add_argument("--determinism", action="store_true", help=about)
    doctor.add_argument("--device", choices=DEVICES, default="cpu", help="with --determinism: where to train; default: cpu")


def _add_export(export: argparse.ArgumentParser) -> None:
    export.add_argument("folder", type=_folder, metavar="DIR", help="made if need be; an earlier export in it is replaced")
    forms = ("csv", "parquet", "latex")
    export.add_argument("--format", choices=forms, default="csv", help="default: csv; parquet needs pyarrow")
    export.add_argument("--figures", action="store_true", help="the figures as SVG and PDF, too")
    _add_selection(export, required=False, activations=())


def _add_selection(parser: argparse.ArgumentParser, *, required: bool, activations: Sequence[str] = GRID_ACTIVATIONS) -> None:
    several: dict[str, Any] = {"nargs": "+", "metavar": "NAME"}
    about = f"of {', '.join(MODEL_DEFAULTS)}"
    parser.add_argument("--models", "--model", **several, default=[], required=required, help=about)
    about = f"of {', '.join(ACTIVATIONS)}, smelu_<beta>"
    parser.add_argument("--activations", "--activation", **several, default=list(activations), help=about)


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
    parser.add_argument("--corpus", help="shakespeare, tinyshakespeare, or the path of a text file")
    # From Config itself, so that no value can lack its flag. None is not given: profile and model decide then.
    settings = parser.add_argument_group("configuration", "each overrides the profile and the model's default")
    for name, field in Config.model_fields.items():
        if name not in _NOT_A_FLAG:
            kind = field.annotation if field.annotation in (int, float) else str
            choices = get_args(field.annotation) or None
            flag = f"--{name.replace('_', '-')}"
            settings.add_argument(flag, type=kind, choices=choices, metavar=name.upper(), help=field.description)


def _add_synthesize(parser: argparse.ArgumentParser) -> None:
    _add_selection(parser, required=False, activations=())
    parser.add_argument("--profile", metavar="NAME", help="default: quick; with --missing whose gaps, default: the newest")
    parser.add_argument("--trials", type=int, metavar="N", help="made-up trials per cell; default: 3")
    about = "a number between 0 and 2, or NAME=number for a model, an activation or model-activation; default: 0.5"
    parser.add_argument("--relative-pd", nargs="+", default=[], metavar="PD", help=about)
    parser.add_argument("--seed", type=int, help="of the made-up numbers; default: 42")
    parser.add_argument("--missing", action="store_true", help="fill the gaps of the results folder instead")


def _profiles_help() -> str:
    # argparse formats help texts with %.
    return "; ".join(f"{name}: {profile['about']}" for name, profile in PROFILES.items()).replace("%", "%%")
