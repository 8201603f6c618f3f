"""A training script of one's own on 8x8 images of handwritten digits: a rate set by hand, `find_peak`, `AutoLR`.

``python examples/digits.py [PICTURE]`` needs torch, numpy and matplotlib, and takes under a minute on one core. It
prints a line for each training and draws ``demo.png``.

The images beside it are the test set of *Optical Recognition of Handwritten Digits* (E. Alpaydin and C. Kaynak, 1998,
UCI Machine Learning Repository, doi 10.24432/C50P49, CC BY 4.0), as scikit-learn ships them: 64 pixels, 0 to 16, and a
label.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib import pyplot
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import autolr
from autolr.schedules import PeakSchedule

DATA = Path(__file__).with_name("digits.csv.gz")
EPOCHS, BATCH, TEST = 30, 32, 360
BY_HAND = 1e-3  # torch's default for AdamW

Batch = tuple[Tensor, Tensor]


class Training:
    """One training from the same weights and in the same order of the data as the others."""

    def __init__(self, train: TensorDataset, test: TensorDataset) -> None:
        torch.manual_seed(0)
        self.loader = DataLoader(train, batch_size=BATCH, shuffle=True)
        self.test = test.tensors
        self.total_steps = EPOCHS * len(self.loader)
        self.model = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2), nn.ReLU(), nn.Flatten(),
            nn.Linear(32 * 9, 64), nn.ReLU(), nn.Linear(64, 10),
        )  # fmt: skip
        self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(self.model.parameters(), lr=BY_HAND)
        self.rates: list[float] = []
        self.losses: list[float] = []  # of each epoch, on the training data

    def run(self, scheduler: torch.optim.lr_scheduler.LRScheduler | None = None) -> Training:
        """All epochs."""
        for _ in range(EPOCHS):
            total = 0.0
            for batch in self.loader:
                self.optimizer.zero_grad()
                loss = loss_fn(self.model, batch)
                loss.backward()
                self.optimizer.step()
                self.rates.append(self.optimizer.param_groups[0]["lr"])
                if scheduler is not None:
                    scheduler.step()
                total += loss.item()
            self.losses.append(total / len(self.loader))
        return self

    def accuracy(self) -> float:
        """On the test images."""
        images, labels = self.test
        with torch.no_grad():
            return float((self.model(images).argmax(1) == labels).double().mean())


def loss_fn(model: nn.Module, batch: Batch) -> Tensor:
    """The mean loss of a minibatch."""
    images, labels = batch
    return F.cross_entropy(model(images), labels)


def load() -> tuple[TensorDataset, TensorDataset]:
    """Images and labels, to train on and to test on."""
    table = np.loadtxt(DATA, delimiter=",", dtype=np.float32)
    images = torch.from_numpy(table[:, :64]).reshape(-1, 1, 8, 8) / 16
    labels = torch.from_numpy(table[:, 64]).long()
    return TensorDataset(images[:-TEST], labels[:-TEST]), TensorDataset(images[-TEST:], labels[-TEST:])


def main(picture: Path) -> None:
    """Train, print, draw."""
    torch.set_num_threads(1)  # the network is small
    train, test = load()
    began = time.process_time()

    by_hand = Training(train, test).run()

    decayed = Training(train, test)
    decayed.run(PeakSchedule(decayed.optimizer, BY_HAND, decayed.total_steps))

    found = Training(train, test)
    peak = autolr.find_peak(found.model, found.optimizer, loss_fn, found.loader, found.total_steps)
    print(peak)
    found.run(peak.scheduler(found.optimizer))

    tuned = Training(train, test)
    tuned.optimizer = autolr.AutoLR(tuned.optimizer, tuned.model, loss_fn, tuned.loader, tuned.total_steps)
    tuned.run()

    trainings = {
        f"{BY_HAND:g}, set by hand": by_hand,
        f"{BY_HAND:g}, same schedule": decayed,
        "find_peak": found,
        "AutoLR": tuned,
    }
    for name, training in trainings.items():
        told = f"training loss {training.losses[-1]:.5f}, test accuracy {100 * training.accuracy():.1f} %"
        print(f"{name:22} {told}")
    draw(peak, trainings, picture)
    print(f"{picture} is drawn; {time.process_time() - began:.0f} s of CPU")


def draw(peak: autolr.Peak, trainings: dict[str, Training], picture: Path) -> None:
    """The search, the learning rates, the losses."""
    figure, (search, rates, losses) = pyplot.subplots(1, 3, figsize=(15, 4.2), layout="constrained")
    peak.plot(search)
    search.set_title("short runs before training")
    for (name, training), style in zip(trainings.items(), ("-", "-", "-", "--"), strict=True):
        rates.plot(training.rates, style, label=name)
        losses.plot(range(1, EPOCHS + 1), training.losses, style, label=name)
    rates.set(title="learning rate", xlabel="step")
    losses.set(title="training loss", xlabel="epoch", yscale="log")
    losses.legend()
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo.png"))
