"""Data sets that several tasks share: scikit-learn's embedded ones, and drawing from a fixed seed.

The examples of a task never depend on the seed of a run: only the weights, the order and the noise do.
"""

from functools import cache
from zlib import crc32

import torch
import torch.nn.functional as F
from sklearn import datasets
from torch import Tensor

from autolr_lab.zoo.task import Batch, Data


def drawing(name: str) -> torch.Generator:
    """A random generator that depends on ``name`` alone."""
    return torch.Generator().manual_seed(crc32(name.encode()))


def hold_out(rows: Batch, count: int, name: str) -> Data:
    """Split rows at random, though always in the same way: ``count`` of them are held out."""
    order = torch.randperm(len(rows[0]), generator=drawing(name))
    return Data(
        train=tuple(tensor[order[count:]] for tensor in rows),
        held_out=tuple(tensor[order[:count]] for tensor in rows),
    )


def standardised(x: Tensor) -> Tensor:
    """Columns of mean zero and variance one."""
    return (x - x.mean(0)) / x.std(0)


def embedded(name: str) -> tuple[Tensor, Tensor]:
    """Inputs and targets of one of scikit-learn's embedded data sets, inputs standardised."""
    found = getattr(datasets, f"load_{name}")(return_X_y=True)
    return standardised(torch.tensor(found[0], dtype=torch.float32)), torch.tensor(found[1])


@cache
def digits() -> Data:
    """The 1,797 handwritten digits: flat, 64 values between 0 and 1, and a class."""
    x, y = datasets.load_digits(return_X_y=True)
    return hold_out((torch.tensor(x, dtype=torch.float32) / 16, torch.tensor(y)), 400, "digits")


def augmented(rows: Batch, times: int, size: int, generator: torch.Generator) -> Batch:
    """Each digit ``times`` times over: enlarged to ``size``, shifted by up to a pixel of 8, and with noise."""
    x, y = (tensor.repeat(times, *[1] * (tensor.dim() - 1)) for tensor in rows)
    shift = (torch.rand(len(x), 2, generator=generator) * 2 - 1) / 4
    where = torch.cat([torch.eye(2).expand(len(x), 2, 2), shift[:, :, None]], dim=2)
    grid = F.affine_grid(where, [len(x), 1, size, size], align_corners=False)
    images = F.grid_sample(x.view(-1, 1, 8, 8), grid, align_corners=False)
    return images + 0.1 * torch.randn(images.shape, generator=generator), y


@cache
def shifted_digits(size: int = 8) -> Data:
    """Digits as images of ``size`` by ``size``, shifted and noisy: 12,573 to train on, 400 held out."""
    plain, generator = digits(), drawing(f"shifted digits {size}")
    return Data(augmented(plain.train, 9, size, generator), augmented(plain.held_out, 1, size, generator))
