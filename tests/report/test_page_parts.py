"""What a page has beyond its notebook: the summary on top, contents, readable tables, short parameters."""

from __future__ import annotations

import pandas as pd
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from repro_lib.report.site.page_parts import anchor, contents, readable_table, rearrange, shown_parameters


def rows_of(frame: pd.DataFrame) -> list[list[tuple[str, str, str]]]:
    """Each cell of the table as tag, scope and text."""
    table = BeautifulSoup(readable_table(frame._repr_html_()), "html.parser")  # pyright: ignore[reportCallIssue]
    return [
        [(cell.name, str(cell.get("scope", "")), cell.get_text(strip=True)) for cell in row.find_all(["th", "td"])]
        for row in table.find_all("tr")
    ]


def test_names_of_the_index_stand_in_the_row_of_heads() -> None:
    index = pd.MultiIndex.from_tuples([("charlm", "relu"), ("charlm", "gelu")], names=["Model", "Activation"])
    heads, first, second = rows_of(pd.DataFrame({"N": [3, 3]}, index=index))
    assert heads == [("th", "col", "Model"), ("th", "col", "Activation"), ("th", "col", "N")]
    assert first == [("th", "rowgroup", "charlm"), ("th", "row", "relu"), ("td", "", "3")]
    assert second == [("th", "row", "gelu"), ("td", "", "3")]


def test_a_corner_without_words_is_no_head() -> None:
    assert rows_of(pd.DataFrame({"N": [3]}, index=["relu"]))[0] == [("td", "", ""), ("th", "col", "N")]
    assert rows_of(pd.DataFrame({"N": [3]}, index=["relu"]).rename_axis(columns="Trial"))[0][0] == ("th", "col", "Trial")


def test_two_rows_of_real_heads_stay_two() -> None:
    frame = pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", "b"), ("a", "c")]))
    assert [[text for _, _, text in row if text] for row in rows_of(frame)[:2]] == [["a"], ["b", "c"]]


def test_columns_of_words_are_told_from_columns_of_numbers() -> None:
    columns = {"value": ["0.5 (0.4 to 0.6)", "–"], "sign": ["-3", "+4 %"], "n": ["3 (synthetic)", "3"], "of": ["5 of 5", ""]}
    columns |= {"said": ["yes", "no"], "why": ["x" * 40, "1"], "size": ["2 layers", "4 layers"]}
    table = BeautifulSoup(readable_table(pd.DataFrame(columns)._repr_html_()), "html.parser")  # pyright: ignore[reportCallIssue]
    looks = {head.get_text(strip=True): head.get("class") for head in table.select("thead th")}
    words = {"said": ["words"], "why": ["long", "words"], "size": ["words"]}
    assert looks == dict.fromkeys(("value", "sign", "n", "of")) | words
    assert table.select_one("style") is None
    assert not table.select_one("table").has_attr("border")  # type: ignore[union-attr]


def test_other_html_is_left_alone() -> None:
    nb = new_notebook(
        cells=[
            new_code_cell("x", outputs=[new_output("display_data", data={"text/html": "<table><tr><th>a</th></tr></table>"})])
        ]
    )
    rearrange(nb)
    assert nb.cells[0].outputs[0].data["text/html"] == "<table><tr><th>a</th></tr></table>"


def test_the_summary_moves_up_and_its_code_stays() -> None:
    output = new_output("display_data", data={"text/html": "<p>what came out</p>"})
    cells = [new_markdown_cell("# Title"), new_code_cell("load()"), new_markdown_cell("## 1. Then")]
    cells.append(new_code_cell("say(x)", outputs=[output], metadata={"tags": ["summary"]}))
    nb = new_notebook(cells=cells)
    rearrange(nb)
    assert [cell.source for cell in nb.cells] == ["# Title", "", "load()", "## 1. Then", "say(x)"]
    top, left = nb.cells[1], nb.cells[4]
    assert [out.data["text/html"] for out in top.outputs] == ['<p class="label">In short</p>', "<p>what came out</p>"]
    assert top.metadata.tags == ["summary", "remove_input"]
    assert left.outputs == []
    assert left.metadata.tags == []


def test_a_notebook_without_summary_stays_as_it_is() -> None:
    nb = new_notebook(cells=[new_markdown_cell("# Title"), new_code_cell("x", metadata={"tags": ["summary"]})])
    before = nb.copy()
    rearrange(nb)
    assert nb == before


def test_contents_name_every_section() -> None:
    headings = ["1. What *it* is", "2. `code` and $x$", "3. Third?", "4. Fourth"]
    cells = [new_markdown_cell(f"## {text}\n\n### deeper\n\ntext") for text in headings]
    assert contents(new_notebook(cells=cells)) == [
        ("1-what-it-is", "1. What it is"),
        ("2-code-and-x", "2. code and x"),
        ("3-third", "3. Third?"),
        ("4-fourth", "4. Fourth"),
    ]
    assert contents(new_notebook(cells=cells[:3])) == [], "three sections are seen at a glance"


def test_an_anchor_is_the_same_of_markdown_and_of_html() -> None:
    assert anchor("3. Is it a *difference*?") == anchor("3. Is it a <em>difference</em>?") == "3-is-it-a-difference"


def test_parameters_are_short_and_say_nothing_about_the_machine() -> None:
    digests = f"{'ab' * 32} {'cd' * 32}"
    parameters = {"results_dir": "/private/place/results/", "configs": digests, "names": ["a", "b"], "trials": 3}
    parameters |= {"profile": None, "empty": "", "none": [], "long": "x" * 200}
    assert shown_parameters(parameters) == {
        "results_dir": ".../results",
        "configs": f"{'ab' * 6} {'cd' * 6}",
        "names": "a, b",
        "trials": "3",
        "long": "x" * 97 + "...",
    }
