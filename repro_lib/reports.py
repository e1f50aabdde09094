"""Executed notebooks become HTML pages, result files become the index over them. The only module that imports nbconvert.

A page holds all it shows and loads nothing: style and script are inline, figures are data, formulas MathML, and a
content security policy makes the browser refuse the rest. What a page was made from is written into it, so that only
pages whose notebook, template or navigation changed are made again. Notebooks may hold scripts: render only those that
this program executed. The index (templates/site) takes all it reads for untrusted text.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

from repro_lib.config import ACTIVATIONS, MODEL_DEFAULTS, PROFILES
from repro_lib.data import known_corpora
from repro_lib.files import write_atomically
from repro_lib.results import Result, Store, select_comparable

if TYPE_CHECKING:
    # nbconvert and what belongs to it take seconds to import; a run that renders nothing does not wait for them.
    from bs4 import BeautifulSoup, Tag
    from nbconvert import HTMLExporter
    from nbformat import NotebookNode

PROJECT = "Activations and reproducibility"
QUESTION = "Does the choice of activation function change how reproducible a small language model's predictions are?"
TEMPLATES = Path(__file__).parent / "templates"
# The analysis notebooks that a run executes beside training and deep dives; the navigation of every page names them.
ANALYSES = ("30_cross_model", "00_quickstart", "01_activations")
# Executed notebooks as the grid names them. Nothing else is rendered, so that no name leads out of the reports folder.
NOTEBOOK_NAME = re.compile(r"(?P<kind>\d\d_[a-z_]+)(-(?P<model>[a-z0-9_]+)(-(?P<activation>[a-z0-9_.]+))?)?")
# nbconvert's last step sorts a tag's attributes, so that only the digest itself is looked for.
SOURCE_META = re.compile(rb'<meta [^>]*content="([0-9a-f]{64})"')
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
NO_ALT = "No description has been provided for this image"
# Attributes by which any tag makes the browser fetch something when the page opens.
LOADING = ("src", "srcset", "data", "poster", "background", "xlink:href")

Cell = tuple[str, str]
Interval = tuple[float, float]


class ReportError(ValueError):
    """A notebook that cannot become an honest page; the message names notebook and cell, and says what to do."""


@dataclass(frozen=True)
class Page:
    """A link of the navigation. Neighbours of one ``group`` share a row under that name."""

    title: str
    href: str
    group: str = ""


@dataclass(frozen=True)
class SiteReport:
    """What ``build_site`` did: stems of pages made and of pages up to date, and a sentence for all that is wrong."""

    index: Path
    rendered: tuple[str, ...]
    unchanged: tuple[str, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """A cell in the index: its result, or its state (running, waiting, failed, missing) and what is known of it."""

    model: str
    activation: str
    result: Result | None
    state: str
    reason: str
    report: str | None
    interval: Interval | None

    @property
    def flag_kinds(self) -> dict[str, int]:
        """How often each kind of flag (the word before the colon) was raised."""
        return dict(Counter(flag.split(":")[0] for flag in self.result.flags)) if self.result else {}


def render_notebook(notebook: Path, output: Path, pages: Sequence[Page] = ()) -> None:
    """Write one executed notebook as one self-contained page, whole or not at all.

    ``pages`` is the navigation; the entry whose ``href`` is the output's name is marked as the current one. Raises
    ReportError for an unreadable notebook, a dead control, an image without alternative text or that HTML cannot
    show, anything loaded from elsewhere, a formula that is not understood, or other than one ``# title``.
    """
    content = _read(notebook)
    nb = _parse(notebook, content)
    _refuse_dead_outputs(notebook, nb)
    site = _site(pages, output.name, _source_sha256(content, pages)) | _headings(notebook, nb)
    resources = {"report": site, "metadata": {"name": notebook.name, "path": str(notebook.parent)}}
    html, _ = _exporter().from_notebook_node(nb, resources=resources)
    _check_page(notebook, nb, html)
    write_atomically(output, html)


def build_site(
    results_dir: Path,
    reports_dir: Path,
    expected_cells: Sequence[Cell] = (),
    *,
    running: bool = False,
    analyses: Sequence[str] = ANALYSES,
    intervals: Mapping[Cell, Interval] | None = None,
    profile: str | None = None,
) -> SiteReport:
    """Render each executed notebook whose page is missing or was made from something else, then the index.

    The navigation names what is expected, not what is there, so that one more finished cell costs one page; a page
    that is not there yet has a stand-in that says so. A notebook that cannot be rendered is named in ``problems``, and
    an older page of it is removed. ``analyses``: stems of the analysis notebooks this run executes. ``profile``:
    whose results the index shows (see ``results.select_comparable``).
    """
    notebooks = sorted(_notebooks(results_dir))
    cells = _in_order([*expected_cells, *_cells_of(notebooks)])
    rendered, unchanged, problems = [], [], []
    for stem in notebooks:
        notebook, output = results_dir / "notebooks" / f"{stem}.ipynb", reports_dir / f"{stem}.html"
        pages = _navigation(stem, cells, analyses)
        try:
            if _made_from(output) == _source_sha256(_read(notebook), pages):
                unchanged.append(stem)
                continue
            render_notebook(notebook, output, pages)
            rendered.append(stem)
        except ReportError as error:
            output.unlink(missing_ok=True)
            problems.append(str(error))
    _write_stand_ins(reports_dir, cells, analyses)
    left_out = write_index(
        results_dir,
        reports_dir,
        expected_cells,
        running=running,
        analyses=analyses,
        intervals=intervals,
        problems=problems,
        profile=profile,
    )
    return SiteReport(reports_dir / "index.html", tuple(rendered), tuple(unchanged), (*problems, *left_out))


def write_index(
    results_dir: Path,
    reports_dir: Path,
    expected_cells: Sequence[Cell] = (),
    *,
    running: bool = False,
    analyses: Sequence[str] = ANALYSES,
    intervals: Mapping[Cell, Interval] | None = None,
    problems: Sequence[str] = (),
    profile: str | None = None,
) -> list[str]:
    """Write ``index.html`` from the result store: what was run, how far it is, every cell, what is missing and why.

    ``intervals``: low and high of a cell's relative PD. Figures are ``plots/NAME.png`` with their alternative text in
    ``plots/NAME.txt``. ``problems`` are sentences to show. Returns a sentence for each file it had to leave out.
    """
    loaded, refused = Store(results_dir).load()
    stored = [result for _, result in loaded]
    results = {(result.model_name, result.activation): result for result in select_comparable(stored, profile=profile)}
    cells = _in_order([*expected_cells, *results])
    stems = dict.fromkeys([*_expected_stems(cells, analyses), *sorted(_notebooks(results_dir))])
    pages = {stem for stem in stems if _made_from(reports_dir / f"{stem}.html")}
    failures = _failures(results_dir, results)
    in_flight = _notebooks(results_dir, ".partial") if running else None
    figures, unexplained = _figures(reports_dir / "plots", set(dict(cells)))
    digests = {result.corpus.sha256 for result in results.values()}
    html = _environment().get_template("index.html.j2").render(
        site=_site(_navigation("index", cells, analyses), "index.html", "none"), question=QUESTION, running=running,
        written=datetime.now(UTC), folder=results_dir, results=list(results.values()), profiles=PROFILES,
        rows=[_row(cell, results.get(cell), pages, failures, in_flight, (intervals or {}).get(cell)) for cell in cells],
        cards=[stem for stem in stems if not stem.startswith("10_train-")], pages=pages, figures=figures,
        failures=failures, failed_notebooks=_notebooks(results_dir, ".failed"),
        corpora=[entry for entry in known_corpora().values() if entry["sha256"] in digests],
        notes=[*_not_comparable(stored, results), *refused, *problems, *unexplained],
    )  # fmt: skip
    write_atomically(reports_dir / "index.html", html)
    return [*refused, *unexplained]


# One notebook


@functools.cache
def _exporter() -> HTMLExporter:
    """nbconvert's exporter with our template and formulas as MathML; one for all pages of a process."""
    from nbconvert import HTMLExporter
    from nbconvert.filters.markdown_mistune import InvalidNotebook, IPythonRenderer, MarkdownWithMath
    from traitlets.config import Config as Settings

    class Renderer(IPythonRenderer):
        """nbconvert's markdown, with MathML where it would leave TeX for MathJax to fetch and draw."""

        def inline_math(self, body: str) -> str:
            return _mathml(body, "inline")

        def block_math(self, body: str) -> str:
            return _mathml(body, "block")

        def latex_environment(self, name: str, body: str) -> str:
            return _mathml(f"\\begin{{{name}}}{body}\\end{{{name}}}", "block")

    @jinja2.pass_context
    def markdown2html(context: jinja2.runtime.Context, source: str) -> str:
        place = context["resources"]["metadata"]
        attachments = context.get("cell", {}).get("attachments", {})
        renderer = Renderer(False, attachments=attachments, embed_images=True, path=place["path"], exclude_anchor_links=True)
        try:
            return MarkdownWithMath(renderer=renderer).render(source)
        except (ReportError, InvalidNotebook) as error:
            raise ReportError(f"{place['name']}: {error}") from error

    settings = Settings()
    settings.TagRemovePreprocessor.enabled = True
    settings.TagRemovePreprocessor.remove_cell_tags = {"parameters", "injected-parameters", "remove_cell"}
    settings.TagRemovePreprocessor.remove_input_tags = {"remove_input"}
    settings.CoalesceStreamsPreprocessor.enabled = True
    settings.TemplateExporter.exclude_input_prompt = settings.TemplateExporter.exclude_output_prompt = True
    exporter = HTMLExporter(config=settings, template_name="repro_report", extra_template_basedirs=[str(TEMPLATES)])
    exporter.register_filter("markdown2html", markdown2html)
    return exporter


