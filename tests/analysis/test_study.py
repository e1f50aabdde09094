"""Frames, overviews, words and the close look at one cell, on results made up by hand. Seconds; trains nothing.

The pair values of each made-up cell are chosen so that means, intervals and CV can be worked out on paper."""

import hashlib
import html
import math
import re
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from kinds import MakeResult

from repro_lib.analysis.frames import METRICS, cells_frame, curves_frame, pairs_frame, trials_frame
from repro_lib.analysis.notes import Note
from repro_lib.analysis.overviews import activations_overview, models_overview
from repro_lib.analysis.selection import identical_models
from repro_lib.analysis.slices import PairedTrials, pair_trials
from repro_lib.analysis.stored_models import generate, layer_view, load_trained
from repro_lib.analysis.study import Study, load_study
from repro_lib.config import MODEL_DEFAULTS, Config, digest_of_values
from repro_lib.data import EVALUATION_BLOCK, Corpus
from repro_lib.metrics.prediction_difference import PAIR_METRICS
from repro_lib.models.registry import build_model, count_parameters
from repro_lib.report import sentences
from repro_lib.report.console_summary import summary_text
from repro_lib.report.text_views import Passage, disagreement_views, samples_views
from repro_lib.store.predictions import Predictions
from repro_lib.store.schema import CorpusRecord, EvaluationRecord, Result, ResultError, TrialRecord
from repro_lib.store.store import Store
from repro_lib.store.tensors import sha256_of_tensors

T3 = 4.302652729911275  # Student's t, two-sided 95 %, 2 degrees of freedom
STARTED = datetime(2026, 1, 1, tzinfo=UTC)
TEXT = "to be, or not to be\n" * 60


def digest(*parts: object) -> str:
    return sha256_of_tensors({"x": torch.tensor(list(repr(parts).encode()), dtype=torch.uint8)})


def make_result(
    model: str = "charlm",
    activation: str = "relu",
    pairs: tuple[float, ...] = (0.4, 0.5, 0.6),
    losses: tuple[float, ...] | None = None,
    same: bool = False,
    **changes: Any,
) -> Result:
    """A result whose metrics all have the values ``pairs`` ((1, 2), (1, 3), (2, 3), ...), cut to the range of each; accuracy
    is 50 per cent."""
    n = round((1 + math.sqrt(1 + 8 * len(pairs))) / 2)
    numbers: dict[str, float | None] = {}
    for name in METRICS:
        values = [min(value, PAIR_METRICS[name].largest) for value in pairs]
        prefix = "pd" if name == "relative_pd" else name
        numbers |= {name: float(np.mean(values))} if values else {}
        numbers |= {f"{prefix}_{i + 1}_{j + 1}": value for (i, j), value in zip(combinations(range(n), 2), values, strict=True)}
    losses = losses or tuple(2.0 + k / 10 for k in range(n))
    marks = (model,) if same else (model, activation)
    config = Config.for_model(model, "quick", trials=n).with_corpus(65)
    last = min(10, changes.get("config", config.model_dump())["max_iters"])
    trials = [
        TrialRecord(
            trial=k + 1, seed=42 + k, train_loss_curve=[(1, 4.0), (last, losses[k])], val_loss_curve=[(last, losses[k])],
            val_loss=losses[k], val_accuracy=50.0, seconds=1.5, init_sha256=digest(k), weights_sha256=digest(*marks, k),
            predictions_sha256=digest(*marks, k, "p"),
        )
        for k in range(n)
    ]  # fmt: skip
    values: dict[str, Any] = {
        "model_name": model, "activation": activation, "parameters": 430_000, "profile": "quick",
        "config": config.model_dump(), "config_sources": dict(config.sources),
        "corpus": CorpusRecord(name="shakespeare", sha256=digest("corpus")),
        "evaluation": EvaluationRecord(sha256=digest("windows"), tokens=16_384, unigram_cross_entropy=3.3),
        "avg_relative_pd": numbers.get("relative_pd"),
        "mean_deviation_pd": numbers.get("relative_pd", 0.0) / 2 if pairs else None,
        "avg_val_loss": float(np.mean(losses)),
        "avg_val_accuracy": 50.0, "reproducibility_metrics": numbers, "trials": trials, "flags": [], "synthetic": False,
        "environment": {"python": "3.11"}, "timestamp": STARTED,
    }  # fmt: skip
    values |= changes
    values |= {"config_sha256": digest_of_values(values["config"], values["corpus"].sha256)} | changes
    return Result(**values)


