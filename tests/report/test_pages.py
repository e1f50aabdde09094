"""Report pages and their index: nothing loaded, nothing dead, nothing hidden, nothing made twice."""

from __future__ import annotations

import base64
import json
import os
import re
import struct
import zlib
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from repro_lib.data import known_corpora
from repro_lib.report.site import index
from repro_lib.report.site.index import SiteReport, build_site, write_index
from repro_lib.report.site.page import Page, ReportError, render_notebook
from repro_lib.store.certificate import Certificate, write_certificate
from repro_lib.store.schema import CorpusRecord, Result
from repro_lib.store.store import Store

MakeResult = Callable[..., Result]

WIDGET = {"application/vnd.jupyter.widget-view+json": {"model_id": "a1", "version_major": 2, "version_minor": 0}}
ATTACK = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'"
MATHS = r"""## Maths

$p$ and $$\frac{2|p-q|}{p+q}$$

\begin{align} a &= b \end{align}

| a | b |
|---|---|
| 1 | 2 |
"""
CELLS = [("charlm", "relu"), ("charlm", "gelu"), ("convlm", "relu"), ("convlm", "gelu")]


def png(width: int = 8, height: int = 4) -> bytes:
    """A white picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + b"\xff" * width) * height
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def figure(alt: str | None) -> NotebookNode:
    """What ``display(figure, metadata=...)`` leaves in a cell."""
    data = {"image/png": base64.b64encode(png()).decode(), "text/plain": "<Figure size 640x480 with 1 Axes>"}
    return new_output("display_data", data=data, metadata={"image/png": {"alt": alt}} if alt else {})


def html_output(html: str) -> NotebookNode:
    return new_output("display_data", data={"text/html": html, "text/plain": "text"})


def code(source: str, *outputs: NotebookNode, tags: tuple[str, ...] = ()) -> NotebookNode:
    return new_code_cell(source, outputs=list(outputs), execution_count=1, metadata={"tags": list(tags)} if tags else {})


def write_notebook(path: Path, *cells: NotebookNode, title: str = "# A title", **metadata: Any) -> Path:
    """A notebook as the grid leaves it: executed, with the parameters papermill injected."""
    python = {"language_info": {"name": "python", "pygments_lexer": "ipython3"}}
    nb = new_notebook(cells=[new_markdown_cell(title), *cells] if title else list(cells), metadata=python | metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nb, path)
    return path


class Tags(HTMLParser):
    """All start tags of a page with their attributes, and its text outside of style and script."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.styles: list[str] = []
        self.inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        self.inside = tag

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside == "style":
            self.styles.append(data)
        elif self.inside != "script":
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))

    def all(self, name: str) -> list[dict[str, str]]:
        return [attributes for tag, attributes in self.tags if tag == name]


def rendered(tmp_path: Path, *cells: NotebookNode, pages: tuple[Page, ...] = (), **about: Any) -> str:
    """The page of a notebook of these cells."""
    output = tmp_path / "page.html"
    render_notebook(write_notebook(tmp_path / "10_train-charlm-gelu.ipynb", *cells, **about), output, pages)
    return output.read_text()


def refusal(tmp_path: Path, *cells: NotebookNode, **about: Any) -> str:
    """Why a notebook of these cells cannot become a page; the message names it, and no page is left."""
    with pytest.raises(ReportError) as caught:
        rendered(tmp_path, *cells, **about)
    assert "10_train-charlm-gelu.ipynb" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["10_train-charlm-gelu.ipynb"]
    return str(caught.value)


def fetched(page: Tags) -> list[str]:
    """What a browser would fetch when it opens the page."""
    found = [a[name] for _, a in page.tags for name in ("src", "srcset", "data", "poster") if name in a]
    found += [a["href"] for tag, a in page.tags if tag in ("link", "image", "use") and "href" in a]
    styles = [*page.styles, *(a["style"] for _, a in page.tags if "style" in a)]
    found += [address for style in styles for address in re.findall(r"url\(\s*[\"']?([^)\"']*)|@import", style)]
    return [address for address in found if not address.startswith("data:")]


# One page


