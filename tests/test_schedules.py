"""The schedules to compare with, each against its formula."""

import itertools
import math

import pytest
import torch

from autolr.schedules import SCHEDULES

PEAK = 0.1


def rates_of(name, total_steps, peaks=(PEAK,)):
    """The rates of each group at each optimizer step."""
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": peak} for peak in peaks]
    optimizer = torch.optim.SGD(groups)
    scheduler = SCHEDULES[name](optimizer, total_steps)
    rates = []
    for _ in range(total_steps):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return rates


def one_rate(name, total_steps):
    return [rate for (rate,) in rates_of(name, total_steps)]


EXACT = 1e-12  # torch's cosine is a recursion: it loses an ulp or so a step


def test_fixed_stays_at_its_rate():
    assert one_rate("fixed", 50) == [PEAK] * 50


def test_the_staircase_is_the_papers_for_cifar10():
    # 0.1, 0.01, 0.001 for 100, 50, 50 epochs; one step an epoch here.
    expected = [PEAK] * 100 + [PEAK / 10] * 50 + [PEAK / 100] * 50
    assert one_rate("staircase", 200) == pytest.approx(expected, rel=EXACT)


def test_the_staircase_of_thirds_is_the_papers_for_imagenet():
    # 0.1, 0.01, 0.001 for 30 epochs each.
    expected = [PEAK] * 30 + [PEAK / 10] * 30 + [PEAK / 100] * 30
    assert one_rate("staircase-thirds", 90) == pytest.approx(expected, rel=EXACT)


def test_cosine_is_half_a_period_from_the_peak_to_zero():
    expected = [PEAK * (1 + math.cos(math.pi * step / 200)) / 2 for step in range(200)]
    assert one_rate("cosine", 200) == pytest.approx(expected, rel=1e-9, abs=PEAK * EXACT)


@pytest.mark.parametrize("total", [200, 201])
def test_knee_holds_the_peak_for_half_of_the_run_and_then_falls_in_a_straight_line_to_zero(total):
    expected = [PEAK if 2 * step <= total else PEAK * 2 * (1 - step / total) for step in range(total)]
    rates = one_rate("knee", total)
    assert rates == pytest.approx(expected, rel=EXACT)
    assert rates[-1] == pytest.approx(PEAK * 2 / total, rel=1e-9)  # the next one would be zero


@pytest.mark.parametrize("name", SCHEDULES)
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
def test_a_run_of_a_single_step_takes_it_at_the_rate_it_was_given(name):
    assert one_rate(name, 1) == [PEAK]
