"""One shape for all runs, and the torch scheduler that follows it."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autolr.schedules import PeakSchedule, shape


def optimizer_with(*rates, tensors=False):
    groups = [
        {"params": [torch.nn.Parameter(torch.ones(1))], "lr": torch.tensor(rate) if tensors else rate} for rate in rates
    ]
    return torch.optim.SGD(groups, lr=1.0)


def rates_of(scheduler, steps):
    seen = []
    for _ in range(steps):
        seen.append([float(group["lr"]) for group in scheduler.optimizer.param_groups])
        scheduler.optimizer.step()
        scheduler.step()
    return seen


def test_the_shape_of_a_hundred_steps_step_by_step():
    assert [shape(step, 100) for step in (1, 2, 5)] == pytest.approx([0.2, 0.4, 1.0])  # 5 % of the steps
    assert [shape(step, 100) for step in (6, 30, 50)] == [1.0, 1.0, 1.0]
    assert [shape(step, 100) for step in (51, 75, 100)] == pytest.approx([50 / 51, 26 / 51, 1 / 51])
    assert shape(101, 100) == 0.0


@given(total=st.integers(1, 3000))
def test_every_step_moves_and_half_of_them_at_least_warm_up_or_hold(total):
    factors = [shape(step, total) for step in range(1, total + 1)]
    assert all(0 < factor <= 1 for factor in factors)
    held = max(1, total // 2)
    assert factors[:held] == sorted(factors[:held])
    assert factors[held:] == sorted(factors[held:], reverse=True)


def test_the_scheduler_sets_the_shape_and_keeps_the_ratios_of_the_groups():
    scheduler = PeakSchedule(optimizer_with(0.3, 0.1, 0.0), peak=0.06, total_steps=20)
    for step, rates in enumerate(rates_of(scheduler, 20), start=1):
        assert rates[0] == 0.06 * shape(step, 20)
        assert rates[1] == pytest.approx(rates[0] / 3)
        assert rates[2] == 0.0
    assert rates_of(scheduler, 2) == [[0.0] * 3] * 2


def test_a_rate_that_is_a_tensor_stays_that_tensor():
    optimizer = optimizer_with(0.3, 0.1, tensors=True)
    before = [group["lr"] for group in optimizer.param_groups]
    scheduler = PeakSchedule(optimizer, peak=0.5, total_steps=10)
    assert rates_of(scheduler, 1)[0] == pytest.approx([0.5, 0.5 / 3])
    assert all(group["lr"] is tensor for group, tensor in zip(optimizer.param_groups, before, strict=True))


@pytest.mark.parametrize("at", [0, 1, 7, 15, 19])
def test_a_scheduler_goes_on_from_its_state(at):
    whole = rates_of(PeakSchedule(optimizer_with(0.3, 0.1), peak=0.06, total_steps=20), 20)
    first = PeakSchedule(optimizer_with(0.3, 0.1), peak=0.06, total_steps=20)
    rates_of(first, at)
    second = PeakSchedule(optimizer_with(0.3, 0.1), peak=1.0, total_steps=5)
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    second.load_state_dict(first.state_dict())
    assert rates_of(second, 20 - at) == whole[at:]


@pytest.mark.parametrize(
    ("peak", "steps", "rates"), [(0.0, 10, [1.0]), (-1.0, 10, [1.0]), (0.1, 0, [1.0]), (0.1, 9, [0.0])]
)
def test_what_cannot_be_a_schedule_is_refused(peak, steps, rates):
    with pytest.raises(ValueError, match=r"above 0|at least 1"):
        PeakSchedule(optimizer_with(*rates), peak=peak, total_steps=steps)


@pytest.mark.parametrize(
    ("peak", "steps", "message"),
    [
        ("1", 10, r"peak must be a number above 0; got '1'\. Take Peak\.lr"),
        (True, 10, "peak must be a number"),
        (None, 10, "peak must be a number"),
        (0.1, 2.5, r"total_steps must be a whole number, at least 1; got 2\.5"),
        (0.1, "10", "total_steps must be a whole number"),
    ],
)
def test_what_is_no_number_is_refused_by_name(peak, steps, message):
    optimizer = optimizer_with(1.0)
    with pytest.raises(TypeError, match=message):
        PeakSchedule(optimizer, peak=peak, total_steps=steps)
    assert "initial_lr" not in optimizer.param_groups[0]


def test_numpy_s_numbers_and_fractions_are_numbers():
    whole = rates_of(PeakSchedule(optimizer_with(0.3), peak=0.5, total_steps=20), 20)
    for peak in (np.float32(0.5), np.float64(0.5), Fraction(1, 2)):
        assert rates_of(PeakSchedule(optimizer_with(0.3), peak=peak, total_steps=np.int64(20)), 20) == whole
