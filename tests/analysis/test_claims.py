"""Every claim in a world where it is true and in one where it is not, and how often chance alone would call it wrongly.

A world gives each cell a true mean PD; its trials have effects of their own, so that pairs that share one are dependent,
as those of trained models are. Nothing is trained."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from test_study import make_result

from repro_lib.analysis.claim_rules import ACTIVATIONS, AVERAGE_PD, CHARLM_PD, CV, OVERALL, WINNER
from repro_lib.analysis.claims import CLAIMS, judge
from repro_lib.analysis.contrasts import contrasts_frame
from repro_lib.analysis.evidence import Evidence
from repro_lib.analysis.frames import METRICS
from repro_lib.analysis.study import Study
from repro_lib.analysis.synthetic import synthetic_result
from repro_lib.analysis.verdicts import NOT_COMPARABLE, NOT_DECIDED, REFUTED, SUPPORTED
from repro_lib.report.claims_ledger import claims_json, conclusions_markdown, ledger, sentence, tally
from repro_lib.store.schema import Result

MODELS = ("charlm", "minigpt", "nanotransformer", "convlm", "hybridlm", "tinylstm")
Cells = Mapping[tuple[str, str], float]
MADE = cache(make_result)  # a world has many, and another one other numbers of the same


def world(
    cells: Cells | None = None,
    *,
    n: int = 10,
    spread: float = 0.004,
    seed: int = 0,
    identical: tuple[str, ...] = ("tinylstm",),
    parameters: float = 10.8e6,
    models: tuple[str, ...] = MODELS,
) -> Evidence:
    """What a study of these models measured: PD of trials i and j = true mean * (1 + effect_i + effect_j + noise).

    ``cells``: true means where they are not 1. ``spread``: sd of a trial's effect, in units of the mean; the noise of a
    pair has half of it. Every metric has the same values."""
    rng, results = np.random.default_rng(seed), []
    first, second = np.triu_indices(n, k=1)
    for model in models:
        same = model in identical
        for activation in ACTIVATIONS:
            if activation == ACTIVATIONS[0] or not same:  # else every activation has the trials of the first
                effects, noise = rng.normal(0, spread, n), rng.normal(0, spread / 2, len(first))
            values = (cells or {}).get((model, activation), 1.0) * (1 + effects[first] + effects[second] + noise)
            size = parameters if model == "minigpt" else 430_000.0
            blank = MADE(model, activation, (0.5,) * len(first), same=same)
            results.append(with_pairs(blank, dict.fromkeys(METRICS, values), parameters=size))
    return Evidence(tuple(results), models, ACTIVATIONS, {})


def with_pairs(result: Result, values: Mapping[str, Any], **changes: Any) -> Result:
    """A result with other numbers of its pairs, by metric, whatever the range of the metric."""
    names = [f"{i}_{j}" for i, j in combinations(range(1, len(result.trials) + 1), 2)]
    numbers = dict(result.reproducibility_metrics)
    for metric, own in values.items():
        prefix = "pd" if metric == "relative_pd" else metric
        numbers |= {f"{prefix}_{name}": value for name, value in zip(names, own, strict=True)}
    return result.model_copy(update={"reproducibility_metrics": numbers, **changes})


def row(model: str, values: Mapping[str, float]) -> dict[tuple[str, str], float]:
    return {(model, activation): value for activation, value in values.items()}


def lowest(*winners: tuple[str, str], value: float = 0.6) -> dict[tuple[str, str], float]:
    return dict.fromkeys(winners, value)  # all others have 1


def with_cv(model: str, cv: float) -> dict[tuple[str, str], float]:
    c = cv / 100 / math.sqrt(0.8)  # means 1 - c, 1 - c, 1, 1 + c, 1 + c have a population sd of c sqrt(4 / 5)
    return row(model, dict(zip(ACTIVATIONS, (1 - c, 1 + c, 1, 1 - c, 1 + c), strict=True)))


def everywhere(activation: str, value: float) -> dict[tuple[str, str], float]:
    return {(model, activation): value for model in MODELS if model != "tinylstm"}


WINNERS = [*WINNER.items()]
SMALL_WINNERS = [("charlm", "swiglu"), ("nanotransformer", "swiglu")]
RELU_WORST = {(model, "relu"): 1.5 for model in ("charlm", "minigpt", "nanotransformer", "convlm")}

# All but gelu differ from model to model.
UNEVEN = {("convlm", name): 1.3 for name in ACTIVATIONS}
ARCHITECTURE = (
    {**{("convlm", a): 1.4 for a in ACTIVATIONS}, **{("minigpt", a): 1.1 for a in ACTIVATIONS}},
    {("minigpt", a): 1.4 for a in ACTIVATIONS},
)

# (a world where it is true, a world where it is not), in true means per cell.
WORLDS: dict[str, tuple[Cells, Cells]] = {
    **{f"best_{m}": (lowest((m, "swiglu")), lowest((m, "gelu"))) for m in ("charlm", "nanotransformer", "convlm")},
    "best_hybridlm": (lowest(("hybridlm", "relu")), lowest(("hybridlm", "gelu"))),
    "swish_or_gelu_for_minigpt": (lowest(("minigpt", "gelu")), lowest(("minigpt", "swiglu"))),
    "wins": (lowest(*WINNERS), lowest(*WINNERS[:-1], ("hybridlm", "gelu"))),
    # The lowest on average, and either steady from model to model or not.
    "gelu_most_reliable": (
        {**UNEVEN, **everywhere("gelu", 0.8)},
        {**UNEVEN, **everywhere("gelu", 0.8), ("convlm", "gelu"): 0.3},
    ),
    "relu_worst": ({**RELU_WORST, ("hybridlm", "relu"): 0.7}, {**RELU_WORST, ("hybridlm", "relu"): 1.5}),
    "swiglu_small_not_large": (lowest(*SMALL_WINNERS, ("minigpt", "swish")), lowest(*SMALL_WINNERS, ("minigpt", "swiglu"))),
    "smelu_no_benefit": ({}, everywhere("smelu_1", 0.8)),
    "architecture_over_scale": ARCHITECTURE,
    "design_over_count": ARCHITECTURE,
    "swish_excellent": (everywhere("swish", 0.9), everywhere("swish", 1.1)),
    "worst_charlm": ({("charlm", "swish"): 1.1}, {("charlm", "relu"): 1.1}),
    # Of the small transformers alone: what swiglu is in convlm does not count.
    "use_swiglu_small": (
        {**lowest(*SMALL_WINNERS), ("convlm", "swiglu"): 3.0},
        lowest(("charlm", "gelu"), ("convlm", "swiglu")),
    ),
    "use_swish_large": (lowest(("minigpt", "swish")), lowest(("minigpt", "gelu"))),
    "use_gelu_unknown": (everywhere("gelu", 0.8), everywhere("smelu_1", 0.8)),
    # "Except HybridLM" leaves it out.
    "avoid_relu": (
        {**everywhere("relu", 1.2), ("hybridlm", "relu"): 0.1},
        {**everywhere("relu", 0.9), ("hybridlm", "relu"): 3.0},
    ),
    "avoid_smelu_1": (everywhere("smelu_1", 1.2), everywhere("smelu_1", 0.9)),
}
BY_DIGESTS = {"cv_tinylstm", "tinylstm_invariant"}
ELSEWHERE = {f"cv_{model}" for model, cv in CV.items() if cv} | {f"charlm_{a}" for a in CHARLM_PD}
ELSEWHERE |= {f"average_{a}" for a in AVERAGE_PD} | {"swiglu_45_per_cent", "mean_pd_charlm", "loss_and_accuracy"}


def test_every_claim_has_its_worlds() -> None:
    assert set(WORLDS) | BY_DIGESTS | ELSEWHERE | {"parameter_counts", "three_trials"} == {claim.id for claim in CLAIMS}
    assert len({claim.id for claim in CLAIMS}) == len(CLAIMS) == 41


def test_a_number_of_another_text_is_shown_and_not_judged() -> None:
    same = world({**row("charlm", CHARLM_PD), **with_cv("convlm", CV["convlm"])})
    for name in ELSEWHERE:
        assert judge(name, same).verdict == judge(name, world(n=3, models=("charlm",))).verdict == NOT_COMPARABLE
    entry = next(entry for entry in ledger(same) if entry.claim.id == "charlm_gelu")
    assert "**Not comparable**; published 0.9051; measured PD of charlm with gelu: 0.90" in sentence(entry)
    assert "interval" in sentence(entry)


def test_sizes_are_counted_whatever_was_trained() -> None:
    nothing = Evidence.from_results(Study.of([]))
    judged = judge("parameter_counts", nothing)
    assert judged.verdict == SUPPORTED
    assert [check.estimate.value for check in judged.checks] == [429_889, 426_880, 429_289, 430_273, 10_795_841, 176_185]
    entry = next(entry for entry in ledger(nothing) if entry.claim.id == "parameter_counts")
    assert "**Supported by construction**" in sentence(entry)


def test_no_average_is_over_fewer_models_than_the_claims() -> None:
    models = tuple(model for model in MODELS if model != "minigpt")
    few = world(everywhere("gelu", 0.8), models=models)
    names = ("gelu_most_reliable", "smelu_no_benefit", "use_gelu_unknown", "avoid_relu", "avoid_smelu_1", "swish_excellent")
    for name in names:
        judged = judge(name, few)
        assert judged.verdict == NOT_DECIDED
        assert judged.problems == ("minigpt has no results",)
    text = sentence(next(entry for entry in ledger(few) if entry.claim.id == "avoid_smelu_1"))
    assert "**Not judged: minigpt has no results**" in text
    average = next(entry for entry in ledger(few) if entry.claim.id == "average_gelu")
    assert "no number and no interval (minigpt has no results)" in sentence(average)


def test_what_several_claims_rest_on_is_one_fact() -> None:
    # swiglu is the worst of convlm, and nothing else differs from model to model.
    # By this seed: chance refutes one claim in twenty, and says which of the equal ones is the furthest.
    small = ("charlm", "nanotransformer", "convlm", "hybridlm")
    entries = ledger(world({("convlm", "swiglu"): 1.5}, models=small, seed=8))
    refuted = [entry.claim.id for entry in entries if entry.main.verdict == REFUTED]
    assert refuted == ["best_convlm", "wins", "relu_worst"]
    assert "3 refuted (1 distinct fact)" in tally(entries)
    # Without minigpt "wins" cannot be judged whole, and is refuted all the same.
    assert "**Refuted at N = 10**" in sentence(next(entry for entry in entries if entry.claim.id == "wins"))


def test_what_stands_beside_a_verdict() -> None:
    models = (*MODELS, "tinylstm_readout")
    cells = {("tinylstm_readout", "smelu_1"): 0.8, **{(model, "swish"): 0.97 for model in OVERALL}}
    said = {entry.claim.id: sentence(entry) for entry in ledger(world(cells, models=models))}
    assert "**Supported at N = 10**" in said["smelu_no_benefit"]
    assert "Within this rule's margin of 5 % gelu, swish, swiglu would pass for no benefit." in said["smelu_no_benefit"]
    assert "This contradicts it: smelu_1 has a supported benefit in tinylstm_readout -20." in said["smelu_no_benefit"]
    assert "**Supported by construction at N = 10**" in said["tinylstm_invariant"]
    assert "the largest of this study (N = 10)." in said["tinylstm_invariant"]
    assert "**Not judged: the claim names no quantity" in said["three_trials"]


@pytest.mark.parametrize("name", list(WORLDS))
def test_planted_yes_is_supported_and_planted_no_is_refuted(name: str) -> None:
    true, false = WORLDS[name]
    assert judge(name, world(true)).verdict == SUPPORTED
    assert judge(name, world(false)).verdict == REFUTED
    # The same data, three trials of each: nothing is decided.
    few = judge(name, world(true, n=3))
    assert (few.verdict, few.n) == (NOT_DECIDED, 3)


def test_the_negative_control_is_judged_by_digests_at_any_number_of_trials() -> None:
    two, ten, alike = world(n=2), world(), world(identical=(), spread=1e-12)
    for name in BY_DIGESTS:
        assert judge(name, two).verdict == judge(name, ten).verdict == SUPPORTED
        assert judge(name, world(with_cv("tinylstm", 5), identical=())).verdict == REFUTED
    # Digests alone speak: numbers that only look alike do not make it invariant.
    assert judge("tinylstm_invariant", alike).verdict == REFUTED


def test_a_model_that_was_cut_says_nothing_about_scale() -> None:
    cut = world(WORLDS["use_swish_large"][0], parameters=1.8e6)
    judged = judge("use_swish_large", cut)
    assert judged.verdict == NOT_DECIDED
    assert judged.problems == ("minigpt was cut down to 1.8 M parameters, and the claim is about 10.8 M",)
    # Nor does an average that holds it: it is not over the claim's models.
    assert judge("use_gelu_unknown", world(everywhere("gelu", 0.8), parameters=1.8e6)).verdict == NOT_DECIDED


def test_a_missing_cell_is_named_and_leaves_other_claims_alone() -> None:
    whole = world({**WORLDS["best_charlm"][0], **WORLDS["best_convlm"][0]})
    there = tuple(r for r in whole.results if (r.model_name, r.activation) != ("convlm", "gelu"))
    evidence = replace(whole, results=there)
    assert judge("best_charlm", evidence).verdict == SUPPORTED
    judged = judge("best_convlm", evidence)
    assert judged.verdict == NOT_DECIDED
    assert judged.problems == ("convlm has no pair of trials with gelu",)
    assert judge("use_gelu_unknown", evidence).verdict == NOT_DECIDED


def test_the_published_numbers_agree_with_each_other() -> None:
    # The published table gives the published CV and the published 45 %.
    table = world(row("charlm", CHARLM_PD), spread=1e-9)
    assert judge("cv_charlm", table).decisive.estimate.value == pytest.approx(20.26, abs=0.005)
    assert judge("swiglu_45_per_cent", table).decisive.estimate.value == pytest.approx(44.7, abs=0.05)
    # "SmeLU-1 has no benefit" and "avoid smelu_1" by the averages that were published.
    averages = {(model, a): value for a, value in AVERAGE_PD.items() for model in MODELS if model != "tinylstm"}
    assert judge("smelu_no_benefit", world(averages, spread=1e-4)).verdict == SUPPORTED
    assert judge("avoid_smelu_1", world(averages, spread=1e-4)).verdict == SUPPORTED
    # "average PD 1.1656 against 1.0069 of the others"
    assert np.mean([value for a, value in AVERAGE_PD.items() if a != "relu"]) == pytest.approx(1.0069, abs=5e-5)


def test_another_metric_may_give_another_verdict_and_the_ledger_says_so() -> None:
    true, false = (world(cells, models=("charlm",)) for cells in WORLDS["best_charlm"])
    churn = [result.pairs("churn").values() for result in false.results]
    results = tuple(with_pairs(of, {"churn": own}) for of, own in zip(true.results, churn, strict=True))
    evidence = replace(true, results=results)
    entry = next(entry for entry in ledger(evidence) if entry.claim.id == "best_charlm")
    assert entry.main.verdict == SUPPORTED
    assert entry.disagreeing == ("churn",)
    assert "the metrics disagree (churn: refuted)" in sentence(entry)
    # An absolute relative PD can be judged by no other metric.
    with pytest.raises(ValueError, match="charlm_relu can be judged by relative_pd, not by churn"):
        judge("charlm_relu", evidence, "churn")
    with pytest.raises(KeyError, match="unknown claim 'nothing'; known: best_charlm, "):
        judge("nothing", evidence)


def test_conclusions_of_a_whole_world() -> None:
    evidence = world({**lowest(*WINNERS), **everywhere("gelu", 0.9)})
    entries = ledger(evidence)
    study = Study.of([])
    text = conclusions_markdown(study, evidence, entries)
    bullets = [line for line in text.splitlines() if line.startswith("- ")]
    assert len(bullets) >= len(CLAIMS)
    assert all(("N = 10" in line or "by counting" in line or "no number" in line) and "interval" in line for line in bullets)
    assert "(N = 10; 95 % intervals, simultaneous within a claim)" in tally(entries)
    content = json.loads(claims_json(study, evidence, entries))["claims"]
    assert [claim["id"] for claim in content] == [claim.id for claim in CLAIMS]
    for claim in content:
        # Each verdict follows from the numbers that stand beside it.
        again = judge(claim["id"], evidence)
        assert (claim["verdict"], claim["n"]) == (again.verdict, again.n)
        low, high = claim["decisive"]["low"], claim["decisive"]["high"]
        if not claim["decisive"]["exact"] and claim["decisive"]["value"] is not None:
            assert low <= claim["decisive"]["value"] <= high


def test_claims_through_result_files_and_none_rests_on_a_synthetic_one() -> None:
    def judged(cells: Cells, n: int = 10, synthetic: bool = False) -> Evidence:
        # Made by the library's own means of making results, then taken for measured.
        made = [synthetic_result("charlm", a, cells.get(("charlm", a), 1.0), trials=n, spread=0.02) for a in ACTIVATIONS]
        return Evidence.from_results(Study.of([result.model_copy(update={"synthetic": synthetic}) for result in made]))

    true, false = WORLDS["best_charlm"]
    assert judge("best_charlm", judged(true)).verdict == SUPPORTED
    assert judge("best_charlm", judged(false)).verdict == REFUTED
    assert judge("best_charlm", judged(true, n=3)).verdict == NOT_DECIDED
    evidence = judged(true, synthetic=True)
    assert evidence.results == ()
    assert {e.main.verdict for e in ledger(evidence) if e.claim.id != "parameter_counts"} == {NOT_DECIDED, NOT_COMPARABLE}
    assert contrasts_frame(evidence)["difference"].isna().all()


@pytest.mark.slow
def test_how_often_chance_calls_a_claim_wrongly() -> None:
    # Where nothing differs "swiglu is best" is false and "smelu_1 has no benefit" is true. At the border of a claim it is false
    # as well. Spread as between trained models: a trial's effect of 5 % of its PD.
    worlds = 200
    wrong = {"best_charlm": 0, "avoid_smelu_1": 0, "smelu_no_benefit": 0, "relu_worst": 0}
    for seed in range(worlds):
        alike = world(spread=0.05, seed=seed)
        for name in ("best_charlm", "relu_worst", "avoid_smelu_1"):
            wrong[name] += judge(name, alike).verdict == SUPPORTED
        wrong["smelu_no_benefit"] += judge("smelu_no_benefit", alike).verdict == REFUTED
    allowed = 0.05 + 2 * math.sqrt(0.05 * 0.95 / worlds)
    assert {name: count / worlds for name, count in wrong.items() if count / worlds > allowed} == {}
    assert wrong["avoid_smelu_1"] > 0  # at the border chance must err now and then
