"""Remedies: each is what its formula says, off it changes no bit, and the earlier models are the right ones."""

import threading
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from kinds import MakeResult, Tiny
from torch import Tensor

from repro_lib import Config, run_experiment
from repro_lib.analysis.stored_models import load_trained
from repro_lib.analysis.trajectories import follow
from repro_lib.config.members import members
from repro_lib.config.settings import NEUTRAL
from repro_lib.data import Dataset, load_dataset
from repro_lib.metrics.prediction_difference import probabilities_from_logits, total_variation
from repro_lib.models.determinism import deterministic_arithmetic
from repro_lib.models.registry import build_model
from repro_lib.store.schema import TENSOR_KINDS, Result, ResultError
from repro_lib.store.store import Store
from repro_lib.store.tensors import sha256_of_tensors
from repro_lib.system.leases import LeaseHeldError, cell_lease, hold
from repro_lib.training import experiment
from repro_lib.training.experiment import train_trials
from repro_lib.training.progress import Progress, listening
from repro_lib.training.remedies import Pair, Teachers, losses
from repro_lib.training.trainer import OneTrial, TrainedTrial, predict_logits, train_trial, untrained

Run = MakeResult
# Larger than usual, so that two steps set trials apart by more than is rounded away.
FAST = {"learning_rate": 0.02}


@pytest.fixture
def run(store: Store, tiny: Tiny) -> Run:
    """``run(**changes)``: a cell of charlm with relu in the folder of ``store``."""
    return lambda **changes: run_experiment("charlm", "relu", tiny("charlm", **FAST | changes), results_dir=store.folder)


def equal(a: TrainedTrial, b: TrainedTrial) -> bool:
    return sha256_of_tensors(a.weights) == sha256_of_tensors(b.weights) and torch.equal(a.logits, b.logits)


def trained(dataset: Dataset, config: Config, trial: int = 1, **more: Any) -> TrainedTrial:
    return train_trial("charlm", "relu", config, dataset, trial, **more)


def weights_by_step(dataset: Dataset, config: Config) -> list[dict[str, Tensor]]:
    """The weights of trial 1 before training and after each of its steps."""
    with deterministic_arithmetic():
        work = OneTrial("charlm", "relu", config, dataset, 1)
        seen = []
        for step in range(config.max_iters + 1):
            work.train(step)
            seen.append({name: tensor.clone() for name, tensor in work.model.state_dict().items()})
    return seen


@pytest.mark.parametrize("name", [name for name, neutral in NEUTRAL.items() if isinstance(neutral, float)])
def test_a_remedy_that_is_off_changes_no_bit(name: str, dataset: Dataset, tiny: Tiny) -> None:
    assert equal(trained(dataset, tiny("charlm", **{name: NEUTRAL[name]})), trained(dataset, tiny("charlm")))


def test_a_remedy_that_is_on_changes_the_model_and_is_stored_with_its_value(run: Run) -> None:
    plain = run()
    for changes in ({"ema_decay": 0.5}, {"label_smoothing": 0.1}, {"entropy_weight": 0.5}, {"codistill_weight": 1.0}):
        result = run(**changes)
        assert result.config == plain.config | changes
        assert result.trials[0].init_sha256 == plain.trials[0].init_sha256
        assert result.trials[0].weights_sha256 != plain.trials[0].weights_sha256


@pytest.mark.parametrize(
    ("changes", "averaged"), [({"ema_decay": 0.7}, "ema"), ({"swa_share": 0.5}, 3), ({"swa_share": 0.01}, 1)]
)
def test_averages_of_weights_by_hand(changes: dict[str, float], averaged: str | int, dataset: Dataset, tiny: Tiny) -> None:
    steps = weights_by_step(dataset, tiny("charlm", max_iters=6))[1:]
    found = trained(dataset, tiny("charlm", max_iters=6, **changes))
    for name, weights in found.weights.items():
        of_steps = [step[name].double() for step in steps]
        if averaged == "ema":
            expected = of_steps[0]
            for own in of_steps[1:]:
                expected = 0.7 * expected + (1 - 0.7) * own
        else:
            expected = torch.stack(of_steps[-int(averaged) :]).mean(dim=0)
        assert torch.allclose(weights.double(), expected, rtol=1e-5, atol=1e-7), name
        assert torch.equal(weights, steps[-1][name]) == (averaged == 1) or not steps[0][name].any(), name


