"""Runs in small, and the search for the peak among them."""

import itertools
import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from autolr.policies.trials import (
    ABOVE,
    EDGE,
    ENOUGH,
    FACTOR,
    GAINED,
    STUCK,
    best_rate,
    gone_on_from,
    in_small,
    low_end,
    lowest_loss,
    next_lower,
    next_rate,
    no_more,
    plateau,
    shape,
)

START, DOUBT, LOWEST, HIGHEST = 2.3, 0.01, 1e-7, 10.0
MANY = 12  # trials


def searched(loss_at, first):
    """All trials of a search, and the peak."""
    trials, rate = [], first
    while rate is not None and len(trials) < MANY:
        trials.append((rate, loss_at(rate)))
        rate = next_rate(trials, START, DOUBT, LOWEST, HIGHEST)
    return trials, best_rate(trials, START, DOUBT)


def valley(best, depth=2.0, width=1.0):
    """A loss that is least at ``best``: a parabola in the rate's logarithm, level with the start far off."""
    return lambda rate: START - depth * max(0.0, 1 - (math.log(rate / best, FACTOR) / width) ** 2)


# The search.


@given(exponent=st.floats(-5, -1), off=st.floats(-0.9, 0.9))
def test_a_parabola_s_bottom_is_found_exactly_from_wherever_its_slope_can_be_seen(exponent, off):
    best = 10**exponent
    trials, peak = searched(valley(best, width=1.8), best * FACTOR**off)
    assert len(trials) <= 5
    assert peak == pytest.approx(best, rel=1e-6)


@given(exponent=st.floats(-5, -1), first=st.floats(-2.5, 1.5))
def test_any_single_valley_is_found_to_half_a_factor(exponent, first):
    """One that rises steeply to the right, where networks die, and slowly to the left."""
    best = 10**exponent

    def loss_at(rate):
        off = math.log(rate / best, FACTOR)
        return START - 2 * (0.5**-off if off < 0 else max(0.0, 1 - off**2))

    trials, peak = searched(loss_at, min(HIGHEST / FACTOR**2, best * FACTOR**first))
    lowest = min(trials, key=lambda trial: trial[1])[0]
    assert lowest / math.sqrt(FACTOR) <= peak <= lowest * math.sqrt(FACTOR)
    assert abs(math.log(peak / best, FACTOR)) < 1


@given(st.lists(st.tuples(st.floats(-3, 0), st.floats(0, 5)), min_size=1, max_size=6, unique_by=lambda t: t[0]))
def test_the_next_rate_is_a_factor_beyond_all_that_were_tried(pairs):
    trials = [(10**exponent, loss) for exponent, loss in pairs]
    wanted = next_rate(trials, START, DOUBT, LOWEST, HIGHEST)
    rates = sorted(rate for rate, _ in trials)
    assert wanted in {None, rates[-1] * FACTOR, rates[0] / FACTOR}


@pytest.mark.parametrize("dead", [2.3, 2.29999, math.nan, math.inf, 1e30])
def test_where_every_network_dies_the_search_goes_down(dead):
    trials, peak = searched(lambda rate: valley(1e-3)(rate) if rate < 2e-3 else dead, first=1.0)
    assert [rate for rate, _ in trials][:3] in ([1.0, 1 / FACTOR, 1 / FACTOR**2], [1.0, FACTOR, 1 / FACTOR])
    assert peak == pytest.approx(1e-3, rel=1)


def test_a_gain_within_doubt_is_not_taken_for_the_best():
    """A network that died by way of a loss a little lower than at the start: that is no place to stay."""
    trials = [(1.0, START), (4.0, START - DOUBT / 2), (16.0, START)]
    assert next_rate(trials, START, DOUBT, LOWEST, 100.0) == 0.25
    assert next_rate([(1.0, START), (4.0, START - 2 * DOUBT), (16.0, START)], START, DOUBT, LOWEST, 100.0) is None


def test_the_first_that_gained_is_followed_by_a_higher_one_and_the_first_that_lost_by_a_lower_one():
    assert next_rate([(0.1, 2.0)], START, DOUBT, LOWEST, HIGHEST) == pytest.approx(0.4)
    assert next_rate([(0.1, 2.4)], START, DOUBT, LOWEST, HIGHEST) == pytest.approx(0.025)