def _mathml(tex: str, display: str) -> str:
    from latex2mathml.converter import convert

    try:
        mathml = convert(tex, display=display)
    except Exception as error:  # a dozen classes without a common base; each becomes an error of ours
        raise ReportError(f"the formula {tex.strip()!r} is not understood ({type(error).__name__}); correct it") from error
    if unknown := re.search(r">(\\[A-Za-z]+)<", mathml):
        raise ReportError(f"the formula {tex.strip()!r} is not understood ({unknown[1]} is unknown); write it in simpler TeX")
    return mathml


def _read(notebook: Path) -> bytes:
    try:
        return notebook.read_bytes()
    except OSError as error:
        raise ReportError(f"{notebook.name} cannot be read ({error.strerror})") from None


def _parse(notebook: Path, content: bytes) -> NotebookNode:
    # jsonschema imports this optional module to check one format we never use; compiling its grammars takes seconds.
    sys.modules.setdefault("rfc3987_syntax", None)  # pyright: ignore[reportArgumentType]
    import nbformat

    try:
        nb = nbformat.reads(content.decode(), as_version=4)
        nbformat.validate(nb)
    except (ValueError, TypeError, KeyError, AttributeError, nbformat.ValidationError) as error:
        raise ReportError(
            f"{notebook.name} is not a whole notebook ({str(error)[:100]!r}); delete it and run its cell again"
        ) from None
    return nb


