"""ImageNet with the paper's ResNet-50 (part 3.1; Tables 3, 7), and a thin network on ten classes of Tiny ImageNet.

The paper gives the epochs and the rates; the rest is usual for 90 epochs (Goyal et al. 2017): minibatches of 256,
weight decay 1e-4, a random part of each training image scaled to 224 x 224 and mirrored half the time, the middle of
each image to evaluate on. The paper's test accuracy is that of the 50,000 images published for validation.

Differs from the paper: the implementation that it names (cybertronai/imagenet18_old) grows the images as it trains.

With workers, the augmentation of a training image is a function of the epoch's seed and of the image, whatever the
number of workers; without, it draws from torch's global generator. The views do what torchvision's transforms do.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, get_worker_info

from autolr import ExploreExploit
from autolr_lab.workloads.image_folder import ImageFiles, Listed, find_images, list_images
from autolr_lab.workloads.mnist import PAPER_RATES
from autolr_lab.workloads.resnet import ResNet, resnet50
from autolr_lab.workloads.workload import Batch, Classification, evaluation_mode

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's training pixels: red, green, blue
AREA, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)  # of a random part: its share of the image, its width to its height
TRIES = 10  # then the middle is taken, as torchvision does
EVALUATION_BATCH = 256
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # that we may use
WEIGHT_DECAY = {name: {"weight_decay": 1e-4} for name in ("sgd", "momentum", "nesterov", "adam", "adamw")}

Box = tuple[int, int, int, int]  # [pixels] left, top, right, bottom: the latter two are the first ones outside


def load_images(data_dir: Path | None, folder: str, side: int, shorter: int, source: str) -> tuple[Images, Images]:
    """Training set, augmented, and validation set, as it is.

    Args:
        data_dir: the folder with the data.
        folder: where the images are in it.
        side: [pixels] of the square that the network sees.
        shorter: [pixels] of an image's shorter side when it is evaluated, before its middle is taken.
        source: where to get the images.

    Raises:
        MissingDataError: as `find_images` and `list_images` do.
    """
    files = find_images(data_dir, folder, source)
    train, val, classes = list_images(files)
    return (
        Images(files, train, classes, functools.partial(random_view, side=side)),
        Images(files, val, classes, functools.partial(middle_view, side=side, shorter=shorter)),
    )


class Images(Dataset[tuple[Tensor, int]]):
    """Images, read when they are asked for, normalised: ``(3, side, side)`` and the number of the class.

    Args:
        files: where they are.
        images: name and class number of each.
        classes: their names, by number.
        view: makes what the network sees of a picture.
    """

    def __init__(self, files: ImageFiles, images: Listed, classes: list[str], view: Callable[[Any], Any]) -> None:
        self.files, self.images, self.classes, self.view = files, images, classes, view

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        name, label = self.images[index]
        if (worker := get_worker_info()) is not None:
            # worker.seed is the epoch's plus the worker's number; what the worker draws depends on who else there is.
            key = np.random.SeedSequence((worker.seed - worker.id, index)).generate_state(1, np.uint64)
            torch.default_generator.manual_seed(int(key[0]))
        pixels = torch.from_numpy(np.array(self.view(self.files.picture(name)))).permute(2, 0, 1).contiguous()
        mean, std = (255 * torch.tensor(of).view(3, 1, 1) for of in (MEAN, STD))
        return (pixels - mean) / std, label


def random_view(picture: Any, side: int) -> Any:
    """A random part of a picture, scaled to ``side``, mirrored half the time, by torch's global generator."""
    from PIL import Image

    part = picture.crop(random_box(*picture.size)).resize((side, side), Image.Resampling.BILINEAR)
    return part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if float(torch.rand(())) < 0.5 else part


