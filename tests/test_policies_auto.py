"""`Auto`: the search for the peak and what follows; a run that dies; nothing depends on the rate that it was given."""

import copy
import dataclasses
import itertools
import json
import math
import random
import statistics

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import autolr
from autolr.policies import Auto, Sighting, trials
from autolr.policies.auto import (
    BACK,
    BEYOND,
    BRACKET,
    HIGHEST,
    JUDGES,
    LONGER,
    LONGEST,
    LOWEST,
    MOST,
    SCOUT,
    SEARCH,
    SURELY,
    AutoState,
    room,
    trial_steps,
)
from autolr.policies.trials import ABOVE, ENOUGH, FACTOR, GAINED, gone_on_from, low_end
from test_docs import names_that_the_reader_has

totals = st.integers(100, 20_000)
START = 2.3


def further(loss):
    """Where a trial ends that is four times as long, as a rule: a quarter is left of what a shorter one leaves."""
    return loss / 4 if loss < START else loss


def no_further(loss):
    """A network that is stuck."""
    return loss


def searched(loss_after, total=600, *, gain=lambda rate: 1.0 if rate < 0.1 else -9.0, longer=further):
    """The state at the end of a search, its rates, and what was decided.

    ``loss_after(peak)`` is the loss where a trial ends, and ``longer`` of it where a longer one does; ``gain(rate)``
    what is gained along the first step.
    """
    policy = Auto()
    state, rates, decisions = policy.begin(), [], []
    for step in range(1, total + 1):
        if state.found:
            break
        lr = policy.rate(state, step, total)
        rates.append(lr)
        if sounding := policy.looks(state, step, total):
            if not state.trial:
                losses = tuple(START - gain(scale * lr) if scale else START for scale in sounding.scales)
            else:
                end = loss_after(state.trial)
                end = longer(end) if state.times > 1 else end
                losses = tuple(end if scale else START for scale in sounding.scales)
            deviations = tuple(0.1 for _ in losses)
            seen = Sighting(step, total, lr, sounding.scales, losses, deviations, sounding.minibatches)
            state, decision = policy.see(state, seen)
            decisions.append(decision)
    return state, rates, decisions


def bowl(best):
    """What is gained along a step whose loss is a parabola."""
    return lambda rate: 2 * rate / best - (rate / best) ** 2


def valley(best):
    """Where a trial ends: the lower, the nearer its peak is to ``best``; far above it the network dies."""

    def loss_after(peak):
        off = math.log(peak / best, FACTOR)
        return START - 2 * (0.5**-off if off < 0 else max(0.0, 1 - off**2))

    return loss_after


# The search.


@given(exponent=st.floats(-5, 0), off=st.floats(-1, 1), total=st.integers(400, 660))
def test_the_peak_is_the_best_rate_of_runs_in_small(exponent, off, total):
    """The first step's parabola may be least at a tenth or at ten times the best rate."""
    best = 10**exponent
    state, _, decisions = searched(valley(best), total, gain=bowl(best * 10**off))
    assert abs(math.log(state.peak / best, FACTOR)) < 1
    assert f"the peak is {state.peak:.3g}" in decisions[-1].reason
    verdicts = [decision.verdict for decision in decisions]
    assert verdicts == ["undo", "look", *["look", "go back"] * (len(state.trials) - 1), "look", "go on"]
    kept = [decision.best for decision in decisions if decision.verdict in {"go back", "go on"}]
    ends = [trial for trial, here in zip(state.trials, kept, strict=True) if here]
    rate, loss = ends[-1]
    least = min(loss for _, loss in state.trials)
    assert START - loss >= GAINED * (START - least)
    assert loss <= least + ABOVE * abs(least)
    assert f"from where {rate:.3g} ended on" in decisions[-1].reason


