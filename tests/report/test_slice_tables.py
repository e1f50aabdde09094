"""Cells taken apart for the notebooks: tables, sentences and the figure, with cells of three, two, one and no trials."""

import dataclasses
import math
import re
from hashlib import sha256
from pathlib import Path

import pandas as pd
import pytest
import torch
from matplotlib.colors import to_hex
from test_figures import axes_of, hatched, intervals, words
from test_study import make_result

from repro_lib.analysis import cell_anatomy, slices
from repro_lib.analysis.cell_anatomy import Anatomies, dissect
from repro_lib.analysis.notes import Note
from repro_lib.analysis.study import Study
from repro_lib.config import Config
from repro_lib.data import Corpus
from repro_lib.plots.close_ups import slices_view
from repro_lib.plots.style import COLOURS, Plot
from repro_lib.report import slice_tables
from repro_lib.store.schema import CorpusRecord, EvaluationRecord
from repro_lib.store.store import Store

# The end, which is not trained on, has other frequencies.
TEXT = "to be, or not to be\nThat is\n" * 56 + "That is\n" * 50
ACTIVATIONS = ("relu", "gelu", "swish", "swiglu", "smelu_1")
TOKENS = 512
Cells = tuple[Store, Study, Anatomies]


def filled(folder: Path) -> Store:
    """charlm: relu with three trials, gelu with two, swish with one, swiglu without predictions, smelu_1 not there.

    Results over a text of one's own, with made-up logits in their predictions.
    """
    path, store, corpus = folder / "own.txt", Store(folder / "results"), Corpus("own.txt", TEXT, "")
    path.write_text(TEXT)
    record = CorpusRecord(name="own.txt", sha256=sha256(TEXT.encode()).hexdigest())
    windows = EvaluationRecord(sha256=sha256(b"windows").hexdigest(), tokens=TOKENS, unigram_cross_entropy=3.3)
    labels, shape = corpus.encode(TEXT[:TOKENS]), (TOKENS, len(corpus.vocabulary))
    common = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    for activation, n in zip(ACTIVATIONS[:4], (3, 2, 1, 3), strict=True):
        config = Config.for_model("charlm", "smoke", corpus=str(path), trials=n).with_corpus(len(corpus.vocabulary))
        pairs = tuple(0.4 + k / 10 for k in range(math.comb(n, 2)))
        about = {"profile": None, "config": config.model_dump(), "corpus": record, "evaluation": windows}
        result = make_result(activation=activation, pairs=pairs, **about)
        records = []
        for trial in result.trials:
            own = torch.randn(shape, generator=torch.Generator().manual_seed(trial.seed + sum(map(ord, activation))))
            target = store.trial_path("predictions", "charlm", activation, result.config_sha256, trial.trial)
            digest = store.save_tensors(target, {"logits": common + own / 2, "labels": labels}, {})
            records.append(trial.model_copy(update={"predictions_sha256": digest}))
        store.save(result.model_copy(update={"trials": records}))
    store.trial_path("predictions", "charlm", "swiglu", result.config_sha256, 2).unlink()
    return store


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Cells:
    """A store to look at, taken apart once."""
    store = filled(tmp_path_factory.mktemp("whole"))
    study = Study.load(store, ["charlm"], ACTIVATIONS)
    return store, study, dissect(store, study)


def test_cells_that_cannot_be_taken_apart_are_named_with_their_reason(tmp_path: Path):
    store = filled(tmp_path)
    study = Study.load(store, ["charlm"], ACTIVATIONS)
    found = dissect(store, study)
    assert [(cell.activation, cell.n) for cell in found.cells] == [("relu", 3), ("gelu", 2)]
    gaps = [("swish", "one trial"), ("swiglu", "no predictions"), ("smelu_1", "missing")]
    assert [(gap.activation, gap.words) for gap in found.gaps] == gaps
    reasons = "charlm with swish (one trial only", "trial2.safetensors is missing", "smelu_1 (there is no result yet"
    assert all(reason in line for reason, line in zip(reasons, found.sentence().splitlines(), strict=True))
    # Reasons that are alike make one line.
    for path in (store.folder / "predictions").iterdir():
        path.unlink()
    nothing = dissect(store, study)
    assert "charlm with relu, gelu, swiglu (" in nothing.sentence()
    assert isinstance(slices_view(study, nothing, "charlm", "churn"), Note)
    # Another text has other frequencies.
    (tmp_path / "own.txt").write_text(TEXT + "changed")
    assert "has changed since this result was made" in dissect(store, study).sentence()


