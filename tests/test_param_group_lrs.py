"""The learning rates of all groups, moved by one factor."""

import json
import math
import re
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autolr.runtime.param_group_lrs import ParamGroupLRs

positive = st.floats(1e-8, 1e2)


def optimizer_with(*lrs):
    return torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in lrs], lr=1.0)


def lrs_of(optimizer):
    return [float(group["lr"]) for group in optimizer.param_groups]


@given(lrs=st.lists(positive, min_size=1, max_size=4), lr=positive)
def test_setting_the_rate_scales_every_group_by_one_factor(lrs, lr):
    optimizer = optimizer_with(*lrs)
    rates = ParamGroupLRs(optimizer)
    assert rates.lr == max(lrs)
    rates.set(lr)
    assert rates.lr == max(lrs_of(optimizer)) == lr
    assert lrs_of(optimizer) == pytest.approx([lr * one / max(lrs) for one in lrs], rel=1e-15)  # one product, rounded


def test_a_group_at_zero_stays_at_zero():
    optimizer = optimizer_with(0.0, 0.1)
    ParamGroupLRs(optimizer).set(0.7)
    assert lrs_of(optimizer) == [0.0, 0.7]


@given(changes=st.lists(positive, min_size=1, max_size=50))
def test_many_changes_do_not_wear_the_ratios_down(changes):
    optimizer = optimizer_with(0.1, 0.03)
    rates = ParamGroupLRs(optimizer)
    for lr in [*changes, 0.1]:
        rates.set(lr)
    assert lrs_of(optimizer) == pytest.approx([0.1, 0.03], rel=1e-15)  # as after one change, and not after fifty


@pytest.mark.parametrize(("others", "ratio"), [(0.05, 1.0), (0.4, 0.25)], ids=["largest", "a quarter"])
def test_a_rate_held_in_a_tensor_is_written_in_place(others, ratio):
    # A compiled or captured step reads this very tensor.
    tensor = torch.tensor(0.1)
    optimizer = optimizer_with(tensor, others)
    rates = ParamGroupLRs(optimizer)
    rates.set(0.2)
    assert optimizer.param_groups[0]["lr"] is tensor
    assert tensor.item() == pytest.approx(0.2 * ratio, rel=2**-23)  # float32, read and written
    assert optimizer.param_groups[1]["lr"] == pytest.approx(0.2 * ratio * others / 0.1, rel=2**-23)
    assert rates.foreign() is None  # its rounding is not somebody else's change


def test_where_nothing_changes_nothing_is_written():
    lr = 0.1
    optimizer = optimizer_with(lr, 1)
    rates = ParamGroupLRs(optimizer)
    before = [group["lr"] for group in optimizer.param_groups]
    rates.set(rates.lr)
    assert all(group["lr"] is old for group, old in zip(optimizer.param_groups, before, strict=True))


def test_a_restored_optimizer_gets_the_rate_that_was_set_even_if_it_is_the_one_last_set():
    # A rollback puts old rates into the groups behind our back.
    optimizer = optimizer_with(0.1, 0.05)
    rates = ParamGroupLRs(optimizer)
    rates.set(0.2)
    for group, old in zip(optimizer.param_groups, (0.1, 0.05), strict=True):
        group["lr"] = old
    rates.set(0.2)
    assert lrs_of(optimizer) == [0.2, 0.1]
    assert rates.foreign() is None


def test_a_rate_that_somebody_else_changed_is_noticed_once_and_adopted():
    optimizer = optimizer_with(0.1, 0.05)
    rates = ParamGroupLRs(optimizer)
    rates.set(0.2)
    assert rates.foreign() is None
    optimizer.param_groups[0]["lr"] = 0.02
    assert rates.foreign() == (0.2, 0.1)
    assert rates.lr == 0.1  # the second group's is the largest now
    assert rates.foreign() is None
    rates.set(0.5)
    assert lrs_of(optimizer) == pytest.approx([0.1, 0.5])  # the ratios that were found


