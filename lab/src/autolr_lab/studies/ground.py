"""What the studies train: a workload's network at a held rate, one step at a time."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from autolr_lab.training.optimizers import OPTIMIZERS
from autolr_lab.workloads import WORKLOADS
from autolr_lab.workloads.workload import loader


@dataclass
class Ground:
    """A seeded training run; ``optimizer`` may be wrapped before the first step."""

    model: nn.Module
    optimizer: Optimizer
    lr: float
    loss: Callable[[nn.Module, Any], Tensor]
    batches: DataLoader[Any]
    endless: Any = field(init=False)

    def __post_init__(self) -> None:
        self.endless = itertools.chain.from_iterable(itertools.repeat(self.batches))

    def train(self, steps: int) -> None:
        """Take so many steps on the next minibatches."""
        for batch in itertools.islice(self.endless, steps):
            self.optimizer.zero_grad()
            self.loss(self.model, batch).backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()


def ground(workload: str, optimizer: str, data_dir: Path | None, seed: int = 0) -> Ground:
    """A workload's network with one of its optimizers, at the workload's rate."""
    chosen = WORKLOADS[workload]
    rate = chosen.rate(optimizer)
    data, _ = chosen.datasets(data_dir)
    torch.manual_seed(seed)
    model = chosen.model()
    batches = loader(data, chosen.batch_size, torch.Generator().manual_seed(seed))
    return Ground(model, OPTIMIZERS[optimizer](model.parameters(), rate), rate, chosen.loss, batches)
