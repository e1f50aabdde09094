"""Synthetic results: made up with a chosen PD, for demonstrations, scale tests, and to fill the gaps of a grid.

Nothing here was trained or measured, and every result says so: ``synthetic`` is true, the first flag tells how the numbers came
about, every digest of a thing that does not exist begins with ``SYNTHETIC_MARK``, and nobody reads them unless asked to."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from repro_lib.analysis.selection import select_comparable
from repro_lib.analysis.study import Study
from repro_lib.config import MODEL_DEFAULTS, NEGATIVE_CONTROL, Config, canonical_json, check_model, without_neutral
from repro_lib.metrics.prediction_difference import PAIR_METRICS
from repro_lib.models.activations import canonical_activation
from repro_lib.models.registry import parameters_of
from repro_lib.store.schema import SYNTHETIC_MARK, CorpusRecord, EvaluationRecord, Result, TrialRecord, metric_numbers
from repro_lib.store.store import Store

DEFAULT_PD = 0.5
# With more the file would hold more pairs than are read back.
MOST_TRIALS = 500
# What made-up results are scored on: sizes of the real evaluation text, and a loss of the unigrams of that order.
_TOKENS, _VOCABULARY, _UNIGRAM_LOSS = 16_384, 65, 3.3


class SyntheticError(ValueError):
    """A synthetic result that cannot be made; the message says why, and what to do."""


@dataclass(frozen=True)
class ChosenPD:
    """Relative PDs that somebody chose, by name: of a cell, else its activation, else its model, else ``""`` for all others."""

    by_name: dict[str, float]

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
            # Two spellings of one name (smelu_0.5, smelu_05) are given twice as well.
            name = _canonical_name(name)
            if name in by_name:
                raise SyntheticError(f"the relative PD {f'of {name} ' if name else ''}is given twice; give it once")
            by_name[name] = value
        return cls(by_name)

    def of(self, model: str, activation: str) -> float:
        """The PD of a cell. The negative control has no activation, so a PD of an activation does not reach it."""
        names = [f"{model}-{activation}", *([] if model == NEGATIVE_CONTROL else [activation]), model, ""]
        return next((self.by_name[name] for name in names if name in self.by_name), DEFAULT_PD)


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

    The PD of trials i and j is mu exp(e_i + e_j), rescaled to that mean, with e_k normal of standard deviation ``spread`` (0 to
    1): pairs that share a trial go together, as measured ones do. The rest fits it. ``seed`` is the configuration's and that of
    these draws; ``explicit`` are further configuration values. Results of equal ``profile`` and ``seed`` are comparable with
    each other, and with nothing measured. SyntheticError, ConfigError or ValueError for bad input."""
    activation = canonical_activation(activation)
    config = Config.for_model(check_model(model), profile, **{"corpus": "synthetic", **explicit}, trials=trials, seed=seed)
    config = config.with_corpus(_VOCABULARY)
    if not 0 < relative_pd < PAIR_METRICS["relative_pd"].largest:
        raise SyntheticError(f"a relative PD lies between 0 and 2, without the ends, got {relative_pd:g}; choose such a number")
    if not 2 <= trials <= MOST_TRIALS:
        raise SyntheticError(f"a PD is between trials: take at least 2 of them and at most {MOST_TRIALS}, got {trials}")
    if not 0 <= spread <= 1:
        raise SyntheticError(f"the spread of the trials must be between 0 and 1, got {spread:g}")
    config_sha256 = config.sha256(synthetic_digest("corpus"))
    # The negative control ignores its activation, so that its numbers may not depend on it either.
    cell = [model, "" if model == NEGATIVE_CONTROL else activation, float(relative_pd), trials, seed, spread, config_sha256]
    draws = np.random.default_rng(int(synthetic_digest("draws", *cell)[len(SYNTHETIC_MARK) :], 16))
    distances = _pair_values(relative_pd, trials, spread, draws)
    level = 1.9 + 0.1 * float(np.clip(draws.normal(), -3, 3))
    losses = [level + 0.02 * float(np.clip(draws.normal(), -3, 3)) for _ in range(trials)]
    # On real texts a nat of loss goes with about 19 points of accuracy: 44 % at 1.9 nats.
    records = [_record(k, seed, loss, 80 - 19 * loss, cell, _curve(config, loss)) for k, loss in enumerate(losses, 1)]
    return Result(
        model_name=model,
        activation=activation,
        # As the real model would have; where it would run is no matter.
        parameters=parameters_of(model, config, activation),
        profile=config.profile,
        config=without_neutral(config.model_dump()),
        config_sources=dict(config.sources),
        config_sha256=config_sha256,
        corpus=CorpusRecord(name="synthetic", sha256=synthetic_digest("corpus")),
        evaluation=EvaluationRecord(sha256=synthetic_digest("evaluation"), tokens=_TOKENS, unigram_cross_entropy=_UNIGRAM_LOSS),
        flags=[f"synthetic: made up with a chosen relative PD of {relative_pd:g} (seed {seed}), nothing was trained"],
        synthetic=True,
        environment={"origin": "synthetic"},
        timestamp=timestamp or datetime.now(UTC).replace(microsecond=0),
        **_numbers(records, relative_pd, distances),
    )


