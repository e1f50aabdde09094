"""The command line: ``repro`` or ``python -m repro_lib``. One function per command, and what all say when they fail.

Heavy modules are imported inside the commands, so that ``repro --help`` loads neither torch nor pandas.
"""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from repro_lib.cli_parser import noise_models, one_path, overrides, parse, request_of, snakemake_config
from repro_lib.config import GRID_ACTIVATIONS, PROFILES, Config, check_profile
from repro_lib.files import WriteError

if TYPE_CHECKING:
    from argparse import Namespace

# 2 is what argparse exits with too: in both cases nothing was begun, and only another command line will help.
_FAILED, _BAD_INPUT = 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 1 something failed, 2 bad input, 130 (143) interrupted (by SIGTERM)."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    console = Console(highlight=False)
    try:
        with _all_interruptions_alike():
            return _COMMANDS[options.command](options, console)
    except (ValueError, RuntimeError) as error:
        # Our own errors are sentences for users; anything else that ends up here is a bug and says where.
        if not type(error).__module__.startswith("repro_lib") and type(error) not in (ValueError, RuntimeError):
            raise
        print(f"repro: {error}", file=sys.stderr)
        return _BAD_INPUT
    # Before OSError, of which it is one: it is a whole sentence as it stands.
    except WriteError as error:
        print(f"repro: {error}", file=sys.stderr)
        return _FAILED
    except OSError as error:
        print(f"repro: {error.strerror}: {error.filename}", file=sys.stderr)
        return _FAILED
    except KeyboardInterrupt as interruption:
        print("repro: interrupted; what is finished is kept, and the same command goes on from there", file=sys.stderr)
        # Python's own, for Ctrl-C, has no number. The exit code is what a shell reports for a program ended by that signal.
        (number,) = interruption.args or (signal.SIGINT,)
        return 128 + number


@contextlib.contextmanager
def _all_interruptions_alike() -> Iterator[None]:
    """``kill`` and a closed terminal stop a command in as orderly a way as Ctrl-C does; unless they are ignored (nohup)."""

    def interrupt(number: int, _frame: object) -> None:
        raise KeyboardInterrupt(number)

    changed = []
    # Handlers can be set in the main thread alone, and a program that calls us from another has its own.
    if threading.current_thread() is threading.main_thread():
        changed = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_DFL]
    for number in changed:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in changed:
            signal.signal(number, signal.SIG_DFL)


def _hyphenated(word: str) -> str:
    """``--max_iters=5`` as ``--max-iters=5``: the earlier study's spelling is as good as ours."""
    if not word.startswith("--"):
        return word
    flag, equals, value = word.partition("=")
    return flag.replace("_", "-") + equals + value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="repro",
        description="Does the choice of activation function change how reproducible a small language model's predictions are?",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name: str, command: Callable[[argparse.Namespace, Console], int], about: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=about, description=about, allow_abbrev=False)
        sub.add_argument(
            "--results-dir", type=Path, default=project_root() / "results", metavar="DIR", help="default: results/"
        )
        sub.add_argument(
            "--reports-dir", type=Path, default=project_root() / "reports", metavar="DIR", help="default: reports/"
        )
        sub.set_defaults(command=command)
        return sub

    prepare = add("prepare-data", _prepare_data, "fetch and check a corpus")
    prepare.add_argument("--corpus", default="shakespeare", help="shakespeare, tinyshakespeare, or the path of a text file")

    train = add("train", _train, "train cells without notebooks, at the model's full size unless a profile is given")
    _add_selection(train, required=True)
    train.add_argument("--profile", metavar="NAME", help=f"one of {', '.join(PROFILES)}; default: none")
    _add_running(train)

    grid = add("grid", _grid, "run the notebooks of all cells, the analysis and the report site")
    _add_selection(grid, required=False)
    grid.add_argument("--profile", default="quick", metavar="NAME", help=_profiles_help())
    grid.add_argument(
        "--noise-models",
        nargs="*",
        default=None,
        metavar="NAME",
        help="models for which each source of randomness alone and shorter runs are made too; with no name: for none; "
        "default: those of the profile where its models are run",
    )
    grid.add_argument(
        "--executor",
        choices=("local", "snakemake"),
        default="local",
        help="what runs the cells: processes of this command, or Snakemake, which gets all behind --; default: local",
    )
    grid.add_argument(
        "--profile-dir",
        metavar="DIR",
        help="Snakemake's settings: a folder, or one of workflow/profiles (local, slurm, kubernetes); default: local",
    )
    grid.add_argument(
        "--trials-per-job",
        type=int,
        default=None,
        metavar="N",
        help="train so many trials of a cell in a job of their own, beside the others; default: all of a cell in one",
    )
    _add_running(grid)

    process = add("process", _process, "print the tables, write summary.txt and draw the plots from what is there")
    _add_selection(process, required=False, activations=())
    process.add_argument("--no-plots", action="store_true", help="tables only")
    process.add_argument(
        "--include-synthetic",
        action="store_true",
        help="show synthetic results where nothing is measured, marked, in with_synthetic/ of the reports folder",
    )

    report = add("report", _report, "turn the executed notebooks into the HTML site")
    _add_selection(report, required=False, activations=())
    for reader in (process, report):
        reader.add_argument("--profile", metavar="NAME", help="whose results; default: the newest")
    status = add("status", _status, "what is done, what failed, what is missing")
    _add_selection(status, required=False)
    status.add_argument("--profile", default="quick", metavar="NAME", help=_profiles_help())
    _add_configuration(status)
    _add_synthesize(add("synthesize", _synthesize, "make synthetic results, for demonstrations and scale tests only"))
    step = add("step", _step, "do one job of a plan that repro grid --executor snakemake wrote; schedulers call it")
    step.add_argument("plan", type=Path, help="the plan")
    step.add_argument("key", help="the job's name in it")
    doctor = add("doctor", _doctor, "is this machine ready?")
    doctor.add_argument("--corpus", default="shakespeare", help="the corpus to look for, or to train on")
    doctor.add_argument(
        "--determinism",
        action="store_true",
        help="train small cells in many ways, one of them killed, compare all digests, and store a certificate for the reports",
    )
    doctor.add_argument("--device", choices=DEVICES, default="cpu", help="with --determinism: where to train; default: cpu")
    return parser


