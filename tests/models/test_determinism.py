"""Randomness: three independent streams, no global generator, the same bits again."""

import contextlib
import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kinds import Tiny
from torch import nn

from repro_lib.config import MODEL_DEFAULTS, Config
from repro_lib.data import Dataset
from repro_lib.models.determinism import STREAM_NAMES, deterministic_arithmetic, flip_one_bit, streams_for_trial
from repro_lib.store.tensors import sha256_of_tensors
from repro_lib.training.experiment import run_experiment
from repro_lib.training.trainer import TrainedTrial, train_trial

ROOT = Path(__file__).resolve().parents[2]


def first_draws(seed: int, trial: int = 1, vary: tuple[str, ...] = STREAM_NAMES) -> dict[str, tuple[float, ...]]:
    streams = streams_for_trial(seed, trial, vary)
    return {name: tuple(torch.rand(4, generator=getattr(streams, name)).tolist()) for name in STREAM_NAMES}


def digests(trained: TrainedTrial) -> tuple[str, str, str]:
    """What must be equal where two runs are the same: initial weights, final weights, predictions."""
    return trained.init_sha256, sha256_of_tensors(trained.weights), sha256_of_tensors({"logits": trained.logits})


@pytest.fixture(autouse=True)
def _leave_torch_as_it_was() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode("default")


def test_the_streams_of_a_trial_and_of_neighbouring_seeds_are_all_different() -> None:
    draws = [draw for seed in range(40, 50) for draw in first_draws(seed).values()]
    assert len(set(draws)) == len(draws) == 30


def test_trials_count_from_1() -> None:
    with pytest.raises(ValueError, match="there is no trial 0: trials count from 1"):
        streams_for_trial(42, 0)


@pytest.mark.parametrize("vary", [named for n in range(4) for named in itertools.combinations(STREAM_NAMES, n)])
def test_only_the_named_streams_change_between_trials(vary: tuple[str, ...]) -> None:
    first, second = first_draws(42, 1, vary), first_draws(42, 2, vary)
    for name in STREAM_NAMES:
        assert (first[name] != second[name]) == (name in vary)


@pytest.mark.parametrize("model", MODEL_DEFAULTS)
def test_training_neither_reads_nor_moves_a_global_random_generator(model: str, dataset: Dataset, tiny: Tiny) -> None:
    config = tiny(model)

    def global_states() -> tuple[Any, ...]:
        name, keys, *rest = np.random.get_state()  # noqa: NPY002, RUF100
        return torch.get_rng_state().tolist(), random.getstate(), name, keys.tolist(), *rest

    runs = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002, RUF100
        random.seed(seed)
        before = global_states()
        runs.append(digests(train_trial(model, "gelu", config, dataset)))
        assert global_states() == before
    assert runs[0] == runs[1]
    # Another trial is another model: had the streams no say, the runs would be equal for that reason.
    other = digests(train_trial(model, "gelu", config, dataset, 2))
    assert all(first != second for first, second in zip(runs[0], other, strict=True))


def test_trial_2_of_seed_42_is_trial_1_of_seed_43(dataset: Dataset, tiny: Tiny) -> None:
    second = train_trial("charlm", "gelu", tiny("charlm"), dataset, trial=2)
    alone = train_trial("charlm", "gelu", tiny("charlm", seed=43), dataset, trial=1)
    assert (second.seed, second.trial) == (43, 2)
    assert digests(second) == digests(alone)


def test_vary_decides_what_differs_between_trials(dataset: Dataset, tiny: Tiny) -> None:
    # A model without dropout has nothing to vary in that stream.
    cases = [("charlm", vary, vary != "none") for vary in ("none", "init", "order", "dropout")]
    for model, vary, differ in (*cases, ("nanotransformer", "dropout", False)):
        runs = [digests(train_trial(model, "gelu", tiny(model, vary=vary), dataset, trial)) for trial in (1, 2)]
        (init_1, weights_1, _), (init_2, weights_2, _) = runs
        assert (init_1 != init_2) == (vary == "init")
        assert (weights_1 != weights_2) == differ, (model, vary)


def test_looking_at_the_validation_text_more_often_changes_nothing(dataset: Dataset, tiny: Tiny) -> None:
    seldom, often = (train_trial("charlm", "gelu", tiny("charlm", eval_interval=k), dataset) for k in (4, 1))
    assert len(often.val_loss_curve) > len(seldom.val_loss_curve)
    assert digests(seldom) == digests(often)


def test_the_number_of_threads_set_by_the_caller_changes_nothing(dataset: Dataset, tiny: Tiny) -> None:
    config = tiny("hybridlm", n_embd=64)
    torch.set_num_threads(1)
    alone = digests(train_trial("hybridlm", "gelu", config, dataset))
    torch.set_num_threads(2)
    assert digests(train_trial("hybridlm", "gelu", config, dataset)) == alone
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("warn_only", [False, True])
def test_the_callers_settings_return_after_the_block_also_after_an_error(warn_only: bool) -> None:
    torch.set_num_threads(2)
    torch.set_deterministic_debug_mode("warn" if warn_only else "default")
    with contextlib.suppress(KeyError), deterministic_arithmetic():
        assert torch.get_num_threads() == 1
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
        raise KeyError
    assert torch.get_num_threads() == 2
    assert torch.are_deterministic_algorithms_enabled() == warn_only
    assert torch.is_deterministic_algorithms_warn_only_enabled() == warn_only