def synthetic_digest(*parts: Any) -> str:
    """64 hexadecimal digits that name nothing measured: ``SYNTHETIC_MARK``, then as much of a SHA-256 of ``parts`` as fits."""
    rest = hashlib.sha256(canonical_json(["synthetic", *parts]).encode()).hexdigest()
    return (SYNTHETIC_MARK + rest)[:64]


def _pair_values(mean: float, trials: int, spread: float, draws: np.random.Generator) -> NDArray[np.float64]:
    # Of the N(N-1)/2 pairs, from an effect per trial: their mean is the chosen one, none exceeds 2.
    effects = draws.normal(0.0, spread, trials)
    values = np.exp([effects[i] + effects[j] for i, j in combinations(range(trials), 2)])
    values *= mean / values.mean()
    room, largest = PAIR_METRICS["relative_pd"].largest - mean, float(values.max()) - mean
    if largest > room:
        # Drawn together around the mean, which keeps it.
        values = mean + (values - mean) * (room / largest)
    for _ in range(10):
        # What rounding took from the mean is given back to the smallest pair: equal choices shall give equal means.
        values[values.argmin()] += (mean - values.mean()) * len(values)
    return np.minimum(values, PAIR_METRICS["relative_pd"].largest)


def _metrics_of_pair(relative_pd: float, error_i: float, error_j: float) -> dict[str, float]:
    # Metrics of one pair that could belong together, from its relative PD and the two error rates. The relations hold:
    # TV^2 / 2 <= JS <= TV ln 2; 2 JS <= KL; log-probability PD >= 2 atanh(true-label PD / 2), which is Jensen's inequality for
    # 2 tanh(x / 2); and the sanity gate abs(err_i - err_j) <= churn <= err_i + err_j.
    least, most = abs(error_i - error_j), min(1.0, error_i + error_j)
    variation, true_label = 0.35 * relative_pd, 0.6 * relative_pd
    return {
        "relative_pd": relative_pd,
        "total_variation": variation,
        "churn": least + (most - least) * relative_pd / 2,
        "js_divergence": 0.7 * variation**2,
        "kl_divergence": 2.8 * variation**2,
        "true_label_pd": true_label,
        "log_prob_pd": 2 * math.atanh(true_label / 2),
    }


def _numbers(records: Sequence[TrialRecord], relative_pd: float, distances: NDArray[np.float64]) -> dict[str, Any]:
    trials, errors = len(records), [1 - record.val_accuracy / 100 for record in records]
    pairs = list(combinations(range(trials), 2))
    by_pair = [_metrics_of_pair(float(d), errors[i], errors[j]) for d, (i, j) in zip(distances, pairs, strict=True)]
    numbers = metric_numbers({name: [values[name] for values in by_pair] for name in by_pair[0]}, trials)
    return {
        "trials": list(records),
        # The mean of the pairs is the chosen value but for the last bit; the chosen value it shall be.
        "avg_relative_pd": float(relative_pd),
        # What normal deviations of this pairwise PD have in the deviation-from-the-mean form; at N = 2 exactly half of it.
        "mean_deviation_pd": relative_pd / 2 * math.sqrt(2 * (trials - 1) / trials),
        "avg_val_loss": float(np.mean([record.val_loss for record in records])),
        "avg_val_accuracy": float(np.mean([record.val_accuracy for record in records])),
        "reproducibility_metrics": numbers | {"relative_pd": float(relative_pd)},
    }


def _record(
    trial: int, seed: int, loss: float, accuracy: float, cell: Sequence[Any], curve: Sequence[tuple[int, float]] = ()
) -> TrialRecord:
    # With this loss (nats) and accuracy (per cent). No two trials have equal digests, so that none look identical.
    kinds = ("init", "weights", "predictions")
    values: dict[str, Any] = {f"{kind}_sha256": synthetic_digest(kind, *cell, trial) for kind in kinds}
    values |= {f"{split}_loss_curve": list(curve) for split in ("train", "val")}
    return TrialRecord(trial=trial, seed=seed + trial - 1, val_loss=loss, val_accuracy=accuracy, seconds=0.0, **values)