def full_page(tmp_path: Path) -> str:
    """A page with everything a notebook of ours may hold."""
    return rendered(
        tmp_path,
        code("model: str = 'charlm'  # SECRET_DEFAULT", tags=("parameters",)),
        code("model = 'SECRET_INJECTED'", tags=("injected-parameters",)),
        new_markdown_cell(MATHS),
        code("draw()", figure("Loss of three trials, falling from 4.3 to 2.0")),
        code("frame", html_output("<table class='dataframe'><tr><td>1</td></tr></table>")),
        code("formula", new_output("display_data", data={"text/latex": "$x^2$", "text/plain": "x"})),
        code("print()", new_output("stream", name="stdout", text=f"printed {ATTACK}\n")),
        code("warn()", new_output("stream", name="stderr", text="0%|\r100%|##|\nUserWarning: careful\n")),
        papermill={"parameters": {"model": "charlm", "trials": 3, "results_dir": "/private/place/results", "note": ATTACK}},
        pages=(Page("Index", "index.html"), Page("This", "page.html"), Page(ATTACK, "other.html", "Group")),
    )  # fmt: skip


def test_page_loads_nothing(tmp_path: Path) -> None:
    """No tag names an address outside the page; the browser is told to refuse whatever a script might try."""
    page = Tags(full_page(tmp_path))
    assert fetched(page) == []
    policy = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert "http" not in policy


def test_page_structure(tmp_path: Path) -> None:
    """Language, one title, one main part, a way past the navigation, and the current page marked in it."""
    page = Tags(full_page(tmp_path))
    assert [len(page.all(tag)) for tag in ("h1", "main", "header", "footer")] == [1, 1, 1, 1]
    assert page.all("html") == [{"lang": "en"}]
    main = page.all("main")[0]["id"]
    assert any(link.get("href") == f"#{main}" and link.get("class") == "skip" for link in page.all("a"))
    assert [link["href"] for link in page.all("a") if link.get("aria-current") == "page"] == ["page.html"]


def test_page_folds_code_and_hides_parameter_cells(tmp_path: Path) -> None:
    """Code is there but folded (a script adds the button), parameters are a line of their own, no path is shown."""
    html = full_page(tmp_path)
    page = Tags(html)
    assert page.all("button") == [], "a button that needs the script is made by the script"
    assert "SECRET" not in html
    for parameter in ("model charlm", "trials 3", "results_dir .../results"):
        assert parameter.replace(" ", "") in page.text.replace(" ", "")
    assert "/private" not in html


def test_page_escapes_what_is_not_code_of_ours(tmp_path: Path) -> None:
    """Printed text, parameters and navigation are text: the only scripts are the page's own, in the head and at the end."""
    page = Tags(full_page(tmp_path))
    assert len(page.all("script")) == 2
    assert not any("onerror" in attributes for _, attributes in page.tags)
    assert page.text.count("<script>alert(1)</script>") == 3


def test_maths_needs_no_script(tmp_path: Path) -> None:
    """Inline, displayed, an environment, an output: all MathML, and no TeX is left over."""
    page = Tags(full_page(tmp_path))
    assert [formula.get("display") for formula in page.all("math")] == ["inline", "block", "block", "inline"]
    assert "$" not in page.text
    assert "\\frac" not in page.text


def test_messages_are_shown_but_folded(tmp_path: Path) -> None:
    """What went to stderr is kept, out of the way; a progress bar's overwritten lines are not."""
    html = full_page(tmp_path)
    details = re.search(r'<details class="messages">.*?</details>', html, re.DOTALL)
    assert details
    assert "UserWarning: careful" in details[0]
    assert "100%|##|" in details[0]
    assert not re.search(r"\b0%", details[0])
    assert html.count("UserWarning") == 1


def test_page_shows_the_alternative_text(tmp_path: Path) -> None:
    images = Tags(full_page(tmp_path)).all("img")
    assert [image["alt"] for image in images] == ["Loss of three trials, falling from 4.3 to 2.0"]


def test_page_is_small(tmp_path: Path) -> None:
    """The lab template's 240 KB of editor style are left out."""
    assert len(full_page(tmp_path)) < 60_000


def test_summary_comes_first_and_contents_lead_into_the_rest(tmp_path: Path) -> None:
    sections = [new_markdown_cell(f"## {k}. Section *{k}*\n\ntext") for k in range(1, 5)]
    summary = code("say()", html_output("<p>THE RESULT</p>"), tags=("summary",))
    html = rendered(tmp_path, code("load()", html_output("<p>LOADED</p>")), *sections, summary)
    order = ["<h1>", "THE RESULT", "On this page", "LOADED", '<h2 id="1-section-1"']
    places = [html.index(text, html.index("<main")) for text in order]
    assert places == sorted(places)
    page = Tags(html)
    links = [link["href"] for link in page.all("a") if link["href"].startswith("#") and link["href"] != "#main"]
    assert links == [f"#{heading['id']}" for heading in page.all("h2") if heading["id"] != "toc"]
    assert len(links) == 4
    assert html.count("THE RESULT") == 1
    assert "say" in page.text, "its code stays"


