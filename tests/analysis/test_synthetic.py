"""Synthetic results: made as chosen, estimated by hand-worked rules, and never where nobody asked for them."""

import math
import subprocess
import sys
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from matplotlib.collections import PathCollection
from pandas.testing import assert_frame_equal
from test_figures import words
from test_study import STARTED, digest, grid, make_result

from repro_lib.analysis.frames import METRICS, cells_frame, pairs_frame
from repro_lib.analysis.overviews import activations_overview, models_overview
from repro_lib.analysis.selection import select_comparable
from repro_lib.analysis.study import Study
from repro_lib.analysis.synthetic import ChosenPD, SyntheticError, fill_missing, make_synthetic, synthetic_result
from repro_lib.cli.main import main
from repro_lib.config import GRID_ACTIVATIONS, MODEL_DEFAULTS, Config, ConfigError
from repro_lib.metrics.prediction_difference import PAIR_METRICS
from repro_lib.plots import figures
from repro_lib.plots.style import SYNTHETIC_HATCH
from repro_lib.report import sentences, tables
from repro_lib.report.console_summary import summary_text, synthetic_summary
from repro_lib.store.schema import SYNTHETIC_MARK, EvaluationRecord, Result, ResultError
from repro_lib.store.store import Store

MODELS, THREE = ("charlm", "convlm", "tinylstm"), ("relu", "gelu", "swish")


def extreme(result: Result, **changes: object) -> Result:
    """A synthetic stand-in for the cell of a measured result, so extreme that no statistic could hide it."""
    other = make_result(result.model_name, result.activation, (1.9, 0.9, 1.4), losses=(0.5, 0.6, 0.7))
    return other.model_copy(update={"synthetic": True, "flags": ["synthetic: a test"], **changes})


@pytest.fixture(scope="module")
def real() -> Study:
    """charlm with relu missing; convlm; tinylstm, bit-identical, with swish missing."""
    return Study.of([r for r in grid() if (r.model_name, r.activation) not in GAPS], MODELS, THREE)


@pytest.fixture(scope="module")
def mixed(real: Study) -> Study:
    """The same with synthetic stand-ins in both gaps."""
    stand_ins = [extreme(r) for r in grid() if (r.model_name, r.activation) in GAPS]
    return Study.of([*real.results, *stand_ins], MODELS, THREE, include_synthetic=True)


GAPS = {("charlm", "relu"), ("tinylstm", "swish")}


@pytest.fixture(scope="module")
def made_up() -> Study:
    """Nothing but synthetic results."""
    chosen = ChosenPD.parse(["0.5", "gelu=0.6", "convlm=0.7"])
    return Study.of(make_synthetic(MODELS, THREE, chosen), MODELS, THREE)


def saved(folder: Path, *results: Result) -> Store:
    store = Store(folder)
    for result in results:
        store.save(result)
    return store


@pytest.mark.parametrize("model", MODEL_DEFAULTS)
def test_a_made_up_result_is_a_valid_file_that_says_what_it_is(model: str, tmp_path: Path) -> None:
    profile = "smoke" if model == "charlm" else "quick"
    result = synthetic_result(model, "smelu_0.5", 0.7, profile=profile)
    ((path, read),), refused = saved(tmp_path, result).load()
    assert (read, refused, read.synthetic) == (result, [], True)
    assert path.name.startswith(f"{model}-smelu_05-")
    assert read.flags[0].startswith("synthetic: made up")
    assert [trial.seed for trial in read.trials] == [42, 43, 44]
    assert read.avg_val_loss < read.evaluation.unigram_cross_entropy
    invented = [read.corpus.sha256, read.evaluation.sha256]
    invented += [trial[f"{kind}_sha256"] for trial in read.trials for kind in ("init", "weights", "predictions")]
    assert all(name.startswith(SYNTHETIC_MARK) for name in invented)
    assert len(set(invented)) == len(invented)
    assert read.config_sha256 == Config.for_model(model, profile, corpus="synthetic").sha256(read.corpus.sha256)


