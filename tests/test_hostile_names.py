"""Names and words from elsewhere: parameters of notebooks, names of texts and folders, the text itself. All are data."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from IPython.display import Markdown
from kinds import Tiny
from nbconvert.filters.markdown_mistune import markdown2html_mistune as markdown2html
from test_hostile_stores import displayed
from test_pages import Tags

from repro_lib.grid.notebooks import execute
from repro_lib.report.site.charts import section_of
from repro_lib.report.site.page import render_notebook
from repro_lib.report.writing_desk import WritingDesk
from repro_lib.store.store import Store
from repro_lib.training.experiment import run_experiment
from repro_lib.whatif.definition import WhatIf

ROOT = Path(__file__).resolve().parents[1]
TAGS = "<img src=x onerror=alert(1)>"
# What would do something in Python, in a shell, in a page, in a template, in a notebook's JSON, in a path.
HOSTILE = [
    "'\"\"\"\n__import__('os').mkdir('owned')\n#",
    '"; import os; os.mkdir("owned") #',
    "$(mkdir owned) `mkdir owned` ; mkdir owned && mkdir owned",
    "%%bash\nmkdir owned",
    "!mkdir owned",
    f"</script><script>alert(1)</script>{TAGS}",
    "{{ 7 * 7 }}{% raw %}{0}{__class__}",
    "\\",
    "\\x00\\n\\",
    "a\u2028b\u202ec\0d",
    "../../../etc/passwd",
    "\U0001f600é",
]


def assert_no_planted_tag(html: str) -> None:
    found = Tags(html).tags
    assert [tag for tag in found if tag[1].get("src") == "x" or any(name.startswith("on") for name in tag[1])] == []


def test_a_parameter_arrives_as_it_was_given_and_does_nothing_on_its_way(tmp_path: Path) -> None:
    """Through papermill, which writes them into the source of a cell."""
    names = [f"p{k}" for k in range(len(HOSTILE))]
    declared = nbformat.v4.new_code_cell("\n".join(f'{name}: str = ""' for name in names), metadata={"tags": ["parameters"]})
    echo = nbformat.v4.new_code_cell(f"import json; print(json.dumps([{', '.join(names)}]))")
    notebook = tmp_path / "n.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# A title"), declared, echo]), notebook)
    output = tmp_path / "out" / "n.ipynb"
    execute(notebook, output, dict(zip(names, HOSTILE, strict=True)))
    cells = json.loads(output.read_text())["cells"]
    assert json.loads("".join(cells[-1]["outputs"][0]["text"])) == HOSTILE
    render_notebook(output, tmp_path / "n.html")
    assert_no_planted_tag((tmp_path / "n.html").read_text())
    assert list(tmp_path.rglob("owned")) == []
    assert not Path("owned").exists()


@pytest.fixture(scope="module")
def hostile_cells(tmp_path_factory: pytest.TempPathFactory, tiny: Tiny, corpus_file: Path) -> Path:
    """Two cells trained on a text of tags, in a file whose name is one."""
    folder = tmp_path_factory.mktemp("hostile")
    text = folder / f"{TAGS}{{0}}$(mkdir owned)'\".txt"
    plain = corpus_file.read_text()
    text.write_text("".join(f"{line} <b>&lt;\"'{{{{ 7 }}}}$`\\</b>{TAGS}\n" for line in plain.splitlines()))
    for activation in ("relu", "gelu"):
        run_experiment("charlm", activation, tiny("charlm", corpus=str(text), trials=3), results_dir=folder / "results")
    return folder


@pytest.mark.parametrize("name", ["20_deep_dive", "30_cross_model", "40_claims", "50_what_if"])
def test_no_analysis_shows_a_text_or_its_name_as_markup(name: str, hostile_cells: Path) -> None:
    """What each cell displays, as a browser gets it: the characters of the text are in it, and its tags are not."""
    pages = []
    for value in displayed(name, hostile_cells / "results"):
        if isinstance(value, Markdown):  # as nbconvert makes a page of it; in JupyterLab the browser does
            pages.append(markdown2html(str(value.data)))
        elif isinstance(value, WhatIf):
            pages.append(section_of(value._repr_mimebundle_()["application/vnd.vegalite.v5+json"]))
        elif isinstance(value, WritingDesk):
            pages.append(value._repr_mimebundle_()["text/html"])
        elif hasattr(value, "_repr_html_"):
            pages.append(value._repr_html_() or "")
    assert sum(map(len, pages)) > 500
    for page in pages:
        assert_no_planted_tag(page)


@pytest.mark.slow
def test_a_whole_grid_over_a_hostile_text_in_a_folder_with_a_hostile_name(hostile_cells: Path, tmp_path: Path) -> None:
    """Kernels, papermill, checkpoints and pages: in folders whose names are code for a shell, a template and a page."""
    place = tmp_path / f"a b;$(mkdir owned)`{{0}}{{{{ 7 }}}}'\"{TAGS.replace('/', '')}"
    place.mkdir()
    (text,) = hostile_cells.glob("*.txt")
    command = [sys.executable, "-m", "repro_lib", "grid", "--profile", "smoke", "--models", "charlm", "--activations", "gelu"]
    command += ["--analyses", "all"]
    command += ["--corpus", str(text), "--results-dir", str(place / "results"), "--reports-dir", str(place / "reports")]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    ((_, result),), refused = Store(place / "results").load()
    assert refused == []
    assert result.corpus.name == text.name
    pages = list((place / "reports").glob("*.html"))
    assert {"index.html", "10_train-charlm-gelu.html", "20_deep_dive-charlm.html", "50_what_if.html"} <= {p.name for p in pages}
    for page in pages:
        assert_no_planted_tag(page.read_text())
    assert list(tmp_path.rglob("owned")) == []
