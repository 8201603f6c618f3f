"""From short runs' bottoms to a long run's peak: algebra that can be checked by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autolr.numerics.bracket import Bottom
from autolr.numerics.horizon import REGRET_ABOVE, REGRET_BELOW, Belief, Prior, extrapolate


def at(length, place, stderr=0.0, share=1.0):
    return Bottom(length, place, stderr, share)


def test_one_length_is_carried_by_the_prior_alone():
    told = extrapolate([at(10, 3.0, 0.4)], 160, Prior(exponent=-0.25, spread=0.1, scatter=0.3))
    assert told.mean == pytest.approx(3.0 - 4 * 0.25)
    assert told.stderr**2 == pytest.approx(0.4**2 + 0.3**2 + (4 * 0.1) ** 2 + 0.3**2)  # bottom, its line, drift, here


def test_the_less_was_gained_the_lower_the_peak_of_a_long_run():
    def mean(share):
        return extrapolate([at(10, 3.0, 0.1, share)], 160, Prior(exponent=0.0, early=-0.25)).mean

    assert [mean(share) for share in (1.0, 0.5, 0.0, -3.0)] == pytest.approx([3.0, 2.5, 2.0, 2.0])


def test_two_exact_lengths_and_an_open_prior_give_their_line():
    told = extrapolate([at(10, 3.0), at(40, 2.0)], 640, Prior(exponent=0.0, spread=1e3, scatter=1e-4))
    assert told.mean == pytest.approx(0.0, abs=1e-3)


def test_a_sure_prior_ignores_the_drift_that_was_seen():
    told = extrapolate([at(10, 3.0, 0.1), at(40, 2.0, 0.1)], 160, Prior(exponent=0.0, spread=1e-6, scatter=0.1))
    assert told.mean == pytest.approx(2.5, abs=1e-6)


@given(noise=st.floats(0.01, 3.0))
def test_the_noisier_the_drift_the_less_of_it_is_believed(noise):
    def mean(error):
        return extrapolate([at(10, 3.0, error), at(40, 2.0, error)], 640, Prior(0.0, 0.2, 0.1)).mean

    assert mean(noise) < mean(2 * noise)


@given(shift=st.floats(-30, 30), scale=st.floats(0.5, 20))
def test_the_answer_moves_with_the_unit_of_the_rate_and_of_the_length(shift, scale):
    here = extrapolate([at(10, 3.0, 0.1), at(40, 2.0, 0.3)], 640, Prior())
    there = extrapolate([at(10 * scale, 3.0 + shift, 0.1), at(40 * scale, 2.0 + shift, 0.3)], 640 * scale, Prior())
    assert there.mean == pytest.approx(here.mean + shift, abs=1e-6)
    assert there.stderr == pytest.approx(here.stderr)


@given(mean=st.floats(-5, 5), stderr=st.floats(0.05, 3))
def test_the_choice_has_the_least_expected_regret(mean, stderr):
    belief = Belief(mean, stderr)
    quantiles = [belief.quantile((i + 0.5) / 2000) for i in range(2000)]

    def regret(place):
        return sum(REGRET_ABOVE * (place - q) if place > q else REGRET_BELOW * (q - place) for q in quantiles)

    chosen = belief.choice()
    assert regret(chosen) <= min(regret(chosen - 0.1 * stderr), regret(chosen + 0.1 * stderr))
    assert chosen < mean
    low, high = belief.interval()
    assert high - low == pytest.approx(2 * 1.959964 * stderr, rel=1e-5)


def test_nothing_known_is_refused():
    with pytest.raises(ValueError, match="one length at least"):
        extrapolate([], 100, Prior())
