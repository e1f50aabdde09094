"""``repro compare``: anybody's models from files, in sentences and tables, and a gate for other programs."""

from __future__ import annotations

import math
import re
from argparse import Namespace
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from repro_lib.store.foreign import ForeignError

if TYPE_CHECKING:
    from repro_lib.report.comparison_page import Comparison

GATE_FAILED = 3
_GATE = re.compile(r"\s*(?P<name>[a-z_.]+)\s*(?P<side>[<>])\s*(?P<limit>[-+]?[\d.]+([eE][-+]?\d+)?)\s*")


def compare_files(options: Namespace, console: Console) -> int:
    """Compare, print, and write what was asked for; 3 where a gate fails."""
    gates = [_parsed(text) for text in options.fail_if]
    from repro_lib.report.comparison_page import compare
    from repro_lib.store.store import check_margin

    with console.status("comparing predictions"):
        found = compare(
            options.predictions,
            options.against,
            labels=options.labels,
            kind=options.kind,
            margin=check_margin(options.margin) / 100,
            paired=options.paired,
            update=options.update,
            results_dir=options.results_dir,
        )
    judged = [_judged(found, *gate) for gate in gates]
    tables = found.tables()
    for name in ("by_arm", "contrast", "flips"):
        if name in tables:
            table = Table(*map(str, tables[name].columns), box=None)
            for row in tables[name].itertuples(index=False):
                table.add_row(*map(str, row))
            console.print(table)
    for sentence in (*found.sentences(), *(sentence for _, sentence in judged)):
        console.print(sentence)
    if options.html:
        found.to_html(options.html)
        console.print(f"the page is {options.html}")
    if options.json:
        found.to_json(options.json)
    return GATE_FAILED if any(failed for failed, _ in judged) else 0


def _parsed(text: str) -> tuple[str, str, float]:
    gate = _GATE.fullmatch(text)
    try:
        return gate["name"], gate["side"], float(gate["limit"])  # pyright: ignore[reportOptionalSubscript]
    except (TypeError, ValueError):
        raise ForeignError(
            f"--fail-if takes a number's name, < or >, and a limit, as in 'churn > 0.05', got {text!r}"
        ) from None


def _judged(found: Comparison, name: str, side: str, limit: float) -> tuple[bool, str]:
    # A gate fails where it is shown that it should: by the end of the interval that lies nearer to the limit's good side.
    # With too few models for an interval the number itself decides, for a gate that can never fail guards nothing.
    if name not in found.numbers:
        raise ForeignError(f"--fail-if knows no {name!r} here; it knows {', '.join(found.numbers)}")
    of = found.numbers[name]
    end = of.value if math.isnan(of.low) else of.low if side == ">" else of.high
    if math.isnan(of.value):
        raise ForeignError(f"--fail-if cannot judge {name}: it has no value here")
    failed = end > limit if side == ">" else end < limit
    by = (
        "the value itself, for there is no interval" if math.isnan(of.low) else f"the {'low' if side == '>' else 'upp'}er bound"
    )
    return failed, f"gate {name} {side} {limit:g}: {'FAILED' if failed else 'passed'} ({of:.4f}; judged by {by})."
