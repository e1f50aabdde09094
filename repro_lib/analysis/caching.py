"""Frames that are computed once and kept with what they were computed from."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec

import pandas as pd

P = ParamSpec("P")


def once(make: Callable[Concatenate[Any, P], pd.DataFrame]) -> Callable[Concatenate[Any, P], pd.DataFrame]:
    """``make(bundle, ...)`` computed at the first call for a bundle (a ``Study``, an ``Evidence``) and the other arguments.

    For bundles that never change, and arguments that can be keys. Callers get copies, which are theirs to change.
    """
    signature = inspect.signature(make)

    @functools.wraps(make)
    def kept(bundle: Any, *args: P.args, **kwargs: P.kwargs) -> pd.DataFrame:
        # With the defaults filled in, so that contrasts(evidence) and contrasts(evidence, "relative_pd") are one.
        given = signature.bind(bundle, *args, **kwargs)
        given.apply_defaults()
        # Kept in the bundle, so that it goes when that goes: a permutation null takes a second, and every renderer asks for it.
        key = (make.__qualname__, *list(given.arguments.values())[1:])
        frames = vars(bundle).setdefault("_frames", {})
        if key not in frames:
            frames[key] = make(bundle, *args, **kwargs)
        return frames[key].copy()

    return kept
