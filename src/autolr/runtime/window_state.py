"""The window and the look that are under way between two optimizer steps: what a checkpoint has to carry of them."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from autolr.numerics.significance import checkpoints
from autolr.runtime.distributed import gather_minibatches
from autolr.policies.base import Look, Policy, Window
from autolr.numerics.quadratic import fit_quadratic
from autolr.numerics.saturation import LossDrop, loss_drop
from autolr.measure.snapshot import Snapshot


@dataclass(frozen=True)
class OpenWindow:
    """Where a window began, and what is needed to judge it and to undo it."""

    start: int  # steps taken when it began
    superbatch: int  # number of the superbatch that both its ends are measured on
    losses: list[float]  # of that superbatch's minibatches, where it began
    snapshot: Snapshot | None

    def seen(self, step: int, total_steps: int, lr: float, losses: list[float]) -> Window:
        """What a policy is told of it, ``losses`` being those of the same minibatches after ``step`` steps."""
        steps = step - self.start
        drop = loss_drop(self.losses, losses, steps) if finite(self.losses) and finite(losses) else None
        return Window(step, total_steps, lr, mean(self.losses), mean(losses), steps, drop)

    def state_dict(self) -> dict[str, Any]:
        """Plain containers and tensors."""
        snapshot = None if self.snapshot is None else self.snapshot.state_dict()
        return {"start": self.start, "superbatch": self.superbatch, "losses": list(self.losses), "snapshot": snapshot}

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> OpenWindow:
        """The window that the state was taken of."""
        snapshot = None if state["snapshot"] is None else Snapshot.from_state_dict(state["snapshot"])
        return cls(state["start"], state["superbatch"], list(state["losses"]), snapshot)


@dataclass(frozen=True, slots=True)
class LookPlan:
    """How a look is spread over steps, and when it asks for a verdict."""

    size: int  # minibatches at each of its steps
    checkpoints: tuple[int, ...]  # steps after which the policy is asked; the last one ends the look

    @classmethod
    def of(cls, policy: Policy, superbatch: int) -> LookPlan:
        """A look of one size, asked at its end; or, with a confidence, of one minibatch a step, asked on its way."""
        if policy.confidence is not None:
            return cls(1, checkpoints(superbatch))
        steps = min(policy.spread, superbatch)  # each step sees one minibatch at least
        return cls(superbatch // steps, (steps,))

    @property
    def steps(self) -> int:
        """The most steps it takes."""
        return self.checkpoints[-1]


@dataclass
class OpenLook:
    """The losses of a look so far. Each observation holds one loss for each eps."""

    window: Window  # the one that ended with it
    observations: list[tuple[float, ...]] = field(default_factory=list)
    validation_eps: list[tuple[float, ...]] = field(default_factory=list)  # a loss for each held-out eps, step by step
    steps: int = 0
    unmoved_steps: int = 0  # in which the parameters moved and no loss did
    why: str = ""  # the policy's reason for is_probing
    pending: list[Tensor] = field(default_factory=list)  # losses still on the device, those held out in their last rows

    def add(self, losses: Tensor) -> None:
        """Add what was seen along one step, shape ``(eps and held-out eps, minibatches)``; waits for nothing."""
        self.pending.append(losses)
        self.steps += 1

    def settle(self, plan: LookPlan, eps: int) -> None:
        """Fetch what is still on the device; the first ``eps`` rows are the fit's. Collective, where there are ranks.

        Minibatches along one step share the noise of its direction. So each of several steps is one observation; where
        the look is along one step alone, each of its minibatches is.
        """
        if not self.pending:
            return
        rows = gather_minibatches(torch.cat(self.pending, dim=1))
        # Several ranks settle each step at once, since their minibatches come back side by side.
        widths = [len(rows[0])] if len(self.pending) == 1 else [block.shape[1] for block in self.pending]
        for end, width in zip(itertools.accumulate(widths), widths, strict=True):
            part = [row[end - width : end] for row in rows]
            if plan.steps == 1:
                self.observations += zip(*part[:eps], strict=True)
            else:
                self.observations.append(tuple(mean(row) for row in part[:eps]))
            self.validation_eps.append(tuple(mean(row) for row in part[eps:]))
        self.pending = []

    def seen(self, lr: float, eps: Sequence[float], plan: LookPlan, step: int | None = None) -> Look:
        """What a policy is told of it; ``eps`` in multiples of ``lr``.

        It belongs to the step that it began with, or to ``step``: one that looks until it is sure can outlast a phase.
        """
        rows = self.losses
        every = [loss for row in rows for loss in row]
        return Look(
            step=self.window.step if step is None else step,
            total_steps=self.window.total_steps,
            lr=lr,
            loss=mean(rows[list(eps).index(0.0)]),
            quadratic=fit_quadratic([e * lr for e in eps], rows) if finite(every) else None,
            why=self.why,
            last=self.steps == plan.steps,
            checks=len(plan.checkpoints),
        )

    @property
    def losses(self) -> list[list[float]]:
        """One row for each eps, one column for each observation."""
        return [list(row) for row in zip(*self.observations, strict=True)]

    def state_dict(self) -> dict[str, Any]:
        """Plain containers; to be asked of a settled look."""
        assert not self.pending, "a checkpoint holds numbers, not what is on its way from the device"
        return dataclasses.asdict(self)

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> OpenLook:
        """The look that the state was taken of."""
        drop = state["window"]["drop"]
        window = Window(**{**state["window"], "drop": None if drop is None else LossDrop(**drop)})
        rows = {name: [tuple(row) for row in state[name]] for name in ("observations", "validation_eps")}
        return cls(**{**state, **rows, "window": window, "pending": []})


def mean(losses: Sequence[float]) -> float:
    """The mean in float64; NaN where one of them is not finite."""
    return math.fsum(losses) / len(losses) if finite(losses) else math.nan


def finite(losses: Sequence[float]) -> bool:
    """Whether every loss is finite."""
    return all(map(math.isfinite, losses))