def test_links_between_notebooks_become_links_between_pages(tmp_path: Path) -> None:
    text = "[here](30_cross_model.ipynb) and [there](10_train.ipynb) and [the web](https://example.org/x.ipynb)"
    page = Tags(rendered(tmp_path, new_markdown_cell(text), pages=(Page("Cross model", "30_cross_model.html"),)))
    links = [link["href"] for link in page.all("a")]
    assert links.count("30_cross_model.html") == 2  # the navigation's, and this one
    assert not [link for link in links if "10_train" in link]
    assert "here and there and the web" in page.text, "what has no page is text"


@pytest.mark.parametrize("target", ["missing.html", "#nowhere", "../elsewhere.html", "plots/x.png", "30_cross_model.html#x#y"])
def test_a_link_that_leads_nowhere_is_refused(tmp_path: Path, target: str) -> None:
    message = refusal(tmp_path, new_markdown_cell(f"see [this]({target})"))
    assert "cell 2 ('see [this](" in message
    assert f"links to '{target}', which is not there" in message


def test_neighbours_are_those_of_the_row(tmp_path: Path) -> None:
    row = [Page(a, f"10_train-charlm-{a}.html", "charlm with") for a in ("relu", "gelu", "swish")]
    notebook, html = write_notebook(tmp_path / "n.ipynb"), {}
    for page in row:
        render_notebook(notebook, tmp_path / page.href, (Page("Index", "index.html"), *row))
        links = Tags((tmp_path / page.href).read_text()).all("a")
        html[page.title] = {link["rel"]: link["href"] for link in links if "rel" in link}
    assert html["relu"] == {"next": "10_train-charlm-gelu.html"}
    assert html["gelu"] == {"prev": "10_train-charlm-relu.html", "next": "10_train-charlm-swish.html"}
    assert html["swish"] == {"prev": "10_train-charlm-gelu.html"}


def test_page_without_papermill_metadata(tmp_path: Path) -> None:
    assert "<dl" not in rendered(tmp_path, new_markdown_cell("text"))


@pytest.mark.parametrize(
    "cell",
    [
        code("draw()", figure(None)),
        code("draw()", html_output('<img src="data:image/png;base64,AA==">')),
        code("draw()", html_output('<img alt=" " src="data:image/png;base64,AA==">')),
        new_markdown_cell("draw() ![](data:image/png;base64,AA==)"),
        code(
            "draw()",
            html_output('<img alt="No description has been provided for this image" src="data:image/png;base64,AA==">'),
        ),
    ],
    ids=["figure", "html", "blank", "markdown", "placeholder"],
)
def test_missing_alternative_text_is_refused(tmp_path: Path, cell: NotebookNode) -> None:
    """The message names the cell as its reader counts it, hidden cells included."""
    message = refusal(tmp_path, code("x = 1", tags=("parameters",)), cell)
    assert "cell 3 ('draw()" in message
    assert "alternative text" in message


@pytest.mark.parametrize(
    "html",
    [
        '<script src="https://cdn.example/x.js"></script>',
        '<link rel="stylesheet" href="//cdn.example/x.css">',
        '<img alt="a" src="picture.png">',
        '<iframe src="https://example.org"></iframe>',
        "<style>body { background: url(https://example.org/x.png) }</style>",
        '<p style="background: url(x.png)">text</p>',
        "<style>@import 'https://example.org/x.css';</style>",
        '<svg><image href="https://example.org/x.png"></image></svg>',
    ],
)
def test_anything_loaded_is_refused(tmp_path: Path, html: str) -> None:
    message = refusal(tmp_path, code("show()", html_output(html)))
    assert "cell 2 ('show()')" in message
    assert "would load" in message


