"""An exception at any line of a probe or a search, as Ctrl-C raises it, leaves nothing behind: to the bit."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from interrupts import count, differences, everything, interrupt
from torch import nn

import autolr
from autolr.measure.probe import Probe
from autolr.measure.step_line import StepLine
from autolr.measure.superbatch import Superbatches

SHARE = int(os.environ.get("AUTOLR_TORTURE_SHARE", "1"))  # every so manieth line
Call = Callable[[], Any]


class Net(nn.Module):
    """With all that a probe has to put back: buffers, a mask, numbers and lists in attributes, numpy's randomness."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.3), nn.Linear(6, 2))
        self.calls, self.seen = 0, [0.0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.seen.append(float(np.random.rand()) + random.random())  # noqa: NPY002
        return self.layers(x)


def loss_fn(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def made() -> tuple[Net, torch.optim.Optimizer, list[Any]]:
    """A model and optimizer some steps on."""
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    random.seed(0)
    model = Net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    batches = [(torch.randn(5, 4), torch.randint(0, 2, (5,))) for _ in range(6)]
    for batch in batches[:2]:
        optimizer.zero_grad()
        loss_fn(model, batch).backward()
        optimizer.step()
    return model, optimizer, batches


def probing(kind: str) -> tuple[Call, Call]:
    """What is interrupted, and what tells all that must be as it was."""
    model, optimizer, batches = made()
    probe = Probe(model, loss_fn, Superbatches(batches, 1, 0))
    if kind != "check":
        probe.check()
    line = StepLine(list(model.parameters()))
    optimizer.step()
    calls: dict[str, Call] = {
        "check": probe.check,
        "here": lambda: probe.here(3, 2),
        "along": lambda: probe.along(line, (-1.0, -0.5, 0.0, 0.5), 3, 2),
    }
    return calls[kind], lambda: [*everything(model, optimizer), model.calls, list(model.seen)]


def searching() -> tuple[Call, Call]:
    model, optimizer, batches = made()

    def call() -> Any:
        return autolr.find_peak(model, optimizer, loss_fn, batches, 24, progress=False)

    return call, lambda: [*everything(model, optimizer), model.calls, list(model.seen)]


def broken(make: Callable[[], tuple[Call, Call]], every: int) -> tuple[int, list[str]]:
    """How many lines were interrupted, and at which of them something was left behind."""
    total, found, done = count(lambda: make()[0]), [], 0
    for at in range(1, total + 1, every):
        call, told = make()
        before = told()
        tracer = interrupt(call, at)
        done += bool(tracer.where)
        if places := differences(before, told()):
            found.append(f"line {at} of {total}, {tracer.where}: {places}")
        torch.set_grad_enabled(True)
        torch.set_autocast_cache_enabled(True)
    return done, found


@pytest.mark.torture
# What is raised where Python closes a generator that nobody holds any more, Python drops.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", ["check", "here", "along"])
def test_a_probe_interrupted_at_any_line_leaves_nothing_behind(kind: str, record_property: Any) -> None:
    done, found = broken(lambda: probing(kind), SHARE)
    record_property("interrupts", done)
    assert done > 500 / SHARE
    assert not found, f"{len(found)} of {done}: " + "; ".join(found[:5])


@pytest.mark.torture
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_search_interrupted_at_any_line_leaves_nothing_behind(record_property: Any) -> None:
    done, found = broken(searching, 41 * SHARE)
    record_property("interrupts", done)
    assert done > 500 / SHARE
    assert not found, f"{len(found)} of {done}: " + "; ".join(found[:5])
