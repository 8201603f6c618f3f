"""A network that a high rate leaves stuck, for runs whose lower peak gets further."""

from __future__ import annotations

import torch
from torch import nn


class Fragile(nn.Linear):
    """One long step, and its answers are off by 1.25 for good: as where a high rate leaves a network stuck."""

    def __init__(self):
        super().__init__(10, 1)
        self.register_buffer("broken", torch.zeros(()))
        self.register_buffer("before", self.weight.detach().clone())

    def forward(self, x):
        if self.training:
            self.broken.logical_or_((self.weight.detach() - self.before).norm() > 0.3)
            self.before.copy_(self.weight.detach())
        return super().forward(x) + 1.25 * self.broken * x[:, :2].prod(1, keepdim=True).sign()


def squared(model, batch):
    return (model(batch[0]) - batch[1]).square().mean()


def least_squares(seed=1):
    """Minibatches of 4, without noise."""
    x = torch.randn(1200, 10, generator=torch.Generator().manual_seed(seed))
    return list(zip(x.split(4), x.sum(1, keepdim=True).split(4), strict=True))
