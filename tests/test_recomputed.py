"""Every number of the report's tables again, from the published JSON files with numpy alone and nothing of the library."""

import csv
import json
import lzma
import math
from collections.abc import Callable, Iterator
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

HERE = Path(__file__).parents[1] / "published"
METRICS = ("relative_pd", "total_variation", "churn", "js_divergence", "true_label_pd", "log_prob_pd")
LARGEST = dict.fromkeys(("total_variation", "churn"), 1.0) | {"relative_pd": 2.0, "true_label_pd": 2.0}
LARGEST |= {"js_divergence": math.log(2)}
ACTIVATIONS = ("relu", "gelu", "swish", "swiglu", "smelu_1")
LEADING = METRICS[:2]
MARGIN, SIGNIFICANT = 3.0, 0.05
Row = dict[str, Any]


# --- distributions

erf = np.vectorize(math.erf)


@cache
def lattice(degrees: int) -> tuple[np.ndarray, np.ndarray]:
    """Places and weights of a chi distribution over the root of its degrees, for sums instead of integrals."""
    s = np.linspace(1e-9, 6, 6001)
    logarithm = (degrees - 1) * np.log(s) - degrees * s**2 / 2
    density = np.exp(logarithm - logarithm.max())
    return s, density / density.sum()


def t_above(t: float, degrees: float) -> float:
    """P(T > t) by Simpson's rule, over the angle with the tangent x / root of the degrees: a power of a cosine."""
    weights = np.array([1, *[4, 2] * 999, 4, 1])
    start = math.atan(t / math.sqrt(degrees))
    own, whole = (np.linspace(low, math.pi / 2, 2001) for low in (start, -math.pi / 2))
    area = [(weights * np.maximum(np.cos(u), 0) ** (degrees - 1)).sum() * (u[1] - u[0]) for u in (own, whole)]
    return float(area[0] / area[1])


def solve(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a falling function is 0."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if function(middle) > 0 else (low, middle)
    return (low + high) / 2


@cache
def t_quantile(degrees: int, above: float = 0.025) -> float:
    return solve(lambda t: t_above(t, degrees) - above, 0, 1000)


def power(n: int, effect: float, level: float) -> float:
    s, weights = lattice(n - 1)
    bars = t_quantile(n - 1, level / 2) * s - effect * math.sqrt(n)
    return float(((1 - erf(bars / math.sqrt(2))) / 2 * weights).sum())


def f_above(x: float, degrees: int) -> float:
    """Of an F with 4 degrees above: the chance of a chi-square, which is elementary, averaged over the one below."""
    s, weights = lattice(degrees)
    half = 2 * x * s**2
    return float((np.exp(-half) * (1 + half) * weights).sum())


def noncentral_below(x: np.ndarray, noncentrality: np.ndarray) -> np.ndarray:
    """Of a noncentral chi-square with 4 degrees: one shifted normal, and a chi-square with 3, which has an error function."""
    z = np.linspace(-8, 8, 801)
    weights = np.exp(-(z**2) / 2)
    left = np.maximum(x[:, None] - (z + np.sqrt(noncentrality)[:, None]) ** 2, 0)
    below = erf(np.sqrt(left / 2)) - np.sqrt(2 * left / math.pi) * np.exp(-left / 2)
    return below @ weights / weights.sum()


# --- what is stored


def content(store: str) -> Iterator[Row]:
    for path in sorted((HERE / store).glob("*.json*")):
        content = path.read_bytes()
        yield json.loads(lzma.decompress(content) if path.suffix == ".xz" else content)


@cache
def cells(store: str) -> dict[tuple[str, str, int], Row]:
    """The runs in which everything varies, by model, activation and steps; of two rates the common one, with more trials."""
    found = sorted((r for r in content(store) if r["config"]["vary"] == "all"), key=lambda r: len(r["trials"]))
    return {(r["model_name"], r["activation"], r["config"]["max_iters"]): r for r in found}


def pairs(result: Row, metric: str) -> np.ndarray:
    n, stem = len(result["trials"]), "pd" if metric == "relative_pd" else metric
    matrix = np.zeros((n, n))
    for i, j in combinations(range(n), 2):
        matrix[i, j] = matrix[j, i] = result["reproducibility_metrics"][f"{stem}_{i + 1}_{j + 1}"]
    return matrix


def mean(matrix: np.ndarray, leave: int | None = None) -> float:
    kept = [k for k in range(len(matrix)) if k != leave]
    return float(np.mean([matrix[i, j] for i, j in combinations(kept, 2)]))


def every(function: Callable[[int | None], float], n: int) -> tuple[float, float, float]:
    """A number with the ends of its jackknife interval, whose standard error is the third."""
    value, without = function(None), np.array([function(k) for k in range(n)])
    return value, float(t_quantile(n - 1)), math.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum())