@given(st.floats(0.001, 1.999), st.integers(2, 12), st.floats(0, 1), st.integers(0, 10_000), st.sampled_from(MODELS[:2]))
def test_the_chosen_pd_is_exact_and_all_else_possible(chosen: float, trials: int, spread: float, seed: int, model: str) -> None:
    result = synthetic_result(model, "gelu", chosen, trials=trials, seed=seed, spread=spread)
    assert result.avg_relative_pd == chosen
    assert cells_frame([result], [model], ["gelu"])["relative_pd"].iloc[0] == pytest.approx(chosen, rel=1e-14)
    errors = [1 - trial.val_accuracy / 100 for trial in result.trials]
    frame = pairs_frame([result])
    assert len(frame) == trials * (trials - 1) // 2
    for name in METRICS & result.reproducibility_metrics.keys():
        assert frame[name].between(0, PAIR_METRICS[name].largest).all()
        assert result.reproducibility_metrics[name] == pytest.approx(frame[name].mean())
    for _, pair in frame.iterrows():
        first, second = errors[pair["first"] - 1], errors[pair["second"] - 1]
        assert abs(first - second) - 1e-12 <= pair["churn"] <= first + second
        assert pair["total_variation"] ** 2 / 2 <= pair["js_divergence"] <= math.log(2) * pair["total_variation"]
        assert pair["log_prob_pd"] >= pair["true_label_pd"]
    assert 0 < result.mean_deviation_pd <= 2 * (trials - 1) / trials  # pyright: ignore[reportOptionalOperand]
    assert trials > 2 or result.mean_deviation_pd == chosen / 2


def test_pairs_that_share_a_trial_go_together_and_equal_requests_give_equal_numbers(made_up: Study) -> None:
    values = synthetic_result("charlm", "relu", 0.5, trials=4, spread=0.3).pairs()
    assert len(set(values.values())) == 6
    # exp(e_i + e_j): the products over disjoint pairs of trials are equal.
    products = [values[1, 2] * values[3, 4], values[1, 3] * values[2, 4], values[1, 4] * values[2, 3]]
    assert products == pytest.approx([products[0]] * 3)
    first, second = (synthetic_result("charlm", "relu", 0.5, timestamp=STARTED) for _ in range(2))
    other = synthetic_result("charlm", "relu", 0.5, timestamp=STARTED, seed=7)
    assert first == second
    assert first.pairs() != other.pairs()
    assert not {t.weights_sha256 for t in first.trials} & {t.weights_sha256 for t in other.trials}
    # Results of one call are comparable.
    assert len({result.comparison_key for result in made_up.results}) == 1
    assert len({(result.model_name, result.config_sha256) for result in made_up.results}) == len(MODELS)
    assert made_up.identical == ("tinylstm",)
    assert made_up.cells["relative_pd"].tolist() == pytest.approx([0.5, 0.6, 0.5, 0.7, 0.6, 0.7, 0.5, 0.5, 0.5])


def test_a_chosen_pd_counts_for_the_most_specific_name() -> None:
    chosen = ChosenPD.parse(["0.1", "charlm=0.2", "smelu_0.5=0.3", "charlm-gelu=0.4"])
    asked = [("convlm", "relu"), ("charlm", "relu"), ("convlm", "smelu_05"), ("charlm", "smelu_05"), ("charlm", "gelu")]
    # The negative control has no activation that a name could mean.
    assert [chosen.of(*cell) for cell in [*asked, ("tinylstm", "smelu_05")]] == [0.1, 0.2, 0.3, 0.3, 0.4, 0.1]


REFUSED = [("relative_pd", 0.0, "between 0 and 2"), ("trials", 501, "at most 500"), ("spread", -0.1, "spread")]
REFUSED += [("spread", math.nan, "spread"), ("trials", 0, "trials = 0"), ("max_iter", 3, "unknown parameter 'max_iter'")]


@pytest.mark.parametrize(("name", "value", "said"), REFUSED)
def test_what_cannot_be_made_is_refused(name: str, value: Any, said: str) -> None:
    # What the command line can ask for as well is refused below.
    with pytest.raises((SyntheticError, ConfigError), match=said):
        synthetic_result("charlm", "relu", **{name: value})


