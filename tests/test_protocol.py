"""The second edition keeps its protocol: rules that are older than the data, and the choices that they make of it."""

import hashlib
import json
import lzma
import subprocess
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from published.rebuild.second import (
    DOES_NOT,
    MATTERS,
    MODELS,
    OPEN,
    SEEDS,
    common_rates,
    order_holds,
    rate_check,
    replication,
    words_on_models,
)
from published.rebuild.stores import HERE, SECOND, Published
from repro_lib.analysis.contrasts import LEADING
from repro_lib.analysis.verdicts import EQUAL, NOT_DECIDED, SUPPORTED
from repro_lib.config import GRID_ACTIVATIONS
from repro_lib.store.store import Store

PROTOCOL = HERE / "PROTOCOL.md"
SHA256 = "59d50bc7a1517c2daa94d6823893ebb4994ed4d69378c80b5f9bd4fc089c3fb8"
COMMITTED = datetime(2026, 11, 29, 20, 56, 49, tzinfo=UTC)


def git(*arguments: str) -> list[str]:
    done = subprocess.run(["git", "-C", str(HERE), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.split() if done.returncode == 0 else []


def test_the_protocol_is_the_one_that_was_committed_and_never_another() -> None:
    assert hashlib.sha256(PROTOCOL.read_bytes()).hexdigest() == SHA256
    if git("rev-parse", "--is-shallow-repository") != ["false"]:
        pytest.skip("no history is here to ask")
    assert len(git("log", "--format=%H", "--", PROTOCOL.name)) == 1
    (committed,) = git("log", "--format=%cI", "--", PROTOCOL.name)
    assert datetime.fromisoformat(committed) == COMMITTED


@pytest.mark.parametrize("name", SECOND)
def test_the_results_are_whole_and_younger_than_their_protocol(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found, refused = Store(HERE / "second" / name).load()
    assert refused == []
    assert found
    rates = common_rates(rate_check(Published()))
    for path, result in found:
        config = result.config
        own = config["max_iters"] == 500 and config["vary"] == "all" and config["learning_rate"] == rates.get(result.model_name)
        # Beside the grid lie runs of other lengths, sources and rates; beside the arms models that they start or learn from.
        earlier = "helps" in name and config["seed"] > 1000
        assert earlier or len(result.trials) == (SECOND[name].trials if own or name != "results" else 10), path.name
        start = config["seed"] if earlier else 42 if "rates" in name else 52
        assert [trial.seed for trial in result.trials] == [start + k for k in range(len(result.trials))]
        spent = timedelta(seconds=min(trial.seconds for trial in result.trials))
        assert result.timestamp - spent > COMMITTED, path.name
    part = SECOND[name]
    monkeypatch.setitem(SECOND, name, part._replace(cells=1000))
    assert f"{part.about} ({part.cells} of 1000 cells)" in Published().missing()
    if git("rev-parse", "--is-shallow-repository") != ["false"]:
        pytest.skip("no history is here to ask")
    first = git("log", "--reverse", "--format=%cI", "--", f"second/{name}")
    assert all(datetime.fromisoformat(moment) > COMMITTED for moment in first)


def test_the_rates_are_those_of_its_rule_and_disagreement_plays_no_part() -> None:
    """Recomputed from the JSON files with numpy alone."""
    losses: dict[str, dict[float, dict[str, float]]] = {}
    for folder in ("results", "second/rates/results"):
        for path in (HERE / folder).glob("*.json*"):
            packed = path.read_bytes()
            content = json.loads(lzma.decompress(packed) if path.suffix == ".xz" else packed)
            config, model, width = content["config"], content["model_name"], content["config"]["n_embd"]
            alone = config["vary"] == "all" and config["max_iters"] == 500 and content["profile"] == "study"
            if model not in MODELS or not alone or width != (140 if "lstm" in model else width):
                continue
            mean = np.mean([trial["val_loss"] for trial in content["trials"] if trial["seed"] in SEEDS])
            losses.setdefault(model, {}).setdefault(config["learning_rate"], {})[content["activation"]] = float(mean)
    chosen = {}
    for model, by_rate in losses.items():
        assert len(by_rate) == 3
        assert all(of.keys() == set(GRID_ACTIVATIONS) for of in by_rate.values())
        chosen[model] = min(by_rate, key=lambda rate: np.mean([*by_rate[rate].values()]))
    frame = rate_check(Published())
    assert common_rates(frame) == chosen | {"tinylstm": chosen["tinylstm_readout"]}
    assert frame.groupby(["model", "activation"])["own"].sum().eq(1).all()
    assert (frame["n"] == len(SEEDS)).all()
    pd.testing.assert_frame_equal(frame, pd.read_csv(HERE / "tables" / "rates.csv"), rtol=1e-9)


def contrasts_of(*rows: tuple[str, str, float, str]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["model", "activation", "per_cent", "verdict"])
    return pd.concat([frame.assign(metric=metric, n=10, per_cent_low=0.0, per_cent_high=0.0) for metric in LEADING])


def test_what_replicates_has_the_same_verdict_and_where_it_is_supported_the_same_sign() -> None:
    names = [("convlm", "swiglu"), ("convlm", "gelu"), ("charlm", "gelu"), ("charlm", "swish"), ("hybridlm", "gelu")]
    first = [(7.0, SUPPORTED), (2.0, SUPPORTED), (0.1, EQUAL), (0.2, EQUAL), (1.0, NOT_DECIDED)]
    second = [(5.0, SUPPORTED), (-4.0, SUPPORTED), (-0.3, EQUAL), (4.0, SUPPORTED), (5.0, SUPPORTED)]
    readout = ("tinylstm_readout", "swiglu", 9.0, SUPPORTED)
    one, other = (contrasts_of(*((*n, *v) for n, v in zip(names, said, strict=True)), readout) for said in (first, second))
    found = replication(one, other.assign(p_equal=0.5))
    assert found["outcome"].tolist() == ["replicated", "reversed", "replicated", "not replicated"] * 2
    assert set(found["metric"]) == set(LEADING)


def test_what_a_model_is_said_to_do_is_rule_8() -> None:
    """By more than the margin in both metrics; or all equal, or supported within it; or not decided."""
    said = [("convlm", "swiglu", 7.0, SUPPORTED), ("convlm", "gelu", 1.0, NOT_DECIDED)]
    said += [("charlm", "gelu", 0.1, EQUAL), ("charlm", "swish", 2.0, SUPPORTED), ("hybridlm", "gelu", 2.0, SUPPORTED)]
    frame = contrasts_of(*said).assign(margin=3.0)
    # hybridlm's is supported, and within the margin by the estimate alone.
    frame["p_equal"] = [0.9 if model == "hybridlm" else 0.01 for model in frame["model"]]
    assert words_on_models(frame) == {"convlm": MATTERS, "charlm": DOES_NOT, "hybridlm": OPEN}
    one_metric = frame.assign(verdict=frame["verdict"].where(frame["metric"] != LEADING[1], NOT_DECIDED))
    assert set(words_on_models(one_metric).values()) == {OPEN}


def test_the_order_holds_where_both_intervals_exclude_0_on_the_same_side() -> None:
    short = contrasts_of(("convlm", "swiglu", 7.0, SUPPORTED), ("charlm", "swiglu", 1.0, NOT_DECIDED))
    short = short.assign(per_cent_low=short["per_cent"] - 2, per_cent_high=short["per_cent"] + 2)
    for shift, holds in ((-1.0, True), (-6.0, False), (-14.0, False)):
        later = short.assign(**{name: short[name] + shift for name in ("per_cent", "per_cent_low", "per_cent_high")})
        found = order_holds(short, later)
        assert [(grid["model"], verdict) for grid, _, verdict in found] == [("convlm", holds)] * 2
