"""What every baseline has: where it comes from, how it is used, what it cannot do, and how a run of it is made."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from autolr.measure.evaluated import LossFunction
from autolr_lab.baselines.schedules import Schedule, make_schedule
from autolr_lab.training.optimizers import LESS, MOMENTUM, OPTIMIZERS
from autolr_lab.training.stepper import Stepper

SGD = {"sgd": 0.0, "momentum": MOMENTUM, "momentum-0.5": LESS}  # optimizers of SGD's family -> their momentum
ADAM = {"adam": False, "adamw": True}  # of Adam's family -> whether weight decay is decoupled
ADAMW_DECAY = 0.01  # torch's default


@dataclass(frozen=True)
class TrainingRun:
    """A run of which a baseline takes the steps."""

    model: nn.Module
    optimizer: str  # whose place it takes
    lr: float
    options: Mapping[str, Any]  # that optimizer's settings in this workload
    loss: LossFunction
    batches: Callable[[], Any]  # training minibatches, in an order of their own
    steps_per_epoch: int
    total_steps: int
    budgeted: bool = False  # whether what it spends beside training comes out of its steps
    asked: Mapping[str, Any] = field(default_factory=dict)  # its own settings, where they are not the defaults

    @property
    def weight_decay(self) -> float:
        """Of the optimizer in whose place it stands."""
        return float(self.options.get("weight_decay", ADAMW_DECAY if self.optimizer == "adamw" else 0.0))

    @property
    def decay(self) -> dict[str, Any]:
        return {"weight_decay": self.weight_decay}

    @property
    def betas(self) -> dict[str, Any]:
        """Adam's, where the workload sets them."""
        return {"betas": self.options["betas"]} if "betas" in self.options else {}

    @property
    def has_batch_norm(self) -> bool:
        """Whether running statistics have to fit the weights that are evaluated."""
        return any(isinstance(module, _BatchNorm) for module in self.model.modules())

    def base(self, lr: float | None = None) -> Optimizer:
        return OPTIMIZERS[self.optimizer](self.model.parameters(), self.lr if lr is None else lr, **self.options)

    def cosine(self, optimizer: Optimizer) -> Schedule:
        return make_schedule("cosine", optimizer, self.total_steps)


@dataclass(frozen=True)
class Baseline:
    """One way to do without a tuned rate."""

    name: str
    title: str
    source: str  # the paper, and where the code is from
    usage: str  # which settings, as its authors document them
    limits: str  # what it cannot do
    build: Callable[[TrainingRun], Stepper]
    package: str = ""  # the distribution that it is from; empty where the code is ours
    module: str = ""  # of that distribution
    rates: Mapping[str, float] | None = None  # by optimizer, as documented; None: the workload's seed rate
    seeded: bool = False  # whether the rate is the user's to choose
    defaults: Mapping[str, Any] = field(default_factory=dict)  # settings that may be given other values
    optimizers = (*SGD, *ADAM)  # in whose place it can stand

    def rate(self, optimizer: str, seed_rate: float) -> float:
        """``Settings.lr`` where nothing else is said."""
        return seed_rate if self.rates is None else self.rates[optimizer]

    def check(self, optimizer: str, asked: Mapping[str, Any]) -> None:
        """Raise a ValueError if it has not this optimizer or setting, or its package is not installed."""
        if optimizer not in self.optimizers:
            allowed = ", ".join(self.optimizers)
            raise ValueError(f"{self.name} stands in for {allowed}; got the optimizer {optimizer!r}.")
        for setting in asked:
            if setting not in self.defaults:
                allowed = ", ".join(f"{k}={v}" for k, v in self.defaults.items()) or "none"
                raise ValueError(f"{self.name} has no option {setting!r}. It has: {allowed}.")
        if self.package:
            try:
                importlib.import_module(self.module)
            except ImportError as error:
                raise ValueError(
                    f"{self.name} needs the package {self.package} ({error}): pip install -e 'lab[baselines]'."
                ) from error

    def make(self, run: TrainingRun) -> Stepper:
        """What takes the steps of ``run``; raises as `check` does."""
        self.check(run.optimizer, run.asked)
        return self.build(run)


def every(rate: float) -> dict[str, float]:
    """One rate for all optimizers."""
    return dict.fromkeys((*SGD, *ADAM), rate)
