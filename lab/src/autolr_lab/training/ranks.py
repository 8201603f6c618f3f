"""The processes that train one run together, as ``torchrun`` starts them: DistributedDataParallel over the minibatches.

One process is the plain case, and needs no process group.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """Where this process stands among those of its run."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether it is the one that writes."""
        return self.rank == 0

    def wrapped(self, model: nn.Module) -> nn.Module:
        """The model whose gradients are the means over all."""
        if self.size == 1:
            return model
        place = next(model.parameters()).device
        return DistributedDataParallel(model, device_ids=None if place.type == "cpu" else [place])

    def means(self, values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Of each value over all processes, by its weight, and the weights together."""
        if self.size == 1:
            return values, weights
        both = torch.stack([values * weights, weights])
        dist.all_reduce(both)
        return both[0] / both[1], both[1]

    def of_first(self, value: T) -> T:
        """What the first process has."""
        if self.size == 1:
            return value
        told = [value]
        dist.broadcast_object_list(told, 0)
        return told[0]

    def of_each(self, value: T) -> list[T]:
        """What each process has, by rank."""
        if self.size == 1:
            return [value]
        told: list[Any] = [None] * self.size
        dist.all_gather_object(told, value)
        return told


def asked_for() -> int:
    """Processes that ``torchrun`` started for this run; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def tells() -> bool:
    """Whether this process is the one that shows how the run goes."""
    return asked_for() == 1 or os.environ.get("RANK", "0") == "0"


def device_of(name: str) -> str:
    """``cuda`` is this process's own GPU where several share the machine."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if name == "cuda" and asked_for() > 1 else name


@contextlib.contextmanager
def joined() -> Iterator[Ranks]:
    """This process among those of its run; the process group is left at the end, where it was not there before."""
    if asked_for() == 1:
        yield Ranks()
        return
    mine = not dist.is_initialized()
    if mine:
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
    finally:
        if mine:
            dist.destroy_process_group()