@given(exponent=st.floats(-4, 0), total=totals, longer=st.sampled_from([further, no_further]))
def test_a_search_takes_no_more_than_its_share_of_the_run(exponent, total, longer):
    _, rates, decisions = searched(valley(10**exponent), total, gain=bowl(10**exponent), longer=longer)
    steps = trial_steps(total)
    assert 1 <= steps <= min(LONGEST, round(MOST * total))
    ends = [decision.verdict for decision in decisions if decision.verdict in {"go back", "start over", "go on"}]
    short = ends.index("start over") + 1 if "start over" in ends else len(ends)
    # The first three may take three tenths: a peak that is known from one or two is a guess.
    assert steps * short <= (SEARCH if short > BRACKET else BRACKET * MOST) * total
    if total >= 30:
        assert short >= min(BRACKET, round(BRACKET * MOST * total) // steps)
    if short == len(ends):
        assert len(rates) == 1 + steps * short
    else:
        assert 1 + steps * (short + LONGER * (len(ends) - short)) <= len(rates) <= BRACKET * MOST * total


@given(total=st.integers(10, 20_000))
def test_there_is_time_for_a_bracket_in_every_run_of_ten_steps_or_more(total):
    assert room(BRACKET - 1, total)
    assert BRACKET * trial_steps(total) <= BRACKET * MOST * total


@given(total=st.integers(2000, 50_000), exponent=st.floats(-3, -0.5))
def test_it_costs_little_of_a_long_run(total, exponent):
    """What it takes beyond the trial from whose end the run goes on."""
    state, rates, _ = searched(valley(10**exponent), total, gain=bowl(10**exponent))
    policy = Auto()
    lost = len(rates) - LONGER * trial_steps(total)
    spent = state.spent / 3 + lost + len(policy._watched(state, total)) * 2 / 3
    assert spent / total < (0.08 if total < 10_000 else 0.03)


def test_each_trial_rises_to_its_peak_and_falls_towards_zero():
    state, rates, _ = searched(valley(0.05), 400)
    steps = trial_steps(400)
    trials = [rates[1 + k * steps : 1 + (k + 1) * steps] for k in range(len(state.trials))]
    assert rates[0] == SCOUT
    assert [max(trial) for trial in trials] == pytest.approx([peak for peak, _ in state.trials])
    shapes = [[rate / max(trial) for rate in trial] for trial in trials]
    assert all(one == pytest.approx(shapes[0]) for one in shapes)
    assert shapes[0][-1] < 0.25


@given(exponent=st.floats(-5.5, 0))
def test_the_first_trial_is_about_the_first_step_s_parabola_s_minimum(exponent):
    """Half of what can be gained is gained at 1 - sqrt(1/2) = 0.3 of the way to it; decades are a coarse raster."""
    state, _, decisions = searched(valley(1e-3), gain=bowl(10**exponent))
    first = state.trials[0][0]
    assert 0.17 < first / (0.29 * BEYOND * 10**exponent) < 1
    assert "half of what a step can gain" in decisions[0].reason


def test_what_is_easy_to_learn_does_not_hide_what_is_not():
    """A Transformer's first step: most is gained at 3e-4, and a little more up to 0.03. These are measured."""
    gains = (2e-4, 2e-3, 0.017, 0.16, 0.48, 0.64, -0.6, -47, -3e3)
    state, _, _ = searched(valley(1e-3), gain=lambda rate: gains[7 + round(math.log10(rate))])
    assert 2e-4 < state.trials[0][0] / BEYOND < 5e-4


@pytest.mark.parametrize("nothing", [lambda rate: 0 * rate, lambda rate: -0.01 * rate, lambda rate: math.nan * rate])
def test_a_first_step_that_gains_nothing_begins_where_the_loss_is_still_level(nothing):
    state, _, _ = searched(valley(0.01), gain=nothing)
    assert LOWEST <= state.trials[0][0] <= HIGHEST
    level, _, decisions = searched(valley(0.01), gain=lambda rate: -rate)
    assert level.trials[0][0] == pytest.approx(BEYOND * 1e-3)
    assert "gains nothing, and the loss is level up to 0.001; now 0.004" in decisions[0].reason


def test_a_trial_that_is_lost_is_broken_off():
    """Its loss is twice the start's after a third of it; or no number."""
    policy, total = Auto(), 1000
    state = dataclasses.replace(searched(valley(0.01), total)[0], found=0.0, trials=(), since=1, trial=0.1)
    early = next(step for step in range(2, total) if policy.looks(state, step, total))
    assert 2 < early < 2 + trial_steps(total) / 2
    for loss, verdict in ((2.4, "look"), (1.9 * START, "look"), (2.1 * START, "go back"), (math.nan, "go back")):
        after, decision = policy.see(state, Sighting(early, total, 0.1, (1.0,), (loss,), (math.inf,)))
        assert decision.verdict == verdict
        assert after.trials == (((0.1, math.inf),) if verdict == "go back" else ())
        assert after.since == (early if verdict == "go back" else 1)


def flat(low, middle=0.04, slope=0.06):
    """Where trials end that learn about the same at all rates from ``low`` on, and little below."""
    return lambda peak: START - (1.0 - slope * abs(math.log(peak / middle, FACTOR)) if peak >= low else 0.3)


def test_where_rates_do_not_differ_trials_are_made_again_and_longer_from_the_plateau_s_low_end_down():
    """Translation: a dozen steps see words' frequencies, which are learned at any rate."""
    total = 2000
    state, rates, decisions = searched(flat(1e-4, slope=0.04), total, gain=bowl(0.01), longer=no_further)
    (over,) = [k for k, decision in enumerate(decisions) if decision.verdict == "start over"]
    assert "trials of 120 steps now" in decisions[over].reason
    assert not decisions[over].best
    first = [decision for decision in decisions[:over] if decision.verdict == "go back"]
    assert len(first) == BRACKET  # of two that are equal the higher needs a worse one above it too
    assert state.times == LONGER
    # Longer ones, each a factor lower, until one serves less well; no higher peak is tried.
    peaks = [peak for peak, _ in state.trials]
    assert peaks == pytest.approx([decisions[over].lr / FACTOR**k for k in range(BRACKET)])
    assert peaks[2] < state.found == low_end(state.trials, START, ENOUGH) < peaks[1]
    assert len(rates) == 1 + (len(first) + 1 + BRACKET * LONGER) * trial_steps(total) <= BRACKET * MOST * total
    assert max(rates[-BRACKET * LONGER * trial_steps(total) :]) == pytest.approx(peaks[0])
    assert gone_on_from(state.trials, START) == state.trials[2]


def test_a_lower_rate_that_longer_trials_tell_apart_is_not_taken():
    total, low = 2000, 5e-3
    state, _, decisions = searched(flat(low), total, gain=bowl(0.01), longer=no_further)
    assert state.times == LONGER
    assert state.trials[1][0] < low <= state.found == low_end(state.trials, START, ENOUGH) < state.trials[0][0]
    assert gone_on_from(state.trials, START) == state.trials[0]
    assert decisions[-1].verdict == "go on"


@given(total=st.integers(100, 30_000))
def test_longer_trials_are_made_where_two_fit_into_the_search_s_share(total):
    state, rates, decisions = searched(flat(0.0), total, gain=bowl(0.01), longer=no_further)
    steps = trial_steps(total)
    fits = 1 + (BRACKET + 2 * LONGER) * steps <= SEARCH * total
    assert (state.times > 1) == fits == any(decision.verdict == "start over" for decision in decisions)
    assert len(rates) <= 1 + max(SEARCH, BRACKET * MOST) * total
    if fits:
        assert state.found == low_end(state.trials, START, ENOUGH) < state.trials[0][0]
    else:  # the parabola's
        assert abs(math.log(state.found / 0.04, FACTOR)) <= 0.5


@given(exponent=st.floats(-4, 0), total=st.integers(1000, 30_000))
def test_a_peak_that_holds_good_in_a_longer_trial_is_the_run_s_which_goes_on_from_there(exponent, total):
    state, rates, decisions = searched(valley(10**exponent), total, gain=bowl(10**exponent))
    overs = [k for k, decision in enumerate(decisions) if decision.verdict == "start over"]
    if 1 + (BRACKET + 1 + 2 * LONGER) * trial_steps(total) <= SEARCH * total:
        assert overs
    if overs:
        ((peak, _),) = state.trials
        assert state.found == peak == decisions[overs[0]].lr == max(rates[-LONGER * trial_steps(total) :])
        assert abs(math.log(peak / 10**exponent, FACTOR)) < 1
        assert decisions[-1].verdict == "go on"
        assert decisions[-1].best
        assert f"the peak is {peak:.3g}, from where {peak:.3g} ended on" in decisions[-1].reason


@pytest.mark.parametrize("stuck", [1.0, START, math.nan])
def test_a_peak_at_which_longer_trials_get_no_further_is_followed_by_a_lower_one(stuck):
    """The best of short ones is at 0.05: a longer one is stuck there, or dies."""
    best, total = 0.05, 2000
    sound, _, _ = searched(valley(best), total, gain=bowl(best))
    ((first, _),) = sound.trials

    def lost_at_first(loss):
        return stuck if loss == valley(best)(first) else loss / 4

    state, _, decisions = searched(valley(best), total, gain=bowl(best), longer=lost_at_first)
    assert [peak for peak, _ in state.trials] == pytest.approx([first, first / FACTOR])
    assert first / FACTOR <= state.found < first / 2
    assert gone_on_from(state.trials, START) == state.trials[1]
    assert decisions[-1].verdict == "go on"


@pytest.mark.parametrize("total", [771, 2000])
def test_where_the_lower_of_two_longer_trials_serves_as_well_there_is_time_for_a_third(total):
    """A bracket there is always time for, as of the first trials; more have to fit into the search's share."""
    ends = (loss for loss in (1.30, 1.27, 1.29, 1.0) for _ in ("early", "at its end"))
    state, rates, decisions = searched(flat(1e-4), total, gain=bowl(0.01), longer=lambda _: next(ends))
    assert [loss for _, loss in state.trials] == [1.30, 1.27, 1.29]
    assert state.found == state.trials[2][0] == min(peak for peak, _ in state.trials)
    assert SEARCH * total - LONGER * trial_steps(total) < len(rates) <= BRACKET * MOST * total
    assert decisions[-1].verdict == "go on"


def test_a_very_long_run_makes_longer_trials_yet_while_rates_do_not_differ():
    state, _, decisions = searched(flat(0.0), 100_000, gain=bowl(0.01), longer=no_further)
    assert state.times == LONGER**3
    assert [decision.verdict for decision in decisions].count("start over") == 3


def test_trials_are_judged_on_the_same_minibatches_and_begin_once():
    policy = Auto()
    state, _, _ = searched(valley(0.01), 1000)
    assert state.start == START
    begun = dataclasses.replace(state, found=0.0, start=math.nan, trials=(), since=1)
    steps = trial_steps(1000)
    assert policy.looks(begun, 2, 1000) == autolr.policies.Sounding((0.0,), JUDGES)
    begun = dataclasses.replace(begun, start=START)
    assert policy.looks(begun, 2, 1000) is None
    assert policy.looks(begun, 1 + steps, 1000) == autolr.policies.Sounding((1.0,), JUDGES)


@pytest.mark.parametrize("total", range(1, 60))
def test_a_run_too_short_for_trials_goes_by_its_first_step(total):
    state, rates, _ = searched(valley(0.01), total)
    assert (not state.trials) == (not room(0, total))
    assert all(rate > 0 for rate in rates)
    assert 0 < state.peak <= HIGHEST


@pytest.mark.parametrize("flat", [lambda peak: START, lambda peak: math.nan, lambda peak: 1e30])  # noqa: ARG005
def test_where_nothing_is_gained_at_any_rate_the_lowest_that_was_tried_is_taken(flat):
    state, _, _ = searched(flat)
    assert state.found == min(peak for peak, _ in state.trials)


# What follows.


def at_peak(peak, **more):
    """A state in which the search is over."""
    told = {"trial": peak, "since": 50, "found": peak, "start": 2.3, "spread": 0.013, "lowest": 1.5, **more}
    return AutoState(**told)


def risen(total):
    """The first step at the peak."""
    return 50 + max(1, round(0.05 * total))


@given(peak=st.floats(1e-6, 9), total=st.integers(200, 4_000), hold=st.floats(0.4, 0.99))
def test_then_a_rise_the_peak_and_a_line_to_zero(peak, total, hold):
    policy, state = Auto(hold=hold), at_peak(peak)
    rates = [policy.rate(state, step, total) for step in range(51, total + 1)]
    warm, held = risen(total) - 50, int(hold * total) - 50
    assert rates[:warm] == pytest.approx([peak * step / warm for step in range(1, warm + 1)])
    assert rates[warm : max(warm, held)] == pytest.approx([peak] * max(0, held - warm))
    decay = rates[max(warm, held) :]
    assert rates[-1] == pytest.approx(peak / (total - int(hold * total)))
    assert all(a - b == pytest.approx(rates[-1], rel=1e-6, abs=1e-12) for a, b in itertools.pairwise(decay))


def test_the_stages_follow_each_other():
    policy, state, total = Auto(), at_peak(0.1), 1000
    stages = [policy.stage(state, step, total) for step in range(51, total + 1)]
    assert [(name, len(list(some))) for name, some in itertools.groupby(stages)] == [
        ("rise", 50), ("hold", 400), ("decay", 500),
    ]  # fmt: skip
    assert policy.stage(policy.begin(), 20, total) == "search"


@given(total=st.integers(300, 4_000), spent=st.integers(0, 120))
def test_within_a_budget_the_rate_is_at_zero_as_many_steps_earlier_as_looks_cost(total, spent):
    state, end = at_peak(0.1, spent=spent), total - math.ceil(spent / 3) - 1
    within, without = Auto(within=True), Auto()
    after = range(risen(total) + 1, end + 1)
    assert [within.rate(state, step, total) for step in after] == pytest.approx(
        [without.rate(state, step, end) for step in after]
    )
    assert all(within.rate(state, step, total) > 0 for step in range(end, total + 1))


@given(total=st.integers(300, 10_000), data=st.data())
def test_a_run_whose_end_is_not_known_holds_its_peak_until_it_is_told_to_finish(total, data):
    policy, state, first = Auto(hold=1), at_peak(0.1), risen(total) + 1
    held = {policy.rate(state, step, total) for step in range(first, total + 1)}
    assert held == {state.peak}
    now = data.draw(st.integers(first, total - 1))
    steps = data.draw(st.integers(1, total - now))
    state = policy.finish(state, now, steps, total)
    rates = [policy.rate(state, step, total) for step in range(now + 1, now + steps + 1)]
    assert rates == pytest.approx([0.1 * left / steps for left in range(steps, 0, -1)])
    assert policy.stage(state, now + 1, total) == "decay"
    assert not any(policy.looks(state, step, total) for step in range(now + 1, total + 1))


def test_a_run_cannot_finish_before_its_peak_nor_beyond_its_steps():
    policy, total = Auto(hold=1), 1000
    with pytest.raises(ValueError, match="after step 351 at the latest; this is step 20"):
        policy.finish(policy.begin(), 20, 10, total)
    with pytest.raises(ValueError, match="phase is no longer 'search' or 'rise'"):
        policy.finish(at_peak(0.1), 60, 10, total)
    with pytest.raises(ValueError, match="400 steps are left of 1000; got 401"):
        policy.finish(at_peak(0.1), 600, 401, total)


# A run that dies.


def watched(*losses, lowest=0.5):
    """What is decided where watches see ``losses``, after 2.3 at first, with a deviation of 0.013."""
    policy, state = Auto(), at_peak(0.1, lowest=lowest)
    for step, loss in enumerate(losses, start=risen(1000)):
        minibatches = JUDGES if state.suspected else 1
        state, decision = policy.see(state, Sighting(step, 1000, 0.1, (1.0,), (loss,), (math.inf,), minibatches))
    return state, decision


@pytest.mark.parametrize("loss", [math.nan, math.inf, 2.9, 2.304, 1.41])
def test_a_run_that_lost_half_of_what_it_had_gained_is_brought_back_to_a_third_of_its_rate(loss):
    state, decision = watched(loss, loss)
    assert (decision.verdict, decision.died) == ("roll back", True)
    assert state.peak == pytest.approx(0.1 / BACK) == decision.lr
    assert "rolled back" in decision.reason


@pytest.mark.parametrize("loss", [math.nan, math.inf, 2.9])
def test_one_bad_minibatch_is_not_a_run_that_died(loss):
    """It has no say before those are asked that trials are judged on, at the very next step."""
    state, decision = watched(loss)
    assert (decision.verdict, decision.died) == ("look", False)
    assert "the trials' minibatches are asked" in decision.reason
    step = risen(1000) + 1
    while step in Auto()._watched(state, 1000):
        step += 1
    assert Auto().looks(state, step, 1000) == autolr.policies.Sounding((1.0,), JUDGES)
    state, decision = watched(loss, 0.6)
    assert decision.verdict == "keep"
    assert Auto().looks(state, step, 1000) is None
    assert state.peak == pytest.approx(0.1)
    assert watched(loss, 0.6, loss)[1].verdict == "look"


@pytest.mark.parametrize(("loss", "lowest"), [(0.4, 0.5), (1.39, 0.5), (2.31, 2.29), (2.2, 2.25)])
def test_one_that_lives_or_has_not_lost_beyond_doubt_is_let_be(loss, lowest):
    state, decision = watched(loss, lowest=lowest)
    assert decision.verdict == "keep"
    assert state.lowest == min(loss + SURELY * 0.013, lowest)
    assert state.peak == pytest.approx(0.1)


@pytest.mark.parametrize(("loss", "verdict"), [(2.302, "keep"), (2.304, "roll back")])
def test_where_little_was_gained_four_minibatches_tell_more_than_one(loss, verdict):
    """Of one the standard error is 0.013, of four half of that; two of them must be lost."""
    assert watched(loss, lowest=2.29)[1].verdict == "keep"
    assert watched(2.317, loss, lowest=2.29)[1].verdict == verdict


def test_a_run_that_died_before_its_first_watch_is_held_against_the_trial_that_it_goes_on_from():
    state, _, _ = searched(valley(0.01))
    assert state.lowest == gone_on_from(state.trials, state.start)[1] < START
    for verdict in ("look", "roll back"):
        seen = Sighting(state.since + 31, 600, state.peak, (1.0,), (START,), (math.inf,))
        state, decision = Auto().see(state, seen)
        assert decision.verdict == verdict


@pytest.mark.parametrize(("above", "verdict"), [(0.19, "keep"), (0.21, "look")])
def test_where_no_trial_gained_it_is_dead_that_is_above_the_start_beyond_doubt(above, verdict):
    state, _, _ = searched(lambda _: 1e30)
    assert state.lowest == START  # of one minibatch the standard error is 0.1
    _, decision = Auto().see(state, Sighting(200, 600, state.peak, (1.0,), (START + above,), (math.inf,)))
    assert decision.verdict == verdict


@pytest.mark.parametrize("deviation", [math.inf, 0.0], ids=["one minibatch", "all alike"])
def test_of_a_full_batch_any_loss_is_beyond_doubt(deviation):
    state = at_peak(0.1, spread=deviation, lowest=0.5)
    for verdict in ("look", "roll back"):
        state, decision = Auto().see(state, Sighting(risen(1000), 1000, 0.1, (1.0,), (1.41,), (math.inf,)))
        assert decision.verdict == verdict


@pytest.mark.parametrize("gained", [0.02, 0.05, 0.1])
def test_a_run_that_gains_less_than_minibatches_differ_by_is_not_taken_for_dead(gained):
    """Their standard deviation is 0.1; the loss falls by as much again after the trial. A simulation, 500 runs."""
    noise, policy, dead = random.Random(0), Auto(), 0
    for _ in range(500):
        judges = statistics.fmean(noise.gauss(0, 0.1) for _ in range(JUDGES))
        spread = statistics.stdev(noise.gauss(0, 0.1) for _ in range(JUDGES))
        state = at_peak(0.1, start=START + judges, spread=spread, lowest=START - gained + judges)
        for watch in range(8):
            loss, step = START - gained * (1 + watch / 7), risen(1000) + 2 * watch
            seen = Sighting(step, 1000, 0.1, (1.0,), (loss + noise.gauss(0, 0.1),), (math.inf,))
            state, decision = policy.see(state, seen)
            if state.suspected:
                again = Sighting(step + 1, 1000, 0.1, (1.0,), (loss + judges,), (0.1,), JUDGES)
                state, decision = policy.see(state, again)
            if decision.verdict == "roll back":
                dead += 1
                break
    assert dead <= 10


def test_watches_are_close_after_the_rise_and_end_with_the_hold():
    policy, state = Auto(), at_peak(0.1)
    steps = [step for step in range(51, 5001) if policy.looks(state, step, 5000)]
    assert len(steps) == 8
    assert steps[-1] == 2500
    gaps = [b - a for a, b in itertools.pairwise([risen(5000), *steps])]
    assert gaps[0] < 30
    assert all(b >= a - 1 for a, b in itertools.pairwise(gaps))  # to a step
    assert not any(Auto(rollback=False).looks(state, step, 5000) for step in range(51, 5001))


def test_the_state_goes_into_a_checkpoint_and_back():
    state = dataclasses.replace(searched(valley(0.1))[0], finish=(3, 4))
    plain = dataclasses.asdict(state)
    assert type(state)(**plain) == state
    json.dumps(plain)


@pytest.mark.parametrize("hold", [-0.1, 1.5, math.nan])
def test_a_share_that_is_none_is_refused(hold):
    with pytest.raises(ValueError, match="hold must be"):
        Auto(hold=hold)


# In an optimizer.


def trained(lr, steps=300, *, policy=Auto(), base=torch.optim.SGD, stop=None, **settings):  # noqa: B008
    """A run on a small network with dropout and BatchNorm; its rates and final weights."""
    names = names_that_the_reader_has()
    model, loss_fn, loader = names["model"], names["loss_fn"], names["train_loader"]
    loader.generator = torch.Generator().manual_seed(0)
    optimizer = base(model.parameters(), lr=lr, **settings)
    if policy is not None:
        optimizer = autolr.AutoLR(optimizer, model, loss_fn, loader, steps, policy=policy)
    rates = []
    batches = itertools.islice(itertools.chain.from_iterable(iter(lambda: loader, None)), steps)
    for number, batch in enumerate(batches):
        if callable(stop):
            stop(number, model, optimizer)
        optimizer.zero_grad()
        loss_fn(model, batch).backward()
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
    return rates, nn.utils.parameters_to_vector(model.parameters()).detach(), optimizer


def improvements(optimizer):
    """The trials whose ends were the best place to go on from when they were over, by their place among all."""
    state = optimizer._tuning._state
    made = enumerate(state.trials, start=1)
    return [k - 1 for k, trial in made if gone_on_from(state.trials[:k], state.start) == trial]


def let_all_be_level(monkeypatch):
    """So that the search starts over."""
    monkeypatch.setattr(trials, "STUCK", -1e9)
    monkeypatch.setattr(trials, "GAINED", -1e9)
    monkeypatch.setattr(trials, "ABOVE", 1e9)


def begun(optimizer):
    """The step after which the rise began."""
    return max(record.step for record in optimizer.history if record.phase == "search")


@pytest.mark.parametrize("base", [torch.optim.SGD, torch.optim.Adam])
def test_the_given_rate_makes_no_difference_to_the_bit_over_six_decades(base):
    first, *others = [trained(lr, base=base) for lr in (1e-5, 1e-3, 1e-1, 10.0)]
    for other in others:
        assert other[0] == first[0]
        assert torch.equal(other[1], first[1])


@pytest.mark.parametrize("level", [False, True])
def test_training_is_that_of_the_same_rates_without_it_to_the_bit(level, monkeypatch):
    """From the places that were gone back to, and on the data that come; also where the search starts over."""
    if level:
        let_all_be_level(monkeypatch)
    total = 700 if level else 300
    rates, weights, optimizer = trained(0.1, total, momentum=0.9)
    ends = [record for record in optimizer.history if record.verdict in {"go back", "start over", "go on"}]
    assert any(record.verdict == "start over" for record in ends) == level
    assert level == (optimizer._tuning._state.times > 1 and len(optimizer._tuning._state.trials) > 1)
    over = max((record.step for record in ends if record.verdict == "start over"), default=1)
    state = optimizer._tuning._state
    since, length, best = begun(optimizer), state.times * trial_steps(total), improvements(optimizer)[-1]
    best = over + (best + 1) * length
    assert since == ends[-1].step == over + length * len(state.trials)
    assert optimizer.cost.looks > 0
    assert optimizer.cost.discarded_steps == since - length
    places = {}

    def replay(number, model, plain):
        if number == 1:  # the first step is undone, but for the buffers and the optimizer's state
            places["start"] = (places["parameters"], copied(model.buffers()), copy.deepcopy(plain.state_dict()))
        if number == best:
            places["best"] = copied(model.parameters()), copied(model.buffers()), copy.deepcopy(plain.state_dict())
        if number in {1, *(record.step for record in ends)}:
            parameters, buffers, state = places["best" if number == since else "start"]
            with torch.no_grad():
                for own, was in zip((*model.parameters(), *model.buffers()), (*parameters, *buffers), strict=True):
                    own.copy_(was)
            plain.load_state_dict(copy.deepcopy(state))  # it takes tensors as they are, and steps write into them
        if number == 0:
            places["parameters"] = copied(model.parameters())
        plain.param_groups[0]["lr"] = rates[number]

    _, again, _ = trained(0.1, total, policy=None, stop=replay, momentum=0.9)
    assert torch.equal(again, weights)


def copied(tensors):
    return [tensor.detach().clone() for tensor in tensors]


def test_the_log_tells_of_every_look():
    rates, _, optimizer = trained(0.1, policy=Auto(rollback=False))
    history = optimizer.history
    assert {record.phase for record in history} == {"search"}
    ends = [record for record in history if record.verdict in {"go back", "go on"}]
    assert [record.verdict for record in history] == [
        "undo",
        "look",
        *["look", "go back"] * (len(ends) - 1),
        "look",
        "go on",
    ]
    assert all(record.lr_before == rates[record.step - 1] for record in history)
    assert [record.step for record in ends] == [1 + (k + 1) * trial_steps(300) for k in range(len(ends))]
    assert optimizer.cost.forwards == 1 + 10 + JUDGES + (JUDGES + 1) * len(ends)
    assert optimizer.cost.snapshots == 1 + len(improvements(optimizer))
    peak = history[-1].lr_after
    assert max(rates[history[-1].step :]) == peak < HIGHEST
    assert f"the peak is {peak:.3g}" in history[-1].reason
    assert rates[-1] == pytest.approx(peak / 150)
    assert optimizer.phase == "decay"


def test_trials_are_on_other_data_and_judged_on_the_same():
    """What a trial's loss began at is what the next one's does: the same minibatches, the same weights."""
    names = names_that_the_reader_has()
    model, loss_fn, loader = names["model"], names["loss_fn"], names["train_loader"]
    seen = []

    def watching(model, batch):
        if autolr.looking():
            seen.append(batch[0].sum().item())
        return loss_fn(model, batch)

    base = torch.optim.SGD(model.parameters(), 0.1)
    optimizer = autolr.AutoLR(base, model, watching, loader, 300, policy=Auto(rollback=False))
    for _ in range(8):
        for batch in loader:
            optimizer.zero_grad()
            loss_fn(model, batch).backward()
            optimizer.step()
    judged = seen[-JUDGES:]
    assert len(set(judged)) == JUDGES
    trials = sum(record.verdict in {"go back", "go on"} for record in optimizer.history)
    begun = len(seen) - JUDGES - (JUDGES + 1) * trials
    assert seen[begun : begun + JUDGES] == judged
    assert all(seen[k : k + JUDGES] == judged for k in range(begun + JUDGES + 1, len(seen), JUDGES + 1))


def nowhere_at_first(monkeypatch, calls):
    """Makes minibatches bad for good that looks see from and up to these calls: their loss is no number."""
    looks, plain = itertools.count(), trained.__globals__["names_that_the_reader_has"]
    bad = set()

    def names():
        told = plain()
        clean = told["loss_fn"]

        def loss_fn(model, batch):
            told = float(batch[0].double().sum())
            if autolr.looking() and calls[0] <= next(looks) < calls[1]:
                bad.add(told)
            return clean(model, batch) * (math.nan if autolr.looking() and told in bad else 1.0)

        return told | {"loss_fn": loss_fn}

    monkeypatch.setitem(trained.__globals__, "names_that_the_reader_has", names)


FIRST_STEP = 1 + 10  # losses: one to see that it can be had at all, and where the first step begins and its decades


@pytest.mark.parametrize(
    ("bad", "told"),
    [((1, FIRST_STEP), "once more"), ((FIRST_STEP, FIRST_STEP + 1), "others are drawn")],
    ids=["along the first step", "where trials begin"],
)
def test_a_bad_minibatch_at_the_start_costs_a_look_and_not_the_search(monkeypatch, bad, told):
    _, _, sound = trained(0.1)
    nowhere_at_first(monkeypatch, bad)
    rates, weights, optimizer = trained(0.1)
    assert [told in record.reason for record in optimizer.history].count(True) == 1
    assert torch.isfinite(weights).all()
    peak, usual = optimizer._tuning._state.found, sound._tuning._state.found
    assert abs(math.log(peak / usual, FACTOR)) < 2
    assert math.isfinite(optimizer._tuning._state.start)
    assert rates[-1] < peak / 20


@pytest.mark.parametrize("since", [1, FIRST_STEP], ids=["along the first step", "where trials begin"])
def test_a_loss_that_is_never_finite_is_no_reason_to_stop_the_user_s_run(monkeypatch, since):
    nowhere_at_first(monkeypatch, (since, 10**9))
    _, _, optimizer = trained(0.1, policy=Auto(rollback=False))
    state = optimizer._tuning._state
    assert math.isnan(state.start)
    assert state.found == min(peak for peak, _ in state.trials)


def test_what_the_policy_counts_as_spent_is_what_it_cost():
    _, _, optimizer = trained(0.1)
    assert optimizer.cost.snapshots > 1
    spent = optimizer._tuning._state.spent
    assert optimizer.cost.forward_equivalents == 1 + spent + 3 * optimizer.cost.discarded_steps


def test_a_run_that_dies_goes_on_from_where_it_last_lived():
    """At step 130 something sets the weights to NaN."""
    kept = []

    def stop(number, model, optimizer):
        if optimizer.history and optimizer.history[-1].verdict == "keep" and number < 130:
            kept.append(optimizer.history[-1].step)
        if number == 130:
            with torch.no_grad():
                next(model.parameters()).fill_(math.nan)

    rates, weights, optimizer = trained(0.1, stop=stop, momentum=0.9)
    died = next(record for record in optimizer.history if record.verdict == "roll back")
    assert torch.isfinite(weights).all()
    assert died.loss is None
    last, since = max(kept), begun(optimizer)
    assert last > since
    assert optimizer.cost.discarded_steps == since - trial_steps(300) + died.step - last
    peak = rates[last]
    assert rates[died.step] == pytest.approx(peak / BACK, rel=0.01)  # seen at the end of the hold, and asked once more
    assert max(rates[died.step :]) == rates[died.step]


def test_a_trial_that_diverges_is_left_behind():
    """Its weights are NaN; the next trial begins where all of them do."""

    def stop(number, model, optimizer):
        if number == 3:  # within the first trial
            with torch.no_grad():
                next(model.parameters()).fill_(math.nan)

    _, weights, optimizer = trained(0.1, stop=stop)
    first = next(record for record in optimizer.history if record.verdict == "go back")
    assert first.loss is None
    assert first.lr_after == pytest.approx(optimizer._tuning._state.trials[0][0] / FACTOR)
    assert torch.isfinite(weights).all()


def test_where_no_longer_trial_gains_the_run_begins_at_the_start_and_not_where_a_shorter_one_ended(monkeypatch):
    let_all_be_level(monkeypatch)
    places = {}

    def stop(number, model, optimizer):
        if number == 1:
            places["start"] = copied(model.parameters())
        state = optimizer._tuning._state
        if state.times > 1 and not state.found and number > state.since:
            with torch.no_grad():
                next(model.parameters()).fill_(math.nan)
        if optimizer.history and optimizer.history[-1].verdict == "go on":
            places.setdefault("since", copied(model.parameters()))

    _, _, optimizer = trained(0.1, 700, stop=stop, momentum=0.9)
    over = next(record for record in optimizer.history if record.verdict == "go on")
    assert "from the start on" in over.reason
    assert all(map(torch.equal, places["start"], places["since"]))


def test_a_trial_in_which_a_scaler_skips_every_step_is_given_up():
    """Infinite weights in its second trial: no gradient is finite after that, and `step` is not called."""
    names = names_that_the_reader_has()
    model, loss_fn, loader = names["model"], names["loss_fn"], names["train_loader"]
    optimizer = autolr.AutoLR(torch.optim.SGD(model.parameters(), 0.1), model, loss_fn, loader, 300, policy=Auto())
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    ruined_at, passes = trial_steps(300) + 4, 0
    while optimizer._steps < 150:
        for batch in loader:
            passes += 1
            if optimizer._steps == ruined_at and not optimizer._tuning._skipped:
                with torch.no_grad():
                    next(model.parameters()).fill_(math.inf)
            optimizer.zero_grad()
            scaler.scale(loss_fn(model, batch)).backward()
            scaler.step(optimizer)
            scaler.update()
        assert passes < 400, "the run is stuck"
    second = [record for record in optimizer.history if record.verdict == "go back"][1]
    assert (second.step, second.loss) == (ruined_at, None)
    assert optimizer._tuning._state.trials[1][1] == math.inf
    assert all(torch.isfinite(p).all() for p in model.parameters())
    spent = optimizer._tuning._state.spent
    assert optimizer.cost.forward_equivalents == 1 + spent + 3 * optimizer.cost.discarded_steps


def test_finish_takes_the_rate_to_zero():
    def stop(number, model, optimizer):
        if number == 200:
            optimizer.finish(50)

    rates, _, optimizer = trained(0.1, policy=Auto(hold=1), stop=stop)
    peak = optimizer._tuning._state.peak
    assert rates[190:200] == [peak] * 10
    assert rates[200:250] == pytest.approx([peak * left / 50 for left in range(50, 0, -1)])
    assert rates[250:] == pytest.approx([peak / 50] * 50)
    assert optimizer.phase == "decay"
    with pytest.raises(TypeError, match="steps must be a whole number"):
        optimizer.finish(1.5)


def test_finish_is_of_no_use_to_a_policy_with_windows():
    names = names_that_the_reader_has()
    base = torch.optim.SGD(names["model"].parameters(), 0.1)
    optimizer = autolr.AutoLR(base, names["model"], names["loss_fn"], names["train_loader"], 100, overhead=1)
    with pytest.raises(TypeError, match="finish needs a policy that sets the rate of every step"):
        optimizer.finish(10)


def test_the_ratios_of_parameter_groups_stay():
    names = names_that_the_reader_has()
    model, loss_fn, loader = names["model"], names["loss_fn"], names["train_loader"]
    halves = [list(model.parameters())[:2], list(model.parameters())[2:]]
    base = torch.optim.SGD([{"params": halves[0], "lr": 1.0}, {"params": halves[1], "lr": 0.25}])
    optimizer = autolr.AutoLR(base, model, loss_fn, loader, 300, policy=Auto())
    for _ in range(3):
        for batch in loader:
            optimizer.zero_grad()
            loss_fn(model, batch).backward()
            optimizer.step()
            large, small = (group["lr"] for group in base.param_groups)
            assert small == pytest.approx(0.25 * large)


def test_a_run_that_is_over_keeps_its_rate_and_says_so():
    names = names_that_the_reader_has()
    model, loss_fn, loader = names["model"], names["loss_fn"], names["train_loader"]
    optimizer = autolr.AutoLR(torch.optim.SGD(model.parameters(), 0.1), model, loss_fn, loader, 12, policy=Auto())
    with pytest.warns(UserWarning, match="This is step 13 of a run"):
        for batch in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(batch[0]), batch[1]).backward()
            optimizer.step()


