"""Executed notebooks become HTML pages. The only module that imports nbconvert.

A page holds all it shows and loads nothing: style and script are inline, figures are data, formulas MathML, and a
content security policy makes the browser refuse the rest. Notebooks may hold scripts: render only those that this
program executed.
"""

from __future__ import annotations

import base64
import copy
import functools
import hashlib
import io
import json
import re
from collections.abc import Iterator, Sequence
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from PIL import Image

from repro_lib.analysis.notes import visible
from repro_lib.report.notebook_names import ANALYSES, DEEP_DIVE, TRAIN
from repro_lib.report.site import charts, page_parts
from repro_lib.report.site.page_parts import TEMPLATES, Page, frame_of, made_from, title_of
from repro_lib.system.environment import skip_url_grammars
from repro_lib.system.files import LARGEST_NOTEBOOK_BYTES, UnusableFile, read_bounded, write_atomically

if TYPE_CHECKING:
    # nbconvert and what belongs to it take seconds to import; a run that renders nothing does not wait for them.
    from bs4 import Tag
    from nbconvert import HTMLExporter
    from nbformat import NotebookNode

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


class ReportError(ValueError):
    """A notebook that cannot become an honest page; the message names notebook and cell, and says what to do."""


def render_notebook(notebook: Path, output: Path, pages: Sequence[Page] = ()) -> bool:
    """Write one executed notebook as one self-contained page, whole or not at all; False where it is there as it should be.

    ``pages`` is the navigation; the entry whose ``href`` is the output's name is marked as the current one. Raises ReportError
    for a notebook that is unreadable, and for one of our own that shows what a page cannot (``complaints``) or a formula that
    is not understood: the page of any other is made, and says what is wrong with it.
    """
    content = _read(notebook)
    # Written into the page: only pages whose notebook, template or navigation changed are made again.
    digest = hashlib.sha256(f"{_renderer_sha256()}{list(pages)}".encode() + content).hexdigest()
    if made_from(output) == digest:
        return False
    nb = _parse(notebook, content)
    # Still there, so that messages count cells as the notebook's reader does.
    for cell in (cell for cell in nb.cells if "remove_cell" in cell.metadata.get("tags", [])):
        cell.update({"source": ""} | ({"outputs": []} if "outputs" in cell else {}))
    wrong = [*_dead_outputs(notebook, nb)]
    outputs = [output.get("data", {}) for cell in nb.cells for output in cell.get("outputs", [])]
    drawn = page_parts.SCRIPT if any(charts.SECTION in data.get("text/html", "") for data in outputs) else ""
    site = frame_of(pages, output.name, digest, drawn) | {"wrong": wrong}
    # The page gets a copy to rearrange.
    page = copy.deepcopy(nb)
    site |= _headings(notebook, page)
    page_parts.rearrange(page)
    # Behind which cell the contents stand: the title, or the summary that was put behind it.
    site |= {"contents": page_parts.contents(nb), "opening": len(page.cells) - len(nb.cells)}
    site["parameters"] = page_parts.shown_parameters(nb.metadata.get("papermill", {}).get("parameters", {}))
    resources = {"report": site, "metadata": {"name": notebook.name, "path": str(notebook.parent)}}
    html, resources = _exporter().from_notebook_node(page, resources=resources)
    if wrong := [*resources["report"]["wrong"], *_complaints(notebook, nb, html, pages)]:
        if notebook.stem.partition("-")[0] in (TRAIN, DEEP_DIVE, *ANALYSES):
            raise ReportError(wrong[0])
        before, end, after = html.rpartition("</main>")
        told = "".join(f"<li>{escape(complaint)}</li>" for complaint in wrong)
        html = f'{before}<section class="wrong"><h2>What is wrong with this page</h2><ul>{told}</ul></section>{end}{after}'
    if drawn:
        charts.write_script(output.parent)
    write_atomically(output, page_parts.typeset(visible(html)))
    return True


