"""Whether an error says that memory ran out."""

from __future__ import annotations

import torch


def ran_out_of_memory(error: BaseException) -> bool:
    """On a device or on the host. torch has no class of its own for the latter."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def make_room() -> None:
    """Give what torch keeps for later back to the device."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()