def test_only_asked_for_they_come_after_the_real_ones_where_these_are_gone(real: Study, mixed: Study, tmp_path: Path) -> None:
    extra = extreme(make_result("charlm", "gelu"), timestamp=STARTED + timedelta(days=1))
    store = saved(tmp_path, extra, *mixed.results)
    study = Study.load(store, MODELS, THREE)
    assert study.results == real.results
    assert summary_text(study) == summary_text(real)
    assert store.find("charlm", "relu", mixed.results[-1].config_sha256) is None
    study = Study.load(store, MODELS, THREE, include_synthetic=True)
    shown = [(result.model_name, result.activation) for result in study.results if result.synthetic]
    assert set(shown) == GAPS
    assert [result.synthetic for result in study.results] == sorted(result.synthetic for result in study.results)
    assert (study.is_mixed, study.is_synthetic) == (True, False)
    assert set(study.cells.set_index(["model", "activation"]).query("synthetic").index) == GAPS
    # Alone they are chosen by the rules for real ones.
    old, new = (synthetic_result("charlm", "relu", pd_, timestamp=STARTED + timedelta(hours=pd_)) for pd_ in (0.1, 0.9))
    assert select_comparable([new, old]) == []
    assert select_comparable([new, old], include_synthetic=True) == [new]


@pytest.mark.parametrize(
    "changes",
    [
        {"evaluation": EvaluationRecord(sha256=digest("other windows"), tokens=16_384, unigram_cross_entropy=3.3)},
        {"config_sha256": digest("other configuration")},
        {"config": make_result().config | {"vary": "init"}},
    ],
)
def test_a_stand_in_agrees_in_all_but_being_synthetic(real: Study, changes: dict[str, object]) -> None:
    cell = make_result("charlm", "relu")
    assert len(select_comparable([*real.results, extreme(cell)], include_synthetic=True)) == len(real.results) + 1
    assert select_comparable([*real.results, extreme(cell, **changes)], include_synthetic=True) == list(real.results)
    if "config_sha256" not in changes:
        with pytest.raises(ResultError, match="do not belong in one statistic"):
            Study.of([*real.results, extreme(cell, **changes)], include_synthetic=True)


def test_a_cell_measured_later_replaces_its_stand_in(mixed: Study, tmp_path: Path) -> None:
    store = saved(tmp_path, *mixed.results, make_result("charlm", "relu", timestamp=STARTED - timedelta(days=1)))
    study = Study.load(store, MODELS, THREE, include_synthetic=True)
    cell = study.result("charlm", "relu")
    assert cell is not None
    assert not cell.synthetic
    text = synthetic_summary(store.load()[0])
    assert "replaced: the cell is measured" in next(line for line in text.splitlines() if "| charlm | relu |" in line)
    assert "shown only where asked for" in next(line for line in text.splitlines() if "| tinylstm | swish |" in line)


def test_statistics_across_cells_are_those_without_the_synthetic_cells(real: Study, mixed: Study) -> None:
    assert_frame_equal(models_overview(mixed), models_overview(real))
    assert_frame_equal(activations_overview(mixed), activations_overview(real))
    assert mixed.identical == real.identical == ("tinylstm",)
    for table in (tables.models_table, tables.activations_table):
        assert_frame_equal(table(mixed), table(real))
    said = [[say(study) for say in (sentences.about, sentences.flagged, sentences.identical)] for study in (mixed, real)]
    for sentence, study in zip(said, (mixed, real), strict=True):
        sentence += [sentences.ends(study, model) for model in MODELS]
    assert said[0] == said[1]


def test_every_synthetic_number_is_marked_and_no_other(mixed: Study) -> None:
    table = tables.cells_table(mixed)
    for cell, row in table.iterrows():
        for name in table.columns.drop("Flags", errors="ignore"):
            assert ("synthetic" in str(row[name])) == (cell in GAPS), (cell, name)
    overview = tables.overview_table(mixed.cells)
    assert overview.map(lambda text: "synthetic" in text).sum(axis=None) == 2
    assert "synthetic" in overview.loc["charlm", "relu"]
    marked = [line for line in summary_text(mixed).splitlines() if "(SYNTHETIC, not measured)" in line]
    assert [line.split()[0] for line in marked] == ["RELU:", "SWISH:"]
    assert not any("BEST" in line for line in marked)
    assert "no statistic across cells: charlm with relu, tinylstm with swish." in sentences.missing(mixed)
    assert "No cell is missing" not in sentences.missing(mixed)
    # Tables of one synthetic result say so as well.
    result = synthetic_result("charlm", "relu", 0.5)
    assert list(tables.summary_table(result).columns) == ["charlm with relu (synthetic)"]
    for table in (tables.trials_table, tables.pairs_table, tables.config_table):
        assert "(synthetic)" in str(table(result).columns.name)
        assert "synthetic" not in str(table(make_result()).columns.name)