def test_the_frames_of_a_cell_are_those_of_its_predictions_and_of_the_training_text(whole: Cells):
    store, study, found = whole
    cell, result = found.cells[0], study.results[0]
    assert list(cell.slices["slicing"].unique()) == list(cell_anatomy.HEADS)
    assert cell.slices.groupby("slicing")["n"].sum().tolist() == [TOKENS] * 4
    paired = slices.pair_trials([store.predictions(result, k) for k in (1, 2, 3)])
    context = slices.slice_frame(paired, slices.by_context(TOKENS, result.config["block_size"]))
    assert cell.slices[cell.slices["slicing"] == "context"].reset_index(drop=True).equals(context)
    # Rare and uncertain characters are whole slices put together.
    kinds = zip(cell.kinds.to_dict("records"), ("frequency", "confidence"), (slices.RARE, slices.UNCERTAIN), strict=True)
    for kind, slicing, names in kinds:
        chosen = cell.slices[(cell.slices["slicing"] == slicing) & cell.slices["slice"].isin(names)]
        assert (kind["n"], kind["held"]) == (chosen["n"].sum(), pytest.approx(chosen["held"].sum()))
    (vocabulary, frequencies), training = cell_anatomy.training_text(result), TEXT[: int(len(TEXT) * 0.8)]
    assert vocabulary == tuple(sorted(set(TEXT)))
    assert frequencies.tolist() == pytest.approx([training.count(c) / len(training) for c in vocabulary])


def test_the_slices_for_people_have_intervals_and_no_empty_slice(whole: Cells):
    found = whole[2]
    table = slice_tables.slices_table(found.cells[0])
    row = found.cells[0].slices.set_index(["slicing", "slice"]).loc[("class", "upper case")]
    shown = f"{row['churn']:.3f} ({row['churn_low']:.3f} to {row['churn_high']:.3f})"
    assert table.loc[("Kind of character", "upper case"), "Churn"].replace("\N{NO-BREAK SPACE}", " ") == shown
    assert ("Kind of character", "digit") not in table.index
    assert not slice_tables.slices_table(found.cells[1])["Churn"].str.contains("to").any(), "two trials have no interval"
    note, _ = slice_tables.slices_views(found, "charlm", ["relu", "smelu_1"])
    assert repr(note) == "charlm with relu, N = 3"
    assert "No slices of charlm" in repr(*slice_tables.slices_views(found, "charlm", ["smelu_1"]))


def test_swaps_are_readable(whole: Cells):
    relu, gelu = whole[2].cells
    first = relu.swaps.iloc[0]
    # Columns of different lengths are filled with dashes.
    short = dataclasses.replace(gelu, swaps=gelu.swaps.head(2))
    table = slice_tables.swaps_view(Anatomies((relu, short), ()), "charlm")
    assert isinstance(table, pd.DataFrame)
    names = " / ".join(map(slice_tables.shown_character, (first["first"], first["second"])))
    assert table.loc[1, "relu"] == f"{names}: {100 * first['share']:.1f}\N{NO-BREAK SPACE}% ({first['count']:,})"
    assert table["gelu"].tolist()[2:] == ["–"] * (len(table) - 2)
    assert isinstance(slice_tables.swaps_view(Anatomies((), ()), "charlm"), Note)
    shown = {" ": "space", "\n": "line end", "\t": "tab", "e": "e", "\xa0": "⟨U+00A0⟩", "\0": "⟨U+0000⟩"}
    shown |= {" the": "␣the", "\n\n": "⏎⏎", "\u05b8": "\u25cc\u05b8", "\u200f": "⟨U+200F⟩", "日本": "日本", "\\xe6": "\\xe6"}
    assert {character: slice_tables.shown_character(character) for character in shown} == shown


def test_the_trial_that_moves_a_result_most_is_named_with_what_is_left():
    # Pairs (1, 2), (1, 3), (2, 3); leaving out trial 1 leaves .7, trial 3 leaves .4.
    three, four, same = (0.4, 0.5, 0.7), (0.4, 0.4, 0.9, 0.4, 0.9, 0.9), (0.0,) * 3
    left = {three: "0.7000, trial 1", four: "0.4000 (0.4000 to 0.4000), trial 4", same: "the same without any"}
    for pairs, said in left.items():
        table = slice_tables.influence_table(Study.of([make_result(pairs=pairs)], ["charlm"], ["relu"]), "charlm")
        assert table.loc["relu", "Without the one that moves it most"] == said
    assert "Without the one" not in str(
        slice_tables.influence_table(Study.of([make_result(pairs=(0.5,))], ["charlm"]), "charlm")
    )


def test_influence_and_churn_against_error_need_no_predictions(whole: Cells):
    _, study, _ = whole
    three, two, one = [3, "0.4500", "0.5000", "0.5500", "0.6000, trial 1"], [2, "0.4000", "0.4000", "–", "–"], [1, *"––––"]
    rows = [three, two, one, three, ["missing", *"––––"]]
    assert slice_tables.influence_table(study, "charlm").to_numpy().tolist() == rows
    table = slice_tables.churn_error_table(study, "charlm")
    # Every trial errs half of the time and the pairs have churn .4, .5, .6.
    assert table.loc["swiglu", "Churn / error"].startswith("1.000 (")
    assert (table.loc["gelu", "Churn / error"], table.loc["swish", "Churn"]) == ("0.800", "–")
    assert table.loc["smelu_1"].tolist() == ["missing", "–", "–", "–", "–"]


