"""PD through training, runs of other lengths, and the sources of randomness, on a small store that is really trained."""

import math
from pathlib import Path

import numpy as np
import pytest
from kinds import Tiny

from repro_lib.analysis import trajectories
from repro_lib.analysis.noise_sources import SOURCES, NoiseSources, compare_sources
from repro_lib.analysis.notes import Note
from repro_lib.analysis.study import Study
from repro_lib.analysis.trajectories import Trajectory, parting_sentence, trajectory
from repro_lib.metrics import prediction_difference
from repro_lib.metrics.uncertainty import jackknife_pairwise
from repro_lib.plots.close_ups import noise_view, through_training_view
from repro_lib.plots.style import Plot
from repro_lib.store.schema import Result, ResultError
from repro_lib.store.store import Store
from repro_lib.training.experiment import run_experiment


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny: Tiny) -> Store:
    """charlm, 3 trials: relu and gelu of 4 steps, gelu of 2 and 1 steps, relu of 2; gelu with single sources of randomness."""
    folder = tmp_path_factory.mktemp("trained") / "results"

    def run(model: str, activation: str, **changes: object) -> None:
        run_experiment(model, activation, tiny(model, **({"trials": 3, "dropout": 0.1} | changes)), results_dir=folder)

    for source in ("init", "order", "bit", "none"):
        run("charlm", "gelu", vary=source)
    for activation, length in (("gelu", 1), ("gelu", 2), ("relu", 2)):
        run("charlm", activation, max_iters=length)
    for activation in ("relu", "gelu"):
        run("charlm", activation)
    run("charlm", "swish", trials=1)
    run("nanotransformer", "gelu", dropout=0.0)
    run("nanotransformer", "gelu", dropout=0.0, vary="none")
    return Store(folder)


@pytest.fixture(scope="module")
def stored(trained: Store) -> list[Result]:
    return [result for _, result in trained.load()[0]]


@pytest.fixture(scope="module")
def study(trained: Store) -> Study:
    return Study.load(trained, ["charlm", "nanotransformer"], ["relu", "gelu", "swish"])


def of_steps(*pds: list[float], loss: float = 3.0) -> Trajectory:
    """Three trials whose pairs (1,2), (1,3), (2,3) have these values at each step, in every metric."""
    matrices = np.zeros((len(pds), 3, 3))
    rows, columns = np.triu_indices(3, k=1)
    matrices[:, rows, columns] = matrices[:, columns, rows] = pds
    names = ("relative_pd", "total_variation", "churn")
    result = Result.model_construct(model_name="charlm", activation="gelu")
    return Trajectory(result, tuple(range(len(pds))), np.full((len(pds), 3), loss), dict.fromkeys(names, matrices))


def result_of(study: Study, model: str, activation: str) -> Result:
    result = study.result(model, activation)
    assert result is not None
    return result


def test_the_last_step_is_the_end_of_training_on_the_kept_blocks(trained: Store, study: Study) -> None:
    # The study is of the grid's cells and not of their variants.
    assert {(r.config["vary"], r.config["max_iters"]) for r in study.results} == {("all", 4)}
    result = result_of(study, "charlm", "gelu")
    followed = trajectory(trained, result)
    assert followed.steps == (0, 1, 2, 3, 4)
    assert followed.n == 3
    block = np.r_[0:256, 16 * 256 : 17 * 256]  # the small text has 31 evaluation blocks: the first and the 17th are kept
    predictions = [trained.predictions(result, k) for k in (1, 2, 3)]
    kept = [trial.probabilities[block] for trial in predictions]
    by_hand = [[prediction_difference.total_variation(p, q) for q in kept] for p in kept]
    last = followed.frame().iloc[-1]
    # Snapshots are rounded by themselves.
    assert last["total_variation"] == pytest.approx(jackknife_pairwise(by_hand).value, rel=1e-4)
    assert last["total_variation_high"] == pytest.approx(jackknife_pairwise(by_hand).high, rel=1e-3)
    losses = [prediction_difference.cross_entropy(p.logits[block], p.labels[block]) for p in predictions]
    assert last["loss"] == pytest.approx(np.mean(losses), rel=1e-4)
    # Trials that begin with the same weights agree at step 0, others do not.
    assert followed.matrices["total_variation"][0].max() > 0


