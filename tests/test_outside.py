"""Modules outside the model, which user's functions reach: found, and left as they were."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import autolr
from autolr.measure.outside import modules_behind, outside, step_hooks
from autolr.measure.whole_state import EverythingKept
from training_runs import seed_everything

GLOBAL = nn.BatchNorm1d(3)


def by_global(model, batch):
    return GLOBAL(model(batch))


def helper(x):
    return GLOBAL(x)


def by_helper(model, batch):
    return helper(model(batch))


def by_nested(model, batch):
    def inner():
        return GLOBAL(model(batch))

    return inner()


def by_default(model, batch, norm=GLOBAL):
    return norm(model(batch))


def by_closure(norm):
    return lambda model, batch: norm(model(batch))


class Task:
    def __init__(self):
        self.norm, self.steps = GLOBAL, 0

    def loss(self, model, batch):
        return self.norm(model(batch))

    def __call__(self, model, batch):
        return self.loss(model, batch)


@pytest.mark.parametrize(
    "function",
    [
        by_global, by_helper, by_nested, by_default, by_closure(GLOBAL), by_closure([GLOBAL]), Task().loss, Task(),
        functools.partial(by_default, norm=GLOBAL), functools.partial(Task().loss), GLOBAL, GLOBAL.forward,
    ],
    ids=lambda function: getattr(function, "__qualname__", type(function).__name__),
)  # fmt: skip
def test_a_module_is_found_wherever_python_keeps_it(function):
    assert any(module is GLOBAL for module in modules_behind(function))


def test_what_is_the_model_s_and_what_nobody_names_is_not():
    model = nn.Sequential(nn.Linear(3, 3), GLOBAL)
    assert list(outside(model, by_global).held) == []
    assert list(outside(model, F.mse_loss, None, print).held) == []
    assert list(outside(nn.Linear(3, 3), by_global).held) == [GLOBAL]


class RunningMean(nn.Module):
    """A criterion that counts: the loss is over a running mean of itself."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.tensor(1.0))
        self.calls, self.last = 0, torch.zeros(3)

    def forward(self, out, target):
        loss = F.mse_loss(out, target)
        self.mean.lerp_(loss.detach(), 0.1)
        self.calls, self.last = self.calls + 1, out[0, :3].detach()
        return loss / self.mean


def training(steps=40):
    seed_everything(0)
    x = torch.randn(640, 6)
    batches = list(zip(x.split(16), (x @ torch.randn(6, 4)).split(16), strict=True))
    model, criterion = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 4)), RunningMean()
    return model, criterion, batches, lambda m, batch: criterion(m(batch[0]), batch[1]), steps


def trained(wrap):
    model, criterion, batches, loss_fn, steps = training()
    optimizer = wrap(torch.optim.AdamW(model.parameters(), lr=0.01), model, loss_fn, batches, steps)
    for batch in batches[:steps]:
        optimizer.zero_grad()
        loss_fn(model, batch).backward()
        optimizer.step()
    return [*model.parameters(), criterion.mean, torch.tensor(criterion.calls), criterion.last]


def searched(base, model, *parts):
    autolr.find_peak(model, base, *parts)
    return base


@pytest.mark.parametrize(
    "wrap",
    [
        lambda *parts: autolr.AutoLR(*parts, policy=autolr.Monitor(window=4, superbatch=3)),
        searched,
    ],
    ids=["Monitor", "find_peak"],
)
def test_a_criterion_s_buffers_and_counts_are_those_of_training_alone(wrap):
    bare = trained(lambda base, *_: base)
    for mine, alone in zip(trained(wrap), bare, strict=True):
        assert torch.equal(mine, alone)


def averaged(model):
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))


def test_an_average_that_a_hook_moves_sees_training_s_own_steps_only():
    model, _, batches, loss_fn, steps = training()
    average, base = averaged(model), torch.optim.AdamW(model.parameters(), lr=0.01)
    base.register_step_post_hook(lambda *_: average.update_parameters(model))
    assert len(step_hooks(base)) == 1
    before = copy.deepcopy(average.state_dict())
    autolr.find_peak(model, base, loss_fn, batches, steps)
    assert all(torch.equal(value, average.state_dict()[name]) for name, value in before.items())
    optimizer = autolr.AutoLR(base, model, loss_fn, batches, steps)
    for batch in batches[:steps]:
        optimizer.zero_grad()
        loss_fn(model, batch).backward()
        optimizer.step()
    assert int(average.n_averaged) == steps


def test_so_does_one_that_a_train_step_moves_without_being_named():
    model, _, batches, loss_fn, steps = training()
    average, optimizer = averaged(model), torch.optim.AdamW(model.parameters(), lr=0.01)

    def train_step(batch):
        optimizer.zero_grad()
        loss_fn(model, batch).backward()
        optimizer.step()
        average.update_parameters(model)

    before = copy.deepcopy(average.state_dict())
    autolr.find_peak(model, optimizer, loss_fn, batches, steps, train_step=train_step)
    assert all(torch.equal(value, average.state_dict()[name]) for name, value in before.items())


def test_what_is_larger_than_the_model_is_taken_for_frozen_and_not_copied():
    model, teacher = nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 64), nn.BatchNorm1d(64))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def train_step(batch):
        return teacher(batch)

    weight = teacher[0].weight
    kept = EverythingKept(model, optimizer, train_step=train_step)
    kept.begin()
    with torch.no_grad():
        weight.add_(1.0)
    train_step(torch.randn(8, 4))
    moved = weight.detach().clone()
    kept.back()
    assert torch.equal(weight, moved)
    assert int(teacher[1].num_batches_tracked) == 0
