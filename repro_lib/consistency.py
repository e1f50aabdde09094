"""Does a result agree with itself? All that can be told from the file alone.

``content_sha256`` finds what was changed by accident. These checks are for a file whose digest was made anew: numbers that
could not have come from one another are refused, whoever wrote them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import combinations, pairwise
from typing import TYPE_CHECKING

from repro_lib.activations import canonical_activation
from repro_lib.config import MODEL_DEFAULTS, RECIPE_VERSION, Config, ConfigError, digest_of_values
from repro_lib.metrics import METRIC_LIMITS, metric_names

if TYPE_CHECKING:
    from repro_lib.results import Result, TrialRecord

# Readable in every digest that is shown shortened to 12 characters; a SHA-256 begins so once in 2^48.
SYNTHETIC_MARK = "facadefacade"
# No time zone and no calendar has trouble within these years.
_YEARS = range(2000, 2200)


def contradictions(result: Result) -> Iterator[str]:
    """A sentence for each thing in a result that cannot be true together with the rest, or at all."""
    for check in (_names, _configuration, _time, _trials, _averages, _pairs, _missing_flags):
        found = list(check(result))
        yield from found
        if found:  # what comes later takes for granted what came before
            return


def _names(result: Result) -> Iterator[str]:
    if result.model_name not in MODEL_DEFAULTS:
        yield f"model_name: unknown model {result.model_name!r}"
    try:
        if canonical_activation(result.activation) != result.activation:
            yield f"activation: {result.activation!r} is stored as {canonical_activation(result.activation)!r}"
    except ValueError as error:
        yield f"activation: {error}"
    digests = [result.corpus.sha256, *(record.weights_sha256 for record in result.trials)]
    if not result.synthetic and any(digest.startswith(SYNTHETIC_MARK) for digest in digests):
        yield "synthetic: its digests are those of a synthetic result, but it says that it is none"


def _configuration(result: Result) -> Iterator[str]:
    missing = {"vary", "execution", "device", "seed", "trials", "max_iters"} - result.config.keys()
    if missing:
        yield f"config: {', '.join(sorted(missing))} is missing"
        return
    values = dict(result.config)
    if "n_head" not in MODEL_DEFAULTS[result.model_name]:
        # A model without attention keeps the default number of heads, which need not fit its width.
        values.pop("n_head", None)
    try:
        Config(**values)
    except ConfigError as error:
        yield f"config: {error}"
        return
    # Values that a later version added, or dropped, had no part in the digest of this one.
    if result.config.keys() == Config.model_fields.keys():
        versions = range(1, RECIPE_VERSION + 1)
        digests = {digest_of_values(result.config, result.corpus.sha256, version) for version in versions}
        if result.config_sha256 not in digests:
            yield "config_sha256: it is not the digest of this configuration and corpus"


def _time(result: Result) -> Iterator[str]:
    if result.timestamp.year not in _YEARS:
        yield f"timestamp: the year {result.timestamp.year} is not possible"


def _trials(result: Result) -> Iterator[str]:
    n, asked = len(result.trials), result.config["trials"]
    if n < asked:
        yield f"trials: {asked} were asked for, {n} are there"
    for k, record in enumerate(result.trials, start=1):
        if record.trial != k:
            yield f"trials: number {k} is called trial {record.trial}"
        if record.seed != result.config["seed"] + k - 1:
            yield f"trials: trial {k} has seed {record.seed}, the first one {result.config['seed']}"
        yield from _curves(record, result.config["max_iters"])
    yield from _stacks(result)


def _stacks(result: Result) -> Iterator[str]:
    """Trials that were trained as one follow each other and say the same of it."""
    n, execution = len(result.trials), result.config["execution"]
    before: list[int] = []
    for k, record in enumerate(result.trials, start=1):
        stack = record.stack or []
        if not result.synthetic and (record.stack is not None) != ("stacked" in execution):
            how = "by itself" if record.stack is None else "in a stack"
            yield f"trials: execution is {execution}, and trial {k} was trained {how}"
        elif record.stack is not None:
            first = k - stack.index(k) if k in stack else 0
            begun = first < k or (before and before[-1] >= k)
            if first < 1 or stack != [*range(first, first + len(stack))] or stack[-1] > n or (begun and before != stack):
                yield f"trials: trial {k} cannot have been in the stack that it names"
        before = stack


def _curves(record: TrialRecord, max_iters: int) -> Iterator[str]:
    for name in ("train_loss_curve", "val_loss_curve"):
        iterations = [iteration for iteration, _ in record[name]]
        if any(after <= before for before, after in pairwise([0, *iterations, max_iters + 1])):
            yield f"trials: {name} of trial {record.trial} does not rise within 1 to {max_iters} iterations"


def _averages(result: Result) -> Iterator[str]:
    for name in ("val_loss", "val_accuracy"):
        mean = math.fsum(record[name] for record in result.trials) / len(result.trials)
        if not _same(result[f"avg_{name}"], mean):
            yield f"avg_{name}: {result[f'avg_{name}']:.6g} is not the mean of the trials, {mean:.6g}"


def _pairs(result: Result) -> Iterator[str]:
    """Every metric has all its pairs, within its range, and the average is theirs; one trial has no pair."""
    n, numbers = len(result.trials), dict(result.reproducibility_metrics)
    count = math.comb(n, 2)
    # Before anything is listed: n trials have n (n - 1) / 2 pairs, and a file need not hold as many numbers.
    if count > len(numbers):
        yield f"reproducibility_metrics: {n} trials have {count} pairs, {len(numbers)} numbers are there"
        return
    averages = {}
    for name in metric_names():
        prefix = "pd" if name == "relative_pd" else name
        keys = [f"{prefix}_{i}_{j}" for i, j in combinations(range(1, n + 1), 2)] if name in numbers else []
        if (name in numbers) != (n > 1) or not numbers.keys() >= set(keys):
            yield f"reproducibility_metrics: {name} has not its average and a number for each of the {count} pairs"
            return
        values = [numbers.pop(key) for key in keys]
        if values:
            averages[name] = numbers.pop(name)
            yield from _metric(name, averages[name], values)
    if numbers:
        yield f"reproducibility_metrics: {min(numbers)!r} is no metric of {n} trials"
    yield from _primary(result, averages)


def _metric(name: str, average: float | None, values: list[float | None]) -> Iterator[str]:
    limit = METRIC_LIMITS[name]
    if any(value is None for value in values):
        # None is infinity, which only a logarithm can reach.
        if math.isfinite(limit) or average is not None:
            yield f"reproducibility_metrics: {name} is infinite for a pair, its average or its range is not"
        return
    finite = [value for value in values if value is not None]
    if not all(0 <= value <= limit * (1 + 1e-9) for value in finite):
        yield f"reproducibility_metrics: {name} lies between 0 and {limit:.4g}"
    mean = math.fsum(finite) / len(finite)
    if average is None or not _same(average, mean):
        yield f"reproducibility_metrics: {name} {average} is not the mean of its pairs, {mean:.6g}"


def _primary(result: Result, averages: dict[str, float | None]) -> Iterator[str]:
    """The two numbers that stand by themselves: there with two trials or more, and nothing else than the pairs say."""
    n, pd, deviation = len(result.trials), result.avg_relative_pd, result.mean_deviation_pd
    if n == 1:
        if pd is not None or deviation is not None:
            yield "avg_relative_pd: one trial has no pair, so it has no PD"
        return
    if pd is None or deviation is None:
        yield f"avg_relative_pd: {n} trials have pairs, but there is no PD"
        return
    average = averages.get("relative_pd")
    if average is None or not _same(pd, average):
        yield f"avg_relative_pd: {pd:.6g} is not the mean of the pairs"
    # Exact at two trials; with more it lies between bounds that many different pairs share.
    if (n == 2 and not _same(deviation, pd / 2)) or deviation > 2 * (n - 1) / n * (1 + 1e-9):
        yield f"mean_deviation_pd: {deviation:.6g} cannot be that of {n} trials with a relative PD of {pd:.6g}"


def _missing_flags(result: Result) -> Iterator[str]:
    """The two flags without which a number means something else than it seems (DESIGN, sanity gate)."""
    if result.synthetic:
        return
    for record in result.trials:
        untrained = record.val_loss >= result.evaluation.unigram_cross_entropy
        if untrained and not any(flag.startswith(f"untrained: trial {record.trial} ") for flag in result.flags):
            yield f"flags: trial {record.trial} has learnt nothing, and no flag says so"
    if len(result.trials) < 2:
        return
    errors = [1 - record.val_accuracy / 100 for record in result.trials]
    flagged = any(flag.startswith("impossible churn: ") for flag in result.flags)
    for (i, j), churn in result.pairs("churn").items():
        low, high = abs(errors[i - 1] - errors[j - 1]), errors[i - 1] + errors[j - 1]
        if not low - 1e-9 <= churn <= high + 1e-9 and not flagged:
            yield f"flags: the churn of trials {i} and {j} is impossible, and no flag says so"


def _same(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12)
