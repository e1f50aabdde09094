"""What all pages of a site have in common: their names and titles, the navigation, head and top with style and script."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from markupsafe import Markup

from repro_lib.config import ACTIVATIONS, MODEL_DEFAULTS
from repro_lib.report.notebook_names import deep_dive_stem, train_stem

PROJECT = "Activations and reproducibility"
TEMPLATES = Path(__file__).parent / "templates"
# Executed notebooks as the grid names them. Nothing else is rendered, so that no name leads out of the reports folder.
NOTEBOOK_NAME = re.compile(r"(?P<kind>\d\d_[a-z_]+)(-(?P<model>[a-z0-9_]+)(-(?P<activation>[a-z0-9_.]+))?)?")
# nbconvert's last step sorts a tag's attributes, so that only the digest itself is looked for.
SOURCE_META = re.compile(rb'<meta [^>]*content="([0-9a-f]{64})"')

Cell = tuple[str, str]


@dataclass(frozen=True)
class Page:
    """A link of the navigation. Neighbours of one ``group`` share a row under that name."""

    title: str
    href: str
    group: str = ""


def title_of(stem: str) -> str:
    """``charlm x gelu``, ``Deep dive: charlm``, ``Cross model``."""
    match = NOTEBOOK_NAME.fullmatch(stem)
    if match and match["activation"]:
        return f"{match['model']} \N{MULTIPLICATION SIGN} {match['activation']}"
    name = re.sub(r"^\d\d_", "", match["kind"] if match else stem).replace("_", " ").capitalize()
    return f"{name}: {match['model']}" if match and match["model"] else name


def made_from(page: Path) -> str | None:
    """The digest a page carries of what it was made from; None for no page and for a stand-in."""
    try:
        with open(page, "rb") as file:
            # It stands on the second line of the head; a page can hold megabytes.
            match = SOURCE_META.search(file.read(1000))
    except FileNotFoundError:
        return None
    return match[1].decode() if match else None


def in_order(cells: Iterable[Cell]) -> list[Cell]:
    """Each cell once, models and activations in the order of the registries, whatever order they were asked for in."""
    # Names that no registry has (smelu_0.3, old results) come last, by the alphabet.
    models, activations = ({name: place for place, name in enumerate(names)} for names in (MODEL_DEFAULTS, ACTIVATIONS))
    return sorted(set(cells), key=lambda cell: (models.get(cell[0], 99), cell[0], activations.get(cell[1], 99), cell[1]))


def navigation(stem: str, cells: Sequence[Cell], analyses: Sequence[str]) -> tuple[Page, ...]:
    """Index and analyses, the deep dives, and on the pages of a model its cells."""
    match = NOTEBOOK_NAME.fullmatch(stem)
    own = [cell for cell in cells if match and cell[0] == match["model"]]
    return (
        Page("Index", "index.html"),
        *(Page(title_of(name), f"{name}.html") for name in analyses),
        *(Page(model, f"{deep_dive_stem(model)}.html", "Deep dives") for model in dict(cells)),
        *(Page(activation, f"{train_stem(f'{model}-{activation}')}.html", f"{model} with") for model, activation in own),
    )


def frame_of(pages: Sequence[Page], here: str, source_sha256: str) -> dict[str, Any]:
    """What the head and top of a page (header.html.j2) need."""
    match = NOTEBOOK_NAME.fullmatch(here.removesuffix(".html"))
    kind = "index" if here == "index.html" else "report"
    # The row begins and ends with None, so that its first and last page have a neighbour of that kind too.
    group = next((page.group for page in pages if page.href == here), None)
    row = [None, *(page.href for page in pages if page.group == group), None]
    around = [row[row.index(here) + step] for step in (-1, 1)] if here in row else [None, None]
    # Neighbours go by their full titles, which say more than the short ones of their row.
    before, after = (Page(title_of(href.removesuffix(".html")), href) if href else None for href in around)
    return {
        "project": PROJECT,
        "here": here,
        "parent": f"{deep_dive_stem(match['model'])}.html" if match and match["activation"] else None,
        "navigation": [(group, list(members)) for group, members in groupby(pages, key=lambda page: page.group)],
        "source_sha256": source_sha256,
        # Only the index shows files beside it, the figures in plots/; all else is within the page.
        "image_source": "'self' file:" if kind == "index" else "",
        "before": before,
        "after": after,
        "head_script": _asset("head.js"),
        "css": _asset("base.css") + _asset(f"{kind}.css"),
        "script": _asset("base.js") + _asset(f"{kind}.js"),
    }


# Read once: a site has dozens of pages, each with all of them inline.
@functools.cache
def _asset(name: str) -> Markup:
    return Markup((TEMPLATES / "static" / name).read_text())
