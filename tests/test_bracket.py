"""Which short run comes next, against losses that are known in closed form."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autolr.numerics.bracket import ShortRun, ask, best_of, bottom, gains, ruins
from autolr.numerics.plan import Plan, affordable_lengths, affordable_share
from autolr.numerics.verdict import difference

START = (2.0, 2.1, 1.9, 2.2, 1.8, 2.05, 1.95, 2.0)


def run_at(place, loss_of, length=10, noise=None):
    """A short run whose losses are ``loss_of(place)`` off the start's own scatter; None diverges."""
    level = loss_of(place)
    if level is None:
        return ShortRun(length, 2.0**place, (), 5)
    spread = (0.0,) * 8 if noise is None else noise
    return ShortRun(length, 2.0**place, tuple(s + level + e for s, e in zip(START, spread, strict=True)), 38)


def enclose(loss_of, center=0, strides=(2, 1), most=60):
    tried = {}
    while (place := ask(tried, START, center, strides)) is not None:
        assert place not in tried, "asked twice"
        tried[place] = run_at(place, loss_of)
        assert len(tried) < most
    return tried


def bowl(middle, ruin=math.inf):
    return lambda k: None if k > ruin else min(0.02 * (k - middle) ** 2 - 1.0, 3.0)


@given(middle=st.floats(-20, 20), center=st.integers(-8, 8), strides=st.sampled_from([(1,), (2, 1), (4, 2, 1)]))
def test_a_bowl_is_enclosed_and_its_bottom_found_exactly(middle, center, strides):
    tried = enclose(lambda k: -math.exp(-((k - middle) ** 2) / 1e3), center, strides)
    best = best_of(tried, START)
    assert {best - 1, best + 1} <= tried.keys()
    assert bottom(tried, START).place == pytest.approx(middle, abs=0.02)
    assert bottom(tried, START).stderr == pytest.approx(0, abs=1e-6)


@given(middle=st.floats(-6, 6), offset=st.integers(-9, 9))
def test_the_answer_moves_with_the_lattice(middle, offset):
    here, there = enclose(bowl(middle)), enclose(bowl(middle + offset), center=offset)
    assert {k + offset for k in here} == set(there)


@given(ruin=st.integers(-30, 30))
def test_a_cliff_is_not_crossed_again_and_again(ruin):
    tried = enclose(lambda k: None if k > ruin else -(2.0 ** (k - ruin)))
    assert best_of(tried, START) == ruin
    assert ruin + 1 in tried
    assert sum(run.diverged for run in tried.values()) <= 7


@pytest.mark.parametrize("middle", [-1.4, -0.2, 0.6, 1.7, 2.4])
def test_a_bowl_near_the_given_rate_takes_four_to_six_runs(middle):
    assert 4 <= len(enclose(bowl(middle, ruin=3))) <= 6


def test_where_nothing_gains_higher_rates_are_tried_and_never_lower_ones():
    tried = enclose(lambda k: 0.0 if k < 9 else None)
    assert min(tried) == 0
    assert 8 in tried  # the last one before ruin
    assert bottom(tried, START) is None


def test_a_gain_within_the_rounding_of_float32_is_none():
    rounding = 2.0 * 2.0**-23
    assert not gains(run_at(0, lambda _: -rounding), START)
    assert gains(run_at(0, lambda _: -100 * rounding), START)


def test_one_bad_minibatch_decides_nothing():
    # Better by 0.1 on seven of eight, and a hundred times worse on one: an outlier, or the rare example that counts?
    bad = (0.0,) * 7 + (10.0,)
    run = run_at(0, lambda _: -0.1, noise=bad)
    assert not gains(run, START)
    assert not ruins(run, START)
    assert not difference(run.losses, run_at(1, lambda _: -0.05).losses).surely_above(2)


def test_a_rate_that_ruins_without_overflow_sends_the_search_down():
    # As with Adam: far too high a rate ends above the start, at a finite loss.
    tried = enclose(lambda k: 0.5 if k > -9 else -(2.0 ** (k + 9)))
    assert best_of(tried, START) == -9


def test_a_tie_is_followed_until_one_is_surely_worse():
    # 0 and 1 differ by less than their paired noise: the enclosure needs a worse run beyond both.
    noise = (0.1, -0.1, 0.1, -0.1, 0.1, -0.1, 0.1, -0.1)
    levels = {-1: -0.2, 0: -1.0, 1: -0.99, 2: -0.5}
    tried = {k: run_at(k, levels.get, noise=noise if k == 1 else None) for k in (-1, 0, 1)}
    assert ask(tried, START, 0, (1,)) == 2
    tried[2] = run_at(2, levels.get)
    assert ask(tried, START, 0, (1,)) is None


def test_the_error_of_a_bottom_covers_its_scatter():
    rng, found, said = np.random.default_rng(0), [], []
    for _ in range(200):
        slopes = rng.normal(0, 0.04, 8)  # each minibatch has its own bottom
        tried = {k: run_at(k, bowl(0.3), noise=tuple(k * slopes)) for k in range(-3, 4)}
        place = bottom(tried, START)
        found.append(place.place)
        said.append(place.stderr)
    assert np.median(said) == pytest.approx(np.std(found), rel=0.35)