def _place(notebook: Path, nb: NotebookNode, index: int | None) -> str:
    """``10_train.ipynb, cell 5 ('draw(frame)')``, counted from 1 as a reader would."""
    if index is None:
        return notebook.name
    return f"{notebook.name}, cell {index + 1} ({nb.cells[index].source.strip().partition(chr(10))[0][:60]!r})"


def _refuse_dead_outputs(notebook: Path, nb: NotebookNode) -> None:
    """Refuse controls that would move without a kernel to answer, and outputs that HTML would silently drop."""
    shown = set(_exporter().config["NbConvertBase"]["display_data_priority"])
    for index, cell in enumerate(nb.cells):
        for output in cell.get("outputs", []):
            kinds = set(output.get("data", {}))
            if WIDGET_VIEW in kinds:
                raise ReportError(
                    f"{_place(notebook, nb, index)} shows an ipywidgets control, which is dead in a report; "
                    "show a figure instead, or close the widget when it has done its work"
                )
            if kinds and not kinds & shown:
                raise ReportError(
                    f"{_place(notebook, nb, index)} shows {', '.join(sorted(kinds))}, which HTML cannot; show a figure"
                )
    if "widget-interact" in json.dumps(nb.metadata.get("widgets", {})):
        raise ReportError(
            f"{notebook.name} uses ipywidgets' interact, whose controls are dead in a report; show a figure instead"
        )


