"""A rollback and a search put back all of an optimizer: what lies within it, its own numbers, objects in its state."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

import autolr
from autolr.measure.optimizer_parts import plain_attributes
from autolr.measure.snapshot import Snapshot
from autolr.measure.whole_state import everything_kept
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


class Lookahead(SGD):
    """Keeps slow weights under a name of its own, numbers of each step, losses with their graphs, and views."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, lr=0.02, momentum=0.5)
        self._slow = [p.detach().clone() for p in self.param_groups[0]["params"]]
        self._views = tuple(p.detach().view(-1) for p in self.param_groups[0]["params"])
        self._count, self._norms = 0, {"all": torch.zeros(())}
        self._graphs: list[torch.Tensor] = []

    def step(self, _: Any = None) -> None:  # type: ignore[override]
        super().step()
        self._count += 1
        self._graphs = [self._views[0].clone().requires_grad_().sum()]
        with torch.no_grad():
            self._norms["all"].mul_(0.5).add_(sum(view.norm() for view in self._views))
            for p, slow, view in zip(self.param_groups[0]["params"], self._slow, self._views, strict=True):
                view.mul_(1 + 1e-3 * self._norms["all"] + 1e-5 * self._count)
                if self._count % 3 == 0:
                    p.copy_(slow.lerp_(p, 0.5))


KINDS = [Around, WithObjects, Lookahead]


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
    assert goes_back(model, optimizer, at)
    assert (optimizer.count, optimizer.seen) == (12, [float(i) for i in range(13)])


def goes_back(model: nn.Module, optimizer: Any, at: int) -> bool:
    """Whether the steps from ``at`` on are the same once more after a rollback through a file, and not without one."""
    train(model, optimizer, 0, at)
    snapshot = Snapshot.capture(model, optimizer)
    file = io.BytesIO()
    torch.save(snapshot.state_dict(), file)
    file.seek(0)
    again = Snapshot.from_state_dict(torch.load(file, weights_only=True))
    once = train(model, optimizer, at, 12)
    assert train(model, optimizer, at, 12) != once
    again.restore(model, optimizer)
    return train(model, optimizer, at, 12) == once


@pytest.mark.parametrize("at", [0, 4])
def test_a_rollback_goes_back_in_attributes_of_any_name_in_the_memory_that_others_know(at: int):
    model, optimizer = begun(Lookahead)
    slow, norms = optimizer._slow[0], optimizer._norms
    assert goes_back(model, optimizer, at)
    assert optimizer._slow[0] is slow
    assert optimizer._norms is norms
    assert all(p.data_ptr() == view.data_ptr() for p, view in zip(model.parameters(), optimizer._views, strict=True))


def test_of_an_optimizers_attributes_torchs_own_are_left_alone():
    _, optimizer = begun(Lookahead)
    assert set(plain_attributes(optimizer)) == {"_slow", "_views", "_count", "_norms", "_graphs"}
    assert plain_attributes(begun(AdamW)[1]) == {}


def test_one_tensor_that_stands_twice_in_a_list_gets_two_values_back():
    model, optimizer = begun(SGD)
    optimizer._pair = [torch.zeros(2), torch.ones(2)]
    snapshot = Snapshot.capture(model, optimizer)
    optimizer._pair = [torch.full((2,), 3.0)] * 2
    snapshot.restore(model, optimizer)
    assert [value.tolist() for value in optimizer._pair] == [[0.0, 0.0], [1.0, 1.0]]


def test_a_list_with_gaps_is_written_in_the_memory_that_others_know():
    model, optimizer = begun(SGD)
    optimizer._slots = [torch.ones(3), None, None]
    view, snapshot = optimizer._slots[0][:2], Snapshot.capture(model, optimizer)
    optimizer._slots[0].zero_()
    snapshot.restore(model, optimizer)
    assert view.tolist() == [1.0, 1.0]


def test_a_mark_that_stands_for_something_that_is_not_rolled_back_stays_with_it():
    model, optimizer = begun(SGD)
    optimizer._hook, optimizer._note = None, None
    snapshot = Snapshot.capture(model, optimizer)
    optimizer._hook = optimizer.register_step_post_hook(lambda *_: None)
    optimizer._note = 3
    snapshot.restore(model, optimizer)
    assert optimizer._hook is not None, "it would be registered once more"
    assert optimizer._note is None


# Sparse gradients
class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(40, 2, sparse=True, mode="sum")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bag((x[:, :4].abs() * 12).long().clamp(max=39))


def sparse(_: Any = None) -> tuple[nn.Module, Any]:
    seed_everything(0)
    model = Words()
    return model, SGD(model.parameters(), lr=0.05, momentum=0.9)


@pytest.mark.filterwarnings("ignore:No rate is expected")
@pytest.mark.parametrize("at", [0, 1, 4])
def test_the_momentum_of_sparse_gradients_is_put_back_after_a_search(at: int):
    alone = train(*sparse(), 0, 12)
    model, optimizer = sparse()
    train(model, optimizer, 0, at)
    autolr.find_peak(model, optimizer, cross_entropy, BATCHES_OF_LINES, 300)
    assert train(model, optimizer, at, 12) == alone[at:]


@pytest.mark.parametrize("at", [0, 1, 4])
def test_a_rollback_goes_back_in_the_momentum_of_sparse_gradients(at: int):
    assert goes_back(*sparse(), at)


def test_a_sparse_gradient_and_a_sparse_tensor_in_an_attribute_are_put_back():
    model, optimizer = sparse()
    model.links = torch.eye(3).to_sparse()
    cross_entropy(model, BATCHES_OF_LINES[0]).backward()
    gradient, links = model.bag.weight.grad, model.links
    before = gradient.clone()
    with everything_kept(model, optimizer):
        gradient.add_(gradient.clone()).mul_(2)
        links.add_(torch.ones(3, 3).to_sparse())
    assert model.bag.weight.grad is gradient
    assert gradient.is_coalesced() == before.is_coalesced()
    assert torch.equal(gradient._indices(), before._indices())
    assert torch.equal(gradient._values(), before._values())
    assert model.links is links
    assert torch.equal(links.to_dense(), torch.eye(3))


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
