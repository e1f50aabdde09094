"""Synthetic results: made up with a chosen PD for demonstrations and scale tests, or estimated for missing cells.

Nothing here was trained or measured. Every result says so: ``synthetic`` is true, the first flag tells how the numbers came
about, and every digest of a thing that does not exist begins with ``SYNTHETIC_MARK``. Nobody reads these results unless
asked to (``selection.select_comparable``).
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from repro_lib.activations import canonical_activation
from repro_lib.analysis import METRICS, Study, identical_models
from repro_lib.config import MODEL_DEFAULTS, NEGATIVE_CONTROL, Config, canonical_json, check_model
from repro_lib.formatting import literally, number
from repro_lib.metrics import METRIC_LIMITS
from repro_lib.models import build_model, count_parameters
from repro_lib.schema import SYNTHETIC_MARK, CorpusRecord, EvaluationRecord, Result, TrialRecord
from repro_lib.selection import select_comparable
from repro_lib.store import Store
from repro_lib.trial_state import CURVE_POINTS

DEFAULT_PD = 0.5
# With more the file would hold more pairs than are read back (schema.LARGEST_RESULT_BYTES).
MOST_TRIALS = 500
# What made-up results are scored on: sizes of the real evaluation text, and a loss of the unigrams of that order.
_TOKENS, _VOCABULARY, _UNIGRAM_LOSS = 16_384, 65, 3.3


class SyntheticError(ValueError):
    """A synthetic result that cannot be made; the message says why, and what to do."""


# --- made up


def synthetic_result(
    model: str,
    activation: str,
    relative_pd: float = DEFAULT_PD,
    *,
    trials: int = 3,
    profile: str | None = "quick",
    seed: int = 42,
    spread: float = 0.1,
    timestamp: datetime | None = None,
    **explicit: Any,
) -> Result:
    """A made-up result of a cell whose mean pairwise relative PD is ``relative_pd`` (above 0, below 2).

    The PD of trials i and j is mu exp(e_i + e_j), rescaled to the chosen mean, with e_k normal of standard deviation
    ``spread`` (0 to 1): pairs that share a trial go together, as measured ones do. The other metrics, the losses and the
    curves fit it (``_metrics_of_pair``). ``seed`` is both the configuration's and that of these draws; ``explicit``
    are further configuration values. The negative control is the same for every activation. Results of equal
    ``profile`` and ``seed`` are comparable with each other, and with nothing measured: their corpus does not exist.

    Raises SyntheticError, ConfigError or ValueError for bad input.
    """
    activation = canonical_activation(activation)
    config = Config.for_model(check_model(model), profile, **{"corpus": "synthetic", **explicit}, trials=trials, seed=seed)
    config = config.with_corpus(_VOCABULARY)
    _check_choice(relative_pd, trials, spread)
    config_sha256 = config.sha256(synthetic_digest("corpus"))
    cell = [model, "" if model == NEGATIVE_CONTROL else activation, float(relative_pd), trials, seed, spread, config_sha256]
    draws = np.random.default_rng(int(synthetic_digest("draws", *cell)[len(SYNTHETIC_MARK) :], 16))
    distances = _pair_values(relative_pd, trials, spread, draws)
    records = _trial_records(config, cell, draws)
    errors = [1 - record.val_accuracy / 100 for record in records]
    pairs = {
        (i + 1, j + 1): _metrics_of_pair(float(distance), errors[i], errors[j])
        for (i, j), distance in zip(combinations(range(trials), 2), distances, strict=True)
    }
    averages = {name: float(np.mean([pair[name] for pair in pairs.values()])) for name in METRICS}
    return Result(
        model_name=model,
        activation=activation,
        parameters=_parameters(model, activation, config),
        profile=config.profile,
        config=config.model_dump(),
        config_sources=dict(config.sources),
        config_sha256=config_sha256,
        corpus=CorpusRecord(name="synthetic", sha256=synthetic_digest("corpus")),
        evaluation=EvaluationRecord(sha256=synthetic_digest("evaluation"), tokens=_TOKENS, unigram_cross_entropy=_UNIGRAM_LOSS),
        # The mean of the pairs is the chosen value but for the last bit; the chosen value it shall be.
        avg_relative_pd=float(relative_pd),
        mean_deviation_pd=_mean_deviation(relative_pd, trials),
        avg_val_loss=float(np.mean([record.val_loss for record in records])),
        avg_val_accuracy=float(np.mean([record.val_accuracy for record in records])),
        reproducibility_metrics=_flat(averages | {"relative_pd": float(relative_pd)}, pairs),
        trials=records,
        flags=[f"synthetic: made up with a chosen relative PD of {relative_pd:g} (seed {seed}), nothing was trained"],
        synthetic=True,
        environment={"origin": "synthetic"},
        timestamp=timestamp or datetime.now(UTC).replace(microsecond=0),
    )


def synthetic_digest(*parts: Any) -> str:
    """64 hexadecimal digits that name nothing measured: ``SYNTHETIC_MARK``, then a SHA-256 of ``parts``, cut to fit."""
    rest = hashlib.sha256(canonical_json(["synthetic", *parts]).encode()).hexdigest()
    return (SYNTHETIC_MARK + rest)[:64]


def _check_choice(relative_pd: float, trials: int, spread: float) -> None:
    if not 0 < relative_pd < METRIC_LIMITS["relative_pd"]:
        raise SyntheticError(f"a relative PD lies between 0 and 2, without the ends, got {relative_pd:g}; choose such a number")
    if trials < 2:
        raise SyntheticError(f"a PD is between trials, so a synthetic result needs at least 2 of them, got {trials}")
    if trials > MOST_TRIALS:
        raise SyntheticError(f"a synthetic result can have at most {MOST_TRIALS} trials, got {trials}; take fewer")
    if not 0 <= spread <= 1:
        raise SyntheticError(f"the spread of the trials must be between 0 and 1, got {spread:g}")


def _pair_values(mean: float, trials: int, spread: float, draws: np.random.Generator) -> NDArray[np.float64]:
    """Relative PDs of the N(N-1)/2 pairs, from an effect per trial: their mean is ``mean``, none exceeds 2."""
    effects = draws.normal(0.0, spread, trials)
    values = np.exp([effects[i] + effects[j] for i, j in combinations(range(trials), 2)])
    values *= mean / values.mean()
    room, largest = METRIC_LIMITS["relative_pd"] - mean, float(values.max()) - mean
    if largest > room:
        # Drawn together around the mean, which keeps it.
        values = mean + (values - mean) * (room / largest)
    for _ in range(10):
        # What rounding took from the mean is given back to the smallest pair: equal choices shall give equal means.
        values[values.argmin()] += (mean - values.mean()) * len(values)
    return np.minimum(values, METRIC_LIMITS["relative_pd"])


def _metrics_of_pair(relative_pd: float, error_i: float, error_j: float) -> dict[str, float]:
    """Six metrics of one pair that could belong together, from its relative PD and the two error rates.

    Chosen so that the relations between them hold: TV^2 / 2 <= JS <= TV ln 2; log-probability PD >= 2 atanh(true-label
    PD / 2), which is Jensen's inequality for 2 tanh(x / 2); and the sanity gate abs(err_i - err_j) <= churn <= err_i + err_j.
    """
    least, most = abs(error_i - error_j), min(1.0, error_i + error_j)
    variation, true_label = 0.35 * relative_pd, 0.6 * relative_pd
    return {
        "relative_pd": relative_pd,
        "total_variation": variation,
        "churn": least + (most - least) * relative_pd / 2,
        "js_divergence": 0.7 * variation**2,
        "true_label_pd": true_label,
        "log_prob_pd": 2 * math.atanh(true_label / 2),
    }


def _mean_deviation(relative_pd: float, trials: int) -> float:
    """The deviation-from-the-mean form that normal deviations of this pairwise PD have; at N = 2 exactly half of it."""
    return relative_pd / 2 * math.sqrt(2 * (trials - 1) / trials)


def _trial_records(config: Config, cell: Sequence[Any], draws: np.random.Generator) -> list[TrialRecord]:
    """Trials whose losses fall from that of a uniform guess to one below the unigrams' (nats per character)."""
    level = 1.9 + 0.1 * float(np.clip(draws.normal(), -3, 3))
    records = []
    for k in range(config.trials):
        loss = level + 0.02 * float(np.clip(draws.normal(), -3, 3))
        accuracy = 80 - 19 * loss  # per cent: about 44 at 1.9 nats
        points = min(CURVE_POINTS, config.max_iters)
        train_steps = [math.ceil(point * config.max_iters / points) for point in range(1, points + 1)]
        val_steps = sorted({*range(config.eval_interval, config.max_iters, config.eval_interval), config.max_iters})
        digests: dict[str, Any] = {
            f"{kind}_sha256": synthetic_digest(kind, *cell, k) for kind in ("init", "weights", "predictions")
        }
        records.append(
            TrialRecord(
                trial=k + 1,
                seed=config.seed + k,
                train_loss_curve=_curve(train_steps, loss - 0.05),
                val_loss_curve=_curve(val_steps, loss),
                val_loss=loss,
                val_accuracy=accuracy,
                seconds=0.0,
                **digests,
            )
        )
    return records


