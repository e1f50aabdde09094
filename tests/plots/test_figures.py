"""Figures of made-up results: what is on them is read back from the artists. Seconds; trains nothing."""

import base64
import io
import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from test_study import grid, make_result

from repro_lib.analysis.study import Study
from repro_lib.config import ACTIVATIONS
from repro_lib.plots import figures
from repro_lib.plots.style import COLOURS, DPI, MISSING_HATCH, STYLE, Plot

THREE = ("relu", "gelu", "swish")


def one_model(**changes: object) -> Study:
    """charlm with relu and gelu, swish missing."""
    results = [make_result("charlm", a, **changes) for a in ("relu", "gelu")]  # pyright: ignore[reportArgumentType]
    return Study.of(results, ["charlm"], THREE)


def axes_of(plot: Plot) -> list[Axes]:
    return [axes for axes in plot.figure.axes if axes.get_visible()]


def words(plot: Plot) -> str:
    """All text on a figure, as one line."""
    return " ".join(text.get_text() for text in plot.figure.findobj(Text) if text.get_visible()).replace("\n", " ")


def bars(axes: Axes) -> list[tuple[float, str]]:
    """(height, colour) of every bar."""
    containers = [container for container in axes.containers if isinstance(container, BarContainer)]
    return [(patch.get_height(), to_hex(patch.get_facecolor())) for container in containers for patch in container.patches]


def intervals(axes: Axes) -> list[tuple[float, float]]:
    """(low, high) of every vertical error bar."""
    found = []
    for container in axes.containers:
        if isinstance(container, ErrorbarContainer):
            (lines,) = container.lines[2]
            assert isinstance(lines, LineCollection)
            found += [(segment[0][1], segment[1][1]) for segment in lines.get_segments()]
    return found


def hatched(axes: Axes) -> int:
    return sum(patch.get_hatch() == MISSING_HATCH for patch in axes.patches)


# --- one model


def test_bars_intervals_and_points_are_the_numbers_and_a_missing_cell_is_hatched_and_named():
    plot = figures.shamir_comparison(one_model(), "charlm")
    (axes,) = axes_of(plot)
    half = 4.302652729911275 * math.sqrt(0.04 / 3)
    assert [height for height, _ in bars(axes)] == pytest.approx([0.5, 0.5])
    assert intervals(axes) == [pytest.approx((0.5 - half, 0.5 + half))] * 2
    dots = [list(line.get_ydata()) for line in axes.lines if line.get_marker() == "o"]
    assert dots == [[0.4, 0.5, 0.6]] * 2
    assert axes.get_ylim()[0] == 0
    assert hatched(axes) == 1
    assert "missing" in [text.get_text() for text in axes.texts]
    assert "swish missing" in plot.alt


def test_a_layout_is_drawn_without_last_bits_which_are_others_in_each_process(monkeypatch: pytest.MonkeyPatch):
    drawn, draw = [], FigureCanvasAgg.draw

    def noted(canvas: FigureCanvasAgg) -> None:
        draw(canvas)
        drawn.append([axes.get_position(original=True).bounds for axes in canvas.figure.axes])

    monkeypatch.setattr(FigureCanvasAgg, "draw", noted)
    plot = figures.shamir_comparison(one_model())
    first = plot.png()
    assert np.array(drawn[0]) == pytest.approx(np.round(drawn[0], 6), abs=1e-12)
    # A figure that somebody goes on with is laid out again.
    axes_of(plot)[0].set_ylabel("a label\n" * 5)
    assert plot.png() != first
    assert drawn[0][0][0] < drawn[1][0][0]


def test_a_notebook_gets_a_small_png_that_looks_the_same_whatever_the_readers_settings():
    plot = figures.shamir_comparison(one_model())
    exact = io.BytesIO()
    with mpl.style.context(STYLE):
        plot.figure.savefig(exact, format="png", dpi=DPI)
    small = plot.png()
    data, metadata = plot._repr_mimebundle_()
    assert base64.b64decode(data["image/png"]) == small
    assert metadata["image/png"] == {"width": 900, "alt": plot.alt}
    assert data["text/plain"] == plot.alt
    with mpl.rc_context({"font.size": 30, "axes.grid": False, "savefig.dpi": 20, "lines.linewidth": 9}):
        before = dict(mpl.rcParams)
        assert figures.shamir_comparison(one_model()).png() == small
        assert dict(mpl.rcParams) == before
    assert len(small) < len(exact.getvalue()) / 2
    shown, meant = (np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), dtype=float) for png in (small, exact.getvalue()))
    assert shown.shape == meant.shape
    # Of 255; a colour of the palette may be off by a little, no line may be lost.
    assert np.abs(shown - meant).max() <= 24
    assert np.abs(shown - meant).mean() < 1