def _add_selection(parser: argparse.ArgumentParser, *, required: bool, activations: Sequence[str] = GRID_ACTIVATIONS) -> None:
    parser.add_argument(
        "--models", "--model", nargs="+", default=[], required=required, metavar="NAME", help=f"of {', '.join(MODEL_DEFAULTS)}"
    )
    parser.add_argument(
        "--activations",
        "--activation",
        nargs="+",
        default=list(activations),
        metavar="NAME",
        help=f"of {', '.join(ACTIVATIONS)}, smelu_<beta>",
    )


def _add_running(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workers",
        type=int,
        default=None,
        metavar="N",
        help="processes, one thread each; default: one per core, for CUDA one per card",
    )
    parser.add_argument("--force", action="store_true", help="train again what is done already")
    parser.add_argument(
        "--cell-timeout",
        type=float,
        default=None,
        metavar="SECONDS",
        help="stop a cell or notebook that is still at work after so long; default: half an hour and 20 times its estimate",
    )
    parser.add_argument(
        "--checkpoint-seconds",
        type=float,
        default=30.0,
        metavar="S",
        help="save the state of each trial this often, so that a killed run goes on from there; default: 30",
    )
    _add_configuration(parser)


def _add_configuration(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--corpus", default=None, help="shakespeare, tinyshakespeare, or the path of a text file")
    settings = parser.add_argument_group("configuration", "each overrides the profile and the model's default")
    for name, field in Config.model_fields.items():
        if name not in _NOT_A_FLAG:
            kind = field.annotation if field.annotation in (int, float) else str
            choices = get_args(field.annotation) or None
            flag = f"--{name.replace('_', '-')}"
            settings.add_argument(flag, type=kind, choices=choices, default=None, metavar=name.upper(), help=field.description)


def _add_synthesize(parser: argparse.ArgumentParser) -> None:
    _add_selection(parser, required=False, activations=())
    parser.add_argument("--profile", metavar="NAME", help="default: quick; with --missing whose gaps, default: the newest")
    parser.add_argument("--trials", type=int, default=None, metavar="N", help="made-up trials per cell; default: 3")
    parser.add_argument(
        "--relative-pd",
        nargs="+",
        default=[],
        metavar="PD",
        help="a number between 0 and 2, or NAME=number for a model, an activation or model-activation; default: 0.5",
    )
    parser.add_argument("--seed", type=int, default=None, help="of the made-up numbers; default: 42")
    parser.add_argument("--missing", action="store_true", help="fill the gaps of the results folder instead")


def _profiles_help() -> str:
    return "; ".join(f"{name}: {profile['about']}" for name, profile in PROFILES.items()).replace("%", "%%")


def _overrides(options: argparse.Namespace) -> dict[str, Any]:
    """The configuration values that were given on the command line."""
    names = [name for name in Config.model_fields if name not in _NOT_A_FLAG - {"corpus"}]
    given = {name: getattr(options, name) for name in names if getattr(options, name, None) is not None}
    if "corpus" in given:
        given["corpus"] = _one_path(given["corpus"])
    return given


def _one_path(corpus: str) -> str:
    """Notebooks run in their own folder, so the path of a text must not depend on where the command was given."""
    return str(Path(corpus).resolve()) if Path(corpus).is_file() else corpus


def _request(options: argparse.Namespace, models: Sequence[str]) -> Any:
    from repro_lib.cells import GridRequest
    from repro_lib.checkpoints import check_interval
    from repro_lib.config import ConfigError

    on_cards = "cuda" in (options.device, PROFILES.get(options.profile, {}).get("values", {}).get("device"))
    workers = options.workers if options.workers is not None else _usable_cards() if on_cards else _usable_cores()
    if workers < 1:
        raise ConfigError(f"--workers must be at least 1, got {workers}")
    if options.cell_timeout is not None and not options.cell_timeout > 0:
        raise ConfigError(f"--cell-timeout must be more than 0 seconds, got {options.cell_timeout}")
    per_job = getattr(options, "trials_per_job", None)
    if per_job is not None and per_job < 1:
        raise ConfigError(f"--trials-per-job must be at least 1, got {per_job}")
    return GridRequest(
        models=models,
        activations=options.activations,
        profile=options.profile,
        overrides=_overrides(options),
        workers=workers,
        results_dir=options.results_dir.resolve(),
        reports_dir=options.reports_dir.resolve(),
        force=options.force,
        checkpoint_seconds=check_interval(options.checkpoint_seconds),
        noise_models=_noise_models(options),
        cell_timeout=options.cell_timeout,
        trials_per_job=per_job,
    )


def _noise_models(options: argparse.Namespace) -> Sequence[str] | None:
    """Those asked for; None (the profile's own) for a whole profile, none for a selection of models."""
    asked = getattr(options, "noise_models", None)
    return () if asked is None and options.models else asked


def _usable_cards() -> int:
    from repro_lib.worker_process import visible_cards

    return max(1, len(visible_cards()))


def _usable_cores() -> int:
    """Cores this process may use, which in a container can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _prepare_data(options: argparse.Namespace, console: Console) -> int:
    from repro_lib.data import make_dataset, prepare_corpus

    with console.status(f"preparing {options.corpus}"):
        corpus = prepare_corpus(options.corpus)
        dataset = make_dataset(corpus, Config().train_split, Config().block_size)
    console.print(
        f"{corpus.name}: {len(corpus.text):,} characters, {dataset.vocab_size} different ones, SHA-256 {corpus.sha256}"
    )
    console.print(
        f"scored on {dataset.windows.tokens:,} characters; unigram cross-entropy {dataset.unigram_cross_entropy:.3f} nats"
    )
    return 0


def _train(options: Namespace, console: Console) -> int:
    from repro_lib.cells import plan_cells
    from repro_lib.console import Display
    from repro_lib.grid import train_cells
    from repro_lib.status import print_cells

    request = request_of(options, options.models)
    report = train_cells(request, Display(console))
    print_cells(
        console, options.results_dir, plan_cells(request.models, request.activations, request.profile, request.overrides)
    )
    return _conclude(console, options.results_dir, report.failures)


def _grid(options: Namespace, console: Console) -> int:
    from repro_lib.config import ConfigError
    from repro_lib.console import Display
    from repro_lib.grid import run_grid

    request = request_of(options, options.models or PROFILES[check_profile(options.profile)]["models"])
    if options.executor == "snakemake":
        from repro_lib.snakemake_executor import run_grid_by_snakemake

        how = (options.profile_dir or "local", options.engine_options, options.workers)
        report = run_grid_by_snakemake(request, snakemake_config(options), Display(console), *how)
    elif options.profile_dir or options.engine_options:
        raise ConfigError("--profile-dir and options behind -- are for Snakemake: add --executor snakemake")
    else:
        report = run_grid(request, Display(console))
    if not report.failures:
        console.print(
            f"{report.finished} cells were run; the reports are in {options.reports_dir / 'index.html'}", soft_wrap=True
        )
    return _conclude(console, options.results_dir, report.failures)


def _conclude(console: Console, results_dir: Path, failures: dict[str, str]) -> int:
    from repro_lib.status import print_damaged

    print_damaged(console, results_dir)
    for label, reason in failures.items():
        console.print(f"FAILED {label}: {reason}", style="red", markup=False, soft_wrap=True)
    if failures:
        console.print(f"{len(failures)} failed; the same command tries them again", soft_wrap=True)
    return _FAILED if failures else 0


def _process(options: Namespace, console: Console) -> int:
    from repro_lib.analysis import load_study
    from repro_lib.summary import summarise_store, write_synthetic_summary

    asked = (options.results_dir, options.models, options.activations, options.profile)
    study = load_study(*asked, include_synthetic=options.include_synthetic)
    # A folder of their own: the report site shows what lies in plots/, and it shows nothing synthetic.
    folder = options.reports_dir / "with_synthetic" if options.include_synthetic else options.reports_dir
    # A ledger of claims over part of the grid would take the place of the whole one.
    whole = not options.models and not options.activations
    with console.status("comparing trials and drawing plots"):
        text = summarise_store(study, options.results_dir, folder, plots=not options.no_plots, claims=whole)
    console.print(text, markup=False, soft_wrap=True)
    if options.include_synthetic:
        write_synthetic_summary(options.results_dir, options.reports_dir)
        console.print(f"summary and plots are in {folder}", soft_wrap=True)
    return 0


def _synthesize(options: argparse.Namespace, console: Console) -> int:
    from repro_lib.chosen_pd import ChosenPD, SyntheticError
    from repro_lib.summary import write_synthetic_summary
    from repro_lib.synthetic import fill_missing, make_synthetic

    refused: list[str] = []
    if options.missing:
        if options.relative_pd or options.trials is not None or options.seed is not None:
            raise SyntheticError("--missing fills gaps from what was measured; leave out --relative-pd, --trials and --seed")
        profile = check_profile(options.profile) if options.profile else None
        made, refused = fill_missing(options.results_dir, options.models, options.activations, profile)
    else:
        profile = check_profile(options.profile or "quick")
        chosen = {name: value for name in ("trials", "seed") if (value := getattr(options, name)) is not None}
        cells = (options.models or PROFILES[profile]["models"], options.activations or GRID_ACTIVATIONS)
        made = make_synthetic(*cells, ChosenPD.parse(options.relative_pd), profile=profile, **chosen)
    summary = write_synthetic_summary(options.results_dir, options.reports_dir, made)
    for sentence in refused:
        console.print(f"not filled: {sentence}", markup=False, soft_wrap=True)
    for result in made:
        console.print(f"{result.model_name}-{result.activation}: {result.flags[0]}", markup=False, soft_wrap=True)
    console.print(f"{len(made)} synthetic results were written; {summary} describes all that are there", soft_wrap=True)
    return 0


def _report(options: Namespace, console: Console) -> int:
    from repro_lib.analysis import load_study
    from repro_lib.summary import build_reports

    with console.status("rendering the executed notebooks"):
        study = load_study(options.results_dir, options.models, options.activations, options.profile)
        site = build_reports(study, options.results_dir, options.reports_dir, options.profile)
    for problem in site.problems:
        console.print(problem, style="red", markup=False, soft_wrap=True)
    console.print(f"the reports are in {site.index}", soft_wrap=True)
    return _FAILED if site.problems else 0


def _status(options: Namespace, console: Console) -> int:
    from repro_lib.cells import plan_cells, plan_variants
    from repro_lib.status import print_status

    cells = plan_cells(options.models, options.activations, options.profile, overrides(options))
    cells += plan_variants(cells, options.profile, overrides(options), noise_models(options))
    return print_status(console, options.results_dir, cells)


def _run_job(options: Namespace, console: Console) -> int:
    from repro_lib.run_job import run_job

    outcome = run_job(options.plan.resolve(), options.key)
    said = f": {outcome.said}" if outcome.said else ""
    place = f"on {platform.node()}" + (f", card {card}" if (card := os.environ.get("CUDA_VISIBLE_DEVICES")) else "")
    console.print(f"{options.key} {outcome.end} after {outcome.seconds:.1f} s {place}{said}", markup=False, soft_wrap=True)
    return 0 if outcome.end == "done" else _FAILED


def _doctor(options: Namespace, console: Console) -> int:
    from repro_lib.doctor import certify_machine, examine
    from repro_lib.processes import usable_cores

    if options.determinism:
        # Two at least, on one core as well: what is compared is whether neighbours at work change the bits.
        at_once = max(2, usable_cores())
        return certify_machine(console, one_path(options.corpus), options.device, at_once, options.results_dir)
    return examine(console, options.corpus, options.results_dir)


_COMMANDS: dict[str, Callable[[Namespace, Console], int]] = {
    "prepare-data": _prepare_data,
    "train": _train,
    "grid": _grid,
    "process": _process,
    "synthesize": _synthesize,
    "report": _report,
    "status": _status,
    "run-job": _run_job,
    "doctor": _doctor,
}