def grid(models: tuple[str, ...] = ("charlm", "convlm"), names: tuple[str, ...] = ("relu", "gelu", "swish")) -> list[Result]:
    """PD .5 for relu, .6 for gelu, .7 for swish in every model; tinylstm bit-identical."""
    results = [
        make_result(model, activation, tuple(x + 0.1 * k for x in (0.4, 0.5, 0.6)))
        for model in models
        for k, activation in enumerate(names)
    ]
    return results + [make_result("tinylstm", activation, same=True) for activation in names]


def test_cell_by_hand():
    cell = cells_frame([make_result()], ["charlm"], ["relu"]).iloc[0]
    half = T3 * math.sqrt(0.04 / 3)
    three = [cell[f"relative_pd{end}"] for end in ("", "_low", "_high")]
    assert three == pytest.approx([0.5, max(0.5 - half, 0), 0.5 + half])
    # Losses 2.0, 2.1, 2.2: mean 2.1, sd .1.
    assert cell["val_loss_high"] == pytest.approx(2.1 + T3 * 0.1 / math.sqrt(3))
    assert cell["churn_per_error"] == pytest.approx(0.5 / 0.5)
    assert cell[["n", "seconds", "parameters", "unigram_loss", "profile"]].tolist() == [3, 4.5, 430_000, 3.3, "quick"]
    cut = cells_frame([make_result(pairs=(0.1, 0.9, 0.9))], ["charlm"], ["relu"]).iloc[0]
    assert cut["churn_high"] == 1.0
    assert 1.0 < cut["relative_pd_high"] <= 2.0


def test_what_is_missing_is_nan_and_never_zero():
    cells = cells_frame([make_result()], ["charlm", "convlm"], ["relu", "gelu"])
    gone = cells[cells["n"] == 0]
    assert (gone["model"] + "-" + gone["activation"]).tolist() == ["charlm-gelu", "convlm-relu", "convlm-gelu"]
    assert gone.select_dtypes("float").isna().all(axis=None)
    for pairs, n, value in (((), 1, math.nan), ((0.5,), 2, 0.5)):
        cell = cells_frame([make_result(pairs=pairs)]).iloc[0]
        assert cell["n"] == n
        assert cell[["relative_pd_low", "val_loss_low"]].isna().all()
        assert cell["val_loss"] > 0
        assert cell["relative_pd"] == pytest.approx(value, nan_ok=True)
    # An infinite metric stays infinite, and alone.
    result = make_result()
    numbers = result.reproducibility_metrics | {"log_prob_pd_1_2": None, "log_prob_pd": None}
    cell = cells_frame([result.model_copy(update={"reproducibility_metrics": numbers})]).iloc[0]
    assert cell["log_prob_pd"] == math.inf
    assert math.isnan(cell["log_prob_pd_high"])
    assert math.isfinite(cell["true_label_pd_high"])


def test_expected_cells_come_from_the_profile_or_else_from_the_results_and_frames_have_their_rows():
    with_profile = cells_frame([make_result()])
    assert set(with_profile["model"]) == {"charlm", "minigpt", "nanotransformer", "convlm", "hybridlm", "tinylstm"}
    assert len(with_profile) == 30
    alone = cells_frame([make_result(profile=None), make_result(activation="smelu_2", profile=None)])
    assert list(alone["activation"]) == ["relu", "smelu_2"]
    results = [make_result(), make_result(activation="gelu", pairs=(0.1,))]
    assert len(trials_frame(results)) == 5
    pairs = pairs_frame(results)
    assert list(zip(pairs["first"], pairs["second"], strict=True)) == [(1, 2), (1, 3), (2, 3), (1, 2)]
    assert list(pairs["relative_pd"]) == [0.4, 0.5, 0.6, 0.1]
    curves = curves_frame(results)
    last = curves[(curves["activation"] == "relu") & (curves["trial"] == 3) & (curves["split"] == "train")].iloc[-1]
    assert (last["iteration"], last["loss"]) == (10, 2.2)


def test_results_that_do_not_belong_together_are_refused():
    other = EvaluationRecord(sha256=digest("other windows"), tokens=16_384, unigram_cross_entropy=3.3)
    with pytest.raises(ResultError, match="do not belong in one statistic"):
        cells_frame([make_result(), make_result(activation="gelu", evaluation=other)])
    with pytest.raises(ResultError, match="more than one result for charlm with relu"):
        Study.of([make_result(), make_result()])
    with pytest.raises(ResultError, match="synthetic"):
        Study.of([make_result(), make_result(activation="gelu", synthetic=True)])


