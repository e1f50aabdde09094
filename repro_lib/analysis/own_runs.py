"""What a results folder holds beside the results that are shown: one's own runs, and results of other grids."""

from collections import Counter
from collections.abc import Collection, Sequence

from repro_lib.analysis.formatting import counted, number
from repro_lib.analysis.selection import variants
from repro_lib.config import PROFILES, Config, ConfigError, config_values
from repro_lib.store.schema import Result

HEADS = ("Model", "Activation", "N", "Relative PD", "Loss, nats", "Flags", "Trained", "Configuration", "Unlike its profile")
# So many digits of a digest tell the configurations of a folder apart; of so many of these a message gives a list.
_DIGITS, _LISTED = 8, 12
# The text counts by its name below; how many trials there are is a column of its own.
_NO_DIFFERENCE = {"corpus", "vocab_size", "trials"}


def beside(stored: Sequence[Result], shown: Sequence[Result], grids: Collection[str] = ()) -> tuple[list[Result], list[Result]]:
    """What is ``stored`` and not ``shown``: the newest of each run of one's own, newest first, and all other results.

    A run is one's own if its settings were chosen by hand, it has no profile, or none of the ``grids`` (``config_sha256``) has
    its configuration. Earlier results of what is shown are passed over, and lone sources of randomness and the arms of a
    grid, which have tables of their own."""
    known = {_run(r) for r in shown}
    if not grids:  # in a folder that no grid, or one of an earlier version, has noted: its runs of other lengths
        known |= {_run(r) for r in variants(stored, shown) if r.profile}
    noted = {*grids, *(r.config_sha256 for r in shown)} if grids else ()
    rest = [r for r in stored if _run(r) not in known and r.config["vary"] == "all" and "arm" not in r.config_sources.values()]
    own = {_run(r): r for r in sorted(rest, key=lambda r: r.timestamp) if _is_own(r, noted)}
    return sorted(own.values(), key=lambda r: r.timestamp, reverse=True), [r for r in rest if _run(r) not in own]


def _run(result: Result) -> tuple[str | bool | None, ...]:
    return result.model_name, result.activation, result.config_sha256, result.profile, result.synthetic


def _is_own(result: Result, grids: Collection[str]) -> bool:
    chosen = {name for name, layer in result.config_sources.items() if layer == "explicit"} - {"corpus", "trials", "vary"}
    by_hand = bool(chosen) or result.profile is None
    return not result.synthetic and (by_hand or (bool(grids) and result.config_sha256 not in grids))


def differences(result: Result) -> str:
    """What sets a result apart from its profile, or without one from its model's full size: ``max_iters 300 (study: 500)``."""
    profile = result.profile if result.profile in PROFILES else None
    usual, own, name = Config.for_model(result.model_name, profile), config_values(result.config), profile or "full size"
    changed = [(k, own[k], value) for k, value in usual if k in own and k not in _NO_DIFFERENCE and own[k] != value]
    changed += [("corpus", result.corpus.name, usual.corpus)] if result.corpus.name != usual.corpus else []
    said = [f"{setting} {value} ({name}: {before})" for setting, value, before in changed]
    said = said if profile else [f"profile {result.profile}" if result.profile else "no profile", *said]
    return ", ".join(said) or f"as in {name}"


def run_rows(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """Each of them in words, in the order of ``HEADS``."""
    rows = []
    for r in results:
        flags = ", ".join(dict.fromkeys(flag.split(":")[0] for flag in r.flags)) or "none"
        numbers = str(len(r.trials)), number(r.avg_relative_pd, 4), number(r.avg_val_loss, 4)
        about = flags, f"{r.timestamp:%Y-%m-%d}", r.config_sha256[:_DIGITS], differences(r)
        rows.append((r.model_name, r.activation, *numbers, *about))
    return rows


def own_runs_sentence(own: Sequence[Result], command: str = "process") -> list[str]:
    """How many they are, and by which command one is shown; none where there is none."""
    many = "1 run of your own is" if len(own) == 1 else f"{len(own):,} runs of your own are"
    which = "it" if len(own) == 1 else "the newest"
    shows = [f"repro {command} --config {result.config_sha256[:_DIGITS]} shows {which}" for result in own[:1]]
    return [f"{many} outside the grid; {show}." for show in shows]


def run_lines(results: Sequence[Result], most: int | None = None) -> list[str]:
    """A table as lines of text, of the first ``most``: its heads, and a line for each result; none where there is none."""
    rows = [HEADS, *run_rows(results[:most])]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return [*lines, *([f"... and {len(results) - most} more"] if most and len(results) > most else [])] if results else []


def others_in_words(others: Sequence[Result]) -> list[str]:
    """A sentence that counts results of other grids and synthetic ones by their kinds; none where there is none."""
    kinds = Counter("" if r.synthetic else f" of profile {r.profile}, corpus {r.corpus.name}" for r in others)
    said = [f"{counted(n, 'result' if kind else 'synthetic result')}{kind}" for kind, n in kinds.items()]
    return [f"Stored and not shown: {'; '.join(said)}."] if said else []


def find_configuration(stored: Sequence[Result], digits: str) -> str:
    """The one ``config_sha256`` that begins with these digits; ConfigError, with those there are, for none and for several."""
    newest = {r.config_sha256: r for r in sorted(stored, key=lambda r: r.timestamp)}
    fitting = [digest for digest in newest if digits and digest.startswith(digits.lower())]
    if len(fitting) == 1:
        return fitting[0]
    named = [f"{digest[:_DIGITS]} ({newest[digest].model_name}, {differences(newest[digest])})" for digest in fitting or newest]
    known = "; ".join([*reversed(named[-_LISTED:]), *(["and older ones"] if len(named) > _LISTED else [])])
    begin = "more than one configuration begins" if fitting else "no configuration begins"
    raise ConfigError(f"{begin} with {digits!r}; known: {known or 'none, for there is no result'}")
