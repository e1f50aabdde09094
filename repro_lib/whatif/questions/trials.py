"""What if there were more trials? How wide intervals get with N, and the chance to tell two activations apart."""

import math
from dataclasses import dataclass, replace

from repro_lib.analysis.contrasts import contrasts_frame
from repro_lib.analysis.evidence import Evidence
from repro_lib.analysis.frames import rows_of
from repro_lib.analysis.notes import Note
from repro_lib.analysis.study import Study
from repro_lib.metrics.hypothesis_tests import SIGNIFICANCE, power
from repro_lib.metrics.uncertainty import TRIALS_FOR_CLAIM, TRIALS_FOR_INTERVAL, Estimate, t_quantile
from repro_lib.plots.style import PAGE_COLOUR
from repro_lib.whatif.definition import Row, View, WhatIf, control
from repro_lib.whatif.wording import alone, unanswered

# From the least that has an interval to three times what a claim needs.
COUNTS = (3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 25, 30)
ITSELF = "the difference itself"
TITLE = "What if there were more trials?"


@dataclass(frozen=True)
class Difference:
    """The measured difference in relative PD between an activation and the reference, from which other N are foreseen."""

    estimate: Estimate
    # How many contrasts share the 5 %: the chance is that at the first step of Holm's correction, as in the table of contrasts.
    family: int = 1
    # So many trials would tell with a chance of 80 %; None: no number would.
    needed: int | None = None

    def half_width(self, trials: int) -> float:
        """Half the 95 % interval of the difference with so many trials per cell, their spread staying as it is."""
        return t_quantile(trials - 1) * self.estimate.error * math.sqrt(self.estimate.n / trials)

    def chance(self, trials: int) -> float:
        """The chance that the t test supports the difference, corrected for its family, were it as large as it looks."""
        measured = self.estimate
        effect = measured.value / (measured.error * math.sqrt(measured.n)) if measured.error > 0 else 0.0
        return power(trials, effect, alpha=SIGNIFICANCE / self.family) if effect else 0.0


def trials_what_if(study: Study) -> WhatIf | Note:
    """Interval width and power over N, for each activation against the reference in each model."""
    study = study.measured
    by_cell = differences(study)
    if not by_cell:
        needs = f"It needs {study.reference} and another activation with N >= {TRIALS_FOR_INTERVAL} each; "
        return unanswered(TITLE, study, f"{needs}run: repro grid --trials {TRIALS_FOR_INTERVAL}")
    models, activations = (list(dict.fromkeys(names)) for names in zip(*by_cell, strict=True))
    measured = {difference.estimate.n for difference in by_cell.values()}

    def see(model: str, activation: str, trials: int) -> View:
        difference = by_cell.get((model, activation))
        if difference is None:
            both = f"{model} with {activation} and with {study.reference}"
            return View((), f"{both} do not have {TRIALS_FOR_INTERVAL} trials each.")
        # Where the half-width falls below the difference itself, the interval no longer holds 0.
        numbers = {activation: difference.half_width(trials), ITSELF: abs(difference.estimate.value)}
        rows = [Row(label, alone(value), "Half the 95 % interval of the difference") for label, value in numbers.items()]
        chance = Row(activation, alone(100 * difference.chance(trials)), "Chance to tell the two apart, %", 0)
        return View([*rows, chance], _sentence(model, (activation, study.reference), difference, trials))

    parameters = (
        control("model", "Model", models),
        control("activation", f"Against {study.reference}", activations),
        control("trials", "Trials per cell", sorted({*COUNTS, *measured}), min(measured)),
    )
    return WhatIf.of("trials", TITLE, parameters, see, along="trials", looks={ITSELF: (PAGE_COLOUR, "7 3")})


def differences(study: Study) -> dict[tuple[str, str], Difference]:
    """By model and activation the difference from the reference, where both have trials enough for an interval."""
    frame, by_cell = contrasts_frame(Evidence.from_results(study)), {}
    for row in rows_of(frame.dropna(subset=["difference_low"])):
        found = Estimate.in_row(row, "difference")
        error = (found.high - found.low) / 2 / t_quantile(found.n - 1)
        needed = None if math.isnan(row["trials_needed"]) else int(row["trials_needed"])
        by_cell[row["model"], row["activation"]] = Difference(replace(found, error=error), len(frame), needed)
    return by_cell


def _sentence(model: str, names: tuple[str, str], difference: Difference, trials: int) -> str:
    measured, needed = difference.estimate, difference.needed
    spread = "spread is" if trials == measured.n else f"spread, measured with N = {measured.n}, is"
    tell = "no number of trials would tell" if needed is None else f"N = {needed} would tell with a chance of 80 %"
    chance = f"the chance to find a difference as large as it looks is {100 * difference.chance(trials):.0f} %"
    if trials < TRIALS_FOR_CLAIM:
        chance += f" (and below {TRIALS_FOR_CLAIM} trials there is no verdict)"
    return (
        f"With N = {trials} trials per cell the difference in relative PD of {model} between {' and '.join(names)}"
        f", {measured.value:+.3f}, has a 95 % interval of plus or minus {difference.half_width(trials):.3f} and "
        f"{chance}. {tell[0].upper()}{tell[1:]}. The {spread} rough, and so is that number."
    )
