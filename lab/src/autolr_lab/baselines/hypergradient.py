"""Hypergradient descent (Baydin et al. 2018): gradient descent on the rate itself, over any optimizer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from autolr_lab.baselines.baseline import ADAM, SGD, Baseline, TrainingRun
from autolr_lab.training.stepper import ReplayBatch, Stepper


class Hypergradient(Stepper):
    """rate_t = rate_{t-1} + beta g_t . u_{t-1}, the additive rule (eq. 5), where -rate u is the step before.

    The step is taken as it was, weight decay and momentum included, so the rule holds over any optimizer. As in the
    paper, nothing stops the rate at 0 or above a bound.

    Args:
        optimizer: any, all its groups at one rate.
        beta: the rate of the rate.
    """

    carried = ("_step",)

    def __init__(self, optimizer: Optimizer, beta: float) -> None:
        super().__init__(optimizer)
        self._beta = beta
        self._step: list[Tensor] | None = None  # u, of the step before
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]

    @torch.no_grad()
    def step(self, loss: Tensor, replay: ReplayBatch | None) -> None:
        rate = self.rate
        if self._step is not None:
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._parameters]
            rate += self._beta * float(sum(torch.sum(g * u) for g, u in zip(gradients, self._step, strict=True)))
            for group in self.optimizer.param_groups:
                group["lr"] = rate
        before = [p.detach().clone() for p in self._parameters]
        super().step(loss, replay)
        if rate != 0:  # a rate that came to 0 keeps the direction that it had
            self._step = [(b - p) / rate for b, p in zip(before, self._parameters, strict=True)]


BETAS: dict[str, float] = dict.fromkeys(SGD, 1e-3) | dict.fromkeys(ADAM, 1e-7)


def _build(run: TrainingRun) -> Stepper:
    asked: Any = run.asked.get("beta")
    return Hypergradient(run.base(), BETAS[run.optimizer] if asked is None else float(asked))


HYPERGRADIENT = Baseline(
    name="hypergradient", title="Hypergradient",
    source="Baydin et al. 2018, arXiv 1703.04782; ours, from its equations 4-8",
    usage="Over the workload's optimizer, from its seed rate; beta 1e-3 for SGD, 1e-7 for Adam: as on its MNIST.",
    limits="Needs two rates in place of one, its own among them; nothing keeps the rate from exploding.",
    build=_build, seeded=True, defaults={"beta": None},
)  # fmt: skip
