"""Report pages and their index: nothing loaded, nothing dead, nothing hidden, nothing made twice."""

import base64
import io
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from kinds import MakeResult
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image, ImageCms

from repro_lib.data import CORPORA
from repro_lib.report.notebook_names import ANALYSES
from repro_lib.report.own_files import refuse_foreign_reports
from repro_lib.report.site import index
from repro_lib.report.site.index import SiteReport, build_site
from repro_lib.report.site.page import ReportError, render_notebook, smallest_picture
from repro_lib.report.site.page_parts import Page, anchor, contents, frame_of, loaded, readable_table, shown_parameters
from repro_lib.store.schema import CorpusRecord
from repro_lib.store.store import Store
from repro_lib.system.files import UnusableFile

WIDGET = {"application/vnd.jupyter.widget-view+json": {"model_id": "a1", "version_major": 2, "version_minor": 0}}
ATTACK = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'"
# With what a terminal would obey.
COMMAND = f"{ATTACK}\x9b5m\x07"
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
MATHS = "## Maths\n\n$p$ and $$\\frac{2|p-q|}{p+q}$$\n\n\\begin{align} a &= b \\end{align}"
CELLS = [("charlm", "relu"), ("charlm", "gelu"), ("convlm", "relu"), ("convlm", "gelu")]


def png(picture: Image.Image | None = None, **options: object) -> bytes:
    """A picture, by default a small white one, as the bytes of a PNG."""
    buffer = io.BytesIO()
    (picture or Image.new("RGB", (8, 4), "white")).save(buffer, "PNG", **options)
    return buffer.getvalue()


def figure(alt: str | None) -> NotebookNode:
    """What ``display(figure, metadata=...)`` leaves in a cell."""
    data = {"image/png": base64.b64encode(png()).decode(), "text/plain": "<Figure size 640x480 with 1 Axes>"}
    return new_output("display_data", data=data, metadata={"image/png": {"alt": alt}} if alt else {})


def html_output(html: str) -> NotebookNode:
    return new_output("display_data", data={"text/html": html, "text/plain": "text"})


def code(source: str, *outputs: NotebookNode | str, tags: tuple[str, ...] = ()) -> NotebookNode:
    """An executed cell; an output that is a text is HTML."""
    shown = [html_output(out) if isinstance(out, str) else out for out in outputs]
    return new_code_cell(source, outputs=shown, execution_count=1, metadata={"tags": list(tags)} if tags else {})


def write_notebook(path: Path, *cells: NotebookNode, title: str = "# A title", **metadata: Any) -> Path:
    """A notebook as the grid leaves it: executed, with the parameters papermill injected."""
    nb = new_notebook(cells=[new_markdown_cell(title), *cells] if title else list(cells), metadata=metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nb, path)
    return path


class Tags:
    """All tags of a page with their attributes, and its text outside of style and script."""

    def __init__(self, html: str) -> None:
        self.soup = BeautifulSoup(html, "html.parser", multi_valued_attributes=None)  # a class is one string, as it was written
        self.tags = [(tag.name, tag.attrs) for tag in self.soup.find_all(True)]
        self.text = re.sub(r"\s+", " ", self.soup.get_text())

    def all(self, name: str) -> list[dict[str, Any]]:
        return [attributes for tag, attributes in self.tags if tag == name]

    def links(self) -> list[str]:
        return [link["href"] for link in self.all("a")]


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


