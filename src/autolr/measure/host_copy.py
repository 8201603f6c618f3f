"""Copies on the host of tensors, numbers and containers of them, and the way back into the memory that is there."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from autolr.measure.in_place import copy_into


def to_host(value: Any) -> Any:
    """A copy that nothing else changes; of a tensor on a GPU, into pinned memory, which may not be there yet."""
    if isinstance(value, Tensor) and value.is_cuda and value.layout is torch.strided:
        pinned = torch.empty_like(value, device="cpu", pin_memory=True)  # torch keeps freed ones for the next window
        return pinned.copy_(value.detach(), non_blocking=True)
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if type(value) in {list, tuple}:
        return type(value)(map(to_host, value))
    return {k: to_host(v) for k, v in value.items()} if isinstance(value, dict) else copy.deepcopy(value)


def write_into(now: dict[str, Any], saved: dict[str, Any], device: torch.device) -> None:
    """What was saved is there again; what is there beside it stays."""
    for key, value in saved.items():
        now[key] = _written(now.get(key), value, device)


def replace_by(now: dict[str, Any], saved: dict[str, Any], device: torch.device) -> None:
    """What was saved, and nothing else, is there again."""
    for key in [k for k in now if k not in saved]:
        del now[key]
    write_into(now, saved, device)


def _written(current: Any, value: Any, device: torch.device) -> Any:
    """The value, in the memory of what stands in its place where it fits: others may know that, as a view of it."""
    if isinstance(value, Tensor):
        if not isinstance(current, Tensor):
            return value.to(device, copy=True)
        if (current.shape, current.dtype, current.layout) != (value.shape, value.dtype, value.layout):
            return value.to(current.device, copy=True)
        copy_into([current], [value])
        return current
    if isinstance(value, dict):
        there = current if isinstance(current, dict) else {}
        replace_by(there, value, device)
        return there
    if type(value) in {list, tuple}:
        before: Sequence[Any] = [None] * len(value)
        if type(current) is type(value) and len(current) == len(value):
            tensors = [id(part) for part in current if isinstance(part, Tensor)]
            if len(tensors) == len(set(tensors)):  # one that stands there twice has no room for two
                before = current
        return type(value)(_written(*pair, device) for pair in zip(before, value, strict=True))
    return copy.deepcopy(value)
