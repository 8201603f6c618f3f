"""How long an optimizer's first steps are: told by a new one of its kind, on four numbers with a constant gradient."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from autolr.numerics.build_up import settled

RATE = 1e-6  # so small that the parameters stay what they are
GRADIENT = 1e-3  # as of one weight of many; RAdam's first steps depend on it
MOST_STILL = 16  # steps at the start that may move nothing
# Without what would have a step depend on the parameters, the machine, or the gradient's sign.
PLAIN = {
    "lr": RATE, "weight_decay": 0.0, "maximize": False, "capturable": False, "differentiable": False, "fused": None,
    "foreach": None,
}  # fmt: skip


def first_steps(optimizer: Optimizer) -> tuple[float, ...] | None:
    """The lengths of the first steps over the last one's, as far as they change, in the settings of the largest group.

    Steps at the start that move nothing are left out, as in short runs. Of an optimizer that has stepped already all
    steps count as alike. Neither it nor its parameters are touched; random numbers may be drawn.

    Returns:
        None where no optimizer of this kind can be made from the settings in its group.

    Example:
        >>> sgd = torch.optim.SGD([nn.Parameter(torch.zeros(3))], lr=0.1, momentum=0.5)
        >>> [round(length, 3) for length in first_steps(sgd)[:4]]
        [0.5, 0.75, 0.875, 0.938]
    """
    kind, group = max(_groups(optimizer), key=lambda pair: sum(p.numel() for p in pair[1]["params"]))
    if _has_stepped(optimizer):
        return (1.0,)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the user has seen those of the one that this is like
        try:
            return _followed(kind, group)
        except Exception:  # somebody else's constructor may want or do anything
            return None


def _groups(optimizer: Optimizer) -> Iterator[tuple[type[Optimizer], dict[str, Any]]]:
    """Every group with the class that steps it: inside of wrappers and of several that train together."""
    if isinstance(within := getattr(optimizer, "optimizer", None), Optimizer):
        yield from _groups(within)
    elif several := getattr(optimizer, "optimizers", ()):
        for one in several:
            yield from _groups(one)
    else:
        yield from ((type(optimizer), group) for group in optimizer.param_groups)


def _has_stepped(optimizer: Optimizer) -> bool:
    """Some fill their state when they are made, and count from a step of 0."""
    return any(bool(state.get("step", 1)) for state in optimizer.state.values() if state)


def _followed(kind: type[Optimizer], group: dict[str, Any]) -> tuple[float, ...] | None:
    parameter = nn.Parameter(torch.ones(2, 2, dtype=torch.float64, device="cpu"))
    takes = inspect.signature(kind).parameters.keys() - {"params"}
    settings: dict[str, Any] = {name: value for name, value in {**group, **PLAIN}.items() if name in takes}
    one = kind([parameter], **settings)
    lengths: list[float] = []
    still = 0
    while not settled(lengths) and still < MOST_STILL:
        before = parameter.detach().clone()
        parameter.grad = torch.full_like(parameter, GRADIENT)
        one.step()
        length = float((parameter.detach() - before).norm())
        if lengths or length > 0:
            lengths.append(length)
        else:
            still += 1
    return tuple(length / lengths[-1] for length in lengths) or None