# One page


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page with everything a notebook of ours may hold."""
    return rendered(
        tmp_path_factory.mktemp("full"),
        code("model: str = 'charlm'  # SECRET_DEFAULT", tags=("parameters",)),
        code("model = 'SECRET_INJECTED'", tags=("injected-parameters",)),
        new_markdown_cell(MATHS),
        new_markdown_cell("[here](other.ipynb) and [there](10_train.ipynb) and [the web](https://example.org/x.ipynb)"),
        code("draw()", figure("Loss of three trials, falling from 4.3 to 2.0")),
        code("frame", "<table class='dataframe'><tr><td>1</td><td>\x1b[31mred</td></tr></table>"),
        code("formula", new_output("display_data", data={"text/latex": "$x^2$", "text/plain": "x"})),
        code("print()", new_output("stream", name="stdout", text=f"printed {COMMAND}\n")),
        code("warn()", new_output("stream", name="stderr", text="0%|\r100%|##|\nUserWarning: careful\n")),
        papermill={"parameters": {"model": "charlm", "trials": 3, "results_dir": "/private/place/results", "note": COMMAND}},
        pages=(Page("Index", "index.html"), Page("This", "page.html"), Page(ATTACK, "other.html", "Group")),
    )  # fmt: skip


def test_what_is_for_those_who_work_in_the_notebook_is_on_no_page(tmp_path: Path) -> None:
    chart = new_output("display_data", data={"application/vnd.vegalite.v5+json": {"mark": "dead"}})
    heads = [new_markdown_cell(f"## {k}") for k in range(4)]
    turn = new_markdown_cell("## Your turn", metadata={"tags": ["remove_cell"]})
    html = rendered(tmp_path, *heads, turn, code("chart", chart, tags=("remove_cell",)))
    assert '<a href="#3">3</a>' in html
    assert "our turn" not in html
    assert "charts.js" not in html
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".js"] == []


def test_page_loads_nothing_and_escapes_what_is_not_code_of_ours(full: str) -> None:
    """No tag names an address outside the page, and the browser is told to refuse whatever a script might try."""
    page = Tags(full)
    assert list(loaded(page.soup)) == []
    policy = page.soup.select("meta[http-equiv=Content-Security-Policy]")[0]["content"]
    assert ("default-src 'none'" in policy, "http" in policy) == (True, False)
    assert len(full) < 60_000, "the lab template's 240 KB of editor style are left out"
    # Printed text, parameters and navigation are text: the only scripts are the page's own, in the head and at the end.
    assert len(page.all("script")) == 2
    assert not any("onerror" in attributes for _, attributes in page.tags)
    assert page.text.count("<script>alert(1)</script>") == 3
    assert (CONTROL.findall(full), "\N{SYMBOL FOR ESCAPE}[31mred" in page.text) == ([], True)


def test_page_structure(full: str) -> None:
    """Language, one title, one main part, a way past the navigation, the current page marked in it, pictures in words."""
    page = Tags(full)
    assert [len(page.all(tag)) for tag in ("h1", "main", "header", "footer")] == [1, 1, 1, 1]
    assert page.all("html") == [{"lang": "en"}]
    looked_for = ("a.skip", "a[aria-current=page]", "a[rel=prev]", "a[rel=next]")
    led = [[link["href"] for link in page.soup.select(look)] for look in looked_for]
    assert led == [[f"#{page.all('main')[0]['id']}"], ["page.html"], ["index.html"], []]
    # A link to a notebook leads to its page, the navigation's too; what has no page is text.
    assert (page.links().count("other.html"), [link for link in page.links() if "10_train" in link]) == (2, [])
    assert "here and there and the web" in page.text
    assert [image["alt"] for image in page.all("img")] == ["Loss of three trials, falling from 4.3 to 2.0"]
    # Formulas inline, displayed, in an environment, in an output: all MathML, without a script, and no TeX is left over.
    assert [formula.get("display") for formula in page.all("math")] == ["inline", "block", "block", "inline"]
    assert not re.search(r"[$]|\\frac", page.text)


def test_page_folds_code_and_messages_and_hides_parameter_cells(full: str) -> None:
    """Parameters are a line of their own, no path is shown; what went to stderr is kept, out of the way."""
    page = Tags(full)
    assert page.all("button") == [], "a button that needs the script is made by the script"
    for parameter in ("model charlm", "trials 3", "results_dir .../results"):
        assert parameter.replace(" ", "") in page.text.replace(" ", "")
    assert not re.search("SECRET|/private", full)
    (details,) = page.soup.select("details.messages")
    # Of a progress bar no overwritten line.
    assert re.search(r"\)\s+100%\|##\|\s+UserWarning: careful", details.get_text())
    assert full.count("UserWarning") == 1


def test_summary_comes_first_and_contents_lead_into_the_rest(tmp_path: Path) -> None:
    sections = [new_markdown_cell(f"## {k}. Section *{k}*\n\ntext") for k in range(1, 5)]
    html = rendered(tmp_path, code("load()", "<p>LOADED</p>"), *sections, code("say()", "<p>THE RESULT</p>", tags=("summary",)))
    order = ["<h1>", "THE RESULT", "On this page", "LOADED", '<h2 id="1-section-1"']
    places = [html.index(text, html.index("<main")) for text in order]
    assert places == sorted(places)
    page = Tags(html)
    links = [link for link in page.links() if link.startswith("#") and link != "#main"]
    assert links == [f"#{heading['id']}" for heading in page.all("h2") if heading["id"] != "toc"]
    assert (len(links), html.count("THE RESULT")) == (4, 1)
    assert "say" in page.text, "its code stays"


def test_neighbours_are_those_of_the_row() -> None:
    row = [Page(a, f"10_train-charlm-{a}.html", "charlm with") for a in ("relu", "gelu", "swish")]
    frames = [frame_of((Page("Index", "index.html"), *row), page.href, "") for page in row]
    # By their full titles; the first and the last of a row lead nowhere else.
    relu, gelu, swish = (Page(f"charlm with {page.title}", page.href) for page in row)
    assert [(frame["before"], frame["after"]) for frame in frames] == [(None, gelu), (relu, swish), (gelu, None)]


WIDGETS = {"application/vnd.jupyter.widget-state+json": {"state": {"a": {"state": {"_dom_classes": ["widget-interact"]}}}}}
PLOTLY = new_output("display_data", data={"application/vnd.plotly.v1+json": {"data": []}})
NO_WORDS = "No description has been provided for this image"  # what nbconvert puts in the place of a missing text


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        (code("draw()", figure(None)), "alternative text"),
        *((code("draw()", f'<img alt="{alt}" src="data:,">'), "alternative text") for alt in (" ", NO_WORDS)),
        (new_markdown_cell("draw() ![](data:image/png;base64,AA==)"), "alternative text"),
        *(
            (code("draw()", html), "would load")
            for html in [
                '<script src="https://cdn.example/x.js"></script>',
                '<link rel="stylesheet" href="//cdn.example/x.css">',
                '<img alt="a" src="picture.png">',
                '<iframe src="https://example.org"></iframe>',
                '<p style="background: url(x.png)">text</p>',
                "<style>@import 'https://example.org/x.css';</style>",
                '<svg><image href="https://example.org/x.png"></image></svg>',
            ]
        ),
        # Of what HTML cannot show nbconvert only warns.
        (code("draw()", PLOTLY), "shows application/vnd.plotly.v1+json, which HTML cannot"),
        *(
            (new_markdown_cell(f"draw() [this]({target})"), f"links to '{target}', which is not there")
            for target in ["missing.html", "#nowhere", "../elsewhere.html", "plots/x.png", "30_cross_model.html#x#y"]
        ),
    ],
)
def test_what_no_reader_could_see_or_follow_is_refused(tmp_path: Path, cell: NotebookNode, said: str) -> None:
    """The message names the cell as its reader counts it, hidden cells included."""
    message = refusal(tmp_path, code("x = 1", tags=("parameters",)), cell)
    assert "cell 3 ('draw()" in message
    assert said in message


@pytest.mark.parametrize(
    ("title", "text", "said"),
    [
        *(("# One", f"${formula}$", f"the formula {formula!r}") for formula in ("x^", r"\begin{align} a", r"\unheard{x}")),
        *((title, more, "exactly one '# title'") for title, more in [("", "text"), ("# One", "# Two"), ("## Lower", "text")]),
    ],
)
def test_formulas_not_understood_and_other_than_one_title_are_refused(tmp_path: Path, title: str, text: str, said: str) -> None:
    assert said in refusal(tmp_path, new_markdown_cell(text), title=title)


def test_the_page_of_a_guest_is_made_and_names_what_is_wrong_in_it(tmp_path: Path) -> None:
    """The house's rules are for its own notebooks; what somebody else wrote is shown as far as a page can."""
    cells = [
        code("draw()", figure(None)),
        code("plot()", PLOTLY, '<b id="seen">seen</b>'),
        code("move()", new_output("display_data", WIDGET)),
    ]
    cells += [new_markdown_cell(rf"# Another title ${formula}$ and more") for formula in ("x^", r"\unheard{<b>}")]
    cells += [new_markdown_cell("![](attachment:gone.png)"), code("frame", '<iframe src="https://example.org"></iframe>')]
    notebook = write_notebook(tmp_path / "60_own.ipynb", *cells, widgets=WIDGETS)
    assert render_notebook(notebook, tmp_path / "page.html")
    page = Tags((tmp_path / "page.html").read_text())
    said = [item.get_text() for item in page.soup.select("main section.wrong li")]
    parts = [
        "cell 2 ('draw()') shows an image without",
        "plotly",
        "an ipywidgets control",
        "interact",
        "'x^' is not",
        "unheard",
    ]
    parts += ["missing attachment: gone.png", "would load 'https://example.org'", "exactly one '# title', has ['A title', "]
    assert [part for part in parts if not any(part in sentence for sentence in said)] == []
    assert len(said) == len(parts)
    assert "Another title x^ and more" in page.text
    assert page.soup.select("#seen")


