"""The grid end to end: real workers, real kernels, real notebooks, real pages."""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from grids import SMOKE_GRID, Folder, store_digests
from kinds import MakeResult

from repro_lib.config import Config, ConfigError
from repro_lib.data import corpus_sha256
from repro_lib.grid.cells import GridRequest, plan_cells, plan_variants
from repro_lib.grid.snakemake.executor import plan_jobs
from repro_lib.grid.tasks import Tasks
from repro_lib.report.notebook_names import ANALYSES
from repro_lib.store.store import Store


def page_text(folder: Path, name: str) -> str:
    return (folder / "reports" / f"{name}.html").read_text()


def time_stamps(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_plan_has_each_cell_once_under_its_canonical_name(corpus_file: Path) -> None:
    cells = plan_cells(["charlm", "convlm", "charlm"], ["relu", "smelu_0.5", "smelu_05"], "smoke", {"corpus": str(corpus_file)})
    assert [cell.label for cell in cells] == ["charlm-relu", "charlm-smelu_05", "convlm-relu", "convlm-smelu_05"]
    assert cells[0].config_sha256 == cells[1].config_sha256
    assert [len(plan_cells([], ["relu"], profile, {})) for profile in ("quick", "study")] == [6, 5]


def test_variants_are_of_the_profiles_models_or_of_those_asked_for(corpus_file: Path) -> None:
    overrides: dict[str, Any] = {"corpus": str(corpus_file)}
    request = GridRequest([], ["relu", "gelu", "swish"], "quick", overrides, 1, Path(), Path())
    cells = plan_cells([], request.activations, "quick", overrides)
    labels = [cell.label for cell in plan_variants(cells, request)]
    sources = [f"charlm-gelu-vary-{source}" for source in ("init", "order", "dropout", "bit", "none")]
    assert sorted(labels) == sorted([*sources, *(f"charlm-{a}-{n}-iterations" for a in ("relu", "gelu") for n in (15, 30))])
    # nanotransformer has no dropout to vary; the lengths are of its own run.
    asked = plan_variants(cells, replace(request, noise_models=["nanotransformer"]))
    assert "nanotransformer-gelu-vary-dropout" not in [cell.label for cell in asked]
    assert len(asked) == 4 + 4
    none = replace(request, noise_models=[])
    assert plan_variants(cells, none) == []
    assert plan_variants(cells, replace(request, overrides=overrides | {"vary": "init"})) == []
    with pytest.raises(ConfigError, match="unknown model 'gpt'"):
        plan_variants(cells, replace(request, noise_models=["gpt"]))
    # Other lengths and rates that were asked for are of every cell, but of the one model that has no activation.
    cells = plan_cells(["charlm", "tinylstm"], ["relu", "swish"], "quick", overrides)
    labels = [cell.label for cell in plan_variants(cells, replace(none, lengths=[0.001, 1, 1.2], rates=[0.5, 1]))]
    assert labels == [f"charlm-{a}-{of}" for a in ("relu", "swish") for of in ("72-iterations", "rate-0.0035")]
    # Their configurations differ from the grid's in that one value.
    whole = {cell.config_sha256 for cell in cells}
    assert not whole & {cell.config_sha256 for cell in asked}


def test_analyses_run_where_they_have_something_to_compare(corpus_file: Path, tmp_path: Path, make_result: MakeResult) -> None:
    def tasks_of(*models: str, activations: tuple[str, ...] = ("relu",), asked: tuple[str, ...] = ()) -> Tasks:
        overrides, folders = {"corpus": str(corpus_file)}, (tmp_path / "results", tmp_path / "reports")
        request = GridRequest(models, activations, "smoke", overrides, 1, *folders, noise_models=(), analyses=asked)
        return Tasks(request, tmp_path)

    def analyses(*models: str, **which: Any) -> list[str]:
        tasks, reports = tasks_of(*models, **which), tmp_path / "reports"
        # What is planned is what is done, and what the site expects.
        todo = [job.key for job in tasks.to_do() if job.cell is None]
        assert todo == [*(f"20_deep_dive-{model}" for model in models), *tasks.analysis_names, "plots and summary"]
        planned = [key for key, job in plan_jobs(tasks).items() if job["kind"] == "analysis"]
        assert planned == [*tasks.analysis_names, "plots_and_summary"]
        shutil.rmtree(reports, ignore_errors=True)
        tasks.publish(running=False)
        pages = {path.name for path in reports.glob("*.html")}
        assert {f"{name}.html" for name in ANALYSES} & pages == {f"{name}.html" for name in tasks.analysis_names}
        linked = {name for page in pages for name in re.findall(r'href="([^"#]+\.html)', (reports / page).read_text())}
        assert linked <= pages
        return tasks.analysis_names

    assert analyses("charlm") == []
    assert analyses("charlm", asked=("50_what_if", "30_cross_model")) == ["30_cross_model", "50_what_if"]
    assert (analyses("charlm", asked=("all",)), analyses("charlm", "convlm", asked=("none",))) == ([*ANALYSES], [])
    assert analyses("charlm", activations=("relu", "gelu")) == [*ANALYSES]
    assert [name for name in ANALYSES if name not in analyses("charlm", "convlm")] == ["40_claims", "70_what_helps"]
    # What was run here before is kept up to date, also where it failed the last time.
    (tmp_path / "results" / "notebooks").mkdir(parents=True)
    (tmp_path / "results" / "notebooks" / "40_claims.failed.ipynb").touch()
    assert analyses("charlm") == ["40_claims"]
    # A cell that joins others is compared with them.
    config, sha256 = Config.for_model("charlm", "smoke", corpus=str(corpus_file)), corpus_sha256(str(corpus_file))
    Store(tmp_path / "results").save(make_result("charlm", "gelu", config=config, corpus=sha256))
    assert analyses("charlm") == [*ANALYSES]
    # A source of randomness that was run alone, by whoever, is in its deep dive.
    before, config = next(tasks_of("charlm").analyses()), config.model_copy(update={"vary": "init"})
    Store(tmp_path / "results").save(make_result("charlm", "gelu", config=config, corpus=sha256))
    assert next(tasks_of("charlm").analyses()).arguments["digest"] != before.arguments["digest"]


@pytest.mark.slow
@pytest.mark.xdist_group("grid")
def test_the_smoke_grid_makes_every_report_and_another_nothing(corpus_file: Path, smoke_grid: Path, tmp_path: Path) -> None:
    # A page that is not there yet has a stand-in; a real one says what it was made from.
    pages = (smoke_grid / "reports").glob("*.html")
    reports = {path.stem for path in pages if "source-sha256" in path.read_text() or path.stem == "index"}
    # 10 cells; of charlm with gelu four sources of randomness, a flipped bit and none; with relu and gelu two lengths.
    stored = [result for _, result in Store(smoke_grid / "results").load()[0]]
    varied = {(r.config["vary"], r.config["max_iters"]) for r in stored if (r.model_name, r.activation) == ("charlm", "gelu")}
    sources = ("all", "init", "order", "dropout", "bit", "none")
    assert varied == {("all", 1), ("all", 2), *((source, 4) for source in sources)}
    assert len(stored) == 10 + 5 + 4
    assert len([name for name in reports if name.startswith("10_train-")]) == 10
    assert len([name for name in reports if name.startswith("20_deep_dive-")]) == 2
    assert reports >= {"index", "30_cross_model", "40_claims", "50_what_if", "00_quickstart", "01_activations"}
    assert (smoke_grid / "reports" / "summary.txt").read_text().count("MODEL:") == 2  # those that were asked for
    conclusions = (smoke_grid / "reports" / "FINAL_CONCLUSIONS.md").read_text()
    assert "TinyLSTM is invariant to the activation. **Supported by construction at N = 3**" in conclusions
    links = re.findall(r'href="([^"]+)"', (smoke_grid / "reports" / "index.html").read_text())
    assert {"FINAL_CONCLUSIONS.md", "claims.json"} <= {*links}
    again = "charlm with gelu trained again without any source of randomness is the same to the last bit"
    assert all(again in page_text(smoke_grid, name) for name in ("20_deep_dive-charlm", "30_cross_model"))
    trained = store_digests(smoke_grid / "results")
    # The LSTM of this grid has no activation: its five cells are one, to the last bit.
    config = {r.model_name: r.config_sha256 for r in stored if (r.config["vary"], r.config["max_iters"]) == ("all", 4)}
    lstm = [trained[f"tinylstm-{name}", config["tinylstm"]] for name in ("relu", "gelu", "swish", "swiglu", "smelu_1")]
    assert all(cell == lstm[0] for cell in lstm)
    assert trained["charlm-relu", config["charlm"]] != trained["charlm-gelu", config["charlm"]]

    before = time_stamps(smoke_grid / "results") | time_stamps(smoke_grid / "reports" / "plots")
    again = Folder(smoke_grid, tmp_path, corpus_file)
    code, output, error = again.run("grid", *SMOKE_GRID)
    assert (code, error) == (0, ""), output
    assert time_stamps(smoke_grid / "results") | time_stamps(smoke_grid / "reports" / "plots") == before
