"""The rate of the least expected loss, against curves that are known in closed form."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autolr.numerics.bracket import STRIDE, ShortRun
from autolr.numerics.expected_loss import CONFIDENCE, MOVE, RUIN, choose, curve, guess

START = (2.0, 2.1, 1.9, 2.2, 1.8, 2.05, 1.95, 2.0)


def tried(loss_of, places, factor=1.0, start=START):
    """Short runs whose loss is ``factor`` times the start's in a share ``loss_of(place)``; None diverges."""
    runs = {}
    for k in places:
        share = loss_of(k)
        losses = () if share is None else tuple(s * share * factor for s in start)
        runs[k] = ShortRun(20, 2.0**k, losses, 68)
    return runs


def bowl(middle):
    return lambda k: 0.3 + 0.7 * (1 - math.exp(-((k - middle) ** 2) / 20))


def test_a_symmetric_curve_gives_its_middle():
    # Far out both sides are as bad as a ruined run, so that nothing leans.
    def loss(k):
        return math.exp(min(0.05 * k * k - 1.5, RUIN))

    told = choose(tried(loss, range(-12, 13)), START)
    assert told.place == pytest.approx(0, abs=0.13)
    assert (told.low + told.high) / 2 == pytest.approx(0, abs=0.05)


def test_a_cliff_pushes_the_choice_away_and_a_plain_does_not():
    def choice(ruin):
        return choose(tried(lambda k: None if k >= ruin else bowl(0)(k), range(-8, 9)), START).place

    assert choice(2) < choice(3) < choice(4) < choice(8)
    assert choice(2) <= -1
    assert choice(8) == pytest.approx(0, abs=0.05)


def test_the_choice_is_the_least_of_the_averages_over_many_moves():
    runs = tried(lambda k: None if k > 3 else bowl(1)(k), range(-6, 7, 2))
    told = choose(runs, START)
    moves = np.random.default_rng(0).normal(0, MOVE, 40_000)

    def average(place):
        return curve(runs, START, place + moves).mean()

    assert average(told.place) <= min(average(told.place - 0.5), average(told.place + 0.5))


@given(offset=st.integers(-20, 20), factor=st.sampled_from([1e-6, 0.1, 30.0, 1e5]))
def test_the_choice_moves_with_the_unit_of_the_rate_and_ignores_that_of_the_loss(offset, factor):
    here = choose(tried(bowl(0.4), range(-4, 5, 2)), START)
    start = tuple(s * factor for s in START)
    moved = tried(lambda k: bowl(0.4)(k - offset), range(offset - 4, offset + 5, 2), start=start)
    there = choose(moved, start)
    assert there.place == pytest.approx(here.place + offset, abs=1e-6)
    assert there.high == pytest.approx(here.high + offset, abs=1e-4)


def test_the_curve_goes_through_the_runs_and_is_known_beyond_them():
    runs = tried({-2: 0.8, 0: 0.5, 2: None}.get, (-2, 0, 2))
    at = dict(zip((-30, -3, -2, -1, 0, 2, 9), curve(runs, START, np.array([-30, -3, -2, -1, 0, 2, 9.0])), strict=True))
    assert at[-2] == pytest.approx(math.log(0.8))
    assert at[0] == pytest.approx(math.log(0.5))
    assert at[-1] == pytest.approx((at[-2] + at[0]) / 2)
    assert at[2] == at[9] == RUIN
    assert at[-3] == pytest.approx(math.log(1 - 0.2 / 2))  # half of the rate, half of the gain
    assert at[-30] == pytest.approx(0, abs=1e-8)
    open_end = tried({-2: 0.8, 0: 0.5}.get, (-2, 0))
    assert curve(open_end, START, np.array([0.0 + STRIDE]))[0] == RUIN


def test_losses_below_zero_are_curves_too():
    start = (-1.0, -1.1, -0.9, -1.0)
    runs = {
        k: ShortRun(20, 2.0**k, tuple(s - gain for s in start), 64) for k, gain in {-2: 1.0, 0: 3.0, 2: 1.5}.items()
    }
    told = choose(runs, start)
    assert -3 < told.place < 1
    assert all(np.isfinite(curve(runs, start, np.linspace(-9, 9, 40))))


def test_noise_widens_the_interval():
    # Each minibatch has its own bottom.
    slopes = np.random.default_rng(0).normal(0, 0.3, 8)
    sure = tried(bowl(0), (-2, 0, 2))
    noisy = {
        k: ShortRun(20, 2.0**k, tuple(v + k * s for v, s in zip(run.losses, slopes, strict=True)), 68)
        for k, run in sure.items()
    }
    width = choose(sure, START).high - choose(sure, START).low
    assert width == pytest.approx(2 * 1.96 * MOVE, rel=1e-3)
    assert CONFIDENCE == 0.95
    told = choose(noisy, START)
    assert told.high - told.low > width + 0.1


def test_where_no_run_gains_nothing_is_chosen_and_where_little_is_gained_the_place_is_a_guess():
    assert choose(tried(lambda _: 1.0, (0, 4, 8)), START) is None
    assert guess(tried(lambda _: 1.2, (0,)), START) is None
    assert choose(tried(lambda _: 0.5, (0,)), START) is not None
    assert choose(tried(lambda _: 0.9, (0,)), START) is None  # a single run, and how near ruin is nobody knows
    plateau = tried({0: 1 - 1e-4, 4: 1 - 1.6e-3, 8: 1.4}.get, (0, 4, 8))
    assert choose(plateau, START) is None
    assert 0.5 < guess(plateau, START) < 2.5  # half of the way
    # Never below the first rate, on a plateau.
    assert guess(tried({-4: 0.999, 0: 1.0, 2: None}.get, (-4, 0, 2)), START) == 0


def test_one_run_that_gains_between_others_that_lose_is_no_choice():
    # As by one judge with a rare example of great weight: below the lowest rate nothing is lost, and nothing is gained.
    level = {0: 1.025, 2: 1.1, 4: 1.45, 5: 0.93, 6: 1.3}
    runs = tried(level.get, level)
    assert choose(runs, START) is None
    assert guess(runs, START) == 0
    # Where the others gain too, it is one.
    assert choose(tried({k: v - 0.5 for k, v in level.items()}.get, level), START) is not None
