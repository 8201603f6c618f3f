"""MNIST and Fashion-MNIST with the paper's network and settings (appendices E.1 and E.2; Tables 7, 8 and 9)."""

from __future__ import annotations

import functools
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import TensorDataset

from autolr import ExploreExploit
from autolr_lab.workloads.workload import Classification, broken, find_folder, read_file

PAPER_RATES = {
    **dict.fromkeys(("sgd", "momentum", "momentum-0.5", "nesterov"), 0.1),
    "adagrad": 0.01, "adadelta": 1.0, "default": 1e-3,  # the first two are torch's own
}  # fmt: skip
FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def load_mnist(
    data_dir: Path | None, *, folders: tuple[str, ...], mean: float, std: float, source: str
) -> tuple[TensorDataset, TensorDataset]:
    """Training and test set: images ``(n, 1, 28, 28)`` normalised by ``mean`` and ``std``, labels ``(n,)``.

    Raises:
        MissingDataError: a file is missing, or is not an idx file of bytes.
    """
    place = find_folder(data_dir, folders[0], folders, FILES, source)
    images, labels, test_images, test_labels = (read_idx(place, name) for name in FILES)

    def normalised(pixels: np.ndarray, classes: np.ndarray) -> TensorDataset:
        scaled = torch.from_numpy(pixels.astype(np.float32)).div_(255).sub_(mean).div_(std).unsqueeze(1)
        return TensorDataset(scaled, torch.from_numpy(classes.astype(np.int64)))

    return normalised(images, labels), normalised(test_images, test_labels)


def read_idx(folder: Path, file: str) -> np.ndarray:
    """One idx file, ``uint8``, gzipped or not. Here because torchvision, which reads them too, is not a dependency.

    Raises:
        MissingDataError: not such a file, or not all of it.
    """
    data = read_file(folder, file)
    if data[:3] != b"\0\0\x08":  # the type code of bytes
        raise broken(folder / file, f"it begins with {data[:3].hex(' ')}, an idx file of bytes with 00 00 08")
    header = 4 + 4 * data[3]
    shape = np.frombuffer(data[4:header], ">u4")
    if len(data) != header + shape.prod():
        raise broken(folder / file, f"its header tells of {shape.prod()} bytes, and {len(data) - header} follow")
    return np.frombuffer(data, np.uint8, offset=header).reshape(tuple(shape))


def network() -> nn.Module:
    """Two convolutions and two fully connected layers: pytorch/examples/mnist of the paper's time."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 20, 5), pool1=nn.MaxPool2d(2), relu1=nn.ReLU(),
            conv2=nn.Conv2d(20, 50, 5), pool2=nn.MaxPool2d(2), relu2=nn.ReLU(),
            flatten=nn.Flatten(), fc1=nn.Linear(4 * 4 * 50, 500), relu3=nn.ReLU(), fc2=nn.Linear(500, 10),
        )
    )  # fmt: skip


MNIST = Classification(
    name="mnist", batch_size=64, epochs=50, rates=PAPER_RATES, policy=ExploreExploit.from_paper("mnist"), images=True,
    datasets=functools.partial(
        load_mnist, folders=("mnist", "MNIST/raw"), mean=0.1307, std=0.3081,  # the second is torchvision's
        source="https://yann.lecun.com/exdb/mnist/",
    ),
    model=network,
)  # fmt: skip

FASHION_MNIST = Classification(
    name="fashion-mnist", batch_size=64, epochs=50, rates=PAPER_RATES,
    policy=ExploreExploit.from_paper("fashion-mnist"), images=True,
    datasets=functools.partial(
        load_mnist, folders=("fashion-mnist", "FashionMNIST/raw"), mean=0.2860, std=0.3530,
        source="https://github.com/zalandoresearch/fashion-mnist",
    ),
    model=network,
)  # fmt: skip
