"""What if rare characters did not count? The two leading metrics over the most frequent characters of the training text."""

from repro_lib.analysis.counted import LEADING, CountedCell, CountedModel, count, shares_in_training
from repro_lib.analysis.notes import Note
from repro_lib.data import CorpusError
from repro_lib.metrics.prediction_difference import PAIR_METRICS
from repro_lib.whatif.definition import View, WhatIf, choice, slider
from repro_lib.whatif.predictions import StoredPredictions
from repro_lib.whatif.wording import bar_panel, lowest_and_highest, unanswered

TITLE = "What if only the most frequent characters counted?"


def frequent_what_if(predictions: StoredPredictions) -> WhatIf | Note:
    """Relative PD and total variation over the k most frequent characters, and what they say of relu."""
    models = predictions.models()
    if not models:
        return predictions.missing(TITLE)
    study = predictions.study
    try:
        shares = shares_in_training(study.measured.results[0])
    except CorpusError as problem:
        return unanswered(TITLE, study, f"It needs the training text: {problem}.")
    counted = {}
    for model in models:
        cells = [CountedCell(c.activation, count([*c.probabilities()], shares), {}) for c in predictions.of(model).cells]
        counted[model] = CountedModel(model, tuple(cells), model in study.identical)
    steps = counted[models[0]].steps

    def see(model: str, top: int) -> View:
        cells = counted[model].cells
        found = {metric: {cell.activation: cell.estimate(metric, top) for cell in cells} for metric in LEADING}
        panels = (
            bar_panel("Relative PD", found["relative_pd"], 2.0),
            bar_panel("Total variation", found["total_variation"], 1.0),
        )
        said = "; ".join(f"the {PAIR_METRICS[metric].words} is {lowest_and_highest(of)}" for metric, of in found.items())
        contrasts = [
            f"{cell.activation} "
            + ", ".join(f"{cell.against(relu, metric, top):+z.1f %} by {PAIR_METRICS[metric].words}" for metric in LEADING)
            for cell, relu in counted[model].compared()
        ]
        words = "all characters" if top == steps[-1] else f"the {top} most frequent characters of the training text"
        read = predictions.of(model)
        sentence = f"Over {words}, for {model} {read.where()}: {said}."
        return View(panels, read.told(sentence + (f" Against relu: {'; '.join(contrasts)}." if contrasts else "")))

    control = slider("top", "Characters that count", steps, steps[-1], lambda k: f"all {k}" if k == steps[-1] else f"top {k}")
    return WhatIf("frequent", TITLE, (choice("model", "Model", models), control), see)