# One exporter for all pages of a process: nbconvert's, with our template and formulas as MathML.
@functools.cache
def _exporter() -> HTMLExporter:
    from nbconvert import HTMLExporter
    from nbconvert.filters.markdown_mistune import InvalidNotebook, IPythonRenderer, MarkdownWithMath
    from traitlets.config import Config as Settings

    class Renderer(IPythonRenderer):
        # nbconvert leaves TeX for MathJax to fetch and draw; a page fetches nothing.
        pages: frozenset[str] = frozenset()
        wrong: list[str]

        def heading(self, text: str, level: int, **attrs: Any) -> str:
            # Where the table of contents leads: without its own anchor links nbconvert gives headings no id.
            if level == 2:
                attrs["id"] = page_parts.anchor(text)
            return super().heading(text, level, **attrs)

        def link(self, text: str, url: str, title: str | None = None) -> str:
            # In JupyterLab a link opens the notebook; here its page, where it has one.
            if url.endswith(".ipynb"):
                url = url.removesuffix(".ipynb") + ".html"
                if url not in self.pages:
                    return text
            return super().link(text, url, title)

        def inline_math(self, body: str) -> str:
            return _mathml(body, self.wrong, "inline")

        def block_math(self, body: str) -> str:
            return _mathml(body, self.wrong, "block")

        def latex_environment(self, name: str, body: str) -> str:
            return _mathml(f"\\begin{{{name}}}{body}\\end{{{name}}}", self.wrong, "block")

    @jinja2.pass_context
    def markdown2html(context: jinja2.runtime.Context, source: str) -> str:
        place, site = context["resources"]["metadata"], context["resources"]["report"]
        attachments = context.get("cell", {}).get("attachments", {})
        renderer = Renderer(False, attachments=attachments, embed_images=True, path=place["path"], exclude_anchor_links=True)
        renderer.pages = frozenset(page.href for _, row in site["navigation"] for page in row)
        renderer.wrong = []
        try:
            return MarkdownWithMath(renderer=renderer).render(source)
        except InvalidNotebook as error:
            renderer.wrong.append(str(error))
            return f"<pre>{escape(source)}</pre>"
        finally:
            site["wrong"] += [f"{place['name']}: {said}" for said in renderer.wrong]

    settings = Settings()
    # The two cells of parameters give way to a line at the top, which shortens paths: they would name folders of this machine.
    settings.TagRemovePreprocessor.enabled = True
    settings.TagRemovePreprocessor.remove_cell_tags = {"parameters", "injected-parameters", "remove_cell"}
    settings.TagRemovePreprocessor.remove_input_tags = {"remove_input"}
    # Progress bars write a line again and again; a page shows the last of it.
    settings.CoalesceStreamsPreprocessor.enabled = True
    settings.TemplateExporter.exclude_input_prompt = settings.TemplateExporter.exclude_output_prompt = True
    exporter = HTMLExporter(config=settings, template_name="repro_report", extra_template_basedirs=[str(TEMPLATES)])
    exporter.register_filter("markdown2html", markdown2html)
    exporter.register_filter("smallest_picture", smallest_picture)
    return exporter


def _mathml(tex: str, wrong: list[str], display: str) -> str:
    from latex2mathml.converter import convert

    try:
        mathml = convert(tex, display=display)
    except Exception as error:  # a dozen classes without a common base
        why = f"({type(error).__name__}); correct it"
    else:
        # latex2mathml passes commands that it does not know on as text, without a word.
        if not (unknown := re.search(r">(\\[A-Za-z]+)<", mathml)):
            return mathml
        why = f"({unknown[1]} is unknown); write it in simpler TeX"
    wrong.append(f"the formula {tex.strip()!r} is not understood {why}")
    return f"<code>{escape(tex)}</code>"


def smallest_picture(png: str) -> tuple[str, str]:
    """A PNG (base64) as the MIME type and base64 of the same pixels in fewer bytes: lossless WebP, or the PNG itself.

    What WebP would not hold exactly stays a PNG (16 bits per channel, colour profiles, animations, more than 16,383 pixels a
    side), and so does what is no PNG that can be decoded: a page is no place to find that out.
    """
    original = ("image/png", png.replace("\n", ""))
    webp = io.BytesIO()
    try:
        content = base64.b64decode(original[1], validate=True)
        picture = Image.open(io.BytesIO(content), formats=["PNG"])
        # Pillow reads 16 bits of colour as 8 without a word; the depth stands in byte 24 of every PNG.
        if content[24] > 8 or "icc_profile" in picture.info or getattr(picture, "is_animated", False):
            return original
        # WebP knows no palettes. "exact" keeps the colour of transparent pixels too. Our charts take three quarters of the
        # bytes; method 6 would save 2 % more in thirty times as long.
        picture.convert("RGBA").save(webp, "WEBP", lossless=True, exact=True, method=4)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return original
    smaller = base64.b64encode(webp.getvalue()).decode("ascii")
    return ("image/webp", smaller) if len(smaller) < len(original[1]) else original


