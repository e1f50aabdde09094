"""What was trained outside a grid is in none of its tables, is named wherever those are shown, and can be shown itself."""

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from kinds import MakeResult

from repro_lib.analysis.own_runs import beside, differences, find_configuration, others_in_words, own_runs_sentence, run_lines
from repro_lib.analysis.selection import differs_in, select_comparable
from repro_lib.analysis.study import NothingToShow, Study, load_study
from repro_lib.cli.main import main
from repro_lib.config import Config, ConfigError, without_neutral
from repro_lib.report.site.index import build_site
from repro_lib.store.schema import Result
from repro_lib.store.store import Store


def of(profile: str | None, **explicit: Any) -> Config:
    return Config.for_model("charlm", profile, **explicit)


OWN = of("quick", max_iters=120)


@pytest.fixture
def store(store: Store, make_result: MakeResult) -> Store:
    """A grid of two cells, and what somebody trained in 10_train."""
    for minute, activation in enumerate(("relu", "gelu")):
        store.save(make_result("charlm", activation, config=of("quick"), minute=minute))
    store.save(make_result("charlm", "smelu_05", config=OWN, pd=0.3, minute=5))
    store.note_grid([of("quick").sha256("c" * 64)], [("quick", "charlm", "relu"), ("quick", "charlm", "gelu")])
    return store


def test_every_door_names_own_runs_and_shows_one(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str], corpus_file: Path
) -> None:
    digits, reports = OWN.sha256("c" * 64)[:8], tmp_path / "reports"
    folders = ["--results-dir", str(store.folder), "--reports-dir", str(reports)]
    said = f"1 run of your own is outside the grid; repro process --config {digits} shows it."
    row = ["smelu_05", "2", "0.3000", "3.0625", digits, "max_iters 120 (quick: 60), corpus words.txt (quick: shakespeare)"]

    def shown(*words: str, code: int = 0) -> str:
        assert main([*words, *folders]) == code
        return capsys.readouterr().out

    # Beside the grid, in its own section.
    assert "0.3000" not in shown("status", "--models", "charlm", "--corpus", str(corpus_file), code=1).partition(said)[0]
    tables, _, own = shown("process", "--no-plots").partition(f"YOUR EXPERIMENTS\n{said}\n")
    assert ("0.5000" in tables, "0.3000" in tables, [word for word in row if word not in own]) == (True, False, [])
    build_site(store.folder, reports, [("charlm", "relu")])
    assert "Your experiments" in (page := (reports / "index.html").read_text())
    assert [word for word in row if f">{word}<" not in page] == []
    with pytest.raises(NothingToShow, match=rf"no results yet.* 1 run of your own .*--config {digits} shows it"):
        load_study(store.folder, activations=["swiglu"])
    # Instead of the grid, and in a folder of its own.
    assert "0.5000" not in shown("status", "--config", digits)
    before = {path: path.read_bytes() for path in reports.iterdir() if path.is_file()}
    tables = shown("process", "--no-plots", "--config", digits)
    assert ("SMELU_05:  Relative PD: 0.3000" in tables, "0.5000" in tables, "1 of 1 cell" in tables) == (True, False, True)
    shown("report", "--config", digits)
    page = (reports / f"config-{digits}" / "index.html").read_text()
    assert ("0.3000" in page, "0.5000" in page, {*re.findall(r'href="([^"]+\.html)"', page)}) == (True, False, {"index.html"})
    shown("export", str(tmp_path / "tables"), "--config", digits.upper())
    assert list(pd.read_csv(tmp_path / "tables" / "cells.csv")["relative_pd"]) == [0.3]
    assert {path: path.read_bytes() for path in before} == before
    assert main(["process", "--config", "0badc0de", *folders]) == 2
    assert f"no configuration begins with '0badc0de'; known: {digits} (charlm, max_iters 120" in (
        error := capsys.readouterr().err
    )
    assert error.count("\n") == 1


def test_what_is_an_own_run(make_result: MakeResult) -> None:
    grid = [make_result("charlm", name, config=of("quick")) for name in ("relu", "gelu")]
    bare, old = (make_result("charlm", "relu", config=of(None), minute=k, trials=k + 2) for k in (1, 0))
    longer = make_result("charlm", "relu", config=of("quick", max_iters=30), minute=2)
    source = make_result("charlm", "relu", config=of("quick", vary="init"))  # the deep dive shows it
    arm = make_result("charlm", "relu", config=Config.for_model("charlm", "quick", {"max_iters": 15}))  # and that
    profile = make_result("charlm", "relu", config=of("smoke"), minute=4)
    more = make_result("charlm", "swish", config=of("quick", trials=4))
    other = make_result("charlm", "gelu", config=of("quick", learning_rate=0.1, max_iters=30), minute=3)
    made_up = make_result("charlm", "swish", config=of(None), synthetic=True, corpus="facadefacade".ljust(64, "0"))
    stored = [bare, *grid, old, longer, source, arm, profile, more, other, made_up]
    noted = [grid[0].config_sha256]
    assert beside(stored, grid, noted) == ([profile, other, longer, bare], [more, made_up])
    assert beside(stored, [*grid, bare], [*noted, profile.config_sha256]) == ([other, longer], [profile, more, made_up])
    # A folder of an earlier version, which noted no grids and by what a length was chosen.
    assert beside(stored, grid)[0] == [other, bare]


