"""What can only be seen in a finished page: alternative texts, live controls, nothing loaded, one title, links that lead on."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bs4 import BeautifulSoup, Tag

NO_ALT = "No description has been provided for this image"
# Attributes by which any tag makes the browser fetch something when the page opens.
LOADING = ("src", "srcset", "data", "poster", "background", "xlink:href")

# What a reader would try to move or press.
CONTROLS = ("input", "select", "textarea", "button")


def complaints(page: BeautifulSoup, known: Collection[str], place: Callable[[Tag], str]) -> Iterator[str]:
    """A sentence for everything that is wrong with a page; none for a page as it should be.

    ``known``: the pages of the site that links may lead to. ``place`` says where in the notebook a tag comes from.
    """
    for image in page.find_all("img"):
        if str(image.get("alt") or "").strip() in ("", NO_ALT):
            how = 'display(figure, metadata={"image/png": {"alt": "..."}}), in markdown ![...](address)'
            yield f"{place(image)} shows an image without alternative text; give it with {how}"
    for control in page.select(", ".join(f".jp-OutputArea-output {name}" for name in CONTROLS)):
        yield f"{place(control)} shows a <{control.name}>, which nothing answers in a report; use a what-if"
    for what_if in page.select("section.what-if"):
        if not (what_if.select("script.what-if-data") and page.select("script.what-if-script")):
            yield f"{place(what_if)} shows a what-if without its data or script; run the notebook again"
    for tag, address in _loaded(page):
        yield f"{place(tag)} would load {address[:100]!r}; a report holds all it shows, so embed it"
    for link, address in _dead_links(page, known):
        yield f"{place(link)} links to {address[:100]!r}, which is not there; name a page of the site or a heading of this one"
    titles = [title.get_text()[:60] for title in page.find_all("h1")]
    if len(titles) != 1:
        yield f"{place(page)} must have exactly one '# title', has {titles or 'none'}"


def _loaded(page: BeautifulSoup) -> Iterator[tuple[Tag, str]]:
    """Every tag that would make a browser fetch something, with the address."""
    for tag in page.find_all(True):
        # The href of a link in the text is followed by a reader; that of these tags is fetched by the browser.
        names = (*LOADING, "href") if tag.name in ("link", "image", "use") else LOADING
        style = f"{tag.get('style', '')} {tag.get_text() if tag.name == 'style' else ''}"
        addresses = [str(tag[name]) for name in names if name in tag.attrs]
        addresses += re.findall(r"""(?:url\(|@import)\s*["']?([^"')\s]+)""", style)
        yield from ((tag, address) for address in addresses if not address.startswith(("data:", "#")))


def _dead_links(page: BeautifulSoup, known: Collection[str]) -> Iterator[tuple[Tag, str]]:
    """Links to a page that the site has not, or to a place that this page has not. Links to the web are the reader's choice."""
    places = {str(tag["id"]) for tag in page.find_all(id=True)}
    for link in page.find_all("a", href=True):
        address = str(link["href"])
        if re.match(r"https?://|mailto:", address):
            continue
        name, _, fragment = address.partition("#")
        if name not in ("", *known) or (not name and fragment not in places):
            yield link, address
