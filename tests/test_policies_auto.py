"""`Auto`: the rise, its end, what follows; and that nothing of it depends on the rate that the optimizer was given."""

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
    DECADES,
    HIGHEST,
    JUMP,
    LOST,
    LOWEST,
    MOST,
    NEGLIGIBLE,
    RARE,
    AutoState,
    rise_steps,
    tilt,
)
from test_docs import names_that_the_reader_has

totals = st.integers(100, 100_000)


def risen(losses_at, total=2000, policy=Auto()):  # noqa: B008 - frozen
    """The policy's state at the end of a rise, and how many steps it took; ``losses_at(lr)`` is what it sees."""
    state, step = policy.begin(), 0
    while state.peak is None:
        step += 1
        if policy.looks(state, step, total):
            lr = policy.rate(state, step, total)
            state, decision = policy.see(state, Sighting(step, total, lr, tuple(losses_at(lr))))
            assert state.peak is not None or (decision.verdict, decision.lr) == ("look", lr)
    return state, decision, step


def parabola(best, noise=0.0, rng=None, scale=1.0):
    """Along a step of length lr the loss falls by (lr - lr^2 / best) / best: its slope at the end is 0 at best / 2."""

    def losses_at(lr):
        relative = lr / best
        jitter = noise * relative * rng.gauss(0, 1) if noise else 0.0
        return [scale * (2.0 - (s * relative * (1 + jitter) - (s * relative) ** 2)) for s in (0, 1, 2)]

    return losses_at


# The rise.


@given(total=totals)
def test_it_rises_by_one_factor_a_step_within_its_share_of_the_run(total):
    policy, steps = Auto(), rise_steps(total)
    assert 1 <= steps <= max(1, round(MOST * total))
    state = AutoState(lr=1e-4, at=7)
    rates = [policy.rate(state, step, total) for step in range(7, 7 + steps + 1)]
    assert rates[0] == 1e-4
    assert rates[-1] == pytest.approx(1e-4 * 10**DECADES)
    assert {round(math.log10(b / a), 9) for a, b in itertools.pairwise(rates)} == {round(DECADES / steps, 9)}
    assert policy.rate(AutoState(lr=HIGHEST), total, total) == HIGHEST
    assert policy.rate(policy.begin(), 1, total) == LOWEST


def test_where_a_step_makes_hardly_a_difference_the_rate_is_jumped():
    policy, total = Auto(), 2000
    state, decision = policy.see(policy.begin(), Sighting(1, total, LOWEST, (1.0, 1.0, 1.0 - NEGLIGIBLE / 2)))
    assert policy.rate(state, 2, total) == pytest.approx(JUMP * LOWEST)
    assert "hardly a difference" in decision.reason
    state, _ = policy.see(state, Sighting(2, total, JUMP * LOWEST, (1.0, 1.0 - NEGLIGIBLE, 1.0 - 2 * NEGLIGIBLE)))
    assert JUMP * LOWEST < policy.rate(state, 3, total) < 2 * JUMP * LOWEST


@given(exponent=st.floats(-4.5, 0.3), total=st.integers(2000, 50_000))
def test_it_stops_where_the_loss_along_the_step_stops_falling_at_its_end(exponent, total):
    best = 10**exponent
    state, decision, _ = risen(parabola(2 * best), total)
    # A straight fall is told from a bend only above the lowest rate that makes a difference: late by what is pooled.
    assert best / 2 < state.peak < 8 * best
    assert decision.lr == state.peak
    assert "peak found" in decision.reason


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


def test_one_sighting_that_is_far_off_does_not_hold_it_up():
    """As it happens: losses grow without bound past the peak, and their spread with them."""
    fine = parabola(0.1)
    wild = risen(lambda lr: [fine(lr)[0], fine(lr)[1], fine(lr)[2] + (40 * lr if lr > 0.06 else 0)])[0].peak
    assert wild <= risen(fine)[0].peak


def test_noise_in_single_sightings_does_not_stop_it_a_decade_off():
    found = [risen(parabola(0.1, noise=5.0, rng=random.Random(seed)))[0].peak for seed in range(40)]
    middle = statistics.median(found)
    assert 0.03 < middle < 0.15
    assert sum(middle / 4 < peak < middle * 4 for peak in found) >= 36


