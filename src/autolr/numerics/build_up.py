"""By how much a short run's steps are shorter than those of a long one, at the same rate.

With momentum m the first step is 1 - m of what later ones come to where gradients agree, and at m = 0.99 the first
twenty are a tenth of it. A rate that is best in so short a run is then too high for a long one, by as much. Steps that
begin too long, as RMSprop's and AdaGrad's do, are no reason to go higher: the long run takes the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from autolr.numerics.shape import SHORT_WARM_UP, WARM_UP, shape

MOST = 2_000  # [steps] that are followed; from there on they count as the last one
SETTLED = 0.01  # relative change from half as many steps to all, below which they will not grow any more
FEWEST = 16  # [steps] before they may count as settled
LONG = 10 * MOST  # [steps] of a run in which the first ones count for little


def settled(steps: Sequence[float]) -> bool:
    """Whether the lengths of an optimizer's first steps tell those of all that follow."""
    count = len(steps)
    if count >= MOST:
        return True
    return count >= FEWEST and abs(steps[count - 1] - steps[count // 2 - 1]) <= SETTLED * abs(steps[count - 1])


def shortfall(steps: Sequence[float], length: int, total_steps: int) -> float:
    """[octaves, >= 0] How much shorter a short run's steps are, in the mean over its schedule; see the module.

    Args:
        steps: the lengths of an optimizer's first steps where gradients stay the same, above 0, in any unit.
        length: of the short run.
        total_steps: of the run.

    Example:
        >>> momentum = [(1 - 0.9**n) / (1 - 0.9) for n in range(1, 65)]
        >>> [round(shortfall(momentum, length, 10_000), 1) for length in (10, 20, 40)]
        [1.3, 0.7, 0.3]
    """
    short, long = _mean(steps, length, SHORT_WARM_UP), _mean(steps, min(total_steps, LONG), WARM_UP)
    return max(0.0, math.log2(long / short))


def _mean(steps: Sequence[float], length: int, warm_up: float) -> float:
    """Of the lengths of a run's steps over the last one's, weighted as its schedule weighs them; exactly 1 if alike."""
    weights = np.array([shape(step, length, warm_up) for step in range(1, length + 1)])
    first = np.array(steps[:length]) / steps[-1]
    return float(1 + weights[: len(first)] @ (first - 1) / weights.sum())
