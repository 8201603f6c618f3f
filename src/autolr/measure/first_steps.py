"""How long an optimizer's first steps are: told by a new one of its kind, on a matrix whose gradient only scatters."""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from autolr.measure.optimizer_parts import nested
from autolr.numerics.build_up import MOST, settled

RATE = 1e-6  # so small that the parameters stay what they are
SIDE = 32  # of the matrix
GRADIENT = 1e-3  # its mean, as of one weight of many: RAdam's first steps depend on it
NOISE = 1.0  # its standard deviation over its mean; without any, what divides by a variance would divide by none
MOST_STILL = 16  # steps at the start that may move nothing
# Without what would have a step depend on the parameters, the machine, or the gradient's sign.
PLAIN = {
    "lr": RATE, "weight_decay": 0.0, "maximize": False, "capturable": False, "differentiable": False, "fused": None,
    "foreach": None,
}  # fmt: skip


def first_steps(optimizer: Optimizer) -> tuple[float, ...]:
    """How far each of the first steps goes against the mean gradient, until they change no more.

    Over the rate and the gradient, in the settings of the largest group that an optimizer can be made with.

    Steps at the start that move nothing are left out, as in short runs. Of an optimizer that has stepped already all
    steps count as alike. Neither it nor its parameters are touched; random numbers may be drawn.

    Returns:
        Nothing where no optimizer of this kind can be made from the settings in its groups.

    Example:
        >>> sgd = torch.optim.SGD([nn.Parameter(torch.zeros(3))], lr=0.1, momentum=0.5)
        >>> [round(length, 3) for length in first_steps(sgd)[:4]]
        [1.0, 1.5, 1.75, 1.875]
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
    state: Mapping[Any, Any] = getattr(optimizer, "state", {})
    held = (state.get(p) for group in optimizer.param_groups for p in group["params"])
    return any(bool(own.get("step", 1)) for own in held if own)


def _followed(kind: type[Optimizer], group: Mapping[str, Any]) -> tuple[float, ...]:
    parameter = nn.Parameter(torch.ones(SIDE, SIDE, dtype=torch.float64, device="cpu"))
    takes = inspect.signature(kind).parameters.keys() - {"params"}
    settings: dict[str, Any] = {name: value for name, value in {**group, **PLAIN}.items() if name in takes}
    one = kind([parameter], **settings)
    lengths: list[float] = []
    for gradient in _gradients():
        before = parameter.detach().clone()
        parameter.grad = gradient
        one.step()
        length = float((before - parameter.detach()).mean())
        if lengths or length != 0:
            lengths.append(length / (RATE * GRADIENT))
        if settled(lengths):
            break
    return tuple(lengths)


def _gradients() -> Iterator[Tensor]:
    """Normal noise about the mean; the mean over each matrix has none."""
    generator = torch.Generator().manual_seed(0)
    quantiles = (torch.arange(SIDE * SIDE, dtype=torch.float64, device="cpu") + 0.5) / SIDE**2
    noise = NOISE * torch.special.ndtri(quantiles)
    for _ in range(MOST_STILL + MOST):
        order = torch.randperm(SIDE * SIDE, generator=generator, device="cpu")
        yield GRADIENT * (1 + noise[order]).view(SIDE, SIDE)