def _curve(steps: Sequence[int], last: float) -> list[tuple[int, float]]:
    """(iteration, nats): from ln V down to ``last``, fast at first."""
    first, whole = math.log(_VOCABULARY), steps[-1]
    return [(step, last + (first - last) * (math.exp(-5 * step / whole) - math.exp(-5))) for step in steps]


def _parameters(model: str, activation: str, config: Config) -> int:
    """Trainable parameters of the model, which is built once per size: the schedule and the seed do not matter."""
    same = {"device": "cpu", "max_iters": 1, "batch_size": 1, "trials": 1, "seed": 0}
    sized = config.model_copy(update=same)
    return _count(model, activation, sized)  # pyright: ignore[reportArgumentType]  (pydantic makes frozen models hashable)


@functools.cache
def _count(model: str, activation: str, config: Config) -> int:
    return count_parameters(build_model(model, config, activation))


def _flat(averages: dict[str, float], pairs: dict[tuple[int, int], dict[str, float]]) -> dict[str, float | None]:
    """Averages by name, then every metric of every pair, as a result holds them; infinite ones as None."""
    flat = dict(averages)
    for name in METRICS:
        prefix = "pd" if name == "relative_pd" else name
        flat |= {f"{prefix}_{i}_{j}": pair[name] for (i, j), pair in pairs.items()}
    return {name: value if math.isfinite(value) else None for name, value in flat.items()}


