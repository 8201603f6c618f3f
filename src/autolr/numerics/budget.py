"""What AutoLR may spend: a share of the training's own forward equivalents, earned step by step and never borrowed."""

from __future__ import annotations

import math
from dataclasses import dataclass

from autolr.numerics.cost import FORWARDS_PER_STEP

# Kept for undoing steps, each as dear as a training step. It also covers what forward equivalents leave out: copying
# parameters, and that a forward pass can take more than a third of a step (0.48 of one: docs/method.md, "The budget").
RESERVE = 0.4


@dataclass(frozen=True, slots=True)
class Budget:
    """Spending never exceeds ``share`` of the steps taken so far, at 3 forward equivalents a step.

    Amounts are in forward equivalents. All of it is arithmetic on counts, so that a run does not depend on the clock.
    """

    share: float  # infinite where there is no bound

    def allows(self, amount: float, spent: float, steps: int) -> bool:
        """Whether ``amount`` can be spent on is_probing after ``steps`` steps, ``spent`` being spent already.

        Example:
            >>> Budget(0.02).allows(2, spent=1, steps=100)
            True
            >>> Budget(0.02).allows(3, spent=1, steps=100)
            False
        """
        return spent + amount <= self.earned(steps) * (1 - RESERVE)

    def allows_undoing(self, undone: int, spent: float, steps: int) -> bool:
        """Whether the last ``undone`` of ``steps`` steps can be thrown away."""
        return spent + FORWARDS_PER_STEP * undone <= self.earned(steps)

    def earned(self, steps: int) -> float:
        """All that may be spent by then."""
        return math.inf if math.isinf(self.share) else self.share * FORWARDS_PER_STEP * steps