def test_a_picture_is_drawn_once_for_all_who_show_it_and_anew_where_anything_in_it_is_other(tmp_path: Path):
    (tmp_path / "notebooks").mkdir()  # where there are none, nothing is kept
    alone, kept = one_model(), replace(one_model(), folder=tmp_path)
    first = figures.shamir_comparison(kept)
    assert (first.png(), first.alt) == (figures.shamir_comparison(alone).png(), figures.shamir_comparison(alone).alt)
    (file,) = (tmp_path / "derived").iterdir()
    written = file.stat().st_mtime_ns
    # As part of a larger study, as the summary has it, it is the same picture; nothing is drawn for it.
    larger = replace(kept, models=(*kept.models, "convlm"))
    again = figures.shamir_comparison(larger, "charlm")
    assert (again.png(), again.alt, file.stat().st_mtime_ns) == (first.png(), first.alt, written)
    assert "_made" not in vars(again)
    # Whoever takes the figure and changes it sees that.
    again.figure.text(0.5, 0.5, "mine")
    assert again.png() != first.png() == figures.shamir_comparison(kept).png()
    other = figures.shamir_comparison(replace(kept, identical=("charlm",)))
    assert "Negative control" in other.alt
    assert other.png() != first.png()


def test_without_a_number_or_an_interval_the_figure_says_why():
    for pairs, said in (((0.5,), "No intervals: N = 2"), ((), "No intervals: N = 1")):
        study = one_model(pairs=pairs)
        for draw in (figures.shamir_comparison, figures.accuracy, figures.reproducibility):
            plot = draw(study)
            assert not any(intervals(axes) for axes in axes_of(plot))
            assert said in words(plot)
        assert ("one trial" in words(figures.shamir_comparison(study))) == (not pairs)
    numbers = make_result().reproducibility_metrics | {"log_prob_pd": None, "log_prob_pd_1_2": None}
    every = axes_of(figures.reproducibility(one_model(reproducibility_metrics=numbers)))
    panel = next(axes for axes in every if axes.get_title(loc="left") == figures.heading("log_prob_pd"))
    assert not bars(panel)
    assert [text.get_text() for text in panel.texts].count("infinite") == 2


def test_curves_show_every_trial():
    plot = figures.training_curves(one_model(), "charlm")
    relu, gelu, swish = axes_of(plot)
    # Three trials, training and validation each, and the loss of the unigrams.
    assert len(relu.lines) == len(gelu.lines) == 7
    assert not swish.lines
    assert swish.patch.get_hatch() == MISSING_HATCH
    assert to_hex(relu.lines[0].get_color()) == COLOURS["relu"].lower()
    assert [line.get_ydata()[0] for line in relu.lines if line.get_linestyle() == "--"] == [3.3]


def test_what_a_reader_must_know_about_cells_is_on_the_figure():
    flagged = one_model(flags=["untrained: trial 1 has ..."])
    assert "flagged" in words(figures.shamir_comparison(flagged, "charlm"))
    assert "2 of 2 cells are flagged" in words(figures.multi_model_accuracy(flagged))
    cut = words(figures.multi_model_accuracy(Study.of([make_result("minigpt")], ["minigpt"], ["relu"])))
    assert "(cut)" in cut
    assert "Cut below their full size: all models." in cut
    mixed = Study.of([make_result("charlm", "relu"), make_result("charlm", "gelu", (0.5,))], ["charlm"], ["relu", "gelu"])
    plot = figures.shamir_comparison(mixed, "charlm")
    assert len(intervals(axes_of(plot)[0])) == 1
    assert "No line: fewer than 3 trials." in words(plot)
    assert "gelu 0.500 (no interval at N = 2)" in plot.alt


def test_a_study_of_one_result_is_enough_and_of_several_models_one_must_be_named():
    plot = figures.training_curves(Study.of([make_result(profile=None)]))
    assert (plot.name, len(axes_of(plot)), type(plot.figure)) == ("charlm_training_curves", 1, Figure)
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums(), "no global figure is left behind"
    with pytest.raises(ValueError, match="name one of the models: charlm, convlm"):
        figures.accuracy(Study.of(grid(), ["charlm", "convlm"], THREE))
    with pytest.raises(ValueError, match="no model 'minigpt' in this study"):
        figures.accuracy(one_model(), "minigpt")


# --- many models


@pytest.fixture(scope="module")
def study() -> Study:
    """charlm (relu missing), convlm, tinylstm (bit-identical) and minigpt, of which nothing is there."""
    results = [result for result in grid() if (result.model_name, result.activation) != ("charlm", "relu")]
    return Study.of(results, ["charlm", "convlm", "tinylstm", "minigpt"], THREE)