def _check_page(notebook: Path, nb: NotebookNode, html: str) -> None:
    """What can only be seen in the finished page: alternative texts, nothing loaded from elsewhere, one title."""
    from bs4 import BeautifulSoup

    page = BeautifulSoup(html, "html.parser")
    numbers = {f"cell-id={cell.get('id')}": number for number, cell in enumerate(nb.cells)}

    def place(tag: Tag) -> str:
        anchor = tag.find_parent(id=list(numbers))
        return _place(notebook, nb, numbers[str(anchor["id"])] if anchor else None)

    for image in page.find_all("img"):
        if str(image.get("alt") or "").strip() in ("", NO_ALT):
            how = 'display(figure, metadata={"image/png": {"alt": "..."}}), in markdown ![...](address)'
            raise ReportError(f"{place(image)} shows an image without alternative text; give it with {how}")
    for tag, address in _loaded(page):
        raise ReportError(f"{place(tag)} would load {address[:100]!r}; a report holds all it shows, so embed it")
    titles = [title.get_text()[:60] for title in page.find_all("h1")]
    if len(titles) != 1:
        raise ReportError(f"{notebook.name} must have exactly one '# title', has {titles or 'none'}")


def _loaded(page: BeautifulSoup) -> Iterator[tuple[Tag, str]]:
    """Every tag that would make a browser fetch something, with the address."""
    for tag in page.find_all(True):
        names = (*LOADING, "href") if tag.name in ("link", "image", "use") else LOADING
        style = f"{tag.get('style', '')} {tag.get_text() if tag.name == 'style' else ''}"
        addresses = [str(tag[name]) for name in names if name in tag.attrs]
        addresses += re.findall(r"""(?:url\(|@import)\s*["']?([^"')\s]+)""", style)
        yield from ((tag, address) for address in addresses if not address.startswith(("data:", "#")))


def _headings(notebook: Path, nb: NotebookNode) -> dict[str, str]:
    """The page's label (which notebook it is) and the title of its browser tab."""
    label, first = _title(notebook.stem), next((cell.source for cell in nb.cells if cell.cell_type == "markdown"), "")
    heading = re.search(r"^#\s+(.+)$", first, re.MULTILINE)
    return {"label": label, "title": f"{label}: {re.sub('[*`$]', '', heading[1]).strip()}" if heading else label}


# The pages of a site


def _title(stem: str) -> str:
    """``charlm x gelu``, ``Deep dive: charlm``, ``Cross model``."""
    match = NOTEBOOK_NAME.fullmatch(stem)
    if match and match["activation"]:
        return f"{match['model']} \N{MULTIPLICATION SIGN} {match['activation']}"
    name = re.sub(r"^\d\d_", "", match["kind"] if match else stem).replace("_", " ").capitalize()
    return f"{name}: {match['model']}" if match and match["model"] else name


