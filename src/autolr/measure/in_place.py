"""What tensors hold: written into the memory that is there, and compared, whatever their layout."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.autograd.grad_mode import _unsafe_preserve_version_counter

from autolr.measure.sharded import own_part, plain_parts

LAYOUTS = frozenset({torch.strided, torch.sparse_coo})  # of tensors in attributes that are followed


def copy_into(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """Write ``sources`` into ``targets`` in place: addresses stay, for compiled and captured graphs."""
    with torch.no_grad():
        for target, source in zip(targets, sources, strict=True):
            # What is written into a detached sparse tensor does not reach the one that it was made from.
            there, value = _once(target.detach() if target.layout is torch.strided else target, source)
            there.copy_(value)


def put_back(kept: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Write each second into each first, which gets its shape too; their version counters stay."""
    if not kept:
        return
    with torch.no_grad():
        for tensor, value in kept:
            if tensor.shape != value.shape:  # sized by the forward pass
                tensor.resize_(value.shape)
        parts = [_once(own_part(tensor), own_part(value)) for tensor, value in kept]
        with contextlib.ExitStack() as counters:  # a graph that training has not gone through yet may hold them
            for there, _ in parts:
                counters.enter_context(_unsafe_preserve_version_counter(there))
            torch._foreach_copy_([there for there, _ in parts], [value for _, value in parts])


def differs(tensor: Tensor, version: int, value: Tensor) -> bool:
    """Whether a tensor was written into since it had that ``version`` and that ``value``."""
    # A write through `.data` leaves the version as it was. A NaN differs from itself, and is kept for nothing.
    plain = type(tensor) in {Tensor, nn.Parameter}
    return tensor._version != version or (plain and not same(tensor.detach(), value))


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same; two sparse ones, also in the same way."""
    if one.layout is torch.sparse_coo:
        parts = zip(plain_parts(one), plain_parts(other), strict=True)
        return one.is_coalesced() == other.is_coalesced() and all(torch.equal(*pair) for pair in parts)
    return torch.equal(one, other)


def bytes_of(tensor: Tensor) -> int:
    """What it takes in memory."""
    return sum(part.nbytes for part in plain_parts(tensor)) if tensor.layout is torch.sparse_coo else tensor.nbytes


def _once(target: Tensor, source: Tensor) -> tuple[Tensor, Tensor]:
    """Both with each place of the target's memory once: torch writes into no tensor that is expanded."""
    if target.layout is torch.strided and 0 in target.stride():
        for dimension, stride in enumerate(target.stride()):
            if stride == 0 and target.shape[dimension] > 1:
                target, source = target.narrow(dimension, 0, 1), source.narrow(dimension, 0, 1)
    return target, source
