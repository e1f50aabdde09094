"""What-ifs in a page: picture, numbers and sentence for everybody, what the shared script needs, and nothing that is dead."""

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import vl_convert
from nbformat import NotebookNode
from test_pages import ATTACK, WIDGET, Tags, code, html_output, new_output, refusal, rendered

from repro_lib.metrics.uncertainty import Estimate
from repro_lib.report.site.charts import section_of, write_script
from repro_lib.whatif.definition import Row, View, WhatIf, control
from repro_lib.whatif.wording import alone, written

LINES = {"along": "k"}


def see(model: str, k: int) -> View:
    """A view that carries hostile names wherever a name can stand."""
    rows = [Row(ATTACK, Estimate(k, k - 0.5, k + 0.5, 3), "one"), Row("b", alone(float("nan")), "one", missing=ATTACK)]
    return View([*rows, Row(ATTACK, alone(10 * k), "two")], f"{model} at {k} {ATTACK} </script><!--")


def hostile(**more: Any) -> WhatIf:
    parameters = (control("model", "Model", [ATTACK, "b"]), control("k", "K", [1, 2, 3], 2))
    return WhatIf.of("hostile", 'What if it\'s "<this>"?', parameters, see, **more)


def spec_of(what_if: WhatIf) -> dict[str, Any]:
    bundle = what_if._repr_mimebundle_()
    assert set(bundle) == {"application/vnd.vegalite.v5+json", "text/plain"}, "JupyterLab would prefer HTML"
    return bundle["application/vnd.vegalite.v5+json"]


@pytest.mark.parametrize("more", [{}, LINES], ids=["rows", "lines"])
def test_the_static_state_is_the_picture_the_numbers_and_the_sentence_of_the_defaults(more: dict[str, str]) -> None:
    what_if = hostile(**more)
    page = Tags(section_of(spec_of(what_if)))
    (section,) = page.all("section")
    assert section == {"class": "chart", "aria-label": 'What if it\'s "<this>"?'}
    assert not [tag for tag, _ in page.tags if tag in ("input", "select", "button")], "the script makes them"
    assert page.soup.select_one(".chart-sentence").text == what_if.sentence()  # type: ignore[union-attr]
    rows = [[cell.text for cell in row.select("td")] for row in page.soup.select("tbody tr")]
    assert rows[0] == ["one", ATTACK, "2.000 (1.500 to 2.500)", "3"]
    assert rows[1:] == [["one", "b", ATTACK, ""], ["two", ATTACK, "20.000", ""]]
    (picture,) = page.all("svg")
    assert "sentence with it says what it shows" in picture["aria-label"]
    sizes = [float(size) for size in re.findall(r'font-size="([\d.]+)px"', str(page.soup.svg))]
    assert min(sizes) >= 11
    assert float(picture["width"]) <= 322


@pytest.mark.parametrize("more", [{}, LINES], ids=["rows", "lines"])
def test_the_chart_as_a_file_shows_the_chosen_values_and_says_so(more: dict[str, str]) -> None:
    """Vega-Lite itself draws each position: the mark stands at the number, and the sentence is that of the values."""
    spec = spec_of(hostile(**more))
    for k in (1, 3):
        moved = [param | ({"value": k} if param["name"] == "k" else {}) for param in spec["params"]]
        tree = ElementTree.fromstring(vl_convert.vegalite_to_svg(spec | {"params": moved}))
        labels = [label for element in tree.iter() if (label := element.get("aria-label"))]
        assert [label for label in labels if f"value (95 % interval): {k}.000" in label and "N: 3" in label], labels
        assert any("verdict: none below 10 trials" in label for label in labels)
        assert f" at {k}{ATTACK[:8]}" in "".join(tree.itertext())


