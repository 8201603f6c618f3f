"""What a training task of the zoo is, and the order in which its minibatches come."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

Batch: TypeAlias = tuple[Tensor, ...]
Loss: TypeAlias = Callable[[nn.Module, Batch], Tensor]


@dataclass(frozen=True)
class Data:
    """A task's examples: rows of the tensors of ``train`` and ``held_out`` belong together."""

    train: Batch
    held_out: Batch


@dataclass(frozen=True, eq=False)
class Task:
    """One small training task; there is one object of each.

    Attributes:
        name: its name, unique in the zoo.
        kind: the kind of task, which is also the name of the file it stands in.
        data: gives the examples, always the same ones (kept after the first call).
        build: a new model; its weights are drawn from torch's global generator.
        loss: the mean loss of a minibatch, positive; may draw noise from torch's global generator.
        batch_size: examples in a minibatch.
        rates: for each optimizer that the task is trained with, the peak rate that a practitioner would type.
        horizons: the lengths, in steps, at which the full grid of rates is run.
    """

    name: str
    kind: str
    data: Callable[[], Data]
    build: Callable[[], nn.Module]
    loss: Loss
    batch_size: int
    rates: Mapping[str, float]
    horizons: tuple[int, ...] = (300, 1200)

    def minibatches(self, seed: int) -> "Minibatches":
        """The training loader: a new order every epoch, and the same orders for the same seed."""
        return Minibatches(self.data().train, self.batch_size, seed)


class Minibatches:
    """A loader over tensors: each iteration is one epoch, shuffled anew; an incomplete last minibatch is dropped."""

    def __init__(self, rows: Batch, batch_size: int, seed: int) -> None:
        self.rows = rows
        self.batch_size = min(batch_size, len(rows[0]))
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return len(self.rows[0]) // self.batch_size

    def __iter__(self) -> Iterator[Batch]:
        order = torch.randperm(len(self.rows[0]), generator=self.generator)
        for chosen in order[: len(self) * self.batch_size].view(len(self), -1):
            yield tuple(tensor[chosen] for tensor in self.rows)

    def endless(self) -> Iterator[Batch]:
        """Epoch after epoch, without an end."""
        while True:
            yield from self


def usual(sgd: float = 0.1, momentum: float = 0.01, adamw: float = 1e-3, **others: float) -> dict[str, float]:
    """The customary peak rates of a task, by optimizer: the three that every task has, and ``others``."""
    return {"sgd": sgd, "momentum": momentum, "adamw": adamw, **others}
