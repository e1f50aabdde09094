"""What a page has and a notebook has not: head, navigation, a summary on top, contents, tables to be read aloud.

And what it must not have (``complaints``).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from repro_lib.analysis.formatting import MINUS
from repro_lib.config import ACTIVATIONS, MODEL_DEFAULTS
from repro_lib.report.notebook_names import ANALYSES, deep_dive_stem, train_stem, with_notebooks

if TYPE_CHECKING:
    from bs4 import Tag
    from nbformat import NotebookNode

PROJECT = "Activations and reproducibility"
TEMPLATES = Path(__file__).parent / "templates"
# What pages with charts load: the one file of a site that they share.
SCRIPT = "charts.js"
# Executed notebooks as the grid names them. Nothing else is rendered, so that no name leads out of the reports folder.
NOTEBOOK_NAME = re.compile(r"(?P<kind>\d\d_[a-z_]+)(-(?P<model>[a-z0-9_]+)(-(?P<activation>[a-z0-9_.]+))?)?")
# nbconvert's last step sorts a tag's attributes, so that only the digest itself is looked for.
SOURCE_META = re.compile(rb'<meta [^>]*content="([0-9a-f]{64})"')
# The tag of cells that say in a few sentences what came out.
SUMMARY_TAG = "summary"
# A page with fewer sections than this is seen at a glance.
SECTIONS_FOR_CONTENTS = 4
_DIGEST = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")
# Wider tables than this are stacked on a narrow screen, each cell under the name of its column.
_WIDEST = 3
# What makes an output of a notebook with controls fit for a report: this section beside them.
REPORT_HALF = '<section class="recorded"'
# What a column of numbers may hold: numbers with what belongs to them ("0.5 (0.4 to 0.6)", "5 of 5"), a dash, nothing.
_NUMBER = re.compile(r"[-+\N{MINUS SIGN}]?\d((?!\b[a-z]{5,}).)*(\(synthetic\))?|\N{EN DASH}|")

Cell = tuple[str, str]


@dataclass(frozen=True)
class Page:
    """A link of the navigation. Neighbours of one ``group`` share a row under that name."""

    title: str
    href: str
    group: str = ""


def title_of(stem: str) -> str:
    """``charlm with gelu``, ``charlm`` (its deep dive), ``Cross model``."""
    match = NOTEBOOK_NAME.fullmatch(stem)
    if match and match["activation"]:
        return f"{match['model']} with {match['activation']}"
    name = re.sub(r"^\d\d_", "", match["kind"] if match else stem).replace("_", " ").capitalize()
    return match["model"] if match and match["model"] else name


def made_from(page: Path) -> str | None:
    """The digest a page carries of what it was made from; None for no page and for a stand-in."""
    if not page.exists():
        return None
    with open(page, "rb") as file:
        # It stands on the second line of the head; a page can hold megabytes.
        match = SOURCE_META.search(file.read(1000))
    return match[1].decode() if match else None


def in_order(cells: Iterable[Cell]) -> list[Cell]:
    """Each cell once, models and activations in the order of the registries, whatever order they were asked for in."""
    # Names that no registry has (smelu_0.3, old results) come last, by the alphabet.
    models, activations = ({name: place for place, name in enumerate(names)} for names in (MODEL_DEFAULTS, ACTIVATIONS))
    cells = sorted(cells, key=lambda cell: cell[1] if " " not in cell[1] else "")  # other arms stay as they were declared
    return sorted(dict.fromkeys(cells), key=lambda cell: (models.get(cell[0], 99), cell[0], activations.get(cell[1], 99)))


def navigation(stem: str, cells: Sequence[Cell], analyses: Sequence[str] = ANALYSES) -> tuple[Page, ...]:
    """Index and ``analyses``, the deep dives, and on the pages of a model its cells."""
    match = NOTEBOOK_NAME.fullmatch(stem)
    own = [cell for cell in with_notebooks(cells) if match and cell[0] == match["model"]]
    return (
        Page("Index", "index.html"),
        *(Page(title_of(name), f"{name}.html") for name in analyses),
        *(Page(model, f"{deep_dive_stem(model)}.html", "Deep dives") for model in dict(cells)),
        *(Page(activation, f"{train_stem(f'{model}-{activation}')}.html", f"{model} with") for model, activation in own),
    )


def frame_of(pages: Sequence[Page], here: str, source_sha256: str, library: str = "") -> dict[str, Any]:
    """What the head and top of a page (header.html.j2) need; ``library``: the one script that it loads, if any."""
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
        "script": _asset("base.js"),
        "library": library,
    }


# Read once: a site has dozens of pages, each with all of them inline.
@functools.cache
def _asset(name: str) -> Markup:
    return Markup((TEMPLATES / "static" / name).read_text(encoding="utf-8"))


def rearrange(nb: NotebookNode) -> None:
    """Bring a notebook, in place, into the form of its page: tables readable, what ``summary`` cells show behind the title."""
    from nbformat.v4 import new_code_cell, new_output

    summary = []
    for cell in nb.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if 'class="dataframe"' in data.get("text/html", ""):
                data["text/html"] = readable_table(data["text/html"])
        tags = cell.metadata.get("tags", [])
        # Only what it shows moves up; its code stays where it ran.
        if SUMMARY_TAG in tags and cell.get("outputs"):
            summary += cell.outputs
            cell.outputs, cell.metadata.tags = [], [tag for tag in tags if tag != SUMMARY_TAG]
    if summary:
        label = new_output("display_data", data={"text/html": '<p class="label">In short</p>'})
        tags = {"tags": [SUMMARY_TAG, "remove_input"]}
        nb.cells.insert(1, new_code_cell("", outputs=[label, *summary], metadata=tags, id="in-short"))


def contents(nb: NotebookNode) -> list[tuple[str, str]]:
    """Anchor and text of every ``## heading``, in order; none where there are too few to get lost among."""
    source = "\n".join(cell.source for cell in nb.cells if cell.cell_type == "markdown")
    texts = [re.sub(r"[*`$]", "", text).strip() for text in re.findall(r"^##\s+(.+)$", source, re.MULTILINE)]
    return [(anchor(text), text) for text in texts] if len(texts) >= SECTIONS_FOR_CONTENTS else []


