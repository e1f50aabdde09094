"""From intervals to verdicts, by hand: regions, trees of checks, simultaneous intervals, trials needed."""

import math
from dataclasses import replace

import pytest
import scipy.stats

from repro_lib.analysis.verdicts import NOT_COMPARABLE, NOT_DECIDED, REFUTED, SUPPORTED, All, AnyOf, Check, judge_node
from repro_lib.metrics.hypothesis_tests import power
from repro_lib.metrics.uncertainty import Estimate


def estimate(value: float, error: float = 0.1, n: int = 10) -> Estimate:
    half = scipy.stats.t.ppf(0.975, n - 1) * error
    return Estimate(value, value - half, value + half, n, error)


def below_zero(value: float, error: float = 0.1, n: int = 10, about: str = "x") -> Check:
    return Check(about, estimate(value, error, n), -math.inf, 0.0)


def test_one_check_by_hand() -> None:
    # t with 9 degrees: 2.262. 0.3 - 0.226 > 0 is outside, -0.3 + 0.226 < 0 inside, 0.2 - 0.226 < 0 across.
    expected = {-0.3: SUPPORTED, 0.3: REFUTED, 0.2: NOT_DECIDED, -0.2: NOT_DECIDED}
    assert {value: judge_node(below_zero(value)).verdict for value in expected} == expected
    # An interval does not leave the range of its number.
    check = Check("a CV", estimate(0.05, 0.1), 0.0, 1.0, floor=0.0)
    assert judge_node(check).decisive.simultaneous[0] == 0.0
    # Below ten trials nothing is decided, whatever the interval.
    for value in (-50.0, 50.0):
        assert judge_node(below_zero(value, 0.001, n=9)).verdict == NOT_DECIDED
    # Digests need no trials.
    for value, verdict in ((0.0, SUPPORTED), (1.0, REFUTED)):
        check = Check("x", Estimate(value, value, value, 2), -0.5, 0.5, exact="by digests")
        assert judge_node(check).verdict == verdict
        assert judge_node(replace(check, problem="it is missing")).verdict == NOT_DECIDED
    # Nothing is said of a number that was published for other data, however clear it looks.
    assert judge_node(replace(below_zero(-50.0), comparable=False)).verdict == NOT_COMPARABLE


def test_what_one_check_refutes_is_refuted_at_its_trials_though_another_could_not_be_made() -> None:
    absent = Check("y", Estimate(math.nan, math.nan, math.nan, 0), -math.inf, 0.0, problem="y is missing")
    refuted = judge_node(All([below_zero(0.9), absent]))
    assert (refuted.verdict, refuted.n) == (REFUTED, 10)
    supported = judge_node(AnyOf([below_zero(-0.9, n=12), absent, below_zero(-0.9, n=11)]))
    assert (supported.verdict, supported.n) == (SUPPORTED, 11)
    # What is open is open for what is missing, and names it.
    left_open = judge_node(All([below_zero(-0.9), absent]))
    assert (left_open.verdict, left_open.n, left_open.trials_needed) == (NOT_DECIDED, 0, None)
    assert left_open.problems == ("y is missing",)


def test_intervals_of_one_claim_are_simultaneous() -> None:
    # Alone 2.262 standard errors suffice, beside three others t at 1 - .05 / 4 / 2 is needed: 3.111.
    assert scipy.stats.t.ppf(1 - 0.05 / 8, 9) == pytest.approx(3.111, abs=1e-3)
    weak, strong = below_zero(-0.28), below_zero(-9.0)
    assert judge_node(weak).verdict == SUPPORTED
    judged = judge_node(All([weak, strong, strong, strong]))
    assert judged.verdict == NOT_DECIDED
    assert judged.decisive.estimate == weak.estimate
    assert judged.decisive.simultaneous == pytest.approx((-0.28 - 0.3111, -0.28 + 0.3111), abs=1e-3)
    assert judge_node(All([below_zero(-0.32), strong, strong, strong])).verdict == SUPPORTED


def test_all_and_any() -> None:
    holds, fails, opened = below_zero(-9.0, about="holds"), below_zero(9.0, about="fails"), below_zero(0.01, about="open")
    table = [
        (All([holds, holds]), SUPPORTED, "holds"),
        (All([holds, fails]), REFUTED, "fails"),
        (All([opened, fails]), REFUTED, "fails"),
        (All([holds, opened]), NOT_DECIDED, "open"),
        (AnyOf([holds, fails]), SUPPORTED, "holds"),
        (AnyOf([holds, opened]), SUPPORTED, "holds"),
        (AnyOf([fails, fails]), REFUTED, "fails"),
        (AnyOf([fails, opened]), NOT_DECIDED, "open"),
        (All([AnyOf([fails, holds]), AnyOf([holds, opened])]), SUPPORTED, "holds"),
        (All([AnyOf([fails, fails]), AnyOf([holds, opened])]), REFUTED, "fails"),
    ]
    for node, verdict, decisive in table:
        judged = judge_node(node)
        assert (judged.verdict, judged.decisive.about) == (verdict, decisive)


def test_trials_needed() -> None:
    # Half a trial's sd away from the bound: error = sd / sqrt(N). At the number that is named the check decides in 80 % of
    # studies, with one trial less it does not.
    judged = judge_node(below_zero(-0.5, error=1 / math.sqrt(10)))
    assert judged.verdict == NOT_DECIDED
    needed = judged.trials_needed
    assert needed is not None
    assert power(needed, 0.5) >= 0.8 > power(needed - 1, 0.5)
    # At least what any verdict needs, and none without an interval.
    assert judge_node(below_zero(-5.0, 0.01, 3)).trials_needed == 10
    assert judge_node(Check("x", Estimate(-1.0, math.nan, math.nan, 2), -math.inf, 0.0)).trials_needed is None
    assert judge_node(below_zero(-9.0)).trials_needed is None  # decided already
