"""How long an optimizer's first steps are: told by a new one of its kind, on a matrix of gradients about one mean."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from autolr.measure.optimizer_parts import nested
from autolr.measure.short_run import MOST_STILL
from autolr.numerics.build_up import settled
from autolr.runtime.quiet import quiet

RATE = 1e-6  # so small that the parameters stay what they are
SIDE = 32  # of the matrix
# What it holds at first; some optimizers know no float64, and float32 rounds away such steps from anything but zero.
STARTS = ((torch.float64, 1.0), (torch.float32, 0.0))
GRADIENT = 1e-3  # the mean, as of one weight of many: RAdam's first steps depend on it
NOISE = 1.0  # standard deviation over the mean; without any, what divides by a variance would divide by none
# Without what would have a step depend on the parameters, the machine, or the gradient's sign.
PLAIN = {
    "lr": RATE, "weight_decay": 0.0, "maximize": False, "capturable": False, "differentiable": False, "fused": None,
    "foreach": None,
}  # fmt: skip


def first_steps(optimizer: Optimizer) -> tuple[float, ...]:
    """How far each of the first steps goes against the mean gradient, until they grow no more.

    Over the rate and the gradient, in the settings of the group with the most weights that train. Steps at the start
    that move nothing are left out, as in short runs. Of an optimizer that has stepped already all steps count as alike.
    Neither it nor its parameters are touched; random numbers may be drawn.

    Returns:
        Nothing where no optimizer of this kind, nor of what it wraps, can be made and stepped on a matrix.

    Example:
        >>> sgd = torch.optim.SGD([nn.Parameter(torch.zeros(3))], lr=0.1, momentum=0.5)
        >>> [round(length, 3) for length in first_steps(sgd)[:4]]
        [1.0, 1.5, 1.75, 1.875]
    """
    groups = [(one, group) for one in nested(optimizer) for group in one.param_groups]
    _, largest = max(groups, key=lambda pair: _trained(pair[1]))
    held = set(map(id, largest["params"]))
    same = [pair for pair in groups if set(map(id, pair[1]["params"])) == held]  # of a wrapper, and of what it wraps
    with quiet(), _uncompiled():  # the user has seen the warnings of the one that this is like
        with contextlib.suppress(Exception):  # somebody else's optimizer may have any state
            if any(_has_stepped(one, group) for one, group in same):
                return (1.0,)
        for (one, group), (dtype, value) in itertools.product(same, STARTS):
            with contextlib.suppress(Exception):  # and its constructor may want anything
                return _followed(type(one), group, torch.full((SIDE, SIDE), value, dtype=dtype, device="cpu"))
    return ()


def _trained(group: Mapping[str, Any]) -> int:
    return sum(p.numel() for p in group["params"] if p.requires_grad) if group.get("lr", 1) else 0


def _has_stepped(optimizer: Optimizer, group: Mapping[str, Any]) -> bool:
    """Whether there is a state; some make theirs at once, and count from a step of 0."""
    state: Mapping[Any, Any] = optimizer.state
    return any(bool(own.get("step", 1)) for p in group["params"] if (own := state.get(p)))


def _followed(kind: type[Optimizer], group: Mapping[str, Any], start: Tensor) -> tuple[float, ...]:
    parameter = nn.Parameter(start)
    wanted = {name: value for name, value in {**group, **PLAIN}.items() if name != "params"}
    takes = inspect.signature(kind).parameters
    named = {name: value for name, value in wanted.items() if name in takes}
    one = kind([{**wanted, "params": [parameter]}], **named)
    if callable(switch := getattr(one, "train", None)):
        switch()
    lengths: list[float] = []
    for number, gradient in enumerate(_gradients()):
        before = parameter.detach().clone()
        parameter.grad = gradient.to(start.dtype)
        one.step()
        length = float((before - parameter.detach()).double().mean())
        if lengths or length != 0:
            lengths.append(length / (RATE * GRADIENT))
        if settled(lengths) or (number >= MOST_STILL and not lengths):
            break
    return tuple(lengths)


def _gradients() -> Iterator[Tensor]:
    """Normal noise about the mean; the mean over each matrix has none."""
    generator = torch.Generator().manual_seed(0)
    quantiles = (torch.arange(SIDE * SIDE, dtype=torch.float64, device="cpu") + 0.5) / SIDE**2
    noise = NOISE * torch.special.ndtri(quantiles)
    while True:
        order = torch.randperm(SIDE * SIDE, generator=generator, device="cpu")
        yield GRADIENT * (1 + noise[order]).view(SIDE, SIDE)


def _uncompiled() -> contextlib.AbstractContextManager[Any]:
    """Steps that are compiled are taken as they are written: compiling takes longer than all of them."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else contextlib.nullcontext()
