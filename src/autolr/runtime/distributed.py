"""All ranks see one set of losses, and so take one decision. On one rank there is nothing to do."""

from __future__ import annotations

import sys

import torch.distributed as dist
from torch import Tensor


def rank() -> int:
    """This process's rank; 0 outside a process group."""
    return dist.get_rank() if several() else 0


def ranks() -> int:
    """How many there are; 1 outside a process group."""
    return dist.get_world_size() if several() else 1


def gather_minibatches(losses: Tensor) -> list[list[float]]:
    """Put the minibatches of all ranks side by side, in the order of the ranks. Waits for the device.

    A collective: every rank calls it at the same steps, which the same decisions everywhere see to.

    Args:
        losses: of this rank, shape ``(samples, m)``; ``m`` may differ between ranks.

    Returns:
        Shape ``(samples, sum of m)``, the same on every rank.
    """
    own: list[list[float]] = losses.tolist()
    if not several():
        return own
    ranks: list[list[list[float]]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(ranks, own)
    return [[loss for row in rows for loss in row] for rows in zip(*ranks, strict=True)]


def smallest(count: int) -> int:
    """The smallest count over the ranks; a collective."""
    if not several():
        return count
    counts: list[int] = [count] * dist.get_world_size()
    dist.all_gather_object(counts, count)
    return min(counts)


def several() -> bool:
    """Whether there are other ranks to agree with."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def only_makes_state() -> bool:
    """Whether the step under way is `torch.distributed.checkpoint`'s: of zeros, to have an optimizer make its state."""
    theirs = getattr(sys.modules.get("torch.distributed.checkpoint.state_dict"), "_init_optim_state", None)
    frame = sys._getframe(1) if theirs is not None else None
    for _ in range(6):  # wrappers of `step` stand between
        if frame is None or frame.f_code is theirs.__code__:  # type: ignore[union-attr]
            return frame is not None
        frame = frame.f_back
    return False