def ends(found: tuple[float, float, float], low: float = -math.inf, high: float = math.inf) -> tuple[float, float, float]:
    value, t, error = found
    return value, max(value - t * error, low), min(value + t * error, high)


def judged(difference: Callable[[float], Callable[[int | None], float]], n: int, family: int) -> Row:
    """p of the difference, and of its being outside the margin."""
    value, _, error = every(difference(1.0), n)
    low, _, low_error = every(difference(1 - MARGIN / 100), n)
    high, _, high_error = every(difference(1 + MARGIN / 100), n)
    outside = max(t_above(low / low_error, n - 1), t_above(-high / high_error, n - 1))
    row = dict(zip(("difference", "difference_low", "difference_high"), ends(every(difference(1.0), n)), strict=True))
    return row | {"p": 2 * t_above(abs(value) / error, n - 1), "p_equal": min(1, family * outside), "error": error}


def family_of(rows: list[Row], size: int) -> list[Row]:
    """Holm's correction and the verdicts."""
    least, order = 0.0, sorted(range(len(rows)), key=lambda k: rows[k]["p"])
    for step, k in enumerate(order):
        least = max(least, min(1.0, (size - step) * rows[k]["p"]))
        rows[k]["p_holm"] = least
    for row in rows:
        equal = "equal within the margin" if row["p_equal"] <= SIGNIFICANT else "not decided"
        row["verdict"] = "not decided" if row["n"] < 10 else "supported" if row["p_holm"] <= SIGNIFICANT else equal
    return rows


def by_permutation(own: np.ndarray, other: np.ndarray) -> float:
    n = len(own)
    values = [n * (mean(own) - mean(other)) - (n - 1) * (mean(own, k) - mean(other, k)) for k in range(n)]
    ways = np.arange(2**n) if n <= 11 else np.append(0, np.random.default_rng(1).integers(2**n, size=20_000))
    signs = 1 - 2 * ((ways[:, None] >> np.arange(n)) & 1)
    sums = np.abs(signs @ np.array(values))
    return float((sums >= abs(sum(values)) * (1 - 1e-9)).mean())


# --- tables


def table(name: str) -> list[Row]:
    lines = (HERE / "tables" / f"{name}.csv").read_text().splitlines()
    return [{key: _number(value) for key, value in row.items()} for row in csv.DictReader(lines)]


def _number(text: str) -> Any:
    try:
        return float(text) if text else math.nan
    except ValueError:
        return text


def same(row: Row, expected: Row, relative: float = 1e-6) -> None:
    for name, value in expected.items():
        if isinstance(value, str):
            assert row[name] == value, (row, name)
        elif not (math.isnan(value) and math.isnan(row[name])):
            assert row[name] == pytest.approx(value, rel=relative, abs=2e-9), (row["model"], row["activation"], name)


