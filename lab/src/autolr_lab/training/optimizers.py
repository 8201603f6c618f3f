"""The optimizers that have a name here, each with the settings that its paper or torch made the standard."""

from __future__ import annotations

import functools
from collections.abc import Callable

from torch import optim

MOMENTUM = 0.9  # the reference implementations that the paper names use 0.9 where they say "momentum"

# Called as (parameters, lr, **options): the options are what a workload's reference sets beside the rate.
OPTIMIZERS: dict[str, Callable[..., optim.Optimizer]] = {
    "sgd": optim.SGD,
    "momentum": functools.partial(optim.SGD, momentum=MOMENTUM),
    "nesterov": functools.partial(optim.SGD, momentum=MOMENTUM, nesterov=True),
    "adam": optim.Adam,
    "adamw": optim.AdamW,
    "rmsprop": optim.RMSprop,
    "adagrad": optim.Adagrad,
    "adadelta": optim.Adadelta,
    "nadam": optim.NAdam,
    "radam": optim.RAdam,
    "adamax": optim.Adamax,
}
