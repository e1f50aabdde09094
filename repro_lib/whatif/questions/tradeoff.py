"""What if reproducibility weighed as much as accuracy? The activation that a weight picks, and the Pareto front."""

import math
from collections.abc import Mapping

from repro_lib.analysis.league import pareto_front, relative_costs
from repro_lib.analysis.notes import Note
from repro_lib.analysis.study import Study
from repro_lib.metrics.uncertainty import Estimate
from repro_lib.whatif.definition import Row, View, WhatIf, control
from repro_lib.whatif.questions.metric import cell_estimates
from repro_lib.whatif.wording import alone, reach, unanswered

WEIGHTS = range(0, 101, 5)
TITLE = "What if reproducibility weighed more, or less, than accuracy?"
_UNITS = {"accuracy": "{:.2f} %", "training": "{:.2f} x the reference's compute", "serving": "{:.2f} x the reference's compute"}


def tradeoff_what_if(study: Study) -> WhatIf | Note:
    """Relative PD of a model's arms weighed against their accuracy, or against what they cost where that differs."""
    study = study.measured
    # Where arms make no difference there is nothing to weigh.
    offers = {model: choices(study, model) for model in study.models if model not in study.identical}
    offers = {model: of for model, of in offers.items() if len(of) > 1}
    if not offers:
        needs = "It needs a model with two activations of two trials each; run: repro grid --models charlm --trials 3"
        return unanswered(TITLE, study, needs)
    # Activations differ in compute by next to nothing.
    differs = [n for n in _UNITS if any(len({round(worth[n], 1) for worth, _ in of.values()}) > 1 for of in offers.values())]

    def see(model: str, against: str, weight: int) -> View:
        points = {name: (worth[against], pd.value) for name, (worth, pd) in offers[model].items()}
        scores, front = weighed(points, weight / 100), pareto_front(points)
        picked = min(scores, key=lambda name: scores[name])
        worth, pd = offers[model][picked]
        on_front = f"On the Pareto front: {', '.join(front)}" if len(front) > 1 else f"{front[0]} is best in both"
        sentence = (
            f"With {weight} % of the weight on reproducibility and the rest on {against}, the choice for {model} is {picked}: "
            f"{against} {_UNITS[against].format(abs(worth[against]))}, relative PD {pd.value:.3f}. {on_front}. "
        )
        rows = [Row(name, alone(score), "Weighted loss, 0 (best in both) to 1", 2) for name, score in scores.items()]
        return View(rows, sentence + reach(pd.n for _, pd in offers[model].values()))

    controls = (
        control("model", "Model", list(offers)),
        control("against", "Weighed against", list(dict.fromkeys(["accuracy", *differs]))),
        control("weight", "Weight of reproducibility, %", WEIGHTS, 50),
    )
    return WhatIf.of("tradeoff", TITLE, controls, see, along="weight")


def choices(study: Study, model: str) -> dict[str, tuple[dict[str, float], Estimate]]:
    """Of each arm of a model that has a relative PD that, and what it is worth: accuracy (per cent), and compute of training
    and of a prediction as multiples of the reference's, negative, for less of them is better."""
    accuracy, pd = (cell_estimates(study, model, column) for column in ("val_accuracy", "relative_pd"))
    base, found = study.result(model, study.reference), {}
    for run in (study.result(model, name) for name in pd):
        # Accuracy needs one trial, PD two.
        if run and math.isfinite(pd[run.arm].value):
            costs = relative_costs(run, base) if base else dict.fromkeys(_UNITS, 0.0)
            spent = {name: -costs[name] for name in ("training", "serving")}
            found[run.arm] = {"accuracy": accuracy[run.arm].value} | spent, pd[run.arm]
    return found


def weighed(points: Mapping[str, tuple[float, float]], weight: float) -> dict[str, float]:
    """By name ``weight`` times the PD plus 1 - ``weight`` times the worth given away.

    ``points``: (worth, PD) by name; both count from 0 for the best to 1 for the worst, and as 0 where all are equal."""
    worths, pds = zip(*points.values(), strict=True)
    # Both as shares of the range that the arms span: percent and PD have no common unit.
    wide, high = max(worths) - min(worths), max(pds) - min(pds)
    return {
        name: weight * ((pd - min(pds)) / high if high else 0.0)
        + (1 - weight) * ((max(worths) - worth) / wide if wide else 0.0)
        for name, (worth, pd) in points.items()
    }
