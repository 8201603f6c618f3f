"""CIFAR-10 with the paper's ResNet-18 (part 3.2; its source: kuangliu/pytorch-cifar), and a thin one for two CPU cores.

As there: minibatches of 128, 200 epochs, weight decay 5e-4, a random crop and a random flip of each training image.

Two forms of the data are read: the published python batches, and lossless WebP sheets of 1,000 images each, which is
what this project's own runs used. Nothing else reads the sheets; 189 of their images come from a JPEG copy, which every
result on them says.
"""

from __future__ import annotations

import functools
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from autolr import ExploreExploit
from autolr_lab.workloads.mnist import PAPER_RATES
from autolr_lab.workloads.workload import Batch, Classification, broken, data_root, find_folder

BATCHES = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}  # as published
ACROSS, DOWN = 25, 40  # images on a sheet, in rows from the top left
SIDE, CLASSES = 32, 10
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of the training pixels: red, green, blue
WEIGHT_DECAY = {name: {"weight_decay": 5e-4} for name in ("sgd", "momentum", "nesterov", "adam", "adamw")}
FRAME = 4  # [pixels] of black around an image that is cropped

Arrays = tuple[np.ndarray, np.ndarray]


class Images(TensorDataset):
    """Images kept as bytes ``(n, 3, 32, 32)``, and normalised a minibatch at a time.

    Args:
        images: ``uint8``.
        labels: class numbers ``(n,)``.
        augment: crop and flip them, anew each time.
        notice: what has to be said wherever a result on them is shown.
    """

    def __init__(self, images: Tensor, labels: Tensor, *, augment: bool, notice: str = "") -> None:
        super().__init__(images, labels)
        self.augment, self.notice = augment, notice

    def __getitem__(self, index: list[int]) -> Batch:
        """The whole minibatch that a list of indices names, as `loader` asks for it."""
        images, labels = (tensor[index] for tensor in self.tensors)
        images = crop_and_flip(images) if self.augment else images
        mean, std = (255 * torch.tensor(of).view(3, 1, 1) for of in (MEAN, STD))
        return (images - mean) / std, labels


def crop_and_flip(images: Tensor) -> Tensor:
    """Each image of a minibatch at a random place of its black frame, and mirrored half the time.

    The randomness is torch's global generator: a probe seeds it for each minibatch and puts it back.
    """
    n = len(images)
    places = F.pad(images, (FRAME,) * 4).unfold(2, SIDE, 1).unfold(3, SIDE, 1)  # a view: (n, 3, 9, 9, 32, 32)
    down, right = torch.randint(2 * FRAME + 1, (2, n))
    crops = places[torch.arange(n), :, down, right]
    mirrored = torch.rand(n) < 0.5
    return torch.where(mirrored.view(n, 1, 1, 1), crops.flip(3), crops)


def load_cifar10(data_dir: Path | None) -> tuple[Images, Images]:
    """Training set, augmented, and test set, as it is: from the sheets in ``cifar-10``, else from the python batches.

    Raises:
        MissingDataError: a file is missing, damaged or not CIFAR-10's.
    """
    sheets, notice = data_root(data_dir) / "cifar-10", ""
    if (sheets / "train-labels.npy").is_file():
        train, test = (_read_sheets(sheets, split) for split in ("train", "test"))
        named = sum(len(np.load(path)) for path in sheets.glob("*-jpeg-indices.npy"))
        notice = f"CIFAR-10 from WebP sheets: {named} images come from a JPEG copy, a few grey levels off."
    else:
        files, folders = [*BATCHES["train"], *BATCHES["test"]], ("cifar-10-batches-py", ".")
        source = "https://www.cs.toronto.edu/~kriz/cifar.html (the python version)"
        place = find_folder(data_dir, "CIFAR-10", folders, files, source)
        train, test = (_read_batches(place, split) for split in ("train", "test"))

    def images(arrays: Arrays, *, augment: bool) -> Images:
        pixels, labels = arrays
        return Images(
            torch.from_numpy(pixels), torch.from_numpy(labels.astype(np.int64)), augment=augment, notice=notice
        )

    return images(train, augment=True), images(test, augment=False)