def test_identical_models_need_two_activations_and_every_trial():
    assert identical_models(grid()) == ("tinylstm",)
    # A filter by activation does not hide it.
    assert Study.of(grid(), activations=["relu"]).identical == ("tinylstm",)
    assert identical_models([make_result("tinylstm", "relu", same=True)]) == ()
    almost = make_result("tinylstm", "gelu", same=True)
    last = almost.trials[-1].model_copy(update={"weights_sha256": digest("another")})
    almost = almost.model_copy(update={"trials": [*almost.trials[:-1], last]})
    assert identical_models([make_result("tinylstm", "relu", same=True), almost]) == ()
    # They are left out by rule and not by name.
    results = [make_result("charlm", a, same=True) for a in ("relu", "gelu")]
    results += [make_result("convlm", a, p) for a, p in (("relu", (0.4, 0.5, 0.6)), ("gelu", (0.6, 0.7, 0.8)))]
    study = Study.of(results, ["charlm", "convlm"], ["relu", "gelu"])
    assert study.identical == ("charlm",)
    overview = activations_overview(study).set_index("activation")
    assert overview["average_pd"].to_dict() == pytest.approx({"relu": 0.5, "gelu": 0.7})
    assert overview["wins"].tolist() == [1, 0]
    assert "check how it is wired" in sentences.identical(study)
    study = Study.of([make_result("tinylstm", a) for a in ("relu", "gelu")], ["tinylstm"], ["relu", "gelu"])
    assert "not trained under equal conditions" in sentences.identical(study)


def test_both_overviews_by_hand():
    study = Study.of(grid(), ["charlm", "convlm", "tinylstm"], ["relu", "gelu", "swish"])
    rows = models_overview(study).set_index("model")
    charlm = rows.loc["charlm"]
    # .5, .6, .7: mean .6, population sd sqrt(.02 / 3).
    assert charlm["cv"] == pytest.approx(100 * math.sqrt(0.02 / 3) / 0.6)
    assert (charlm["best"], charlm["worst"], charlm["cells"], charlm["expected"]) == ("relu", "swish", 3, 3)
    assert (charlm["mean_pd"], charlm["seconds"]) == (pytest.approx(0.6), 13.5)
    assert rows.loc["tinylstm", "cv"] == 0.0
    assert pd.isna(rows.loc["tinylstm", "best"])
    overview = activations_overview(study).set_index("activation")
    assert overview["average_pd"].tolist() == pytest.approx([0.5, 0.6, 0.7])
    assert overview["wins"].tolist() == [2, 0, 0]
    # Both models have the same matrix, so their mean has the interval of one of them.
    assert overview.loc["swish", "average_pd_high"] == pytest.approx(0.7 + T3 * math.sqrt(0.04 / 3))
    # The size is said, and that it is not the whole one.
    row = models_overview(Study.of([make_result("minigpt")], ["minigpt"], ["relu"])).iloc[0]
    assert row["size"] == "4 layers of width 128 (full size: 6 of 384)"
    assert rows.loc["charlm", "size"] == "2 layers of width 128"
    # An average over a hole is missing, and other averages are not.
    results = [r for r in grid() if (r.model_name, r.activation) != ("charlm", "relu")]
    overview = activations_overview(Study.of(results, ["charlm", "convlm"], ["relu", "gelu"])).set_index("activation")
    assert math.isnan(overview.loc["relu", "average_pd"])
    assert overview.loc["relu", "models"] == 1
    assert overview.loc["gelu", "average_pd"] == pytest.approx(0.6)
    # A model without any result leaves the averages comparable.
    overview = activations_overview(Study.of(grid(), ["charlm", "convlm", "minigpt"], ["relu"]))
    assert overview["average_pd"].iloc[0] == pytest.approx(0.5)
    assert (overview["models"].iloc[0], overview["expected"].iloc[0]) == (2, 3)


