"""CIFAR-10 with the paper's ResNet-18 (part 3.2; its source: kuangliu/pytorch-cifar), and a thin one for two CPU cores.

As there: minibatches of 128, 200 epochs, weight decay 5e-4, a random crop and a random flip of each training image.

Two forms of the data are read: the published python batches, and lossless WebP sheets of 1,000 images each (where 189
images of such sheets come from a JPEG copy, as their README may say, results are to say so too).
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

from autolr.policies import ExploreExploit
from autolr_lab.workloads.mnist import PAPER_RATES
from autolr_lab.workloads.workload import Batch, Classification, MissingDataError, broken, data_root

BATCHES = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}  # as published
LABELS = {"train": "train-labels.npy", "test": "test-labels.npy"}  # beside the sheets
ACROSS, DOWN = 25, 40  # images on a sheet, in rows from the top left
SIDE, CLASSES = 32, 10
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of the training pixels: red, green, blue
WEIGHT_DECAY = {name: {"weight_decay": 5e-4} for name in ("sgd", "momentum", "nesterov", "adam", "adamw")}
FRAME = 4  # [pixels] of black around an image that is cropped

Arrays = tuple[np.ndarray, np.ndarray]


# The data set.


class Images(TensorDataset):
    """Images kept as bytes ``(n, 3, 32, 32)``, and normalised a minibatch at a time.

    Args:
        images: ``uint8``.
        labels: class numbers ``(n,)``.
        augment: crop and flip them, each time anew.
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

    The randomness is torch's global generator: a look seeds it for each minibatch and puts it back.
    """
    n = len(images)
    places = F.pad(images, (FRAME,) * 4).unfold(2, SIDE, 1).unfold(3, SIDE, 1)  # a view: (n, 3, 9, 9, 32, 32)
    down, right = torch.randint(2 * FRAME + 1, (2, n))
    crops = places[torch.arange(n), :, down, right]
    mirrored = torch.rand(n) < 0.5
    return torch.where(mirrored.view(n, 1, 1, 1), crops.flip(3), crops)


# Its files.


def load_cifar10(data_dir: Path | None) -> tuple[Images, Images]:
    """Training set, augmented, and test set, as it is.

    Looked for in ``data_dir``, or in the folder that AUTOLR_DATA names: the python batches in ``cifar-10-batches-py``
    (torchvision's layout) or in the folder itself, then the sheets in ``cifar-10`` or in the folder itself.

    Raises:
        MissingDataError: a file is missing, damaged or not CIFAR-10's.
    """
    root = data_root(data_dir)
    places = [
        (root / "cifar-10-batches-py", [*BATCHES["train"], *BATCHES["test"]], _read_batches),
        (root, [*BATCHES["train"], *BATCHES["test"]], _read_batches),
        (root / "cifar-10", list(LABELS.values()), _read_sheets),
        (root, list(LABELS.values()), _read_sheets),
    ]
    for place, files, read in places:
        if all((place / name).is_file() for name in files):
            notice = _copies(place) if read is _read_sheets else ""
            return (
                _dataset(*read(place, "train"), augment=True, notice=notice),
                _dataset(*read(place, "test"), augment=False, notice=notice),
            )
    looked = "\n".join(f"  {place}/ for {', '.join(files)}" for place, files, _ in places)
    raise MissingDataError(
        f"The CIFAR-10 files were not found. Looked in\n{looked}\n"
        "Get the python version from https://www.cs.toronto.edu/~kriz/cifar.html and unpack it in "
        f"{root}/, or name its folder: --data-dir DIR or AUTOLR_DATA."
    )


def read_batch(path: Path) -> Arrays:
    """One published python batch: images ``(n, 3, 32, 32)`` and labels ``(n,)``, both ``uint8``.

    Raises:
        MissingDataError: not such a file.
    """
    try:
        with path.open("rb") as file:
            batch = _ArraysOnly(file, encoding="bytes").load()
    except Exception as error:  # whatever a damaged pickle leads to: its documentation names no end of them
        raise broken(path, f"it cannot be unpickled ({' '.join(str(error).split())})") from error
    content: dict[bytes, Any] = batch if isinstance(batch, dict) else {}
    data, labels = content.get(b"data"), content.get(b"labels")
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (3 * SIDE * SIDE,):
        raise broken(path, f"it has no b'data' of bytes in the shape (n, {3 * SIDE * SIDE})")
    if not isinstance(labels, list) or len(labels) != len(data) or any(y not in range(CLASSES) for y in labels):
        raise broken(path, f"its b'labels' are not {len(data)} numbers from 0 to {CLASSES - 1}")
    return data.reshape(-1, 3, SIDE, SIDE), np.array(labels, np.uint8)


def read_sheet(path: Path) -> np.ndarray:
    """One WebP sheet: 1,000 images ``(1000, 3, 32, 32)``, ``uint8``.

    Raises:
        MissingDataError: missing, damaged, or of another size.
    """
    from PIL import Image

    try:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"))
    except OSError as error:  # also of Pillow, for what it cannot decode
        raise broken(path, f"it cannot be read ({error})") from error
    if pixels.shape != (DOWN * SIDE, ACROSS * SIDE, 3):
        size = f"{pixels.shape[1]} x {pixels.shape[0]}"
        raise broken(path, f"it is {size} pixels, a sheet {ACROSS * SIDE} x {DOWN * SIDE}")
    return pixels.reshape(DOWN, SIDE, ACROSS, SIDE, 3).transpose(0, 2, 4, 1, 3).reshape(-1, 3, SIDE, SIDE)


# Taken from an array: numpy 2 renamed the module that it is in, and the published files have the old name.
_RECONSTRUCT: Any = np.empty(0).__reduce__()[0]


class _ArraysOnly(pickle.Unpickler):
    """Builds numpy arrays and nothing else: a pickle may ask for any function of any module to be called."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in {("numpy", "ndarray"), ("numpy", "dtype")}:
            return getattr(np, name)
        if module in {"numpy.core.multiarray", "numpy._core.multiarray"} and name == "_reconstruct":
            return _RECONSTRUCT
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which arrays have no need of")


def _read_batches(place: Path, split: str) -> Arrays:
    images, labels = zip(*(read_batch(place / name) for name in BATCHES[split]), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def _read_sheets(place: Path, split: str) -> Arrays:
    path = place / LABELS[split]
    try:
        labels = np.load(path, allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        raise broken(path, f"it cannot be read ({error})") from error
    if labels.dtype != np.uint8 or labels.ndim != 1 or not labels.size or labels.max() >= CLASSES:
        raise broken(path, f"it has {labels.dtype} in the shape {labels.shape}, not bytes up to {CLASSES - 1} in a row")
    if len(labels) % (ACROSS * DOWN):
        raise broken(path, f"it has {len(labels)} labels, and a sheet has {ACROSS * DOWN} images")
    sheets = [read_sheet(place / f"{split}-{i:02d}.webp") for i in range(len(labels) // (ACROSS * DOWN))]
    return np.concatenate(sheets), labels


def _copies(place: Path) -> str:
    """What is to be said of sheets: how many of their images are named as coming from a JPEG copy."""
    listed = [place / f"{split}-jpeg-indices.npy" for split in LABELS]
    named = [len(np.load(path, allow_pickle=False)) for path in listed if path.is_file()]
    told = f"{sum(named)} images" if named else "an unknown number of images"
    return f"CIFAR-10 from WebP sheets: {told} come from a JPEG copy, a few grey levels off the published pixels."


def _dataset(images: np.ndarray, labels: np.ndarray, *, augment: bool, notice: str) -> Images:
    return Images(torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64)), augment=augment, notice=notice)


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
    name="cifar10",
    batch_size=128,
    epochs=200,
    rates=PAPER_RATES,
    policy=ExploreExploit.from_paper("cifar10"),
    images=True,
    version=2,  # with weight decay
    options=WEIGHT_DECAY,
    datasets=load_cifar10,
    model=functools.partial(resnet, (64, 128, 256, 512), 2),  # ResNet-18: 11,173,962 parameters
)

CIFAR10_SMALL = Classification(
    name="cifar10-small",
    batch_size=128,
    epochs=10,
    rates=PAPER_RATES,
    policy=ExploreExploit.from_paper("cifar10"),
    images=True,
    version=2,  # with weight decay
    options=WEIGHT_DECAY,
    datasets=load_cifar10,
    model=functools.partial(resnet, (16, 32, 64), 1, stem_stride=2),  # ResNet-8, thin: 78,042
)