# --- chosen PDs by name


@dataclass(frozen=True)
class ChosenPD:
    """Relative PDs by name. The most specific one counts: cell, then activation, then model, then ``default``."""

    default: float = DEFAULT_PD
    by_name: dict[str, float] = field(default_factory=dict)

    @classmethod
    def parse(cls, words: Sequence[str]) -> ChosenPD:
        """From ``0.5`` and ``NAME=0.5``, where NAME is a model, an activation or ``model-activation``."""
        by_name: dict[str, float] = {}
        for word in words:
            name, _, given = word.rpartition("=")
            try:
                value = float(given)
            except ValueError:
                raise SyntheticError(f"a relative PD is given as a number or as NAME=number, got {word!r}") from None
            name = _canonical_name(name)
            if name in by_name:
                raise SyntheticError(f"the relative PD {f'of {name} ' if name else ''}is given twice; give it once")
            by_name[name] = value
        return cls(by_name.pop("", DEFAULT_PD), by_name)

    def of(self, model: str, activation: str) -> float:
        """The PD of a cell. The negative control has no activation, so a PD of an activation does not reach it."""
        names = [f"{model}-{activation}", *([] if model == NEGATIVE_CONTROL else [activation]), model]
        return next((self.by_name[name] for name in names if name in self.by_name), self.default)