# Of each table of contrasts: its text, if it has several, the store, the steps, and how many contrasts are one family.
FAMILIES = {
    "grid": ("contrasts", "", "second/results", 500, 20),
    "first edition": ("first_contrasts", "", "results", 500, 20),
    "long": ("long_contrasts", "", "second/long/results", 5000, 4),
    "minigpt": ("minigpt_contrasts", "", "second/minigpt/results", 500, 4),
    "tinyshakespeare": ("texts", "tinyshakespeare", "second/tinyshakespeare/results", 500, 8),
    "networkx": ("texts", "networkx", "second/networkx/results", 500, 8),
    "mishnah": ("texts", "mishnah", "second/mishnah/results", 500, 8),
    "bpe": ("texts", "bpe", "second/bpe/results", 500, 1),
}
CELLS = {"cells": ("second/results", 500), "first_cells": ("results", 500)}
CELLS |= {"long_cells": ("second/long/results", 5000), "minigpt_cells": ("second/minigpt/results", 500)}
CELLS["texts_cells"] = ("second/{text}/results", 500)


def run(name: str, wanted: Callable[[Row], bool] = bool) -> list[Row]:
    """The rows of a table, some at least."""
    rows = [row for row in table(name) if wanted(row)]
    assert rows
    return rows


@pytest.mark.parametrize("name", CELLS)
def test_cells(name: str) -> None:
    store, steps = CELLS[name]
    for row in run(name, lambda row: row["n"] > 0):
        result = cells(store.format(text=row.get("text")))[row["model"], row["activation"], steps]
        n = len(result["trials"])
        expected: Row = {"n": n}
        for metric in METRICS:
            matrix = pairs(result, metric)
            found = ends(every(lambda k, m=matrix: mean(m, k), n), 0.0, LARGEST.get(metric, math.inf))
            expected |= dict(zip((metric, f"{metric}_low", f"{metric}_high"), found, strict=True))
        for value in ("val_loss", "val_accuracy"):
            values = np.array([trial[value] for trial in result["trials"]])
            half = t_quantile(n - 1) * values.std(ddof=1) / math.sqrt(n)
            expected |= {value: values.mean(), f"{value}_low": values.mean() - half, f"{value}_high": values.mean() + half}
        same(row, expected)


def against(own: np.ndarray, other: np.ndarray, family: int) -> Row:
    """A contrast, of the seeds that both have."""
    n = min(len(own), len(other))
    own, other = own[:n, :n], other[:n, :n]

    def difference(times: float) -> Callable[[int | None], float]:
        return lambda k: mean(own, k) - times * mean(other, k)

    share = ends(every(lambda k: 100 * (mean(own, k) / mean(other, k) - 1), n))
    row = {"n": n, **judged(difference, n, family), "p_permutation": by_permutation(own, other)}
    return row | dict(zip(("per_cent", "per_cent_low", "per_cent_high"), share, strict=True))


def same_family(rows: list[Row], made: list[Row], size: int) -> None:
    """Also of p by permutations, which beyond 11 trials are drawn."""
    assert len(rows) == size
    for row, new in zip(rows, family_of(made, size), strict=True):
        new.pop("error", None)
        by_draws = new.pop("p_permutation", None)
        if by_draws is not None and "p_permutation" in row:
            assert row["p_permutation"] == pytest.approx(by_draws, abs=1e-9 if row["n"] <= 11 else 0.02)
        same(row, new)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("metric", METRICS)
def test_contrasts(name: str, metric: str) -> None:
    of, text, store, steps, family = FAMILIES[name]
    rows, made = run(of, lambda row: row["metric"] == metric and row.get("text", "") == text), []
    for row in rows:
        own, other = (pairs(cells(store)[row["model"], arm, steps], metric) for arm in (row["activation"], "relu"))
        made.append(new := against(own, other, family))
        needed, level = row["trials_needed"], SIGNIFICANT / family
        effect = abs(new["difference"]) / (new["error"] * math.sqrt(new["n"]))
        if metric == "relative_pd" and needed < 2000:
            assert power(int(needed), effect, level) >= 0.8 - 1e-3
            assert needed == 10 or power(int(needed) - 1, effect, level) <= 0.8 + 1e-3
    same_family(rows, made, family)


