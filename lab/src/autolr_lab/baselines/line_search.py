"""Steps from the loss of each minibatch: Polyak's (SPS), Armijo's line search (SLS), and a parabola (PAL)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, optim

from autolr_lab.baselines.baseline import Baseline, TrainingRun, every
from autolr_lab.training.stepper import ReplayBatch, Stepper

SPS_C, SPS_GAMMA, SPS_FIRST, SPS_EPSILON = 0.5, 2.0, 1.0, 1e-8  # the authors' code's defaults
SLS_C, SLS_BETA, SLS_GAMMA, SLS_FIRST, SLS_TRIALS, SLS_FALLBACK = 0.1, 0.9, 2.0, 1.0, 100, 1e-6  # likewise
PAL_MU, PAL_LARGEST, PAL_BETA, PAL_ALPHA = 1.0, 10**0.5, 0.4, 1 / 0.6  # likewise, of version 1.1


class _Along(Stepper):
    """Plain SGD whose rate is found anew at each step; weight decay stands beside the direction, which ignores it."""

    clips = False

    def __init__(self, parameters: Any, weight_decay: float = 0.0) -> None:
        self._parameters = list(parameters)
        super().__init__(optim.SGD(self._parameters, lr=0.0, weight_decay=weight_decay))

    def _gradients(self) -> list[Tensor]:
        return [torch.zeros_like(p) if p.grad is None else p.grad for p in self._parameters]

    def _take(self, rate: float) -> None:
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.step()

    def _loss_at(self, here: list[Tensor], direction: list[Tensor], length: float, replay: ReplayBatch) -> float:
        """The minibatch's loss, ``length`` along; the parameters are left at ``here``."""
        for p, value, d in zip(self._parameters, here, direction, strict=True):
            p.copy_(value + length * d)
        found = replay.loss()
        self.spent += 1
        for p, value in zip(self._parameters, here, strict=True):
            p.copy_(value)
        return found


class Sps(_Along):
    """rate = min(loss / (c |g|^2), gamma^(1/n) times the rate before) (Loizou et al. 2021, eq. 3, smoothed).

    Args:
        parameters: of the model.
        steps_per_epoch: n.
        weight_decay: coupled.
    """

    carried = ("_before",)

    def __init__(self, parameters: Any, steps_per_epoch: int, weight_decay: float = 0.0) -> None:
        super().__init__(parameters, weight_decay)
        self._growth = SPS_GAMMA ** (1 / steps_per_epoch)
        self._before = SPS_FIRST

    @torch.no_grad()
    def step(self, loss: Tensor, replay: ReplayBatch | None) -> None:  # noqa: ARG002
        square = float(sum(torch.sum(g * g) for g in self._gradients()))
        self._before = min(self._growth * self._before, float(loss) / (SPS_C * square + SPS_EPSILON))
        self._take(self._before)


class Sls(_Along):
    """The largest of rate, 0.9 rate, ... with loss(w - rate g) <= loss(w) - c rate |g|^2 (Vaswani et al. 2019, eq. 1).

    The search begins at gamma^(1/n) times the rate before. Where a hundred trials do not do, the rate is 1e-6.

    Args:
        parameters: of the model.
        steps_per_epoch: n.
        weight_decay: coupled.
    """

    replays = True
    least = 1
    carried = ("_before",)

    def __init__(self, parameters: Any, steps_per_epoch: int, weight_decay: float = 0.0) -> None:
        super().__init__(parameters, weight_decay)
        self._growth = SLS_GAMMA ** (1 / steps_per_epoch)
        self._before = SLS_FIRST / self._growth

    @torch.no_grad()
    def step(self, loss: Tensor, replay: ReplayBatch | None) -> None:
        assert replay is not None
        down = [-g for g in self._gradients()]
        square = float(sum(torch.sum(d * d) for d in down))
        here = [p.detach().clone() for p in self._parameters]
        rate = self._growth * self._before
        for _ in range(SLS_TRIALS):
            if self._loss_at(here, down, rate, replay) <= float(loss) - SLS_C * rate * square:
                break
            rate *= SLS_BETA
        else:
            rate = SLS_FALLBACK
        self._before = rate
        self._take(rate)