def _curve(config: Config, loss: float) -> list[tuple[int, float]]:
    # (iteration, nats): from the loss of a uniform guess down to ``loss``, fast at first.
    first, whole = math.log(_VOCABULARY), config.max_iters
    steps = sorted({*range(config.eval_interval, whole, config.eval_interval), whole})
    return [(step, loss + (first - loss) * (math.exp(-5 * step / whole) - math.exp(-5))) for step in steps]


def make_synthetic(models: Sequence[str], activations: Sequence[str], chosen: ChosenPD, **how: Any) -> list[Result]:
    """A made-up result of each of these cells, all comparable and of the same time; ``how`` as in ``synthetic_result``."""
    now = datetime.now(UTC).replace(microsecond=0)
    canonical = [canonical_activation(name) for name in activations]
    cells = dict.fromkeys((check_model(model), activation) for model in models for activation in canonical)
    meant = {""} | {name for model, activation in cells for name in (model, activation, f"{model}-{activation}")}
    if unused := sorted(chosen.by_name.keys() - meant):
        raise SyntheticError(f"--relative-pd names {', '.join(unused)}, which no cell that was asked for has")
    return [synthetic_result(*cell, chosen.of(*cell), **how, timestamp=now) for cell in cells]


def fill_missing(
    results_dir: Path, models: Sequence[str] = (), activations: Sequence[str] = (), profile: str | None = None
) -> tuple[list[Result], list[str]]:
    """A stand-in for each missing cell of a folder, from the measured ones of its model, and a sentence for each model without.

    Missing is what the study of ``repro process`` lacks, or of these ``models`` and ``activations`` alone. SyntheticError where
    none can be made."""
    # A name nobody knows is the better complaint where the folder is empty as well.
    models, activations = [check_model(name) for name in models], [canonical_activation(name) for name in activations]
    stored = [result for _, result in Store(results_dir).load()[0]]
    study = Study.of(select_comparable(stored, profile=profile, include_synthetic=True), include_synthetic=True)
    measured = [result for result in study.results if not result.synthetic and result.avg_relative_pd is not None]
    if not measured:
        asked = f" with profile {profile}" if profile else ""
        raise SyntheticError(f"nothing measured{asked} is in {results_dir} to fill gaps from; run repro grid first")
    by_model = {m: [result for result in measured if result.model_name == m] for m in {r.model_name for r in measured}}
    asked_for = dict.fromkeys(product(models or study.models, activations or study.activations))
    gaps = [cell for cell in asked_for if study.result(*cell) is None]
    made = [_stand_in(by_model[model], activation) for model, activation in gaps if model in by_model]
    refused = [
        f"nothing of {model} is measured, so nothing can stand in for its cells; train one first"
        for model in dict.fromkeys(model for model, _ in gaps if model not in by_model)
    ]
    if refused and not made:
        raise SyntheticError(refused[0])
    return made, refused


def _stand_in(neighbours: Sequence[Result], activation: str) -> Result:
    # Under its model's own conditions; relative PD, loss and accuracy are the means of the measured cells, so that it shows
    # nothing new. Two equal trials: made-up numbers have no interval.
    like = neighbours[0]
    names = ("avg_relative_pd", "avg_val_loss", "avg_val_accuracy")
    distance, loss, accuracy = (float(np.mean([getattr(result, name) for result in neighbours])) for name in names)
    cell = (like.model_name, activation, like.config_sha256)
    records = [_record(k, like.config["seed"], loss, accuracy, cell) for k in (1, 2)]
    own = ", ".join(result.activation for result in neighbours)
    files = [f"{r.model_name}-{r.activation}-{r.timestamp.astimezone(UTC):%Y%m%d_%H%M%S}" for r in neighbours]
    changes = {
        "activation": activation,
        "config": {**like.config, "trials": 2},
        "flags": [f"synthetic: nothing was trained, relative PD {distance:.4f} is the mean of {like.model_name} over {own}"],
        "synthetic": True,
        "environment": {"origin": "synthetic", "neighbours": ", ".join(files)},
        "timestamp": datetime.now(UTC).replace(microsecond=0),
        **_numbers(records, distance, np.array([distance])),
    }
    # Not model_copy, which would hand on the cached keys of the measured neighbour.
    return Result(**{name: getattr(like, name) for name in Result.model_fields} | changes)