@pytest.mark.parametrize(
    "lrs",
    [(0.0,), (0.0, 0.0), (math.nan,), (0.1, math.nan), (math.inf, 0.1), (0.1, -0.1)],
    ids=["zero", "zeros", "nan", "nan beside a rate", "inf", "negative"],
)
def test_rates_that_cannot_be_scaled_are_refused_with_what_was_got(lrs):
    optimizer = optimizer_with(*[0.1] * len(lrs))
    for group, lr in zip(optimizer.param_groups, lrs, strict=True):
        group["lr"] = lr
    with pytest.raises(ValueError, match="learning rates must be finite") as refused:
        ParamGroupLRs(optimizer)
    assert f"got {list(lrs)}" in str(refused.value)


# A tensor is written into: whole numbers would be cut off to 0, and one with a gradient cannot be written.
@pytest.mark.parametrize("lr", [None, "0.1", True, torch.tensor(1), torch.tensor(0.1, requires_grad=True), 0.1j])
def test_a_group_without_a_rate_is_refused_with_what_was_got(lr):
    optimizer = optimizer_with(0.1, 0.1)
    optimizer.param_groups[1]["lr"] = lr
    with pytest.raises(ValueError, match=f"needs a learning rate to tune; got lr={re.escape(repr(lr))}.*SGD"):
        ParamGroupLRs(optimizer)


@pytest.mark.parametrize("lr", [np.float32(0.25), np.float64(0.25), np.int64(1), Fraction(1, 4), 1])
def test_any_real_number_is_a_rate(lr):
    rates = ParamGroupLRs(optimizer_with(lr, 0.5))
    assert rates.lr == max(0.5, float(lr))
    rates.set(2 * rates.lr)
    assert [group["lr"] for group in rates._optimizer.param_groups] == [2 * float(lr), 1.0]


@pytest.mark.parametrize("lr", [0.0, -1.0, math.nan, math.inf])
def test_no_policy_can_set_a_rate_that_stops_or_breaks_the_run(lr):
    with pytest.raises(ValueError, match="A policy asked for"):
        ParamGroupLRs(optimizer_with(0.1)).set(lr)


@pytest.mark.parametrize("lrs", [(0.1, 0.03), (torch.tensor(0.1), 0.03)], ids=["numbers", "a tensor"])
def test_a_checkpoint_continues_with_the_same_ratios_and_notices_no_stranger(lrs):
    optimizer = optimizer_with(*lrs)
    rates = ParamGroupLRs(optimizer)
    rates.set(0.7)
    saved, saved_base = json.loads(json.dumps(rates.state_dict())), optimizer.state_dict()

    resumed_optimizer = optimizer_with(1.0, 1.0)
    resumed = ParamGroupLRs(resumed_optimizer)
    resumed_optimizer.load_state_dict(saved_base)
    resumed.prepare({"rates": saved})()
    assert resumed.foreign() is None
    assert resumed.lr == rates.lr
    rates.set(0.3)
    resumed.set(0.3)
    assert lrs_of(resumed_optimizer) == lrs_of(optimizer)


def test_who_asks_to_be_told_of_a_foreign_rate_is_and_once():
    optimizer, told = optimizer_with(0.1, 0.05), []
    rates = ParamGroupLRs(optimizer, told=lambda *rates: told.append(rates))
    assert rates.check()
    assert told == []
    optimizer.param_groups[0]["lr"] = 0.02
    assert rates.check()
    assert told == [(0.1, 0.05)]
    assert rates.check()
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    assert not rates.check(), "a rate of 0 cannot be scaled"
    assert told == [(0.1, 0.05), (0.05, 0.0)]


def test_a_new_group_keeps_its_ratio_and_one_that_is_refused_changes_nothing():
    optimizer, told = optimizer_with(0.1), []
    rates = ParamGroupLRs(optimizer, told=lambda *rates: told.append(rates))
    rates.set(0.2)
    kept = rates.state_dict()
    optimizer.add_param_group({"params": [torch.zeros(1, requires_grad=True)], "lr": math.nan})
    with pytest.raises(ValueError, match="learning rates must be finite"):
        rates.regroup()
    assert rates.state_dict() == kept
    optimizer.param_groups[1]["lr"] = 0.05
    rates.regroup()
    rates.set(0.4)
    assert lrs_of(optimizer) == pytest.approx([0.4, 0.1])
    optimizer.param_groups[0]["lr"] = 0.3
    rates.check()
    assert told == [(0.4, 0.3)], "who was to be told still is"
