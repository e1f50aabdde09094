"""What if the softmax were sharper or flatter? Prediction difference of softmax(logits / T), from stored predictions."""

from functools import cache

from repro_lib.analysis.notes import Note
from repro_lib.metrics.prediction_difference import PAIR_METRICS
from repro_lib.metrics.uncertainty import Estimate, jackknife_pairwise, mean_interval
from repro_lib.models.determinism import deterministic_arithmetic
from repro_lib.whatif.definition import WhatIf, control
from repro_lib.whatif.predictions import CellLogits, ModelLogits, Numbers, StoredPredictions, compare_trials, of_predictions
from repro_lib.whatif.wording import lowest_and_highest, ranking

# Evenly spaced to the eye around 1, as usual for sampling, and out to where the softmax is nearly flat.
TEMPERATURES = (0.3, 0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0, 3.0, 5.0, 10.0)
SAMPLED = "A sampled character is right, %"


def temperature_what_if(predictions: StoredPredictions) -> WhatIf | Note:
    """Relative PD, total variation and the chance that a sampled character is right, over the temperature T."""

    top1 = cache(top1_accuracy)

    def see(read: ModelLogits, model: str, temperature: float) -> tuple[Numbers, str]:
        cells = {cell.activation: at_temperature(cell, temperature) for cell in read.cells}
        numbers = {measure: {name: cell[measure] for name, cell in cells.items()} for measure in next(iter(cells.values()))}
        best = ranking(pds := numbers["Relative PD"])[0]
        how = "as it is" if temperature == 1 else "sharpened" if temperature < 1 else "flattened"
        right = next(top1(cell) for cell in read.cells if cell.activation == best)
        sentence = (
            f"At T = {temperature:g} ({how}) the relative PD of {model} {read.where()} is {lowest_and_highest(pds)}; a "
            f"character sampled from {best} is right in {100 * numbers[SAMPLED][best].value:.1f} % of places. The most "
            f"probable one (right in {100 * right:.1f} %), and so churn, is the same at every T."
        )
        return numbers, read.told(sentence)

    parameter = control("temperature", "Temperature T", TEMPERATURES, 1.0, "{:g}".format)
    return of_predictions("temperature", "What if the softmax were sharper or flatter?", predictions, parameter, see)


def at_temperature(cell: CellLogits, temperature: float) -> dict[str, Estimate]:
    """Relative PD and total variation between the trials, and how often a sampled character is the true one."""
    compared = compare_trials(cell, temperature)
    pd, variation = (
        jackknife_pairwise(getattr(compared, name), PAIR_METRICS[name].largest) for name in ("relative_pd", "total_variation")
    )
    return {"Relative PD": pd, "Total variation": variation, SAMPLED: mean_interval(compared.true, 0.0, 1.0)}


@deterministic_arithmetic()
def top1_accuracy(cell: CellLogits) -> float:
    """The share of characters whose most probable prediction is right, mean over the trials; no temperature changes it."""
    return float((cell.logits.argmax(dim=-1) == cell.labels).double().mean())