class Pal(_Along):
    """To the bottom of a parabola through loss(0), loss(mu) and the slope at 0 (Mutschler and Zell 2020, Algorithm 1).

    Along the unit vector of d = -g + beta d_before. With loss(s) = loss + b s + a s^2: -alpha b / 2a where a > 0 > b;
    mu where the parabola opens downwards and falls; no step where it rises; never more than ``PAL_LARGEST``.
    """

    replays = True
    least = 1
    carried = ("_direction",)

    def __init__(self, parameters: Any, weight_decay: float = 0.0) -> None:
        super().__init__(parameters, weight_decay)
        self._direction = [torch.zeros_like(p) for p in self._parameters]

    @torch.no_grad()
    def step(self, loss: Tensor, replay: ReplayBatch | None) -> None:
        assert replay is not None
        gradients = self._gradients()
        for d, g in zip(self._direction, gradients, strict=True):
            d.mul_(PAL_BETA).sub_(g)
        norm = float(sum(torch.sum(d * d) for d in self._direction)) ** 0.5
        if norm == 0:
            return
        unit = [d / norm for d in self._direction]
        slope = float(sum(torch.sum(g * u) for g, u in zip(gradients, unit, strict=True)))
        here = [p.detach().clone() for p in self._parameters]
        length = parabola_step(float(loss), slope, self._loss_at(here, unit, PAL_MU, replay))
        for p, u in zip(self._parameters, unit, strict=True):
            p.grad = -u
        self._take(length)


def parabola_step(loss: float, slope: float, loss_at_mu: float) -> float:
    """PAL's step length from a loss, its slope along the direction, and the loss at ``PAL_MU``.

    Example:
        >>> parabola_step(1.0, -1.0, 0.5)  # 1 - s + s^2 / 2 has its bottom at 1
        1.6666666666666667
    """
    curvature = (loss_at_mu - loss - slope * PAL_MU) / PAL_MU**2
    if slope >= 0:
        return 0.0
    found = -PAL_ALPHA * slope / (2 * curvature) if curvature > 0 else PAL_MU
    return min(found, PAL_LARGEST)


def _sps(run: TrainingRun) -> Stepper:
    return Sps(run.model.parameters(), run.steps_per_epoch, run.weight_decay)


def _sls(run: TrainingRun) -> Stepper:
    return Sls(run.model.parameters(), run.steps_per_epoch, run.weight_decay)


def _pal(run: TrainingRun) -> Stepper:
    return Pal(run.model.parameters(), run.weight_decay)


_SGD_ONLY = "SGD's direction only: it stands in for Adam all the same."

SPS = Baseline(
    name="sps", title="SPS",
    source="Loizou et al. 2021, arXiv 2002.10542; ours, from its equation 3 (the authors' is in no registry)",
    usage="c 0.5, smoothed with gamma 2, from 1.0: the authors' code's defaults; the loss can come down to 0.",
    limits=f"Too long steps where the loss cannot come down to 0. {_SGD_ONLY}", build=_sps, rates=every(0.0),
)  # fmt: skip

SLS = Baseline(
    name="sls", title="SLS",
    source="Vaswani et al. 2019, arXiv 1905.09997; ours, from its equation 1 (the authors' is in no registry)",
    usage="c 0.1, shrinking by 0.9, growing by 2 an epoch, from 1.0: the authors' code's defaults.",
    limits=f"One forward pass or more a step beside the training's. {_SGD_ONLY}", build=_sls, rates=every(0.0),
)  # fmt: skip

PAL = Baseline(
    name="pal", title="PAL",
    source="Mutschler and Zell 2020, arXiv 1903.11991; ours, from its Algorithm 1 (the authors' is in no registry)",
    usage="mu 1, longest step 3.16, beta 0.4, alpha 1.67: version 1.1's defaults.",
    limits=f"One forward pass a step beside the training's; all weights along one line. {_SGD_ONLY}", build=_pal,
    rates=every(0.0),
)  # fmt: skip
