"""What if reproducibility weighed as much as accuracy? The activation that a weight picks, and the Pareto front."""

import math
from collections.abc import Mapping

from repro_lib.analysis.notes import Note
from repro_lib.analysis.study import Study
from repro_lib.metrics.uncertainty import Estimate
from repro_lib.whatif.charts import Axis, Bar, BarPanel, Dot, Line, LinePanel, alone
from repro_lib.whatif.definition import View, WhatIf, choice, slider
from repro_lib.whatif.questions.metric import cell_estimates
from repro_lib.whatif.svg import PAGE_COLOUR
from repro_lib.whatif.wording import colour_on_page, reach, unanswered

WEIGHTS = tuple(round(0.05 * k, 2) for k in range(21))
TITLE = "What if reproducibility weighed more, or less, than accuracy?"


def tradeoff_what_if(study: Study) -> WhatIf | Note:
    """Accuracy and relative PD of a model's activations, weighed against each other."""
    study = study.measured
    # Where activations make no difference there is nothing to weigh.
    models = [model for model in study.models if len(choices(study, model)) > 1 and model not in study.identical]
    if not models:
        needs = "It needs a model with two activations of two trials each; run: repro grid --models charlm --trials 3"
        return unanswered(TITLE, study, needs)

    def see(model: str, weight: float) -> View:
        offers = choices(study, model)
        points = {name: (accuracy.value, pd.value) for name, (accuracy, pd) in offers.items()}
        scores, front = weighed(points, weight), pareto_front(points)
        picked = min(scores, key=lambda name: scores[name])
        bars = tuple(Bar(name, alone(scores[name]), colour_on_page(name), strong=name == picked) for name in offers)
        panels = (_front_panel(offers, front, picked), BarPanel("Weighed loss, 0 (best in both) to 1", bars, 1.0, 2))
        accuracy, pd = offers[picked]
        on_front = f"the Pareto front is {', '.join(front)}" if len(front) > 1 else f"{front[0]} is best in both"
        sentence = (
            f"With a weight of {100 * weight:.0f} % on reproducibility and {100 - 100 * weight:.0f} % on accuracy {model} is "
            f"given {picked}: accuracy {accuracy.value:.2f} %, relative PD {pd.value:.3f}; {on_front}. "
        )
        return View(panels, sentence + reach(pd.n for _, pd in offers.values()))

    weights = slider("weight", "Weight of reproducibility", WEIGHTS, 0.5, lambda weight: f"{100 * weight:.0f} %")
    return WhatIf("tradeoff", TITLE, (choice("model", "Model", models), weights), see)


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


def _front_panel(offers: Mapping[str, tuple[Estimate, Estimate]], front: list[str], picked: str) -> LinePanel:
    def ends(which: int, least: float) -> tuple[float, float]:
        numbers = [end for pair in offers.values() for end in (pair[which].value, pair[which].low, pair[which].high)]
        low, high = (choose(end for end in numbers if math.isfinite(end)) for choose in (min, max))
        # Room for the dots at the edges; where all are equal, some axis all the same.
        margin = 0.08 * (high - low) or least
        return low - margin, high + margin

    dots = tuple(Dot(name, *offer, colour_on_page(name), strong=name == picked) for name, offer in offers.items())
    corners = [offers[name] for name in reversed(front)]
    line = Line("", [a.value for a, _ in corners], [pd.value for _, pd in corners], PAGE_COLOUR, "2 3")
    low, high = ends(1, 0.1)
    each = "; ".join(f"{name} accuracy {a.value:.1f} %, relative PD {pd.value:.3f}" for name, (a, pd) in offers.items())
    return LinePanel(
        "Both at once; dotted: the Pareto front",
        Axis("validation accuracy, %", *ends(0, 1.0)),
        Axis("relative PD", max(0.0, low), high),
        f"Pareto front {', '.join(front)}; picked {picked}; {each}",
        (line,) if len(front) > 1 else (),
        dots,
    )
