"""What-ifs in a page: alive where a script may run, picture and sentence where not, never a control that nothing answers."""

import base64
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from nbformat import NotebookNode
from test_pages import COMMAND as ATTACK, WIDGET, Tags, code, html_output, new_output, refusal, rendered

from repro_lib.analysis.notes import visible
from repro_lib.metrics.uncertainty import Estimate
from repro_lib.report.site.page_parts import one_copy_per_page
from repro_lib.whatif.charts import Axis, Bar, BarPanel, Dot, Line, LinePanel, alone
from repro_lib.whatif.definition import View, WhatIf, choice, slider
from repro_lib.whatif.display import alive_html, picture, recorded_html, standalone_svg, still_html, svg
from repro_lib.whatif.svg import nice_limit, nice_ticks, simplified, written

SVG = "{http://www.w3.org/2000/svg}"


def see(model: str, k: int) -> View:
    """A view that carries hostile names wherever a name can stand."""
    number = Estimate(k, k - 0.5, k + 0.5, 3)
    bars = BarPanel(f"B {ATTACK}", (Bar(ATTACK, number, "#0072B2"), Bar("b", alone(float("nan")), "red")), 10.0)
    chart = LinePanel(
        f"L {ATTACK}",
        Axis(f"x {ATTACK}", 0, 10),
        Axis(f"y {ATTACK}", 0, 10, ticks=((1.0, ATTACK),)),
        f"about {ATTACK}",
        (Line(f"line {ATTACK}", [0, 5, 10], [1, k, 3], "#0072B2"),),
        (Dot(f"dot {ATTACK}", alone(5), number, "#D55E00", strong=True),),
        ([0, 5, 10], [1, 2, 1]),
        k,
    )
    return View((bars, chart), f"{model} at {k} {ATTACK} </script><!--")


def hostile(name: str = "hostile") -> WhatIf:
    parameters = (choice("model", f"Model {ATTACK}", [ATTACK, "b"]), slider("k", f"K {ATTACK}", [1, 2, 3], 2))
    return WhatIf(name, f"What if {ATTACK}?", parameters, see)