def middle_view(picture: Any, side: int, shorter: int) -> Any:
    """The middle of a picture, of ``side``, once its shorter side is scaled to ``shorter``."""
    from PIL import Image

    # The longer side is rounded down, and the middle to a whole pixel, as torchvision does.
    width, height = (shorter * length // min(picture.size) for length in picture.size)
    left, top = round((width - side) / 2), round((height - side) / 2)
    scaled = picture.resize((width, height), Image.Resampling.BILINEAR)
    return scaled.crop((left, top, left + side, top + side))


def random_box(width: int, height: int) -> Box:
    """A part with a share of the area in `AREA`, and a ratio of its sides in `RATIO`, even in its logarithm.

    Where ten tries give none that fits, the largest in the middle whose ratio is allowed (Szegedy et al. 2014).
    """
    for _ in range(TRIES):
        area = width * height * _uniform(*AREA)
        ratio = math.exp(_uniform(*map(math.log, RATIO)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = (int(torch.randint(room + 1, ())) for room in (width - w, height - h))
            return left, top, left + w, top + h
    w, h = min(width, round(height * RATIO[1])), min(height, round(width / RATIO[0]))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))


@dataclass(frozen=True)
class ImageTask(Classification):
    """Classification of images from disk, with top-1 and top-5 accuracy.

    The state of ``order`` at its start decides an epoch, so that a run which puts it back repeats the epoch. Workers
    are started anew each time, since theirs could not be put back.
    """

    model: Callable[..., nn.Module]  # ``classes`` -> a network
    workers: int = 0  # processes that load; 0: this one

    def network(self, data_dir: Path | None) -> nn.Module:
        return self.model(classes=len(self.datasets(data_dir)[0].classes))

    def train_batches(self, data: Images, batch_size: int, order: torch.Generator) -> DataLoader[Any]:
        return DataLoader(data, batch_size, shuffle=True, generator=order, num_workers=self.workers)

    def test_batches(self, data: Images) -> DataLoader[Any]:
        """Minibatches of `EVALUATION_BATCH`; a generator of its own, for a loader takes a number even in order."""
        return DataLoader(data, EVALUATION_BATCH, generator=torch.Generator(), num_workers=self.workers)

    @torch.no_grad()
    def evaluate(self, model: nn.Module, batches: Iterable[Batch], device: torch.device) -> dict[str, float]:
        total, first, among, examples = 0.0, 0, 0, 0
        with evaluation_mode(model):
            for images, labels in batches:
                logits, right = model(images.to(device)), labels.to(device)
                total += float(F.cross_entropy(logits, right, reduction="sum").double())
                hits = logits.topk(min(5, logits.shape[1])).indices == right[:, None]
                first += int(hits[:, 0].sum())
                among += int(hits.sum())
                examples += len(labels)
        return {"loss": total / examples, "accuracy": first / examples, "accuracy_top5": among / examples}


IMAGENET = ImageTask(
    name="imagenet", batch_size=256, epochs=90, rates=PAPER_RATES, policy=ExploreExploit.from_paper("imagenet"),
    images=True, options=WEIGHT_DECAY,
    datasets=functools.partial(
        load_images, folder="imagenet", side=224, shorter=256, source="https://image-net.org/challenges/LSVRC/2012/"
    ),
    model=functools.partial(resnet50, classes=1000),  # 25,557,032 parameters
    workers=min(8, max(1, CORES - 1)),  # one at least: so the epochs are the same on any machine
)  # fmt: skip

TINY_IMAGENET_10 = ImageTask(
    name="tiny-imagenet-10", batch_size=64, epochs=20,
    # With momentum a quarter of ImageNet's, as the minibatches are (Goyal et al. 2017).
    rates=PAPER_RATES | {"momentum": 0.025, "nesterov": 0.025}, policy=ExploreExploit.from_paper("imagenet"),
    images=True, options=WEIGHT_DECAY,
    datasets=functools.partial(
        load_images, folder="tiny-imagenet-10", side=64, shorter=64,
        source="http://cs231n.stanford.edu/tiny-imagenet-200.zip",
    ),
    model=functools.partial(ResNet, (1, 1, 1, 1), 16, classes=10),  # ResNet-14, thin: 511,514
    notice="10 of Tiny ImageNet's 200 classes, chosen by this project, 200 training images each: not comparable with "
    "figures for ImageNet or Tiny ImageNet.",
)  # fmt: skip
