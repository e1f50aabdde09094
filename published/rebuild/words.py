"""Numbers in words: what sentences and tables of the report share."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from published.rebuild.second import Pair, within_margin
from repro_lib.analysis.verdicts import NOT_DECIDED, SUPPORTED
from repro_lib.metrics.prediction_difference import PAIR_METRICS
from repro_lib.metrics.uncertainty import Estimate, rounded

Frames = Mapping[str, pd.DataFrame]

# What ``marked`` says without words.
MARKS = "**bold** where supported (not 0), = where shown to lie within the margin, neither where not decided"


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


def marked(row: Mapping[str, Any]) -> str:
    """A difference in per cent with ``MARKS`` of its verdict."""
    equal = row["verdict"] != NOT_DECIDED and within_margin(row)
    text = f"{'= ' if equal else ''}{row['per_cent']:+z.1f}"
    return f"**{text}**" if row["verdict"] == SUPPORTED else text


def verdict_table(pairs: Iterable[Pair], *by: str) -> str:
    """Contrasts in both metrics as a Markdown table: a row for each value of the columns ``by``, activations beside it."""
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    for one, other in pairs:
        rows.setdefault(tuple(one[name] for name in by), {})[one["activation"]] = f"{marked(one)}, {marked(other)}"
    activations = list(dict.fromkeys(name for row in rows.values() for name in row))
    body = [[*names, *(row.get(name, "") for name in activations)] for names, row in rows.items()]
    return markdown_rows([*by, *activations], body)


def markdown_rows(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table that may hold marks, which the site's own escapes."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *rows))