def test_picture_beside_the_notebook_is_embedded(tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(png())
    page = Tags(rendered(tmp_path, new_markdown_cell("![A white picture](picture.png)")))
    assert page.all("img")[0]["src"] == "data:image/png;base64," + base64.b64encode(png()).decode()


def test_dead_widget_is_refused(tmp_path: Path) -> None:
    """A slider that moves over a figure that does not follow misleads; a report has none."""
    widget = new_output("display_data", data=WIDGET | {"text/plain": "HBox(children=...)"})
    assert "cell 2 ('interact(draw)')" in refusal(tmp_path, code("interact(draw)", widget))


def test_interact_state_is_refused(tmp_path: Path) -> None:
    state = {"application/vnd.jupyter.widget-state+json": {"state": {"a": {"state": {"_dom_classes": ["widget-interact"]}}}}}
    assert "interact" in refusal(tmp_path, widgets=state)


def test_state_of_closed_widgets_is_left_out(tmp_path: Path) -> None:
    """A progress bar that closed itself leaves no view, and its state does not travel."""
    state = {"application/vnd.jupyter.widget-state+json": {"state": {"a": {"model_name": "IntProgressModel"}}}}
    assert "IntProgressModel" not in rendered(tmp_path, widgets=state)


def test_output_that_html_cannot_show_is_refused(tmp_path: Path) -> None:
    """nbconvert only warns, and the figure is silently absent."""
    output = new_output("display_data", data={"application/vnd.plotly.v1+json": {"data": []}})
    assert "application/vnd.plotly.v1+json" in refusal(tmp_path, code("plot()", output))


@pytest.mark.parametrize("formula", ["x^", r"\begin{align} a", r"\unheard{x}"])
def test_formula_that_is_not_understood_is_refused(tmp_path: Path, formula: str) -> None:
    assert repr(formula) in refusal(tmp_path, new_markdown_cell(f"${formula}$"))


@pytest.mark.parametrize(("title", "more"), [("", "text"), ("# One", "# Two"), ("## Lower", "text")])
def test_page_needs_exactly_one_title(tmp_path: Path, title: str, more: str) -> None:
    assert "exactly one '# title'" in refusal(tmp_path, new_markdown_cell(more), title=title)


@pytest.mark.parametrize(
    "content", [b'{"cells": [', b"\xff\xfe", b"[]", b"{}", b'{"nbformat": 4, "cells": 3, "metadata": {}}', b"[" * 100_000]
)
def test_broken_notebook_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "10_train-charlm-gelu.ipynb"
    path.write_bytes(content)
    with pytest.raises(ReportError, match=r"10_train-charlm-gelu\.ipynb"):
        render_notebook(path, tmp_path / "page.html")


def test_what_is_no_file_or_too_large_is_neither_read_nor_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "10_train-charlm-gelu.ipynb"
    path.write_bytes(b"")
    os.truncate(path, 2**40)  # sparse: takes no room
    with pytest.raises(ReportError, match=r"10_train-charlm-gelu\.ipynb is larger than 256 MiB"):
        render_notebook(path, tmp_path / "page.html")
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ReportError, match=r"10_train-charlm-gelu\.ipynb is no regular file"):
        render_notebook(path, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


# The site


@pytest.fixture
def site(tmp_path: Path, make_result: MakeResult) -> Path:
    """A run with all of CELLS done and their notebooks executed."""
    for model, activation in CELLS:
        Store(tmp_path / "results").save(make_result(model, activation))
        execute(tmp_path, f"10_train-{model}-{activation}")
    return tmp_path


def execute(folder: Path, stem: str, text: str = "text") -> Path:
    return write_notebook(folder / "results" / "notebooks" / f"{stem}.ipynb", new_markdown_cell(text))


def build(folder: Path, cells: list[tuple[str, str]] = CELLS, **options: Any) -> SiteReport:
    return build_site(folder / "results", folder / "reports", cells, **options)


def index_of(folder: Path) -> Tags:
    return Tags((folder / "reports" / "index.html").read_text())


def test_unchanged_pages_are_not_made_again(site: Path) -> None:
    first = build(site)
    page = site / "reports" / "10_train-charlm-relu.html"
    before = page.stat().st_ino
    assert len(first.rendered) == 4
    page.parent.joinpath("10_train-charlm-gelu.html").touch()
    second = build(site, CELLS[::-1])
    assert second.rendered == ()
    assert second.unchanged == first.rendered
    assert page.stat().st_ino == before


def test_changed_notebook_is_rendered_again(site: Path) -> None:
    """Content decides, not the time stamp."""
    build(site)
    execute(site, "10_train-charlm-relu", "other text")
    assert build(site).rendered == ("10_train-charlm-relu",)
    assert "other text" in (site / "reports" / "10_train-charlm-relu.html").read_text()


def test_one_more_page_costs_one_page(site: Path) -> None:
    """The navigation names what is expected, so it does not change as pages appear."""
    late = (site / "results" / "notebooks" / "10_train-convlm-gelu.ipynb").rename(site / "later.ipynb")
    assert len(build(site, running=True).rendered) == 3
    late.rename(site / "results" / "notebooks" / "10_train-convlm-gelu.ipynb")
    execute(site, "20_deep_dive-charlm")
    assert build(site, running=True).rendered == ("10_train-convlm-gelu", "20_deep_dive-charlm")


def test_every_link_leads_somewhere(site: Path) -> None:
    """Also while most pages are not made yet: a stand-in says so, and the index does not take it for a report."""
    (site / "results" / "notebooks" / "10_train-convlm-gelu.ipynb").unlink()
    build(site, running=True)
    for page in (site / "reports").glob("*.html"):
        for link in Tags(page.read_text()).all("a"):
            assert link["href"].startswith("#") or (site / "reports" / link["href"].partition("#")[0]).exists(), page
    assert "not there yet" in (site / "reports" / "10_train-convlm-gelu.html").read_text()
    assert "10_train-convlm-gelu.html" not in [link["href"] for link in index_of(site).all("a")]
    execute(site, "10_train-convlm-gelu")
    assert build(site).rendered == ("10_train-convlm-gelu",)
    assert "10_train-convlm-gelu.html" in [link["href"] for link in index_of(site).all("a")]


def test_training_page_and_deep_dive_link_to_each_other(site: Path) -> None:
    execute(site, "20_deep_dive-charlm")
    build(site)
    for page, other in [("10_train-charlm-gelu", "20_deep_dive-charlm"), ("20_deep_dive-charlm", "10_train-charlm-gelu")]:
        links = [link["href"] for link in Tags((site / "reports" / f"{page}.html").read_text()).all("a")]
        assert f"{other}.html" in links


def test_bad_notebook_stops_no_other_and_leaves_no_old_page(site: Path) -> None:
    build(site)
    (site / "results" / "notebooks" / "10_train-charlm-gelu.ipynb").write_text('{"cells": [')
    execute(site, "10_train-convlm-gelu", "other text")
    report = build(site)
    assert report.rendered == ("10_train-convlm-gelu",)
    assert [problem for problem in report.problems if "10_train-charlm-gelu.ipynb" in problem]
    assert "10_train-charlm-gelu.html" not in [link["href"] for link in index_of(site).all("a")]
    assert "10_train-charlm-gelu.ipynb is not a whole notebook" in index_of(site).text


def test_unfinished_and_foreign_notebooks_are_not_rendered(site: Path) -> None:
    """Nothing is written outside the reports folder, and nothing under a name that is not ours."""
    expected = {f"10_train-{model}-{activation}" for model, activation in CELLS}
    for stem in [
        "10_train-charlm-swish.failed",
        "10_train-convlm-swish.partial",
        "notes",
        "index",
        "10_train-<b>-relu",
        "..-..-",
    ]:
        execute(site, stem)
    before = {path for path in site.rglob("*") if "reports" not in path.parts}
    assert set(build(site, analyses=()).rendered) == expected
    written = {path.name for path in (site / "reports").iterdir()}
    assert written == {f"{stem}.html" for stem in expected} | {
        "index.html",
        "20_deep_dive-charlm.html",
        "20_deep_dive-convlm.html",
    }
    assert {path for path in site.rglob("*") if "reports" not in path.parts} == before


# The index


def rows_of(folder: Path) -> dict[tuple[str, str], str]:
    """The text of each row of the table of cells."""
    html = (folder / "reports" / "index.html").read_text()
    table = html[html.index("data-sortable") :]
    texts = [Tags(row).text for row in re.findall(r"<tr>.*?</tr>", table[table.index("<tbody>") :], re.DOTALL)]
    rows = [re.match(r"\s*([a-z_]+?)(relu|gelu|swish|swiglu)(.*)", text) for text in texts]
    return {(row[1], row[2]): row[3] for row in rows if row}


def matrix_of(folder: Path) -> str:
    """The overview of models x activations."""
    html = (folder / "reports" / "index.html").read_text()
    return html[html.index('class="matrix"') : html.index("</table>")]


def test_index_says_what_was_run(tmp_path: Path, make_result: MakeResult) -> None:
    corpus = known_corpora()["shakespeare"]
    environment = {"python": "3.11.7", "torch": "2.13.0", "cpu": "Some CPU", "device": "cpu", "git_commit": "0123456789abcdef"}
    record = CorpusRecord(name="shakespeare", sha256=corpus["sha256"])
    made = make_result(corpus=record.sha256).model_copy(update={"environment": environment, "corpus": record})
    Store(tmp_path / "results").save(made)
    build(tmp_path, [("charlm", "relu")])
    text = index_of(tmp_path).text
    for fact in [
        "smoke: tests: every cell",
        "Some CPU, Python 3.11.7, torch 2.13.0",
        "0123456789ab",
        corpus["sha256"][:12],
        "2025-01-01",
    ]:
        assert fact in text
    assert corpus["licence"] in text
    assert "1 of 1 cells done" in text


def test_missing_and_failed_cells_are_named(site: Path, make_result: MakeResult) -> None:
    """No number is drawn where there is none."""
    store = Store(site / "results")
    next(store.folder.glob("charlm-relu-*")).unlink()
    next(store.folder.glob("convlm-relu-*")).unlink()
    store.record_failure("convlm", "relu", "ab", f"loss is nan (see {store.folder}/notebooks/x)")
    (store.folder / "notebooks" / "10_train-convlm-relu.ipynb").rename(
        store.folder / "notebooks" / "10_train-convlm-relu.failed.ipynb"
    )
    build(site)
    rows, text = rows_of(site), index_of(site).text
    assert "missing" in rows["charlm", "relu"]
    assert "failed loss is nan" in rows["convlm", "relu"]
    for row in (rows["charlm", "relu"], rows["convlm", "relu"]):
        assert not re.search(r"\d\.\d", row)
    assert "0.5000" in rows["charlm", "gelu"]
    assert re.findall(r'<td class="hole"><span class="state (\w+)"', matrix_of(site)) == ["missing", "failed"]
    assert "0.0000" not in text
    assert "2 of 4 cells done · 1 failed · 1 missing" in text
    assert "No result yet: charlm × relu" in text
    assert "results/notebooks/10_train-convlm-relu.failed.ipynb" in text
    assert str(site) not in text


def test_later_success_settles_a_failure(site: Path) -> None:
    note = Store(site / "results").record_failure("charlm", "relu", "ab", "loss is nan")
    build(site)
    assert "loss is nan" in index_of(site).text
    note.write_text(json.dumps(json.loads(note.read_text()) | {"timestamp": "2024-01-01T00:00:00+00:00"}))
    build(site)
    assert "loss is nan" not in index_of(site).text


def test_the_index_of_a_checkout_leads_to_the_published_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "project_root", lambda: tmp_path)
    published = tmp_path / "published" / "reports"
    published.mkdir(parents=True)
    (published / "index.html").write_text("there")
    for folder, led in ((tmp_path / "reports", True), (tmp_path / "elsewhere" / "reports", False), (published, False)):
        write_index(tmp_path / "results", folder)
        assert ('<a href="../published/reports/index.html">' in (folder / "index.html").read_text()) is led, folder
    (published / "index.html").unlink()
    write_index(tmp_path / "results", tmp_path / "reports")
    assert "../published/" not in (tmp_path / "reports" / "index.html").read_text()