def _canonical_name(name: str) -> str:
    model, hyphen, activation = name.partition("-")
    if not name or name in MODEL_DEFAULTS:
        return name
    if hyphen:
        return f"{check_model(model)}-{canonical_activation(activation)}"
    try:
        return canonical_activation(name)
    except ValueError:
        known = f"a model ({', '.join(MODEL_DEFAULTS)}), an activation such as gelu, or model-activation"
        raise SyntheticError(f"--relative-pd names {name!r}, which is no name of {known}") from None


def make_synthetic(
    models: Sequence[str],
    activations: Sequence[str],
    chosen: ChosenPD,
    *,
    trials: int = 3,
    profile: str | None = "quick",
    seed: int = 42,
    spread: float = 0.1,
) -> list[Result]:
    """A made-up result of each of these cells; all are comparable and have the same time."""
    now = datetime.now(UTC).replace(microsecond=0)
    canonical = [canonical_activation(name) for name in activations]
    cells = dict.fromkeys((check_model(model), activation) for model in models for activation in canonical)
    meant = {name for model, activation in cells for name in (model, activation, f"{model}-{activation}")}
    if unused := sorted(chosen.by_name.keys() - meant):
        raise SyntheticError(f"--relative-pd names {', '.join(unused)}, which no cell that was asked for has")
    made = {"trials": trials, "profile": profile, "seed": seed, "spread": spread, "timestamp": now}
    return [synthetic_result(*cell, chosen.of(*cell), **made) for cell in cells]


# --- estimated


@dataclass(frozen=True)
class Estimate:
    """A number of a missing cell: ``level`` x ``ratio``, and the models that the ratio is the mean of (none: 1)."""

    level: float
    ratio: float
    models: tuple[str, ...]

    @property
    def value(self) -> float:
        """The estimated number."""
        return self.level * self.ratio


def estimate_from_neighbours(numbers: dict[tuple[str, str], float], model: str, activation: str) -> Estimate:
    """What ``numbers`` (by model and activation) let expect of a cell that is not among them.

    The model's mean over the activations it has, times the activation's mean ratio to the model's mean in the other
    models that have this activation and another one; without such a model the ratio is 1. SyntheticError for a model
    that has no number at all.
    """
    by_model: dict[str, dict[str, float]] = {}
    for (name, its_activation), value in numbers.items():
        by_model.setdefault(name, {})[its_activation] = value
    if model not in by_model:
        raise SyntheticError(
            f"nothing of {model} is measured, so its cells have no neighbours to estimate from; train one first"
        )
    level = float(np.mean(list(by_model.pop(model).values())))
    means = {name: float(np.mean(list(values.values()))) for name, values in by_model.items()}
    ratios = {
        name: values[activation] / means[name]
        for name, values in by_model.items()
        if activation in values and len(values) > 1 and means[name] > 0
    }
    return Estimate(level, float(np.mean(list(ratios.values()))) if ratios else 1.0, tuple(ratios))


def fill_missing(
    source: Study | Sequence[Result],
    models: Sequence[str] = (),
    activations: Sequence[str] = (),
    timestamp: datetime | None = None,
) -> tuple[list[Result], list[str]]:
    """A stand-in for each missing cell, estimated from the measured ones, and a sentence for each model without any.

    Missing is what ``source`` expects and lacks, or, where they are named, these ``models`` and ``activations`` alone.
    Of every number (metrics, loss, accuracy) the estimate of ``estimate_from_neighbours``, cut to its range; models that
    are bit-identical across activations give no ratio and take none. A stand-in has two trials that agree in all but
    their one PD, for an estimate has no interval and no curve. Stand-ins that ``source`` holds are not made again.

    Raises SyntheticError where cells are missing and none of them has a neighbour.
    """
    if not isinstance(source, Study):
        source = Study.of(select_comparable(source, include_synthetic=True), include_synthetic=True)
    wanted_models = [check_model(name) for name in models] or source.models
    wanted = [canonical_activation(name) for name in activations] or source.activations
    measured = [result for result in source.results if not result.synthetic and result.avg_relative_pd is not None]
    made, refused = [], []
    for model, activation in dict.fromkeys(product(wanted_models, wanted)):
        if source.result(model, activation) is not None:
            continue
        try:
            made.append(_stand_in(measured, model, activation, timestamp))
        except SyntheticError as error:
            refused.append(str(error))
    if refused and not made:
        raise SyntheticError(refused[0])
    return made, list(dict.fromkeys(refused))


