"""A loss that refuses corrupt samples, which a loop catches and skips: a search skips them too, and no mistake."""

from __future__ import annotations

import contextlib

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import autolr
from autolr.measure.judges import Judges


def data(corrupt, minibatches=60):
    x = torch.randn(minibatches, 16, 8, generator=torch.Generator().manual_seed(1))
    x[list(corrupt), 0, 0] = torch.nan
    return [(x, x[:, 1:4].argmax(1)) for x in x]


def loss_fn(model, batch):
    if batch[0].isnan().any():
        raise ValueError("corrupt sample")
    return F.cross_entropy(model(batch[0]), batch[1])


def left_out(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1])


def make():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def find(loss, batches, **settings):
    model, optimizer = make()
    return autolr.find_peak(model, optimizer, loss, batches, 600, **settings)


def test_samples_that_are_refused_are_skipped_as_nan_is():
    batches = data({3, 17, 30, 45, 59})
    refused, nan = find(loss_fn, batches), find(left_out, batches)
    assert [(run.lr, run.length, run.losses) for run in refused.runs] == [
        (run.lr, run.length, run.losses) for run in nan.runs
    ]
    assert refused.lr == nan.lr
    assert refused.notes == nan.notes


@pytest.mark.long
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "policy",
    [autolr.PeakSearch(), autolr.PeakSearch(peak=0.3), autolr.Monitor(window=5, superbatch=10)],
    ids=["search", "guard", "look"],
)
def test_a_loop_that_skips_them_trains(policy, seed):
    batches = data({3, 17, 30, 45, 59})
    model, base = make()
    optimizer = autolr.AutoLR(base, model, loss_fn, batches, 10 * 55, policy=policy, seed=seed)
    for batch in batches * 10:
        with contextlib.suppress(ValueError):
            optimizer.zero_grad()
            loss_fn(model, batch).backward()
            optimizer.step()
    assert optimizer.steps_taken == 10 * 55
    assert optimizer.history
    assert float(loss_fn(model, batches[0]).detach()) < 0.3


@pytest.mark.parametrize("error", [ValueError, RuntimeError, ZeroDivisionError])
def test_a_mistake_on_every_minibatch_is_raised_as_it_is(error):
    def mistaken(model, batch):
        raise error("mat1 and mat2")

    with pytest.raises(error, match=r"^mat1 and mat2$"):
        find(mistaken, data(set()))


def test_a_mistake_in_training_alone_is_raised_as_it_is():
    calls = []

    def mistaken(model, batch):
        if torch.is_grad_enabled():
            calls.append(batch)
            raise ValueError("only in training")
        return left_out(model, batch)

    with pytest.raises(ValueError, match="only in training"):
        find(mistaken, data(set()))
    assert len(calls) < 8


def test_a_step_that_refuses_ever_after_is_raised():
    model, optimizer = make()
    calls = []

    def train_step(batch):
        calls.append(batch)
        if len(calls) > 10:
            raise ValueError("out of calls")
        optimizer.zero_grad()
        loss_fn(model, batch).backward()
        optimizer.step()

    with pytest.raises(ValueError, match="out of calls"):
        autolr.find_peak(model, optimizer, loss_fn, data(set()), 600, train_step=train_step)


def test_a_train_step_s_refused_samples_are_skipped():
    model, optimizer = make()

    def train_step(batch):
        optimizer.zero_grad()
        loss_fn(model, batch).backward()
        optimizer.step()

    batches = data({3, 17, 30, 45, 59})
    found = autolr.find_peak(model, optimizer, loss_fn, batches, 600, train_step=train_step)
    assert not found.runs[0].diverged


def test_those_that_are_refused_at_the_start_judge_nothing_later():
    model, _ = make()
    judges = Judges(model, loss_fn, data({1, 2}, 4), 4, 1, seed=0)
    assert judges.left_out == 2
    assert judges.losses() == judges.start
    assert len(judges.first_losses()) == 1


def test_a_mistake_is_raised_as_it_is_at_construction():
    def mistaken(model, batch):
        raise ValueError("mat1 and mat2")

    model, base = make()
    with pytest.raises(ValueError, match="mat1 and mat2"):
        autolr.AutoLR(base, model, mistaken, data(set()), 100)
