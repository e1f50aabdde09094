"""Numbers in words: what sentences and tables of the report share."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from repro_lib.metrics.prediction_difference import PAIR_METRICS
from repro_lib.metrics.uncertainty import Estimate, rounded

Frames = Mapping[str, pd.DataFrame]


def effect(row: Mapping[str, Any]) -> str:
    """``+7.3 % (+6.7 to +8.0)``."""
    return format(Estimate.in_row(row, "per_cent"), "+z.1f %")


def value(row: Mapping[str, Any], name: str, digits: int, *, sign: bool = False) -> str:
    """A number with its interval."""
    estimate, spec = Estimate.in_row(row, name), f"{'+' if sign else ''}.{digits}f"
    # An interval of no width, where all trials are alike, would say the same number three times.
    return rounded(estimate.value, spec) if estimate.low == estimate.high else format(estimate, spec)


def in_words(metric: str) -> str:
    """A metric, as prose has it."""
    return PAIR_METRICS[metric].words
