"""``repro compare`` as a program: what it prints, what it exits with, and what it leaves alone."""

import json
from pathlib import Path

import numpy as np
import pytest

from repro_lib.cli.main import main

OLD = Path(__file__).parents[1] / "data" / "store_7d1bcdd" / "results"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Twelve models of one recipe, eleven of a noisier one, and the right answers."""
    folder, drawn = tmp_path_factory.mktemp("models"), np.random.default_rng(0)
    base, paths = drawn.normal(size=(80, 4)) * 2, {"old": [], "new": [], "labels": [str(folder / "labels.npy")]}
    np.save(folder / "labels.npy", base.argmax(axis=1))
    for arm, noise, count in (("old", 0.4, 11), ("new", 0.8, 12)):
        for k in range(count):
            np.save(path := folder / f"{arm}-{k}.npy", base + noise * drawn.normal(size=base.shape))
            paths[arm].append(str(path))
    return paths


def test_two_arms_end_in_a_verdict_a_page_and_numbers(files, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    page, numbers = tmp_path / "page.html", tmp_path / "numbers.json"
    words = ["compare", *files["new"], "--against", *files["old"], "--labels", *files["labels"], "--update", "--margin", "5"]
    assert main([*words, "--html", str(page), "--json", str(numbers)]) == 0
    printed = capsys.readouterr().out
    assert "new against old, relative PD: +" in printed
    assert ", supported (N = 12 and 11, independent, p = " in printed
    assert "From old to new: churn 0." in printed
    found = json.loads(numbers.read_text(encoding="utf-8"))
    assert found["contrast"][0]["margin"] == 5
    assert len(found["models"]) == 23
    assert page.read_text(encoding="utf-8").count("<table") == 7


GATES = {"churn > 0.05": 3, "churn > 0.9": 0, "churn < 0.9": 3, "against.accuracy < 0.5": 0, "update.negative_flips>1e-3": 3}


@pytest.mark.parametrize("gate", GATES)
def test_a_gate_fails_where_the_interval_shows_it(gate: str, files, capsys: pytest.CaptureFixture) -> None:
    words = ["compare", *files["new"], "--against", *files["old"], "--labels", *files["labels"], "--fail-if", gate]
    assert main([*words, "--fail-if", "churn > 0.99"]) == GATES[gate]
    printed = capsys.readouterr().out
    assert f"{'FAILED' if GATES[gate] else 'passed'} (" in printed
    assert f"judged by the {'low' if '>' in gate else 'upp'}er bound" in printed
    low = json.loads(json.dumps(printed)).count("passed")
    assert low == (1 if GATES[gate] else 2)


def test_a_number_whose_interval_reaches_over_the_limit_does_not_fail_a_gate(files, capsys: pytest.CaptureFixture) -> None:
    from repro_lib import compare

    churn = compare(files["old"]).numbers["churn"]
    middle = (churn.low + churn.value) / 2
    assert main(["compare", *files["old"], "--fail-if", f"churn > {middle:.6f}"]) == 0
    assert main(["compare", *files["old"], "--fail-if", f"churn > {churn.low - 1e-4:.6f}"]) == 3
    assert main(["compare", *files["old"][:2], "--fail-if", "churn > 0"]) == 3
    assert "judged by the value itself, for there is no interval" in capsys.readouterr().out


def test_stored_cells_are_another_input_and_pairs_of_seeds(capsys: pytest.CaptureFixture) -> None:
    cells = ["results:charlm-relu", "--against", "results:tinylstm-relu"]
    assert main(["compare", *cells, "--results-dir", str(OLD)]) == 0
    printed = capsys.readouterr().out
    assert "charlm-relu against tinylstm-relu, total variation: " in printed
    assert "not decided, for a verdict takes 10 models an arm (N = 2, paired by seed" in printed


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["old0"], "is one trained model; to compare takes two at least"),
        (["old0", "old0"], "is named twice"),
        (["old0", "old1", "--fail-if", "churn >> 1"], "--fail-if takes a number's name"),
        (["old0", "old1", "--fail-if", "chrn > 1"], "knows no 'chrn' here; it knows relative_pd"),
        (["old0", "old1", "--margin", "0"], "the margin is in per cent"),
        (["old0", "old1", "--labels", "nowhere.csv"], "nowhere.csv does not exist"),
        (["old0", "results:charlm-gelu"], "has no result of 'charlm-gelu'"),
        (["old0", "weights.pt"], "may be a pickle"),
    ],
)
def test_bad_input_is_one_sentence_and_2(words: list[str], sentence: str, files, tmp_path: Path, capsys) -> None:
    given = [files["old"][int(word[3:])] if word.startswith("old") else word for word in words]
    assert main(["compare", *given, "--results-dir", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1
