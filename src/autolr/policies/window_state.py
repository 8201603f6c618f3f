"""The window and the probe under way: what a policy that decides at the ends of windows carries between two steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from autolr.numerics.quadratic import Quadratic, fit_quadratic
from autolr.numerics.saturation import LossDrop, loss_drop
from autolr.policies.base import Trigger


@dataclass(frozen=True, slots=True)
class WindowResult:
    """What was seen over one window of steps at one learning rate."""

    step: int  # optimizer steps taken when the window ended, counted from 1
    total_steps: int
    lr: float
    start_loss: float  # mean over the superbatch where the window began; NaN where it diverged
    end_loss: float  # the same superbatch where the window ended
    steps: int  # from one end to the other
    drop: LossDrop | None  # None where a loss is not finite


@dataclass(frozen=True, slots=True)
class ProbeFit:
    """What was seen along one step of the optimizer, or pooled over several."""

    step: int
    total_steps: int
    lr: float
    loss: float  # at eps = 0, after the step, mean over the superbatch
    quadratic: Quadratic | None  # None where a loss is not finite
    why: Trigger = Trigger.MONITORING  # why the window's end was probed
    last: bool = True  # whether there is no more to see: the answer is then not "look"
    checks: int = 1  # how often the policy is asked at most before this probe ends


@dataclass(frozen=True, slots=True)
class OpenWindow:
    """Where a window began, and what is needed to judge it."""

    start: int  # steps taken when it began
    superbatch: int  # number of the superbatch that both its ends are measured on
    losses: tuple[float, ...]  # of that superbatch's minibatches, where it began

    def ended(self, step: int, total_steps: int, lr: float, losses: Sequence[float]) -> WindowResult:
        """The window's result, ``losses`` being those of the same minibatches after ``step`` steps."""
        steps = step - self.start
        before = list(self.losses)
        drop = loss_drop(before, list(losses), steps) if finite(before) and finite(losses) else None
        return WindowResult(step, total_steps, lr, mean(before), mean(losses), steps, drop)


@dataclass(frozen=True, slots=True)
class ProbeState:
    """The losses of a probe so far. Each observation holds one loss for each eps."""

    window: WindowResult  # the one that ended with it
    why: Trigger  # the policy's reason for probing
    numbers: Mapping[str, float] = field(default_factory=dict)  # of that reason
    observations: tuple[tuple[float, ...], ...] = ()
    validation: tuple[tuple[float, ...], ...] = ()  # a loss for each validation eps, step by step
    steps: int = 0

    def add(self, steps: Sequence[Sequence[Sequence[float]]], eps: int, *, pooled: bool) -> ProbeState:
        """With what was seen along further steps, each ``[eps and validation eps][minibatch]``.

        Minibatches along one step share the noise of its direction. So each of several (``pooled``) steps is one
        observation; where the probe is along one step alone, each of its minibatches is.
        """
        observations, validation = list(self.observations), list(self.validation)
        for rows in steps:
            observations += [tuple(map(mean, rows[:eps]))] if pooled else zip(*rows[:eps], strict=True)
            validation.append(tuple(map(mean, rows[eps:])))
        return replace(self, observations=tuple(observations), validation=tuple(validation))

    @property
    def losses(self) -> list[list[float]]:
        """One row for each eps, one column for each observation."""
        return [list(row) for row in zip(*self.observations, strict=True)]

    def fitted(self, lr: float, eps: Sequence[float], *, step: int | None, last: bool, checks: int) -> ProbeFit:
        """The parabola through what was seen.

        It belongs to the step that the probe began with, or to ``step``: one that goes on until it is sure can outlast
        a phase.
        """
        rows = self.losses
        return ProbeFit(
            step=self.window.step if step is None else step,
            total_steps=self.window.total_steps,
            lr=lr,
            loss=mean(rows[list(eps).index(0.0)]),
            quadratic=fit_quadratic(eps, rows) if finite([x for row in rows for x in row]) else None,
            why=self.why,
            last=last,
            checks=checks,
        )

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> ProbeState:
        """From ``dataclasses.asdict`` of it."""
        drop = state["window"]["drop"]
        window = WindowResult(**{**state["window"], "drop": None if drop is None else LossDrop(**drop)})
        rows = {name: tuple(map(tuple, state[name])) for name in ("observations", "validation")}
        return cls(**{**state, **rows, "window": window, "why": Trigger(state["why"])})


def mean(losses: Sequence[float]) -> float:
    """The mean in float64; NaN where one of them is not finite, or where there is none."""
    return math.fsum(losses) / len(losses) if losses and finite(losses) else math.nan


def finite(losses: Sequence[float]) -> bool:
    """Whether every loss is finite."""
    return all(map(math.isfinite, losses))
