"""Grids over other arms than activations: what is planned, what is refused, and the whole chain from a flag to a page."""

import contextlib
import dataclasses
import io
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from repro_lib.analysis.evidence import Evidence
from repro_lib.analysis.study import Study
from repro_lib.cli.main import main
from repro_lib.cli.parser import cells_asked_for, parse
from repro_lib.config import PROFILES, ConfigError
from repro_lib.grid.arms import plan_design
from repro_lib.grid.cells import GridRequest
from repro_lib.grid.tasks import Tasks
from repro_lib.store.designs import Design, load_design, note_design
from repro_lib.store.schema import ResultError
from repro_lib.store.store import Store


def request(corpus: Path, folder: Path, *factor: str, activations: tuple[str, ...] = ("relu",), **changes: Any) -> GridRequest:
    folders = {"results_dir": folder / "results", "reports_dir": folder / "reports"}
    overrides = {"corpus": str(corpus), "trials": 2} | changes.pop("overrides", {})
    asked = GridRequest(["charlm"], activations, "smoke", overrides, 1, **folders, factor=factor)
    return dataclasses.replace(asked, **changes)


def arms(corpus: Path, *factor: str, **changes: Any) -> tuple[list[str], str | None]:
    cells, design = plan_design(request(corpus, Path("unused"), *factor, **changes))
    return [cell.name for cell in cells], design and design.reference


def test_arms_are_the_values_of_a_setting_alone_or_crossed_with_activations(corpus_file: Path, tmp_path: Path) -> None:
    names = ["dropout 0", "dropout 0.1", "dropout 0.3"]
    assert arms(corpus_file, "dropout", "0", "0.1", "0.3", "0.10") == (names, "dropout 0")
    assert arms(corpus_file, "dropout", "0", "0.1", reference="0.1") == (names[:2], "dropout 0.1")
    crossed = ["gelu, n_layer 1", "gelu, n_layer 2", "relu, n_layer 1", "relu, n_layer 2"]
    assert arms(corpus_file, "n_layer", "1", "2", activations=("gelu", "relu")) == (crossed, "relu, n_layer 1")
    assert arms(corpus_file, "n_layer", "1", "2", activations=("gelu", "relu"), reference="gelu") == (crossed, crossed[0])
    cells, _ = plan_design(request(corpus_file, tmp_path, "batch_size", "x1", "x3"))
    assert [cell.config.batch_size for cell in cells] == [4, 12]
    assert [cell.label for cell in cells] == ["charlm-relu-batch-size-x1", "charlm-relu-batch-size-x3"]
    assert {cell.config.sources["batch_size"] for cell in cells} == {"arm"}, "nobody takes it for a run by hand"
    # Activations against relu are a grid as ever, and against another one a design of the same cells.
    assert arms(corpus_file, activations=("relu", "gelu")) == (["relu", "gelu"], None)
    assert arms(corpus_file, activations=("relu", "gelu"), reference="gelu") == (["relu", "gelu"], "gelu")