def test_what_was_trained_outside_a_grid_does_not_push_it_aside(make_result: MakeResult) -> None:
    grid = make_result("charlm", "relu", config=of("quick"))
    row = [make_result("charlm", name, config=OWN, minute=3) for name in ("relu", "gelu", "swish")]
    assert select_comparable([grid, *row], grids=[grid.config_sha256]) == [grid]
    assert select_comparable([grid, *row]) == row


def test_what_sets_a_run_apart_is_said_in_words(make_result: MakeResult) -> None:
    def said(config: Config, **changes: Any) -> str:
        result = make_result("charlm", "relu", config=config).model_copy(update=changes)
        return differences(result).removesuffix(", corpus words.txt (quick: shakespeare)")

    assert said(of("quick", trials=9, max_iters=60)) == "corpus words.txt (quick: shakespeare)"
    assert said(of("quick", max_iters=7, label_smoothing=0.1)) == "max_iters 7 (quick: 60), label_smoothing 0.1 (quick: 0.0)"
    corpus = make_result().corpus.model_copy(update={"name": "shakespeare"})
    assert said(of("quick"), corpus=corpus) == "as in quick"
    assert said(of(None), corpus=corpus) == "no profile"
    assert said(of(None, dropout=0.0), corpus=corpus) == "no profile, dropout 0.0 (full size: 0.1)"
    assert said(of(None), corpus=corpus, profile="studdy") == "profile studdy"


def test_none_one_two_and_many(make_result: MakeResult) -> None:
    runs = [make_result("charlm", "relu", config=of("quick", max_iters=k), minute=-k) for k in range(1, 21)]
    digits = runs[0].config_sha256[:8]
    assert [own_runs_sentence(runs[:n]) for n in (0, 1, 2)] == [
        [],
        [f"1 run of your own is outside the grid; repro process --config {digits} shows it."],
        [f"2 runs of your own are outside the grid; repro process --config {digits} shows the newest."],
    ]
    assert [len(run_lines(runs[:n], most=2)) for n in (0, 1, 2, 20)] == [0, 2, 3, 4]
    assert run_lines(runs, most=2)[-1] == "... and 18 more"
    assert [others_in_words(runs[:n]) for n in (0, 1)] == [
        [],
        ["Stored and not shown: 1 result of profile quick, corpus words.txt."],
    ]
    kinds: list[Result] = [runs[0], *(make_result(synthetic=True, corpus="facadefacade".ljust(64, "0")) for _ in range(2))]
    (said,) = others_in_words(kinds)
    assert said == "Stored and not shown: 1 result of profile quick, corpus words.txt; 2 synthetic results."
    with pytest.raises(ConfigError, match=r"^no configuration begins with ''; known: none, for there is no result$"):
        find_configuration([], "")
    with pytest.raises(ConfigError, match=rf"^no configuration begins with 'x'; known: {digits} \(.*; and older ones$"):
        find_configuration(runs, "x")
    first = runs[0].config_sha256[0]
    twins = [runs[0].model_copy(update={"config_sha256": first + end * 63}) for end in "01"]
    with pytest.raises(ConfigError, match=f"^more than one configuration begins with '{first}'; known: {first}1111111 "):
        find_configuration(twins, first)
    assert find_configuration(runs, digits) == runs[0].config_sha256


def test_a_profile_that_nobody_knows_is_named_unless_results_have_it(store: Store, make_result: MakeResult) -> None:
    with pytest.raises(ConfigError, match="unknown profile 'studdy'; known: smoke, quick, study, helps, forks, cpu, full"):
        Study.load(store, profile="studdy")
    store.save(make_result("charlm", "relu", profile="studdy", minute=9))
    assert Study.load(store, profile="studdy").results[0].profile == "studdy"
    with pytest.raises(NothingToShow, match=r"no results yet"):
        load_study(store.folder, profile="full")


def test_a_result_from_before_there_were_remedies_is_one_without_any(make_result: MakeResult) -> None:
    now = make_result("charlm", "relu", config=of("quick"))
    config = of("quick", max_iters=30)
    before = make_result("charlm", "relu", config=config).model_copy(update={"config": without_neutral(config.model_dump())})
    assert differs_in("max_iters", now, before)
    assert not differs_in("max_iters", make_result("charlm", "relu", config=of("quick", ema_decay=0.9)), before)
