"""Has the run diverged? Losses of the same few minibatches, now and at earlier moments of the run."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

LOST = 0.5  # share of the improvement; a run that has lost more than this has diverged
ERRORS = 2.0  # standard errors by which the loss must surely have risen


def improvement(start: Sequence[float], now: Sequence[float]) -> float:
    """[loss] By how much the mean over the minibatches that were finite at the ``start`` has fallen."""
    pairs = _pairs(start, now)
    return statistics.fmean(a - b for a, b in pairs) if pairs else 0.0


def not_finite(start: Sequence[float], now: Sequence[float]) -> bool:
    """Whether a minibatch whose loss was finite at the ``start`` has none now. Bad data is bad from the start on."""
    return any(math.isfinite(a) and not math.isfinite(b) for a, b in zip(start, now, strict=True))


def has_diverged(start: Sequence[float], best: Sequence[float], now: Sequence[float], floor: float = 0.0) -> bool:
    """Whether more than `LOST` of the improvement is lost, and surely so; or a loss is no longer finite.

    Args:
        start: losses of the minibatches where the run began.
        best: of the same where the run was best so far.
        now: of the same now.
        floor: [loss] an improvement that the run must have made by now, beside its own best.
    """
    if not_finite(start, now):
        return True
    best_gain, gain = improvement(start, best), improvement(start, now)
    if gain >= (1 - LOST) * max(best_gain, floor):
        return False
    reference = best if best_gain >= floor else start
    differences = [b - a for a, b in _pairs(reference, now)]
    if len(differences) < 2:
        return True
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    if reference is best:
        return statistics.fmean(differences) > ERRORS * error
    # Below the floor: what is missing of it must be beyond the noise of the improvement made.
    return floor + statistics.fmean(differences) > ERRORS * error


def _pairs(start: Sequence[float], now: Sequence[float]) -> list[tuple[float, float]]:
    return [(a, b) for a, b in zip(start, now, strict=True) if math.isfinite(a) and math.isfinite(b)]
