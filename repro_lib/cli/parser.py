"""What the arguments of a command line ask for."""

# Imports neither torch nor pandas, so that ``repro --help`` answers at once.

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro_lib.cli.commands import make_parser
from repro_lib.config import GRID_ACTIVATIONS, PROFILES, REFERENCE, Config, ConfigError

if TYPE_CHECKING:
    from repro_lib.grid.cells import GridRequest

# Flags that take several words, and those of a grid that say by what it is run.
_SEVERAL = {"models", "activations", "noise_models", "lengths", "rates", "factor", "analyses"}
_LARGEST_MULTIPLE = 100
_HOW_IT_IS_EXECUTED = {"command", "executor", "profile_dir", "engine_options", "workers", "corpus_dir", "normalise"}


def parse(given: Sequence[str]) -> argparse.Namespace:
    """The options of a command line; ``command`` among them names the command. Exits with 2 where it makes no sense."""
    parser = make_parser()
    if not given:
        parser.print_help()
        parser.exit()
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
    if getattr(options, "corpus_dir", None):
        from repro_lib.data.texts import look_in

        look_in(options.corpus_dir)
    options.engine_options = list(given[len(own) + 1 :])
    if options.engine_options and options.command != "grid":
        parser.error(f"only repro grid --executor snakemake takes options behind --, got {' '.join(options.engine_options)}")
    return options


def overrides(options: argparse.Namespace) -> dict[str, Any]:
    """The configuration values that were given on the command line."""
    given = {name: value for name in Config.model_fields if (value := getattr(options, name, None)) is not None}
    if "corpus" in given:
        given["corpus"] = text_name(given["corpus"], options.normalise)
    return given


def text_name(corpus: str, normalise: bool = False) -> str:
    """The name under which every process of a run finds a text, wherever it works, and which says nothing of this machine.
    The name of a known corpus is that name, also where a file is called so; ``./shakespeare`` is the file."""
    if not (path := Path(os.path.expanduser(corpus))).is_file():
        return corpus
    from repro_lib.data import CORPORA
    from repro_lib.data.texts import look_in, normalised_copy

    if corpus in CORPORA:
        return corpus
    if normalise:
        return normalised_copy(path)
    look_in(path.parent)
    return f"./{path.name}" if path.name in CORPORA else path.name


def request_of(options: argparse.Namespace) -> GridRequest:
    """What ``repro train`` and ``repro grid`` were asked for. ConfigError for numbers that are not possible."""
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
    return replace(
        cells_asked_for(options),
        force=options.force,
        cell_timeout=options.cell_timeout,
        workers=workers,
        checkpoint_seconds=check_interval(options.checkpoint_seconds),
        trials_per_job=per_job,
        analyses=getattr(options, "analyses", ()),
        margin=None if options.margin is None else check_margin(options.margin),
    )


def cells_asked_for(options: argparse.Namespace) -> GridRequest:
    """Which cells a command is about, as a request of one worker. ConfigError for what cannot be run."""
    from repro_lib.grid.cells import GridRequest

    arms = getattr(options, "factor", []) or PROFILES.get(options.profile, {}).get("arms")
    return GridRequest(
        models=options.models,
        activations=options.activations or ((REFERENCE,) if arms else GRID_ACTIVATIONS),
        profile=options.profile,
        overrides=overrides(options),
        workers=1,
        results_dir=options.results_dir.resolve(),
        reports_dir=options.reports_dir.resolve(),
        **_beside(options),
    )


def grid_request(config: Mapping[str, Any]) -> GridRequest:
    """The request of settings of ``workflow/Snakefile``, which are the flags of ``repro grid``.
    A wrong one ends the program with a sentence, as on the command line; wrong values raise what they raise there."""
    words = ["grid"]
    for name, value in config.items():
        if name != "skip" and value is not None and value is not False:
            given = value if isinstance(value, list) else str(value).split() if name in _SEVERAL else [value]
            words += [f"--{name.replace('_', '-')}", *(str(word) for word in given if value is not True)]
    return request_of(make_parser().parse_args(words))


def snakemake_config(options: argparse.Namespace) -> dict[str, Any]:
    """The flags of a grid as settings of ``workflow/Snakefile``: the way back."""
    given = {name: value for name, value in vars(options).items() if name not in _HOW_IT_IS_EXECUTED}
    # A flag without words says something of --noise-models alone.
    chosen = {name: value for name, value in given.items() if value is not None and (value != [] or name == "noise_models")}
    folders = {name: str(chosen[name].resolve()) for name in ("results_dir", "reports_dir")}
    return chosen | folders | {name: text_name(chosen[name], options.normalise) for name in {"corpus"} & chosen.keys()}


def _beside(options: argparse.Namespace) -> dict[str, Any]:
    """What is run beside a grid's own cells, by the names of ``GridRequest``; ConfigError for what cannot be run."""
    several: dict[str, Any] = {name: getattr(options, name, ()) for name in ("lengths", "rates")}
    for name, given in several.items():
        if wrong := [value for value in given if not 0 < value <= _LARGEST_MULTIPLE]:  # NaN too
            limits = f"above 0 and at most {_LARGEST_MULTIPLE}"
            raise ConfigError(f"--{name} takes multiples of the grid's own, {limits}, got {wrong[0]:g}")
    asked = getattr(options, "noise_models", None)
    several |= {name: getattr(options, name, default) for name, default in (("factor", ()), ("reference", None))}
    # None is the profile's own: of a whole profile, and none for a selection of models.
    return several | {"noise_models": () if asked is None and options.models else asked}


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
