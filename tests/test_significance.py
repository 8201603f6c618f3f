"""The quantile of Student's t against a library's, and how a probe's confidence is shared out."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from autolr.numerics.significance import checkpoints, critical, student_t


@pytest.mark.parametrize("probability", [0.5, 0.6, 0.75, 0.9, 0.95, 0.98, 0.99])
@pytest.mark.parametrize("df", [3, 4, 7, 15, 31, 99, 1000])
def test_the_quantile_is_the_library_s_within_two_percent(probability, df):
    assert student_t(probability, df) == pytest.approx(stats.t.ppf(probability, df), rel=0.02, abs=1e-9)


@given(st.floats(0.5, 0.995), st.integers(3, 1000))
def test_fewer_observations_ask_for_more(probability, df):
    assert student_t(probability, df) >= student_t(probability, df + 1) - 1e-9


@given(st.integers(1, 5000))
def test_checkpoints_rise_by_doubling_and_end_with_the_most(most):
    *doubling, last = checkpoints(most)
    assert last == most
    assert all(later == 2 * earlier for earlier, later in itertools.pairwise(doubling))
    assert all(count < most for count in doubling)
    assert not doubling or most <= 2 * doubling[-1]


def test_a_probe_that_is_asked_more_often_has_to_be_surer_each_time():
    assert critical(0.9, checks=6, observations=20) > critical(0.9, checks=1, observations=20)
    assert critical(0.9, checks=1, observations=1001) == pytest.approx(stats.norm.ppf(0.9), rel=0.01)
