"""Does the choice of activation function change how reproducible a small language model's predictions are?

The names below are loaded on first use, so that ``import repro_lib`` and ``repro --help`` stay quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from repro_lib.activations import get_activation
    from repro_lib.config import Config
    from repro_lib.experiment import run_experiment
    from repro_lib.models import build_model

__version__ = "0.1.0"

_HOME = {
    "Config": "repro_lib.config",
    "build_model": "repro_lib.models",
    "get_activation": "repro_lib.activations",
    "run_experiment": "repro_lib.experiment",
}
__all__ = ["Config", "build_model", "get_activation", "run_experiment"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'repro_lib' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
