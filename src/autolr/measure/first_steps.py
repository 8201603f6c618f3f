"""How long an optimizer's first steps are: told by a new one of its kind, on four numbers with a constant gradient."""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from autolr.measure.optimizer_parts import nested
from autolr.numerics.build_up import settled

RATE = 1e-6  # so small that the parameters stay what they are
GRADIENT = 1e-3  # as of one weight of many; RAdam's first steps depend on it
MOST_STILL = 16  # steps at the start that may move nothing
# Without what would have a step depend on the parameters, the machine, or the gradient's sign.
PLAIN = {
    "lr": RATE, "weight_decay": 0.0, "maximize": False, "capturable": False, "differentiable": False, "fused": None,
    "foreach": None,
}  # fmt: skip


def first_steps(optimizer: Optimizer) -> tuple[float, ...]:
    """The lengths of the first steps over the last one's, as far as they change, in the settings of the largest group.

    Steps at the start that move nothing are left out, as in short runs. Of an optimizer that has stepped already all
    steps count as alike. Neither it nor its parameters are touched; random numbers may be drawn.

    Returns:
        Nothing where no optimizer of this kind can be made from the settings in its groups.

    Example:
        >>> sgd = torch.optim.SGD([nn.Parameter(torch.zeros(3))], lr=0.1, momentum=0.5)
        >>> [round(length, 3) for length in first_steps(sgd)[:4]]
        [0.5, 0.75, 0.875, 0.938]
    """
    optimizers = nested(optimizer)
    if any(map(_has_stepped, optimizers)):
        return (1.0,)
    groups = [(type(one), group) for one in optimizers for group in one.param_groups]
    groups.sort(key=lambda pair: -sum(p.numel() for p in pair[1]["params"]))  # wrappers before what they wrap
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the user has seen those of the one that this is like
        for kind, group in groups:
            # Somebody else's constructor may want or do anything.
            with contextlib.suppress(Exception):
                return _followed(kind, group)
    return ()


def _has_stepped(optimizer: Optimizer) -> bool:
    """Whether it has a state; some make theirs at once, and count from a step of 0."""
    state: Mapping[Any, Any] = optimizer.state
    held = (state.get(p) for group in optimizer.param_groups for p in group["params"])
    return any(bool(own.get("step", 1)) for own in held if own)


def _followed(kind: type[Optimizer], group: Mapping[str, Any]) -> tuple[float, ...]:
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
    return tuple(length / lengths[-1] for length in lengths)
