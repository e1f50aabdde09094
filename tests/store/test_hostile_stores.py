"""The analysis notebooks, the summary and the ledger over broken stores: they run, without a warning, and name what is wrong.

Really trained, small; the cells of the notebooks are executed in this process, where a warning is an error."""

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kinds import Tiny

from repro_lib.analysis.evidence import Evidence
from repro_lib.analysis.study import NothingToShow, load_study
from repro_lib.grid.notebooks import notebooks_dir
from repro_lib.report.publish import summarise_store
from repro_lib.report.tables import WordTable
from repro_lib.store.predictions import restored
from repro_lib.store.schema import Result
from repro_lib.store.store import Store
from repro_lib.store.tensors import read_tensors, sha256_of_tensors, write_tensors
from repro_lib.training.experiment import run_experiment
from repro_lib.whatif.definition import WhatIf

NOTEBOOKS = ("20_deep_dive", "30_cross_model", "40_claims", "50_what_if")


def in_each_notebook(*quick: str) -> pytest.MarkDecorator:
    """A test for each notebook, which takes seconds: all but the ``quick`` ones are left to the slow tests."""
    return pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in quick else pytest.mark.slow) for n in NOTEBOOKS])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny: Tiny) -> Callable[..., Path]:
    """``trained(*activations, **changes)``: a folder with those cells of charlm, made once and shared: copy it to change it."""

    @cache
    def train(*activations: str, **changes: Any) -> Path:
        folder = tmp_path_factory.mktemp("trained") / "results"
        for activation in activations:
            run_experiment("charlm", activation, tiny("charlm", **changes), results_dir=folder)
        return folder

    return train


@pytest.fixture
def copy(trained: Callable[..., Path], tmp_path: Path) -> Store:
    """charlm with relu, gelu and swiglu, three trials each."""
    return Store(shutil.copytree(trained("relu", "gelu", "swiglu", trials=3), tmp_path / "results"))


