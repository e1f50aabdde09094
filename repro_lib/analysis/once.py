"""Frames that are computed once."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import pandas as pd

Frame = TypeVar("Frame", bound=Callable[..., pd.DataFrame])


def once(make: Frame) -> Frame:
    """``make(bundle, ...)`` computed once per bundle (a ``Study``, an ``Evidence``) that never changes; callers get copies."""
    signature = inspect.signature(make)

    @wraps(make)
    def kept(*args: Any, **kwargs: Any) -> pd.DataFrame:
        # With the defaults filled in, so that contrasts(evidence) and contrasts(evidence, "relative_pd") are one.
        given = signature.bind(*args, **kwargs)
        given.apply_defaults()
        bundle, *others = given.arguments.values()
        # Kept in the bundle, so that it goes when that goes: contrasts take a while, and every renderer asks for them.
        frames = vars(bundle).setdefault("_frames", {})
        if (make, *others) not in frames:
            frames[make, *others] = make(bundle, *others)
        return frames[make, *others].copy()

    return cast("Frame", kept)
