"""Training of stacked trials against training them one after another, and stacked cells end to end."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from kinds import Tiny
from test_resume import MODELS, QUICK
from torch import nn

from repro_lib import run_experiment
from repro_lib.analysis.frames import check_comparable
from repro_lib.config import ACTIVATIONS, MODEL_DEFAULTS, Config
from repro_lib.data import Dataset
from repro_lib.store.schema import ResultError
from repro_lib.store.store import Store
from repro_lib.store.tensors import sha256_of_tensors
from repro_lib.training import stacked
from repro_lib.training.progress import Progress
from repro_lib.training.stacked import StackTooLarge, TrialStack, clip_each, train_stack
from repro_lib.training.state import TrialHistory
from repro_lib.training.trainer import TrainedTrial, TrainingDiverged, train_trial

ROOT = Path(__file__).resolve().parents[2]

# Ten steps with warm-up, decay, clipping that is felt (norms at the start are about 1) and dropout.
SHORT = {"max_iters": 10, "warmup_iters": 3, "eval_interval": 4, "trials": 3, "grad_clip": 0.5}
# Float32 sums in another order, ten steps long: what was seen is 1e-6, 2e-6 and 1e-5 of these, on losses of 3, logits of
# size 1 and steps of 7e-3 to 2e-2 in the weights. A wrong mask, batch, rate or decay shows as 1e-3 and more (tested below).
LOSSES = {"rtol": 0.0, "atol": 1e-5}
LOGITS = {"rtol": 0.0, "atol": 5e-5}
WEIGHTS = {"rtol": 0.0, "atol": 2e-4}


def assert_close(found: TrainedTrial, expected: TrainedTrial) -> None:
    """The same trial up to rounding; bit-equal where nothing has been trained."""
    assert (found.trial, found.seed, found.steps) == (expected.trial, expected.seed, expected.steps)
    assert found.init_sha256 == expected.init_sha256
    assert torch.equal(found.step_logits[0], expected.step_logits[0])
    for name in ("train_loss_curve", "val_loss_curve"):
        mine, theirs = torch.tensor(getattr(found, name)), torch.tensor(getattr(expected, name))
        torch.testing.assert_close(mine, theirs, **LOSSES)
    torch.testing.assert_close(found.val_loss, expected.val_loss, **LOSSES)
    torch.testing.assert_close(found.step_logits, expected.step_logits, **LOGITS)
    torch.testing.assert_close(found.logits, expected.logits, **LOGITS)
    assert found.val_accuracy == pytest.approx(expected.val_accuracy, abs=0.1)
    assert found.weights.keys() == expected.weights.keys()
    for name, tensor in expected.weights.items():
        torch.testing.assert_close(found.weights[name], tensor, **WEIGHTS, msg=name)


def digests(trained: TrainedTrial) -> tuple[str, str, str]:
    """What must be equal where two runs are the same."""
    tensors = {"logits": trained.logits, "steps": trained.step_logits}
    return trained.init_sha256, sha256_of_tensors(trained.weights), sha256_of_tensors(tensors)


def short(tiny: Tiny, model: str, **changes: Any) -> Config:
    """A stacked configuration; sequential training reads it too, and does not look at ``execution``."""
    return tiny(model, **SHORT | {"execution": "stacked"} | changes)


def stack_of(config: Config, dataset: Dataset, model: str = "charlm", trials: Sequence[int] = (1, 2, 3)) -> TrialStack:
    return TrialStack(model, "gelu", config, dataset, trials)


@pytest.mark.parametrize("model", MODELS)
def test_stacked_and_sequential_training_agree(model: str, dataset: Dataset, tiny: Tiny) -> None:
    config = short(tiny, model)
    together = train_stack(model, "swiglu", config, dataset, range(1, 4))
    assert len({digests(trained) for trained in together}) == 3, "each trial has its own randomness"
    assert len({trained.seconds for trained in together}) == 1
    for trial, found in enumerate(together, 1):
        assert_close(found, train_trial(model, "swiglu", config, dataset, trial))


@pytest.mark.slow
@pytest.mark.parametrize("activation", [name for name in ACTIVATIONS if name != "swiglu"])
def test_they_agree_with_every_activation(activation: str, dataset: Dataset, tiny: Tiny) -> None:
    for model in MODEL_DEFAULTS:
        (found,) = train_stack(model, activation, short(tiny, model), dataset, [2])
        assert_close(found, train_trial(model, activation, short(tiny, model), dataset, 2))


def test_the_tolerances_see_what_a_mistake_would_do(dataset: Dataset, tiny: Tiny) -> None:
    right = train_trial("charlm", "gelu", short(tiny, "charlm"), dataset, 2)
    # The masks, the batches and the weights of the first trial for all; no clipping; and settings a little off.
    changes: list[dict[str, Any]] = [{"vary": vary} for vary in ("init+order", "init+dropout", "order+dropout")]
    changes += [{"grad_clip": 10.0}, {"weight_decay": 0.0}, {"learning_rate": 6.9e-3}, {"beta2": 0.98}]
    for change in changes:
        (mistaken,) = train_stack("charlm", "gelu", short(tiny, "charlm", **change), dataset, [2])
        assert (mistaken.logits - right.logits).abs().max() > 10 * LOGITS["atol"], change
        assert max((mistaken.weights[name] - tensor).abs().max() for name, tensor in right.weights.items()) > WEIGHTS["atol"]


@pytest.mark.parametrize("vary", ["bit", "dropout"])
def test_the_sources_of_randomness_are_those_of_sequential_training(vary: str, dataset: Dataset, tiny: Tiny) -> None:
    config = short(tiny, "hybridlm", vary=vary)
    for trial, found in enumerate(train_stack("hybridlm", "gelu", config, dataset, range(1, 3)), 1):
        assert_close(found, train_trial("hybridlm", "gelu", config, dataset, trial))


@pytest.mark.parametrize("model", MODELS)
def test_equal_trials_of_a_stack_end_with_the_same_bits(model: str, dataset: Dataset, tiny: Tiny) -> None:
    """Where nothing varies a place in the stack makes no difference: PD is exactly 0, as in sequential training."""
    trials = train_stack(model, "gelu", short(tiny, model, vary="none"), dataset, range(1, 4))
    assert len({digests(trained) for trained in trials}) == 1


@pytest.mark.parametrize("model", MODELS)
def test_a_trial_does_not_depend_on_which_others_are_stacked_with_it(model: str, dataset: Dataset, tiny: Tiny) -> None:
    config = short(tiny, model)
    (alone,) = train_stack(model, "swish", config, dataset, [2])
    for others in ([3, 2], [2, 6, 1]):
        found = train_stack(model, "swish", config, dataset, others)
        assert [trained.trial for trained in found] == others
        assert_close(found[others.index(2)], alone)


IN_ANOTHER_PROCESS = """
import sys
from repro_lib.config import Config
from repro_lib.data import load_dataset
from repro_lib.store.tensors import sha256_of_tensors
from repro_lib.training.stacked import train_stack
config = Config.for_model("charlm", "smoke", corpus=sys.argv[1], trials=2, execution=sys.argv[2])
dataset = load_dataset(config)
trained = train_stack("charlm", "smelu_1", config.with_corpus(dataset.vocab_size), dataset, range(1, 3))
print(*(sha256_of_tensors(trial.weights) for trial in trained))
"""
needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler on the CPU")
# torch's own compiler uses what torch has deprecated, and hides the other from everybody, save where warnings are errors.
SILENT = "ignore:.*torch.jit.script_method.*:DeprecationWarning", "ignore:The .grad attribute of a Tensor:UserWarning"


@pytest.mark.slow
@pytest.mark.filterwarnings(*SILENT)
@pytest.mark.parametrize("execution", ["stacked", pytest.param("stacked+bfloat16+compile", marks=needs_compiler)])
def test_another_process_gets_the_same_bits(execution: str, corpus_file: Path, dataset: Dataset, tiny: Tiny) -> None:
    command = [sys.executable, "-c", IN_ANOTHER_PROCESS, str(corpus_file), execution]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    mine = train_stack("charlm", "smelu_1", tiny("charlm", execution=execution), dataset, range(1, 3))
    assert [sha256_of_tensors(trained.weights) for trained in mine] == done.stdout.split()
    assert done.stderr == ""


def test_looking_at_the_losses_seldom_changes_nothing(dataset: Dataset, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: iterations are done ahead, and whoever watches is told of all of them afterwards."""
    seen: dict[int, list[Progress]] = {}
    runs = {}
    for every in (1, 3, 100):
        monkeypatch.setitem(stacked.LOOK_EVERY, "cpu", every)
        config = short(tiny, "charlm", trials=5)
        seen[every] = []
        runs[every] = train_stack("charlm", "gelu", config, dataset, [4, 5], seen[every].append)
    assert seen[1] == seen[3] == seen[100]
    assert [(now.iteration, now.trial) for now in seen[1]] == [(i, k) for i in range(1, 11) for k in (4, 5)]
    assert {(now.trials, now.together, now.max_iters) for now in seen[1]} == {(5, 2, 10)}
    assert seen[1][-1].done == 50
    for k, trained in enumerate(runs[1]):
        assert digests(trained) == digests(runs[3][k]) == digests(runs[100][k])
        assert trained.train_loss_curve == runs[3][k].train_loss_curve == [(n.iteration, n.train_loss) for n in seen[1][k::2]]
        assert trained.val_loss_curve == runs[100][k].val_loss_curve
        told = {now.iteration: now.val_loss for now in seen[1][k::2]}
        (_, first), (_, second), _ = trained.val_loss_curve
        assert (told[3], told[4], told[7], told[8]) == (None, first, first, second)


