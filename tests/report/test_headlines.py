"""The sentences at the top of pages: computed, whole, and no bolder than N allows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from test_study import make_result

from repro_lib.analysis.study import Study
from repro_lib.report import sentences


def contrasts(*rows: tuple[str, str, float, float]) -> pd.DataFrame:
    """Contrasts with relu as ``contrasts.contrasts`` gives them: model, activation, per cent, Holm's p."""
    numbers = {"n": 3, "n_reference": 3, "difference_low": -0.1, "difference_high": 0.1, "trials_needed": 25.0}
    numbers |= {"per_cent_low": -20.0, "per_cent_high": 9.0, "smallest_p": 0.1}
    return pd.DataFrame(
        [
            numbers
            | {"model": m, "activation": a, "difference": x / 100, "per_cent": x, "p": p, "p_holm": p, "supported": p <= 0.05}
            for m, a, x, p in rows
        ]
    )


def test_a_cell_says_how_much_it_disagrees_how_good_it_is_and_what_is_wrong() -> None:
    result = make_result("convlm", "gelu", (0.2, 0.25, 0.3), losses=(3.0, 3.1, 3.2), flags=["untrained: trial 2"])
    apart, learnt, flag = sentences.cell_headlines(result)
    assert apart.startswith("convlm with gelu: relative PD 0.2500 (")
    assert "between 3 trials, on a scale from 0 to 2" in apart
    assert "different characters in 25.0 % of all places; each is wrong in 50.0 %" in apart
    # The unigrams have 3.3.
    assert "3.100 (2.852 to 3.348) nats, 0.20 below that of a model that knows only how frequent each character is" in learnt
    assert flag == "Flagged: untrained: trial 2."
    assert "0.30 ABOVE" in sentences.cell_headlines(make_result(losses=(3.5, 3.6, 3.7)))[1]
    assert sentences.cell_headlines(make_result(pairs=()))[0] == "charlm with relu: one trial, so there is no pair to compare."


def study_of(**about: object) -> Study:
    """charlm: relu 0.6, gelu 0.4, swish 0.5, three trials each."""
    pairs = {"relu": (0.5, 0.6, 0.7), "gelu": (0.3, 0.4, 0.5), "swish": (0.4, 0.5, 0.6)}
    return Study.of([make_result("charlm", *cell, **about) for cell in pairs.items()], ["charlm"], list(pairs))


def test_a_model_names_its_ends_and_how_many_differences_are_decided() -> None:
    frame = contrasts(("charlm", "gelu", -30.0, 0.2), ("charlm", "swish", -16.0, 0.01), ("convlm", "gelu", 90.0, 0.01))
    text = "\n".join(sentences.model_headlines(study_of(), "charlm", frame))
    assert "3 of 3 cells" in text
    assert "lowest relative PD with gelu" in text
    assert "1 of 2 differences from relu are supported. The largest: charlm: gelu against relu: -30.0 %" in text
    assert "90" not in text, "another model's contrast"
    assert "flagged" not in text


def test_the_grid_without_contrasts_says_what_n_allows() -> None:
    said = sentences.grid_headlines(study_of(flags=["untrained: trial 1"]))
    assert said[1] == "Lowest relative PD, by however little: gelu in charlm."
    assert said[2].startswith("The order is not decided at N = 3 trials")
    assert said[-1].startswith("3 of 3 cells are flagged (untrained)")
    hole = Study.of([make_result("charlm", "relu")], ["charlm"], ["relu", "gelu"])
    assert "Missing, and left blank everywhere: charlm with gelu." in sentences.grid_headlines(hole)


def test_models_with_the_same_lowest_activation_are_named_together() -> None:
    lowest = {"charlm": "gelu", "convlm": "relu", "hybridlm": "gelu", "minigpt": "gelu"}
    pairs = {True: (0.1, 0.2, 0.3), False: (0.4, 0.5, 0.6)}
    results = [make_result(m, a, pairs[a == best]) for m, best in lowest.items() for a in ("relu", "gelu")]
    results += [make_result("tinylstm", a, same=True) for a in ("relu", "gelu")]
    said = sentences.grid_headlines(Study.of(results, [*lowest, "tinylstm"], ["relu", "gelu"]))
    assert said[1] == "Lowest relative PD, by however little: gelu in charlm, hybridlm and minigpt; relu in convlm."
    assert "tinylstm is bit-identical" in said[-1]


def test_contrasts_without_a_number_are_not_counted() -> None:
    frame = contrasts(("charlm", "gelu", np.nan, np.nan), ("charlm", "swish", -16.0, 0.4))
    assert "0 of 1 differences" in "\n".join(sentences.grid_headlines(study_of(), frame))
    none = contrasts(("charlm", "gelu", np.nan, np.nan))
    assert "differences" not in "\n".join(sentences.grid_headlines(study_of(), none))


@pytest.mark.parametrize(
    "empty", [lambda s: sentences.grid_headlines(s), lambda s: sentences.model_headlines(s, "charlm", contrasts())]
)
def test_an_empty_store_says_what_to_run(empty: Callable[[Study], list[str]]) -> None:
    assert empty(Study.of([])) == ["no results yet: run ./run_papermill.sh"]