def test_picture_beside_the_notebook_is_embedded_and_the_state_of_widgets_is_not(tmp_path: Path) -> None:
    """A progress bar that closed itself leaves no view, and its state does not travel; the controls of interact are refused."""
    assert "interact" in refusal(tmp_path, widgets=WIDGETS)
    (tmp_path / "picture.png").write_bytes(png())
    state = {"application/vnd.jupyter.widget-state+json": {"state": {"a": {"model_name": "IntProgressModel"}}}}
    html = rendered(tmp_path, new_markdown_cell("![A white picture](picture.png)"), widgets=state)
    assert "IntProgressModel" not in html
    assert Tags(html).all("img")[0]["src"] == "data:image/png;base64," + base64.b64encode(png()).decode()
    assert "<dl" not in html, "without parameters there is no line of parameters"


def noise(mode: str) -> Image.Image:
    """A picture with few colours, many of them half transparent."""
    return Image.fromarray(np.random.default_rng(1).integers(0, 4, (64, 64, 4), dtype=np.uint8) * 85, "RGBA").convert(mode)


CHART = (Path(__file__).parents[2] / "published" / "figures" / "against_relu.png").read_bytes()
AS_WEBP = {"chart": CHART, "RGBA": png(noise("RGBA")), "LA": png(noise("LA")), "P": png(noise("P"), transparency=0)}
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
AS_PNG = {
    "16 bits": png(Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64) * 16)),
    "too wide": png(Image.new("L", (16_384, 2))),
    "profile": png(Image.new("RGB", (64, 64)), icc_profile=PROFILE),
    "animated": png(Image.new("RGB", (64, 64)), save_all=True, append_images=[Image.new("RGB", (64, 64), "white")]),
    "larger": png(Image.fromarray(np.multiply.outer(np.arange(256), np.arange(256)).astype(np.uint8)), optimize=True),
    "cut": CHART[:5000],
    "empty": b"",
    "text": b"not a picture",
}


