"""What the search of a site looks through: one script beside the pages, which base.js loads when somebody searches."""

import json
import re
from collections.abc import Iterable
from html import unescape
from pathlib import Path

from repro_lib.report.site.page_parts import made_from, title_of
from repro_lib.system.files import write_atomically

_UNREAD = re.compile(r"<(script|style|svg|pre|math|nav)\b.*?</\1>", re.DOTALL)
_HEADING = re.compile(r'<h2 id="([^"]+)"[^>]*>(.*?)</h2>', re.DOTALL)
# Letters of a section that can be found.
_LONGEST = 600


def write_search(folder: Path, stems: Iterable[str]) -> None:
    """``search.js``: of each page that is there its file, its title and its sections."""
    pages = [path for path in (folder / f"{stem}.html" for stem in stems) if made_from(path) or path.stem == "index"]
    entries = [(path.name, title_of(path.stem), _sections(path.read_text(encoding="utf-8"))) for path in pages]
    write_atomically(folder / "search.js", f"/* source-sha256 */ window.searchIndex = {json.dumps(entries)};\n")


# Anchor, heading and first words of each section of a page, what stands before all of them first.
def _sections(page: str) -> list[tuple[str, str, str]]:
    def words(html: str) -> str:
        return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())[:_LONGEST]

    begin, *parts = _HEADING.split(_UNREAD.sub(" ", page[page.find("<main") :]))
    found = zip(["", *parts[::3]], ["", *parts[1::3]], [begin, *parts[2::3]], strict=True)
    return [(place, words(heading), words(text)) for place, heading, text in found]