def _train_stem(model: str, activation: str) -> str:
    return f"10_train-{model}-{activation}"


def _expected_stems(cells: Sequence[Cell], analyses: Sequence[str]) -> list[str]:
    """All that a run over these cells executes, in the order of the index."""
    return [*analyses, *(f"20_deep_dive-{model}" for model in dict(cells)), *(_train_stem(*cell) for cell in cells)]


def _notebooks(results_dir: Path, ending: str = "") -> set[str]:
    """Stems of the executed notebooks: finished ones, or those ending in ``.failed`` or ``.partial``."""
    names = {path.name.removesuffix(f"{ending}.ipynb") for path in (results_dir / "notebooks").glob(f"*{ending}.ipynb")}
    return {name for name in names if NOTEBOOK_NAME.fullmatch(name) and not name.endswith((".failed", ".partial"))}


def _cells_of(stems: Iterable[str]) -> list[Cell]:
    matches = [NOTEBOOK_NAME.fullmatch(stem) for stem in sorted(stems)]
    return [(match["model"], match["activation"]) for match in matches if match and match["activation"]]


def _in_order(cells: Iterable[Cell]) -> list[Cell]:
    """Each cell once, models and activations in the order of the registries, whatever order they were asked for in."""
    models, activations = list(MODEL_DEFAULTS), list(ACTIVATIONS)

    def place(names: Sequence[str], name: str) -> tuple[int, str]:
        return (names.index(name) if name in names else len(names), name)

    return sorted(set(cells), key=lambda cell: (place(models, cell[0]), place(activations, cell[1])))


def _navigation(stem: str, cells: Sequence[Cell], analyses: Sequence[str]) -> tuple[Page, ...]:
    """Index and analyses, the deep dives, and on the pages of a model its cells."""
    match = NOTEBOOK_NAME.fullmatch(stem)
    own = [cell for cell in cells if match and cell[0] == match["model"]]
    return (
        Page("Index", "index.html"),
        *(Page(_title(name), f"{name}.html") for name in analyses),
        *(Page(model, f"20_deep_dive-{model}.html", "Deep dives") for model in dict.fromkeys(model for model, _ in cells)),
        *(Page(activation, f"{_train_stem(model, activation)}.html", f"{model} with") for model, activation in own),
    )


def _site(pages: Sequence[Page], here: str, source_sha256: str) -> dict[str, Any]:
    """What the head and top of a page (header.html.j2) need."""
    match = NOTEBOOK_NAME.fullmatch(here.removesuffix(".html"))
    is_index = here == "index.html"
    return {
        "project": PROJECT,
        "here": here,
        "parent": f"20_deep_dive-{match['model']}.html" if match and match["activation"] else None,
        "navigation": [(group, list(members)) for group, members in groupby(pages, key=lambda page: page.group)],
        "source_sha256": source_sha256,
        "image_source": "'self' file:" if is_index else "",
        "css": _asset("base.css") + _asset("index.css" if is_index else "report.css"),
        "script": _asset("base.js") + _asset("index.js" if is_index else "report.js"),
    }


@functools.cache
def _asset(name: str) -> Markup:
    return Markup((TEMPLATES / "static" / name).read_text())


@functools.cache
def _environment() -> jinja2.Environment:
    folders = [TEMPLATES / "site", TEMPLATES / "repro_report"]
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(folders), autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["title_of"] = _title
    # Messages name whole paths; a report that travels says nothing about the machine.
    environment.filters["without"] = lambda text, folder: text.replace(f"{folder}/", f"{folder.name}/")
    return environment


@functools.cache
def _renderer_sha256() -> str:
    """Digest of all that turns a notebook into a page: this module, the templates, nbconvert."""
    files = [Path(__file__), *sorted(path for path in TEMPLATES.rglob("*") if path.is_file())]
    return hashlib.sha256(b"".join([version("nbconvert").encode(), *(path.read_bytes() for path in files)])).hexdigest()


