"""The optimizers of the zoo, with the settings that everybody uses; only the rate differs between runs."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer


class Lion(Optimizer):
    """Lion (Chen 2023): the sign of an average of gradients; betas .9 and .99, no weight decay."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step; ``closure`` is not used."""
        del closure
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                average = state.setdefault("average", torch.zeros_like(parameter))
                parameter.sub_(torch.lerp(parameter.grad, average, 0.9).sign_(), alpha=group["lr"])
                average.lerp_(parameter.grad, 0.01)


# Fused or grouped where torch has it on a CPU: these nets are so small that the steps of an optimizer show.
OPTIMIZERS: Mapping[str, Callable[[Iterable[nn.Parameter]], Optimizer]] = {
    "sgd": lambda params: torch.optim.SGD(params, lr=0.0, fused=True),
    "momentum": lambda params: torch.optim.SGD(params, lr=0.0, momentum=0.9, fused=True),
    "adamw": lambda params: torch.optim.AdamW(params, lr=0.0, fused=True),
    "rmsprop": lambda params: torch.optim.RMSprop(params, lr=0.0, foreach=True),
    "adagrad": lambda params: torch.optim.Adagrad(params, lr=0.0, fused=True),
    "nadam": lambda params: torch.optim.NAdam(params, lr=0.0, foreach=True),
    "lion": lambda params: Lion(params, lr=0.0),
}
