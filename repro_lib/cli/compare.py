"""``repro compare``: anybody's models from files, in sentences and tables, and a gate for other programs."""

from __future__ import annotations

import math
import re
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from repro_lib.store.foreign import ForeignError
from repro_lib.system.files import write_atomically

if TYPE_CHECKING:
    from repro_lib.report.comparison_page import Comparison

GATE_FAILED = 3
_GATE = re.compile(r"\s*(?P<name>[a-z_.]+)\s*(?P<side>[<>])\s*(?P<limit>[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?)\s*")


def compare_files(options: Namespace, console: Console) -> int:
    """Compare, print, and write what was asked for; 3 where a gate fails."""
    gates = [_parsed(text) for text in options.fail_if]
    from repro_lib.report.comparison_page import compare
    from repro_lib.store.store import check_margin

    asked = {name: getattr(options, name) for name in ("labels", "kind", "paired", "update", "results_dir")}
    with console.status("comparing predictions"):
        found = compare(options.predictions, options.against, margin=check_margin(options.margin) / 100, **asked)
    judged = [_judged(found, *gate) for gate in gates]
    for name in ("by_arm", "contrast", "flips"):
        if name in (tables := found.tables()):
            console.print(tables[name].to_string(index=False))
    for sentence in (*found.sentences(), *(sentence for _, sentence in judged)):
        console.print(sentence)
    if options.html:
        found.to_html(options.html)
        console.print(f"the page is {options.html}")
    if options.json:
        write_atomically(Path(options.json), found.to_json())
    return GATE_FAILED if any(failed for failed, _ in judged) else 0


def _parsed(text: str) -> tuple[str, str, float]:
    if gate := _GATE.fullmatch(text):
        return gate["name"], gate["side"], float(gate["limit"])
    raise ForeignError(f"--fail-if takes a number's name, < or >, and a limit, as in 'churn > 0.05', got {text!r}")


def _judged(found: Comparison, name: str, side: str, limit: float) -> tuple[bool, str]:
    if name not in found.numbers or math.isnan(found.numbers[name].value):
        known = ", ".join(name for name, of in found.numbers.items() if not math.isnan(of.value))
        raise ForeignError(f"--fail-if knows no {name!r} here; it knows {known}")
    # A gate fails where it is shown that it should: where the whole interval lies beyond the limit. With too few models for
    # an interval the number itself decides, for a gate that can never fail guards nothing.
    of, above = found.numbers[name], side == ">"
    end = of.value if not of.has_interval else of.low if above else of.high
    by = f"the {'lower' if above else 'upper'} bound" if of.has_interval else "the value itself, for there is no interval"
    failed = end > limit if above else end < limit
    return failed, f"gate {name} {side} {limit:g}: {'FAILED' if failed else 'passed'} ({of:.4f}; judged by {by})."
