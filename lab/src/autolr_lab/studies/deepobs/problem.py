"""What a problem is: data, network, loss, and how it is evaluated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from autolr_lab.zoo.task import Batch

MOMENTUM = 0.99  # the published runs'
# What one types without tuning: torch's default for Adam; for SGD, whose default in torch is a tenth of it, 0.01.
GIVEN = {"GradientDescent": 0.01, "Momentum": 0.01, "Adam": 1e-3}


@dataclass(frozen=True, eq=False)
class Problem:
    """A problem of DeepOBS.

    Attributes:
        name: theirs.
        batch_size: examples in a minibatch; what does not fill one is dropped, in training and in evaluation.
        epochs: of the published runs.
        train: rows to train on.
        evaluated: the training loss is told of the first so many in the order of training.
        test: rows that are held out.
        build: a new network, from torch's generator.
        losses: of each example, shape ``(n,)``.
        accuracy: how many of a minibatch are right; None where nothing is classified.
    """

    name: str
    batch_size: int
    epochs: int
    train: Batch
    evaluated: int
    test: Batch
    build: Callable[[], nn.Module]
    losses: Callable[[nn.Module, Batch], Tensor]
    accuracy: Callable[[nn.Module, Batch], Tensor] | None = None

    @property
    def steps_per_epoch(self) -> int:
        return len(self.train[0]) // self.batch_size

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The mean loss of a minibatch."""
        return self.losses(model, batch).mean()

    def minibatches(self, seed: int) -> OneOrder:
        """Those of a seed, the same in every epoch."""
        return OneOrder(self.train, self.batch_size, seed)

    def optimizer(self, name: str, model: nn.Module, rate: float) -> Optimizer:
        """One of theirs."""
        if name == "Adam":
            return Adam(model.parameters(), rate)
        return SGD(model.parameters(), rate, momentum=MOMENTUM if name == "Momentum" else 0.0)

    def start(self, seed: int) -> nn.Module:
        """The network of a seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.build()

    def evaluate(self, model: nn.Module, seed: int) -> dict[str, float]:
        """Mean losses of a seed's run, and the test accuracy where there is one; training mode afterwards."""
        model.eval()
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            found = {
                "train_loss": self._mean(self.losses, model, self.minibatches(seed).first(self.evaluated)),
                "test_loss": self._mean(self.losses, model, self.test),
            }
            if self.accuracy is not None:
                found["test_accuracy"] = self._mean(self.accuracy, model, self.test)
        model.train()
        return found

    def _mean(self, of: Callable[[nn.Module, Batch], Tensor], model: nn.Module, rows: Batch) -> float:
        values = [of(model, batch).double().mean() for batch in whole_batches(rows, self.batch_size)]
        return float(torch.stack(values).mean())


class OneOrder(Sequence[Batch]):
    """Minibatches in an order drawn once."""

    def __init__(self, rows: Batch, size: int, seed: int) -> None:
        order = torch.randperm(len(rows[0]), generator=torch.Generator().manual_seed(seed))
        self._rows, self._places = rows, order[: len(order) // size * size].view(-1, size)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, number: Any) -> Any:
        return tuple(tensor[self._places[number]] for tensor in self._rows)

    def endless(self) -> Iterator[Batch]:
        """Epoch after epoch, without an end."""
        while True:
            yield from (self[number] for number in range(len(self)))

    def first(self, examples: int) -> Batch:
        """The rows of the first so many examples."""
        return tuple(tensor[self._places.flatten()[:examples]] for tensor in self._rows)


def whole_batches(rows: Sequence[Tensor], size: int) -> Iterator[Batch]:
    """Minibatches in order, without what does not fill one."""
    for place in range(0, len(rows[0]) // size * size, size):
        yield tuple(tensor[place : place + size] for tensor in rows)
