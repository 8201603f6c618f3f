"""vSGD with finite differences (Schaul and LeCun 2013): a rate for each weight, from gradient noise and curvature."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, optim

from autolr.numerics.cost import FORWARDS_PER_STEP
from autolr_lab.baselines.baseline import Baseline, TrainingRun, every
from autolr_lab.training.stepper import ReplayBatch, Stepper

SLOW_START = 10  # steps in which averages are gathered before the first parameter moves
CAUTION = 10.0  # by which the averages of squares begin too large: the paper's C
EPSILON = 1e-12


class Vsgd(Stepper):
    """rate_i = (h_i / h2_i) g_i^2 / v_i of each weight (Algorithm 1 of arXiv 1301.3764), a minibatch as one sample.

    g, v are running averages of a weight's gradient and its square; h, h2 of the curvature and its square, the
    curvature being how much the gradient on the same minibatch changes over a shift by g. How long each average
    remembers, tau, is adapted: (1 - g^2 / v) tau + 1, one longer still where a sample is an outlier.

    Args:
        parameters: of the model.
        weight_decay: decoupled, at each weight's own rate.
    """

    replays, clips = True, False
    least = FORWARDS_PER_STEP
    carried = ("_steps", "_averages", "_rate")

    def __init__(self, parameters: Any, weight_decay: float = 0.0) -> None:
        self._parameters = list(parameters)
        super().__init__(optim.SGD(self._parameters, lr=1.0))
        self._weight_decay = weight_decay
        self._steps, self._rate = 0, 0.0
        self._averages = [{name: torch.zeros_like(p) for name in ("g", "v", "h", "h2")} for p in self._parameters]
        for p, averages in zip(self._parameters, self._averages, strict=True):
            averages["tau"] = torch.full_like(p, float(SLOW_START))

    @property
    def rate(self) -> float:
        """The median over the weights, of the step before."""
        return self._rate

    def step(self, loss: Tensor, replay: ReplayBatch | None) -> None:
        assert replay is not None
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad.detach().clone() for p in self._parameters]
        self._steps += 1
        # Before there is an average, the gradient itself is the shift.
        shifts = [
            _away_from_zero(g if self._steps == 1 else a["g"])
            for g, a in zip(gradients, self._averages, strict=True)
        ]  # fmt: skip
        curvatures = self._curvatures(gradients, shifts, replay)
        with torch.no_grad():
            rates = []
            for p, g, h, averages in zip(self._parameters, gradients, curvatures, self._averages, strict=True):
                rate = self._learn(g, h, averages)
                p.grad = rate * (g + self._weight_decay * p)
                rates.append(rate.flatten())
            if self._steps > SLOW_START:
                self._rate = float(torch.cat(rates).median())
                super().step(loss, replay)

    def _curvatures(self, gradients: list[Tensor], shifts: list[Tensor], replay: ReplayBatch) -> list[Tensor]:
        here = [p.detach().clone() for p in self._parameters]
        with torch.no_grad():
            for p, shift in zip(self._parameters, shifts, strict=True):
                p.add_(shift)
        replay.gradients()
        self.spent += FORWARDS_PER_STEP
        with torch.no_grad():
            for p, value in zip(self._parameters, here, strict=True):
                p.copy_(value)
        there = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._parameters]
        return [((g - t) / s).abs() for g, t, s in zip(gradients, there, shifts, strict=True)]

    def _learn(self, g: Tensor, h: Tensor, averages: dict[str, Tensor]) -> Tensor:
        """Take a sample into the averages; returns each weight's rate."""
        tau = averages["tau"]
        if self._steps <= SLOW_START:  # plain means, of which those of squares begin too large
            for name, value in (("g", g), ("v", g * g), ("h", h), ("h2", h * h)):
                averages[name] += (value - averages[name]) / self._steps
            if self._steps == SLOW_START:
                averages["v"] *= CAUTION
                averages["h2"] *= CAUTION
            return torch.zeros_like(g)
        outlier = _outlying(g, averages["g"], averages["v"]) | _outlying(h, averages["h"], averages["h2"])
        tau += outlier.to(tau)
        for name, value in (("g", g), ("v", g * g), ("h", h), ("h2", h * h)):
            averages[name] += (value - averages[name]) / tau
        signal = averages["g"] ** 2 / (averages["v"] + EPSILON)  # at most 1: a mean's square and a mean square
        rate = averages["h"] / (averages["h2"] + EPSILON) * signal
        tau.mul_(1 - signal).add_(1)
        return rate


def _outlying(value: Tensor, mean: Tensor, square: Tensor) -> Tensor:
    return (value - mean).abs() > 2 * (square - mean**2).clamp_min(0).sqrt()


def _away_from_zero(shift: Tensor) -> Tensor:
    """A shift that can be divided by."""
    return torch.where(shift.abs() < EPSILON, torch.full_like(shift, 1e-5), shift)


def _build(run: TrainingRun) -> Stepper:
    return Vsgd(run.model.parameters(), weight_decay=run.weight_decay)


VSGD = Baseline(
    name="vsgd", title="vSGD",
    source="Schaul and LeCun 2013, arXiv 1301.3764, of Schaul, Zhang and LeCun 2013; ours, from its Algorithm 1",
    usage="With finite differences, a minibatch as one sample; nothing to set.",
    limits="A second gradient each step: half the steps of an equal budget. Six more copies of the weights.",
    build=_build, rates=every(0.0),
)  # fmt: skip
