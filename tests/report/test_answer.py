"""The answer of a study: one sentence for every kind of study, from verdicts alone; and the figure beside it."""

import re
from typing import Any

import pandas as pd
import pytest
from kinds import MakeResult
from test_study import make_result as full_result

from repro_lib.analysis.contrasts import leading_contrasts
from repro_lib.analysis.evidence import Evidence
from repro_lib.analysis.study import Study
from repro_lib.analysis.verdicts import EQUAL, NOT_DECIDED, SUPPORTED
from repro_lib.plots.forest import forest
from repro_lib.plots.vega import SEPARATOR
from repro_lib.report import claims_ledger, sentences
from repro_lib.report.answer import answer


def rows_of(*verdicts: tuple[str, str], n: int = 10, **more: Any) -> pd.DataFrame:
    """Contrasts of one model with these verdicts in relative PD and in total variation, the first the largest."""
    rows = []
    for k, (first, second) in enumerate(verdicts):
        size = {"difference": 0.1, "per_cent": 9.0 - k, "per_cent_tv": 4.0, "per_cent_at_loss": float("nan")}
        size |= {f"per_cent_{end}{suffix}": value for end, value in (("low", -8.5), ("high", 12.0)) for suffix in ("", "_tv")}
        about = {"model": "convlm", "activation": f"smelu_{k + 1}", "n": n, "margin": 3.0, "reference": "relu"}
        rows.append(about | size | {"verdict": first, "verdict_tv": second} | more)
    return pd.DataFrame(rows)


YES, SAME, OPEN, HALF = (SUPPORTED, SUPPORTED), (EQUAL, EQUAL), (NOT_DECIDED, EQUAL), (SUPPORTED, EQUAL)
LARGEST = "convlm with smelu_1 (+9.0 %, +4.0 %)"
LEFT = {"per_cent_at_loss": 1.0, "per_cent_at_loss_tv": 1.0, "verdict_at_loss": SUPPORTED, "verdict_at_loss_tv": SUPPORTED}
BOTH = "supported in both relative PD and total variation"
REST = "Of the others, 1 is supported in one of the two, 2 are equal within 3 % in both and 1 is not decided."
SAID = [
    (rows_of(YES), f"Yes: 1 of 1 difference from relu is {BOTH}, {LARGEST}."),
    (
        rows_of(YES, YES, HALF, SAME, SAME, OPEN),
        f"Yes: 2 of 6 differences from relu are {BOTH}, {LARGEST} and convlm with smelu_2 (+8.0 %, +4.0 %). {REST}",
    ),
    (rows_of(YES, **LEFT), "loss, where 1 of those supported in both can be compared, 1 is still supported in both."),
    (rows_of(YES, **LEFT | {"verdict_at_loss": NOT_DECIDED}), "can be compared, 1 is supported in one."),
    (rows_of(*[YES] * 6), "convlm with smelu_2 (+8.0 %, +4.0 %), convlm with smelu_3 (+7.0 %, +4.0 %) and 3 others."),
    (rows_of(HALF, SAME), f"It depends on the metric: none of 2 differences from relu is {BOTH}, but 1 is in one of them,"),
    (rows_of(HALF, SAME), f"{LARGEST}. Of the others, 1 is equal within 3 % in both."),
    # Each metric in its own direction: no verdict that they share.
    (rows_of(YES, per_cent_tv=-4.0), "It depends on the metric"),
    (rows_of(SAME), "No: the only difference from relu is equal within 3 % in both relative PD and total variation."),
    (rows_of(SAME, SAME), "No: all 2 differences from relu are equal within 3 % in both relative PD and total variation."),
    (rows_of(OPEN), "Not decided: none of 1 difference from relu is supported at N = 10, or equal within 3 %."),
    (rows_of(OPEN, OPEN, SAME), "1 is equal within 3 % in both and 2 are not decided."),
    (rows_of(OPEN, OPEN, n=3), "Not decided: a verdict takes 10 trials, and there are 3. So far the largest of 2 differences"),
    (rows_of(OPEN, OPEN, n=3), "is convlm with smelu_1, relative PD +9.0 % (-8.5 to +12.0)."),
    (rows_of(OPEN, n=2), "So far the only difference is convlm with smelu_1"),
]