@pytest.mark.parametrize("name", [*AS_WEBP, *AS_PNG])
def test_a_picture_has_the_same_pixels_in_fewer_bytes_or_stays_as_it_is(name: str) -> None:
    before = base64.encodebytes((AS_WEBP | AS_PNG)[name]).decode()  # with line ends, as notebooks have them
    mimetype, data = smallest_picture(before)
    if name in AS_PNG:
        assert (mimetype, data) == ("image/png", before.replace("\n", ""))
    else:
        assert mimetype == "image/webp"
        assert len(data) < len(before)
        pixels = [np.asarray(Image.open(io.BytesIO(base64.b64decode(of))).convert("RGBA")) for of in (before, data)]
        assert (pixels[0] == pixels[1]).all()


def test_what_is_no_whole_notebook_no_file_or_too_large_is_refused(tmp_path: Path) -> None:
    """Nothing is waited for: a pipe that nobody writes to would hold up all other pages."""
    path = tmp_path / "10_train-charlm-gelu.ipynb"

    def refused(said: str) -> None:
        with pytest.raises(ReportError, match=rf"10_train-charlm-gelu\.ipynb {said}"):
            render_notebook(path, tmp_path / "page.html")

    for content in (b'{"cells": [', b"\xff", b"[]", b"{}", b'{"nbformat": 4, "cells": 3, "metadata": {}}', b"[" * 100_000):
        path.write_bytes(content)
        refused("is not a whole notebook")
    os.truncate(path, 2**40)  # sparse: takes no room
    refused("is larger than 256 MiB")
    path.unlink()
    os.mkfifo(path)
    refused("is no regular file")
    assert not (tmp_path / "page.html").exists()


def table_of(frame: pd.DataFrame) -> BeautifulSoup:
    """A data frame as a page shows it."""
    return BeautifulSoup(readable_table(frame._repr_html_()), "html.parser")  # pyright: ignore[reportCallIssue]


def cells_of(frame: pd.DataFrame) -> list[list[tuple[str, str, str]]]:
    """Each cell of the table as tag, scope and text."""
    rows = [row.find_all(["th", "td"]) for row in table_of(frame).find_all("tr")]
    return [[(cell.name, str(cell.get("scope", "")), cell.get_text(strip=True)) for cell in row] for row in rows]


def test_names_of_the_index_stand_in_the_row_of_heads() -> None:
    index = pd.MultiIndex.from_tuples([("charlm", "relu"), ("charlm", "gelu")], names=["Model", "Activation"])
    heads, first, second = cells_of(pd.DataFrame({"N": [3, 3]}, index=index))
    assert heads == [("th", "col", "Model"), ("th", "col", "Activation"), ("th", "col", "N")]
    assert first == [("th", "rowgroup", "charlm"), ("th", "row", "relu"), ("td", "", "3")]
    assert second == [("th", "row", "gelu"), ("td", "", "3")]
    # A corner without words is no head, and two rows of real heads stay two.
    plain = pd.DataFrame({"N": [3]}, index=["relu"])
    assert cells_of(plain)[0] == [("td", "", ""), ("th", "col", "N")]
    assert cells_of(plain.rename_axis(columns="Trial"))[0][0] == ("th", "col", "Trial")
    frame = pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", "b"), ("a", "c")]))
    assert [[text for _, _, text in row if text] for row in cells_of(frame)[:2]] == [["a"], ["b", "c"]]


