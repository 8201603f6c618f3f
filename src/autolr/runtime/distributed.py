"""All ranks see one set of losses, and so take one decision. On one rank there is nothing to do."""

from __future__ import annotations

import hashlib
import sys

import torch
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
    if not several():
        alone: list[list[float]] = losses.tolist()
        return alone
    # As tensors, not as objects: a thousand ranks' pickles take a core longer to read than a step takes.
    rows, own = losses.shape
    counts = _gathered(torch.tensor([own]))[:, 0].tolist()
    widest = torch.zeros(rows, max(counts), dtype=torch.float64)
    widest[:, :own] = losses
    told = _gathered(widest.reshape(-1)).reshape(-1, rows, max(counts))
    joined: list[list[float]] = torch.cat(
        [part[:, :count] for part, count in zip(told, counts, strict=True)], dim=1
    ).tolist()  # fmt: skip
    return joined


def smallest(count: int) -> int:
    """The smallest count over the ranks; a collective."""
    return int(_gathered(torch.tensor([count])).min()) if several() else count


def agreed(name: str, count: int) -> int:
    """The count, where all ranks have the same one; a collective.

    Raises:
        ValueError: they have not, on every rank.
    """
    if not several():
        return count
    told = _gathered(torch.tensor([count]))
    low, high = int(told.min()), int(told.max())
    if low != high:
        raise ValueError(
            f"{name} must be the same on every rank, as all take their steps together; got {count} on rank {rank()}, "
            f"and {low} to {high} over all of them. Where loaders differ in length, pass the smallest on each."
        )
    return count


def alike(said: str) -> bool:
    """Whether all ranks say the same; a collective."""
    if not several():
        return True
    told = _gathered(torch.tensor([int.from_bytes(hashlib.sha1(said.encode()).digest()[:7], "big")]))
    return bool((told == told[0]).all())


def true_everywhere(flags: Tensor) -> list[bool]:
    """Which flags, shape ``(n,)``, are true on every rank; a collective. Waits for the device."""
    told = _gathered(flags.to(torch.uint8)) if several() else flags.cpu()[None]
    return [bool(flag) for flag in told.bool().all(dim=0)]


def _gathered(own: Tensor) -> Tensor:
    """Of each rank a row, on the host; all of the same length."""
    there = own.to("cuda" if dist.get_backend() == "nccl" else "cpu")
    told = torch.empty(dist.get_world_size(), len(own), dtype=own.dtype, device=there.device)
    dist.all_gather(list(told.unbind()), there)
    return told.cpu()


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
