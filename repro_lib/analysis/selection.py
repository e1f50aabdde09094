"""Which results may stand in one table or figure: one per cell, all of them comparable.

A store gathers results of many runs. Averaging over all of them is how stale files and other texts get into a number."""

from collections.abc import Collection, Sequence
from typing import Any

from repro_lib.config import config_values
from repro_lib.store.schema import Result

# What may differ between two runs of a cell that are compared by one setting: that, and what is scaled to it.
_GOES_WITH = {
    "max_iters": {"max_iters", "warmup_iters", "eval_interval", "trials"},
    "learning_rate": {"learning_rate", "trials"},
}


# What decides how a model is trained, and how large it is. All else agrees between comparable results, or does not matter.
_RECIPE = ("learning_rate", "batch_size", "block_size", "max_iters", "warmup_iters", "weight_decay", "beta1", "beta2")
_RECIPE += ("grad_clip", "dropout", "train_split")
_SIZE = ("n_layer", "n_embd")


def recipe_differences(results: Sequence[Result], *, sizes: bool = False) -> dict[str, dict[str, Any]]:
    """By each setting in which these results were not trained alike the value of every model; with ``sizes`` those too."""
    configs = {result.model_name: result.config for result in results}
    found = {name: {model: c.get(name) for model, c in configs.items()} for name in _RECIPE + (_SIZE if sizes else ())}
    return {name: values for name, values in found.items() if len(set(values.values())) > 1}


def identical_models(results: Sequence[Result]) -> tuple[str, ...]:
    """Models whose trials are bit-identical across all their activations (two at least), by the stored digests.
    They cannot tell activations apart, so by rule they are left out of every statistic across activations."""
    by_model: dict[str, list[list[tuple[str, str]]]] = {}
    for result in results:
        digests = [(trial.weights_sha256, trial.predictions_sha256) for trial in result.trials]
        by_model.setdefault(result.model_name, []).append(digests)
    # Of cells with different numbers of trials those that both have are compared.
    same = {m: all(a == b for c in cells[1:] for a, b in zip(cells[0], c, strict=False)) for m, cells in by_model.items()}
    return tuple(model for model, cells in by_model.items() if len(cells) > 1 and same[model])


def select_comparable(
    results: Sequence[Result],
    key: str | None = None,
    profile: str | None = None,
    configs: Collection[str] = (),
    *,
    grids: Sequence[str] = (),
    include_synthetic: bool = False,
) -> list[Result]:
    """The newest result of each cell among comparable ones: what one table or figure may hold.

    Real results of one ``comparison_key``, within a model of one configuration: of the ``grids`` (``config_sha256``, the newest
    last) before what was run outside, then that with the most activations, then that of the newest grid, then the newest.
    Without a ``key`` it is that of the newest result of ``profile``, or of the newest made with any and in which all randomness
    varies. ``configs`` (``config_sha256``) come before all others: a grid shows its own cells and not those of a later run.
    ``include_synthetic``: after the real results a synthetic one for each cell that has none, where it agrees in all of the
    above; where nothing real is chosen, synthetic results alone."""
    real = [result for result in results if not result.synthetic]
    chosen = _select(real, key, profile, configs, grids)
    if not include_synthetic:
        return chosen
    synthetic = [result for result in results if result.synthetic]
    return chosen + _stand_ins(synthetic, chosen) if chosen else _select(synthetic, key, profile, configs)


def differs_in(setting: str, result: Result, other: Result) -> bool:
    """Whether two results are of one cell in all but this setting, ``max_iters`` or ``learning_rate``."""
    if result.profile != other.profile or result.config.get(setting) == other.config.get(setting):
        return False
    return _one_cell(result, other, _GOES_WITH[setting])


def differs_in_sources(result: Result, other: Result) -> bool:
    """Whether two results are of one cell in all but what varies between its trials, and how many there are."""
    # The path of the text does not tell cells apart; the text's digest does.
    return result.config["vary"] != other.config["vary"] and _one_cell(result, other, {"vary", "trials", "corpus"})


def _one_cell(result: Result, other: Result, but_for: Collection[str]) -> bool:
    # Not by their comparison keys, from which an arm's leaves out what its arms may differ in.
    about = [(r.model_name, r.activation, r.corpus.sha256, r.evaluation.sha256, r.synthetic) for r in (result, other)]
    if about[0] != about[1]:
        return False
    own, others = ({k: v for k, v in config_values(r.config).items() if k not in but_for} for r in (result, other))
    return own == others


def with_other(setting: str, stored: Sequence[Result], result: Result) -> list[Result]:
    """Those that differ from ``result`` in this setting alone, the newest of each value, the smallest value first."""
    others = sorted((r for r in stored if differs_in(setting, result, r)), key=lambda r: r.timestamp)
    newest = {r.config[setting]: r for r in others}
    return [newest[value] for value in sorted(newest)]


def variants(stored: Sequence[Result], shown: Sequence[Result]) -> list[Result]:
    """The runs of other lengths and at other learning rates of the cells that are ``shown``."""
    return [other for cell in shown for setting in _GOES_WITH for other in with_other(setting, stored, cell)]


def _select(
    results: Sequence[Result], key: str | None, profile: str | None, configs: Collection[str], grids: Sequence[str] = ()
) -> list[Result]:
    by_age = sorted(results, key=lambda result: result.timestamp)
    key = _key_to_show(by_age, profile, configs) if key is None else key
    candidates = [result for result in by_age if result.comparison_key == key]
    activations: dict[tuple[str, str], set[str]] = {}
    for result in candidates:
        activations.setdefault((result.model_name, result.config_sha256), set()).add(result.activation)
    # The row with the most activations: two cells of another length, though newer, do not push a finished row aside. From
    # old to new, so that of equal ones the newest stays.
    best: dict[str, tuple[bool, bool, int, int, str]] = {}
    for result in candidates:
        model, config = result.model_name, result.config_sha256
        newest = grids.index(config) if config in grids else -1
        rank = (config in configs, config in grids, len(activations[model, config]), newest)
        if model not in best or rank >= best[model][:4]:
            best[model] = (*rank, config)
    # Later ones replace earlier ones of the same cell.
    chosen = {(r.model_name, r.activation): r for r in candidates if r.config_sha256 == best[r.model_name][4]}
    return list(chosen.values())


def _key_to_show(by_age: Sequence[Result], profile: str | None, configs: Collection[str]) -> str:
    asked = [result for result in by_age if result.profile == profile] if profile else by_age
    wanted = [result for result in asked if result.config_sha256 in configs]
    # A cell trained by hand, without a profile, does not push a finished grid aside ...
    preferred = wanted or [result for result in asked if result.profile] or asked
    # ... nor does one in which a single source of randomness varies: it answers another question.
    preferred = [result for result in preferred if result.config["vary"] == "all"] or preferred
    return preferred[-1].comparison_key if preferred else ""


def _stand_ins(synthetic: Sequence[Result], real: Sequence[Result]) -> list[Result]:
    # The newest synthetic result of each cell that ``real`` lacks, among those that agree with ``real``.
    keys = {result.measured_key for result in real}
    fitting = [result for result in sorted(synthetic, key=lambda result: result.timestamp) if result.measured_key in keys]
    # Within a model that of its real results, or, where it has none, of its newest synthetic one: later entries win.
    configs = {result.model_name: result.config_sha256 for result in (*fitting, *real)}
    measured = {(result.model_name, result.activation) for result in real}
    chosen = {(r.model_name, r.activation): r for r in fitting if r.config_sha256 == configs[r.model_name]}
    return [result for cell, result in chosen.items() if cell not in measured]