def test_columns_of_words_are_told_from_columns_of_numbers() -> None:
    columns = {"value": ["0.5 (0.4 to 0.6)", "–"], "sign": ["-3", "+4 %"], "n": ["3 (synthetic)", "3"], "of": ["5 of 5", ""]}
    columns |= {"said": ["yes", "no"], "why": ["x" * 40, "1"], "size": ["2 layers", "4 layers"]}
    table = table_of(pd.DataFrame(columns))
    looks = {head.get_text(strip=True): head.get("class") for head in table.select("thead th")}
    words = {"said": ["words"], "why": ["words"], "size": ["words"]}
    assert looks == dict.fromkeys(("value", "sign", "n", "of")) | words
    assert not table.select("style, table[border]")


def test_contents_name_every_section() -> None:
    headings = {"1. What *it* is": "1-what-it-is", "2. `code` and $x$": "2-code-and-x", "3. Third?": "3-third", "4": "4"}
    cells = [new_markdown_cell(f"## {text}\n\n### deeper\n\ntext") for text in headings]
    named = contents(new_notebook(cells=cells))
    assert named == list(zip(headings.values(), ["1. What it is", "2. code and x", "3. Third?", "4"], strict=True))
    assert contents(new_notebook(cells=cells[:3])) == [], "three sections are seen at a glance"
    # A heading of a page is HTML, one of a notebook markdown.
    assert anchor("3. Is it a *difference*?") == anchor("3. Is it a <em>difference</em>?") == "3-is-it-a-difference"


def test_parameters_are_short_and_say_nothing_about_the_machine() -> None:
    digests = f"{'ab' * 32} {'cd' * 32}"
    parameters = {"results_dir": "/private/place/results/", "configs": digests, "names": ["a", "b"], "trials": 3}
    shown = {"results_dir": ".../results", "configs": f"{'ab' * 6} {'cd' * 6}", "names": "a, b", "trials": "3"}
    parameters |= {"profile": None, "empty": "", "none": [], "long": "x" * 200}
    assert shown_parameters(parameters) == shown | {"long": "x" * 97 + "..."}


# The site


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, make_result: MakeResult) -> Path:
    """A run with all of CELLS done, their notebooks executed, and the site that was made of them."""
    folder = tmp_path_factory.mktemp("built")
    for model, activation in CELLS:
        Store(folder / "results").save(make_result(model, activation))
        execute(folder, f"10_train-{model}-{activation}")
    assert len(build(folder).rendered) == 4
    return folder


@pytest.fixture
def site(tmp_path: Path, built: Path) -> Path:
    """A copy of it, to change."""
    return shutil.copytree(built, tmp_path, dirs_exist_ok=True)


def execute(folder: Path, stem: str, text: str = "text") -> Path:
    return write_notebook(folder / "results" / "notebooks" / f"{stem}.ipynb", new_markdown_cell(text))


def build(folder: Path, cells: list[tuple[str, str]] = CELLS, **options: Any) -> SiteReport:
    return build_site(folder / "results", folder / "reports", cells, **options)


def index_of(folder: Path) -> Tags:
    return Tags((folder / "reports" / "index.html").read_text())


def test_only_what_changed_is_made_again(site: Path) -> None:
    """Content decides, not the time stamp or the order of cells."""
    page = site / "reports" / "10_train-charlm-relu.html"
    before = page.stat().st_ino
    page.parent.joinpath("10_train-charlm-gelu.html").touch()
    assert build(site, CELLS[::-1]).rendered == ()
    assert page.stat().st_ino == before
    execute(site, "10_train-charlm-relu", "other text")
    assert build(site).rendered == ("10_train-charlm-relu",)
    assert "other text" in page.read_text()


def test_every_link_leads_somewhere_also_while_pages_are_missing(site: Path) -> None:
    """A stand-in says so, the index does not take it for a report, and one more finished page costs one page."""
    late, page = "10_train-convlm-gelu.html", site / "reports" / "10_train-convlm-gelu.html"
    (site / "results" / "notebooks" / "10_train-convlm-gelu.ipynb").unlink()
    page.unlink()
    assert build(site, running=True).rendered == ()
    there = {path.name: Tags(path.read_text()) for path in (site / "reports").glob("*.html")}
    for name, href in ((name, href) for name, tags in there.items() for href in tags.links()):
        target, _, place = href.partition("#")
        assert there[target or name].soup.find(id=place or True), f"{name} links to {href}"
    assert "not there yet" in page.read_text()
    assert late not in index_of(site).links()
    execute(site, "10_train-convlm-gelu")
    execute(site, "20_deep_dive-charlm")
    assert build(site).rendered == ("10_train-convlm-gelu", "20_deep_dive-charlm")
    assert late in index_of(site).links()
    for one, other in [("10_train-charlm-gelu", "20_deep_dive-charlm"), ("20_deep_dive-charlm", "10_train-charlm-gelu")]:
        assert f"{other}.html" in Tags((site / "reports" / f"{one}.html").read_text()).links()