class _Arrays(pickle.Unpickler):
    """Makes arrays, and whatever a pickle makes without a name: a pickle can name any function and call it."""

    NAMES = frozenset({
        ("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct"), ("numpy", "ndarray"),
        ("numpy", "dtype"), ("_codecs", "encode"),
    })  # fmt: skip

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.NAMES:
            raise broken(Path("a batch of CIFAR-10"), f"it asks for {module}.{name}, which no array needs")
        return super().find_class(module, name)


def _read_batches(place: Path, split: str) -> Arrays:
    """The published pickles, of which arrays, lists and texts are taken and nothing that could run."""
    batches = []
    for name in BATCHES[split]:
        with (place / name).open("rb") as file:
            batches.append(_Arrays(file, encoding="bytes").load())
    pixels = np.concatenate([batch[b"data"].reshape(-1, 3, SIDE, SIDE) for batch in batches])
    return pixels, np.concatenate([batch[b"labels"] for batch in batches])


def _read_sheets(place: Path, split: str) -> Arrays:
    labels = np.load(place / f"{split}-labels.npy", allow_pickle=False)
    count = len(labels) // (ACROSS * DOWN)
    return np.concatenate([read_sheet(place / f"{split}-{i:02d}.webp") for i in range(count)]), labels


def read_sheet(path: Path) -> np.ndarray:
    """One WebP sheet: 1,000 images ``(1000, 3, 32, 32)``, ``uint8``.

    Raises:
        MissingDataError: of another size.
    """
    from PIL import Image

    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    if pixels.shape != (DOWN * SIDE, ACROSS * SIDE, 3):
        size = f"{pixels.shape[1]} x {pixels.shape[0]}"
        raise broken(path, f"it is {size} pixels, a sheet {ACROSS * SIDE} x {DOWN * SIDE}")
    return pixels.reshape(DOWN, SIDE, ACROSS, SIDE, 3).transpose(0, 2, 4, 1, 3).reshape(-1, 3, SIDE, SIDE)


# The networks.


def resnet(widths: Sequence[int], blocks: int, stem_stride: int = 1) -> nn.Sequential:
    """A residual network for 32 x 32 pixels (He et al. 2015): a 3 x 3 stem, no pooling before the mean at the end.

    Args:
        widths: channels of each stage; each but the first halves the image.
        blocks: in a stage, of two convolutions each.
        stem_stride: 2 halves the image at once, and takes a quarter of the time.
    """
    ins = [widths[0], *(width for width in widths for _ in range(blocks))]
    strides = [1 if stage == 0 or block else 2 for stage in range(len(widths)) for block in range(blocks)]
    return nn.Sequential(
        _convolution(3, widths[0], 3, stem_stride),
        nn.ReLU(),
        *(_Residual(a, b, stride) for a, b, stride in zip(ins, ins[1:], strides, strict=False)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(widths[-1], CLASSES),
    )


class _Residual(nn.Module):
    def __init__(self, ins: int, outs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_convolution(ins, outs, 3, stride), nn.ReLU(), _convolution(outs, outs, 3, 1))
        self.short = nn.Identity() if ins == outs and stride == 1 else _convolution(ins, outs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.short(x))


def _convolution(ins: int, outs: int, side: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(ins, outs, side, stride, side // 2, bias=False), nn.BatchNorm2d(outs))


CIFAR10 = Classification(
    name="cifar10", batch_size=128, epochs=200, rates=PAPER_RATES, policy=ExploreExploit.from_paper("cifar10"),
    images=True, options=WEIGHT_DECAY, datasets=load_cifar10,
    model=functools.partial(resnet, (64, 128, 256, 512), 2),  # ResNet-18: 11,173,962 parameters
)  # fmt: skip

CIFAR10_SMALL = Classification(
    name="cifar10-small", batch_size=128, epochs=10, rates=PAPER_RATES, policy=ExploreExploit.from_paper("cifar10"),
    images=True, options=WEIGHT_DECAY, datasets=load_cifar10,
    model=functools.partial(resnet, (16, 32, 64), 1, stem_stride=2),  # ResNet-8, thin: 78,042
)  # fmt: skip
