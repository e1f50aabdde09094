"""What a page has beyond its notebook: the summary on top, contents, readable tables, short parameters."""

from __future__ import annotations

from copy import deepcopy

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
    # A corner without words is no head, and two rows of real heads stay two.
    assert rows_of(pd.DataFrame({"N": [3]}, index=["relu"]))[0] == [("td", "", ""), ("th", "col", "N")]
    assert rows_of(pd.DataFrame({"N": [3]}, index=["relu"]).rename_axis(columns="Trial"))[0][0] == ("th", "col", "Trial")
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


def test_other_html_and_a_notebook_without_summary_stay_as_they_are() -> None:
    table = new_output("display_data", data={"text/html": "<table><tr><th>a</th></tr></table>"})
    cells = [new_code_cell("x", outputs=[table]), new_code_cell("y", metadata={"tags": ["summary"]})]
    nb = new_notebook(cells=[new_markdown_cell("# Title"), *cells])
    before = deepcopy(nb)
    rearrange(nb)
    assert nb == before


def test_contents_name_every_section() -> None:
    headings = {"1. What *it* is": "1-what-it-is", "2. `code` and $x$": "2-code-and-x", "3. Third?": "3-third", "4": "4"}
    cells = [new_markdown_cell(f"## {text}\n\n### deeper\n\ntext") for text in headings]
    named = contents(new_notebook(cells=cells))
    assert [place for place, _ in named] == list(headings.values())
    assert [text for _, text in named] == ["1. What it is", "2. code and x", "3. Third?", "4"]
    assert contents(new_notebook(cells=cells[:3])) == [], "three sections are seen at a glance"
    # A heading of a page is HTML, one of a notebook markdown.
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