@pytest.mark.parametrize("metric", METRICS)
def test_contrasts_at_own_rates(metric: str) -> None:
    rows, made = run("own_rates", lambda row: row["metric"] == metric), []
    others = (r for r in table("rates") if r["own"] == "True" and r["common"] == "False")
    own = {(r["model"], r["activation"]): r["learning_rate"] for r in others}
    apart = {(r["model_name"], r["activation"], r["config"]["learning_rate"]): r for r in content("second/results")
             if r["config"]["vary"] == "all" and r["config"]["max_iters"] == 500}  # fmt: skip
    for row in rows:
        name = (row["model"], row["activation"])
        usual, relu = (cells("second/results")[row["model"], arm, 500] for arm in (row["activation"], "relu"))
        chosen = apart[*name, own[name]] if name in own else usual
        made.append(against(pairs(chosen, metric), pairs(relu, metric), 20))
    same_family(rows, made, 20)
    for row in table("own_rates_loss"):
        name = (row["model"], row["activation"])
        at = {trial["seed"]: trial["val_loss"] for trial in cells("second/results")[*name, 500]["trials"]}
        changed = np.array([trial["val_loss"] - at[trial["seed"]] for trial in apart[*name, own[name]]["trials"]])
        found = changed.mean(), t_quantile(len(changed) - 1), changed.std(ddof=1) / math.sqrt(len(changed))
        assert [float(row[end]) for end in ("difference", "low", "high")] == pytest.approx(ends(found), rel=1e-6)


@pytest.mark.parametrize("metric", ["total_variation", "relative_pd", "churn"])
def test_what_helps(metric: str) -> None:
    rows = run("helps")
    arms = json.loads((HERE / "second/helps/results/declared/arms-remedies.json").read_text())
    by_digest = {(r["model_name"], r["activation"], r["config_sha256"]): r for r in content("second/helps/results")}
    found = {
        (c["model_name"], c["arm"]): by_digest[c["model_name"], c["activation"], c["config_sha256"]] for c in arms["cells"]
    }
    for row in rows:
        result = found[row["model"], row["activation"]]
        losses = [trial["val_loss"] for trial in result["trials"]]
        same(row, {"n": len(losses), metric: mean(pairs(result, metric)), "val_loss": np.mean(losses)})
    contrasts = [row for row in rows if row["activation"] != arms["reference"]]
    made = []
    for row in contrasts:
        own, other = (pairs(found[row["model"], arm], metric) for arm in (row["activation"], arms["reference"]))
        made.append(against(own, other, len(contrasts)))
    for row, new in zip(contrasts, family_of(made, len(contrasts)), strict=True):
        same(row, {f"{key}_{metric}": new[key] for key in ("per_cent", "per_cent_low", "per_cent_high", "verdict")})


def test_sources_of_randomness() -> None:
    stored = list(content("second/results"))
    for row in run("sources"):
        of = [r for r in stored if (r["model_name"], r["activation"]) == (row["model"], row["activation"])]
        of = [r for r in of if r["config"]["vary"] == row["source"] and r["config"]["max_iters"] == 500]
        result = max(of, key=lambda r: len(r["trials"]))
        n = len(result["trials"])
        for metric in METRICS:
            matrix = pairs(result, metric)
            found = ends(every(lambda k, m=matrix: mean(m, k), n), 0.0, LARGEST.get(metric, math.inf))
            same(row, {"n": n} | dict(zip((metric, f"{metric}_low", f"{metric}_high"), found, strict=True)))


def test_forks() -> None:
    for row in run("forks"):
        (result,) = (
            r
            for r in content("second/forks/results")
            if r["config"]["vary"] == row["varies"] and r["config"].get("fork_share", 0) == row["share"]
        )
        n, matrix = len(result["trials"]), pairs(result, "total_variation")
        found = ends(every(lambda k, m=matrix: mean(m, k), n), 0.0, 1.0)
        same(row, {"n": n} | dict(zip((f"total_variation{end}" for end in ("", "_low", "_high")), found, strict=True)))


