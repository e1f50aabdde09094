"""The command line: ``repro`` or ``python -m repro_lib``. One function per command, and what all say when they fail."""

# Heavy modules are imported inside the commands, so that ``repro --help`` loads neither torch nor pandas.

from __future__ import annotations

import contextlib
import importlib
import os
import platform
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from repro_lib.cli.console import Output, complain, open_streams
from repro_lib.cli.parser import cells_asked_for, parse, request_of, snakemake_config, text_name
from repro_lib.config import GRID_ACTIVATIONS, PROFILES, ConfigError, check_profile, checkout
from repro_lib.system.files import WriteError, write_atomically
from repro_lib.system.processes import usable_cores

if TYPE_CHECKING:
    from argparse import Namespace

    from rich.console import Console

# 2 is what argparse exits with too: in both cases nothing was begun, and only another command line will help.
_FAILED, _BAD_INPUT = 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 1 failed, 2 bad input, 3 a gate failed, 130 (143) interrupted."""
    open_streams()
    if arguments is None:
        # The process is ours. Our figures go to files, and no window that somebody wants for his own is asked for. Inherited by
        # all that we start, as is that modules are not looked for in the current folder.
        os.environ |= {"MPLBACKEND": "agg", "PYTHONSAFEPATH": "1"}
    output = Output(sys.stdout)
    code = _run(sys.argv[1:] if arguments is None else arguments, output)
    output.flush()
    # A reader that has seen enough (``| head``) is no failure.
    if output.error is None or isinstance(output.error, BrokenPipeError):
        return code
    reason = getattr(output.error, "strerror", None) or output.error
    complain(f"what was printed could not be written ({reason}); the work itself went on")
    return code or _FAILED


def _run(arguments: Sequence[str], output: Output) -> int:
    try:
        os.getcwd()
    except FileNotFoundError:
        complain("the current folder was deleted; change into another one")
        return _BAD_INPUT
    try:
        options = parse(arguments)
        from repro_lib.cli.plain import Plain

        console = Plain(output, soft_wrap=True)  # a path is not broken in two
        with _all_interruptions_alike():
            return _COMMANDS[options.command](options, console)
    except ModuleNotFoundError as error:
        # What is installed without its extra trains and measures from Python, and has no commands.
        if checkout() or (error.name or "repro_lib").startswith("repro_lib"):
            raise
        complain(f"the package {error.name} is missing; install repro-lib with its extra [run]")
        return _BAD_INPUT
    except (ValueError, RuntimeError) as error:
        # Our own errors are sentences for users; anything else that ends up here is a bug and says where.
        if not type(error).__module__.startswith("repro_lib") and type(error) not in (ValueError, RuntimeError):
            raise
        complain(error)
        return _BAD_INPUT
    except OSError as error:
        # A WriteError is a whole sentence as it stands.
        sentence = error if isinstance(error, WriteError) else f"{error.strerror}: {error.filename}"
        complain(sentence)
        return _FAILED
    except KeyboardInterrupt as interruption:
        complain("interrupted; what is finished is kept, and the same command goes on from there")
        # Python's own, for Ctrl-C, has no number. The exit code is what a shell reports for a program ended by that signal.
        (number,) = interruption.args or (signal.SIGINT,)
        return 128 + number


@contextlib.contextmanager
def _all_interruptions_alike() -> Iterator[None]:
    # ``kill`` and a closed terminal stop a command in as orderly a way as Ctrl-C does; unless they are ignored (nohup).
    def interrupt(number: int, _frame: object) -> None:
        raise KeyboardInterrupt(number)

    # Handlers can be set in the main thread alone, and a program that calls us from another has its own.
    main_thread = threading.current_thread() is threading.main_thread()
    stops = (signal.SIGTERM, signal.SIGHUP) if main_thread else ()
    changed = [number for number in stops if signal.getsignal(number) is signal.SIG_DFL]
    for number in changed:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in changed:
            signal.signal(number, signal.SIG_DFL)


def _train(options: Namespace, console: Console) -> int:
    from repro_lib.cli.status import print_results
    from repro_lib.grid.cells import plan_cells
    from repro_lib.grid.display import Display
    from repro_lib.grid.local import run_grid
    from repro_lib.store.store import Store

    request = request_of(options)
    report = run_grid(request, Display(console), with_notebooks=False)
    cells = plan_cells(request.models, request.activations, request.profile, request.overrides)
    store = Store(options.results_dir)
    print_results(console, [result for cell in cells if (result := cell.result(store))])
    return _conclude(console, options.results_dir, report.failures)


def _grid(options: Namespace, console: Console) -> int:
    from repro_lib.grid.display import Display
    from repro_lib.grid.local import run_grid

    request = request_of(options)
    if options.executor == "snakemake":
        from repro_lib.grid.snakemake.executor import run_grid_by_snakemake

        how = (options.profile_dir or "local", options.engine_options, options.workers)
        report = run_grid_by_snakemake(request, snakemake_config(options), Display(console), *how)
    elif options.profile_dir or options.engine_options:
        # Refused and not ignored: somebody who names a cluster should not find the grid on this machine.
        raise ConfigError("--profile-dir and options behind -- are for Snakemake: add --executor snakemake")
    else:
        report = run_grid(request, Display(console))
    if not report.failures:
        from repro_lib.analysis.formatting import counted

        console.print(report.answer)
        ran = counted(report.finished, "cell", "were")
        console.print(f"{ran} run; the reports are in {options.reports_dir / 'index.html'}")
    return _conclude(console, options.results_dir, report.failures)


def _conclude(console: Console, results_dir: Path, failures: dict[str, str]) -> int:
    from repro_lib.cli.status import print_damaged

    print_damaged(console, results_dir)
    for label, reason in failures.items():
        console.print(f"FAILED {label}: {reason}", style="red")
    if failures:
        console.print(f"{len(failures)} failed; the same command tries them again")
    return _FAILED if failures else 0


def _synthesize(options: Namespace, console: Console) -> int:
    from repro_lib.analysis.synthetic import ChosenPD, SyntheticError, fill_missing, make_synthetic
    from repro_lib.report.publish import write_synthetic_summary

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
        console.print(f"not filled: {sentence}")
    for result in made:
        console.print(f"{result.model_name}-{result.activation}: {result.flags[0]}")
    console.print(f"{len(made)} synthetic results were written; {summary} describes all that are there")
    return 0


def _status(options: Namespace, console: Console) -> int:
    from repro_lib.cli.status import print_configuration, print_status
    from repro_lib.grid.tasks import Tasks

    if options.config is not None:
        return print_configuration(console, options.results_dir, options.config)
    tasks = Tasks(cells_asked_for(options), options.results_dir)
    return print_status(console, options.results_dir, [*tasks.cells, *tasks.variants])


def _notebooks(options: Namespace, console: Console) -> int:
    from repro_lib.grid.notebooks import notebooks_dir

    copies = {options.folder / ours.name: ours for ours in sorted(notebooks_dir().glob("*.ipynb"))}
    if there := [copy.name for copy in copies if copy.exists()]:
        raise ConfigError(f"{options.folder} has {', '.join(there)} already; nothing was copied, name another folder")
    for copy, ours in copies.items():
        write_atomically(copy, ours.read_bytes(), replace=False)
    results = root / "results" if (root := checkout()) else "results/ beside them"
    console.print(f"{len(copies)} notebooks are in {options.folder}; they read {results} unless their parameters say otherwise")
    return 0


def _clean(options: Namespace, console: Console) -> int:
    from repro_lib.cli.clean import clean

    return clean(console, options.results_dir, options.reports_dir, options.kinds, options.yes)


def _run_job(options: Namespace, console: Console) -> int:
    from repro_lib.grid.snakemake.run_job import run_job

    outcome = run_job(options.plan.resolve(), options.key)
    card = os.environ.get("CUDA_VISIBLE_DEVICES")
    place = platform.node() + (f", card {card}" if card else "") + (f": {outcome.said}" if outcome.said else "")
    console.print(f"{options.key} {outcome.end} after {outcome.seconds:.1f} s on {place}")
    return 0 if outcome.end == "done" else _FAILED


def _doctor(options: Namespace, console: Console) -> int:
    if options.determinism:
        from repro_lib.cli.determinism_check import check_determinism

        # Two at least, on one core as well: what is compared is whether neighbours at work change the bits.
        return check_determinism(console, text_name(options.corpus), options.device, max(2, usable_cores()))
    if options.inference:
        from repro_lib.cli.inference_check import check_inference

        return check_inference(console, options.results_dir)
    from repro_lib.cli.doctor import examine

    return examine(console, options.corpus, options.results_dir)


def _elsewhere(options: Namespace, console: Console) -> int:
    module, function = _MODULES[options.command]
    return getattr(importlib.import_module(f"repro_lib.cli.{module}"), function)(options, console)


_MODULES = {"prepare-data": ("texts", "prepare_data"), "compare": ("compare", "compare_files")}
_MODULES |= {name: ("readers", name) for name in ("process", "report", "export")}
_OWN = (_train, _grid, _synthesize, _status, _notebooks, _clean, _run_job, _doctor)
_COMMANDS: dict[str, Callable[[Namespace, Console], int]] = {f.__name__[1:].replace("_", "-"): f for f in _OWN}
_COMMANDS |= dict.fromkeys(_MODULES, _elsewhere)
