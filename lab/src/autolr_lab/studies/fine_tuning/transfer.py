"""A trained network that is trained on for something else, and the three parts of the new data."""

from __future__ import annotations

import copy
import math
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Batch = tuple[Tensor, ...]
GIVEN = 1e-3  # AdamW's own rate in torch, which `find_peak` begins at
JUDGES = 8  # minibatches of the training on which losses are taken afterwards


@dataclass(frozen=True, eq=False)
class Transfer:
    """What is trained on.

    Attributes:
        name: of the task.
        title: as tables have it.
        model: the trained network; every run starts from a copy of it.
        loss: mean loss of a minibatch.
        train: minibatches of the training.
        evaluation: minibatches that a user keeps for judging; nobody trains on them.
        held_out: minibatches on which results are told; no search sees them.
        rates: peak rates of the grid.
    """

    name: str
    title: str
    model: nn.Module
    loss: Callable[[nn.Module, Batch], Tensor]
    train: Sequence[Batch]
    evaluation: Sequence[Batch]
    held_out: Sequence[Batch]
    rates: tuple[float, ...]

    def start(self) -> nn.Module:
        """A copy of the trained network, in training mode."""
        return copy.deepcopy(self.model).train()

    def order(self, seed: int) -> Iterator[Batch]:
        """Training minibatches without end, in a new order each time through."""
        generator = random.Random(seed)
        places = list(range(len(self.train)))
        while True:
            generator.shuffle(places)
            for place in places:
                yield self.train[place]


def mean_loss(transfer: Transfer, model: nn.Module, batches: Sequence[Batch]) -> float:
    """Over minibatches, in evaluation mode; the model is in training mode afterwards."""
    model.eval()
    with torch.no_grad():
        found = statistics.fmean(float(transfer.loss(model, batch)) for batch in batches)
    model.train()
    return found


def change(model: nn.Module, before: nn.Module) -> float:
    """How far the weights have moved: the norm of their change over the norm that they had."""
    with torch.no_grad():
        pairs = list(zip(model.parameters(), before.parameters(), strict=True))
        moved = sum(float((now - then).double().square().sum()) for now, then in pairs)
        held = sum(float(then.double().square().sum()) for _, then in pairs)
    return math.sqrt(moved / held)
