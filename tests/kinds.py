"""The types of two fixtures of ``conftest``."""

from collections.abc import Callable

from repro_lib.config import Config
from repro_lib.store.schema import Result

Tiny = Callable[..., Config]
MakeResult = Callable[..., Result]