def test_synthetic_cells_are_hatched_and_named_in_every_panel(mixed: Study) -> None:
    def hatched(patches: Iterable[Any]) -> int:
        return [patch.get_hatch() for patch in patches].count(SYNTHETIC_HATCH)

    for draw in (figures.multi_model_reproducibility, figures.multi_model_accuracy):
        for panel in draw(mixed).figure.axes:
            assert hatched(panel.patches) == 2
            assert [text.get_text() for text in panel.texts].count("synthetic") == 2
    _, boxes, cv, heat_map = figures.shamir_cross_model_analysis(mixed).figure.axes
    assert hatched(heat_map.patches) == sum("synthetic" in text.get_text() for text in heat_map.texts) == 2
    assert hatched([*boxes.patches, *cv.patches]) == 0
    for panel in figures.accuracy_vs_reproducibility(mixed).figure.axes:
        assert [c.get_hatch() for c in panel.collections if isinstance(c, PathCollection)] == [3 * SYNTHETIC_HATCH] * 2
    curves = figures.training_curves(mixed, "charlm").figure.axes
    assert [panel.patch.get_hatch() for panel in curves] == [SYNTHETIC_HATCH, None, None]
    assert "relu, N = 3, synthetic" in [panel.get_title(loc="left") for panel in curves]


def test_figures_of_a_mixed_study_say_which_and_alternative_texts_too(real: Study, mixed: Study) -> None:
    for plot in figures.all_plots(mixed):
        synthetic = not plot.name.startswith("convlm")
        assert words(plot).startswith("PARTLY SYNTHETIC: ") == synthetic, plot.name
        assert ("synthetic, not measured" in words(plot)) == synthetic, plot.name
        assert ("SYNTHETIC" in plot.alt) == synthetic, plot.name
        if plot.name in ("shamir_cross_model_analysis", "charlm_training_curves"):
            # The notice that names the cells is the longest text there is, and nothing of it may be cut off.
            plot.png()
            box, (width, height) = plot.figure.get_tightbbox(), plot.figure.get_size_inches()
            assert min(box.x0, box.y0, width - box.x1, height - box.y1) >= -0.01, plot.name
    assert "charlm from gelu 0.600 to swish 0.700" in figures.multi_model_reproducibility(mixed).alt
    ranges = figures.accuracy_vs_reproducibility(real).alt
    assert figures.accuracy_vs_reproducibility(mixed).alt.startswith(ranges)
    # Boxes and CV, which are statistics across cells, are those of the measured ones.
    axes = [figures.shamir_cross_model_analysis(study).figure.axes for study in (real, mixed)]
    for first, second in list(zip(*axes, strict=True))[1:3]:
        assert [text.get_text() for text in first.texts] == [text.get_text() for text in second.texts]
        assert [list(line.get_ydata()) for line in first.lines] == [list(line.get_ydata()) for line in second.lines]


def test_a_study_of_synthetic_results_is_computed_and_labelled_everywhere(made_up: Study) -> None:
    overview = models_overview(made_up).set_index("model")
    assert overview.loc["convlm", "best"] == "gelu"
    assert overview.loc["charlm", "cv"] == pytest.approx(100 * np.std([0.5, 0.6, 0.5]) / np.mean([0.5, 0.6, 0.5]))
    text = summary_text(made_up)
    assert text.startswith("ALL NUMBERS BELOW ARE SYNTHETIC")
    for line in text.splitlines():
        if line.startswith(("MODEL", "STATISTICS", "ACTIVATIONS", "RUNTIME")) or "Relative PD: " in line:
            assert "SYNTHETIC" in line
    for table in (tables.cells_table, tables.models_table, tables.activations_table):
        assert table(made_up).columns.name == "SYNTHETIC"
    for plot in figures.all_plots(made_up):
        assert words(plot).startswith("SYNTHETIC: "), plot.name
        assert "SYNTHETIC" in plot.alt, plot.name
        assert "synthetic, not measured" in words(plot), plot.name


