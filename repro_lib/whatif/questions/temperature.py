"""What if the softmax were sharper or flatter? Prediction difference of softmax(logits / T), from stored predictions."""

from functools import cache

from repro_lib.analysis.notes import Note
from repro_lib.metrics.prediction_difference import PAIR_METRICS
from repro_lib.metrics.uncertainty import Estimate, jackknife_pairwise, mean_interval
from repro_lib.models.determinism import deterministic_arithmetic
from repro_lib.whatif.definition import View, WhatIf, choice, slider
from repro_lib.whatif.predictions import CellLogits, StoredPredictions, compare_trials
from repro_lib.whatif.wording import axis_end, bar_panel, lowest_and_highest, ranking

# Evenly spaced to the eye around 1, as usual for sampling, and out to where the softmax is nearly flat.
TEMPERATURES = (0.3, 0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0, 3.0, 5.0, 10.0)
# What ``at_temperature`` gives: its name, title, digits and factor.
PANELS = (
    ("relative_pd", "Relative PD", 3, 1),
    ("total_variation", "Total variation", 3, 1),
    ("sampled", "A sampled character is right, %", 1, 100),
)
TITLE = "What if the softmax were sharper or flatter?"


def temperature_what_if(predictions: StoredPredictions) -> WhatIf | Note:
    """Relative PD, total variation and the chance that a sampled character is right, over the temperature T."""
    models = predictions.models()
    if not models:
        return predictions.missing(TITLE)

    @cache
    def measured(model: str, temperature: float) -> dict[str, dict[str, Estimate]]:
        cells = {cell.activation: at_temperature(cell, temperature) for cell in predictions.of(model).cells}
        return {name: {activation: numbers[name] for activation, numbers in cells.items()} for name, *_ in PANELS}

    @cache
    def limit(model: str, name: str) -> float:
        # All three are largest where the softmax is sharpest, or at T = 1: axes that do not move with the control.
        return axis_end(number for t in (TEMPERATURES[0], 1.0) for number in measured(model, t)[name].values())

    top1 = {model: {cell.activation: top1_accuracy(cell) for cell in predictions.of(model).cells} for model in models}

    def see(model: str, temperature: float) -> View:
        numbers, read = measured(model, temperature), predictions.of(model)
        panels = tuple(
            bar_panel(title, numbers[name], limit(model, name), digits=digits, scale=scale)
            for name, title, digits, scale in PANELS
        )
        best = ranking(pds := numbers["relative_pd"])[0]
        how = "as it is" if temperature == 1 else "sharpened" if temperature < 1 else "flattened"
        sampled = 100 * numbers["sampled"][best].value
        sentence = (
            f"At T = {temperature:g} ({how}) the relative PD of {model} {read.where()} is {lowest_and_highest(pds)}; a "
            f"character sampled from {best} is right in {sampled:.1f} % of places. The most probable one (right in "
            f"{100 * top1[model][best]:.1f} %), and so churn, is the same at every T."
        )
        return View(panels, read.told(sentence))

    parameters = (choice("model", "Model", models), slider("temperature", "Temperature T", TEMPERATURES, 1.0, "{:g}".format))
    return WhatIf("temperature", TITLE, parameters, see)


def at_temperature(cell: CellLogits, temperature: float) -> dict[str, Estimate]:
    """relative_pd and total_variation between the trials, and ``sampled``: how often a sampled character is the true one."""
    compared = compare_trials(cell, temperature)
    differences = {
        name: jackknife_pairwise(getattr(compared, name), PAIR_METRICS[name].largest)
        for name in ("relative_pd", "total_variation")
    }
    return {**differences, "sampled": mean_interval(compared.true, 0.0, 1.0)}


@deterministic_arithmetic()
def top1_accuracy(cell: CellLogits) -> float:
    """The share of characters whose most probable prediction is right, mean over the trials; no temperature changes it."""
    return float((cell.logits.argmax(dim=-1) == cell.labels).double().mean())