def fill_store(
    results_dir: Path, models: Sequence[str] = (), activations: Sequence[str] = (), profile: str | None = None
) -> tuple[list[Result], list[str]]:
    """``fill_missing`` for a results folder; without ``profile`` for the results that ``repro process`` would show."""
    # A name nobody knows is the better complaint where the folder is empty as well.
    models, activations = [check_model(name) for name in models], [canonical_activation(name) for name in activations]
    found = [result for _, result in Store(results_dir).load()[0]]
    chosen = select_comparable(found, profile=profile, include_synthetic=True)
    if all(result.synthetic for result in chosen):
        asked = f" with profile {profile}" if profile else ""
        raise SyntheticError(f"nothing measured{asked} is in {results_dir} to estimate anything from; run repro grid first")
    return fill_missing(Study.of(chosen, include_synthetic=True), models, activations)


def _stand_in(measured: Sequence[Result], model: str, activation: str, timestamp: datetime | None) -> Result:
    """The stand-in of one cell. It takes its model's configuration, corpus and evaluation text from its neighbours."""
    identical = identical_models(measured)
    # A model that ignores its activation says nothing about one, and one that does is its own only neighbour.
    usable = [r for r in measured if r.model_name == model or not {r.model_name, model} & set(identical)]

    def estimate(name: str) -> Estimate:
        return estimate_from_neighbours(_numbers(usable, name), model, activation)

    distance = estimate("avg_relative_pd")
    like = next(result for result in measured if result.model_name == model)
    values = {name: _estimated_metric(usable, name, model, activation) for name in METRICS}
    loss, accuracy = estimate("avg_val_loss").value, min(estimate("avg_val_accuracy").value, 100.0)
    error = 1 - accuracy / 100
    # Two trials with the same error disagree on no more characters than both get wrong.
    values["churn"] = min(values["churn"], 2 * error)
    neighbours = [r for r in usable if r.model_name == model or (r.model_name in distance.models)]

    def digests(k: int) -> dict[str, Any]:
        return {f"{kind}_sha256": synthetic_digest(kind, model, activation, like.config_sha256, k) for kind in _DIGESTED}

    records = [
        TrialRecord(
            trial=k + 1,
            seed=like.config["seed"] + k,
            train_loss_curve=[],
            val_loss_curve=[],
            val_loss=loss,
            val_accuracy=accuracy,
            seconds=0.0,
            **digests(k),
        )
        for k in range(2)
    ]
    return Result(
        model_name=model,
        activation=activation,
        parameters=like.parameters,
        profile=like.profile,
        config={**like.config, "trials": 2},
        config_sources=like.config_sources,
        config_sha256=like.config_sha256,
        corpus=like.corpus,
        evaluation=like.evaluation,
        avg_relative_pd=values["relative_pd"],
        mean_deviation_pd=_mean_deviation(values["relative_pd"], 2),
        avg_val_loss=loss,
        avg_val_accuracy=accuracy,
        reproducibility_metrics=_flat(values, {(1, 2): values}),
        trials=records,
        flags=_flags_of_stand_in(neighbours, distance, model, activation),
        synthetic=True,
        environment={"origin": "synthetic", "neighbours": ", ".join(_file_stem(result) for result in neighbours)},
        timestamp=timestamp or datetime.now(UTC).replace(microsecond=0),
    )


_DIGESTED = ("init", "weights", "predictions")


def _numbers(results: Sequence[Result], name: str) -> dict[tuple[str, str], float]:
    """A field or metric by cell, where it is there and finite."""
    values = {
        (r.model_name, r.activation): getattr(r, name) if name in Result.model_fields else r.reproducibility_metrics.get(name)
        for r in results
    }
    return {cell: value for cell, value in values.items() if value is not None}


