"""Optimizers whose first steps move nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Adam, Optimizer

COLLECTED = 4  # micro-steps of a `Collecting` optimizer to one that moves


class Preparing(Adam):
    """Spends its first step on its statistics, as SOAP does with its preconditioner."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Keep the parameters as they are, the first time."""
        group = self.param_groups[0]
        first, group["prepared"] = not group.get("prepared", False), True
        held = [p.clone() for group in self.param_groups for p in group["params"]] if first else []
        result = super().step(closure)
        if first:
            torch._foreach_copy_([p for group in self.param_groups for p in group["params"]], held)
        return result


class Adopt(Optimizer):
    """Adam's momentum of gradients over the *last* second moment: the first step only makes that moment (ADOPT)."""

    def __init__(self, parameters: Any, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.99)) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]  # noqa: ARG002
        """One step."""
        for group in self.param_groups:
            first, second = group["betas"]
            for p in (p for p in group["params"] if p.grad is not None):
                state = self.state[p]
                if not state:
                    state["square"], state["mean"], state["step"] = p.grad.square(), torch.zeros_like(p), 0
                    continue
                state["step"] += 1
                bound = state["step"] ** 0.25
                normed = p.grad / state["square"].sqrt().clamp_min(1e-6)
                state["mean"].lerp_(normed.clamp_(-bound, bound), 1 - first)
                p.sub_(group["lr"] * state["mean"])
                state["square"].lerp_(p.grad.square(), 1 - second)


class Collecting(Adam):
    """Called after each micro-batch, it moves at each fourth call: gradient accumulation inside the optimizer."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Add the gradients up, or step."""
        group = self.param_groups[0]
        group["calls"] = group.get("calls", 0) + 1
        for p in (p for group in self.param_groups for p in group["params"] if p.grad is not None):
            summed = self.state[p].setdefault("summed", torch.zeros_like(p))
            summed.add_(p.grad / COLLECTED)
            p.grad.copy_(summed)
        if group["calls"] % COLLECTED:
            return None
        for p in (p for group in self.param_groups for p in group["params"] if p.grad is not None):
            self.state[p].pop("summed")
        return super().step(closure)
