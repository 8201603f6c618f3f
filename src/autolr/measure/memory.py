"""Whether memory ran out, or would."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor
from torch.optim import Optimizer

from autolr.measure.sharded import own_part

COPIES = 2  # of weights, gradients and optimizer state that a trial from the start takes beside them, at most


def ran_out_of_memory(error: BaseException) -> bool:
    """On a device or on the host. torch has no class of its own for the latter."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def make_room() -> None:
    """Give what torch keeps for later back to the device."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()


def has_room(optimizer: Optimizer) -> bool:
    """Whether each GPU of this rank has room for a trial, which on several ranks must not fail on one of them.

    On other devices nobody can tell: True.
    """
    taken: dict[torch.device, int] = defaultdict(int)
    for group in optimizer.param_groups:
        for p in group["params"]:
            for held in (p, p.grad, *optimizer.state.get(p, {}).values()):
                if isinstance(held, Tensor):
                    part = own_part(held.detach())
                    taken[part.device] += part.nbytes
    return all(COPIES * size <= free(device) for device, size in taken.items() if device.type == "cuda")


def free(device: torch.device) -> int:
    """[bytes] That a GPU has, or torch keeps for later."""
    return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
