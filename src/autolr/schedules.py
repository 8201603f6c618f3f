"""Learning-rate schedules to compare with, on torch's own schedulers: one step of each is one optimizer step."""

from __future__ import annotations

from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, MultiStepLR

KNEE_EXPLORE = 0.5  # share of the run at the peak; the default of the Knee schedule's authors


def _knee(optimizer: Optimizer, total_steps: int) -> LRScheduler:
    knee = KNEE_EXPLORE * total_steps
    return LambdaLR(optimizer, lambda step: min(1.0, max(0.0, (total_steps - step) / (total_steps - knee))))


SCHEDULES: dict[str, Callable[[Optimizer, int], LRScheduler]] = {
    "fixed": lambda optimizer, total_steps: LambdaLR(optimizer, lambda step: 1.0),  # noqa: ARG005
    # The paper's staircase for CIFAR-10: a tenth after half of the run, another after three quarters.
    "staircase": lambda optimizer, total_steps: MultiStepLR(
        optimizer, [max(1, total_steps // 2), max(1, total_steps * 3 // 4)], 0.1
    ),
    # Its staircase for ImageNet: a tenth after each third.
    "staircase-thirds": lambda optimizer, total_steps: MultiStepLR(
        optimizer, [max(1, total_steps // 3), max(1, total_steps * 2 // 3)], 0.1
    ),
    "cosine": CosineAnnealingLR,
    "knee": _knee,
}
