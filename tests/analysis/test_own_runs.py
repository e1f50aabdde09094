"""A run by hand beside a grid is in none of its tables, and is named wherever those are shown."""

from pathlib import Path
from typing import Any

import pytest
from kinds import MakeResult

from repro_lib.analysis.selection import differs_in, own_runs
from repro_lib.analysis.study import NothingToShow, Study, load_study
from repro_lib.cli.main import main
from repro_lib.config import Config, ConfigError, without_neutral
from repro_lib.report.site.index import build_site
from repro_lib.store.store import Store

OWN = "Own run, not in the tables: charlm with smelu_05, 120 iterations, N = 2: relative PD 0.3000 (profile quick)."


def of(profile: str | None, **explicit: Any) -> Config:
    return Config.for_model("charlm", profile, **explicit)


@pytest.fixture
def store(store: Store, make_result: MakeResult) -> Store:
    """A grid of two cells, and what somebody trained in 10_train."""
    for minute, activation in enumerate(("relu", "gelu")):
        store.save(make_result("charlm", activation, config=of("quick"), minute=minute))
    store.save(make_result("charlm", "smelu_05", config=of("quick", max_iters=120), pd=0.3, minute=5))
    return store


def test_every_door_names_own_runs(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str], corpus_file: Path) -> None:
    folders = ["--results-dir", str(store.folder), "--reports-dir", str(tmp_path / "reports")]
    main(["status", "--models", "charlm", "--corpus", str(corpus_file), *folders])
    assert OWN in capsys.readouterr().out
    assert main(["process", "--no-plots", *folders]) == 0
    assert OWN in capsys.readouterr().out
    build_site(store.folder, tmp_path / "reports", [("charlm", "relu")], None)
    assert OWN in (tmp_path / "reports" / "index.html").read_text()
    with pytest.raises(NothingToShow, match=r"no results yet.* Own run, not in the tables: charlm with smelu_05"):
        load_study(store.folder, activations=["smelu_05"])


def test_what_is_an_own_run(make_result: MakeResult) -> None:
    grid = [make_result("charlm", name, config=of("quick")) for name in ("relu", "gelu")]
    bare, old = (make_result("charlm", "relu", config=of(None), minute=k, trials=k + 2) for k in (1, 0))
    longer = make_result("charlm", "relu", config=of("quick", max_iters=30))  # the deep dive shows it
    source = make_result("charlm", "relu", config=of("quick", vary="init"))  # and that
    other_profile = make_result("charlm", "relu", config=of("smoke"))
    more = make_result("charlm", "swish", config=of("quick", trials=4))
    rate = make_result("charlm", "gelu", config=of("quick", learning_rate=0.1))  # and that
    other = make_result("charlm", "gelu", config=of("quick", learning_rate=0.1, max_iters=30))
    made_up = make_result("charlm", "swish", config=of(None), synthetic=True, corpus="facadefacade".ljust(64, "0"))
    stored = [bare, *grid, old, longer, source, other_profile, more, rate, other, made_up]
    assert own_runs(stored, grid) == [bare, other]
    assert own_runs(stored, [*grid, bare]) == [other]


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