def test_no_trial_is_outside_the_range():
    assert next_rate([(HIGHEST, 1.0)], START, DOUBT, LOWEST, HIGHEST) == HIGHEST / FACTOR
    assert next_rate([(HIGHEST / FACTOR, 2.0), (HIGHEST, 1.0)], START, DOUBT, LOWEST, HIGHEST) is None
    assert next_rate([(LOWEST, math.nan)], START, DOUBT, LOWEST, HIGHEST) is None


def test_a_best_rate_with_no_neighbour_on_one_side_is_taken_as_it_is():
    assert best_rate([(0.1, 2.0), (0.4, 1.0)], START, DOUBT) == 0.4
    assert best_rate([(0.4, 2.0), (0.1, 1.0)], START, DOUBT) == 0.1
    assert best_rate([(0.1, math.nan)], START, DOUBT) == 0.1


def test_how_much_a_trial_lost_makes_no_difference():
    losses = (START, 5.0, 1e30, math.inf, math.nan)
    peaks = {best_rate([(0.1, 2.0), (0.4, 1.0), (1.6, lost)], START, DOUBT) for lost in losses}
    assert len(peaks) == 1


def test_of_rates_that_did_equally_well_within_doubt_the_highest_counts():
    """Too low a rate is lost for all of the run; and a dozen steps like low rates better than the run will."""
    lost = (1.6, START)
    assert best_rate([(0.1, 1.0), (0.4, 1.0 + 2 * DOUBT), lost], START, DOUBT) == 0.1
    peak = best_rate([(0.1, 1.0), (0.4, 1.0 + DOUBT), lost], START, DOUBT)
    assert 0.2 <= peak < 0.4
    # The search goes on upwards from there.
    assert next_rate([(0.1, 1.0), (0.4, 1.0 + DOUBT)], START, DOUBT, LOWEST, HIGHEST) == 1.6


def test_a_trial_that_gained_nothing_does_as_well_as_no_other():
    trials = [(0.1, START - DOUBT / 2), (0.4, START), (1.6, START)]
    assert best_rate(trials, START, DOUBT) == 0.1


def level(gain, share):
    """The loss after that share of a gain."""
    return START - share * gain


@given(gain=st.floats(0.1, 2.0), upper=st.floats(0, 1), lower=st.floats(0, 1))
def test_a_plateau_is_level_on_both_sides_of_the_best_in_gain_and_in_loss(gain, upper, lower):
    least = max(GAINED, 1 - ABOVE * (START - gain) / gain)  # share of the gain that a level trial has
    assume(min(abs(upper - least), abs(lower - least)) > 1e-6)
    trials = [(0.1, level(gain, lower)), (0.4, level(gain, 1)), (1.6, level(gain, upper))]
    known = (1 - GAINED) * gain > DOUBT
    assert plateau(trials, START, DOUBT) == (min(upper, lower) > least and known)
    # Where noise alone makes a fifth of the gain, trials are not level, they are not known.
    assert not plateau(trials, START, gain * (1 - GAINED) * 1.001)
    assert not plateau(trials[:2], START, DOUBT)
    assert not plateau(trials[1:], START, DOUBT)


def test_translation_s_first_steps_are_a_plateau():
    """Measured, after 12 steps and after 48, on Multi30k: whole runs are lost at 0.003, and best at about 0.001."""
    twelve, more = [(0.0029, 6.5), (0.0116, 6.63), (0.00073, 6.9)], [(0.0029, 6.342), (0.00073, 6.576)]
    assert plateau(twelve, 9.151, 0.008)
    assert 0.00073 < low_end(twelve, 9.151, EDGE) < 0.0015
    assert 0.00073 < low_end(more, 9.151, ENOUGH) < 0.0015
    shakespeare = [(0.00092, 3.389), (0.0037, 3.348), (0.015, 3.399)]
    assert plateau(shakespeare, 4.197, 0.02)
    fashion, digits = (
        [(0.00105, 0.979), (0.00419, 0.82), (0.0168, 1.09)],
        [(0.0177, 0.285), (0.0707, 0.189), (0.283, 0.44)],
    )
    assert not plateau(fashion, 2.3, 0.005)  # all gain four fifths; what is left differs by a third
    assert not plateau(digits, 2.36, 0.005)  # nearly all is gained at any rate; what is left halves


