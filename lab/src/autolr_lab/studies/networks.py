"""Three networks of the workloads to measure the price of looks on: the paper's CNN, a ResNet-18 and a small GPT."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, TensorDataset

from autolr_lab.training.optimizers import OPTIMIZERS
from autolr_lab.workloads import WORKLOADS
from autolr_lab.workloads.cifar10 import Images, read_sheet
from autolr_lab.workloads.workload import Workload, loader
from autolr_lab.studies.fixed_rate import FixedRate


@dataclass(frozen=True)
class Ground:
    """Something to train."""

    model: nn.Module
    optimizer: Optimizer
    loss: Callable[[nn.Module, Any], Tensor]
    batches: DataLoader[Any]


def ground(workload: Workload, data: TensorDataset, optimizer: str, lr: float, batch: int) -> Ground:
    """A workload's network, seeded, with an optimizer and a size of minibatch of the benchmark's."""
    torch.manual_seed(0)
    model = workload.model()
    batches = loader(data, batch, torch.Generator().manual_seed(0))
    return Ground(model, OPTIMIZERS[optimizer](model.parameters(), lr), workload.loss, batches)


def fashion(data_dir: Path) -> Ground:
    """The paper's network on Fashion-MNIST, batch 64, momentum."""
    run = FixedRate("momentum", data_dir, lr=0.01)
    return Ground(run.model, run.optimizer, run.workload.loss, run.batches)


def cifar_images(data_dir: Path, sheets: int) -> Images:
    """The first training images of the CIFAR-10 sheets, 1,000 a sheet, not augmented."""
    images = [read_sheet(data_dir / "cifar-10" / f"train-{number:02d}.webp") for number in range(sheets)]
    labels = np.load(data_dir / "cifar-10" / "train-labels.npy", allow_pickle=False)[: 1000 * sheets]
    return Images(torch.from_numpy(np.concatenate(images)), torch.from_numpy(labels).long(), augment=False)


def cifar(data_dir: Path) -> Ground:
    """ResNet-18 on 1,000 images, momentum. Timing only: nothing here is accuracy."""
    return ground(WORKLOADS["cifar10"], cifar_images(data_dir, sheets=1), "momentum", 0.01, batch=32)


def shakespeare(data_dir: Path) -> Ground:
    """The small GPT on Shakespeare's characters, AdamW."""
    workload = WORKLOADS["shakespeare"]
    return ground(workload, workload.datasets(data_dir)[0], "adamw", 1e-3, batch=16)


GROUNDS: dict[str, Callable[[Path], Ground]] = {
    "Fashion-MNIST CNN, batch 64": fashion,
    "CIFAR-10 ResNet-18, batch 32": cifar,
    "Shakespeare GPT, batch 16": shakespeare,
}
