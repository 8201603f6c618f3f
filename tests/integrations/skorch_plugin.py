"""A pytest plugin: skorch's nets train by an AutoLR that only watches."""

from __future__ import annotations

import sys
import types
from typing import Any

import torch
from skorch import NeuralNet

import autolr

# skorch's tests repeat some by this package; here they run once.
sys.modules["flaky"] = types.ModuleType("flaky")
sys.modules["flaky"].flaky = lambda *a, **_: a[0] if a and callable(a[0]) else lambda test: test

bare = NeuralNet.initialize_optimizer
wrapped: list[str] = []


def loss(model: Any, batch: Any) -> torch.Tensor:
    """Of any module, on no data."""
    return sum((p.float().square().mean() for p in model.parameters()), torch.zeros(()))


def initialize_optimizer(net: NeuralNet, *args: Any, **kwargs: Any) -> Any:
    result, optimizer = bare(net, *args, **kwargs), net.optimizer_
    held = [p for group in optimizer.param_groups for p in group["params"]]
    own = set(map(id, net.module_.parameters()))
    moves = any(group["lr"] for group in optimizer.param_groups)  # a rate of 0 cannot be scaled, and is refused
    if moves and type(optimizer) in {torch.optim.SGD, torch.optim.Adam} and all(id(p) in own for p in held):
        policy = autolr.Monitor(window=2, superbatch=1)
        net.optimizer_ = autolr.AutoLR(optimizer, net.module_, loss, [0], 10**6, policy=policy)
        wrapped.append(type(optimizer).__name__)
    return result


NeuralNet.initialize_optimizer = initialize_optimizer


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.write_line(f"wrapped {len(wrapped)} optimizers")