def test_index_while_running(site: Path) -> None:
    """It follows the grid, and says which cells are at work; a finished index stands still."""
    for path in (site / "results").glob("charlm-*.json"):
        path.unlink()
    execute(site, "10_train-charlm-relu.partial")
    build(site, running=True)
    assert "2 of 4 cells done · 1 running · 1 waiting" in index_of(site).text
    assert any(meta.get("http-equiv") == "refresh" for meta in index_of(site).all("meta"))
    build(site)
    assert not any(meta.get("http-equiv") == "refresh" for meta in index_of(site).all("meta"))


def test_index_of_an_empty_store(tmp_path: Path) -> None:
    build(tmp_path, [])
    assert "No results yet" in index_of(tmp_path).text


def test_one_trial_has_no_pair(tmp_path: Path, make_result: MakeResult) -> None:
    Store(tmp_path / "results").save(make_result(trials=1))
    build(tmp_path, [("charlm", "relu")])
    assert "no pair" in rows_of(tmp_path)["charlm", "relu"]
    assert "0.0000" not in index_of(tmp_path).text


def test_index_escapes_results(site: Path, make_result: MakeResult) -> None:
    """A result, a note of a failure and a file name are text from elsewhere."""
    store = Store(site / "results")
    hostile = make_result("charlm", "relu", minute=5).model_copy(
        update={"flags": [ATTACK], "environment": {"cpu": ATTACK, "git_commit": ATTACK}}
    )
    store.save(hostile.model_copy(update={"corpus": CorpusRecord(name=ATTACK, sha256=hostile.corpus.sha256)}))
    note = {"model_name": f"../../{ATTACK}", "activation": "javascript:alert(1)", "reason": ATTACK}
    (store.folder / "failed").mkdir()
    (store.folder / "failed" / "x.json").write_text(json.dumps(note))
    (store.folder / "<script>alert(1)<%2fscript>.json").write_text("{}")
    build(site)
    page = index_of(site)
    assert len(page.all("script")) == 2
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert page.text.count("<script>alert(1)") >= 5
    own = r"(#\w+|index\.html|\d\d_[a-z_]+(-[a-z0-9_]+){0,2}\.html)"
    assert [link["href"] for link in page.all("a") if not re.fullmatch(own, link["href"])] == []
    assert fetched(page) == []


