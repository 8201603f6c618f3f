"""L4 (Rolinek and Martius 2018): the step that takes the linearised loss a fixed share of the way to its minimum."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, optim

from autolr_lab.baselines.baseline import ADAM, Baseline, TrainingRun, every
from autolr_lab.training.stepper import ReplayBatch, Stepper

ALPHA, GAMMA, GAMMA_0, TAU, EPSILON = 0.15, 0.9, 0.75, 1000.0, 1e-12  # the paper's, for all its experiments
TAU_M, TAU_S, ADAM_EPSILON = 10.0, 1000.0, 1e-4  # [steps] of the averages of gradients and of their squares


class L4(Stepper):
    """rate = alpha (L - gamma L_min) / (g . v + epsilon), along v (section 3).

    g is the bias-corrected average of the gradients; v is g too (L4Mom), or g over the root of the average square
    (L4Adam). L_min is the lowest loss seen, at first ``GAMMA_0`` of the first one, and grows by 1 + 1 / tau a step.

    Args:
        parameters: of the model.
        adam: whether v is Adam's direction.
        weight_decay: decoupled: beside v in the step.
    """

    clips = False
    carried = ("_lowest", "_steps", "_means", "_squares")

    def __init__(self, parameters: Any, adam: bool, weight_decay: float = 0.0) -> None:
        self._parameters = list(parameters)
        super().__init__(optim.SGD(self._parameters, lr=0.0, weight_decay=weight_decay))
        self._adam = adam
        self._lowest, self._steps = 0.0, 0
        self._means = [torch.zeros_like(p) for p in self._parameters]
        self._squares = [torch.zeros_like(p) for p in self._parameters] if adam else []

    @torch.no_grad()
    def step(self, loss: Tensor, replay: ReplayBatch | None) -> None:
        value = float(loss)
        self._lowest = min(self._lowest, value) if self._steps else GAMMA_0 * value
        self._steps += 1
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._parameters]
        slope = _averaged(self._means, gradients, TAU_M, self._steps)
        along = slope
        if self._adam:
            squares = _averaged(self._squares, [g * g for g in gradients], TAU_S, self._steps)
            along = [g / (s.sqrt() + ADAM_EPSILON) for g, s in zip(slope, squares, strict=True)]
        product = float(sum(torch.sum(g * v) for g, v in zip(slope, along, strict=True)))
        self.optimizer.param_groups[0]["lr"] = ALPHA * (value - GAMMA * self._lowest) / (product + EPSILON)
        for parameter, v in zip(self._parameters, along, strict=True):
            parameter.grad = v
        self._lowest *= 1 + 1 / TAU
        super().step(loss, replay)


def _averaged(means: list[Tensor], values: list[Tensor], tau: float, steps: int) -> list[Tensor]:
    """Move each mean by 1 / tau towards its value; returns them corrected for their start at 0."""
    for mean, value in zip(means, values, strict=True):
        mean.lerp_(value, 1 / tau)
    return [mean / (1 - (1 - 1 / tau) ** steps) for mean in means]


def _build(run: TrainingRun) -> Stepper:
    return L4(run.model.parameters(), adam=run.optimizer in ADAM, weight_decay=run.weight_decay)


L4_BASELINE = Baseline(
    name="l4", title="L4",
    source="Rolinek and Martius 2018, arXiv 1802.05074; ours, from its section 3 (the authors' is for TensorFlow 1)",
    usage="L4Mom in place of SGD, L4Adam in place of Adam; alpha 0.15, gamma 0.9, tau 1000 everywhere.",
    limits="The loss must not fall below 0, and must be able to come near it.", build=_build, rates=every(0.0),
)  # fmt: skip