def data_of(page: str) -> dict[str, list]:
    found = re.search(r'<script type="application/json" class="what-if-data">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])


def test_the_static_state_is_the_picture_and_the_sentence_of_the_defaults_and_no_control() -> None:
    what_if = hostile()
    page = Tags(alive_html(what_if))
    (section,) = page.all("section")
    assert section == {"class": "what-if", "data-what-if": "hostile", "aria-label": f"What if {ATTACK}?"}
    assert page.all("form") == [{"class": "what-if-controls", "autocomplete": "off", "hidden": ""}]
    assert not [tag for tag, _ in page.tags if tag in ("input", "select", "button")], "the script makes them"
    assert {"class": "what-if-sentence", "aria-live": "polite"} in page.all("p")
    assert " ".join(what_if.view().sentence.split()) in page.text
    assert [image["alt"] for image in page.all("img")] == [panel.alt() for panel in what_if.view().panels]


def test_the_data_holds_every_view_in_the_order_of_the_controls() -> None:
    what_if = hostile()
    data = data_of(alive_html(what_if))
    assert data["controls"] == [
        {"label": f"Model {ATTACK}", "texts": [ATTACK, "b"], "kind": "choice", "start": 0},
        {"label": f"K {ATTACK}", "texts": ["1", "2", "3"], "kind": "slider", "start": 1},
    ]
    drawn = ["".join(data["pieces"][piece] for piece in view) for view in data["views"]]
    views = [what_if.view(model=model, k=k) for model in (ATTACK, "b") for k in (1, 2, 3)]
    assert drawn == ["".join(map(svg, view.panels)) for view in views]
    assert data["sentences"] == [view.sentence for view in views]
    assert len(set(data["pieces"])) == len(data["pieces"])
    one_model = WhatIf("one", "One", (choice("model", "Model", ["charlm"]), slider("k", "K", [1, 2], 1)), see)
    data = data_of(alive_html(one_model))
    assert [control["label"] for control in data["controls"]] == ["K"], "of one value there is nothing to move"
    assert len(data["views"]) == 2


def test_hostile_names_stay_text_everywhere_and_a_picture_stands_on_white() -> None:
    html = alive_html(hostile())
    page = Tags(html)
    assert [script["class"] for script in page.all("script")] == ["what-if-data", "what-if-script"]
    assert not [attributes for _, attributes in page.tags if "onerror" in attributes]
    assert html.count("</script") == 2
    for panel in hostile().view().panels:
        found = re.fullmatch(r'<img alt="[^"]*" src="data:image/svg\+xml;base64,([^"]+)">', picture(panel))
        assert found
        shown = base64.b64decode(found[1]).decode()
        assert shown == standalone_svg(panel)
        for text in (svg(panel), shown):
            tree = ElementTree.fromstring(text)
            kinds = {element.tag.removeprefix(SVG) for element in tree.iter()}
            assert kinds <= {"svg", "g", "path", "text", "polyline", "polygon", "circle"}
            assert visible(ATTACK) in tree.attrib["aria-label"]
            assert any(visible(ATTACK) in (element.text or "") for element in tree.iter())
        assert "background:#fff" in tree.attrib["style"]
        x, y, width, height = map(float, tree.attrib["viewBox"].split())
        assert x == y < 0
        assert (tree.attrib["width"], tree.attrib["height"]) == (f"{width:.0f}", f"{height:.0f}")


# --- the page


def test_several_what_ifs_share_one_style_and_one_script() -> None:
    outputs = [alive_html(hostile("a")), "<p>between</p>", alive_html(hostile("b")), still_html(hostile("c"))]
    kept = one_copy_per_page(outputs)
    page = "".join(kept)
    assert page.count('<style class="what-if-style">') == page.count('<script class="what-if-script">') == 1
    assert page.index("what-if-style") < page.index('data-what-if="a"') + 200
    assert page.index("what-if-script") > page.index('data-what-if="b"'), "the script comes after all that it wakes"
    assert kept[1] == "<p>between</p>"
    assert [data_of(html) for html in (kept[0], kept[2])] == [data_of(html) for html in (outputs[0], outputs[2])]
    assert one_copy_per_page(kept) == kept


def test_a_report_holds_what_ifs_and_of_a_widget_its_report_half(tmp_path: Path) -> None:
    alive = [code(name, html_output(alive_html(hostile(name)))) for name in ("a", "b")]
    both = new_output("display_data", data=WIDGET | {"text/html": still_html(hostile("c")), "text/plain": "x"})
    recorded = code("w", html_output(recorded_html(ATTACK, "<p>content</p>", ATTACK, ATTACK)))
    html = rendered(tmp_path, *alive, code("explore()", both), recorded)
    page = Tags(html)
    assert [(s["class"], s.get("data-what-if")) for s in page.all("section")] == [
        ("what-if", "a"), ("what-if", "b"), ("what-if-recorded", "c"), ("what-if-recorded", None),
    ]  # fmt: skip
    classes = [script.get("class", "") for script in page.all("script")]
    assert (classes.count("what-if-script"), classes.count("what-if-data")) == (1, 2)
    assert "model_id" not in html
    assert page.all("section")[-1]["aria-label"] == visible(ATTACK)
    assert not any("onerror" in attributes for _, attributes in page.tags), "what was recorded is escaped too"


DATA_ALONE = '<section class="what-if"><script class="what-if-data">{}</script></section>'
BESIDE_HTML = new_output("display_data", data=WIDGET | {"text/html": "<p>what-if</p>", "text/plain": "x"})


@pytest.mark.parametrize(
    ("output", "complaint"),
    [
        *((html_output(f"<p><{tag}></{tag}></p>"), f"shows a <{tag}>, which") for tag in ("button", "select", "textarea")),
        (html_output(DATA_ALONE), "a what-if without its data or script"),
        (BESIDE_HTML, "shows an ipywidgets control, which is dead in a report"),
    ],
)
def test_a_control_that_nothing_answers_is_refused(output: NotebookNode, complaint: str, tmp_path: Path) -> None:
    assert complaint in refusal(tmp_path, code("show()", output))


# --- drawing


def test_bars_and_axes_place_their_values_and_numbers_are_round() -> None:
    panel = BarPanel("Bars", tuple(Bar(f"b{k}", alone(value), "red") for k, value in enumerate((0.0, 5.0, 10.0, 99.0))), 10.0)
    drawn = re.findall(r"d='M([\d.]+) [\d.]+H([\d.]+)'", "".join(panel.pieces()))
    lengths = [float(end) - float(start) for start, end in drawn]
    assert lengths[0] == 0
    assert lengths[1] == pytest.approx(lengths[2] / 2, abs=0.11)
    assert lengths[3] == lengths[2], "cut at the end of the axis"
    assert Axis("x", -1, 1).share([-1, 0, 1, 5]).tolist() == [0, 0.5, 1, 1]
    assert Axis("x", 0, 0.35).marks() == ((0, "0"), (0.1, "0.1"), (0.2, "0.2"), (0.3, "0.3"))
    assert [nice_ticks(0, 1), nice_ticks(-3, 3)] == [[0, 0.25, 0.5, 0.75, 1], [-2, 0, 2]]
    assert [nice_limit(x) for x in (0, 0.31, 0.58, 1.7, 2.0, 97)] == pytest.approx([1, 0.4, 0.6, 2, 2, 100])
    shown = {0.0: "0", 0.5: "0.500", 0.0006: "0.001", 0.00049: "5e-04", 3e-6: "3e-06", -3e-6: "-3e-06"}
    assert [written(x, 3) for x in shown] == list(shown.values()), "small numbers do not look like nothing"


def test_a_simplified_line_is_the_same_line() -> None:
    x = np.linspace(0, 300, 1201)
    y = 50 * np.sin(x / 30)
    a, b = simplified(x, y)
    assert len(a) < 120
    # The tolerance is measured across the line, whose slope is at most 50 / 30.
    assert np.abs(np.interp(x, a, b) - y).max() < 0.15 * 2
    assert simplified(x, 2 * x)[0].tolist() == [0, 300]
    assert [len(simplified(x[:n], y[:n])[0]) for n in range(3)] == [0, 1, 2]