def test_unfinished_and_foreign_notebooks_are_not_rendered(site: Path) -> None:
    """Nothing is written outside the reports folder, and nothing under a name that is not ours."""
    expected = {f"10_train-{model}-{activation}" for model, activation in CELLS}
    foreign = ["10_train-charlm-swish.failed", "10_train-convlm-swish.partial", "notes", "index", "10_train-<b>-relu", "..-..-"]
    for stem in foreign:
        execute(site, stem)
    shutil.rmtree(site / "reports")
    before = set(site.rglob("*"))
    assert set(build(site).rendered) == expected
    written = {path.name for path in set(site.rglob("*")) - before}
    pages = expected | {"index", "20_deep_dive-charlm", "20_deep_dive-convlm", *ANALYSES}
    assert written == {"reports", "search.js"} | {f"{stem}.html" for stem in pages}


OURS = Path(__file__).parents[2] / "published" / "reports"
FOREIGN = ["20_deep_dive-charlm.html", "claims.json", "FINAL_CONCLUSIONS.md", "SYNTHETIC_DATA_SUMMARY.md", "plots/inputs.json"]
FOREIGN += ["plots/charlm_accuracy.png", "plots/charlm_accuracy.txt", "plots/multi_model_accuracy.png", "50_what_if.html"]
FOREIGN += ["charts.js", "search.js"]


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_of_somebody_else_is_not_replaced(name: str, tmp_path: Path) -> None:
    """What an earlier version wrote is ours, whatever lies beside it."""
    refuse_foreign_reports(OURS, CELLS)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(png() if name.endswith("png") else b"{}")
    with pytest.raises(UnusableFile, match=rf"{name} was not made by this program; choose another --reports-dir"):
        refuse_foreign_reports(tmp_path, CELLS)
    if (OURS / name).exists():
        shutil.copy(OURS / name, tmp_path / name)
    if name.endswith("txt"):
        shutil.copy(OURS / name.replace("txt", "png"), tmp_path / name.replace("txt", "png"))
    if (OURS / name).exists():
        refuse_foreign_reports(tmp_path, CELLS)


def test_the_page_of_a_guest_does_not_replace_another(site: Path) -> None:
    execute(site, "60_own")
    (site / "reports" / "60_own.html").write_text("<h1>Mine</h1>")
    with pytest.raises(UnusableFile, match=r"60_own\.html was not made by this program"):
        build(site)


# The index


def rows_of(folder: Path, table: str = "cells") -> dict[str, str]:
    """The text of each row of a table of the index, by model, or by model and activation."""
    rows = [row.find_all(["th", "td"]) for row in index_of(folder).soup.select(f"table.{table} tbody tr")]
    keys = 2 if table == "cells" else 1
    return {" ".join(next(c.strings) for c in row[:keys]): " ".join(c.get_text() for c in row) for row in rows}


def test_index_says_what_was_run_and_no_number_where_there_is_none(tmp_path: Path, make_result: MakeResult) -> None:
    build(tmp_path, [])
    assert "No results yet" in index_of(tmp_path).text
    assert "In short" not in index_of(tmp_path).text
    corpus = CORPORA["shakespeare"]
    about: dict[str, Any] = {"corpus": CorpusRecord(name="shakespeare", sha256=corpus["sha256"])}
    about["environment"] = {"python": "3.11.7", "torch": "2.13.0", "cpu": "Some CPU", "git_commit": "0123456789abcdef"}
    Store(tmp_path / "results").save(make_result(corpus=corpus["sha256"], trials=1).model_copy(update=about))
    build(tmp_path, [("charlm", "relu")])
    facts = ["smoke: tests: every cell", "Some CPU, Python 3.11.7, torch 2.13.0", "0123456789ab", "2025-01-01"]
    facts += [
        corpus["sha256"][:12],
        corpus["licence"],
        "No comparison yet: charlm with relu was run",
        "1 of 1 cell: profile smoke",
    ]
    assert [fact for fact in facts if fact not in index_of(tmp_path).text] == []
    assert "no pair" in rows_of(tmp_path)["charlm relu"]
    assert "0.0000" not in index_of(tmp_path).text


