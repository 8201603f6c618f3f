"""A situation in which a learning rate went wrong, or the run did: what is trained, how, and what counts in the end."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import autolr

MOMENTUM = 0.9
STUCK = 1000  # minibatches left out in one run


@dataclass
class Setup:
    """One seed's model and data. ``error`` is what counts in the end; lower is better."""

    model: nn.Module
    data: Iterable[Any]
    loss: Callable[[nn.Module, Any], Tensor]
    error: Callable[[], float]
    events: dict[int, Callable[[], object]] = field(default_factory=dict)  # before the step of that number
    after: Callable[[], object] = lambda: None  # after each step, whoever sets the rate
    skips: bool = True  # whether the loop leaves out minibatches whose loss is not finite


Loop = Callable[[Setup, Optimizer, Callable[[], object], int], None]  # (setup, optimizer, after each step, steps)


def train(setup: Setup, optimizer: Optimizer, after: Callable[[], object], steps: int) -> None:
    """As everybody does."""
    taken = skipped = 0
    for batch in endless(setup.data):
        if taken == steps:
            return
        setup.events.pop(taken, lambda: None)()
        optimizer.zero_grad()
        loss = setup.loss(setup.model, batch)
        if setup.skips and not torch.isfinite(loss):
            skipped += 1
            if skipped == STUCK:
                raise RuntimeError(f"{STUCK} minibatches without a finite loss after {taken} steps.")
            continue
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        setup.after()
        after()
        taken += 1


@dataclass(frozen=True)
class Case:
    """A situation, with the rates that people set there by hand."""

    name: str
    make: Callable[[int], Setup]  # for so many steps; seeded before the call
    optimizer: Callable[[Any, float], Optimizer]
    cosine: float  # [lr] its peak, set by hand
    fixed: float  # [lr] customary
    steps: int
    measure: str
    loop: Loop = train
    policy: autolr.policies.Policy | None = None


def adam(parameters: Any, lr: float) -> Optimizer:
    """With its usual settings."""
    return torch.optim.Adam(parameters, lr)


def momentum(parameters: Any, lr: float) -> Optimizer:
    """SGD."""
    return torch.optim.SGD(parameters, lr, momentum=MOMENTUM)


def endless(data: Iterable[Any]) -> Iterator[Any]:
    """Pass after pass."""
    return itertools.chain.from_iterable(itertools.repeat(data))


def seed_everything(seed: int) -> None:
    """All generators that a case draws from."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - some cases' loops draw from it
    torch.manual_seed(seed)


def cosine(optimizer: Optimizer, steps: int) -> torch.optim.lr_scheduler.LambdaLR:
    """Warm-up over a twentieth of the steps, then half a cosine to zero."""
    warm = max(1, steps // 20)
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda t: min(1, (t + 1) / warm) * 0.5 * (1 + math.cos(math.pi * min(1, t / steps)))
    )
