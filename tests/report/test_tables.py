"""Tables for people and the figures of the activation functions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from test_study import make_result as full_result

from repro_lib.analysis.formatting import number, with_interval
from repro_lib.analysis.study import cells_frame
from repro_lib.plots.activations import activation_curves, derivatives, smelu_family
from repro_lib.report.tables import config_table, overview_table, summary_table, trials_table
from repro_lib.store.schema import Result


def test_numbers_carry_their_interval_where_there_is_one() -> None:
    assert with_interval({"x": 0.41234, "x_low": 0.4, "x_high": 0.42}, "x", 3) == "0.412 (0.400 to 0.420)"  # pyright: ignore[reportArgumentType]
    assert with_interval({"x": 0.41234, "x_low": float("nan"), "x_high": float("nan")}, "x", 3) == "0.412"  # pyright: ignore[reportArgumentType]
    assert number(float("nan"), 2) == number(None, 2) == "–"
    table = overview_table(cells_frame([full_result("charlm", "relu")], ["charlm", "convlm"], ["relu", "gelu"]))
    assert (list(table.index), list(table.columns)) == (["charlm", "convlm"], ["relu", "gelu"])
    assert table.loc["charlm", "relu"].startswith("0.500 (")
    assert set(table.loc["convlm"]) == {"–"}


def test_trials_and_configuration_are_shown_whole(make_result: Callable[..., Result]) -> None:
    result = make_result("charlm", "relu", trials=3)
    assert list(trials_table(result)["Seed"]) == [42, 43, 44]
    table = config_table(result)
    assert set(table.index) == set(result.config)
    assert table.loc["max_iters", "Set by"] == "profile"


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_the_summary_of_a_cell_is_of_that_cell(activation: str) -> None:
    """It once looked at the first cell of the registry, which is missing where another was trained."""
    table = summary_table(full_result("convlm", activation))
    assert list(table.columns) == [f"convlm with {activation}"]
    assert table.iloc[:, 0]["Relative PD"].startswith("0.5000 (0.")
    assert table.iloc[:, 0]["Validation accuracy, %"].startswith("50.00 (")


def test_derivatives_agree_with_hand_worked_values() -> None:
    points, value, slope, curvature = derivatives("smelu_1", 3.0)
    middle, two = np.abs(points).argmin(), np.abs(points - 2.0).argmin()
    assert (value[middle], slope[middle]) == pytest.approx((0.25, 0.5))
    assert curvature[middle] == pytest.approx(0.5)
    assert (value[two], slope[two], curvature[two]) == pytest.approx((2.0, 1.0, 0.0))
    with pytest.raises(ValueError, match="draw an ungated activation"):
        derivatives("swiglu", 3.0)


def test_the_figures_of_the_activations_say_what_they_show() -> None:
    plot = activation_curves(["relu", "swish"], 2.0)
    assert "relu, swish" in plot.alt
    assert plot.png().startswith(b"\x89PNG")
    assert "beta 0.5, 2" in smelu_family([0.5, 2.0]).alt
