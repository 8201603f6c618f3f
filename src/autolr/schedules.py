"""The schedule of a run whose peak rate is known, as a torch scheduler for any loop."""

from __future__ import annotations

import math
import numbers
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from autolr.numerics.shape import shape
from autolr.policies.settings import check_count

__all__ = ["PeakSchedule", "shape"]


class PeakSchedule(LRScheduler):
    """A warm-up of 5 % of the steps, half of the run at the peak rate, a straight line to zero.

    All parameter groups keep the ratios of their rates; the largest becomes ``peak``. The last step's rate is small and
    above zero, every later one's is zero. Call ``step()`` after each optimizer step.

    Args:
        optimizer: whose rates it sets.
        peak: the largest rate over the groups, at the top of the schedule.
        total_steps: optimizer steps of the run.
        last_epoch: steps taken so far less one, where a run goes on without its scheduler's ``state_dict``.

    Raises:
        TypeError: a peak that is no number, or steps that are no whole number.
        ValueError: one of them is not above 0, or no group has a rate above 0.

    Examples:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        >>> scheduler = PeakSchedule(optimizer, peak=0.5, total_steps=10)
        >>> optimizer.param_groups[0]["lr"]
        0.5
    """

    def __init__(self, optimizer: Optimizer, peak: float, total_steps: int, last_epoch: int = -1) -> None:
        self.peak: float = _rate(peak)
        self.total_steps: int = check_count("total_steps", total_steps)
        if not any(float(group.get("initial_lr", group["lr"])) > 0 for group in optimizer.param_groups):
            raise ValueError("One parameter group at least needs a rate above 0: their ratios are kept.")
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:  # type: ignore[override]
        """The rate of each group at the coming step."""
        rates = [float(base) for base in self.base_lrs]
        top = self.peak * shape(self.last_epoch + 1, self.total_steps)
        return [top * (rate / max(rates)) for rate in rates]


def _rate(peak: Any) -> float:
    """``peak``, or an error that says what it may be."""
    fits = isinstance(peak, numbers.Real) and not isinstance(peak, bool)  # numpy's numbers too
    if not fits:
        raise TypeError(f"peak must be a number above 0; got {peak!r}. Take Peak.lr, or set one by hand.")
    if not 0 < peak < math.inf:
        raise ValueError(f"peak must be a rate above 0; got {peak}. Take Peak.lr, or set one by hand.")
    return float(peak)
