"""`Auto`: the reach and the peak, what follows; a run that dies; and that nothing depends on the rate it was given."""

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
from autolr.policies import Auto, Sighting
from autolr.policies.auto import (
    ABOVE,
    BACK,
    BELOW,
    HIGHEST,
    LONGEST,
    LOOKS,
    LOWEST,
    MOST,
    SCOUTS,
    UNTIL,
    AutoState,
    rise_steps,
    tilt,
)
from test_docs import names_that_the_reader_has

totals = st.integers(100, 20_000)
OVER = 0.75  # decades that a reach may be off: a scout's raster, and what looks have not yet made good


def risen(loss_at, total=2000, policy=Auto()):  # noqa: B008 - frozen
    """The state at the end of a rise, its rates, and what was decided; ``loss_at(lr, step)`` is the loss along it."""
    state, rates, decisions = policy.begin(), [], []
    for step in range(1, SCOUTS + rise_steps(total) + 1):
        lr = policy.rate(state, step, total)
        rates.append(lr)
        if scales := policy.looks(state, step, total):
            losses = tuple(loss_at(scale * lr, step) for scale in scales)
            state, decision = policy.see(state, Sighting(step, total, lr, scales, losses))
            decisions.append(decision)
    return state, rates, decisions


def parabola(best, noise=0.0, rng=None, scale=1.0):
    """Along a step of length lr the loss is least at ``best``, so that it is level again at twice of it."""

    def loss_at(lr, step):
        jitter = math.exp(noise * rng.gauss(0, 1)) if noise else 1.0
        return scale * (2.0 + ((lr / best) ** 2 - 2 * lr / best * jitter))

    return loss_at


# The rise.


@given(exponent=st.floats(-5, 0), total=st.integers(200, 5_000))
def test_the_reach_is_where_the_loss_would_be_level_at_twice_the_step(exponent, total):
    best = 10**exponent
    state, _, decisions = risen(parabola(best), total)
    assert abs(math.log10(state.peak / ABOVE / best)) < OVER / 3
    assert "the peak" in decisions[-1].reason


