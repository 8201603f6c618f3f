"""How far a run has come, and the losses on the way."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from autolr_lab.training.ranks import Ranks


@dataclass
class Position:
    """How far a run has come: plain values, for a checkpoint."""

    rate: float  # of the last step
    done: int = 0  # optimizer steps
    total: float = 0.0  # of the losses in this epoch so far
    weight: int = 0  # what they are the means over
    first: float | None = None  # [loss] of the first minibatch, before any step
    recent: list[float] = field(default_factory=list)  # losses that no line of steps.jsonl has yet
    last: float = math.nan  # [loss] that was read last
    lines: dict[str, int] = field(default_factory=lambda: {"steps": 0, "epochs": 0})
    row: dict[str, Any] = field(default_factory=dict)  # the last line of epochs.jsonl
    lowest: float = math.inf  # of the figure that the best model goes by
    seconds: float = 0.0
    aside: float = 0.0  # [seconds] of those, in evaluation and checkpoints


class UnreadLosses:
    """Losses that are still where they were made: to read one waits for the device, so they are read together."""

    def __init__(self) -> None:
        self._losses: list[tuple[Tensor, int]] = []

    def add(self, loss: Tensor, weight: int) -> None:
        """The loss of a step, a mean over so many."""
        self._losses.append((loss.detach(), weight))

    def read(self, at: Position, ranks: Ranks) -> None:
        """Add all of them to where the run is; means over the processes that train it."""
        if not self._losses:
            return
        losses = torch.stack([loss.double() for loss, _ in self._losses])
        weights = torch.tensor([weight for _, weight in self._losses], dtype=torch.float64, device=losses.device)
        losses, weights = ranks.means(losses, weights)
        for value, weight in zip(losses.tolist(), weights.tolist(), strict=True):
            at.first = value if at.first is None else at.first
            at.total += value * weight
            at.weight += int(weight)
            at.recent.append(value)
            at.last = value
        self._losses = []
