"""What two places say of one thing is the same: each test is a contradiction that a reader once found."""

import json
import re
from pathlib import Path

import pytest
from test_study import make_result as full_result

from repro_lib.analysis.evidence import Evidence
from repro_lib.analysis.noise_sources import how_to_run
from repro_lib.analysis.own_runs import beside
from repro_lib.analysis.study import Study
from repro_lib.report import live_training
from repro_lib.report.contrast_tables import contrasts_table
from repro_lib.report.sentences import identical
from repro_lib.report.tables import models_table
from repro_lib.store.store import Store
from repro_lib.whatif.definition import WhatIf
from repro_lib.whatif.questions.trials import trials_what_if

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


def test_a_contrast_has_one_number_of_trials_to_tell() -> None:
    """It depends on the family, so it is given for that of the whole study or not at all."""
    results = [full_result(m, "relu") for m in ("charlm", "convlm")]
    results += [full_result(m, a, (0.42, 0.55, 0.58)) for m in ("charlm", "convlm") for a in ("gelu", "swish")]
    study = Study.of(results, ["charlm", "convlm"], ["relu", "gelu", "swish"])
    trials = contrasts_table(Evidence.from_results(study)).loc[("charlm", "gelu"), "Trials to tell"]
    assert int(trials) > 10
    what_if = trials_what_if(study)
    assert isinstance(what_if, WhatIf)
    assert f"N = {trials} would tell" in what_if.sentence(model="charlm", activation="gelu")
    alone = Study.of([r for r in results if r.model_name == "charlm"], ["charlm"], ["relu", "gelu", "swish"])
    assert "Trials to tell" not in contrasts_table(Evidence.from_results(alone), "charlm")


def test_no_fixed_text_names_a_number_of_trials_model_or_profile_that_the_results_may_not_have() -> None:
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text())["cells"]
        text = "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
        assert re.findall(r"[Ww]ith N = \d+|[Tt]hree trials \*show", text) == [], path.name
        code = "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
        assert re.findall(r"--(?:noise-)?models? \w+|--profile \w+", code) == [], path.name


def test_of_one_model_it_is_not_said_that_no_model_is_bit_identical() -> None:
    one = Study.of([full_result("charlm", "relu"), full_result("charlm", "gelu")], ["charlm"], ["relu", "gelu"])
    assert identical(one) == "charlm is not bit-identical across activations: it can tell them apart."
    alone = Study.of([full_result("charlm", "relu")], ["charlm"], ["relu", "gelu"])
    assert identical(alone) == "charlm was run with one activation, so nothing shows whether it can tell activations apart."
    two = Study.of([full_result(m, a) for m in ("charlm", "convlm") for a in ("relu", "gelu")])
    assert identical(two) == "No model is bit-identical across activations."


def test_parameters_are_those_of_models_that_exist() -> None:
    """The mean over activations is the size of none of them."""
    results = [full_result("charlm", "relu", parameters=1000), full_result("charlm", "gelu", parameters=1010)]
    study = Study.of(results, ["charlm"], ["relu", "gelu"])
    assert models_table(study).loc["charlm", "Parameters"].startswith("1,000 to 1,010 (")
    assert models_table(Study.of(results[:1], ["charlm"], ["relu", "gelu"])).loc["charlm", "Parameters"].startswith("1,000 (")


def test_runs_of_one_source_of_randomness_are_not_said_to_be_hidden() -> None:
    """The deep dive shows them."""
    shown = full_result("charlm", "gelu")
    alone = shown.model_copy(update={"config": shown.config | {"vary": "init"}})
    assert alone.comparison_key != shown.comparison_key
    assert beside([shown, alone], [shown]) == ([], [])
    other = full_result("charlm", "gelu", profile="smoke")
    assert beside([shown, alone, other], [shown]) == ([], [other])


def test_a_hint_names_the_model_and_the_profile_at_hand() -> None:
    for profile, ending in (("study", " --profile study"), (None, "")):
        study = Study.of([full_result("convlm", "gelu", profile=profile)], ["convlm"])
        assert f"to run them: repro grid --noise-models convlm{ending} (or" in how_to_run(study)


def test_the_command_that_is_offered_fills_the_folder_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(live_training.PROGRESS_FILE_VARIABLE, "under the grid")
    store = Store(tmp_path / "own")
    assert f"--results-dir {store.folder}" in repr(live_training.first_step(store))