def test_churn_below_and_above_the_error_is_counted(whole: Cells):
    results = [make_result(activation="relu", pairs=(0.1, 0.1, 0.1)), make_result(activation="gelu", pairs=(0.9, 0.9, 0.9))]
    sentence = slice_tables.churn_error_sentence(Study.of(results, ["charlm"]))
    assert sentence.endswith("churn is below the error rate in 1 and above it in 1 of 2 cells.")
    assert "not decided in 2" in slice_tables.churn_error_sentence(whole[1])
    assert "3 trials" in slice_tables.churn_error_sentence(Study.of([make_result(pairs=(0.5,))], ["charlm"]))


def test_the_overview_has_a_row_per_expected_cell_and_dashes(whole: Cells):
    _, study, found = whole
    table = slice_tables.anatomy_overview(study, found).loc["charlm"]
    assert list(table.index) == list(ACTIVATIONS)
    assert table.loc["smelu_1"].tolist() == ["missing", "–", "–", "–", "–"]
    # Without predictions churn / error is still known.
    assert re.match(r"3 – – – 1\.000 \(", " ".join(map(str, table.loc["swiglu"])))
    row, held = table.loc["relu"], found.cells[0].kinds.iloc[1]
    assert row["Uncertain hold, %"].startswith(f"{100 * held['held']:.1f}")
    assert row["Uncertain, % of the text"] == f"{100 * held['share']:.1f}"
    training = TEXT[: int(len(TEXT) * 0.8)]
    rare = sum(TEXT[:TOKENS].count(c) for c in set(TEXT) if training.count(c) / len(training) < 0.01)
    assert f"are {100 * rare / TOKENS:.1f} % of the evaluation text" in slice_tables.overview_sentence(found)
    assert "only churn / error" in slice_tables.overview_sentence(Anatomies((), ()))


@pytest.mark.parametrize("metric", slices.SLICE_METRICS)
def test_marks_and_lines_are_the_numbers(whole: Cells, metric: str):
    _, study, found = whole
    plot = slices_view(study, found, "charlm", metric)
    assert isinstance(plot, Plot)
    assert plot.name == f"charlm_slices_{metric}"
    for axes, slicing in zip(axes_of(plot), cell_anatomy.HEADS, strict=True):
        for cell in found.cells:
            values = cell.slices[cell.slices["slicing"] == slicing][metric].dropna().tolist()
            # The values drawn in the colour of the activation; a bar and a cap are no mark.
            mine = [line for line in axes.lines if to_hex(line.get_color()) == COLOURS[cell.activation].lower()]
            drawn = [float(y) for line in mine if line.get_marker() not in ("None", "|", "_") for y in line.get_ydata()]
            assert [y for y in drawn if not math.isnan(y)] == pytest.approx(values)
        # Only relu has three trials, so only its marks have lines.
        frame = found.cells[0].slices
        expected = frame[(frame["slicing"] == slicing) & frame[metric].notna()]
        drawn = sorted(bound for line in intervals(axes) for bound in line)
        assert drawn == pytest.approx(sorted(expected[[f"{metric}_low", f"{metric}_high"]].to_numpy().flatten()))
        assert axes.get_ylim()[0] == 0
        assert axes.get_ylim()[1] >= max(drawn), "something that is drawn is cut off"


def test_what_a_reader_must_know_is_on_the_figure(whole: Cells):
    _, study, found = whole
    plot = slices_view(study, found, "charlm")
    assert isinstance(plot, Plot)
    gaps = "Not drawn: swish (one trial), swiglu (no predictions), smelu_1 (missing)."
    assert (gaps in words(plot), gaps in plot.alt) == (True, True)
    assert "No line: fewer than 3 trials." in words(plot)
    kinds = axes_of(plot)[3]
    assert hatched(kinds) == 1
    assert "no character" in [text.get_text() for text in kinds.texts]
    frame = found.cells[0].slices
    assert f"relu from {frame[frame['slicing'] == 'class']['total_variation'].min():.3f} (" in plot.alt
    # Flagged and bit-identical cells are marked, and no others.
    assert not re.search("Flagged|negative control", words(plot))
    relu, gelu, *others = study.results
    flagged = (relu, gelu.model_copy(update={"flags": ["untrained: x"]}), *others)
    plot = slices_view(dataclasses.replace(study, results=flagged, identical=("charlm",)), found, "charlm")
    assert isinstance(plot, Plot)
    shown = words(plot)
    assert "Flagged, not to be relied on: gelu." in shown
    assert "negative control" in shown