def test_what_is_averaged_predicts_at_every_look_and_trains_as_if_it_were_not(dataset: Dataset, tiny: Tiny) -> None:
    plain, found = (trained(dataset, tiny("charlm", ema_decay=decay)) for decay in (0.0, 0.9))
    assert found.train_loss_curve == plain.train_loss_curve
    steps = weights_by_step(dataset, tiny("charlm"))
    model = build_model("charlm", tiny("charlm"), "relu")
    average = steps[1]
    for step in (1, 2):
        average = {name: 0.9 * of + (1 - 0.9) * steps[step][name] for name, of in average.items()} if step > 1 else average
        model.load_state_dict(average)
        expected = predict_logits(model, dataset.windows.every(16), 32).flatten(0, 1)
        assert torch.allclose(found.step_logits[found.steps.index(step)], expected, atol=1e-5)
    # Before the last steps there is no mean of them yet, and the model itself predicts.
    late = trained(dataset, tiny("charlm", swa_share=0.5))
    assert [torch.equal(a, b) for a, b in zip(late.step_logits, plain.step_logits, strict=True)] == [True] * 4 + [False]
    model.load_state_dict(found.weights)
    assert torch.equal(found.logits, predict_logits(model, dataset.windows, 32).flatten(0, 1))


def given() -> tuple[Tensor, Tensor, np.ndarray]:
    """Logits (5, 7) in float64, labels (5,), and the logarithms of the probabilities."""
    logits = torch.randn(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return logits, torch.tensor([0, 6, 2, 2, 5]), np.log(probabilities_from_logits(logits.numpy()))


def test_losses_are_those_of_their_formulas() -> None:
    logits, labels, logs = given()
    true = -logs[np.arange(5), labels].mean()
    (plain,) = losses([logits], labels, Config())
    assert plain.item() == pytest.approx(true)
    (smooth,) = losses([logits], labels, Config(label_smoothing=0.2))
    spread = np.full((5, 7), 0.2 / 7)
    spread[np.arange(5), labels] += 0.8
    assert smooth.item() == pytest.approx(-(spread * logs).sum(axis=1).mean())
    (sharp,) = losses([logits], labels, Config(entropy_weight=0.3))
    assert sharp.item() == pytest.approx(true + 0.3 * -(np.exp(logs) * logs).sum(axis=1).mean())
    taught = torch.rand(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    taught /= taught.sum(dim=1, keepdim=True)
    for name in ("distill_weight", "anchor_weight"):
        (mixed,) = losses([logits], labels, Config(**{name: 0.25}), taught)
        assert mixed.item() == pytest.approx(0.75 * true + 0.25 * -(taught.numpy() * logs).sum(axis=1).mean())
    # A teacher that is sure of the labels teaches what they do.
    (alone,) = losses([logits], labels, Config(distill_weight=1), torch.eye(7, dtype=torch.float64)[labels])
    assert alone.item() == pytest.approx(true)


def test_the_gradient_of_the_entropy_is_that_of_finite_differences() -> None:
    logits, labels, _ = given()
    (loss,) = losses([logits.requires_grad_()], labels, Config(entropy_weight=0.4))
    (gradient,) = torch.autograd.grad(loss, logits)

    def at(i: int, j: int, by: float) -> float:
        moved = logits.detach().clone()
        moved[i, j] += by
        return losses([moved], labels, Config(entropy_weight=0.4))[0].item()

    for i, j in ((0, 0), (0, 3), (4, 6)):
        assert gradient[i, j].item() == pytest.approx((at(i, j, 1e-5) - at(i, j, -1e-5)) / 2e-5, rel=1e-6)


def test_each_of_a_pair_comes_near_to_the_other_and_pulls_it_nowhere() -> None:
    logits, labels, logs = given()
    logits, other = logits.requires_grad_(), (2 * logits.detach()).requires_grad_()
    first, second = losses([logits, other], labels, Config(codistill_weight=0.5))
    others = np.log(probabilities_from_logits(other.detach().numpy()))
    apart = (np.exp(others) * (others - logs)).sum(axis=1).mean()
    assert first.item() == pytest.approx(-logs[np.arange(5), labels].mean() + 0.5 * apart)
    assert torch.autograd.grad(first, other, allow_unused=True) == (None,)
    assert torch.autograd.grad(second, logits, allow_unused=True) == (None,)


def test_the_curve_of_losses_is_the_cross_entropy_whatever_is_minimised(dataset: Dataset, tiny: Tiny) -> None:
    plain = trained(dataset, tiny("charlm"))
    for changes in ({"label_smoothing": 0.5}, {"entropy_weight": 10.0}, {"codistill_weight": 3.0}):
        # Up to the first step nothing differs.
        assert trained(dataset, tiny("charlm", **changes)).train_loss_curve[0] == plain.train_loss_curve[0]


def test_each_trial_learns_from_its_own_teachers_as_stored(run: Run, store: Store, tiny: Tiny, dataset: Dataset) -> None:
    changes = FAST | {"distill_weight": 1.0, "teachers": 2}
    config = tiny("charlm", **changes)
    result = run(**changes)
    assert len(store.load()[0]) == 3
    stored = [store.find("charlm", "relu", member.sha256(dataset.corpus.sha256)) for member in members(config)]
    assert [record.seed for cell in stored if cell for record in cell.trials] == [1042, 1043, 2042, 2043]
    for trial in (1, 2):
        weights = [store.weights(cell, trial) for cell in stored if cell]
        again = trained(dataset, config, trial, earlier={"teacher": weights})
        assert sha256_of_tensors(again.weights) == result.trials[trial - 1].weights_sha256
        others = [store.weights(cell, 3 - trial) for cell in stored if cell]
        assert not equal(again, trained(dataset, config, trial, earlier={"teacher": others}))
        # What they teach is the mean of what is stored of them.
        _, history = untrained("charlm", "relu", config, dataset, trial)
        taught = Teachers(weights, history)(dataset.windows.inputs[:, :32])
        p = np.mean([store.predictions(cell, trial).probabilities for cell in stored if cell], axis=0)
        assert np.abs(taught.numpy() - p.reshape(-1, 256, p.shape[1])[:, :32].reshape(-1, p.shape[1])).max() < 1e-3
    # They are cells like others: found there, and not trained again.
    seen: list[Progress] = []
    more = tiny("charlm", **changes, entropy_weight=0.1)
    run_experiment("charlm", "relu", more, results_dir=store.folder, progress=seen.append)
    assert len(seen) == 2 * config.max_iters


def test_an_anchor_teaches_and_an_earlier_model_starts_all_trials(run: Run, store: Store, tiny: Tiny, dataset: Dataset) -> None:
    anchored, warm = run(anchor_weight=0.5), run(warm_share=0.75)
    found = [result for _, result in store.load()[0] if result.config["seed"] == 1042]
    anchor, start = sorted(found, key=lambda result: "text_share" in result.config)
    assert (len(anchor.trials), len(start.trials), start.config["text_share"]) == (1, 1, 0.75)
    for trial in (1, 2):
        earlier = {"teacher": [store.weights(anchor, 1)]}
        again = trained(dataset, tiny("charlm", **FAST, anchor_weight=0.5), trial, earlier=earlier)
        assert sha256_of_tensors(again.weights) == anchored.trials[trial - 1].weights_sha256
    assert {record.init_sha256 for record in warm.trials} == {sha256_of_tensors(store.weights(start, 1))}
    assert warm.trials[0].weights_sha256 != warm.trials[1].weights_sha256


def test_a_share_of_the_text_is_its_beginning_and_all_else_stays(tiny: Tiny, dataset: Dataset) -> None:
    half = load_dataset(tiny("charlm", text_share=0.5))
    assert torch.equal(half.train, dataset.train[: len(dataset.train) // 2])
    assert (half.vocab_size, half.windows.sha256) == (dataset.vocab_size, dataset.windows.sha256)
    assert int(half.offsets(10_000, 32, torch.Generator().manual_seed(0)).max()) + 32 < len(half.train)


def test_an_ensemble_predicts_with_the_mean_of_its_members(run: Run, store: Store) -> None:
    plain, two = run(trials=2), run(trials=2, ensemble=2)
    other = next(r for _, r in store.load()[0] if r.config["seed"] == 1042)
    assert len(store.load()[0]) == 3, "the first member is the cell that was there"
    for trial in (1, 2):
        p, q, mean = (store.predictions(r, trial).probabilities for r in (plain, other, two))
        assert np.abs(mean - (p + q) / 2).max() < 1e-3
        record, of = two.trials[trial - 1], (plain.trials[trial - 1], other.trials[trial - 1])
        assert record.seconds == pytest.approx(sum(one.seconds for one in of))
        assert record.train_loss_curve[1][1] == pytest.approx(np.mean([one.train_loss_curve[1][1] for one in of]))
        labels = store.predictions(two, trial).labels
        assert record.val_loss == pytest.approx(-np.log(((p + q) / 2)[np.arange(len(labels)), labels]).mean(), rel=1e-6)
    assert two.parameters == 2 * plain.parameters
    digests = [record.weights_sha256 for result in (plain, other, two) for record in result.trials]
    assert len(set(digests)) == 6
    assert run(trials=2, ensemble=1) == plain
    more = run(trials=3, ensemble=2)
    assert more.trials[:2] == two.trials
    assert more.pairs()[1, 2] == two.pairs()[1, 2]


def test_the_nearest_is_a_member_and_none_is_nearer(run: Run, store: Store, tiny: Tiny) -> None:
    result = run(trials=2, ensemble=3, ensemble_rule="nearest")
    cells = [run(seed=config.seed) for config in members(tiny("charlm", **FAST, ensemble=3))]
    for trial in (1, 2):
        of = [store.predictions(cell, trial) for cell in cells]
        apart = [total_variation(p.probabilities, np.mean([o.probabilities for o in of], axis=0)) for p in of]
        chosen, record = store.predictions(result, trial), result.trials[trial - 1]
        nearest = int(np.argmin(apart))
        away = [total_variation(chosen.probabilities, p.probabilities) for p in of]
        assert int(np.argmin(away)) == nearest
        assert away[nearest] < 1e-3 < sorted(away)[1]
        assert record.val_accuracy == pytest.approx(cells[nearest].trials[trial - 1].val_accuracy)
        assert record.train_loss_curve == cells[nearest].trials[trial - 1].train_loss_curve
    assert result.parameters == cells[0].parameters


def test_disagreement_falls_with_the_size_of_ensembles(run: Run) -> None:
    size = {"trials": 4, "max_iters": 12}
    apart = [np.mean(list(run(ensemble=k, **size).pairs("total_variation").values())) for k in (1, 2, 3)]
    assert all(more > less for more, less in pairwise(apart)), apart


def test_an_ensemble_has_no_weights_or_snapshots_and_says_so(run: Run, store: Store) -> None:
    result = run(ensemble=2)
    for kind, read in zip(TENSOR_KINDS[1:], (store.weights, store.snapshots), strict=True):
        with pytest.raises(ResultError, match=f"charlm with relu is an ensemble of 2 models, and has no {kind} of its own"):
            read(result, 1)
        assert not store.trial_path(kind, "charlm", "relu", result.config_sha256, 1).exists()
    with pytest.raises(ResultError, match="ensemble of 2 models"):
        load_trained(store, result, 1)
    assert follow(store, [result])[0] == []


def test_trials_of_an_ensemble_can_be_trained_apart(store: Store, tiny: Tiny) -> None:
    config = tiny("charlm", **FAST, ensemble=2, execution="stacked")
    assert train_trials("charlm", "relu", config, [1], results_dir=store.folder) == 2
    assert train_trials("charlm", "relu", config, [2], results_dir=store.folder) == 2
    seen: list[Progress] = []
    assert len(run_experiment("charlm", "relu", config, results_dir=store.folder, progress=seen.append).trials) == 2
    assert seen == []


def test_an_earlier_model_that_somebody_trains_is_waited_for_but_not_for_ever(
    run: Run, store: Store, tiny: Tiny, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = members(tiny("charlm", **FAST, ensemble=2))[1]
    lease = cell_lease(store.folder, "charlm", "relu", config.sha256(dataset.corpus.sha256))
    held, free = threading.Event(), threading.Event()

    def work() -> None:
        with hold(lease, "charlm with relu"):
            held.set()
            free.wait(30)

    (other := threading.Thread(target=work)).start()
    assert held.wait(30)
    monkeypatch.setattr(experiment, "PATIENCE_SECONDS", 0)
    with pytest.raises(LeaseHeldError, match="is at work on charlm with relu"):
        run(ensemble=2)
    monkeypatch.undo()
    with listening() as heard:
        timer = threading.Timer(1.5, free.set)
        timer.start()
        run(ensemble=2)
    other.join()
    assert [sentence.endswith("; it is waited for") for sentence in heard] == [True]


def test_a_pair_are_two_models_of_which_the_first_is_the_trial(dataset: Dataset, tiny: Tiny) -> None:
    apart = []
    for weight in (0.01, 20.0):
        config = tiny("charlm", **FAST, max_iters=12, codistill_weight=weight)
        with deterministic_arithmetic():
            work = OneTrial("charlm", "relu", config, dataset, 1)
            assert isinstance(work.model, Pair)
            begun = [
                dict(untrained("charlm", "relu", c, dataset, 1)[0].state_dict()) for c in (config, tiny("charlm", seed=1042))
            ]
            for own, start in zip((work.model.first, work.model.second), begun, strict=True):
                assert all(torch.equal(tensor, start[name]) for name, tensor in own.state_dict().items())
            work.train(12)
            both = [predict_logits(own, dataset.windows, 32).flatten(0, 1) for own in (work.model.first, work.model.second)]
        found = trained(dataset, config)
        assert torch.equal(found.logits, both[0])
        build_model("charlm", config, "relu").load_state_dict(found.weights)
        apart.append(total_variation(*(probabilities_from_logits(logits.numpy()) for logits in both)))
    assert apart[0] > apart[1] > 0


def test_gradients_of_a_pair_are_clipped_model_by_model(dataset: Dataset, tiny: Tiny) -> None:
    config = tiny("charlm", codistill_weight=1.0, grad_clip=1e-3)
    with deterministic_arithmetic():
        work = OneTrial("charlm", "relu", config, dataset, 1)
        work.train(1)
    assert isinstance(work.model, Pair)
    for own in (work.model.first, work.model.second):
        norm = torch.stack([p.grad.norm() for p in own.parameters() if p.grad is not None]).norm().item()
        assert norm == pytest.approx(1e-3, rel=1e-3)


def steps_alike(store: Store, result: Result) -> dict[int, bool]:
    first, second = (store.snapshots(result, trial) for trial in (1, 2))
    return {step: np.array_equal(first.logits[k], second.logits[k]) for k, step in enumerate(first.steps)}


@pytest.mark.parametrize("vary", ["order", "dropout", "bit", "order+bit"])
def test_trials_are_one_until_they_fork(vary: str, run: Run, store: Store) -> None:
    changes = {"vary": vary, "max_iters": 8}
    plain, half, never = run(**changes), run(**changes, fork_share=0.5), run(**changes, fork_share=1)
    # kept: 0, 1, 2, 3, 4, 6, 8
    assert steps_alike(store, half) == {step: step <= 4 for step in (0, 1, 2, 3, 4, 6, 8)}
    assert set(never.reproducibility_metrics.values()) == {0.0}
    for result in (half, never):
        assert result.trials[0].model_dump(exclude={"seconds"}) == plain.trials[0].model_dump(exclude={"seconds"})
    # A share that comes to no step: they fork at once, as they vary without.
    at_once = run(**changes, fork_share=0.01)
    assert [r.weights_sha256 for r in at_once.trials] == [r.weights_sha256 for r in plain.trials]


def test_a_stack_smooths_labels_as_a_single_trial_does(dataset: Dataset, tiny: Tiny, store: Store) -> None:
    config = tiny("charlm", **FAST, label_smoothing=0.3)
    alone = [trained(dataset, config, trial) for trial in (1, 2)]
    stacked = config.model_copy(update={"execution": "stacked"})
    result = run_experiment("charlm", "relu", stacked, results_dir=store.folder)
    for trial, own in zip((1, 2), alone, strict=True):
        weights: Mapping[str, Tensor] = store.weights(result, trial)
        assert all(torch.allclose(weights[name], tensor, rtol=1e-3, atol=1e-4) for name, tensor in own.weights.items())
        curve = result.trials[trial - 1].train_loss_curve
        assert [loss for _, loss in curve] == pytest.approx([loss for _, loss in own.train_loss_curve], rel=1e-4)