def test_the_data_holds_every_row_and_every_sentence() -> None:
    what_if = hostile()
    script = Tags(section_of(spec_of(what_if))).soup.script
    assert script is not None
    alive = json.loads(script.text)
    names = {param["name"]: param for param in alive["spec"]["params"] if "value" in param}
    assert list(names) == ["shown", "model", "k"]
    assert names["shown"]["bind"]["options"] == ["one", "two"]
    assert names["model"]["bind"]["options"] == [ATTACK, "b"]
    assert {key: names["k"]["bind"][key] for key in ("input", "min", "max", "step")} == {
        "input": "range",
        "min": 1,
        "max": 3,
        "step": 1,
    }
    (numbers,) = alive["spec"]["datasets"].values()
    assert numbers[0]["value"].split("|") == ["1", "", "10", "2", "", "20", "3", "", "30"] * 2
    words = alive["sentences"]["sentence_words"].split("|")
    said = [" ".join(words[int(place)].split()) for place in alive["sentences"]["sentence"].split("|")]
    assert said == what_if.sentences["sentence"].tolist()
    assert (alive["sentences"]["model"], alive["sentences"]["k"]) == ("0|0|0|1|1|1", "1|2|3|1|2|3")
    one_model = WhatIf.of("one", "One", (control("model", "Model", ["charlm"]), control("k", "K", [1, 2, 5], 1)), see)
    bound = {param["name"]: param.get("bind") for param in spec_of(one_model)["params"]}
    assert bound["model"] is None, "of one value there is nothing to move"
    assert bound["k"]["input"] == "select", "a slider is for even steps"


def test_hostile_names_stay_text_everywhere_and_a_site_has_one_script(tmp_path: Path) -> None:
    cells = [
        code(str(k), new_output("display_data", data=hostile(**more)._repr_mimebundle_())) for k, more in enumerate(({}, LINES))
    ]
    html = rendered(tmp_path, *cells)
    page = Tags(html)
    assert [script.get("src") for script in page.all("script") if "src" in script] == ["charts.js"]
    assert not [attributes for _, attributes in page.tags if "onerror" in attributes]
    assert len(page.all("section")) == 2
    policy = page.soup.select("meta[http-equiv=Content-Security-Policy]")[0]["content"]
    assert "script-src 'unsafe-inline' 'self' file:;" in policy
    assert "eval" not in policy
    written_at = (script := tmp_path / "charts.js").stat().st_mtime_ns
    assert script.stat().st_size < 1_000_000
    write_script(tmp_path)
    assert script.stat().st_mtime_ns == written_at, "it is there as it should be"
    script.write_text("/* of an older version */")
    write_script(tmp_path)
    assert "vegaEmbed" in script.read_text()


def test_a_foreign_chart_neither_ends_the_process_nor_fetches_anything(tmp_path: Path) -> None:
    """The converter aborts where a picture holds a control character, and would load the data that a chart names."""
    mark = {"mark": {"type": "text", "text": "a\x07\x9bb\\u0007"}, "data": {"values": [{}]}}
    assert "a\ufffd\ufffdb\\u0007</text>" in section_of(mark)
    kind = "application/vnd.vegalite.v5+json"
    cell = code("draw()", new_output("display_data", data={kind: mark | {"data": {"url": "https://example.org/x.csv"}}}))
    assert "cell 2 ('draw()') shows a chart that cannot be drawn" in refusal(tmp_path, cell)


def test_a_page_without_charts_loads_no_script(tmp_path: Path) -> None:
    assert "charts.js" not in rendered(tmp_path, code("print()"))
    assert not (tmp_path / "charts.js").exists()


BESIDE_HTML = new_output("display_data", data=WIDGET | {"text/html": "<p>what-if</p>", "text/plain": "x"})


@pytest.mark.parametrize(
    ("output", "complaint"),
    [
        *((html_output(f"<p><{tag}></{tag}></p>"), f"shows a <{tag}>, which") for tag in ("button", "select", "textarea")),
        (BESIDE_HTML, "shows an ipywidgets control, which is dead in a report"),
    ],
)
def test_a_control_that_nothing_answers_is_refused(output: NotebookNode, complaint: str, tmp_path: Path) -> None:
    assert complaint in refusal(tmp_path, code("show()", output))


def test_small_numbers_do_not_look_like_nothing() -> None:
    shown = {0.0: "0", 0.5: "0.500", 0.0006: "0.001", 0.00049: "0.00049", 3e-6: "0.000003"}
    assert [written(x, 3) for x in shown] == list(shown.values())