def inherit(state: str) -> contextlib.ExitStack:
    """A process in which something was set before we came, for as long as the stack is open."""
    stack = contextlib.ExitStack()
    matmul: Any = torch.backends.mkldnn.matmul
    if state == "no gradients":
        stack.enter_context(torch.no_grad())
    elif state == "inference mode":
        stack.enter_context(torch.inference_mode())
    elif state == "autocast":
        stack.enter_context(torch.autocast("cpu", torch.bfloat16))
    else:
        read, write, value = {
            "default dtype": (torch.get_default_dtype, torch.set_default_dtype, torch.float64),
            "default device": (torch.get_default_device, torch.set_default_device, torch.device("meta")),
            "no flash attention": (torch.backends.cuda.flash_sdp_enabled, torch.backends.cuda.enable_flash_sdp, False),
            "products in bfloat16": (lambda: matmul.fp32_precision, lambda to: setattr(matmul, "fp32_precision", to), "bf16"),
            "no oneDNN": (torch._C._get_mkldnn_enabled, torch._C._set_mkldnn_enabled, False),
        }[state]
        stack.callback(write, read())
        write(value)
    return stack


@pytest.mark.parametrize(
    "state",
    [
        *("default dtype", "default device", "autocast", "no flash attention", "products in bfloat16", "no oneDNN"),
        *("no gradients", "inference mode"),
    ],
)
def test_what_a_process_has_set_before_changes_no_bit(state: str, tmp_path: Path, corpus_file: Path) -> None:
    # charlm for attention, convlm for convolutions.
    for model in ("charlm", "convlm"):
        config = Config.for_model(model, "smoke", corpus=str(corpus_file), trials=2)
        plain = run_experiment(model, "gelu", config, results_dir=tmp_path / "plain")
        with inherit(state):
            again = run_experiment(model, "gelu", config, results_dir=tmp_path / "inherited")
        for one, other in zip(plain.trials, again.trials, strict=True):
            assert (one.weights_sha256, one.predictions_sha256) == (other.weights_sha256, other.predictions_sha256), state
        assert again.reproducibility_metrics == plain.reproducibility_metrics


def test_a_digest_of_tensors_covers_names_types_shapes_and_values_and_nothing_else() -> None:
    a, b = torch.arange(6, dtype=torch.float32).reshape(2, 3), torch.ones(2)
    base = sha256_of_tensors({"a": a, "b": b})
    assert sha256_of_tensors({"b": b, "a": a}) == base
    assert sha256_of_tensors({"a": a.T.contiguous().T, "b": b.requires_grad_()}) == base
    changed = a.clone()
    changed[1, 2] = torch.nextafter(changed[1, 2], torch.tensor(9.0))
    others = [{"a": a}, {"a": a, "c": b}, *({"a": x, "b": b} for x in (a.reshape(3, 2), a.to(torch.int32), changed))]
    assert len({base, *(sha256_of_tensors(other) for other in others)}) == 6


class Weights(nn.Module):
    """Four kinds of parameters, of which only ``matrix`` may be touched."""

    def __init__(self) -> None:
        super().__init__()
        self.zeros = nn.Parameter(torch.zeros(3, 3))
        self.matrix = nn.Parameter(torch.randn(4, 5, generator=torch.Generator().manual_seed(1)))
        self.vector = nn.Parameter(torch.ones(7))
        self.characters = nn.Embedding(3, 4)


def test_one_bit_of_one_weight_is_flipped():
    model = Weights()
    before = {name: tensor.detach().clone() for name, tensor in model.named_parameters()}
    assert flip_one_bit(model, seed=5) == "matrix"
    assert [name for name, tensor in model.named_parameters() if not torch.equal(tensor, before[name])] == ["matrix"]
    changed = (model.matrix != before["matrix"]).nonzero()
    assert len(changed) == 1
    was, now = (matrix[tuple(changed[0])].detach().view(torch.int32).item() for matrix in (before["matrix"], model.matrix))
    assert was ^ now == 1
    again, other = Weights(), Weights()
    flip_one_bit(again, seed=5)
    flip_one_bit(other, seed=6)
    assert torch.equal(again.matrix, model.matrix)
    assert not torch.equal(other.matrix, model.matrix)
    nn.init.zeros_(model.matrix)
    with pytest.raises(ValueError, match="all matrices are 0"):
        flip_one_bit(model, seed=0)


def test_vary_bit_leaves_the_first_trial_alone_and_the_data_order_too(dataset: Dataset, tiny: Tiny) -> None:
    none = train_trial("charlm", "gelu", tiny("charlm", vary="none", max_iters=12), dataset, 2)
    config = tiny("charlm", vary="bit", max_iters=12)
    first, second = (train_trial("charlm", "gelu", config, dataset, trial) for trial in (1, 2))
    assert first.init_sha256 == none.init_sha256
    assert torch.equal(first.logits, none.logits)
    assert second.init_sha256 != first.init_sha256
    # A weight inside a branch that starts at zero is not felt before the first step; afterwards it is, and hardly.
    apart = (second.step_logits - first.step_logits).abs().amax(dim=(1, 2))
    assert apart[0] < 1e-5
    assert 0 < apart[-1] < 0.05