def test_summary_has_the_block_of_the_design():
    earlier = {"relu": 1.0739, "gelu": 0.9051, "swish": 1.0952, "swiglu": 0.5935, "smelu_1": 1.0938}
    results = [make_result("charlm", name, (pd_, pd_, pd_)) for name, pd_ in earlier.items()]
    text = summary_text(Study.of(results, ["charlm"]))
    block = {"MODEL: CHARLM", "GELU:      Relative PD: 0.9051 [0.9051, 0.9051]"}
    block |= {"SWIGLU:    Relative PD: 0.5935 [0.5935, 0.5935]  <- LOWEST: not decided", "  Mean PD: 0.9523"}
    block |= {"  CV: 20.26% (NOT DECIDED)", "  Lowest: swiglu (PD=0.5935; not decided)"}
    block |= {"  Highest: swish (PD=1.0952; not decided)"}
    assert block <= set(text.splitlines())
    # With ten trials the titles are worth what they say; swish and smelu_1 are equal within the margin.
    results = [make_result("charlm", name, (pd_,) * 45) for name, pd_ in earlier.items()]
    block = {"SWIGLU:    Relative PD: 0.5935 [0.5935, 0.5935]  <- BEST", "  CV: 20.26% (SENSITIVE)"}
    block |= {"  Best: swiglu (PD=0.5935)", "  Highest: swish (PD=1.0952; equal within the margin)"}
    assert block <= set(summary_text(Study.of(results, ["charlm"])).splitlines())
    # It names what is missing, and has both overviews and the runtime.
    text = summary_text(Study.of(grid()[1:], ["charlm", "convlm", "tinylstm"], ["relu", "gelu", "swish"]))
    parts = ("RELU:      missing", "Missing, and left blank everywhere: charlm with relu.", "MODELS", "ACTIVATIONS", "RUNTIME")
    for part in (*parts, "tinylstm is bit-identical across activations"):
        assert part in text
    assert text.count("<- LOWEST: not decided") == 2


def test_the_number_of_trials_decides_what_may_be_said():
    for pairs, words in (((0.5,), ("no interval at N=2",)), ((), ("one trial has no pair",))):
        results = [make_result("charlm", activation, pairs) for activation in ("relu", "gelu")]
        text = summary_text(Study.of(results, ["charlm"], ["relu", "gelu"]))
        assert all(sentence in text for sentence in words)


def predictions(logits: np.ndarray, labels: np.ndarray, evaluation: str = "e") -> Predictions:
    return Predictions(logits.astype(np.float32), labels, evaluation)


def test_the_typical_block_is_the_median_one():
    values = np.repeat([0.9, 0.1, 0.5], EVALUATION_BLOCK)
    labels = np.zeros(len(values), dtype=np.int64)
    assert PairedTrials(labels, 2, np.array([labels, labels]), values, {"total_variation": values[None]}).typical_block() == 2


def test_passage_marks_disagreement_not_by_colour_alone():
    corpus = Corpus("text", TEXT, "x")
    labels = corpus.encode(TEXT[:EVALUATION_BLOCK]).numpy()
    logits = np.zeros((3, EVALUATION_BLOCK, len(corpus.vocabulary)))
    logits[0, 5, 0], logits[1, 5, 1], logits[2, 5, 2] = 50, 50, 50
    found = pair_trials([predictions(trial, labels) for trial in logits])
    page = Passage("<cell>", found, corpus, 0)._repr_html_()
    assert html.escape(TEXT[:EVALUATION_BLOCK]) in re.sub("<[^>]*>|⏎", "", page)
    (marked,) = [part for part in page.split("<span ")[1:] if part.startswith('title="total variation 1.00')]
    assert all(look in marked for look in ("underline double", "font-weight:bold", "differs in 3 of 3 pairs"))
    assert all(part in page for part in ("&lt;cell&gt;", "⏎"))


@pytest.mark.parametrize("model", MODEL_DEFAULTS)
def test_the_layers_of_a_result_have_every_parameter_and_the_activation(model: str):
    config = Config.for_model(model).with_corpus(65)
    study = Study.of([make_result(model, "swish", config=config.model_dump())], [model], ["swish"])
    table = layer_view(study, model)
    assert (table["parameters"] * table["times"]).sum() == count_parameters(build_model(model, config, "swish"))
    assert ("Swish" in set(table["type"])) == (model != "tinylstm")
    assert table["output"].iloc[0] == f"(B, {config.block_size}, {config.n_embd})"


def test_layers_without_a_result_are_at_full_size_and_repeated_blocks_are_one_row():
    table = layer_view(Study.of([], ["charlm"]), "charlm").set_index("layer")
    assert 0.98 * 430_000 < (table["parameters"] * table["times"]).sum() < 1.02 * 430_000
    layers = list(table.index)
    assert table.loc["blocks.*.feed_forward.activation", "times"] == 2
    assert layers.index("blocks.*.feed_forward.expand") < layers.index("blocks.*.feed_forward.activation")


