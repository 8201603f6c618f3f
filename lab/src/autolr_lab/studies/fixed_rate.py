"""The ground that the experiments look at: Fashion-MNIST's network of the paper, trained one step at a time."""

from __future__ import annotations

import itertools
from pathlib import Path

import torch
from torch.optim import Optimizer

from autolr_lab.training.optimizers import OPTIMIZERS
from autolr_lab.workloads import WORKLOADS
from autolr_lab.workloads.workload import loader


class FixedRate:
    """A seeded training run at the rate it is given; ``optimizer`` may be wrapped before the first step."""

    def __init__(self, optimizer: str, data_dir: Path, seed: int = 0, lr: float | None = None) -> None:
        self.workload = WORKLOADS["fashion-mnist"]
        self.lr = self.workload.rate(optimizer) if lr is None else lr
        train, _ = self.workload.datasets(data_dir)
        torch.manual_seed(seed)
        self.model = self.workload.model()
        self.optimizer: Optimizer = OPTIMIZERS[optimizer](self.model.parameters(), self.lr)
        self.batches = loader(train, self.workload.batch_size, torch.Generator().manual_seed(seed))
        self._endless = itertools.chain.from_iterable(itertools.repeat(self.batches))

    def train(self, steps: int) -> None:
        """Take so many steps on the next minibatches."""
        for batch in itertools.islice(self._endless, steps):
            self.optimizer.zero_grad()
            self.workload.loss(self.model, batch).backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