def test_each_trial_is_clipped_by_its_own_norm_as_it_would_be_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = (1e-3, 0.7, 5.0, 1e15, 0.0)
    gradients = [
        torch.stack([size * torch.randn(shape, generator=generator) for size in sizes]) for shape in [(4, 3), (5,), (2, 2, 2)]
    ]
    expected = []
    for k in range(len(sizes)):
        parameters = [nn.Parameter(torch.zeros_like(gradient[k])) for gradient in gradients]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient[k].clone()
        torch.nn.utils.clip_grad_norm_(parameters, 2.0)
        expected.append([parameter.grad for parameter in parameters])
    clip_each(gradients, 2.0)
    for k, alone in enumerate(expected):
        for gradient, one in zip(gradients, alone, strict=True):
            torch.testing.assert_close(gradient[k], one, rtol=1e-6, atol=0.0)


def spoil(stack: TrialStack, k: int, factor: float) -> None:
    """Make the output matrix of one trial absurd, and with it all its gradients."""
    with torch.no_grad():
        stack.stacked.get_parameter("model.head.weight")[k] *= factor


@pytest.mark.parametrize(("factor", "finite"), [(1e6, True), (float("nan"), False)])
@pytest.mark.parametrize("model", ["hybridlm", "tinylstm"])
def test_one_trial_out_of_bounds_spoils_no_other(model: str, factor: float, finite: bool, dataset: Dataset, tiny: Tiny) -> None:
    config = short(tiny, model)
    calm, upset = stack_of(config, dataset, model), stack_of(config, dataset, model)
    spoil(upset, 1, factor)
    losses, upset_losses = torch.tensor(calm.train(5)), torch.tensor(upset.train(5))
    assert bool(torch.isfinite(upset_losses[:, 1]).all()) == finite
    assert not finite or upset_losses[0, 1] > 100
    for k in (0, 2):
        assert torch.equal(upset_losses[:, k], losses[:, k])
        weights, upset_weights = calm.stacked.weights_of(k), upset.stacked.weights_of(k)
        assert all(torch.equal(upset_weights[name], tensor) for name, tensor in weights.items())


