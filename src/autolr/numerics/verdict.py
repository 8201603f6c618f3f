"""Which of two short runs ended lower, from paired losses on the same minibatches, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

FLOAT32 = 2.0**-23  # relative spacing of losses in float32: a smaller difference is rounding
TRIM = 1 / 8  # of the differences left out at either end: one bad minibatch must not decide


@dataclass(frozen=True, slots=True)
class Difference:
    """A mean difference over minibatches and its standard error; ``surely`` compares the two."""

    mean: float
    stderr: float

    def surely_above(self, sigmas: float) -> bool:
        """Whether the mean lies above 0 by more than that many standard errors."""
        return self.mean > sigmas * self.stderr


def difference(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Mean of ``first - second``, robustly: from 6 minibatches on, those at the ends are trimmed (Tukey, McLaughlin).

    Its standard error is at least what rounding the losses to float32 makes.

    Raises:
        ValueError: unequal or empty sequences.

    Example:
        >>> difference([2.0, 3.0, 4.0], [1.0, 2.0, 3.0]).mean
        1.0
    """
    if len(first) != len(second) or not first:
        raise ValueError(f"A paired difference needs the same minibatches twice; got {len(first)} and {len(second)}.")
    values = sorted(a - b for a, b in zip(first, second, strict=True))
    count = len(values)
    cut = math.ceil(TRIM * count) if count >= 6 else 0
    mean = math.fsum(values[cut : count - cut]) / (count - 2 * cut)
    rounding = FLOAT32 * sorted(map(abs, first))[count // 2]
    if count == 1:
        return Difference(mean, rounding)
    low, high = values[cut], values[count - 1 - cut]
    winsorized = [min(max(value, low), high) for value in values]
    middle = math.fsum(winsorized) / count
    variance = math.fsum((value - middle) ** 2 for value in winsorized) / (count - 1)
    return Difference(mean, max(rounding, math.sqrt(variance / count) / (1 - 2 * cut / count)))
