"""Has the run diverged? Losses of the same few minibatches, now and at earlier moments of the run.

Two things are no divergence. A minibatch that alone is not finite: its data are bad, or its loss is at the edge of what
it is defined for. And a run that has gained little so far and stands a little above its start: on a plateau, or trained
before and at a high rate again, it does so until the rate falls.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from autolr.policies.window_state import mean

LOST = 0.5  # share of the improvement; a run that has lost more than this has diverged
ERRORS = 2.0  # standard errors by which the loss must surely have risen
LITTLE = 0.1  # share of the start's loss; a smaller improvement may be lost while the rate is high
FURTHER = 0.1  # share of what the best short run left of the loss, which a longer run gets below it
RISEN = 0.5  # share of the start's loss; so far above the start a run has diverged, whatever it had gained


def judged(start: Sequence[float], now: Sequence[float]) -> float:
    """[loss] The mean over the minibatches that were finite at the ``start``: bad data is bad all along."""
    return mean([b for a, b in zip(start, now, strict=True) if math.isfinite(a)])


def improvement(start: Sequence[float], now: Sequence[float]) -> float:
    """[loss] By how much the mean over the minibatches that were finite at the ``start`` has fallen."""
    pairs = _pairs(start, now)
    return statistics.fmean(a - b for a, b in pairs) if pairs else 0.0


def has_gained(start: Sequence[float], now: Sequence[float]) -> bool:
    """Whether the loss is surely below the start's."""
    return bool(_pairs(start, now)) and surely_above(now, start)


def not_finite(start: Sequence[float], now: Sequence[float]) -> bool:
    """Whether half of the minibatches whose loss was finite at the ``start`` have none now, or more."""
    finite = [math.isfinite(b) for a, b in zip(start, now, strict=True) if math.isfinite(a)]
    return bool(finite) and sum(finite) <= len(finite) / 2


def stands_still(start: Sequence[float], now: Sequence[float]) -> bool:
    """Whether next to nothing of the start's loss is gained."""
    return bool(_pairs(start, now)) and improvement(start, now) < LITTLE * _level(start, now)


def is_stuck(start: Sequence[float], now: Sequence[float], began: float, ended: float) -> bool:
    """Whether hardly more is gained than by the best short run.

    Shares of the start's loss are compared, as the short run was judged by other minibatches. Where losses fall below
    0, what is left of them is not known, and any gain beyond the short run's is more.

    Args:
        start: losses of the minibatches where the run began.
        now: of the same now.
        began: [loss] where the short run started.
        ended: [loss] and ended.
    """
    if not _pairs(start, now):
        return False
    gained = (began - ended) / (abs(began) or 1.0)
    return improvement(start, now) < (gained + FURTHER * max(0.0, 1 - gained)) * _level(start, now)


def has_diverged(start: Sequence[float], best: Sequence[float], now: Sequence[float], floor: float = 0.0) -> bool:
    """Whether more than `LOST` of the improvement is lost, and surely so; or the losses are no longer finite.

    Where the improvement is still little, the loss must have risen by `RISEN` of what it was. At twice the start's loss
    on half of the minibatches it has diverged at all events.

    Args:
        start: losses of the minibatches where the run began.
        best: of the same where the run was best so far.
        now: of the same now.
        floor: [loss] an improvement that the run must have made by now, beside its own best.
    """
    if not_finite(start, now) or _far_above(start, now):
        return True
    if not _pairs(start, now):  # nothing to judge by
        return False
    level = _level(start, now)
    gained = improvement(start, best)
    if max(gained, floor) < LITTLE * level:
        return improvement(start, now) < -RISEN * level and surely_above(start, now)
    if improvement(start, now) >= (1 - LOST) * max(gained, floor):
        return False
    if gained >= floor:
        return surely_above(best, now)
    # What is missing of the floor must be beyond the noise of what the run has gained.
    return surely_above(start, now, -floor)


def _far_above(start: Sequence[float], now: Sequence[float]) -> bool:
    """Whether half of the minibatches stand above their start by more than all of it, however much others scatter."""
    pairs = _pairs(start, now)
    if not pairs:
        return False
    known = [a for a, _ in pairs]
    far = max(_level(start, now), max(known) - min(known))  # losses may begin near 0
    return statistics.median(b - a for a, b in pairs) > far


def _level(start: Sequence[float], now: Sequence[float]) -> float:
    return abs(statistics.fmean(a for a, _ in _pairs(start, now)))


def surely_above(reference: Sequence[float], now: Sequence[float], least: float = 0.0) -> bool:
    """Whether the loss has surely risen, by more than ``least``; a single minibatch is taken at its word."""
    differences = [b - a - least for a, b in _pairs(reference, now)]
    error = statistics.stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else 0.0
    return statistics.fmean(differences) > ERRORS * error


def _pairs(start: Sequence[float], now: Sequence[float]) -> list[tuple[float, float]]:
    return [(a, b) for a, b in zip(start, now, strict=True) if math.isfinite(a) and math.isfinite(b)]