@pytest.mark.parametrize(
    ("name", "value"), [("window", 10), ("superbatch", 5), ("overhead", 0.1), ("held_out", (0.3,))]
)
def test_what_only_windows_have_is_refused(name, value):
    names = names_that_the_reader_has()
    base = torch.optim.SGD(names["model"].parameters(), 0.1)
    with pytest.raises(ValueError, match=f"Auto has no use for {name}"):
        autolr.AutoLR(
            base, names["model"], names["loss_fn"], names["train_loader"], 100, policy=Auto(), **{name: value}
        )


def test_a_group_that_is_added_within_the_search_stops_nothing():
    """What was kept does not know it: the place to come back to is where it was added."""
    names = names_that_the_reader_has()
    model, loss_fn, loader = names["model"], names["loss_fn"], names["train_loader"]
    first, *others = model.parameters()
    base = torch.optim.SGD(others, lr=0.1, momentum=0.9)
    optimizer = autolr.AutoLR(base, model, loss_fn, loader, 300, policy=Auto())
    batches = itertools.chain.from_iterable(iter(lambda: loader, None))
    for number, batch in enumerate(itertools.islice(batches, 120)):
        if number == 16:  # within the second trial; the first one's end is kept
            optimizer.add_param_group({"params": [first], "lr": 0.01})
            there, ratio = copied(model.parameters()), base.param_groups[1]["lr"] / base.param_groups[0]["lr"]
        optimizer.zero_grad()
        loss_fn(model, batch).backward()
        optimizer.step()
        if number == trial_steps(300) * 2:  # the end of that trial, which did not end better
            assert optimizer.history[-1].verdict == "go back"
            assert all(map(torch.equal, model.parameters(), there))
    assert optimizer.phase != "search"
    large, small = (group["lr"] for group in base.param_groups)
    assert small == pytest.approx(ratio * large)