def test_the_set_of_figures_is_closed(study: Study):
    drawn = list(figures.all_plots(study))
    assert all(len(plot.alt) > 60 and re.search(r"\d\.\d", plot.alt) for plot in drawn), "the numbers are in the text too"
    names = ["shamir_cross_model_analysis", "multi_model_accuracy", "multi_model_reproducibility"]
    names += ["accuracy_vs_reproducibility"]
    # A model without any result has no figures of its own; those across models show it as missing.
    for model in ("charlm", "convlm", "tinylstm"):
        names += [f"{model}_{own}" for own in ("shamir_comparison", "accuracy", "reproducibility", "training_curves")]
    assert [plot.name for plot in drawn] == names
    for plot in figures.all_plots(Study.of([], ["charlm"])):
        assert not any(bars(axes) for axes in axes_of(plot)), "of nothing only gaps are drawn"
        assert "missing" in plot.alt or "no results yet" in plot.alt


def test_the_four_panels(study: Study):
    cells, boxes, cv, heat_map = axes_of(figures.shamir_cross_model_analysis(study))
    assert [round(height, 3) for height, _ in bars(cells)] == [0.6, 0.7, 0.5, 0.6, 0.7, 0.5, 0.5, 0.5]
    assert hatched(cells) == 4
    assert hatched(heat_map) == 4
    # Points of the boxes: gelu is in charlm and convlm; tinylstm is left out although it has results.
    points = [list(line.get_ydata()) for line in boxes.lines if line.get_marker() not in ("", "None", None)]
    assert points == [[0.5], pytest.approx([0.6, 0.6]), pytest.approx([0.7, 0.7])]
    # 2 of 3 cells: .6 and .7; and .5, .6, .7; sorted by CV, identical at 0, missing hatched.
    said = [text.get_text() for text in cv.texts]
    assert said == ["13.61 %", "7.69 % (2 of 3 cells)", "0.00 %, negative control", "missing"]
    assert [label.get_text() for label in cv.get_yticklabels()] == ["convlm", "charlm", "tinylstm", "minigpt"]
    assert [text.get_text() for text in heat_map.texts].count("missing") == 4


def test_trade_off_has_both_intervals_and_no_missing_cell(study: Study):
    left, right = axes_of(figures.accuracy_vs_reproducibility(study))
    containers = [container for container in left.containers if isinstance(container, ErrorbarContainer)]
    assert len(containers) == 8
    assert all(container.has_xerr and container.has_yerr for container in containers)
    assert len(right.lines) == 8


def test_identical_models_are_marked_and_colours_are_fixed_per_activation_whatever_is_shown(study: Study):
    every = figures.multi_model_reproducibility(study)
    assert "(control)" in words(every)
    assert "negative control" in every.alt
    assert "negative control" in words(figures.shamir_comparison(study, "tinylstm"))
    assert "negative control" not in words(figures.shamir_comparison(study, "charlm"))
    alone = figures.shamir_comparison(Study.of([make_result("charlm", "gelu", profile=None)]))
    assert [colour for _, colour in bars(axes_of(alone)[0])] == [COLOURS["gelu"].lower()]
    assert [colour for _, colour in bars(axes_of(every)[0])][:2] == [COLOURS["gelu"].lower(), COLOURS["swish"].lower()]
    assert set(COLOURS) == set(ACTIVATIONS)
    assert len(set(COLOURS.values())) == len(COLOURS)


@pytest.mark.parametrize("crowded", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_nothing_is_cut_off_and_no_text_is_tiny(crowded: bool):
    # All models and six activations: the most that has to find room.
    models = ("charlm", "minigpt", "nanotransformer", "convlm", "hybridlm")
    fullest = Study.of(grid(models, ("relu", "gelu", "swish", "swiglu", "smelu_1", "smelu_05")))
    tightest = (figures.accuracy_vs_reproducibility(fullest), figures.shamir_comparison(fullest, "nanotransformer"))
    for plot in tightest if crowded else figures.all_plots(fullest):
        with mpl.style.context(STYLE):
            plot.figure.draw_without_rendering()  # gives everything its place
        box = plot.figure.get_tightbbox()
        width, height = plot.figure.get_size_inches()
        assert min(box.x0, box.y0) >= -0.01, plot.name
        assert box.x1 <= width + 0.01, plot.name
        assert box.y1 <= height + 0.01, plot.name
        assert min(text.get_fontsize() for text in plot.figure.findobj(Text) if text.get_text()) >= 9, plot.name


def test_a_home_that_takes_no_files_is_no_news_on_every_page() -> None:
    nowhere = {"HOME": "/proc/nowhere", "XDG_CACHE_HOME": "", "XDG_CONFIG_HOME": "", "MPLCONFIGDIR": ""}
    line = [sys.executable, "-c", "from repro_lib.plots import activation_curves; activation_curves(['relu'], 1.0)"]
    done = subprocess.run(line, env=os.environ | nowhere, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
