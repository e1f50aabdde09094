"""One small trained store for every test of the what-ifs, and its study and predictions."""

from pathlib import Path

import pytest
from kinds import Tiny

from repro_lib.analysis.study import Study
from repro_lib.store.store import Store
from repro_lib.training.experiment import run_experiment


@pytest.fixture(scope="session")
def what_if_folder(tmp_path_factory: pytest.TempPathFactory, tiny: Tiny) -> Path:
    """charlm with relu, gelu and swiglu, four trials each; gelu with two sources of randomness alone, and a short run."""
    folder = tmp_path_factory.mktemp("what-ifs") / "results"
    for name in ("relu", "gelu", "swiglu"):
        run_experiment("charlm", name, tiny("charlm", trials=4, max_iters=8), results_dir=folder)
    for vary in ("init", "none"):
        run_experiment("charlm", "gelu", tiny("charlm", trials=3, max_iters=8, vary=vary), results_dir=folder)
    run_experiment("charlm", "gelu", tiny("charlm", trials=3, max_iters=4), results_dir=folder)
    return folder


@pytest.fixture(scope="session")
def what_if_study(what_if_folder: Path) -> Study:
    """The three cells with four trials."""
    return Study.load(Store(what_if_folder), models=["charlm"], activations=["relu", "gelu", "swiglu"])