def _estimated_metric(results: Sequence[Result], name: str, model: str, activation: str) -> float:
    """The estimate cut to the metric's range; infinite where the model has no finite value of it."""
    numbers = _numbers(results, "avg_relative_pd" if name == "relative_pd" else name)
    if not any(cell[0] == model for cell in numbers):
        return math.inf
    return min(estimate_from_neighbours(numbers, model, activation).value, METRIC_LIMITS[name])


def _flags_of_stand_in(neighbours: Sequence[Result], distance: Estimate, model: str, activation: str) -> list[str]:
    own = ", ".join(result.activation for result in neighbours if result.model_name == model)
    rule = f"the mean of {model} over {own} ({distance.level:.4f})"
    if distance.models:
        others = ", ".join(distance.models)
        rule += f" x the mean ratio of {activation} to the model's mean in {others} ({distance.ratio:.4f})"
    else:
        rule += f" alone, for no other model tells how {activation} differs there"
    flags = [f"synthetic: nothing was trained, relative PD {distance.value:.4f} is estimated as {rule}"]
    doubtful = [f"{result.model_name} with {result.activation}" for result in neighbours if result.flags]
    return flags + ([f"flagged neighbours: {', '.join(doubtful)}"] if doubtful else [])


def _file_stem(result: Result) -> str:
    return f"{result.model_name}-{result.activation}-{result.timestamp.astimezone(UTC):%Y%m%d_%H%M%S}"


# --- described

_WHAT_THEY_ARE = """\
# Synthetic results

Every number below was made up or estimated. Nothing was trained for it and nothing was measured.

- **For**: demonstrations, trying out reports, scale tests.
- **Not for**: any statement about a model or an activation, any statistic, any claim, any publication.
- **Where they show**: only where asked for, with `repro process --include-synthetic` (which writes to `with_synthetic/` in the
  reports folder) or `Study.load(..., include_synthetic=True)`. There they are hatched and marked, and beside measured results
  no mean, CV, rank, win or count includes them. The notebooks, the report site, `summary.txt`, `plots/`, `repro status`
  and every claim leave them out. Training never takes one for a trained cell.
- **Estimated ones** (`repro synthesize --missing`) give way to the measured cell as soon as there is one. The estimate is the
  model's mean over the activations it has, times the activation's mean ratio to the model's mean in the other models that
  have it and another activation; where there is no such model, the model's mean. So by construction it shows nothing new.
- **How to tell**: `"synthetic": true` in the file, the flag, digests that begin with `{mark}`. To be rid of them, delete the
  files.
"""


def synthetic_summary(entries: Sequence[tuple[Path, Result]]) -> str:
    """The text of ``SYNTHETIC_DATA_SUMMARY.md``: every synthetic result among ``entries`` (``Store.load``), in Markdown."""
    measured = {_place(result) for _, result in entries if not result.synthetic}
    rows = []
    for path, result in entries:
        if result.synthetic:
            state = "replaced: the cell is measured" if _place(result) in measured else "shown only where asked for"
            neighbours = result.environment.get("neighbours")
            made = ("; ".join(result.flags) or "the file does not say") + (f". Files: {neighbours}" if neighbours else "")
            distance = math.nan if result.avg_relative_pd is None else result.avg_relative_pd
            cells = (path.name, result.model_name, result.activation, f"{number(distance, 4)} (synthetic)",
                     str(len(result.trials)), f"{result.timestamp.astimezone(UTC):%Y-%m-%d %H:%M}", state, made)  # fmt: skip
            rows.append("| " + " | ".join(_cell_text(text) for text in cells) + " |")
    head = "| file | model | activation | relative PD | trials | made, UTC | state | how, and from what |\n" + "|---" * 8 + "|"
    listed = "\n".join([f"{len(rows)} synthetic results are in the store.", "", head, *rows])
    return _WHAT_THEY_ARE.format(mark=SYNTHETIC_MARK) + "\n" + (listed if rows else "There is none in the store.") + "\n"


def _place(result: Result) -> tuple[str, ...]:
    """What a measured result must have to take the place of a synthetic one."""
    return result.model_name, result.activation, result.measured_key, result.config_sha256


def _cell_text(text: str) -> str:
    return literally(text).replace("|", "\\|")
