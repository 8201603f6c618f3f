"""The optimizers that have a name here, each with the settings that its paper or torch made the standard."""

from __future__ import annotations

import functools
from collections.abc import Callable

from torch import optim

MOMENTUM = 0.9  # the reference implementations that the paper names for CIFAR-10 and ImageNet
LESS = 0.5  # the default of the one that it names for MNIST, pytorch/examples/mnist

# Called as (parameters, lr, **options): the options are what a workload's reference sets beside the rate.
OPTIMIZERS: dict[str, Callable[..., optim.Optimizer]] = {
    "sgd": optim.SGD,
    "momentum": functools.partial(optim.SGD, momentum=MOMENTUM),
    "momentum-0.5": functools.partial(optim.SGD, momentum=LESS),
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
