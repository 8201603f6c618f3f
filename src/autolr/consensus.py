"""All ranks see one set of losses, and so take one decision. On one rank there is nothing to do."""

from __future__ import annotations

import torch.distributed as dist


def rank() -> int:
    """This process's rank; 0 outside a process group."""
    return dist.get_rank() if _several() else 0


def gather_minibatches(losses: list[list[float]]) -> list[list[float]]:
    """Put the minibatches of all ranks side by side, in the order of the ranks.

    A collective: every rank calls it at the same steps, which the same decisions everywhere see to.

    Args:
        losses: of this rank, shape ``(samples, m)``; ``m`` may differ between ranks.

    Returns:
        Shape ``(samples, sum of m)``, the same on every rank.
    """
    if not _several():
        return losses
    ranks: list[list[list[float]]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(ranks, losses)
    return [[loss for row in rows for loss in row] for rows in zip(*ranks, strict=True)]


def smallest(count: int) -> int:
    """The smallest count over the ranks; a collective."""
    if not _several():
        return count
    counts: list[int] = [count] * dist.get_world_size()
    dist.all_gather_object(counts, count)
    return min(counts)


def _several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
