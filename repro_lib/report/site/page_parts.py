"""What a report page has and a notebook has not: a summary at the top, a table of contents, tables that can be read aloud."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bs4 import Tag
    from nbformat import NotebookNode

# The tag of cells that say in a few sentences what came out.
SUMMARY_TAG = "summary"
# A page with fewer sections than this is seen at a glance.
SECTIONS_FOR_CONTENTS = 4
_DIGEST = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")
# Longer words than these are broken into lines.
_LONGEST_UNBROKEN = 32
# What makes an output of a notebook fit for a report: one of these sections; each brings the same style and script along.
REPORT_HALF = re.compile(r'<section class="what-if(-recorded)?"')
_WHAT_IF_STYLE = re.compile(r'<style class="what-if-style">.*?</style>', re.DOTALL)
_WHAT_IF_SCRIPT = re.compile(r'<script class="what-if-script">.*?</script>', re.DOTALL)
# What a column of numbers may hold: numbers with what belongs to them ("0.5 (0.4 to 0.6)", "5 of 5"), a dash, nothing.
_NUMBER = re.compile(r"[-+\N{MINUS SIGN}]?\d((?!\b[a-z]{5,}).)*(\(synthetic\))?|\N{EN DASH}|")


def rearrange(nb: NotebookNode) -> None:
    """Bring a notebook, in place, into the form of its page: summary first, tables readable.

    What the cells tagged ``summary`` show moves up behind the first cell; their code stays where it ran.
    """
    from nbformat.v4 import new_code_cell, new_output

    summary = []
    for cell in nb.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if 'class="dataframe"' in data.get("text/html", ""):
                data["text/html"] = readable_table(data["text/html"])
        tags = cell.metadata.get("tags", [])
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
    """A data frame's HTML for readers and screen readers: heads have a scope, names of the index stand in the one row of
    heads, columns of words are aligned as words.
    """
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
            if not head.get_text(strip=True):  # a head that says nothing is none
                head.name = "td"
                del head["scope"]
        for head in table.select("tbody th"):
            head["scope"] = "rowgroup" if head.has_attr("rowspan") else "row"
        for number, cells in enumerate(_columns(table)):
            texts = [cell.get_text(strip=True) for cell in cells]
            if not all(_NUMBER.fullmatch(text) for text in texts):
                look = "long words" if max(map(len, texts)) > _LONGEST_UNBROKEN else "words"
                for cell in [*heads[len(heads) - _width(table) + number :][:1], *cells]:
                    cell["class"] = look
    return str(page)


def _merge_heads(table: Tag) -> None:
    """pandas writes the names of the index into a row of their own below the heads."""
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


def _width(table: Tag) -> int:
    """How many columns the table has beside its index."""
    return max((len(row.find_all("td")) for row in table.select("tbody tr")), default=0)


def _columns(table: Tag) -> Iterator[list[Tag]]:
    """The cells of each column beside the index; heads of rows that span several are no cells."""
    rows = [row.find_all("td") for row in table.select("tbody tr")]
    yield from (list(column) for column in zip(*rows, strict=False))


def one_copy_per_page(outputs: list[str]) -> list[str]:
    """The HTML outputs of one page with one style and one script among them, however many what-ifs each brings its own.

    The first style stays, so that nothing is shown without it, and the last script, so that all sections stand before it.
    """
    styles = [(k, m.span()) for k, text in enumerate(outputs) for m in _WHAT_IF_STYLE.finditer(text)][1:]
    scripts = [(k, m.span()) for k, text in enumerate(outputs) for m in _WHAT_IF_SCRIPT.finditer(text)][:-1]
    kept = list(outputs)
    for k, (start, end) in sorted([*styles, *scripts], reverse=True):  # from the end, so that places stay true
        kept[k] = kept[k][:start] + kept[k][end:]
    return kept