def test_replication_and_dependence_on_the_model() -> None:
    first, second = (
        {(r["metric"], r["model"], r["activation"]): r for r in table(n)} for n in ("first_contrasts", "contrasts")
    )
    rows = table("replicated")
    asked = [key for key, r in first.items() if key[0] in LEADING and key[1] != "tinylstm_readout"]
    assert {(r["metric"], r["model"], r["activation"]) for r in rows} == {
        k for k in asked if first[k]["verdict"] != "not decided"
    }
    for row in rows:
        then, now = (of[row["metric"], row["model"], row["activation"]] for of in (first, second))
        both = then["verdict"] == now["verdict"] == "supported"
        turned = both and then["per_cent"] * now["per_cent"] < 0
        outcome = "reversed" if turned else "replicated" if then["verdict"] == now["verdict"] else "not replicated"
        assert row["outcome"] == outcome
    for metric in LEADING:
        rows, ps = [row for row in table("dependence") if row["metric"] == metric], []
        for row in rows:
            one, other = (second[metric, row[f"model_{k}"], "swiglu"] for k in (1, 2))
            errors = [(r["per_cent_high"] - r["per_cent_low"]) / 2 / t_quantile(int(r["n"]) - 1) for r in (one, other)]
            whole = math.hypot(*errors)
            degrees = whole**4 / sum(error**4 / (r["n"] - 1) for error, r in zip(errors, (one, other), strict=True))
            points = one["per_cent"] - other["per_cent"]
            ps.append({"p": 2 * t_above(abs(points) / whole, degrees), "n": one["n"], "p_equal": 1.0})
            same(row | {"activation": ""}, {"points": points, "error": whole, "p": ps[-1]["p"]}, 1e-4)
        for row, new in zip(rows, family_of(ps, len(ps)), strict=True):
            assert row["p_holm"] == pytest.approx(new["p_holm"], rel=1e-4)


@pytest.mark.parametrize("metric", METRICS)
def test_contrasts_at_equal_loss(metric: str) -> None:
    rows, made = run("equal_loss", lambda row: row["metric"] == metric), []
    for row in rows:
        runs = []
        for name in (row["activation"], "relu"):
            own = {steps: r for (m, a, steps), r in cells("second/results").items() if (m, a) == (row["model"], name)}
            losses = {steps: np.array([trial["val_loss"] for trial in r["trials"]]) for steps, r in own.items()}
            runs.append([(losses[steps], pairs(own[steps], metric)) for steps in sorted(own, key=lambda steps: steps != 500)])
        n = min(len(losses) for several in runs for losses, _ in several)
        runs = [[(losses[:n], matrix[:n, :n]) for losses, matrix in several] for several in runs]
        full = runs if len(runs[0]) > 1 else runs[:1]  # no line leads from an only run to another loss

        def read_off(arm: int, k: int | None, runs: list[Any] = runs, full: list[Any] = full, n: int = n) -> float:
            kept = [place for place in range(n) if place != k]
            at = max(several[0][0][kept].mean() for several in full)
            points = sorted((losses[kept].mean(), mean(matrix, k)) for losses, matrix in runs[arm])
            return float(np.interp(at, [loss for loss, _ in points], [value for _, value in points]))

        def difference(times: float, read_off: Callable[[int, int | None], float] = read_off) -> Callable[[int | None], float]:
            return lambda k: read_off(0, k) - times * read_off(1, k)

        share = ends(every(lambda k, of=read_off: 100 * (of(0, k) / of(1, k) - 1), n))
        loss = max(several[0][0].mean() for several in full)
        new = {"n": n, "loss": loss, **judged(difference, n, 20)}
        made.append(new | dict(zip(("per_cent", "per_cent_low", "per_cent_high"), share, strict=True)))
    for row, new in zip(rows, family_of(made, 20), strict=True):
        same(row, {name: value for name, value in new.items() if name != "error"})