def displayed(name: str, folder: Path) -> list[Any]:
    """Every value that an analysis displays of a folder, executed in this process."""
    cells = json.loads((notebooks_dir() / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    code = [c for c in cells if c["cell_type"] == "code" and "parameters" not in c["metadata"].get("tags", [])]
    shown: list[Any] = []
    scope: dict[str, Any] = {"profile": None, "configs": "", "results_dir": str(folder), "model": "charlm"}
    for cell in code:
        exec("".join(cell["source"]), scope)
        scope["display"] = lambda *values: shown.extend(values)
    return shown


def executed(name: str, folder: Path) -> str:
    """The same as text."""
    shown = displayed(name, folder)
    for value in shown:
        if isinstance(value, WordTable):
            assert value._repr_html_()
        if isinstance(value, WhatIf):
            assert value.chart.to_dict()["layer"]
    return "\n".join(str(getattr(value, "data", None) or value) for value in shown)


def result_of(store: Store, activation: str) -> tuple[Path, Result]:
    return next((path, result) for path, result in store.load()[0] if result.activation == activation)


def replace_result(store: Store, activation: str, **changes: object) -> None:
    path, result = result_of(store, activation)
    path.unlink()
    store.save(result.model_copy(update=changes))


def text_of(store: Store, tmp_path: Path) -> str:
    """The console text; FINAL_CONCLUSIONS.md and claims.json are written beside it and read back."""
    summary = summarise_store(load_study(store.folder), store.folder, tmp_path / "reports", plots=False)
    claims = json.loads((tmp_path / "reports" / "claims.json").read_text())
    assert len(claims["claims"]) == 41
    conclusions = (tmp_path / "reports" / "FINAL_CONCLUSIONS.md").read_text()
    bullets = [line for line in conclusions.splitlines() if line.startswith("- ")]
    assert all("interval" in line for line in bullets if "cannot be compared" not in line)
    decided = [claim for claim in claims["claims"] if claim["verdict"] in ("supported", "refuted")]
    assert all(claim["decisive"]["exact"] for claim in decided)  # below ten trials nothing else may be
    return summary + conclusions


@in_each_notebook("30_cross_model")
def test_a_missing_cell_is_named(name: str, copy: Store) -> None:
    result_of(copy, "gelu")[0].unlink()
    assert "gelu" in executed(name, copy.folder)


def test_a_missing_cell_is_missing_in_every_statistic(copy: Store, tmp_path: Path) -> None:
    result_of(copy, "gelu")[0].unlink()
    assert load_study(copy.folder).result("charlm", "gelu") is None
    text = text_of(copy, tmp_path)
    assert "GELU:      missing" in text
    assert "| charlm | gelu | 0 | – | not decided |" in text
    assert "charlm has no pair of trials with gelu, swish, smelu_1" in text


@in_each_notebook("40_claims")
@pytest.mark.parametrize("trials", [1, 2])
def test_few_trials(name: str, trials: int, trained: Callable[..., Path], tmp_path: Path) -> None:
    folder = trained("relu", "gelu", trials=trials)
    text = executed(name, folder)
    assert f"N = {trials}" in text
    # Of one trial the what-ifs have nothing to show, and say so.
    said = {"40_claims": "no interval", "50_what_if": "It needs two trials per cell" if trials == 1 else "no interval"}
    assert (
        said.get(name, "two trials of each at least" if trials == 1 else "a verdict takes 10 trials, and there are 2") in text
    )
    if name == "40_claims":
        words = text_of(Store(folder), tmp_path)
        assert "supported at" not in words.lower().replace("not supported", "")
        assert "refuted at" not in words.lower()


@in_each_notebook(*NOTEBOOKS)
def test_an_empty_store(name: str, tmp_path: Path) -> None:
    assert "no results yet" in executed(name, tmp_path / "nothing")
    with pytest.raises(NothingToShow, match=r"no results yet in .*; run \./run_papermill\.sh or repro grid first"):
        load_study(tmp_path / "nothing")


@in_each_notebook("40_claims")
def test_identical_trials(name: str, trained: Callable[..., Path], tmp_path: Path) -> None:
    folder = trained("relu", "gelu", trials=3, vary="none")
    text = executed(name, folder)
    assert "nan" not in text.lower().replace("nanotransformer", "")
    if name == "40_claims":
        # PD 0 everywhere: no CV, no contrast in per cent, nothing called significant.
        assert "| charlm | 3 | – | – |" in text_of(Store(folder), tmp_path)


@in_each_notebook("30_cross_model")
def test_predictions_with_nan_are_refused_by_name(name: str, copy: Store) -> None:
    _, result = result_of(copy, "gelu")
    path = copy.trial_path("predictions", "charlm", "gelu", result.config_sha256, 1)
    stored, words = read_tensors(path, 2**24)
    tensors = restored(stored)
    tensors["logits"][0, 0] = torch.nan
    write_tensors(path, tensors, words)
    if name == "30_cross_model":  # changed after they were stored
        assert "does not hold the predictions its result names" in executed(name, copy.folder)
    # The digest fits: only the numbers say that this model did not train properly.
    write_tensors(path, tensors, {})
    first = result.trials[0].model_copy(update={"predictions_sha256": sha256_of_tensors(tensors)})
    replace_result(copy, "gelu", trials=[first, *result.trials[1:]])
    assert "NaN" in executed(name, copy.folder)
    assert np.isfinite(load_study(copy.folder).cells["relative_pd"].dropna()).all()


def test_predictions_that_cannot_be_compared_leave_a_gap_and_the_rest(copy: Store, tmp_path: Path) -> None:
    shutil.rmtree(copy.folder / "predictions")
    evidence = Evidence.load(copy, load_study(copy.folder))
    assert evidence.gaps[0].startswith("charlm: no intervals over evaluation windows, for its trials cannot be compared (")
    text = text_of(copy, tmp_path)
    assert "CV by chance alone" in text, "the rest needs no predictions"
    assert "95 % interval" in text
    # Nor are results of different evaluation texts mixed.
    _, result = result_of(copy, "gelu")
    replace_result(copy, "gelu", evaluation=result.evaluation.model_copy(update={"sha256": "0" * 64}))
    assert [result.activation for result in load_study(copy.folder).results] == ["relu", "swiglu"]
