"""What if rare characters did not count? The two leading metrics over the most frequent characters of the training text."""

from repro_lib.analysis.contrasts import LEADING
from repro_lib.analysis.counted import CountedModel, shares_in_training
from repro_lib.analysis.notes import Note
from repro_lib.data import CorpusError
from repro_lib.metrics.all_pairs import count_by_character
from repro_lib.metrics.prediction_difference import PAIR_METRICS
from repro_lib.metrics.uncertainty import jackknife_pairwise
from repro_lib.whatif.definition import WhatIf, control
from repro_lib.whatif.predictions import ModelLogits, Numbers, StoredPredictions, of_predictions
from repro_lib.whatif.wording import lowest_and_highest, unanswered

TITLE = "What if only the most frequent characters counted?"


def frequent_what_if(predictions: StoredPredictions) -> WhatIf | Note:
    """Relative PD and total variation over the k most frequent characters, and what they say of the reference."""
    models, study = predictions.models(), predictions.study
    if not models:
        return predictions.missing(TITLE)
    try:
        shares = shares_in_training(study.measured.results[0])
    except CorpusError as problem:
        return unanswered(TITLE, study, f"It needs the training text: {problem}.")
    counted = {}
    for model in models:
        cells = {c.activation: count_by_character([*c.probabilities()], shares) for c in predictions.of(model).cells}
        counted[model] = CountedModel(model, cells, model in study.identical, study.reference)
    steps = counted[models[0]].steps

    def see(read: ModelLogits, model: str, top: int) -> tuple[Numbers, str]:
        of, numbers = counted[model], {}
        which = "All characters" if top == steps[-1] else f"The {top} most frequent characters of the training text"
        sentence = f"{which} of {model} {read.where()}:"
        for metric in LEADING:
            about = PAIR_METRICS[metric]
            found = {name: jackknife_pairwise(of.over(name, metric, top), about.largest) for name in of.cells}
            against = ", ".join(f"{name} {of.against(name, metric, top):+z.1f %}" for name in of.compared)
            numbers[f"{about.words[0].upper()}{about.words[1:]}"] = found
            beside = f"; against {study.reference} {against}" if against else ""
            sentence += f" {about.words} is {lowest_and_highest(found)}{beside}."
        return numbers, read.told(sentence)

    parameter = control(
        "top", "Characters that count", steps, steps[-1], lambda k: f"all {k}" if k == steps[-1] else f"top {k}"
    )
    return of_predictions("frequent", TITLE, predictions, parameter, see)
