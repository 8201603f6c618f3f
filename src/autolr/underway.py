"""The window and the look that are under way between two optimizer steps: what a checkpoint has to carry of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from autolr.policies.protocol import Look, Window
from autolr.quadratic import fit_quadratic
from autolr.saturation import LossDrop, loss_drop
from autolr.snapshot import Snapshot


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


@dataclass
class OpenLook:
    """The losses of a look so far. Each observation holds one loss for each eps."""

    window: Window  # the one that ended with it
    observations: list[tuple[float, ...]] = field(default_factory=list)
    held_out: list[tuple[float, ...]] = field(default_factory=list)  # a loss for each held-out eps, step by step
    steps: int = 0
    unmoved_steps: int = 0  # in which the parameters moved and no loss did
    why: str = ""  # the policy's reason for looking

    def add(self, losses: Sequence[Sequence[float]], held_out: Sequence[Sequence[float]], *, alone: bool) -> None:
        """Add what was seen along one step, losses of shape ``(eps, minibatches)``.

        Minibatches along one step share the noise of its direction. So each of several steps is one observation; where
        the look is along one step ``alone``, each of its minibatches is.
        """
        if alone:
            self.observations += zip(*losses, strict=True)
        else:
            self.observations.append(tuple(mean(row) for row in losses))
        self.held_out.append(tuple(mean(row) for row in held_out))
        self.steps += 1

    def seen(self, lr: float, eps: Sequence[float]) -> Look:
        """What a policy is told of it; ``eps`` in multiples of ``lr``. It belongs to the step that it began with."""
        rows = self.losses
        every = [loss for row in rows for loss in row]
        quadratic = fit_quadratic([e * lr for e in eps], rows) if finite(every) else None
        return Look(
            self.window.step, self.window.total_steps, lr, mean(rows[list(eps).index(0.0)]), quadratic, self.why
        )

    @property
    def losses(self) -> list[list[float]]:
        """One row for each eps, one column for each observation."""
        return [list(row) for row in zip(*self.observations, strict=True)]

    def state_dict(self) -> dict[str, Any]:
        """Plain containers."""
        return dataclasses.asdict(self)

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> OpenLook:
        """The look that the state was taken of."""
        drop = state["window"]["drop"]
        window = Window(**{**state["window"], "drop": None if drop is None else LossDrop(**drop)})
        rows = {name: [tuple(row) for row in state[name]] for name in ("observations", "held_out")}
        return cls(**{**state, **rows, "window": window})


def mean(losses: Sequence[float]) -> float:
    """The mean in float64; NaN where one of them is not finite."""
    return math.fsum(losses) / len(losses) if finite(losses) else math.nan


def finite(losses: Sequence[float]) -> bool:
    """Whether every loss is finite."""
    return all(map(math.isfinite, losses))