def determinism_of(folder: Path) -> str:
    """What the index says under that heading."""
    html = (folder / "reports" / "index.html").read_text()
    start = html.index("<dt>Determinism</dt>")
    return Tags(html[start : html.index("</div>", start)]).text.removeprefix("Determinism ")


def test_index_shows_the_certificate_or_how_to_make_one(
    site: Path, make_result: MakeResult, make_certificate: Callable[..., Certificate]
) -> None:
    results = site / "results"
    for path in results.glob("*.json"):
        path.unlink()
    made_with = {"python": "3.11.7", "torch": "2.13.0", "device": "cpu", "cpu": "Some CPU", "git_commit": None}
    Store(results).save(make_result(environment=made_with))
    build(site)
    assert determinism_of(site) == "not certified yet: run repro doctor --determinism"
    path = write_certificate(results, make_certificate())
    build(site)
    said = "Processes: what processes found. Resumed: what resumed found. Constant predictor: what constant predictor found."
    assert determinism_of(site) == f"passed, 2025-01-01 12:00 UTC. {said} Causality: what causality found."
    write_certificate(results, make_certificate(failed=["resumed"], slowdown=1.25))
    build(site)
    slower = "Deterministic algorithms take 1.25 times as long as others."
    assert determinism_of(site) == f"FAILED, 2025-01-01 12:00 UTC. Resumed: what resumed found. {slower}"
    write_certificate(results, make_certificate(machine={"torch": "2.12.0"}))
    build(site)
    stale = "It does not speak for these results: it was made with torch 2.12.0, these results with 2.13.0."
    assert determinism_of(site).endswith(stale)
    path.write_text(path.read_text().replace("2.12.0", "2.13.0"))
    build(site)
    assert determinism_of(site) == (
        "not certified: determinism.json was changed after it was written (content_sha256 does not fit); "
        "run repro doctor --determinism"
    )