@given(st.lists(st.tuples(st.floats(-3, 0), st.floats(0, 5) | st.just(math.nan)), min_size=1, max_size=6))
def test_where_nothing_was_gained_all_are_level_and_none_is_a_plateau(pairs):
    trials = [(10**exponent, START + loss) for exponent, loss in pairs]
    assert not plateau(trials, START, 0.0)
    assert low_end(trials, START, ENOUGH) == min(rate for rate, _ in trials)


@given(gain=st.floats(0.1, 2.0), share=st.floats(-1, 0.999), further=st.floats(-1, 1))
@pytest.mark.parametrize("enough", [EDGE, ENOUGH])
def test_the_low_end_is_where_a_line_between_trials_comes_to_nearly_the_best_gain(gain, share, further, enough):
    least = max(enough, 1 - ABOVE * (START - gain) / gain)
    best = (0.4, level(gain, 1))
    end = low_end([(0.1, level(gain, share)), best, (1.6, level(gain, further))], START, enough)
    assert 0.1 <= end <= 0.4
    if share >= least:
        assert end == 0.1
    else:
        steps = math.log(0.4 / end, FACTOR)
        assert 1 - steps * (1 - max(share, 0)) == pytest.approx(least)  # one that lost has gained nothing
    assert low_end([best], START, ENOUGH) == 0.4
    assert low_end([(0.1, math.nan), best], START, ENOUGH) > 0.1


@given(pairs=st.lists(st.tuples(st.floats(-5, 0), st.floats(0, 3) | st.just(math.nan)), min_size=1, max_size=4))
def test_lower_peaks_are_tried_until_one_serves_less_well(pairs):
    trials = [(10**exponent, loss) for exponent, loss in pairs]
    tried = min(rate for rate, _ in trials)
    wanted, end = next_lower(trials, START, LOWEST), low_end(trials, START, ENOUGH)
    assert wanted is None or (wanted == tried / FACTOR and end == tried)
    assert end > tried or wanted is not None
    assert next_lower(trials, START, tried) is None
    if wanted is not None:  # far too low
        assert next_lower([*trials, (wanted, math.nan)], START, LOWEST) is None or lowest_loss(trials, START) == START


@given(gain=st.floats(0.01, 2.0), shorter=st.floats(-0.5, 1.5))
def test_longer_trials_came_no_further_where_the_shorter_ones_are_level_with_them(gain, shorter):
    least = max(STUCK, 1 - ABOVE * (START - gain) / gain)
    assume(abs(shorter - least) > 1e-6)
    trials, loss = [(0.4, level(gain, 1)), (0.1, math.nan)], level(gain, max(0, shorter))
    assert no_more(trials, loss, START, 0.0) == (shorter > least)
    assert not no_more(trials, loss, START, gain * (1 - STUCK) * 1.001)  # noise may have hidden what they gained
    assert no_more([(0.4, math.nan)], loss, START, DOUBT)  # and nothing is surely no more


@pytest.mark.parametrize("start", [math.nan, math.inf])
def test_where_the_loss_is_no_number_at_the_start_there_is_a_peak_all_the_same(start):
    trials = [(0.4, math.nan), (0.1, 1.0)]
    assert 0.1 <= low_end(trials, start, ENOUGH) <= 0.4
    assert 0.1 <= best_rate(trials, start, DOUBT) <= 0.4


@pytest.mark.parametrize("lost", [math.nan, math.inf, 5.0])
def test_a_trial_that_was_lost_is_not_the_one_that_ended_lowest(lost):
    assert lowest_loss([(0.4, lost), (0.1, 1.0), (1.6, lost)], START) == 1.0
    assert lowest_loss([(0.4, lost)], START) == START


def test_longer_trials_tell_a_network_that_is_stuck():
    """Measured, after 12 steps and after 48, from peaks found by 12: the first three learn, the last three do not."""
    for start, shorter, longer in ((2.30, 0.82, 0.593), (2.44, 0.435, 0.124), (5.17, 4.78, 4.44)):
        assert not no_more([(0.01, longer)], shorter, start, 0.005)
    for start, shorter, longer in ((9.08, 6.72, 6.52), (9.27, 6.66, 6.42), (9.15, 6.83, 6.24)):
        assert no_more([(0.006, longer)], shorter, start, 0.01)