def test_missing_and_failed_cells_are_named(site: Path) -> None:
    """No number is drawn where there is none."""
    store = Store(site / "results")
    next(store.folder.glob("charlm-relu-*")).unlink()
    next(store.folder.glob("convlm-relu-*")).unlink()
    store.record_failure("convlm", "relu", "ab", f"loss is nan (see {store.folder}/notebooks/x)")
    executed = store.folder / "notebooks" / "10_train-convlm-relu.ipynb"
    executed.rename(executed.with_suffix(".failed.ipynb"))
    build(site)
    rows, text = rows_of(site), index_of(site).text
    assert re.match(r"charlm relu missing\s*$", rows["charlm relu"])
    assert re.match(r"convlm relu failed loss is nan \(see results/notebooks/x\)", rows["convlm relu"])
    assert "0.5000" in rows["charlm gelu"]
    assert [hole.get_text() for hole in index_of(site).soup.select("table.matrix .hole")] == ["missing", "failed"]
    said = ["2 of 4 cells done · 1 failed · 1 missing", "No result yet: charlm with relu"]
    said += ["results/notebooks/10_train-convlm-relu.failed.ipynb"]
    assert [part for part in said if part not in text] == []
    assert not re.search(rf"0\.0000|{site}", text)
    # A later success settles a failure, and only a later one.
    note = store.record_failure("charlm", "gelu", "ab", "too hot")
    build(site)
    assert "too hot" in index_of(site).text
    note.write_text(json.dumps(json.loads(note.read_text()) | {"timestamp": "2024-01-01T00:00:00+00:00"}))
    build(site)
    assert "too hot" not in index_of(site).text


def test_the_index_of_a_checkout_leads_to_the_published_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "project_root", lambda: tmp_path)
    published = tmp_path / "published" / "reports"
    published.mkdir(parents=True)
    for there in (True, False):
        for folder in (tmp_path / "reports", tmp_path / "elsewhere" / "reports", published):
            page = published / "index.html"
            page.write_text("source-sha256") if there else page.unlink(missing_ok=True)
            build_site(tmp_path / "results", folder)
            led = there and folder == tmp_path / "reports"
            assert ("../published/reports/index.html" in (folder / "index.html").read_text()) is led, folder


def test_index_while_running(site: Path) -> None:
    """It follows the grid, and says which cells are at work; a finished index stands still."""
    for path in (site / "results").glob("charlm-*.json"):
        path.unlink()
    execute(site, "10_train-charlm-relu.partial")
    build(site, running=True)
    assert "2 of 4 cells done · 1 running · 1 waiting" in index_of(site).text
    assert index_of(site).soup.select("meta[http-equiv=refresh]")
    build(site)
    assert not index_of(site).soup.select("meta[http-equiv=refresh]")


def test_index_escapes_results(site: Path, make_result: MakeResult) -> None:
    """A result, a note of a failure and a file name are text from elsewhere."""
    store = Store(site / "results")
    hostile: dict[str, Any] = {"flags": [COMMAND], "environment": {"cpu": COMMAND, "git_commit": ATTACK}}
    hostile["corpus"] = CorpusRecord(name=COMMAND, sha256="c" * 64)
    store.save(make_result("charlm", "relu", minute=5).model_copy(update=hostile))
    note = {"model_name": f"../../{ATTACK}", "activation": "javascript:alert(1)", "reason": COMMAND, "config_sha256": ATTACK}
    (store.folder / "failed").mkdir()
    (store.folder / "failed" / "x.json").write_text(json.dumps(note))
    (store.folder / "<script>alert(1)<%2fscript>.json").write_text("{}")
    build(site)
    page = index_of(site)
    assert len(page.all("script")) == 2
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert page.text.count("<script>alert(1)") >= 5
    assert CONTROL.findall(page.text) == []
    own = r"(#\w+|index\.html|\d\d_[a-z_]+(-[a-z0-9_]+){0,2}\.html)"
    assert [link for link in page.links() if not re.fullmatch(own, link)] == []
    assert list(loaded(page.soup)) == []


def test_index_says_first_what_came_out_then_intervals_and_exact_values(site: Path, make_result: MakeResult) -> None:
    """The table shows the interval, and sorts by the full value rather than by what is printed."""
    flags = [f"untrained: trial {k}" for k in (1, 2, 3)]
    for activation in ("relu", "gelu"):
        Store(site / "results").save(make_result("charlm", activation, minute=5, trials=3, flags=flags))
    build(site)
    text = index_of(site).text
    assert text.count("untrained ×3") == 2
    answer = "No: charlm and convlm predict the same bits with every activation"
    places = [text.index(words) for words in (answer, "Difference from relu", "4 of 4 cells: profile smoke")]
    assert places == sorted(places)
    assert "cells done" not in text, "what is finished needs no progress"
    assert "0.5000 to 0.5000" in rows_of(site)["charlm relu"]
    assert "none" in rows_of(site)["convlm gelu"]
    cells = [cell for cell in index_of(site).all("td") if "data-value" in cell]
    assert {"0.5", "3.0625", "20.5", "2", "3"} <= {cell["data-value"] for cell in cells}