def test_a_loss_that_only_falls_takes_the_whole_range():
    state, decision, step = risen(lambda _: [2.0, 2.0 - 1e-3, 2.0 - 2e-3])
    there = math.ceil(rise_steps(2000) * math.log10(HIGHEST / LOWEST) / DECADES) + 1
    assert state.peak == HIGHEST
    assert there <= step < there + 2 * RARE  # looks are rare while the loss plainly falls
    assert "range ends here" in decision.reason


@pytest.mark.parametrize("lost", [math.nan, math.inf, 2.0 * LOST + 0.1])
def test_it_stops_before_the_step_that_would_lose_everything(lost):
    fine = parabola(100.0)
    state, decision, _ = risen(lambda lr: fine(lr) if lr < 1e-3 else [*fine(lr)[:2], lost])
    assert 4e-4 < state.peak <= 1e-3
    assert decision.verdict == "lower"
    assert "loses all" in decision.reason


def test_looks_are_as_many_in_a_long_rise_as_in_a_short_one():
    policy = Auto()
    state = policy.begin()
    assert all(policy.looks(state, step, 1000) for step in range(1, 61))
    long = rise_steps(100_000)
    assert sum(policy.looks(state, step, 100_000) for step in range(1, long)) == pytest.approx(60, abs=1)
    assert not any(policy.looks(AutoState(peak=0.1), step, 2000) for step in range(1, 2001))
    # And fewer while the loss plainly falls; but not where there are too few steps to leave some out.
    far = AutoState(far=True)
    assert sum(policy.looks(far, step, 1000) for step in range(1, 61)) == 20
    assert sum(policy.looks(far, step, 300) for step in range(1, 31)) == 30


@given(total=st.integers(1000, 100_000), exponent=st.floats(-3, -0.5))
def test_looks_cost_at_most_a_tenth_of_a_short_run_and_little_of_a_long_one(total, exponent):
    state, _, _ = risen(parabola(10**exponent), total)
    share = state.sightings / total  # a look is three forward passes, as many as a step is worth
    assert share <= 0.1
    if total > 10_000:
        assert share <= 0.01


# What follows.


@given(peak=st.floats(1e-6, 10), total=totals, hold=st.floats(0, 0.99))
def test_then_the_peak_and_a_line_to_zero(peak, total, hold):
    policy, state = Auto(hold=hold), AutoState(peak=peak)
    rates = [policy.rate(state, step, total) for step in range(1, total + 1)]
    assert rates[0] == peak
    assert all(b <= a for a, b in itertools.pairwise(rates))
    assert all(r == peak for r in rates[: int(hold * total)])
    assert 0 < rates[-1] <= max(peak / max(1, (1 - hold) * total), 0) * (1 + 1e-9)


@given(total=totals, sightings=st.integers(0, 50))
def test_within_a_budget_the_rate_is_at_zero_as_many_steps_earlier_as_looks_cost(total, sightings):
    state, end = AutoState(peak=0.1, sightings=sightings), total - sightings - 1
    within, without = Auto(within=True), Auto()
    assert [within.rate(state, step, total) for step in range(1, end + 1)] == [
        without.rate(state, step, end) for step in range(1, end + 1)
    ]
    assert all(within.rate(state, step, total) > 0 for step in range(end, total + 1))


def test_the_state_goes_into_a_checkpoint_and_back():
    state = risen(lambda lr: [1.0, 1.0 - lr, 1.0 - 2 * lr])[0]
    state = dataclasses.replace(state, seen=((1e-3, -0.9),))
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


def test_the_log_tells_of_every_look_and_where_the_peak_was_found():
    rates, _, optimizer = trained(0.1)
    *looked, last = optimizer.history
    assert {record.verdict for record in looked} == {"look"}
    assert {record.phase for record in optimizer.history} == {"rise"}
    assert last.reason.startswith("peak found at")
    assert rates[last.step] == pytest.approx(last.lr_after)  # of the step after the one that was looked along
    assert optimizer.cost.forwards == 1 + 3 * len(optimizer.history)
    assert max(rates) < HIGHEST
    assert rates[-1] < 0.01 * last.lr_after
    assert optimizer.phase == "decay"


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