def test_small_gains_that_hardly_differ_do_not_send_the_search_down():
    """A network that learns little in a dozen steps, at four rates; the best of whole runs is about 0.045."""
    losses = {0.00998: 2.30, 0.0399: 2.30, 0.16: 2.42, 0.0025: 2.28}
    trials = []
    for trial in losses.items():
        trials.append(trial)
        if next_rate(trials, 2.42, 0.0325, LOWEST, HIGHEST) is None:
            break
    assert [rate for rate, _ in trials] == [0.00998, 0.0399, 0.16]
    assert 0.0399 / math.sqrt(FACTOR) <= best_rate(trials, 2.42, 0.0325) < 0.0399


@given(st.lists(st.floats(START - 5 * DOUBT, START + DOUBT), min_size=3, max_size=6))
def test_the_peak_is_no_further_above_the_lowest_loss_than_half_way_to_its_neighbour(losses):
    trials = [(0.001 * FACTOR**k, loss) for k, loss in enumerate(losses)]
    equal = [rate for rate, loss in trials if loss <= min(losses) + DOUBT and loss < START]
    if equal:
        assert best_rate(trials, START, DOUBT) <= max(equal) * math.sqrt(FACTOR) * (1 + 1e-9)


def test_three_trials_on_a_line_do_not_throw_the_peak_far_off():
    """Equal within doubt to the lower one, so that the parabola's bottom may lie anywhere below."""
    trials = [(0.1, START - 5 * DOUBT), (0.4, START - 4.1 * DOUBT), (1.6, START - 3.19 * DOUBT)]
    assert best_rate(trials, START, DOUBT) == pytest.approx(0.4 / math.sqrt(FACTOR))


# The shape.


@given(steps=st.integers(1, 300), warm=st.integers(1, 60), held=st.integers(-50, 400))
def test_a_run_rises_stays_and_falls_and_its_rate_is_never_zero(steps, warm, held):
    rates = [shape(step, steps, warm, held) for step in range(1, steps + 1)]
    top = rates.index(max(rates))
    assert all(0 < rate <= 1 for rate in rates)
    assert all(b >= a for a, b in itertools.pairwise(rates[: top + 1]))
    assert all(b <= a for a, b in itertools.pairwise(rates[top:]))
    if warm <= held < steps:
        assert rates[warm - 1 : held] == [1.0] * (held - warm + 1)
        assert rates[-1] == pytest.approx(1 / (steps - held))


def test_a_trial_is_a_run_in_small():
    shares = [in_small(step, 12) for step in range(1, 13)]
    assert shares == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])
    assert in_small(1, 1) == 1


def test_the_run_goes_on_from_the_best_end_if_anything_was_gained():
    assert gone_on_from([(0.4, 2.0), (0.1, 1.0), (0.025, 2.1)], START) == (0.1, 1.0)
    assert gone_on_from([(0.4, math.nan), (0.1, START), (0.025, 9.0)], START) is None


@given(st.permutations([(0.1, level(0.5, 0.9)), (0.4, level(0.5, 1.0)), (1.6, level(0.5, 0.95)), (6.4, math.nan)]))
def test_of_ends_that_are_level_the_lowest_rate_s_is_gone_on_from(trials):
    assert gone_on_from(trials, START) == (0.1, level(0.5, 0.9))


@given(st.lists(st.tuples(st.floats(-4, 1), st.floats(0, 3) | st.just(math.nan)), min_size=1, max_size=6))
def test_the_end_to_go_on_from_is_that_of_the_trial_just_made_or_was_it_before(pairs):
    """So that where one ended can be kept when it is over, and no other."""
    ends = [gone_on_from(pairs[:made], START) for made in range(len(pairs) + 1)]
    for made, trial in enumerate(pairs):
        assert ends[made + 1] is trial or ends[made + 1] is ends[made]


@given(st.lists(st.tuples(st.floats(-4, 1), st.floats(0, 3) | st.just(math.nan)), min_size=1, max_size=6))
def test_no_end_is_gone_on_from_that_lost_much_of_the_best_gain(pairs):
    trials = [(10**exponent, loss) for exponent, loss in pairs]
    gains = [START - loss for _, loss in trials if loss < START]
    kept = gone_on_from(trials, START)
    if kept is None:
        assert not gains
    else:
        assert START - kept[1] >= GAINED ** len(trials) * max(gains) * (1 - 1e-9)
