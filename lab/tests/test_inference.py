"""What a few seeds can tell: intervals, corrections and verdicts, held against scipy and against simulation."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from autolr_lab.benchmark.inference import CONFIDENCE, Difference, holm, verdicts

numbers = st.floats(-1e3, 1e3)
LEVEL = 1 - CONFIDENCE


@given(st.lists(numbers, min_size=2, max_size=6))
def test_the_interval_is_that_of_a_t_test(values):
    assume(max(values) - min(values) > 1e-6)
    found = Difference(tuple(values))
    low, high = stats.ttest_1samp(values, 0).confidence_interval(CONFIDENCE)
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high), rel=1e-6, abs=1e-6)


def test_one_pair_has_no_interval_and_a_diverged_run_no_finite_mean():
    assert math.isnan(Difference((0.5,)).half)
    lost = Difference((0.0, math.inf))
    assert lost.mean == math.inf
    assert math.isnan(lost.half)
    assert verdicts([Difference((0.5,)), lost], 1.0) == ["cannot tell", "cannot tell"]


def test_holms_adjustment_on_an_example_worked_by_hand():
    # Sorted .005 .01 .03 .04: times 4, 3, 2, 1, and never below the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_each_p_value_and_bonferroni(p_values):
    for p, adjusted in zip(p_values, holm(p_values), strict=True):
        assert p <= adjusted <= min(1.0, len(p_values) * p) + 1e-12


def test_a_clear_difference_is_told_and_which_way():
    assert verdicts([Difference((1.0, 1.01, 0.99)), Difference((-1.0, -1.01, -0.99))], 0.5) == ["higher", "lower"]


def test_as_good_needs_to_be_surely_within_the_margin():
    near, scattered = Difference((0.01, -0.02, 0.0)), Difference((0.6, -0.6, 0.1))
    assert verdicts([near], 0.5) == ["as good"]
    assert verdicts([scattered], 0.5) == ["cannot tell"]
    assert verdicts([near], 0.001) == ["cannot tell"]


def test_a_difference_that_is_sure_and_small_is_as_good():
    assert verdicts([Difference((0.1, 0.101, 0.099))], 0.5) == ["as good"]
    assert verdicts([Difference((0.1, 0.101, 0.099))], 0.05) == ["higher"]


def test_runs_that_are_the_same_are_as_good_and_a_constant_difference_is_sure():
    assert verdicts([Difference((0.0, 0.0, 0.0))], 0.5) == ["as good"]
    assert verdicts([Difference((0.7, 0.7, 0.7))], 0.5) == ["higher"]


def test_what_is_sure_alone_may_not_be_among_many():
    one = Difference((1.0, 1.3, 0.8))
    assert stats.ttest_1samp(one.values, 0).pvalue < LEVEL
    assert verdicts([one], 0.1) == ["higher"]
    rest = [Difference((0.2, -0.3, 0.1))] * 19
    assert verdicts([one, *rest], 0.1)[0] == "cannot tell"


def test_verdicts_are_seldom_false_in_a_family_where_nothing_differs():
    rng = np.random.default_rng(0)
    families = rng.normal(size=(120, 10, 3))  # no method differs, and the margin is far below the noise
    false = sum(
        any(
            verdict != "cannot tell"
            for verdict in verdicts([Difference(tuple(map(float, one))) for one in family], 0.01)
        )
        for family in families
    )
    assert false / len(families) <= LEVEL + 2 * math.sqrt(LEVEL * (1 - LEVEL) / len(families))
