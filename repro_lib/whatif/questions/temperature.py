"""What if the softmax were sharper or flatter? Prediction difference of softmax(logits / T), from stored predictions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from repro_lib.analysis.notes import Note
from repro_lib.metrics.uncertainty import Estimate, mean_interval
from repro_lib.whatif.charts.bars import BarPanel
from repro_lib.whatif.definition import View, WhatIf, choice, slider
from repro_lib.whatif.predictions import CellLogits, StoredPredictions, compare_trials, estimate, one_thread
from repro_lib.whatif.wording import axis_end, bar, lowest_and_highest, ranking

# Evenly spaced to the eye around 1, as usual for sampling, and out to where the softmax is nearly flat.
TEMPERATURES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.15, 1.3, 1.5, 2.0, 3.0, 5.0, 10.0)
TITLE = "What if the softmax were sharper or flatter?"


def temperature_what_if(predictions: StoredPredictions) -> WhatIf | Note:
    """Relative PD, total variation and the chance that a sampled character is right, over the temperature T."""
    models = predictions.models()
    if not models:
        return predictions.missing(TITLE)

    @cache
    def measured(model: str, temperature: float) -> dict[str, dict[str, Estimate]]:
        return {cell.activation: at_temperature(cell, temperature) for cell in predictions.of(model).cells}

    # All three are largest where the softmax is sharpest, or at T = 1: axes that do not move with the control.
    top1 = {model: {c.activation: top1_accuracy(c) for c in predictions.of(model).cells} for model in models}
    limits = {model: _limits([*measured(model, TEMPERATURES[0]).values(), *measured(model, 1.0).values()]) for model in models}

    def see(model: str, temperature: float) -> View:
        by_activation = measured(model, temperature)

        def panel(name: str, title: str, scale: float = 1, digits: int = 3) -> BarPanel:
            bars = tuple(bar(activation, values[name], scale=scale) for activation, values in by_activation.items())
            return BarPanel(title, bars, scale * limits[model][name], digits)

        panels = (
            panel("relative_pd", "Relative PD"),
            panel("total_variation", "Total variation"),
            panel("sampled", "A sampled character is right, %", 100, 1),
        )
        return View(panels, _sentence(predictions, model, temperature, by_activation, top1[model]))

    parameters = (choice("model", "Model", models), slider("temperature", "Temperature T", TEMPERATURES, 1.0, "{:g}".format))
    return WhatIf("temperature", TITLE, parameters, see)


def at_temperature(cell: CellLogits, temperature: float) -> dict[str, Estimate]:
    """relative_pd and total_variation between the trials, and ``sampled``: how often a sampled character is the true one."""
    compared = compare_trials(cell, temperature)
    return {
        "relative_pd": estimate(compared.relative_pd),
        "total_variation": estimate(compared.total_variation, "total_variation"),
        "sampled": mean_interval(compared.true, 0.0, 1.0),
    }


@one_thread()
def top1_accuracy(cell: CellLogits) -> float:
    """The share of characters whose most probable prediction is right, mean over the trials; no temperature changes it."""
    return float((cell.logits.argmax(dim=-1) == cell.labels).double().mean())


def _limits(cells: Sequence[dict[str, Estimate]]) -> dict[str, float]:
    return {name: axis_end(cell[name] for cell in cells) for name in cells[0]}


def _sentence(
    predictions: StoredPredictions,
    model: str,
    temperature: float,
    by_activation: dict[str, dict[str, Estimate]],
    top1: dict[str, float],
) -> str:
    read = predictions.of(model)
    pds = {activation: values["relative_pd"] for activation, values in by_activation.items()}
    best = ranking(pds)[0]
    how = "as it is" if temperature == 1 else "sharpened" if temperature < 1 else "flattened"
    sampled = 100 * by_activation[best]["sampled"].value
    return read.told(
        f"At T = {temperature:g} ({how}) the relative PD of {model} {read.where()} is {lowest_and_highest(pds)}; a "
        f"character sampled from {best} is right in {sampled:.1f} % of places. The most probable one (right in "
        f"{100 * top1[best]:.1f} %), and so churn, is the same at every T."
    )