@pytest.fixture
def trained(tmp_path: Path) -> tuple[Store, Study]:
    """A store with one cell of three untrained models over a text of one's own."""
    path = tmp_path / "own.txt"
    path.write_text(TEXT)
    corpus = Corpus("own.txt", TEXT, "")
    config = Config.for_model("charlm", "smoke", corpus=str(path)).with_corpus(len(corpus.vocabulary))
    store, records = Store(tmp_path / "results"), []
    windows = EvaluationRecord(sha256=digest("windows"), tokens=2 * EVALUATION_BLOCK, unigram_cross_entropy=3.3)
    own = CorpusRecord(name="own.txt", sha256=hashlib.sha256(TEXT.encode()).hexdigest())
    base = make_result(profile="smoke", config=config.model_dump(), corpus=own, evaluation=windows)
    labels = corpus.encode(TEXT[: 2 * EVALUATION_BLOCK])
    for trial in base.trials:
        seeded = config.model_copy(update={"seed": trial.seed})
        weights = build_model("charlm", seeded, "relu").state_dict()
        logits = torch.randn(len(labels), len(corpus.vocabulary), generator=torch.Generator().manual_seed(trial.seed))
        digests = {}
        for kind, tensors in (("weights", weights), ("predictions", {"logits": logits, "labels": labels})):
            target = store.trial_path(kind, "charlm", "relu", base.config_sha256, trial.trial)  # pyright: ignore[reportArgumentType]
            digests[f"{kind}_sha256"] = store.save_tensors(target, tensors, {})
        records.append(trial.model_copy(update=digests))
    store.save(base.model_copy(update={"trials": records}))
    return store, Study.load(store, ["charlm"], ["relu", "gelu"])


def test_stored_models_write_samples(trained: tuple[Store, Study]):
    store, study = trained
    before = torch.get_rng_state()
    (view,) = samples_views(store, study, "charlm", ["relu"], length=12)
    assert torch.equal(before, torch.get_rng_state()), "the global generator is left alone"
    assert not isinstance(view, Note)
    assert view.prompt == TEXT[:32]
    assert [len(text) for pair in view.written.values() for text in pair] == [12] * 6
    assert view.sentence() in view._repr_html_()
    assert samples_views(store, study, "charlm", ["relu"], length=12) == [view]
    model = load_trained(store, study.results[0], 1)
    corpus = Corpus("own.txt", TEXT, "")
    tokens = corpus.encode("to be, or not to be, that is"[:20])[None]
    context = study.results[0].config["block_size"]
    with torch.inference_mode():
        assert generate(model, tokens, 5, context, [None])[0, 0] == model(tokens)[0, -1].argmax()
    # A text longer than the context is read from its last characters.
    long = generate(model, tokens.repeat(1, 5), 3, context, [torch.Generator().manual_seed(1)])
    assert long.shape == (1, 3)
    with pytest.raises(ValueError, match="one non-empty row per generator"):
        generate(model, tokens, 3, context, [None, None])


def test_views_say_what_is_not_there(trained: tuple[Store, Study], tmp_path: Path):
    store, study = trained
    passage_view, gone = disagreement_views(store, study, "charlm", ["relu", "gelu"])
    assert "evaluation block" in repr(passage_view)
    assert isinstance(gone, Note)
    assert "no result" in gone.text
    for kind in ("predictions", "weights"):
        store.trial_path(kind, "charlm", "relu", study.results[0].config_sha256, 2).unlink()
    for views in (disagreement_views, samples_views):
        for activations, said in ((["relu"], "is missing"), ([], "run_papermill.sh")):
            (note,) = views(store, study, "charlm", activations)
            assert isinstance(note, Note)
            assert said in note.text
    (tmp_path / "own.txt").write_text(TEXT + "changed")
    (note,) = samples_views(store, study, "charlm", ["relu"], trials=1)
    assert "has changed" in note.text


def test_missing_is_what_was_asked_for_and_is_not_there(tmp_path: Path, make_result: MakeResult) -> None:
    """A grid of two cells misses no third one, and a cell that a grid of another profile was asked for is not of this study."""
    store = Store(tmp_path)
    store.save(make_result("charlm", "gelu", profile="smoke"))
    assert len(load_study(tmp_path).cells) == 30, "nobody said what was asked for"
    asked = [("smoke", "charlm", "relu"), ("smoke", "charlm", "gelu"), ("quick", "convlm", "swish")]
    for _ in range(2):
        store.note_grid(["a" * 64], asked)
        assert load_study(tmp_path).cells[["model", "activation", "n"]].to_numpy().tolist() == [
            ["charlm", "relu", 0],
            ["charlm", "gelu", 2],
        ]
    assert (store.grids(), store.asked("quick")) == (["a" * 64], [("convlm", "swish")])
    # What was run beyond the grid is shown too, and what is asked for now comes before all notes.
    store.save(make_result("charlm", "swish", profile="smoke"))
    assert load_study(tmp_path).activations == ("relu", "gelu", "swish")
    assert load_study(tmp_path, ["charlm"], ["gelu"]).activations == ("gelu",)
    assert load_study(tmp_path, ["charlm"]).activations == ("relu", "gelu", "swish"), "so does the deep dive of a model"
