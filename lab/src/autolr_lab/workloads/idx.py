"""The idx files that MNIST and Fashion-MNIST are published in, gzipped or not."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from autolr_lab.workloads.workload import MissingDataError, broken, data_root

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
TORCHVISION = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}  # our folder -> torchvision's
CLASSES = 10
_UNSIGNED_BYTE = 8  # the idx type code; all published files have it


def load_idx(
    data_dir: Path | None, *, folder: str, mean: float, std: float, source: str
) -> tuple[TensorDataset, TensorDataset]:
    """Train and test set: images ``(n, 1, 28, 28)`` normalised by ``mean`` and ``std``, labels ``(n,)``.

    The files are looked for in ``data_dir``, its subfolder ``folder``, and torchvision's layout (``MNIST/raw``,
    ``FashionMNIST/raw``); without ``data_dir``, in the folder that AUTOLR_DATA names.

    Raises:
        MissingDataError: a file is missing, truncated or not an idx file.
    """
    root = data_root(data_dir)
    candidates = [root / folder, root / TORCHVISION[folder] / "raw"]
    # The files of both data sets have the same names: a folder that is named after the other one is not looked into.
    named = [part for part in root.parts if part in {*TORCHVISION, *TORCHVISION.values()}]
    if not named or named[-1] in {folder, TORCHVISION[folder]}:
        candidates.append(root)
    for place in candidates:
        paths = [_existing(place / name) for name in FILES]
        if None not in paths:
            arrays = [read_idx(path) for path in paths if path is not None]
            return _dataset(arrays[0], arrays[1], mean, std, place), _dataset(arrays[2], arrays[3], mean, std, place)
    looked = "\n".join(f"  {place}/" for place in candidates)
    raise MissingDataError(
        f"The {folder} files were not found. Looked in\n{looked}\nfor {', '.join(FILES)} (each with or without .gz).\n"
        f"Get them from {source}; put them in {candidates[0]}/, or name their folder: --data-dir DIR or AUTOLR_DATA."
    )


def read_idx(path: Path) -> np.ndarray:
    """One idx file of unsigned bytes: ``uint8`` in the shape that its header tells.

    Raises:
        MissingDataError: truncated, corrupt, or not such a file.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise broken(path, f"it cannot be unpacked ({error})") from error
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] != _UNSIGNED_BYTE:
        raise broken(path, f"it begins with {data[:4].hex(' ') or 'nothing'}, an idx file of bytes with 00 00 08")
    header = 4 + 4 * data[3]
    shape = tuple(np.frombuffer(data[4:header], ">u4").tolist()) if len(data) >= header else ()
    if len(data) != header + math.prod(shape):
        raise broken(
            path,
            f"its header tells of {' x '.join(map(str, shape))} bytes, and {max(0, len(data) - header)} follow",
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def _existing(path: Path) -> Path | None:
    return next((p for p in (path.with_name(path.name + ".gz"), path) if p.is_file()), None)


def _dataset(images: np.ndarray, labels: np.ndarray, mean: float, std: float, place: Path) -> TensorDataset:
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise broken(place, f"it has images of shape {images.shape} and labels of shape {labels.shape}")
    if images.shape[1:] != (28, 28) or labels.max(initial=0) >= CLASSES:
        raise broken(place, f"it has images of {images.shape[1:]}, not (28, 28), or labels above {CLASSES - 1}")
    pixels: Tensor = torch.from_numpy(images.astype(np.float32)).div_(255).sub_(mean).div_(std).unsqueeze(1)
    return TensorDataset(pixels, torch.from_numpy(labels.astype(np.int64)))
