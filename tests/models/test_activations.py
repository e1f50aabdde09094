"""Activations: values, gradients, names. The reference formulas are written out once more, in plain torch."""

from functools import partial

import pytest
import torch
from hypothesis import given, strategies as st
from test_faults import FORMULAS
from torch import Tensor

from repro_lib import config
from repro_lib.models.activations import _BUILDERS, canonical_activation, get_activation, smelu_beta


def plain_smelu(x: Tensor, beta: float) -> Tensor:
    """The definition of Shamir, Lin & Coviello (2020), piece by piece."""
    bend = (x + beta) ** 2 / (4 * beta)
    return torch.where(x <= -beta, torch.zeros_like(x), torch.where(x >= beta, x, bend))


# Those of every registered activation, and a SmeLU that has no line of its own.
REFERENCE = FORMULAS | {"smelu_2": partial(plain_smelu, beta=2.0)}


def test_the_names_in_the_config_are_those_of_the_registry() -> None:
    assert tuple(_BUILDERS) == config.ACTIVATIONS
    assert set(FORMULAS) == set(_BUILDERS), "every registered activation has a formula in tests/test_faults.py"
    assert set(config.GRID_ACTIVATIONS) <= set(config.ACTIVATIONS)
    assert len(config.GRID_ACTIVATIONS) == 5


@pytest.mark.parametrize("name", REFERENCE)
def test_values_and_slopes_are_those_of_the_definition(name: str) -> None:
    # Asymmetric on purpose, and without the kink of ReLU at 0.
    values = torch.linspace(-4.03, 3.97, 400, dtype=torch.float64)
    ours, plain = values.clone().requires_grad_(), values.clone().requires_grad_()
    y, expected = get_activation(name)(ours), REFERENCE[name](plain)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-13)
    weights = torch.linspace(-1, 2, y.numel(), dtype=torch.float64)
    (slope,) = torch.autograd.grad((y * weights).sum(), ours)
    (expected_slope,) = torch.autograd.grad((expected * weights).sum(), plain)
    torch.testing.assert_close(slope, expected_slope, rtol=0, atol=1e-13)


def test_smelu_leaves_its_input_and_the_incoming_gradient_alone() -> None:
    x = torch.linspace(-2, 2, 9, requires_grad=True)
    before, incoming = x.detach().clone(), torch.ones(9)
    get_activation("smelu_1")(x).backward(incoming)
    assert torch.equal(x.detach(), before)
    assert torch.equal(incoming, torch.ones(9))


@pytest.mark.parametrize(
    ("name", "canonical", "beta"),
    [
        *((name, "smelu_05", 0.5) for name in ("smelu_05", "smelu_0.5", "smelu_0.50", "smelu_050")),
        *((name, "smelu_1", 1.0) for name in ("smelu_1", "smelu_1.0")),
        *((name, "smelu_025", 0.25) for name in ("smelu_025", "smelu_0.25")),
        *(("smelu_0.05", "smelu_005", 0.05), ("smelu_0.000000001", "smelu_0000000001", 1e-9)),
        *(("smelu_2", "smelu_2", 2.0), ("smelu_1.5", "smelu_1.5", 1.5), ("smelu_10", "smelu_10", 10.0)),
    ],
)
def test_a_smelu_name_gives_its_half_width_and_one_canonical_spelling(name: str, canonical: str, beta: float) -> None:
    assert canonical_activation(name) == canonical
    assert canonical_activation(canonical) == canonical
    x = torch.linspace(-3, 3, 61, dtype=torch.float64)
    torch.testing.assert_close(get_activation(name)(x), plain_smelu(x, beta), rtol=0, atol=1e-13)
    assert torch.equal(get_activation(name)(x), get_activation(canonical)(x))


@given(st.decimals(min_value="0.000000001", max_value="999999999", places=9))
def test_every_half_width_keeps_its_value_under_its_canonical_name(beta: object) -> None:
    canonical = canonical_activation(f"smelu_{beta:f}")
    assert smelu_beta(canonical) == beta
    assert canonical_activation(canonical) == canonical
    assert get_activation(canonical)(torch.zeros(1, dtype=torch.float64)).item() == pytest.approx(float(str(beta)) / 4)


@pytest.mark.parametrize(
    "name",
    [
        *("smelu_0", "smelu_00", "smelu_0.0", "smelu_-1", "smelu_", "smelu", "smelu_x", "smelu_1e3", "smelu_inf", "smelu_nan"),
        *("smelu_1.", "smelu_.5", "smelu_1 ", "smelu_" + "9" * 400, "smelu_" + "0" * 400 + "1"),
    ],
)
def test_a_smelu_without_a_positive_half_width_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"unknown activation .*smelu_<beta> for any beta > 0"):
        get_activation(name)