def _read(notebook: Path) -> bytes:
    try:
        return read_bounded(notebook, LARGEST_NOTEBOOK_BYTES)
    except UnusableFile as error:
        raise ReportError(f"{notebook.name} {error}; delete it and run its cell again") from None
    except OSError as error:
        raise ReportError(f"{notebook.name} cannot be read ({error.strerror})") from None


def _parse(notebook: Path, content: bytes) -> NotebookNode:
    skip_url_grammars()
    import nbformat

    try:
        nb = nbformat.reads(content.decode(), as_version=4)
        nbformat.validate(nb)
        return nb
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, nbformat.ValidationError) as error:
        said = f"{notebook.name} is not a whole notebook ({str(error)[:100]!r})"
        raise ReportError(f"{said}; delete it and run its cell again") from None


# ``10_train.ipynb, cell 5 ('draw(frame)')``, counted from 1 as a reader would.
def _place(notebook: Path, nb: NotebookNode, index: int) -> str:
    return f"{notebook.name}, cell {index + 1} ({nb.cells[index].source.strip().partition(chr(10))[0][:60]!r})"


def _dead_outputs(notebook: Path, nb: NotebookNode) -> Iterator[str]:
    # Controls that would move without a kernel to answer, and outputs that HTML would silently drop.
    shown = set(_exporter().config["NbConvertBase"]["display_data_priority"])
    for index, output in ((k, output) for k, cell in enumerate(nb.cells) for output in cell.get("outputs", [])):
        data, where = output.get("data", {}), f"{_place(notebook, nb, index)} shows"
        for spec in [spec for kind, spec in data.items() if charts.MIME_TYPE.fullmatch(kind)]:
            try:
                data["text/html"] = charts.section_of(spec)
            except (ValueError, KeyError, TypeError) as error:
                yield f"{where} a chart that cannot be drawn ({str(error).splitlines()[0]})"
        if data.pop(WIDGET_VIEW, None):
            # The other half of the same output is for the report.
            if page_parts.REPORT_HALF not in data.get("text/html", ""):
                how = "through repro_lib.report.writing_desk, show a figure, or close the widget when it has done its work"
                yield f"{where} an ipywidgets control, which is dead in a report; display it {how}"
        elif data and not shown & data.keys():
            yield f"{where} {', '.join(sorted(data))}, which HTML cannot; show a figure"
        if "data" in output and not shown & data.keys():
            output.data = {"text/plain": "(cannot be shown)"}
    # The controls of `interact` leave no view where they stood, only a state for the whole notebook.
    if "widget-interact" in json.dumps(nb.metadata.get("widgets", {})):
        dead = "uses ipywidgets' interact, whose controls are dead in a report; show a figure instead"
        yield f"{notebook.name} {dead}"


def _complaints(notebook: Path, nb: NotebookNode, html: str, pages: Sequence[Page]) -> Iterator[str]:
    from bs4 import BeautifulSoup

    places = {f"cell-id={cell.get('id')}": _place(notebook, nb, k) for k, cell in enumerate(nb.cells)}

    def place(tag: Tag) -> str:
        cell = tag.find_parent(id=list(places))
        return places[str(cell["id"])] if cell else notebook.name

    known = {"index.html", *(page.href for page in pages)}
    return page_parts.complaints(BeautifulSoup(html, "html.parser"), known, place)


# The page's label (which notebook it is) and the title of its browser tab. What all pages of a kind are called becomes the
# label where the page is one of a model, whose name is the heading then.
def _headings(notebook: Path, nb: NotebookNode) -> dict[str, str]:
    name = title_of(notebook.stem)
    for cell in nb.cells:
        if cell.cell_type == "markdown" and (heading := re.search(r"^#\s+(.+)$", cell.source, re.MULTILINE)):
            words = re.sub("[*`$]", "", heading[1]).strip()
            if "-" not in notebook.stem:
                return {"label": name, "title": f"{name}: {words}"}
            cell.source = cell.source.replace(heading[0], f"# {name}", 1)
            return {"label": words, "title": name}
    return {"label": name, "title": name}


# All that turns a notebook into a page, so that an update makes every page again: these modules, the templates, nbconvert.
@functools.cache
def _renderer_sha256() -> str:
    modules = [Path(str(module.__file__)) for module in (charts, page_parts)]
    files = [Path(__file__), *modules, *sorted(path for path in TEMPLATES.rglob("*") if path.is_file())]
    libraries = f"{version('nbconvert')} {version('vl-convert-python')}".encode()
    return hashlib.sha256(b"".join([libraries, *(path.read_bytes() for path in files)])).hexdigest()
