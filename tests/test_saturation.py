"""The loss-drop rate, and when a learning rate has served its purpose (paper, part 2.1)."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autolr.numerics.saturation import check_saturation, loss_drop

losses = st.floats(-100, 100)
pairs = st.lists(st.tuples(losses, losses), min_size=2, max_size=8)
steps = st.integers(1, 1000)
# Losses up to 100 keep 16 digits of float64: a difference of two of them is good to 1e-13 or better.
EXACT = 1e-12


def drop(pairs, steps):
    return loss_drop([start for start, _ in pairs], [end for _, end in pairs], steps)


@given(pairs=pairs, steps=steps)
def test_the_rate_is_the_fall_of_the_mean_loss_per_step(pairs, steps):
    start, end = (math.fsum(column) / len(pairs) for column in zip(*pairs, strict=True))
    assert drop(pairs, steps).rate == pytest.approx((start - end) / steps, abs=EXACT)


def test_it_is_positive_while_the_loss_falls_and_negative_while_it_rises():
    assert loss_drop([3.0, 2.0], [1.0, 1.0], 2).rate == 0.75
    assert loss_drop([1.0, 1.0], [3.0, 2.0], 2).rate == -0.75


def test_its_standard_error_is_that_of_the_paired_differences():
    # Drops of 1, 2 and 6 over 10 steps: mean 3, sample variance (4 + 1 + 9) / 2 = 7, over 3 minibatches.
    seen = loss_drop([2.0, 4.0, 9.0], [1.0, 2.0, 3.0], 10)
    assert seen.rate == pytest.approx(0.3)
    assert seen.stderr == pytest.approx(math.sqrt(7 / 3) / 10)


def test_the_standard_error_is_the_spread_over_repeated_superbatches():
    # 4,000 superbatches: a standard deviation from that many is known to 1.1 %; bar: 5 %.
    rng = np.random.default_rng(0)
    seen = []
    for _ in range(4000):
        level = rng.normal(2, 1, size=16)  # easy and hard minibatches: the same at both ends, so that they cancel
        seen.append(loss_drop(level.tolist(), (level - rng.normal(0.5, 0.3, size=16)).tolist(), 10))
    assert np.mean([s.stderr for s in seen]) == pytest.approx(np.std([s.rate for s in seen]), rel=0.05)


def test_one_minibatch_has_no_standard_error():
    assert math.isnan(loss_drop([2.0], [1.0], 5).stderr)


@given(pairs=pairs, steps=steps, shift=losses)
def test_a_constant_added_to_the_loss_does_not_matter(pairs, steps, shift):
    one, moved = drop(pairs, steps), drop([(a + shift, b + shift) for a, b in pairs], steps)
    assert (moved.rate, moved.stderr) == pytest.approx((one.rate, one.stderr), abs=EXACT)


@given(pairs=pairs, steps=steps, data=st.data())
def test_the_order_of_minibatches_does_not_matter(pairs, steps, data):
    one, shuffled = drop(pairs, steps), drop(data.draw(st.permutations(pairs)), steps)
    assert (shuffled.rate, shuffled.stderr) == pytest.approx((one.rate, one.stderr), abs=EXACT)


@given(pairs=pairs, steps=steps)
def test_twice_the_steps_for_the_same_fall_is_half_the_rate(pairs, steps):
    one, slower = drop(pairs, steps), drop(pairs, 2 * steps)
    assert (slower.rate, slower.stderr) == pytest.approx((one.rate / 2, one.stderr / 2), abs=EXACT)


@pytest.mark.parametrize(
    ("start", "end", "steps", "got"),
    [
        ([1.0, 2.0], [1.0], 5, "got 2 and 1 minibatches, 5 steps"),
        ([], [], 5, "got 0 and 0 minibatches"),
        ([1.0], [1.0], 0, "0 steps"),
    ],
)
def test_two_ends_that_cannot_be_compared_are_refused_with_what_was_got(start, end, steps, got):
    with pytest.raises(ValueError, match=got):
        loss_drop(start, end, steps)


# Saturation.

positive = st.floats(1e-9, 1e3)
any_rate = st.floats(-1e3, 1e3)
thresholds = st.floats(1.5, 1000)
absolutes = st.none() | positive


@pytest.mark.parametrize(
    ("rate", "saturated"),
    [(1.0, False), (0.011, False), (0.01, False), (0.009, True), (0.0, True), (-5.0, True)],
)
def test_at_first_it_saturates_when_the_rate_when_it_began_is_over_100_times_the_present_one(rate, saturated):
    # "Exceeds": a ratio of exactly 100 does not.
    assert check_saturation(rate, began=1.0, threshold=100, absolute=None)[0] is saturated


@given(rate=any_rate, began=positive, threshold=thresholds)
def test_before_the_first_crossing_only_the_ratio_counts(rate, began, threshold):
    saturated, absolute = check_saturation(rate, began=began, threshold=threshold, absolute=None)
    assert saturated is (rate <= 0 or rate < began / threshold)
    assert (absolute is not None) is saturated


@pytest.mark.parametrize("rate", [0.019, 0.004, 0.0, -0.3])
def test_the_rate_at_which_the_first_crossing_lay_becomes_the_absolute_threshold(rate):
    # Not the rate measured there, which is mostly noise and may be below zero.
    assert check_saturation(rate, began=2.0, threshold=100, absolute=None) == (True, 0.02)


@given(rate=any_rate, began=any_rate, absolute=positive, threshold=thresholds)
def test_from_then_on_only_the_absolute_threshold_counts_and_it_stays(rate, began, absolute, threshold):
    again = check_saturation(rate, began=began, threshold=threshold, absolute=absolute)
    assert again == (rate < absolute, absolute)


def test_a_rate_at_the_absolute_threshold_is_not_below_it():
    assert check_saturation(0.01, began=5.0, threshold=100, absolute=0.01) == (False, 0.01)


@given(rate=any_rate, began=st.floats(-1e3, 0), threshold=thresholds)
def test_a_learning_rate_that_began_without_a_drop_is_saturated_while_there_is_none_and_fixes_nothing(
    rate, began, threshold
):
    assert check_saturation(rate, began=began, threshold=threshold, absolute=None) == (rate <= 0, None)


@given(rate=any_rate, began=any_rate, threshold=thresholds, absolute=absolutes)
def test_asking_twice_about_one_window_gives_the_same_answer(rate, began, threshold, absolute):
    saturated, absolute = check_saturation(rate, began=began, threshold=threshold, absolute=absolute)
    assert check_saturation(rate, began=began, threshold=threshold, absolute=absolute) == (saturated, absolute)


@given(rate=any_rate, slower=st.floats(0, 1e3), began=any_rate, threshold=thresholds, absolute=absolutes)
def test_a_slower_fall_is_never_less_saturated(rate, slower, began, threshold, absolute):
    known = {"began": began, "threshold": threshold, "absolute": absolute}
    assert check_saturation(rate - slower, **known)[0] >= check_saturation(rate, **known)[0]


@given(rate=any_rate, began=any_rate, threshold=thresholds, absolute=absolutes)
def test_an_absolute_threshold_is_above_zero_or_unknown(rate, began, threshold, absolute):
    _, known = check_saturation(rate, began=began, threshold=threshold, absolute=absolute)
    assert known is None or known > 0


@given(rate=any_rate, began=any_rate, absolute=absolutes, scale=st.integers(-20, 20).map(lambda n: 2.0**n))
def test_the_units_of_the_loss_do_not_matter(rate, began, absolute, scale):
    # Powers of two scale without rounding, so that the verdict is the same to the last bit.
    one = check_saturation(rate, began=began, threshold=64, absolute=absolute)
    scaled = check_saturation(
        scale * rate, began=scale * began, threshold=64, absolute=None if absolute is None else scale * absolute
    )
    assert scaled == (one[0], None if one[1] is None else scale * one[1])