@pytest.mark.parametrize(("frame", "said"), SAID)
def test_the_answer_follows_from_the_verdicts(frame: pd.DataFrame, said: str, make_result: MakeResult) -> None:
    assert said in answer(Study.of([make_result("convlm", "relu")]), frame)


@pytest.mark.parametrize(
    ("results", "said"),
    [
        ([], "no results yet: run ./run_papermill.sh"),
        ([("charlm", "gelu")], "No comparison yet: charlm with gelu was run, and it takes relu and another activation"),
        ([("charlm", "gelu"), ("convlm", "swish")], "No comparison yet: 2 cells were run, and it takes relu"),
        ([("tinylstm", "relu"), ("tinylstm", "gelu")], "No: tinylstm predicts the same bits with every activation"),
    ],
)
def test_without_a_contrast_the_answer_says_why(results: list[tuple[str, str]], said: str, make_result: MakeResult) -> None:
    study = Study.of([make_result(*cell, trials=3) for cell in results])
    contrasts = leading_contrasts(Evidence.from_results(study))
    assert answer(study, contrasts).startswith(said)
    assert forest(contrasts) == {}


def test_what_was_made_up_is_no_answer(make_result: MakeResult) -> None:
    study = Study.of([make_result("charlm", a, synthetic=True, trials=10) for a in ("relu", "gelu")], include_synthetic=True)
    assert answer(study, leading_contrasts(Evidence.from_results(study))).startswith(
        "No answer: all numbers here are synthetic"
    )


def test_the_figure_shows_both_metrics_of_every_contrast() -> None:
    spec = forest(rows_of(YES, OPEN))
    (texts,) = spec["datasets"][spec["data"]["name"]]
    assert texts["label_words"] == f"smelu_1{SEPARATOR}smelu_2", "of one model its name would be the same in each row"
    assert texts["value"] == SEPARATOR.join(["9", "4", "8", "4"])
    assert texts["verdict_words"] == SEPARATOR.join([SUPPORTED, NOT_DECIDED, "equal"])
    assert spec["usermeta"]["rows"][0] == ["relative PD", "smelu_1", "+9.0 % (\N{MINUS SIGN}8.5 to +12.0)", 10]
    assert [layer["encoding"]["x"]["datum"] for layer in spec["layer"][:2]] == [-3.0, 0]
    both = rows_of(YES)
    assert "charlm smelu_1" in str(forest(pd.concat([both, both.assign(model="charlm")]))["datasets"])


# A number beside a word in the wrong number: "1 cells", "2 cell", "1 are", "5 is".
WRONG = r"\b1 [a-z]+s\b(?<!is)|\b1 (are|were|have)\b|\b([2-9]|\d\d+) (cell|trial|model|file|difference|claim|is|was)\b"


@pytest.mark.parametrize("activations", [0, 1, 2, 5])
@pytest.mark.parametrize("trials", [1, 2, 12])
def test_every_sentence_is_right_for_none_one_two_and_many(activations: int, trials: int) -> None:
    names = ("relu", "gelu", "swish", "swiglu", "smelu_1")[:activations]
    pairs = tuple(0.4 + k / 1000 for k in range(trials * (trials - 1) // 2))
    more = {"flags": ["untrained: trial 1"]} if activations < 5 else {}
    study = Study.of([full_result("charlm", a, pairs, **more) for a in names], ["charlm"], names or None, ["x.json is damaged"])
    evidence = Evidence.from_results(study)
    contrasts, entries = leading_contrasts(evidence), claims_ledger.ledger(evidence)
    said = [*sentences.grid_headlines(study, contrasts), *sentences.provenance(study), claims_ledger.tally(entries)]
    said += [*sentences.model_headlines(study, "charlm", contrasts), repr(study)]
    said += [line for result in study.results for line in sentences.cell_headlines(result)]
    assert [found[0] for text in said if (found := re.search(WRONG, text))] == []
    assert [text for text in said if re.search(r"\s\s| [.,;]\s| \.$", text) or text != text.strip()] == []
