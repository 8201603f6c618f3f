"""A search that is paid out of the run: its rate comes to zero with the last step that the budget pays."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from autolr import AutoLR
from autolr.numerics.cost import FORWARDS_PER_STEP
from autolr_lab.benchmark.zoo_methods import is_paid_out
from autolr_lab.training.paid_search import PaidPeakSearch, steps_after
from autolr_lab.training.stepper import Tuned
from helpers import seed_everything


def squared(model, batch):
    return F.mse_loss(model(batch[0]), batch[1])


@pytest.mark.parametrize("peak", [None, 0.05])
def test_the_rate_comes_to_zero_where_the_budget_ends(peak):
    total = 400
    seed_everything(0)
    x = torch.randn(640, 6)
    batches = list(zip(x.split(16), (x @ torch.randn(6, 4)).tanh().split(16), strict=True))
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 4))
    base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    optimizer = AutoLR(base, model, squared, batches, total, policy=PaidPeakSearch(peak=peak))
    stepper, rates = Tuned(optimizer), []
    while FORWARDS_PER_STEP * (len(rates) + 1) + stepper.forwards <= FORWARDS_PER_STEP * total:
        optimizer.zero_grad()
        squared(model, batches[len(rates) % len(batches)]).backward()
        optimizer.step()
        rates.append(stepper.rate)
    left = steps_after(optimizer.cost.search, total)
    assert 0 <= len(rates) - left <= 10  # of 400: what was laid by for checks is a little more than they cost
    assert rates[-1] < 0.01 * max(rates)
    assert rates[left // 2 + left // 4] == pytest.approx(max(rates) / 2, rel=0.1)
    assert sum(rate == max(rates) for rate in rates) == pytest.approx(0.45 * left, rel=0.1)


def test_steps_that_a_rollback_undid_are_paid_once():
    """They are steps of the loop, and the account of what AutoLR cost has them too."""
    total = 400
    seed_everything(0)
    x = torch.randn(640, 6)
    batches = list(zip(x.split(16), (x @ torch.randn(6, 4)).split(16), strict=True))
    model = nn.Linear(6, 4)
    optimizer = AutoLR(
        torch.optim.SGD(model.parameters(), lr=0.1), model, squared, batches, total, policy=PaidPeakSearch(peak=0.05)
    )
    stepper, rates = Tuned(optimizer), []
    with pytest.warns(UserWarning, match="rolled back"):
        while not is_paid_out(stepper, total):
            optimizer.zero_grad()
            squared(model, batches[len(rates) % len(batches)]).backward()
            if len(rates) == 120:
                model.weight.grad.fill_(float("nan"))
            optimizer.step()
            rates.append(stepper.rate)
    assert optimizer.cost.discarded_steps > 50
    spent = FORWARDS_PER_STEP * len(rates) + stepper.forwards
    assert 0.98 * FORWARDS_PER_STEP * total < spent <= FORWARDS_PER_STEP * total
    assert rates[-1] < 0.02 * max(rates)


def test_what_is_laid_by_is_spent_when_the_run_is_over():
    assert steps_after(0, 1000) == 985
    assert steps_after(45, 1000, done=1000) == 985
    assert steps_after(0, 100) == 91
    assert steps_after(1e9, 10) == 1
