"""The schedules to compare with, each against its formula."""

import itertools
import math

import pytest
import torch

from autolr_lab.baselines.schedules import SCHEDULES, WARM_UP_START, make_schedule

PEAK = 0.1


RISING = ("inverse-sqrt", "one-cycle")  # bring a warm-up of their own


def rates_of(name, total_steps, peaks=(PEAK,), until=None, **options):
    """The rates of each group at each optimizer step."""
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": peak} for peak in peaks]
    optimizer = torch.optim.SGD(groups)
    scheduler = make_schedule(name, optimizer, total_steps, **options)
    rates = []
    for _ in range(until or total_steps):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return rates


def one_rate(name, total_steps, **options):
    return [rate for (rate,) in rates_of(name, total_steps, **options)]


EXACT = 1e-12  # torch's cosine is a recursion: it loses an ulp or so a step


def test_fixed_stays_at_its_rate():
    assert one_rate("fixed", 50) == [PEAK] * 50


def test_the_staircase_is_the_papers_for_cifar10():
    # 0.1, 0.01, 0.001 for 100, 50, 50 epochs; one step an epoch here.
    expected = [PEAK] * 100 + [PEAK / 10] * 50 + [PEAK / 100] * 50
    assert one_rate("staircase", 200) == pytest.approx(expected, rel=EXACT)


def test_cosine_is_half_a_period_from_the_peak_to_zero():
    expected = [PEAK * (1 + math.cos(math.pi * step / 200)) / 2 for step in range(200)]
    assert one_rate("cosine", 200) == pytest.approx(expected, rel=1e-9, abs=PEAK * EXACT)


@pytest.mark.parametrize("total", [200, 201])
def test_knee_holds_the_peak_for_half_of_the_run_and_then_falls_in_a_straight_line_to_zero(total):
    expected = [PEAK if 2 * step <= total else PEAK * 2 * (1 - step / total) for step in range(total)]
    rates = one_rate("knee", total)
    assert rates == pytest.approx(expected, rel=EXACT)
    assert rates[-1] == pytest.approx(PEAK * 2 / total, rel=1e-9)  # the next one would be zero


@pytest.mark.parametrize("name", [name for name in SCHEDULES if name not in RISING])
@pytest.mark.parametrize("total", [4, 5, 100])
def test_every_schedule_begins_at_the_rate_it_was_given_and_never_rises(name, total):
    rates = one_rate(name, total)
    assert rates[0] == PEAK
    assert all(after <= before * (1 + EXACT) for before, after in itertools.pairwise(rates))
    assert rates[-1] > 0  # no step of a run is for nothing


@pytest.mark.parametrize("name", SCHEDULES)
def test_groups_keep_their_ratio(name):
    for one, other in rates_of(name, 40, peaks=(0.1, 0.03)):
        assert other == pytest.approx(0.3 * one, rel=1e-9)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_run_of_a_single_step_can_be_made(name):
    (rate,) = one_rate(name, 1)
    assert 0 < rate <= PEAK
    assert rate == PEAK or name in RISING


