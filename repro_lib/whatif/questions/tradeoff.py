"""What if reproducibility weighed as much as accuracy? The activation that a weight picks, and the Pareto front."""

import math
from collections.abc import Mapping

from repro_lib.analysis.notes import Note
from repro_lib.analysis.study import Study
from repro_lib.metrics.uncertainty import Estimate
from repro_lib.whatif.definition import Row, View, WhatIf, control
from repro_lib.whatif.questions.metric import cell_estimates
from repro_lib.whatif.wording import alone, reach, unanswered

WEIGHTS = range(0, 101, 5)
TITLE = "What if reproducibility weighed more, or less, than accuracy?"


def tradeoff_what_if(study: Study) -> WhatIf | Note:
    """Accuracy and relative PD of a model's activations, weighed against each other."""
    study = study.measured
    # Where activations make no difference there is nothing to weigh.
    models = [model for model in study.models if len(choices(study, model)) > 1 and model not in study.identical]
    if not models:
        needs = "It needs a model with two activations of two trials each; run: repro grid --models charlm --trials 3"
        return unanswered(TITLE, study, needs)

    def see(model: str, weight: int) -> View:
        offers = choices(study, model)
        points = {name: (accuracy.value, pd.value) for name, (accuracy, pd) in offers.items()}
        scores, front = weighed(points, weight / 100), pareto_front(points)
        picked = min(scores, key=lambda name: scores[name])
        accuracy, pd = offers[picked]
        on_front = f"the Pareto front is {', '.join(front)}" if len(front) > 1 else f"{front[0]} is best in both"
        sentence = (
            f"With a weight of {weight} % on reproducibility and {100 - weight} % on accuracy {model} is given {picked}: "
            f"accuracy {accuracy.value:.2f} %, relative PD {pd.value:.3f}; {on_front}. "
        )
        rows = [Row(name, alone(score), "Weighed loss, 0 (best in both) to 1", 2) for name, score in scores.items()]
        return View(rows, sentence + reach(pd.n for _, pd in offers.values()))

    weights = control("weight", "Weight of reproducibility, %", WEIGHTS, 50)
    return WhatIf.of("tradeoff", TITLE, (control("model", "Model", models), weights), see, along="weight")


def choices(study: Study, model: str) -> dict[str, tuple[Estimate, Estimate]]:
    """Validation accuracy (per cent) and relative PD of each activation of a model that has both."""
    accuracy, pd = (cell_estimates(study, model, column) for column in ("val_accuracy", "relative_pd"))
    # Accuracy needs one trial, PD two.
    return {name: (accuracy[name], pd[name]) for name in pd if math.isfinite(pd[name].value)}


def weighed(points: Mapping[str, tuple[float, float]], weight: float) -> dict[str, float]:
    """By name ``weight`` times the PD plus 1 - ``weight`` times the accuracy given away.

    ``points``: (accuracy, PD) by name; both count from 0 for the best to 1 for the worst, and as 0 where all are equal.
    """
    accuracies, pds = zip(*points.values(), strict=True)
    # Both as shares of the range that the activations span: percent and PD have no common unit.
    wide, high = max(accuracies) - min(accuracies), max(pds) - min(pds)
    return {
        name: weight * ((pd - min(pds)) / high if high else 0.0)
        + (1 - weight) * ((max(accuracies) - accuracy) / wide if wide else 0.0)
        for name, (accuracy, pd) in points.items()
    }


def pareto_front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """The names whose (accuracy, PD) nobody else beats in one without losing in the other, by falling accuracy."""

    def beaten(name: str) -> bool:
        accuracy, pd = points[name]
        return any(a >= accuracy and d <= pd and (a, d) != (accuracy, pd) for a, d in points.values())

    return sorted((name for name in points if not beaten(name)), key=lambda name: (-points[name][0], points[name][1]))
