"""A rollback and a search put back all of an optimizer: what lies within it, its own numbers, objects in its state."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

import autolr
from autolr.measure.snapshot import Snapshot
from training_runs import BATCHES_OF_LINES, cross_entropy, seed_everything


class Around(Optimizer):
    """Wraps AdamW, whose state is its own and not this one's, and moves a slow copy of the weights after it."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(list(parameters), {"lr": 0.02})
        self.inner = AdamW(self.param_groups, lr=0.02)
        self.count, self.seen = 0, [0.0]

    def step(self, _: Any = None) -> None:  # type: ignore[override]
        self.count += 1
        self.seen.append(float(self.count))
        self.inner.step()
        self.state["slow"] = self.state.get("slow", 0.0) + self.count
        with torch.no_grad():
            for p in self.param_groups[0]["params"]:
                p.mul_(1 + 1e-3 * self.count + 1e-5 * self.state["slow"])


class Helper:
    """Neither a number nor a tensor."""

    def __init__(self) -> None:
        self.mean, self.calls = torch.zeros(()), 0


class WithObjects(SGD):
    """Keeps an object in its state, as Shampoo does, and another in an attribute."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, lr=0.02)
        self.warm = Helper()

    def step(self, _: Any = None) -> None:  # type: ignore[override]
        self.warm.calls += 1
        for p in self.param_groups[0]["params"]:
            helper = self.state[p].setdefault("helper", Helper())
            helper.calls += 1
            helper.mean.lerp_(p.grad.mean(), 0.5)
            p.grad.mul_(1 + 0.1 * helper.calls + helper.mean + 0.01 * self.warm.calls)
        super().step()


KINDS = [Around, WithObjects]


def begun(kind: Any) -> tuple[nn.Module, Any]:
    seed_everything(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
    return model, kind(model.parameters())


def train(model: nn.Module, optimizer: Any, first: int, last: int) -> list[float]:
    losses = []
    for step in range(first, last):
        optimizer.zero_grad()
        loss = cross_entropy(model, BATCHES_OF_LINES[step % len(BATCHES_OF_LINES)])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at", [0, 4])
def test_a_search_leaves_nothing_in_any_part_of_an_optimizer(kind: Any, at: int):
    alone = train(*begun(kind), 0, 12)
    model, optimizer = begun(kind)
    train(model, optimizer, 0, at)
    autolr.find_peak(model, optimizer, cross_entropy, BATCHES_OF_LINES, 300)
    assert train(model, optimizer, at, 12) == alone[at:]


@pytest.mark.parametrize("at", [0, 4])
def test_a_rollback_goes_back_in_optimizers_within_and_in_an_optimizers_own_numbers(at: int):
    model, optimizer = begun(Around)
    train(model, optimizer, 0, at)
    snapshot = Snapshot.capture(model, optimizer)
    again = Snapshot.from_state_dict(copy.deepcopy(snapshot.state_dict()))  # as a checkpoint has it
    once = train(model, optimizer, at, 12)
    again.restore(model, optimizer)
    assert (optimizer.count, optimizer.seen) == (at, [float(i) for i in range(at + 1)])
    assert train(model, optimizer, at, 12) == once


def test_the_state_of_several_optimizers_together_is_kept_once():
    model, _ = begun(AdamW)
    first, *others = model.parameters()
    optimizer = autolr.AutoLR(
        [AdamW([first], lr=0.02), AdamW(others, lr=0.01)], model, cross_entropy, BATCHES_OF_LINES, 12,
        policy=autolr.Monitor(),
    )  # fmt: skip
    train(model, optimizer, 0, 2)
    snapshot = Snapshot.capture(model, optimizer.base)
    assert all(snapshot.state)
    assert [part["state"] for part in snapshot.rest] == [[], [], []]