def test_the_diverging_trial_is_the_one_that_is_named(dataset: Dataset, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    untrained = stacked.untrained

    def poisoned(*what: Any) -> tuple[nn.Module, TrialHistory]:
        model, history = untrained(*what)
        if what[-1] == 7:
            nn.init.constant_(model.get_parameter("head.bias"), float("nan"))
        return model, history

    monkeypatch.setattr(stacked, "untrained", poisoned)
    seen: list[Progress] = []
    with pytest.raises(TrainingDiverged, match=r"the loss became nan for charlm with gelu, trial 7, iteration 1; lower"):
        train_stack("charlm", "gelu", short(tiny, "charlm", trials=8), dataset, [6, 7, 8], seen.append)
    assert seen == [], "what is told of is finite, for all trials"
    trained = train_stack("charlm", "gelu", short(tiny, "charlm", trials=8), dataset, [6, 8])
    assert [trial.trial for trial in trained] == [6, 8]


def test_weights_that_break_in_the_last_step_are_found(dataset: Dataset, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    train = TrialStack.train

    def breaks_at_the_end(self: TrialStack, last: int) -> list[list[float]]:
        losses = train(self, last)
        if last == self.config.max_iters:
            spoil(self, 1, float("nan"))
        return losses

    monkeypatch.setattr(TrialStack, "train", breaks_at_the_end)
    with pytest.raises(TrainingDiverged, match=r"the validation loss is nan for charlm with gelu, trial 2, iteration 10"):
        train_stack("charlm", "gelu", short(tiny, "charlm"), dataset, range(1, 4))


def test_too_many_trials_for_the_memory_are_refused(dataset: Dataset, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_memory(self: TrialStack, last: int) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(TrialStack, "train", out_of_memory)
    with pytest.raises(StackTooLarge, match=r"3 trials of charlm at once do not fit .* ask for fewer trials first"):
        train_stack("charlm", "gelu", short(tiny, "charlm"), dataset, range(1, 4))


def test_bfloat16_changes_the_numbers_a_little_and_no_dtype(dataset: Dataset, tiny: Tiny) -> None:
    """Numbers of 8 bits: about 1 % of each product. Only training uses them; predictions are made in float32."""
    for model in QUICK:
        config = short(tiny, model)
        (plain,) = train_stack(model, "gelu", config, dataset, [1])
        (rough,) = train_stack(model, "gelu", short(tiny, model, execution="stacked+bfloat16"), dataset, [1])
        assert rough.init_sha256 == plain.init_sha256
        assert torch.equal(rough.step_logits[0], plain.step_logits[0]), "the evaluation knows no bfloat16"
        assert {tensor.dtype for tensor in rough.weights.values()} == {rough.logits.dtype} == {torch.float32}
        for (_, mine), (_, theirs) in zip(rough.train_loss_curve, plain.train_loss_curve, strict=True):
            assert mine == pytest.approx(theirs, abs=0.02)
        assert rough.train_loss_curve != plain.train_loss_curve


@pytest.mark.slow
@needs_compiler
@pytest.mark.filterwarnings(*SILENT)
@pytest.mark.parametrize("model", ["charlm", "hybridlm", "tinylstm_readout"])
def test_compiled_training_agrees_too(model: str, dataset: Dataset, tiny: Tiny) -> None:
    for activation in ("smelu_1", "swiglu"):
        config = short(tiny, model, execution="stacked+compile")
        first, second = (train_stack(model, activation, config, dataset, range(1, 3)) for _ in range(2))
        for found, again in zip(first, second, strict=True):
            assert digests(found) == digests(again)
            expected = train_trial(model, activation, config, dataset, found.trial)
            torch.testing.assert_close(found.val_loss, expected.val_loss, rtol=0.0, atol=1e-4)
            # Fused kernels round otherwise in every step, where stacking alone only reorders sums.
            torch.testing.assert_close(found.logits, expected.logits, rtol=0.0, atol=2e-3)


def test_stacked_and_sequential_cells_agree_and_are_never_taken_for_each_other(store: Store, tiny: Tiny) -> None:
    trained: set[int] = set()
    together, config = tiny("charlm", trials=3, execution="stacked"), tiny("charlm", trials=3)
    stacked_result = run_experiment("charlm", "gelu", together, results_dir=store.folder)
    assert stacked_result.config["execution"] == "stacked"
    assert store.snapshots(stacked_result, 3).steps == (0, 1, 2, 3, 4)
    sequential = run_experiment("charlm", "gelu", config, results_dir=store.folder, progress=lambda now: trained.add(now.trial))
    assert trained == {1, 2, 3}, "the stored stacked trials do not stand for sequential ones"
    assert [record.init_sha256 for record in sequential.trials] == [record.init_sha256 for record in stacked_result.trials]
    assert sequential.avg_val_loss == pytest.approx(stacked_result.avg_val_loss, abs=LOSSES["atol"])
    assert sequential.avg_relative_pd == pytest.approx(stacked_result.avg_relative_pd, abs=1e-4)
    assert sequential.config_sha256 != stacked_result.config_sha256
    with pytest.raises(ResultError, match=r"differ in .*execution"):
        check_comparable([sequential, stacked_result.model_copy(update={"activation": "relu"})])
