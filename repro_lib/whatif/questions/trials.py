"""What if there were more trials? How wide intervals get with N, and the chance to tell two activations apart."""

import math
from dataclasses import dataclass
from functools import cache

from repro_lib.analysis.contrasts import REFERENCE
from repro_lib.analysis.evidence import Evidence
from repro_lib.analysis.notes import Note
from repro_lib.analysis.study import Study
from repro_lib.metrics.hypothesis_tests import power, trials_needed
from repro_lib.metrics.uncertainty import TRIALS_FOR_CLAIM, TRIALS_FOR_INTERVAL, Estimate, t_quantile
from repro_lib.whatif.charts import Axis, Line, LinePanel
from repro_lib.whatif.definition import View, WhatIf, choice, slider
from repro_lib.whatif.svg import PAGE_COLOUR, nice_limit
from repro_lib.whatif.wording import colour_on_page, unanswered

# From the least that has an interval to three times what a claim needs.
COUNTS = (3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 25, 30)
TITLE = "What if there were more trials?"


@dataclass(frozen=True)
class Difference:
    """The measured difference in relative PD between an activation and relu, from which other N are foreseen."""

    estimate: Estimate

    def half_width(self, trials: int) -> float:
        """Half the 95 % interval of the difference with so many trials per cell, their spread staying as it is."""
        return t_quantile(trials - 1) * self.estimate.error * math.sqrt(self.estimate.n / trials)

    def chance(self, trials: int) -> float:
        """The chance that the t test finds the difference, were it as large as it looks."""
        measured = self.estimate
        return power(trials, measured.value / (measured.error * math.sqrt(measured.n))) if measured.error > 0 else 0.0


def trials_what_if(study: Study) -> WhatIf | Note:
    """Interval width and power over N, for each activation against relu in each model."""
    study = study.measured
    by_cell = differences(study)
    if not by_cell:
        needs = f"It needs {REFERENCE} and another activation with N >= {TRIALS_FOR_INTERVAL} each; "
        return unanswered(TITLE, study, f"{needs}run: repro grid --trials {TRIALS_FOR_INTERVAL}")
    models, activations = (list(dict.fromkeys(names)) for names in zip(*by_cell, strict=True))
    measured = {difference.estimate.n for difference in by_cell.values()}
    counts = tuple(sorted({*COUNTS, *measured}))
    # Two dozen noncentral t distributions each, the same at every position of the slider.
    chances = cache(lambda difference: [100 * difference.chance(n) for n in counts])
    needed = cache(lambda difference: trials_needed(difference.estimate))

    def see(model: str, activation: str, trials: int) -> View:
        difference = by_cell.get((model, activation))
        if difference is None:
            return View((), f"{model} with {activation} and with {REFERENCE} do not have {TRIALS_FOR_INTERVAL} trials each.")
        panels = _panels(difference, counts, chances(difference), trials, activation)
        return View(panels, _sentence(model, activation, difference, trials, needed(difference)))

    parameters = (
        choice("model", "Model", models),
        choice("activation", f"Against {REFERENCE}", activations),
        slider("trials", "Trials per cell", counts, min(measured)),
    )
    return WhatIf("trials", TITLE, parameters, see)


def differences(study: Study) -> dict[tuple[str, str], Difference]:
    """By model and activation the difference from relu, where both have trials enough for an interval."""
    evidence, by_cell = Evidence.from_results(study), {}
    for model in evidence.candidates():
        for activation in evidence.activations:
            if activation == REFERENCE:
                continue
            estimate = evidence.estimate([(model, activation), (model, REFERENCE)], lambda pds: pds[0] - pds[1], "relative_pd")
            if estimate.has_interval:
                by_cell[model, activation] = Difference(estimate)
    return by_cell


def _panels(
    difference: Difference, counts: tuple[int, ...], chances: list[float], trials: int, activation: str
) -> tuple[LinePanel, LinePanel]:
    def panel(title: str, y: Axis, values: list[float], form: str, label: str, *beside: Line) -> LinePanel:
        about = ", ".join(f"N = {n}: {form.format(value)}" for n, value in zip(counts, values, strict=True))
        lines = (Line(label, counts, values, colour_on_page(activation)), *beside)
        return LinePanel(title, Axis("trials per cell", counts[0], counts[-1]), y, about, lines, marker=trials)

    widths = [difference.half_width(n) for n in counts]
    # Where the half-width falls below the difference itself, the interval no longer holds 0.
    size, title = abs(difference.estimate.value), "95 % interval of the difference in relative PD"
    level = Line("the difference itself", [counts[0], counts[-1]], [size, size], PAGE_COLOUR, "3 3")
    width = panel(title, Axis("plus or minus", 0, nice_limit(max(*widths, size))), widths, "{:.3f}", "half-width", level)
    return width, panel("Chance to tell the two apart", Axis("chance, %", 0, 100), chances, "{:.0f} %", "")


def _sentence(model: str, activation: str, difference: Difference, trials: int, needed: int | None) -> str:
    measured = difference.estimate
    now = "This is the measured N" if trials == measured.n else f"Measured with N = {measured.n}"
    tell = "no number of trials would tell" if needed is None else f"N = {needed} would tell with a chance of 80 %"
    chance = f"the chance to find a difference as large as it looks is {100 * difference.chance(trials):.0f} %"
    if trials < TRIALS_FOR_CLAIM:
        chance += f", though below {TRIALS_FOR_CLAIM} no verdict is given"
    return (
        f"With N = {trials} trials per cell the difference in relative PD of {model} between {activation} and "
        f"{REFERENCE}, {measured.value:+.3f}, has a 95 % interval of plus or minus {difference.half_width(trials):.3f} and "
        f"{chance}; {tell}. {now}, and so rough a spread says only about how many are needed."
    )