def anchor(heading: str) -> str:
    """The id of a heading (its text, or its HTML): ``3. Is it a *difference*?`` becomes ``3-is-it-a-difference``."""
    words = re.sub(r"<[^>]*>|[*`$]", "", heading).lower()
    return re.sub(r"[^\w]+", "-", words).strip("-")


def shown_parameters(parameters: Mapping[str, Any]) -> dict[str, str]:
    """The parameters of a run in a few characters each: of a path its end, of a digest its beginning; none that is empty."""
    shown = {}
    for name, value in parameters.items():
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        if value is None or not text:
            continue
        # A report that travels says nothing about the machine.
        if text.startswith("/"):
            text = f".../{text.rstrip('/').rpartition('/')[2]}"
        text = _DIGEST.sub(r"\1", text)
        shown[name] = text if len(text) <= 100 else f"{text[:97]}..."
    return shown


def readable_table(html: str) -> str:
    """A data frame's HTML for readers and screen readers: one row of heads, each with a scope; words aligned as words."""
    from bs4 import BeautifulSoup

    page = BeautifulSoup(html, "html.parser")
    # pandas brings its own, with widths and alignment that ours must not fight.
    for style in page.find_all("style"):
        style.decompose()
    for table in page.select("table.dataframe"):
        del table["border"]
        _merge_heads(table)
        heads = table.select("thead th")
        for head in heads:
            head["scope"] = "col"
            # A head that says nothing is none.
            if not head.get_text(strip=True):
                head.name = "td"
                del head["scope"]
        for head in table.select("tbody th"):
            head["scope"] = "rowgroup" if head.has_attr("rowspan") else "row"
        # The columns beside the index; heads of rows that span several are no cells.
        rows = [row.find_all("td") for row in table.select("tbody tr")]
        width = max(map(len, rows), default=0)
        for number, cells in enumerate(zip(*rows, strict=False)):
            texts = [cell.get_text(strip=True) for cell in cells]
            own = heads[len(heads) - width + number :][:1]
            if not all(_NUMBER.fullmatch(text) for text in texts):
                for cell in [*own, *cells]:
                    cell["class"] = "words"
            for cell in cells if own and width > _WIDEST else ():
                cell["data-label"] = own[0].get_text(" ", strip=True)
        if width > _WIDEST:
            table["class"] = "dataframe stacks"
    return str(page)