def small_grid() -> list[Result]:
    """charlm .4 .6 -, convlm .3 .5 .4, hybridlm .2 - .6 for relu, gelu, swish; losses five times and accuracy 50 all over."""
    values = {("charlm", "relu"): 0.4, ("charlm", "gelu"): 0.6, ("convlm", "relu"): 0.3, ("convlm", "gelu"): 0.5}
    values |= {("convlm", "swish"): 0.4, ("hybridlm", "relu"): 0.2, ("hybridlm", "swish"): 0.6}
    return [make_result(*cell, (pd_,) * 3, losses=(pd_ * 5,) * 3, profile=None) for cell, pd_ in values.items()]


def test_a_gap_gets_the_means_of_its_model_and_its_conditions_and_no_interval(tmp_path: Path) -> None:
    saved(tmp_path, *small_grid())
    made, refused = fill_missing(tmp_path)
    assert refused == []
    values = {(r.model_name, r.activation): (r.avg_relative_pd, r.avg_val_loss) for r in made}
    assert values == {("charlm", "swish"): pytest.approx((0.5, 2.5)), ("hybridlm", "gelu"): pytest.approx((0.4, 2.0))}
    stand_in, neighbour = made[0], small_grid()[0]
    flag = "synthetic: nothing was trained, relative PD 0.5000 is the mean of charlm over relu, gelu"
    assert (stand_in.flags, stand_in.synthetic) == ([flag], True)
    assert Result.from_json(stand_in.to_json()) == stand_in
    assert stand_in.measured_key == neighbour.comparison_key != stand_in.comparison_key
    assert stand_in.config_sha256 == neighbour.config_sha256
    cell = cells_frame([stand_in], ["charlm"], ["swish"]).iloc[0]
    assert cell[["relative_pd_low", "val_loss_low"]].isna().all()
    assert all(trial.weights_sha256.startswith(SYNTHETIC_MARK) for trial in stand_in.trials)
    assert stand_in.environment["neighbours"] == "charlm-relu-20260101_000000, charlm-gelu-20260101_000000"
    # What is there is not made again, and no stand-in rests on another one.
    saved(tmp_path, *made)
    assert fill_missing(tmp_path) == ([], [])
    # Without neighbours nothing is filled, and the others are.
    saved(tmp_path / "some", *small_grid())
    with pytest.raises(SyntheticError, match=r"^nothing of minigpt is measured.*train one first$"):
        fill_missing(tmp_path / "some", ["minigpt"])
    made, refused = fill_missing(tmp_path / "some", ["charlm", "minigpt"])
    assert [(result.model_name, result.activation) for result in made] == [("charlm", "swish")]
    assert len(refused) == 1
    saved(tmp_path / "single", make_result("charlm", "relu", ()), make_result("charlm", "gelu", ()))
    with pytest.raises(SyntheticError, match="nothing measured is in"):
        fill_missing(tmp_path / "single")


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    return ["--results-dir", str(tmp_path / "results"), "--reports-dir", str(tmp_path / "reports")]


