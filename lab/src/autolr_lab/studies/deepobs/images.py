"""``mnist_vae``, ``fmnist_vae`` and ``fmnist_2c2d``: networks on images of 28 x 28 between 0 and 1.

Padding is TensorFlow's "same": with a kernel of 4 and a stride of 1 that is one row before and two behind.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autolr_lab.studies.deepobs.problem import Problem
from autolr_lab.workloads.mnist import load_mnist
from autolr_lab.zoo.task import Batch

SIDE = 28
LATENT, LEAK, DROPPED, FILTERS = 8, 0.3, 0.2, 64  # of the variational autoencoder
STDDEV, BIAS = 0.05, 0.05  # of 2c2d: truncated normal weights, constant biases
EVALUATED = 10_000  # training examples
FOLDERS = {"mnist": ("mnist", "MNIST/raw"), "fmnist": ("fashion-mnist", "FashionMNIST/raw")}
SOURCES = {"mnist": "https://yann.lecun.com/exdb/mnist/", "fmnist": "https://github.com/zalandoresearch/fashion-mnist"}


class Vae(nn.Module):
    """Images ``(n, 1, 28, 28)`` to their reconstruction ``(n, 784)``, the mean and half the log variance ``(n, 8)``."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([nn.Conv2d(1, FILTERS, 4, 2, 1), nn.Conv2d(FILTERS, FILTERS, 4, 2, 1)])
        self.across = nn.Conv2d(FILTERS, FILTERS, 4)
        self.mean = nn.Linear(7 * 7 * FILTERS, LATENT)
        self.spread = nn.Linear(7 * 7 * FILTERS, LATENT)
        self.dense = nn.ModuleList([nn.Linear(LATENT, 24), nn.Linear(24, 49)])
        self.up = nn.ConvTranspose2d(1, FILTERS, 4, 2, 1)
        self.along = nn.ModuleList([nn.ConvTranspose2d(FILTERS, FILTERS, 4) for _ in range(2)])
        self.out = nn.Linear(14 * 14 * FILTERS, SIDE * SIDE)
        self.drop = nn.Dropout(DROPPED)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)  # TensorFlow's default
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, spread = self.encode(images)
        code = mean + torch.randn_like(mean) * spread.exp()
        return self.decode(code), mean, spread

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of the code."""
        x = images
        for layer in self.down:
            x = self.drop(F.leaky_relu(layer(x), LEAK))
        x = self.drop(F.leaky_relu(self.across(F.pad(x, (1, 2, 1, 2))), LEAK)).flatten(1)
        return self.mean(x), 0.5 * self.spread(x)

    def decode(self, code: Tensor) -> Tensor:
        """The image of a code."""
        x = code
        for layer in self.dense:
            x = F.leaky_relu(layer(x), LEAK)
        x = self.drop(F.relu(self.up(x.view(-1, 1, 7, 7))))
        x = self.drop(F.relu(_same(self.along[0](x))))
        x = F.relu(_same(self.along[1](x)))
        seen: Tensor = torch.sigmoid(self.out(x.flatten(1)))
        return seen


def _same(x: Tensor) -> Tensor:
    """What is left of a full transposed convolution of 4: the mirror image of one row before and two behind."""
    return x[:, :, 1:-2, 1:-2]


def vae_losses(model: nn.Module, batch: Batch) -> Tensor:
    """Squared error of the image, and the divergence of the code from a standard normal."""
    seen, mean, spread = model(batch[0])
    error = (seen - batch[0].flatten(1)).square().sum(1)
    divergence: Tensor = -0.5 * (1 + 2 * spread - mean.square() - (2 * spread).exp()).sum(1)
    losses: Tensor = error + divergence
    return losses


def two_convolutions() -> nn.Module:
    """2c2d: two convolutions with pooling, two fully connected layers."""
    network = nn.Sequential(
        nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(7 * 7 * 64, 1024), nn.ReLU(), nn.Linear(1024, 10),
    )  # fmt: skip
    for module in network:
        if isinstance(module, nn.Conv2d | nn.Linear):
            # TensorFlow draws anew what lies beyond two standard deviations.
            nn.init.trunc_normal_(module.weight, std=STDDEV, a=-2 * STDDEV, b=2 * STDDEV)
            assert module.bias is not None
            nn.init.constant_(module.bias, BIAS)
    return network


def class_losses(model: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy."""
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none")


def right(model: nn.Module, batch: Batch) -> Tensor:
    """One where the class is right, zero elsewhere."""
    told: Tensor = model(batch[0]).argmax(1) == batch[1]
    return told.double()


def rows(name: str, data_dir: Path | None) -> tuple[Batch, Batch]:
    """Training and test rows: images between 0 and 1, and classes.

    Raises:
        MissingDataError: a file is missing.
    """
    loaded = load_mnist(data_dir, folders=FOLDERS[name], mean=0.0, std=1.0, source=SOURCES[name])
    train, test = (part.tensors for part in loaded)
    return train, test


def image_problem(name: str, data_dir: Path | None) -> Problem:
    """One of the three.

    Raises:
        MissingDataError: its images are missing.
    """
    train, test = rows(name.split("_", maxsplit=1)[0], data_dir)
    make = partial(Problem, name, train=train, evaluated=EVALUATED, test=test)
    if name == "fmnist_2c2d":
        return make(batch_size=128, epochs=100, build=two_convolutions, losses=class_losses, accuracy=right)
    return make(batch_size=64, epochs=50 if name == "mnist_vae" else 100, build=Vae, losses=vae_losses)


def parameters(model: nn.Module) -> int:
    """How many numbers are trained."""
    return sum(math.prod(p.shape) for p in model.parameters())
