"""What the studies train: four networks of the workloads, one step at a time."""

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
from autolr_lab.workloads.cifar10 import Images
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


def ground(
    workload: str, optimizer: str, data_dir: Path | None, *, lr: float | None = None, batch: int | None = None,
    seed: int = 0, images: int | None = None,
) -> Ground:  # fmt: skip
    """A workload's network with one of its optimizers.

    Args:
        workload: its name.
        optimizer: its name.
        data_dir: where the data lies.
        lr: held; None for the workload's own.
        batch: examples in a minibatch; None for the workload's.
        seed: of the weights and of the order.
        images: the first so many of the training set alone, not augmented.
    """
    chosen = WORKLOADS[workload]
    rate = chosen.rate(optimizer) if lr is None else lr
    data, _ = chosen.datasets(data_dir)
    if images is not None:
        data = Images(data.tensors[0][:images], data.tensors[1][:images], augment=False)
    torch.manual_seed(seed)
    model = chosen.model()
    batches = loader(data, batch or chosen.batch_size, torch.Generator().manual_seed(seed))
    return Ground(model, OPTIMIZERS[optimizer](model.parameters(), rate), rate, chosen.loss, batches)


GROUNDS: dict[str, Callable[[Path | None], Ground]] = {
    "Fashion-MNIST CNN, batch 64": lambda data: ground("fashion-mnist", "momentum", data, lr=0.01),
    # Timing only: nothing on so few images is accuracy.
    "CIFAR-10 ResNet-18, batch 32": lambda data: ground("cifar10", "momentum", data, lr=0.01, batch=32, images=1000),
    "Shakespeare GPT, batch 16": lambda data: ground("shakespeare", "adamw", data, lr=1e-3, batch=16),
}
