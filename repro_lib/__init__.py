"""Does the choice of activation function change how reproducible a small language model's predictions are?

What was trained, as pandas frames (``study.dictionary`` says what each column is):

    study = repro_lib.load_study("results")
    study.cells, study.trials, study.pairs, study.contrasts, study.curves

A cell of your own, of any model, activation and text:

    result = repro_lib.run_experiment("charlm", "swiglu", repro_lib.Config(max_iters=500, trials=3))
    result.avg_relative_pd, result["avg_val_accuracy"]

Models of your own, trained anywhere: ``compare`` (how far they disagree) and ``collect`` (what they predict).

The parts: ``metrics`` (functions of arrays), ``build_model`` and ``get_activation`` (modules of torch), ``prepare_corpus`` (a
text), ``results_store`` (predictions and weights). The command line is ``repro --help``. Names are loaded on first use, so that
``import repro_lib`` and ``repro --help`` stay quick.
"""

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from repro_lib import metrics
    from repro_lib.analysis.comparison.collected import collect
    from repro_lib.analysis.study import Study, load_study
    from repro_lib.config import Config
    from repro_lib.data import prepare_corpus
    from repro_lib.grid.notebooks import begin_notebook
    from repro_lib.models.activations import get_activation

    # What a user needs first, and where it lives.
    from repro_lib.models.registry import build_model
    from repro_lib.report.comparison_page import compare
    from repro_lib.store.schema import Result
    from repro_lib.store.store import results_store
    from repro_lib.training.experiment import run_experiment

__version__ = "0.1.0"


def lazily(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package that hands on the names it imports from below itself for type checkers.

    A module is imported when one of its names is first asked for (PEP 562): what a face offers costs nothing before.
    """
    # Read from the source, so that no list of names stands beside the imports that type checkers need.
    tree = ast.parse(Path(sys.modules[package].__file__ or "").read_text(encoding="utf-8"))
    imports = [(node.module or "", node.names) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    homes = {alias.name: module for module, names in imports if f"{module}.".startswith(f"{package}.") for alias in names}

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        # What a package imports from itself is a module.
        return import_module(f"{package}.{name}") if homes[name] == package else getattr(import_module(homes[name]), name)

    # Not what the package itself is written with.
    return get, lambda: sorted({*homes, *(name for name in vars(sys.modules[package]) if name.startswith("__"))})


__all__ = ["Config", "Result", "Study", "begin_notebook", "build_model", "collect", "compare", "get_activation", "load_study"]
__all__ += ["metrics", "prepare_corpus", "results_store", "run_experiment"]
__getattr__, __dir__ = lazily(__name__)
