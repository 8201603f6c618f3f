"""The 8x8 handwritten digits that scikit-learn carries: real data, nothing to download.

1,797 images by 13 people (the test part of UCI's Optical Recognition of Handwritten Digits, Alpaydin and Kaynak 1998),
in the order of the file: the first 1,437 train, the last 360 test.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.utils.data import TensorDataset

from autolr import ExploreExploit
from autolr_lab.workloads.workload import Classification

TRAIN = 1437


def _datasets(data_dir: Path | None) -> tuple[TensorDataset, TensorDataset]:  # noqa: ARG001 - carried by scikit-learn
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(digits.target, dtype=torch.int64)
    return TensorDataset(images[:TRAIN], labels[:TRAIN]), TensorDataset(images[TRAIN:], labels[TRAIN:])


def _model() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Flatten(),
        nn.Dropout(0.25), nn.Linear(32 * 4 * 4, 10),
    )  # fmt: skip


DIGITS = Classification(
    name="digits", batch_size=32, epochs=40,
    rates={"sgd": 0.1, "momentum": 0.1, "adagrad": 0.01, "adadelta": 1.0, "default": 1e-3},
    policy=ExploreExploit(), datasets=_datasets, model=_model,
)  # fmt: skip
