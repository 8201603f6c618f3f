"""By how much a short run's steps are shorter than those of a long one, at the same rate.

With momentum m the first step is 1 - m of what later ones come to where gradients agree, and at m = 0.99 the first
twenty are a tenth of it. A rate that is best in so short a run is then too high for a long one, by as much. Steps that
begin too long, as RMSprop's and AdaGrad's do, are no reason to go higher: the long run takes the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

import numpy as np

from autolr.numerics.shape import SHORT_WARM_UP, WARM_UP, shape

MOST = 2_000  # [steps] that are followed; later ones count as the mean of the last half
SETTLED = 0.01  # relative growth from the second quarter of the steps to the second half, below which it is over
FEWEST = 16  # [steps] before they may count as settled
LONG = 10 * MOST  # [steps] of a run in which the first ones count for little
LEAST = 0.05  # [octaves] below which a rate is as good as another
AT_MOST = 5.0  # [octaves]; steps that grow by more do so because gradients that stay the same never end


def settled(steps: Sequence[float]) -> bool:
    """Whether an optimizer's first steps tell all that matters of those that follow: they grow no more."""
    count = len(steps)
    if not FEWEST <= count < MOST:
        return count >= MOST
    before, last = fmean(steps[count // 4 : count // 2]), _last(steps)
    return last - before <= SETTLED * abs(last)


def shortfall(steps: Sequence[float], length: int, total_steps: int) -> float:
    """[octaves, 0 to `AT_MOST`] How much shorter a short run's steps are, in the mean over its schedule.

    Args:
        steps: the lengths of an optimizer's first steps where gradients stay the same, in any unit.
        length: of the short run.
        total_steps: of the run.

    Example:
        >>> momentum = [(1 - 0.9**n) / (1 - 0.9) for n in range(1, 65)]
        >>> [round(shortfall(momentum, length, 10_000), 1) for length in (10, 20, 40)]
        [1.3, 0.7, 0.3]
    """
    short, long = _mean(steps, length, SHORT_WARM_UP), _mean(steps, min(total_steps, LONG), WARM_UP)
    octaves = math.log2(long / short) if 0 < short < long else 0.0
    return min(octaves, AT_MOST) if octaves >= LEAST else 0.0


def _mean(steps: Sequence[float], length: int, warm_up: float) -> float:
    """Of the lengths of a run's steps, weighted as its schedule weighs them."""
    weights = np.array([shape(step, length, warm_up) for step in range(1, length + 1)])
    first = np.array(steps[:length])
    rest = weights[len(first) :].sum() * _last(steps)
    return float((weights[: len(first)] @ first + rest) / weights.sum())


def _last(steps: Sequence[float]) -> float:
    return fmean(steps[len(steps) // 2 :])
