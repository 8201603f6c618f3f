"""AutoLR is the base optimizer seen from outside."""

import copy
import warnings

import torch
import torch.nn.functional as F
from torch import nn

import autolr

DATA = [(torch.randn(8, 4, generator=torch.Generator().manual_seed(i)), torch.arange(8) % 3) for i in range(6)]


def loss_fn(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1])


def tuned(**settings):
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    settings = {"window": 4, "superbatch": 3, "policy": autolr.Paper(spread=2)} | settings
    return model, autolr.AutoLR(base, model, loss_fn, DATA, 40, **settings)


def train(model, optimizer, steps):
    for i in range(steps):
        optimizer.zero_grad()
        loss_fn(model, DATA[i % len(DATA)]).backward()
        optimizer.step()
    return [p.detach().clone() for p in model.parameters()]


def test_a_copy_of_model_and_optimizer_goes_on_by_itself_as_the_original_does():
    model, optimizer = tuned()
    train(model, optimizer, 9)  # in the middle of a look
    before = [p.detach().clone() for p in model.parameters()]
    twin_model, twin = copy.deepcopy((model, optimizer))
    ahead = train(twin_model, twin, 15)
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))
    assert all(torch.equal(p, a) for p, a in zip(train(model, optimizer, 15), ahead, strict=True))
    assert twin.history == optimizer.history
    assert twin.base is not optimizer.base


def test_groups_and_state_that_a_trainer_assigns_are_the_bases():
    _, optimizer = tuned()
    groups, state = list(optimizer.base.param_groups), dict(optimizer.base.state)
    optimizer.param_groups, optimizer.state = groups, state
    assert optimizer.base.param_groups is groups is optimizer.param_groups
    assert optimizer.base.state is state is optimizer.state


def test_a_scaler_is_not_told_that_the_step_can_unscale():
    model = nn.Linear(4, 3)
    base = torch.optim.Adam(model.parameters(), lr=0.1, fused=True)
    assert base._step_supports_amp_scaling
    optimizer = autolr.AutoLR(base, model, loss_fn, DATA, 40)
    assert not getattr(optimizer, "_step_supports_amp_scaling", False)


def test_a_warning_points_at_the_line_of_the_user():
    model, optimizer = tuned()
    train(model, optimizer, 40)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(model, optimizer, 1)
    assert [warning.filename for warning in caught] == [__file__]
