"""Raises an exception at one line that Python executes, as a signal handler may, and tells what is left of it."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

import autolr


class Interrupt(BaseException):
    """No error: nothing in the library may catch it for one."""


class Tracer:
    """Counts the lines executed inside `armed`, in whatever file, and raises at one of them."""

    def __init__(self, at: int | None) -> None:
        self.at, self.lines, self.where = at, 0, ""

    def __call__(self, frame: FrameType, event: str, _: Any) -> Tracer:
        if event == "line":
            self.lines += 1
            if self.lines == self.at:
                self.where = f"{frame.f_code.co_filename}:{frame.f_lineno}"
                raise Interrupt
        return self


@contextlib.contextmanager
def armed(tracer: Tracer) -> Iterator[None]:
    """Inside, lines are counted; those of this function are not."""
    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        yield
    finally:
        sys.settrace(before)


def count(make: Callable[[], Callable[[], Any]]) -> int:
    """How many lines a call has; it is made anew."""
    call, tracer = make(), Tracer(None)
    with armed(tracer):
        call()
    return tracer.lines


def interrupt(call: Callable[[], Any], at: int) -> Tracer:
    """Call it, and raise at one of its lines."""
    tracer = Tracer(at)
    # In a function of its own: as an interrupt leaves it, no frame is left that could hold anything back.
    with contextlib.suppress(Interrupt), armed(tracer):
        call()
    return tracer


def everything(model: nn.Module, optimizer: Optimizer) -> list[Any]:
    """All that a probe or search must leave alone, as values that can be compared to the bit."""
    told: list[Any] = [torch.get_rng_state(), torch.from_numpy(np.random.get_state()[1].astype(np.int64))]  # noqa: NPY002
    told += [random.getstate(), torch.is_grad_enabled(), torch.is_autocast_cache_enabled(), autolr.is_probing()]
    for module in model.modules():
        told += [module.training, dict(module._forward_hooks)]
    for tensor in (*model.parameters(), *model.buffers()):
        told += [tensor.detach().clone(), tensor.requires_grad]
    told += [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    for group in optimizer.param_groups:
        told += [{k: v for k, v in group.items() if k != "params"}]
        for p in group["params"]:
            state = optimizer.state.get(p, {})
            told += [sorted(state)]
            told += [v.clone() if isinstance(v, torch.Tensor) else v for _, v in sorted(state.items())]
    told += [len(optimizer._optimizer_step_post_hooks), len(optimizer._optimizer_step_pre_hooks)]
    return told


def differences(before: list[Any], after: list[Any]) -> list[int]:
    """At which places two differ."""

    def same(a: Any, b: Any) -> bool:
        if isinstance(a, torch.Tensor) or isinstance(b, torch.Tensor):
            return isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) and torch.equal(a, b)
        return bool(a == b)

    if len(before) != len(after):
        return [-1]
    return [place for place, (a, b) in enumerate(zip(before, after, strict=True)) if not same(a, b)]