def test_trials_part_for_good() -> None:
    apart = of_steps([0.9] * 3, [0.01] * 3, [0.2] * 3, [0.3] * 3)
    assert apart.parted_at() == 2
    assert "gelu from step 2" in parting_sentence([apart])
    assert of_steps([0.9] * 3, [0.01] * 3).parted_at() is None
    assert of_steps([0.9] * 3, [0.5] * 3).parted_at() == 0
    assert "never" in parting_sentence([of_steps([0.0] * 3)])


def test_what_cannot_be_followed_is_named(trained: Store, stored: list[Result], study: Study, tmp_path: Path) -> None:
    # Other lengths are of the same cell and differ in nothing else.
    for activation, lengths in (("gelu", [1, 2]), ("relu", [2])):
        found = trajectories.other_lengths(trained, stored, result_of(study, "charlm", activation))
        assert [run.max_iters for run in found] == lengths
    found, gaps = trajectories.load_trajectories(trained, study, "charlm")
    assert [cell.activation for cell in found] == ["relu", "gelu"]
    assert gaps == ["charlm with swish cannot be followed: disagreement needs two trials, charlm with swish has one."]
    _, gaps = trajectories.load_trajectories(trained, study, "nanotransformer")
    assert gaps == ["nanotransformer with relu is missing.", "nanotransformer with swish is missing."]
    empty = Store(tmp_path)
    with pytest.raises(ResultError, match="is missing; run the cell again with --force"):
        trajectory(empty, result_of(study, "charlm", "relu"))
    view = through_training_view(empty, [], study, "charlm")
    assert isinstance(view, Note)
    assert "charlm with relu cannot be followed" in view.text
    assert parting_sentence([]) == "No cell can be followed through training."


def test_each_source_alone_and_none_exactly_zero(stored: list[Result], study: Study) -> None:
    sources = compare_sources(stored, study, "charlm")
    assert sources is not None
    assert sources.activation == "gelu"
    frame = sources.frame().set_index("source")
    assert list(frame.index) == list(SOURCES)
    assert frame.loc["none", ["relative_pd", "relative_pd_high"]].tolist() == [0.0, 0.0]
    assert 0 < frame.loc["bit", "relative_pd"] < frame.loc["order", "relative_pd"]
    assert (frame.loc["init", "n"], frame.loc["dropout", "state"]) == (3, "not run")
    assert math.isnan(frame.loc["dropout", "relative_pd"])
    said = sources.sentence()
    assert said.endswith("trained again without any source of randomness is the same to the last bit: PD exactly 0.")
    assert said.count("N = 3") == 5
    assert sources.table().loc["dropout", "Relative PD"] == "not run"
    broken = NoiseSources("charlm", "gelu", sources.results | {"none": sources.results["order"]}, sources.states)
    assert "trained again gave other predictions" in broken.sentence()


def test_sources_that_there_are_not(trained: Store, stored: list[Result], study: Study) -> None:
    without_dropout = compare_sources(stored, study, "nanotransformer")
    assert without_dropout is not None
    assert without_dropout.states["dropout"] == "not applicable: the model has no dropout"
    assert without_dropout.states["none"] == "measured"
    only = Study.of([result for result in study.results if result.activation == "relu"], ["charlm"], ["relu"])
    assert compare_sources(list(only.results), only, "charlm") is None
    assert "repro grid --noise-models charlm" in repr(noise_view(trained, None, Study.load(trained, ["charlm"])))


def test_figures_state_their_numbers(trained: Store, stored: list[Result], study: Study) -> None:
    figure = through_training_view(trained, stored, study, "charlm")
    assert isinstance(figure, Plot)
    assert "fully decayed runs of 1 iterations" in figure.alt
    assert figure.png().startswith(b"\x89PNG")
    sources = compare_sources(stored, study, "charlm")
    assert sources is not None
    noise = noise_view(trained, sources, Study.load(trained, ["charlm"]))
    assert isinstance(noise, Plot)
    assert noise.alt == sources.sentence()
    bars = noise.figure.subfigs[1].axes[0]
    # Five bars; the source that was not run is a hatched gap and no bar of height 0.
    assert len(bars.containers) >= 5
    assert {"not run", "exactly\n0"} <= {text.get_text() for text in bars.texts}
