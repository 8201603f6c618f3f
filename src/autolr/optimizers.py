"""The optimizers that the command line knows by name, each with the settings its paper or torch made the standard."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import Tensor, optim

MOMENTUM = 0.9  # the reference implementations that the paper names use 0.9 where they say "momentum"

OPTIMIZERS: dict[str, Callable[[Iterable[Tensor], float], optim.Optimizer]] = {
    "sgd": lambda params, lr: optim.SGD(params, lr=lr),
    "momentum": lambda params, lr: optim.SGD(params, lr=lr, momentum=MOMENTUM),
    "nesterov": lambda params, lr: optim.SGD(params, lr=lr, momentum=MOMENTUM, nesterov=True),
    "adam": lambda params, lr: optim.Adam(params, lr=lr),
    "adamw": lambda params, lr: optim.AdamW(params, lr=lr),
    "rmsprop": lambda params, lr: optim.RMSprop(params, lr=lr),
    "adagrad": lambda params, lr: optim.Adagrad(params, lr=lr),
    "adadelta": lambda params, lr: optim.Adadelta(params, lr=lr),
    "nadam": lambda params, lr: optim.NAdam(params, lr=lr),
    "radam": lambda params, lr: optim.RAdam(params, lr=lr),
    "adamax": lambda params, lr: optim.Adamax(params, lr=lr),
}