def _source_sha256(notebook: bytes, pages: Sequence[Page]) -> str:
    return hashlib.sha256(f"{_renderer_sha256()}{list(pages)}".encode() + notebook).hexdigest()


def _made_from(page: Path) -> str | None:
    """The digest a page carries of what it was made from; None for no page and for a stand-in."""
    try:
        with open(page, "rb") as file:
            match = SOURCE_META.search(file.read(1000))
    except FileNotFoundError:
        return None
    return match[1].decode() if match else None


def _write_stand_ins(reports_dir: Path, cells: Sequence[Cell], analyses: Sequence[str]) -> None:
    """A page for every link of the navigation that leads nowhere yet."""
    for stem in _expected_stems(cells, analyses):
        path = reports_dir / f"{stem}.html"
        if _made_from(path) is None:
            site = _site(_navigation(stem, cells, analyses), path.name, "none")
            html = _environment().get_template("pending.html.j2").render(site=site, title=_title(stem))
            if not path.exists() or path.read_text() != html:
                write_atomically(path, html)


# The index


def _row(
    cell: Cell,
    result: Result | None,
    pages: set[str],
    failures: Mapping[str, str],
    in_flight: set[str] | None,
    interval: Interval | None,
) -> Row:
    """One cell; ``in_flight`` holds the stems of the notebooks at work, None when nothing runs."""
    stem = _train_stem(*cell)
    absent = "failed" if stem in failures else "missing" if in_flight is None else "waiting"
    state = "done" if result else "running" if in_flight and stem in in_flight else absent
    report = f"{stem}.html" if result and stem in pages else None
    return Row(*cell, result, state, failures[stem] if state == "failed" else "", report, interval)


def _failures(results_dir: Path, results: Mapping[Cell, Result]) -> dict[str, str]:
    """Why a notebook failed, by its stem, unless a result stored since then has settled it."""
    done = {_train_stem(*cell): result.timestamp.isoformat() for cell, result in results.items()}
    reasons = {}
    for note in Store(results_dir).failures():
        stem = _train_stem(note["model_name"], note["activation"])
        if stem not in done or str(note.get("timestamp", "")) > done[stem]:
            reasons[stem] = str(note["reason"])
    for stem in _notebooks(results_dir, ".failed") - done.keys():
        reasons.setdefault(stem, "its notebook stopped with an error")
    return dict(sorted(reasons.items()))


def _not_comparable(stored: Sequence[Result], results: Mapping[Cell, Result]) -> list[str]:
    """A sentence about stored results that do not belong to the run shown, if there are any."""
    keys = {result.comparison_key for result in results.values()}
    others = [result for result in stored if result.comparison_key not in keys]
    if not others:
        return []
    kinds = {"synthetic" if r.synthetic else f"profile {r.profile or 'none'}, corpus {r.corpus.name}" for r in others}
    return [f"{len(others)} stored results are not shown: they may not be compared with these ({'; '.join(sorted(kinds))})."]


def _figures(plots: Path, models: set[str]) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Alternative texts of the figures by model ("" for those over all models) and name; a sentence for each without."""
    figures: dict[str, dict[str, str]] = {"": {}}
    unexplained = []
    # From Z to A the four-panel figure comes first, accuracy after prediction difference.
    for path in sorted(plots.glob("*.png"), reverse=True):
        text = path.with_suffix(".txt")
        if re.fullmatch(r"[\w.-]+", path.name) and text.exists() and text.read_text().strip():
            owner = max((model for model in models if path.name.startswith(f"{model}_")), key=len, default="")
            figures.setdefault(owner, {})[path.stem] = text.read_text().strip()
        else:
            unexplained.append(
                f"The figure plots/{path.name} is left out: its alternative text, plots/{text.name}, is missing."
            )
    return figures, unexplained
