"""What if the softmax were sharper or flatter? Prediction difference of softmax(logits / T), from stored predictions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

from repro_lib.notes import Note
from repro_lib.statistics import Estimate, mean_interval
from repro_lib.what_ifs.bars import BarPanel
from repro_lib.what_ifs.definition import View, WhatIf, choice, slider
from repro_lib.what_ifs.predictions import CellLogits, StoredPredictions, compare_trials, estimate, one_thread
from repro_lib.what_ifs.svg import nice_limit
from repro_lib.what_ifs.wording import bar, lowest_and_highest, ranking, reach

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
        found = measured(model, temperature)
        panels = [
            BarPanel(title, tuple(bar(a, found[a][name], scale=scale) for a in found), scale * limits[model][name], digits)
            for name, title, scale, digits in (
                ("relative_pd", "Relative PD", 1, 3),
                ("total_variation", "Total variation", 1, 3),
                ("sampled", "A sampled character is right, %", 100, 1),
            )
        ]
        return View(tuple(panels), _sentence(predictions, model, temperature, found, top1[model]))

    parameters = (choice("model", "Model", models), slider("temperature", "Temperature T", TEMPERATURES, 1.0, "{:g}".format))
    return WhatIf("temperature", TITLE, parameters, see)


def at_temperature(cell: CellLogits, temperature: float) -> dict[str, Estimate]:
    """relative_pd and total_variation between the trials, and ``sampled``: how often a sampled character is the true one."""
    found = compare_trials(cell, temperature)
    return {
        "relative_pd": estimate(found.relative_pd),
        "total_variation": estimate(found.total_variation, "total_variation"),
        "sampled": mean_interval(found.true, 0.0, 1.0),
    }


@one_thread()
def top1_accuracy(cell: CellLogits) -> float:
    """The share of characters whose most probable prediction is right, mean over the trials; no temperature changes it."""
    return float((cell.logits.argmax(dim=-1) == cell.labels).double().mean())


def _limits(found: Sequence[dict[str, Estimate]]) -> dict[str, float]:
    ends = {name: [end for values in found for end in (values[name].value, values[name].high)] for name in found[0]}
    return {name: nice_limit(max(end for end in several if math.isfinite(end))) for name, several in ends.items()}


def _sentence(
    predictions: StoredPredictions,
    model: str,
    temperature: float,
    found: dict[str, dict[str, Estimate]],
    top1: dict[str, float],
) -> str:
    read = predictions.of(model)
    pds = {activation: values["relative_pd"] for activation, values in found.items()}
    best = ranking(pds)[0]
    how = "as it is" if temperature == 1 else "sharpened" if temperature < 1 else "flattened"
    sampled = 100 * found[best]["sampled"].value
    return " ".join(
        [
            f"At T = {temperature:g} ({how}) the relative PD of {model} {read.where()} is {lowest_and_highest(pds)}; a "
            f"character sampled from {best} is right in {sampled:.1f} % of places. The most probable one (right in "
            f"{100 * top1[best]:.1f} %), and so churn, is the same at every T. {reach(cell.n for cell in read.cells)}",
            *read.left_out,
        ]
    )
