"""The quantile of Student's t against its tables, and how a probe's confidence is shared out."""

import itertools
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autolr.numerics.significance import checkpoints, critical, student_t

TABLES = {  # any statistics book's, by degrees of freedom
    0.75: {3: 0.7649, 4: 0.7407, 7: 0.7111, 15: 0.6912, 31: 0.6825, 99: 0.6770, 1000: 0.6747},
    0.90: {3: 1.6377, 4: 1.5332, 7: 1.4149, 15: 1.3406, 31: 1.3095, 99: 1.2902, 1000: 1.2824},
    0.95: {3: 2.3534, 4: 2.1318, 7: 1.8946, 15: 1.7531, 31: 1.6955, 99: 1.6604, 1000: 1.6464},
    0.99: {3: 4.5407, 4: 3.7469, 7: 2.9980, 15: 2.6025, 31: 2.4528, 99: 2.3646, 1000: 2.3301},
}


@pytest.mark.parametrize("probability", TABLES)
def test_the_quantile_is_the_tables_within_two_percent(probability):
    for df, quantile in TABLES[probability].items():
        assert student_t(probability, df) == pytest.approx(quantile, rel=0.02)
        assert student_t(0.5, df) == pytest.approx(0, abs=1e-9)


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
    assert critical(0.9, checks=1, observations=1001) == pytest.approx(statistics.NormalDist().inv_cdf(0.9), rel=0.01)