def test_figures_are_shown_with_their_words_or_named(site: Path) -> None:
    """In the order of the models, those over all models first; figures of models that are not shown are passed over."""
    plots = site / "reports" / "plots"
    plots.mkdir(parents=True)
    words = {"convlm_accuracy": "Accuracy", "charlm_accuracy": "Accuracy of charlm", "tinylstm_accuracy": "Accuracy"}
    words |= {"tinylstm_readout_accuracy": "Accuracy", "multi_model_accuracy": f"Accuracy {ATTACK}", "blank": "\n"}
    for name in (*words, "unexplained", "minigpt_accuracy"):
        (plots / f"{name}.png").write_bytes(png())
        if name in words:
            (plots / f"{name}.txt").write_text(words[name])
    report = build(site)
    shown = [(image["src"].removeprefix("plots/").removesuffix(".png"), image["alt"]) for image in index_of(site).all("img")]
    assert shown == [(name, words[name]) for name in ("multi_model_accuracy", "charlm_accuracy", "convlm_accuracy")]
    assert [problem.split()[2] for problem in report.problems] == ["plots/unexplained.png", "plots/blank.png"]


def test_a_cell_that_was_trained_without_a_notebook_has_no_link(tmp_path: Path, make_result: MakeResult) -> None:
    """The reference of a grid over remedies, for one: its deep dive leads to no page that will never be there."""
    Store(tmp_path / "results").save(make_result("charlm", "relu"))
    execute(tmp_path, "10_train-charlm-gelu")
    build(tmp_path, [("charlm", "relu"), ("charlm", "gelu"), ("charlm", "swish")])
    links = [
        link["href"] for link in Tags((tmp_path / "reports" / "20_deep_dive-charlm.html").read_text()).soup.select("nav a")
    ]
    assert [href for href in links if "10_train" in href] == ["10_train-charlm-gelu.html", "10_train-charlm-swish.html"]
    assert "20_deep_dive-charlm.html" in links
    assert not (tmp_path / "reports" / "10_train-charlm-relu.html").exists()


def test_negative_control_is_said_to_be_one(tmp_path: Path, make_result: MakeResult) -> None:
    """Equal bits in every column, and only those; equal numbers alone are no proof."""
    store = Store(tmp_path / "results")
    for activation, digest in [("relu", "1"), ("gelu", "2")]:
        store.save(make_result("tinylstm", activation))
        result = make_result("charlm", activation)
        trials = [trial.model_copy(update={"predictions_sha256": digest * 64}) for trial in result.trials]
        store.save(result.model_copy(update={"trials": trials}))
    build_site(tmp_path / "results", tmp_path / "reports")
    rows = rows_of(tmp_path, "matrix")
    assert {model: "same bits" in row for model, row in rows.items()} == {"tinylstm": True, "charlm": False}


def test_other_runs_and_bad_files_are_named_and_not_mixed_and_stop_no_other(site: Path, make_result: MakeResult) -> None:
    """A notebook that is cut off leaves no page that would pass for its own."""
    store = Store(site / "results")
    (store.folder / "notebooks" / "10_train-charlm-gelu.ipynb").write_text('{"cells": [')
    execute(site, "10_train-convlm-gelu", "other text")
    store.save(make_result("charlm", "swish", minute=-9, pd=0.3125).model_copy(update={"profile": "quick"}))
    store.save(make_result("charlm", "swish", minute=9, pd=0.1875, synthetic=True))
    (store.folder / "charlm-relu-20250101_000000.json").write_text('{"cut')
    report, page = build(site), index_of(site)
    assert report.rendered == ("10_train-convlm-gelu",)
    bad = [f"{name} is not a whole" for name in ("10_train-charlm-gelu.ipynb", "charlm-relu-20250101_000000.json")]
    assert [[words in problem for problem in report.problems] for words in bad] == [[True, False], [False, True]]
    assert [
        words for words in (*bad, "1 result of profile quick, corpus words.txt; 1 synthetic result.") if words not in page.text
    ] == []
    assert "10_train-charlm-gelu.html" not in page.links()
    assert not re.search("0.3125|0.1875", page.text)
