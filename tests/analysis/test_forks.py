"""Forks on really trained cells: distances and barriers by hand, and nothing left of a fork at the last step."""

import math
import re
from pathlib import Path

import pytest
import torch
from kinds import Tiny

from repro_lib.analysis.forks import forks_frame, forks_sentence
from repro_lib.analysis.notes import Note
from repro_lib.analysis.stored_models import load_trained
from repro_lib.data import Dataset
from repro_lib.plots.forks import forks_views
from repro_lib.plots.style import Plot
from repro_lib.store.designs import FORKS, Design, DesignCell, note_design
from repro_lib.store.store import Store
from repro_lib.training.experiment import run_experiment


@pytest.fixture(scope="module")
def forked(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("forks") / "results")
    cells = []
    for varies in ("order", "bit"):
        for share in (0.0, 0.5, 1.0):
            config = tiny("charlm", trials=3, vary=varies, fork_share=share)
            result = run_experiment("charlm", "relu", config, results_dir=store.folder)
            arm = f"{varies} from {100 * share:g} %"
            cells.append(DesignCell(model_name="charlm", arm=arm, activation="relu", config_sha256=result.config_sha256))
    note_design(store, Design(factor=FORKS, reference=cells[0].arm, profile="smoke", cells=cells))
    return store


def test_a_fork_at_the_last_step_leaves_nothing_and_a_later_one_leaves_less(forked: Store) -> None:
    frame = forks_frame(forked, "charlm").set_index(["varies", "share"])
    assert len(frame) == 6
    for varies in ("order", "bit"):
        assert frame.loc[(varies, 1.0), ["total_variation", "distance", "barrier"]].tolist() == [0, 0, 0]
        assert frame.loc[(varies, 0.0), "total_variation"] > 0
    by_order = frame.loc["order"]
    assert by_order["total_variation"].is_monotonic_decreasing
    assert by_order["distance"].is_monotonic_decreasing
    assert frame.loc[("bit", 0.0), "total_variation"] < 0.01 * frame.loc[("order", 0.0), "total_variation"]


@torch.no_grad()
def test_distance_and_barrier_are_those_worked_out_by_hand(forked: Store, dataset: Dataset) -> None:
    result = next(r for _, r in forked.load()[0] if r.config["vary"] == "order" and "fork_share" not in r.config)
    weights = [torch.nn.utils.parameters_to_vector(load_trained(forked, result, k).parameters()).detach() for k in (1, 2, 3)]
    expected = []
    for a, b in ((0, 1), (0, 2), (1, 2)):
        apart, lengths = (weights[a] - weights[b]).norm(), (weights[a].norm() + weights[b].norm()) / 2
        expected.append(float(apart / lengths))
    row = forks_frame(forked, "charlm").query("varies == 'order' and share == 0").iloc[0]
    assert row["distance"] == pytest.approx(sum(expected) / 3, rel=1e-5)

    windows, model = dataset.windows.every(8), load_trained(forked, result, 1)
    barriers = []
    for other in weights[1:]:
        losses = []
        for k in range(7):
            torch.nn.utils.vector_to_parameters(weights[0] + k / 6 * (other - weights[0]), model.parameters())
            pieces = [model(inputs) for _, inputs in windows.pieces(result.config["block_size"])]
            logits = torch.cat(pieces, dim=1).flatten(0, 1)
            losses.append(torch.nn.functional.cross_entropy(logits, windows.targets.flatten()).item())
        barriers.append(max(loss - losses[0] - k / 6 * (losses[-1] - losses[0]) for k, loss in enumerate(losses)))
    assert row["barrier"] == pytest.approx(sum(barriers) / 2, abs=1e-5)


def test_what_is_said_and_drawn_and_what_is_where_nothing_was_forked(forked: Store, tmp_path: Path) -> None:
    frame = forks_frame(forked, "charlm")
    said = forks_sentence(frame, "charlm")
    assert re.match(r"charlm, .*, N = 3 trials: parted by another data order at the start .* steps \d+ and 0 % of that; ", said)
    plot, words = forks_views(forked, "charlm")
    assert isinstance(plot, Plot)
    assert repr(words) == said
    assert "with one flipped bit" in plot.alt
    none = forks_frame(Store(tmp_path / "none"), "charlm")
    assert none.empty
    (note,) = forks_views(Store(tmp_path / "none"), "charlm")
    assert isinstance(note, Note)
    assert "nothing to set later ones against" in forks_sentence(none, "charlm")
    # Weights that were cleaned away: PD is known from the results, the rest is not.
    for path in (forked.folder / "weights").glob("*"):
        path.rename(path.with_suffix(".away"))
    try:
        gone = forks_frame(forked, "charlm")
    finally:
        for path in (forked.folder / "weights").glob("*.away"):
            path.rename(path.with_suffix(".safetensors"))
    assert gone["total_variation"].notna().all()
    assert all(math.isnan(value) for value in gone["barrier"])