def test_index_escapes_the_certificate(site: Path, make_certificate: Callable[..., Certificate]) -> None:
    checks = [check.model_copy(update={"said": ATTACK}) for check in make_certificate().checks]
    path = write_certificate(site / "results", make_certificate(checks=checks, machine={"torch": ATTACK, "cpu": ATTACK}))
    build(site)
    page = index_of(site)
    assert determinism_of(site).count("<script>alert(1)</script>") == 5
    assert len(page.all("script")) == 2
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    path.write_text(f'{{"content_sha256": "{"<script>" * 20}"}}')
    build(site)
    assert len(index_of(site).all("script")) == 2


def test_intervals_and_exact_values(site: Path) -> None:
    """The table shows the interval, and sorts by the full value rather than by what is printed."""
    build(site, intervals={("charlm", "relu"): (0.41, 0.62)})
    assert "0.4100 to 0.6200" in rows_of(site)["charlm", "relu"]
    assert "none" in rows_of(site)["charlm", "gelu"]
    cells = [cell for cell in index_of(site).all("td") if "data-value" in cell]
    assert {"0.5", "3.0625", "20.5", "2"} <= {cell["data-value"] for cell in cells}


def test_index_says_first_what_came_out(site: Path) -> None:
    build(site, in_short=["charlm: <b>lowest</b> with gelu."])
    html = (site / "reports" / "index.html").read_text()
    assert html.index("In short") < html.index("cells done")
    assert "charlm: &lt;b&gt;lowest&lt;/b&gt; with gelu." in html
    build(site)
    assert "In short" not in index_of(site).text