@given(exponent=st.floats(-5, 0), total=st.integers(200, 5_000))
def test_no_step_of_the_rise_is_longer_than_the_peak_that_it_ends_at(exponent, total):
    policy = Auto()
    state, rates, _ = risen(parabola(10**exponent), total)
    assert rates[0] == LOWEST
    assert max(rates) <= policy.rate(state, len(rates) + 1, total) * (1 + 1e-9) == state.peak * (1 + 1e-9)
    # After the last look it rises by one factor a step.
    after = [b / a for a, b in itertools.pairwise(rates[-max(2, len(rates) // 4) :])]
    assert max(after) == pytest.approx(min(after))


@given(total=totals)
def test_the_rise_takes_its_share_of_the_run(total):
    steps = rise_steps(total)
    assert 1 <= steps <= min(LONGEST, max(1, round(MOST * total)))
    policy = Auto()
    assert policy.phase(SCOUTS + steps, total) == "rise"
    assert policy.phase(SCOUTS + steps + 1, total) in {"hold", "decay"}


@given(scale=st.sampled_from([2.0**-20, 2.0**-3, 2.0, 2.0**9]))
def test_the_scale_of_the_loss_does_not_matter(scale):
    assert risen(parabola(0.05, scale=scale))[0].peak == risen(parabola(0.05))[0].peak


@given(st.lists(st.floats(0, 1e3), min_size=3, max_size=3))
def test_a_tilt_is_the_share_of_the_way_that_leads_up(losses):
    before, here, beyond = losses
    up = max(here - before, 0) + max(beyond - here, 0)
    down = max(before - here, 0) + max(here - beyond, 0)
    assert -1 <= tilt(losses) <= 1
    assert tilt(losses) == pytest.approx((up - down) / (up + down) if up + down else 0, abs=1e-9)


def test_noise_in_single_looks_averages_out():
    """Each sample's slope is off by a factor of e, as looks along single steps are."""
    found = [risen(parabola(0.1, noise=1.0, rng=random.Random(seed)))[0].peak for seed in range(60)]
    middle = statistics.median(found)
    assert 0.1 < middle / ABOVE < 0.4  # the mean slope is e^(1/2) times the middle one
    assert sum(middle / 2 < peak < middle * 2 for peak in found) >= 54


def test_the_peak_is_over_the_mean_reach_of_the_later_looks():
    assert AutoState(trail=(1.0, 1.0, 0.01, 0.04)).peak == pytest.approx(ABOVE * 0.02)
    assert AutoState(trail=(1.0, 0.01, 0.04), lowered=3.0).peak == pytest.approx(ABOVE * 0.02 / 3)
    assert AutoState(reach=0.01).peak == pytest.approx(ABOVE * 0.01)
    assert AutoState(trail=(HIGHEST,)).peak == HIGHEST


@pytest.mark.parametrize("wrong", [1e-3, 1e3])
def test_a_scout_that_is_three_decades_off_is_made_good(wrong):
    """At 1e-7 float32 may leave rounding's direction of a step: then the scouts see anything."""
    true = parabola(0.01)
    state, _, _ = risen(lambda lr, step: true(lr / wrong if step <= SCOUTS else lr, step), 4000)
    assert abs(math.log10(state.peak / ABOVE / 0.01)) < OVER


@pytest.mark.parametrize("flat", [lambda lr, step: 2.0, lambda lr, step: 2.0 - 1e-9 * lr])  # noqa: ARG005
def test_a_loss_that_never_rises_takes_the_whole_range(flat):
    state, rates, _ = risen(flat)
    assert state.peak == HIGHEST
    assert max(rates) <= HIGHEST


@pytest.mark.parametrize("lost", [math.nan, math.inf, 1e30])
def test_where_steps_would_lose_everything_the_reach_is_below(lost):
    fine = parabola(100.0)
    state, _, _ = risen(lambda lr, step: fine(lr, step) if lr < 1e-3 else lost)
    assert 1e-4 < state.peak / ABOVE < 2e-3


def test_looks_are_few_in_a_long_rise_and_none_are_near_the_peak():
    policy = Auto(rollback=False)
    for total in (200, 2000, 100_000):
        looked, state = [], policy.begin()
        for step in range(1, total + 1):
            lr = policy.rate(state, step, total)
            if scales := policy.looks(state, step, total):
                looked.append((step, lr))
                losses = tuple(parabola(0.1)(scale * lr, step) for scale in scales)
                state, _ = policy.see(state, Sighting(step, total, lr, scales, losses))
        assert SCOUTS < len(looked) <= LOOKS + SCOUTS + LOOKS // 2
        assert all(lr < 0.1 / UNTIL * 10**0.3 for _, lr in looked)
        assert looked[SCOUTS][1] == pytest.approx(0.1 / BELOW, rel=2)


@given(total=st.integers(100, 100_000), exponent=st.floats(-3, -0.5))
def test_it_costs_a_tenth_of_a_run_of_a_hundred_steps_and_little_of_a_long_one(total, exponent):
    policy = Auto()
    state, _, _ = risen(parabola(10**exponent), total)
    share = (state.spent + 2 * len(policy._watched(state, total))) / (3 * total)
    assert share <= (0.12 if total < 400 else 0.06)
    if total > 10_000:
        assert share <= 0.005


# What follows.


def at_peak(peak, **more):
    """A state in which the rise is over."""
    return AutoState(scouts=SCOUTS, reach=peak / ABOVE, trail=(peak / ABOVE,), **more)


@given(peak=st.floats(1e-6, 9), total=totals, hold=st.floats(0.2, 0.99))
def test_then_the_peak_and_a_line_to_zero(peak, total, hold):
    policy, state, begin = Auto(hold=hold), at_peak(peak), SCOUTS + rise_steps(total)
    rates = [policy.rate(state, step, total) for step in range(begin + 1, total + 1)]
    assert all(b <= a for a, b in itertools.pairwise(rates))
    held = int(hold * total) - begin
    assert rates[: max(0, held)] == pytest.approx([peak] * max(0, held))
    decay = rates[max(0, held) :]
    assert rates[-1] == pytest.approx(peak / (total - int(hold * total)))
    assert all(a - b == pytest.approx(rates[-1], rel=1e-6, abs=1e-12) for a, b in itertools.pairwise(decay))


@given(total=totals, spent=st.integers(0, 120))
def test_within_a_budget_the_rate_is_at_zero_as_many_steps_earlier_as_looks_cost(total, spent):
    state, end = at_peak(0.1, spent=spent), total - math.ceil(spent / 3) - 1
    within, without = Auto(within=True), Auto()
    after = range(SCOUTS + rise_steps(total) + 1, end + 1)
    assert [within.rate(state, step, total) for step in after] == [without.rate(state, step, end) for step in after]
    assert all(within.rate(state, step, total) > 0 for step in range(end, total + 1))


@given(total=st.integers(200, 10_000), data=st.data())
def test_a_run_whose_end_is_not_known_holds_its_peak_until_it_is_told_to_finish(total, data):
    policy, state, first = Auto(hold=1), at_peak(0.1), SCOUTS + rise_steps(total) + 1
    held = {policy.rate(state, step, total) for step in range(first, total + 1)}
    assert held == {state.peak}
    now = data.draw(st.integers(first, total - 1))
    steps = data.draw(st.integers(1, total - now))
    state = policy.finish(state, now, steps, total)
    rates = [policy.rate(state, step, total) for step in range(now + 1, now + steps + 1)]
    assert rates == pytest.approx([0.1 * left / steps for left in range(steps, 0, -1)])
    assert policy.stage(state, now + 1, total) == "decay"
    assert not any(policy.looks(state, step, total) for step in range(now + 1, total + 1))


def test_a_run_cannot_finish_in_its_rise_nor_beyond_its_steps():
    policy, total = Auto(hold=1), 1000
    with pytest.raises(ValueError, match="once the rate has risen to its peak, after step 52; this is step 20"):
        policy.finish(policy.begin(), 20, 10, total)
    with pytest.raises(ValueError, match="400 steps are left of 1000; got 401"):
        policy.finish(at_peak(0.1), 600, 401, total)


# A run that dies.


def watched(loss, *, before=(2.3, 2.32, 2.29, 2.31), lowest=0.5):
    """What is decided where a watch sees ``loss``."""
    state = at_peak(0.1, before=before, lowest=lowest)
    return Auto().see(state, Sighting(500, 1000, 0.1, (1.0,), (loss,)))


@pytest.mark.parametrize("loss", [math.nan, math.inf, 2.9, 2.304, 2.15])
def test_a_run_that_lost_what_it_had_gained_is_brought_back_to_a_third_of_its_rate(loss):
    state, decision = watched(loss)
    assert (decision.verdict, decision.died) == ("roll back", True)
    assert state.peak == pytest.approx(0.1 / BACK) == decision.lr
    assert "rolled back" in decision.reason


@pytest.mark.parametrize(("loss", "lowest"), [(0.4, 0.5), (1.9, 0.5), (2.31, 2.29), (2.2, 2.25)])
def test_one_that_lives_or_has_not_gained_beyond_doubt_is_let_be(loss, lowest):
    state, decision = watched(loss, lowest=lowest)
    assert decision.verdict == "keep"
    assert state.lowest == min(loss, lowest)
    assert state.peak == pytest.approx(0.1)


def test_without_a_place_to_go_back_to_nothing_is_said_to_be_rolled_back():
    state = AutoState(scouts=SCOUTS, reach=0.1)
    seen = Sighting(5, 1000, 0.01, (0.0, 1.0, 2.0), (math.nan, 1.0, 1.0))
    for rollback, verdict, told in ((True, "roll back", "rolled back"), (False, "lower", "lowered")):
        after, decision = Auto(rollback=rollback).see(state, seen)
        assert (decision.verdict, decision.died) == (verdict, rollback)
        assert decision.reason.startswith(told)
        assert after.peak == pytest.approx(state.peak / BACK)


def test_watches_are_close_after_the_rise_and_end_with_the_hold():
    policy, state = Auto(), at_peak(0.1)
    steps = [step for step in range(1, 5001) if policy.looks(state, step, 5000) == (1.0,)]
    assert len(steps) == 8
    assert steps[-1] == 2500
    gaps = [b - a for a, b in itertools.pairwise([SCOUTS + rise_steps(5000), *steps])]
    assert gaps[0] < 30
    assert all(b >= a for a, b in itertools.pairwise(gaps))
    assert not any(Auto(rollback=False).looks(state, step, 5000) for step in range(300, 5001))


def test_the_state_goes_into_a_checkpoint_and_back():
    state = dataclasses.replace(risen(parabola(0.1))[0], finish=(3, 4))
    plain = dataclasses.asdict(state)
    assert type(state)(**plain) == state
    json.dumps(plain)


@pytest.mark.parametrize("hold", [-0.1, 1.5, math.nan])
def test_a_share_that_is_none_is_refused(hold):
    with pytest.raises(ValueError, match="hold must be"):
        Auto(hold=hold)


# In an optimizer.


def trained(lr, steps=300, *, policy=Auto(), base=torch.optim.SGD, stop=None, state=None, **settings):  # noqa: B008
    """A run on a small network with dropout and BatchNorm; its rates and final weights."""
    names = names_that_the_reader_has()
    model, loss_fn, loader = names["model"], names["loss_fn"], names["train_loader"]
    loader.generator = torch.Generator().manual_seed(0)
    optimizer = base(model.parameters(), lr=lr, **settings)
    if policy is not None:
        optimizer = autolr.AutoLR(optimizer, model, loss_fn, loader, steps, policy=policy)
    rates, torch_state = [], torch.get_rng_state()
    torch.set_rng_state(torch_state)
    batches = itertools.islice(itertools.chain.from_iterable(iter(lambda: loader, None)), steps)
    for number, batch in enumerate(batches):
        if callable(stop):
            stop(number, model, optimizer)
        optimizer.zero_grad()
        loss_fn(model, batch).backward()
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
    return rates, nn.utils.parameters_to_vector(model.parameters()).detach(), optimizer


@pytest.mark.parametrize("base", [torch.optim.SGD, torch.optim.Adam])
def test_the_given_rate_makes_no_difference_to_the_bit_over_six_decades(base):
    first, *others = [trained(lr, base=base) for lr in (1e-5, 1e-3, 1e-1, 10.0)]
    for other in others:
        assert other[0] == first[0]
        assert torch.equal(other[1], first[1])


def test_training_is_that_of_the_same_rates_without_it_to_the_bit():
    rates, weights, optimizer = trained(0.1, momentum=0.9)
    assert optimizer.cost.looks > 0

    def replay(number, model, plain):
        plain.param_groups[0]["lr"] = rates[number]

    _, again, _ = trained(0.1, policy=None, stop=replay, momentum=0.9)
    assert torch.equal(again, weights)


def test_the_log_tells_of_every_look():
    rates, _, optimizer = trained(0.1, policy=Auto(rollback=False))
    history = optimizer.history
    assert {record.phase for record in history} == {"rise"}
    assert [record.verdict for record in history] == ["look", "keep", *["look"] * (len(history) - SCOUTS)]
    assert all(record.lr_before == rates[record.step - 1] for record in history)
    assert all("the peak" in record.reason for record in history[SCOUTS:])
    assert optimizer.cost.forwards == 1 + sum(len(record.eps) for record in history)
    assert optimizer.cost.snapshots == 0
    top = max(rates)
    assert rates[SCOUTS + rise_steps(300)] == top < HIGHEST
    assert f"the peak {top:.3g}" in history[-1].reason
    assert rates[-1] == pytest.approx(top / 150)
    assert optimizer.phase == "decay"


def test_what_the_policy_counts_as_spent_is_what_it_cost():
    _, _, optimizer = trained(0.1)
    assert optimizer.cost.snapshots > 1
    spent = optimizer._steering._state.spent
    assert optimizer.cost.forward_equivalents == 1 + spent


def test_a_run_that_dies_goes_on_from_where_it_last_lived():
    """At step 60 something sets the weights to NaN."""
    kept = {}

    def stop(number, model, optimizer):
        if optimizer.history and optimizer.history[-1].verdict == "keep" and number < 60:
            kept.setdefault(optimizer.history[-1].step, [p.detach().clone() for p in model.parameters()])
        if number == 60:
            with torch.no_grad():
                next(model.parameters()).fill_(math.nan)

    rates, weights, optimizer = trained(0.1, stop=stop, momentum=0.9)
    died = next(record for record in optimizer.history if record.verdict == "roll back")
    assert torch.isfinite(weights).all()
    assert died.loss is None
    assert optimizer.cost.discarded_steps == died.step - max(kept)
    peak = rates[max(kept)]
    assert rates[died.step] == pytest.approx(peak / BACK)
    assert max(rates[died.step :]) == rates[died.step]


def test_a_loss_that_is_nan_in_the_rise_is_brought_back_too():
    def stop(number, model, optimizer):
        if number == 8:
            with torch.no_grad():
                next(model.parameters()).fill_(math.nan)

    _, weights, optimizer = trained(0.1, stop=stop)
    assert [record.verdict for record in optimizer.history].count("roll back") == 1
    assert torch.isfinite(weights).all()


def test_finish_takes_the_rate_to_zero():
    def stop(number, model, optimizer):
        if number == 200:
            optimizer.finish(50)

    rates, _, optimizer = trained(0.1, policy=Auto(hold=1), stop=stop)
    assert rates[190:200] == [max(rates)] * 10
    assert rates[200:250] == pytest.approx([max(rates) * left / 50 for left in range(50, 0, -1)])
    assert rates[250:] == pytest.approx([max(rates) / 50] * 50)
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