@pytest.mark.parametrize(
    ("factor", "said"),
    [
        (("dropuot", "0", "1"), "did you mean dropout"),
        (("tokens", "bytes", "characters"), "is no setting that arms could differ in"),
        (("corpus", "a", "b"), "is no setting that arms could differ in"),
        (("dropout", "0"), "needs two different values"),
        (("dropout", "0", "1.5"), "dropout = 1.5 is not possible"),
        (("n_layer", "1", "many"), "takes whole numbers, got 'many'"),
        (("n_layer", "x1", "xx"), "no multiple"),
        (("batch_size", "4", "x1"), "are the same"),
        (("ema_decay", "0", "1"), "ema_decay = 1.0 is not possible"),
    ],
)
def test_what_no_arm_can_be_is_one_sentence_before_anything_runs(
    factor: tuple[str, ...], said: str, corpus_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = ["--results-dir", str(tmp_path / "r"), "--reports-dir", str(tmp_path / "s")]
    words = ["grid", "--profile", "smoke", "--models", "charlm", "--corpus", str(corpus_file), "--factor", *factor, *folders]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_reference_that_is_no_arm_and_arms_that_a_model_cannot_have_are_refused(corpus_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'swish' is no arm of this grid; its arms: relu, gelu"):
        arms(corpus_file, activations=("relu", "gelu"), reference="swish")
    with pytest.raises(ConfigError, match="nanotransformer has no dropout"):
        plan_design(request(corpus_file, tmp_path, "dropout", "0", "0.1", models=["nanotransformer"]))
    with pytest.raises(ConfigError, match="not possible with execution = 'stacked'"):
        plan_design(request(corpus_file, tmp_path, "ema_decay", "0", "0.9", overrides={"execution": "stacked"}))
    with pytest.raises(ConfigError, match="profile helps has arms of its own"):
        plan_design(request(corpus_file, tmp_path, "dropout", "0", "0.1", profile="helps"))


def test_the_sets_of_profiles_can_be_trained_and_what_they_need_comes_first() -> None:
    sets = tomllib.loads(Path("repro_lib/grid/arms.toml").read_text())
    assert {profile["arms"] for profile in PROFILES.values() if "arms" in profile} == set(sets)
    assert all(" " in name for of in sets.values() for name in of), "or it would be taken for an activation"
    for name in (name for name, profile in PROFILES.items() if "arms" in profile):
        tasks = Tasks(cells_asked_for(parse(["status", "--profile", name])), Path("unused"))
        labels = [cell.label for cell in (*tasks.cells, *tasks.variants)]
        assert len(set(labels)) == len(labels)
        assert {need for cell in tasks.cells for need in cell.needs} <= set(labels)
    needs = {cell.label: cell.needs for cell in tasks.cells}
    assert not any(needs.values()), "a fork needs no other model"
    tasks = Tasks(cells_asked_for(parse(["status", "--profile", "helps", "--trials", "3"])), Path("unused"))
    needs = {cell.label: cell.needs for cell in tasks.cells}
    assert needs["charlm-relu-ensemble-of-2"] == ("charlm-relu-as-it-is", "charlm-relu-seed-1042")
    assert needs["convlm-relu-warm-start"] == ("convlm-relu-seed-1042-text-0.75",)
    trials = {cell.label: cell.config.trials for cell in tasks.variants}
    assert trials["charlm-relu-seed-1042"] == 3, "an anchor needs one of its trials, an ensemble all"
    assert trials["charlm-relu-seed-1042-text-0.75"] == 1


def test_a_design_is_read_as_it_was_noted_and_a_damaged_one_is_refused(corpus_file: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    _, design = plan_design(request(corpus_file, tmp_path, "dropout", "0", "0.1"))
    assert load_design(store) is None
    note_design(store, design)
    store.note_grid(["a"], factor="dropout")
    assert load_design(store) == load_design(store, "dropout") == design
    with pytest.raises(ConfigError, match=r"no grid over 'batch_size' was run in .*; known: activation, dropout"):
        load_design(store, "batch_size")
    store.note_grid(["a"])
    assert load_design(store) is None, "the newest grid was over activations"
    path = store.declared("arms-dropout.json")
    path.write_text(path.read_text().replace("dropout 0.1", "dropout 0.2"))
    with pytest.raises(ResultError, match="run that grid again"):
        load_design(store, "dropout")


@pytest.fixture(scope="module")
def dropout_grid(corpus_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dropout")
    words = ["grid", "--profile", "smoke", "--models", "charlm", "tinylstm", "--corpus", str(corpus_file), "--trials", "3"]
    words += ["--factor", "dropout", "0", "0.1", "0.3", "--reference", "0.1", "--lengths", "0.5"]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main([*words, "--results-dir", str(folder / "results"), "--reports-dir", str(folder / "reports")]) == 0
    assert "Not decided: a verdict takes 10 trials, and there are 3." in printed.getvalue()
    return folder


@pytest.mark.slow
@pytest.mark.xdist_group("grid")
def test_a_grid_over_dropout_has_tables_figures_verdicts_an_index_and_what_ifs(dropout_grid: Path) -> None:
    pages = {path.stem: path.read_text() for path in (dropout_grid / "reports").glob("*.html")}
    for name in ("index", "20_deep_dive-charlm", "30_cross_model", "50_what_if", "70_what_helps"):
        assert "dropout 0.3" in pages[name], name
    assert "differences from dropout 0.1" in pages["30_cross_model"]
    summary = (dropout_grid / "reports" / "summary.txt").read_text()
    assert "CONTRASTS AGAINST DROPOUT 0.1" in summary
    assert "not decided" in summary
    assert "activation" not in summary.lower(), "it is about arms"
    conclusions = (dropout_grid / "reports" / "FINAL_CONCLUSIONS.md").read_text()
    assert re.search(r"\| charlm \| dropout 0\.3 \| 3 \| .* \| not decided \|", conclusions)
    assert "not shown" not in pages["index"], "all that was run stands there"
    assert (dropout_grid / "reports" / "plots" / "charlm_shamir_comparison.png").exists()


@pytest.mark.slow
@pytest.mark.xdist_group("grid")
def test_the_study_of_a_folder_is_that_of_its_arms_and_any_factor_can_be_asked_for(dropout_grid: Path) -> None:
    store = Store(dropout_grid / "results")
    study = Study.load(store)
    assert (study.factor, study.reference) == ("dropout", "dropout 0.1")
    assert study.activations == ("dropout 0", "dropout 0.1", "dropout 0.3")
    assert study.own_runs == ()
    assert {r.config["dropout"] for r in study.results} == {0.0, 0.1, 0.3}
    evidence = Evidence.load(store, study)
    for arm in study.activations:
        assert [run.config["max_iters"] for run in evidence.runs_by("max_iters", "charlm", arm)] == [4, 2]
    assert set(study.contrasts["reference"]) == {"dropout 0.1"}
    assert "tinylstm" in set(study.contrasts["model"]), "its dropout does something, unlike its activation"
    assert len(Study.load(store, activations=["dropout 0"]).results) == 2
    with pytest.raises(ConfigError, match="'gelu' is no arm of the grid over dropout; its arms: dropout 0, "):
        Study.load(store, activations=["gelu"])
    assert Study.load(store, factor="activation").factor == "activation"
    noted = load_design(store, "dropout")
    assert isinstance(noted, Design)
    assert len(noted.cells) == 6