def test_figures_of_models_that_are_not_shown_are_passed_over(site: Path) -> None:
    plots = site / "reports" / "plots"
    plots.mkdir(parents=True)
    for name in (
        "convlm_accuracy",
        "charlm_accuracy",
        "tinylstm_accuracy",
        "tinylstm_readout_accuracy",
        "multi_model_accuracy",
    ):
        (plots / f"{name}.png").write_bytes(png())
        (plots / f"{name}.txt").write_text("Accuracy")
    (plots / "minigpt_accuracy.png").write_bytes(png())
    assert build(site).problems == ()
    shown = [image["src"].removeprefix("plots/") for image in index_of(site).all("img")]
    assert shown == ["multi_model_accuracy.png", "charlm_accuracy.png", "convlm_accuracy.png"], "in the order of the models"


def test_figures_need_alternative_text(site: Path) -> None:
    plots = site / "reports" / "plots"
    plots.mkdir(parents=True)
    for name in ("multi_model_accuracy", "charlm_accuracy", "unexplained", "blank"):
        (plots / f"{name}.png").write_bytes(png())
    (plots / "blank.txt").write_text("\n")
    (plots / "multi_model_accuracy.txt").write_text(f"Accuracy {ATTACK}")
    (plots / "charlm_accuracy.txt").write_text("Accuracy of charlm")
    report = build(site)
    images = {image["src"]: image["alt"] for image in index_of(site).all("img")}
    assert images == {
        "plots/multi_model_accuracy.png": f"Accuracy {ATTACK}",
        "plots/charlm_accuracy.png": "Accuracy of charlm",
    }
    assert [problem.split()[2] for problem in report.problems] == ["plots/unexplained.png", "plots/blank.png"]


def test_negative_control_is_said_to_be_one(tmp_path: Path, make_result: MakeResult) -> None:
    """Equal bits in every column, and only those; equal numbers alone are no proof."""
    store = Store(tmp_path / "results")
    for activation, digest in [("relu", "1"), ("gelu", "2")]:
        store.save(make_result("tinylstm", activation))
        result = make_result("charlm", activation)
        trials = [trial.model_copy(update={"predictions_sha256": digest * 64}) for trial in result.trials]
        store.save(result.model_copy(update={"trials": trials}))
    write_index(tmp_path / "results", tmp_path / "reports")
    html = (tmp_path / "reports" / "index.html").read_text()
    rows = {
        model: Tags(row).text
        for model in ("tinylstm", "charlm")
        for row in re.findall(rf'<th scope="row">{model}.*?</tr>', html, re.DOTALL)[:1]
    }
    assert "same bits" in rows["tinylstm"]
    assert "same bits" not in rows["charlm"]


def test_other_runs_and_bad_files_are_named_not_mixed(site: Path, make_result: MakeResult) -> None:
    store = Store(site / "results")
    store.save(make_result("charlm", "swish", minute=-9, pd=0.25).model_copy(update={"profile": "quick"}))
    store.save(make_result("charlm", "swish", minute=9, pd=0.125, synthetic=True))
    (store.folder / "charlm-relu-20250101_000000.json").write_text('{"cut')
    problems = build(site).problems
    assert [problem for problem in problems if "charlm-relu-20250101_000000.json" in problem]
    text = index_of(site).text
    assert "2 stored results are not shown" in text
    assert "charlm-relu-20250101_000000.json is not a whole JSON file" in text
    assert "0.2500" not in text
    assert "0.1250" not in text


def test_index_is_small_at_thirty_cells(tmp_path: Path, make_result: MakeResult) -> None:
    flags = [f"untrained: trial {k} has validation loss 3.377, not below the unigrams' 3.364" for k in range(1, 4)]
    for number in range(1, 31):
        Store(tmp_path / "results").save(make_result("charlm", f"smelu_{number}", flags=flags))
    write_index(tmp_path / "results", tmp_path / "reports")
    html = (tmp_path / "reports" / "index.html").read_text()
    assert len(html) < 100_000
    assert html.count("untrained ×3") == 30
    assert len([table for table in Tags(html).all("table") if "data-sortable" in table]) == 2
