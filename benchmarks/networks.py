"""Two networks of today to measure the price of looks on: a ResNet-18 for CIFAR-10 and a small GPT for Shakespeare."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import TensorDataset

from fixed_rate import FixedRate


@dataclass(frozen=True)
class Ground:
    """Something to train."""

    model: nn.Module
    optimizer: Optimizer
    loss: Callable[[nn.Module, Any], Tensor]
    batches: Iterable[Any]


def fashion(data_dir: Path) -> Ground:
    """The paper's network on Fashion-MNIST, batch 64, momentum."""
    run = FixedRate("momentum", data_dir, lr=0.01)
    return Ground(run.model, run.optimizer, run.workload.loss, run.batches)


class Block(nn.Module):
    """Two 3x3 convolutions and a way past them."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(outputs) for _ in range(2))
        same = inputs == outputs and stride == 1
        self.past = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(n, inputs, h, w)`` to ``(n, outputs, h / stride, w / stride)``."""
        inner = F.relu(self.norms[0](self.first(x)))
        return F.relu(self.norms[1](self.second(inner)) + self.past(x))


def resnet18() -> nn.Sequential:
    """For 32x32 images: 11,173,962 parameters."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    width = 64
    for outputs, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [Block(width, outputs, stride), Block(outputs, outputs, 1)]
        width = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


def resnet8() -> nn.Sequential:
    """A thin one for two cores: 75,290 parameters."""
    stem: list[nn.Module] = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    blocks = [Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def cifar_images(data_dir: Path, sheets: int) -> TensorDataset:
    """The first images of CIFAR-10, 1,000 a sheet, as normalised as a timing needs them. A few are not byte-exact."""
    images = []
    for number in range(sheets):
        sheet = np.asarray(Image.open(data_dir / "cifar-10" / f"train-{number:02d}.webp").convert("RGB"))
        images.append(sheet.reshape(40, 32, 25, 32, 3).transpose(0, 2, 4, 1, 3).reshape(1000, 3, 32, 32))
    x = (torch.from_numpy(np.concatenate(images)).float() / 255 - 0.47) / 0.25
    y = torch.from_numpy(np.load(data_dir / "cifar-10" / "train-labels.npy")[: len(x)]).long()
    return TensorDataset(x, y)


def classification_loss(model: nn.Module, minibatch: Any) -> Tensor:
    """Mean cross-entropy."""
    inputs, labels = minibatch
    return F.cross_entropy(model(inputs), labels)


def cifar(data_dir: Path, batch: int = 32) -> Ground:
    """ResNet-18 on the first 1,000 images of the CIFAR-10 sheets, momentum. Timing only: nothing here is accuracy."""
    data = cifar_images(data_dir, sheets=1)
    torch.manual_seed(0)
    model = resnet18()
    batches = [data[start : start + batch] for start in range(0, 1000 - batch + 1, batch)]
    return Ground(model, torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9), classification_loss, batches)


class GPT(nn.Module):
    """A causal character model: 4 layers of width 128 over 64 characters, embedding and output tied."""

    def __init__(self, characters: int, length: int = 64, width: int = 128, layers: int = 4, heads: int = 4) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(characters, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(layers)
        )
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, characters, bias=False)
        nn.init.normal_(self.tokens.weight, std=0.02)
        self.head.weight = self.tokens.weight

    def forward(self, text: Tensor) -> Tensor:
        """``(n, t)`` to logits ``(n, t, characters)``."""
        length = text.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        x = self.tokens(text) + self.places.weight[:length]
        for block in self.blocks:
            x = block(x, src_mask=mask, is_causal=True)
        logits: Tensor = self.head(self.norm(x))
        return logits


def shakespeare(data_dir: Path, batch: int = 16, length: int = 64) -> Ground:
    """The GPT on Shakespeare's characters, AdamW."""
    text = (data_dir / "tinyshakespeare" / "input.txt").read_text(encoding="utf8")
    known = {c: i for i, c in enumerate(sorted(set(text)))}
    tokens = torch.tensor([known[c] for c in text])
    rows = tokens[: len(tokens) // (length + 1) * (length + 1)].reshape(-1, length + 1)
    torch.manual_seed(0)
    model = GPT(len(known), length)

    def loss(model: nn.Module, minibatch: Any) -> Tensor:
        logits = model(minibatch[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1), minibatch[:, 1:].flatten())

    batches = list(torch.split(rows[torch.randperm(len(rows))], batch))[:-1]
    return Ground(model, torch.optim.AdamW(model.parameters(), lr=1e-3), loss, batches)


GROUNDS: dict[str, Callable[[Path], Ground]] = {
    "Fashion-MNIST CNN, batch 64": fashion,
    "CIFAR-10 ResNet-18, batch 32": cifar,
    "Shakespeare GPT, batch 16": shakespeare,
}
