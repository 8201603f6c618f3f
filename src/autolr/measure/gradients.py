"""Which parameters have no gradient: what a network whose units died shows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from autolr.measure.sharded import own_part
from autolr.runtime.distributed import true_everywhere


def without_gradient(held: Sequence[Tensor], *, none: bool) -> tuple[int, ...]:
    """Numbers of the parameters whose gradient is exactly zero, on every rank.

    Args:
        held: by an optimizer.
        none: whether those that have no gradient at all, or a sparse one, are among them.
    """
    if not held:
        return ()
    zero = [
        torch.full((), none, device=p.device) if p.grad is None or p.grad.is_sparse else ~own_part(p.grad).any()
        for p in held
    ]
    flags = torch.stack([flag.to(held[0].device) for flag in zero])
    return tuple(number for number, flag in enumerate(true_everywhere(flags)) if flag)
