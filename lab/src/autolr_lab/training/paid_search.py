"""The default policy where everybody has the same budget: what it spends, its run has fewer steps."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from autolr import PeakSearch
from autolr.numerics.cost import FORWARDS_PER_STEP
from autolr.policies.base import Progress
from autolr.policies.peak_search import PeakSearchState

GUARD = 0.015  # share of a run that its divergence checks may cost
CHECKS = 9  # [steps] what they cost however short the run is


def steps_after(spent: float, steps: int, done: int = 0) -> int:
    """Steps of a guarded run that are paid, when so much was spent beside its steps; ``spent`` in forward equivalents.

    Steps that a rollback undid are steps like others.

    What its checks will cost is laid by, less and less of it as steps are ``done``.

    Example:
        >>> steps_after(spent=300, steps=1200)
        1082
        >>> steps_after(spent=354, steps=1200, done=1200)
        1082
    """
    laid_by = max(GUARD * steps, CHECKS) * (1 - done / steps)
    return max(1, steps - math.ceil(spent / FORWARDS_PER_STEP + laid_by))


@dataclass(frozen=True, kw_only=True)
class PaidPeakSearch(PeakSearch):
    """`PeakSearch` whose rate comes to zero with the last step that the budget pays."""

    def rate(self, state: PeakSearchState, now: Progress) -> float | None:
        """[lr] of the coming step."""
        return super().rate(state, self._paid(now))

    def phase(self, state: PeakSearchState, now: Progress) -> str:
        """Likewise."""
        return super().phase(state, self._paid(now))

    def _paid(self, now: Progress) -> Progress:
        spent = now.spent - FORWARDS_PER_STEP * now.undone  # these are paid as steps already
        left = max(steps_after(spent, now.total_steps, now.step), now.step + 1)
        return dataclasses.replace(now, run=dataclasses.replace(now.run, total_steps=left))