def test_cv_over_activations() -> None:
    for row in (row for row in table("cv") if row["metric"] == "relative_pd"):
        if row["identical"] == "True":
            alike = [
                [t["weights_sha256"] for t in cells("second/results")[row["model"], a, 500]["trials"]] for a in ACTIVATIONS
            ]
            assert row["cv"] == 0
            assert all(digests == alike[0] for digests in alike)
            continue
        matrices = [pairs(cells("second/results")[row["model"], name, 500], "relative_pd") for name in ACTIVATIONS]
        means, n, c = np.array([mean(matrix) for matrix in matrices]), len(matrices[0]), len(ACTIVATIONS)
        measured = 100 * means.std() / means.mean()
        without = np.array([[mean(matrix, k) for k in range(n)] for matrix in matrices])
        own = (n - 1) * (without.mean(axis=1, keepdims=True) - without) * 100 / means.mean()
        noise = ((own - own.mean(axis=0)) ** 2).sum() / (n * (n - 1) * (c - 1))
        first, second = 4, (n - 1) * (c - 1)  # four: of five activations
        corrected = math.sqrt(max(c * measured**2 - first * noise, 0) / c)
        same(row, {"cv": measured, "cv_corrected": corrected, "p": f_above(c * measured**2 / (first * noise), second)}, 1e-4)
        # The ends of the null and of the interval, by what they are said to be: chances.
        for name, above in (("null_median", 0.5), ("null_high", 0.05)):
            assert f_above(c * row[name] ** 2 / (first * noise), second) == pytest.approx(above, abs=1e-5)
        s, weights = lattice(second)
        noises, at_hand = noise / s[50::15] ** 2, weights[50::15] / weights[50::15].sum()
        for name, below in (("cv_corrected_low", 0.945), ("cv_corrected_high", 0.01)):
            square = c * measured**2 if name.endswith("low") else max(c * measured**2, first * noise)
            chance = (noncentral_below(square / noises, c * row[name] ** 2 / noises) * at_hand).sum()
            assert chance == pytest.approx(below, abs=2e-3) or (row[name] == 0 and chance <= below), (row["model"], name)


def test_churn_per_error() -> None:
    for row in table("churn_and_error"):
        result = cells("second/results")[row["model"], row["activation"], 500]
        matrix, errors = pairs(result, "churn"), np.array([1 - t["val_accuracy"] / 100 for t in result["trials"]])
        n = len(errors)
        kept = [[j for j in range(n) if j != k] for k in range(n)]
        found = ends(
            every(lambda k, m=matrix, e=errors, of=kept: mean(m, k) / e[of[k] if k is not None else slice(None)].mean(), n)
        )
        same(row, dict(zip(("ratio", "ratio_low", "ratio_high"), found, strict=True)), 1e-5)


def test_the_control_of_halves_and_of_random_halves() -> None:
    def without_each(matrix: np.ndarray) -> np.ndarray:
        n, rows = len(matrix), matrix.sum(axis=1)
        return (rows.sum() - 2 * rows) / ((n - 1) * (n - 2))

    for row in table("a_a_control"):
        matrix, half = pairs(cells("second/results")[row["model"], row["activation"], 500], row["metric"]), int(row["n"])
        drawn, hits, bar = np.random.default_rng(0), 0, t_quantile(half - 1)
        for _ in range(200):
            order = drawn.permutation(np.arange(2 * half))
            one, other = (matrix[np.ix_(part, part)] for part in (order[:half], order[half:]))
            values = without_each(one) - without_each(other)
            error = math.sqrt((half - 1) / half * ((values - values.mean()) ** 2).sum())
            hits += abs(one.sum() - other.sum()) / (half * (half - 1)) >= bar * error
        one, other = matrix[:half, :half], matrix[half:, half:]
        share = ends(every(lambda k, a=one, b=other: 100 * (mean(a, k) / mean(b, k) - 1), half))
        value, _, error = every(lambda k, a=one, b=other: mean(a, k) - mean(b, k), half)
        expected = {"p": 2 * t_above(abs(value) / error, half - 1), "share_of_random": hits / 200}
        same(row, expected | dict(zip(("per_cent", "per_cent_low", "per_cent_high"), share, strict=True)))
    for metric in LEADING:
        rows = [row for row in table("a_a_control") if row["metric"] == metric]
        for row, new in zip(rows, family_of([row | {"p_equal": 1.0} for row in rows], len(rows)), strict=True):
            assert row["p_holm"] == pytest.approx(new["p_holm"])