# In the text of a page alone, neither in code and drawings nor within a tag: an interval, a space before %, a hyphen before a
# number.
_LIMIT = r"[-+\N{MINUS SIGN}]?[\d.,]+"
_SET = re.compile(
    rf"<(script|style|pre|code|svg)\b.*?</\1>|<[^>]*>|\({_LIMIT} to {_LIMIT}\)|(?<=\d) (?=%)|(?<![\w.)-])-(?=\d)", re.DOTALL
)


def typeset(html: str) -> str:
    """A page on which negative numbers have a minus and no hyphen, and no interval and no per cent breaks over two lines.

    >>> typeset('<td data-value="-1">-4.9 (-7 to -2.8), 2026-11-29</td><code>-1 %</code>').count("\N{MINUS SIGN}")
    3
    >>> typeset("<td>0.5 (0.4 to 0.6)</td>")
    '<td>0.5 <span class="whole">(0.4 to 0.6)</span></td>'
    """

    def in_place(found: re.Match[str]) -> str:
        if found[0][0] == "(":
            return f'<span class="whole">{found[0].replace("-", MINUS)}</span>'
        return {"-": MINUS, " ": "\N{NO-BREAK SPACE}"}.get(found[0], found[0])

    return _SET.sub(in_place, html)


def _merge_heads(table: Tag) -> None:
    # pandas writes the names of the index into a row of their own below the heads; two rows of real heads stay two.
    rows = table.select("thead tr")
    if len(rows) != 2:
        return
    heads, names = (row.find_all("th") for row in rows)
    pairs = [(head, name.get_text(strip=True)) for head, name in zip(heads, names, strict=False)]
    if len(heads) != len(names) or any(head.get_text(strip=True) and name for head, name in pairs):
        return
    for head, name in pairs:
        if name:
            head.string = name
    rows[1].decompose()


# What nbconvert puts in the place of a missing alternative text.
_NO_ALT = "No description has been provided for this image"
# Attributes by which any tag makes the browser fetch something when the page opens.
_LOADING = ("src", "srcset", "data", "poster", "background", "xlink:href")
# What a reader would try to move or press.
_CONTROLS = ", ".join(f".jp-OutputArea-output {name}" for name in ("input", "select", "textarea", "button"))


def complaints(page: Tag, known: Collection[str], place: Callable[[Tag], str]) -> Iterator[str]:
    """A sentence for all that is wrong with a finished page: pictures without words, dead controls and links, what it loads.

    ``known``: the pages of the site that links may lead to. ``place`` says where in the notebook a tag comes from.
    """
    for image in page.find_all("img"):
        if str(image.get("alt") or "").strip() in ("", _NO_ALT):
            how = 'display(figure, metadata={"image/png": {"alt": "..."}}), in markdown ![...](address)'
            yield f"{place(image)} shows an image without alternative text; give it with {how}"
    for control in page.select(_CONTROLS):
        yield f"{place(control)} shows a <{control.name}>, which nothing answers in a report; use a what-if"
    for tag, address in loaded(page):
        yield f"{place(tag)} would load {address[:100]!r}; a report holds all it shows, so embed it"
    places = {str(tag["id"]) for tag in page.find_all(id=True)}
    for link in page.find_all("a", href=True):
        name, _, fragment = (address := str(link["href"])).partition("#")
        # Links to the web are the reader's choice.
        outside = re.match(r"https?://|mailto:", address)
        if not outside and (name not in ("", *known) or (not name and fragment not in places)):
            where = f"{place(link)} links to {address[:100]!r}"
            yield f"{where}, which is not there; name a page of the site or a heading of this one"
    titles = [title.get_text()[:60] for title in page.find_all("h1")]
    if len(titles) != 1:
        yield f"{place(page)} must have exactly one '# title', has {titles or 'none'}"


def loaded(page: Tag) -> Iterator[tuple[Tag, str]]:
    """What a browser would fetch when it opens the page: each tag that makes it, with the address."""
    for tag in page.find_all(True):
        # The href of a link in the text is followed by a reader; that of these tags is fetched by the browser.
        names = (*_LOADING, "href") if tag.name in ("link", "image", "use") else _LOADING
        style = f"{tag.get('style', '')} {tag.get_text() if tag.name == 'style' else ''}"
        addresses = [str(tag[name]) for name in names if name in tag.attrs]
        addresses += re.findall(r"""(?:url\(|@import)\s*["']?([^"')\s]+)""", style)
        yield from ((tag, address) for address in addresses if not address.startswith(("data:", "#")) and address != SCRIPT)