def test_an_open_side_makes_a_bottom_less_certain():
    closed = bottom({k: run_at(k, bowl(0)) for k in (-1, 0, 1)}, START)
    opened = bottom({k: run_at(k, bowl(0)) for k in (-1, 0)}, START)
    assert opened.stderr >= closed.stderr + 1


def test_a_paired_difference_needs_pairs():
    with pytest.raises(ValueError, match="same minibatches"):
        difference([1.0], [1.0, 2.0])


@given(steps=st.integers(12, 10**6))
def test_lengths_and_budget_keep_to_what_is_allowed(steps):
    share = affordable_share(steps)
    assert 0 < share <= 1 / 3
    assert share <= 0.1 or share * steps <= 100 + 1e-9
    lengths = affordable_lengths(share * 3 * steps, 8, steps)
    assert lengths == tuple(sorted(lengths))
    assert 4 <= lengths[0] <= lengths[-1] <= steps


@given(middle=st.floats(-12, 12), drift=st.floats(-1, 0.5), steps=st.sampled_from([300, 1000, 3000, 10_000, 100_000]))
def test_a_plan_ends_within_its_budget_and_asks_nothing_twice(middle, drift, steps):
    budget = affordable_share(steps) * 3 * steps
    plan = Plan(0.01, steps, affordable_lengths(budget, 8, steps), budget, 8)
    runs = []
    while (wanted := plan.next(START, runs)) is not None:
        length, lr = wanted
        assert wanted not in [(run.length, run.lr) for run in runs]
        place = math.log2(lr / 0.01)
        losses = tuple(s - math.exp(-((place - middle - drift * math.log2(length)) ** 2) / 20) for s in START)
        runs.append(ShortRun(length, lr, losses, 3 * length + 8))
    assert sum(run.cost for run in runs) <= budget


def test_a_little_above_the_start_is_no_reason_to_go_lower():
    # Surely above, at every rate, and less so the lower: down there nothing happens at all.
    tried = enclose(lambda k: 0.05 * min(1.0, 2.0**k) if k < 6 else None)
    assert min(tried) == 0
    assert bottom(tried, START) is None


def test_a_loss_that_multiplied_is_ruin_even_where_one_minibatch_makes_all_of_it():
    run = run_at(0, lambda _: -0.1, noise=(0.0,) * 7 + (1e3,))
    assert ruins(run, START)


def test_a_given_rate_that_does_harm_is_lowered_though_the_harm_is_not_sure():
    # As in fine-tuning from an optimizer's usual rate: 10 % above the start, within its minibatches' scatter.
    noise = (0.9, -0.7, 0.8, -0.6, 0.7, -0.8, 0.6, -0.9)

    def loss(k):
        return 0.2 + 0.3 * k if k >= 0 else -0.4 * math.exp(-((k + 5) ** 2) / 8)

    tried = {}
    while (place := ask(tried, START, 0, (4, 2))) is not None:
        tried[place] = run_at(place, loss, noise=noise if place >= 0 else None)
        assert len(tried) < 9
    assert not gains(tried[0], START)
    assert not ruins(tried[0], START)
    assert -7 <= best_of(tried, START) <= -3


def test_a_gain_that_is_sure_goes_before_a_larger_one_that_is_noise():
    noise = (0.6, -0.6, 0.6, -0.6, 0.6, -0.6, 0.6, -0.6)
    tried = {0: run_at(0, lambda _: -0.05), 4: run_at(4, lambda _: -0.08, noise=noise)}
    assert tried[4].loss < tried[0].loss
    assert best_of(tried, START) == 0
    assert best_of({4: tried[4]}, START) == 4


def test_a_rate_that_is_far_too_low_rises_in_leaps():
    # Gains in proportion to the rate, from 1e-8 of the best one on.
    loss = lambda k: None if k > 28 else -min(2.0 ** (k - 26), 1.0)  # noqa: E731
    tried = enclose(loss, strides=(4, 2))
    assert len(tried) <= 7
    assert 26 <= best_of(tried, START) <= 28


def test_the_longest_length_that_is_enclosed_decides():
    plan = Plan(1.0, 1000, (10, 80), 1e9, 8)
    short = [run_at(k, bowl(0), length=10) for k in (-2, 0, 2)]
    assert plan.choice(START, []) is None
    alone = plan.choice(START, short)
    left_open = [run_at(k, bowl(6), length=80) for k in (4, 6)]
    assert plan.choice(START, short + left_open) == alone
    enclosed = [*left_open, run_at(8, bowl(6), length=80)]
    assert plan.choice(START, short + enclosed).place == pytest.approx(alone.place + 6, abs=0.2)
    assert plan.choice(START, left_open).place > 3  # open runs are better than none