def test_synthesize_writes_results_and_a_summary_and_nothing_else_shows_them(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = ["--models", "charlm", "convlm", "--activations", "relu", "smelu_0.5"]
    values = ["--trials", "4", "--relative-pd", "0.3", "convlm=0.8", "--seed", "7"]
    assert main(["synthesize", *cells, *values, *folders]) == 0
    stored = Store(tmp_path / "results").load()[0]
    made = sorted((r.model_name, r.activation, r.avg_relative_pd, len(r.trials), r.config["seed"]) for _, r in stored)
    expected = [(model, name, pd_, 4, 7) for model, pd_ in (("charlm", 0.3), ("convlm", 0.8)) for name in ("relu", "smelu_05")]
    assert made == expected
    summary = (tmp_path / "reports" / "SYNTHETIC_DATA_SUMMARY.md").read_text()
    parts = [f"| {path.name} | {result.model_name} | {result.activation} |" for path, result in stored]
    parts += [result.flags[0] for _, result in stored]
    assert all(part in summary for part in [*parts, "**Not for**", "4 synthetic results are in the store"])
    capsys.readouterr()
    assert main(["process", *folders]) == 2
    assert "but 4 synthetic ones" in capsys.readouterr().err
    assert main(["status", "--models", "charlm", "--activations", "relu", *folders]) == 1
    assert "0 of 1 cell done" in capsys.readouterr().out
    assert not (tmp_path / "reports" / "summary.txt").exists()
    # Without names the whole grid of a profile is made.
    assert main(["synthesize", "--profile", "study", *folders]) == 0
    study = Study.load(Store(tmp_path / "results"), profile="study", include_synthetic=True)
    assert len(study.results) == 5 * len(GRID_ACTIVATIONS) == len(study.cells)
    assert (study.cells["relative_pd"] - 0.5).abs().max() < 1e-14


def test_process_shows_them_in_their_own_folder(folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["synthesize", "--models", "charlm", "--activations", "relu", "gelu", *folders]) == 0
    words = ["--models", "charlm", "--activations", "relu", "gelu", "--include-synthetic"]
    assert main(["process", *words, *folders]) == 0
    assert "MODEL: CHARLM (SYNTHETIC)" in capsys.readouterr().out
    folder = tmp_path / "reports" / "with_synthetic"
    assert folder.joinpath("summary.txt").read_text().startswith("ALL NUMBERS BELOW ARE SYNTHETIC")
    assert "SYNTHETIC" in folder.joinpath("plots", "charlm_shamir_comparison.txt").read_text()
    assert not (tmp_path / "reports" / "plots").exists()


def test_missing_fills_the_gaps_once(folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved(tmp_path / "results", *small_grid())
    for models, said in ("--models charlm", "charlm-swish: synthetic"), ("", "hybridlm-gelu: synthetic"), ("", "0 synthetic"):
        assert main(["synthesize", "--missing", *models.split(), *folders]) == 0
        assert said in capsys.readouterr().out
    assert len(Store(tmp_path / "results").load()[0]) == 9


BAD_INPUT = {
    "--relative-pd nan": "a relative PD lies between 0 and 2",
    "--relative-pd much": "a number or as NAME=number, got 'much'",
    "--relative-pd rleu=0.5": "--relative-pd names 'rleu'",
    "--relative-pd gpt-relu=0.5": "unknown model 'gpt'",
    "--relative-pd 0.5 0.6": "given twice",
    "--relative-pd convlm=0.5 --models charlm": "names convlm, which no cell",
    "--activations rleu": "unknown activation 'rleu'",
    "--trials 1": "at least 2",
    "--missing": "nothing measured is in",
    "--missing --relative-pd 0.5": "leave out --relative-pd",
}


def test_bad_input_is_a_sentence_and_no_file(folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for flags, said in BAD_INPUT.items():
        assert main(["synthesize", *flags.split(), *folders]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert (error.startswith("repro: "), error.count("\n")) == (True, 1)
    assert not list(tmp_path.rglob("*.json"))


def test_an_empty_summary_says_so_and_foreign_text_keeps_the_table_whole() -> None:
    assert "There is none in the store." in synthetic_summary([(Path("a.json"), make_result())])
    hostile = extreme(make_result(), flags=["synthetic: a | b\n| c"])
    rows = [line for line in synthetic_summary([(Path("a.json"), hostile)]).splitlines() if line.startswith("| a.json")]
    assert [row.replace("\\|", "").count("|") for row in rows] == [9]
    silent = synthetic_summary([(Path("a.json"), make_result(pairs=(), synthetic=True))])
    assert all(part in silent for part in ("| – (synthetic) | 1 |", "the file does not say"))


@pytest.mark.slow
def test_the_benchmark_runs() -> None:
    words = [sys.executable, "-m", "benchmarks.results_scale", "--files", "30"]
    done = subprocess.run(words, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert (done.returncode, "draw every figure" in done.stdout) == (0, True), done.stderr