FORMULAS = {  # the share of the peak at the share x of 200 steps, with options that are not the defaults
    "staircase": ({"stairs": (0.2, 0.6), "factor": 0.5}, lambda x: 0.5 ** ((x >= 0.2) + (x >= 0.6))),
    "exponential": ({"end": 0.001}, lambda x: 0.001**x),
    "polynomial": ({"power": 3.0}, lambda x: (1 - x) ** 3),
    "linear": ({}, lambda x: 1 - x),
    "inverse-sqrt": (
        {"warmup": 25, "start": 0.1},
        lambda x: 0.1 + 0.9 * 200 * x / 25 if 200 * x < 25 else math.sqrt(25 / (200 * x)),
    ),
    "warmup-stable-decay": ({"decay": 0.25}, lambda x: min(1, (1 - x) / 0.25)),
    "knee": ({"explore": 0.3}, lambda x: min(1, (1 - x) / 0.7)),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_a_schedule_is_its_formula_under_its_options(name):
    options, share = FORMULAS[name]
    expected = [PEAK * share(t / 200) for t in range(200)]
    assert one_rate(name, 200, **options) == pytest.approx(expected, rel=1e-9)


def test_one_cycle_rises_to_the_peak_for_its_share_of_the_run_and_falls_to_next_to_nothing():
    rates = one_rate("one-cycle", 200, rise=0.4)
    top = rates.index(max(rates))
    assert rates[top] == pytest.approx(PEAK, rel=1e-12)
    assert top == 79  # torch counts the rise as 0.4 * 200 - 1 steps
    assert rates[0] == pytest.approx(PEAK / 25)
    assert rates[-1] == pytest.approx(PEAK / 25 / 1e4)


@pytest.mark.parametrize("name", [name for name in SCHEDULES if name not in RISING])
def test_a_warm_up_is_a_line_to_the_peak_and_the_schedule_has_the_rest_of_the_run(name):
    rates, alone = one_rate(name, 200, warmup=40), one_rate(name, 160)
    line = [PEAK * (WARM_UP_START + (1 - WARM_UP_START) * t / 40) for t in range(40)]
    assert rates[:40] == pytest.approx(line, rel=1e-9)
    assert rates[40:] == pytest.approx(alone, rel=1e-9, abs=PEAK * EXACT)


def test_a_warm_up_may_be_a_share_of_the_run():
    assert one_rate("cosine", 200, warmup=0.2) == one_rate("cosine", 200, warmup=40)
    assert one_rate("inverse-sqrt", 200, warmup=0.2) == one_rate("inverse-sqrt", 200, warmup=40)


def test_fairseqs_warm_up_is_the_default_of_the_inverse_square_root():
    rates = one_rate("inverse-sqrt", 50_000, until=16_001)
    assert rates[0] == pytest.approx(PEAK * 1.25e-7 / 5e-4)
    assert rates[4000] == pytest.approx(PEAK)
    assert rates[16_000] == pytest.approx(PEAK / 2)


def test_a_plateau_lowers_the_rate_once_the_loss_has_stopped_falling():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    schedule = make_schedule("plateau", optimizer, 100, factor=0.5, patience=2)
    rates = []
    for loss in (3.0, 2.0, 2.0, 2.0, 2.0, 1.0):
        optimizer.step()
        schedule.step()
        schedule.epoch(loss)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == [PEAK] * 4 + [PEAK / 2] * 2


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("warmup", [0, 7])
@pytest.mark.parametrize("at", [3, 7, 20])
def test_a_schedule_goes_on_from_its_state(name, warmup, at):
    options = {} if name == "one-cycle" else {"warmup": warmup}

    def made():
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
        return optimizer, make_schedule(name, optimizer, 40, **options)

    def rates(optimizer, schedule, steps):
        seen = []
        for step in steps:
            seen.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
            if step % 5 == 4:
                schedule.epoch(1.0)  # never better: a plateau
        return seen

    whole = rates(*made(), range(40))
    optimizer, schedule = made()
    rates(optimizer, schedule, range(at))
    again, other = made()
    again.load_state_dict(optimizer.state_dict())
    other.load_state_dict(schedule.state_dict())
    assert rates(again, other, range(at, 40)) == whole[at:]


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("cosine", {"explore": 0.5}, "no option 'explore'. It has: warmup"),
        ("one-cycle", {"warmup": 5}, "no option 'warmup'. It has: rise"),
        ("linear", {"warmup": 100}, "from 0 to below the run's 100, or a share of it; got 100"),
        ("linear", {"warmup": 1.5}, "warmup must be a number of steps"),
        ("knee", {"explore": 1.0}, "explore must be a share of the run"),
        ("exponential", {"end": 0.0}, "end must be between 0 and 1"),
        ("staircase", {"stairs": (0.7, 0.2)}, "stairs must be rising shares"),
        ("plateau", {"patience": -1}, "patience must be a number of epochs"),
        ("polynomial", {"power": -1.0}, "power must be above 0"),
        ("inverse-sqrt", {"start": -3.0}, "start must be a share of the peak"),
        ("linear", {"warmup": True}, "warmup must be a number of steps"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(name, options, told):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    with pytest.raises(ValueError, match=told.replace("(", "\\(")):
        make_schedule(name, optimizer, 100, **options)
