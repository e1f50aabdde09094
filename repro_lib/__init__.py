"""Does the choice of activation function change how reproducible a small language model's predictions are?

The names below are loaded on first use, so that ``import repro_lib`` and ``repro --help`` stay quick.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from repro_lib import metrics
    from repro_lib.analysis.study import load_study
    from repro_lib.config import Config
    from repro_lib.data import prepare_corpus
    from repro_lib.models.activations import get_activation

    # What a user needs first, and where it lives.
    from repro_lib.models.registry import build_model
    from repro_lib.training.experiment import run_experiment

__version__ = "0.1.0"


def lazily(package: str, names: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package that hands on ``names``: by module below it, separated by spaces.

    A module is imported when one of its names is first asked for (PEP 562): what a face offers costs nothing before.
    """
    homes = {name: module for module, listed in names.items() for name in listed.split()}

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = import_module(f"{package}.{homes[name]}")
        return module if homes[name] == name else getattr(module, name)

    return get, lambda: sorted({*vars(sys.modules[package]), *homes})


__all__ = ["Config", "build_model", "get_activation", "load_study", "metrics", "prepare_corpus", "run_experiment"]
__getattr__, __dir__ = lazily(
    __name__,
    {
        "config": "Config",
        "data": "prepare_corpus",
        "metrics": "metrics",
        "models.registry": "build_model",
        "models.activations": "get_activation",
        "analysis": "load_study",
        "training.experiment": "run_experiment",
    },
)
