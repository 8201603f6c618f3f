"""Has this learning rate served its purpose? The loss-drop rate and its thresholds (paper, part 2.1).

Paper -> code: loss drop per iteration -> ``LossDrop.rate`` [loss/step], the rate "when we started using the current
learning rate" -> ``began``, relative threshold -> ``threshold``, absolute threshold -> ``absolute`` [loss/step].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class LossDrop:
    """How fast the loss fell over a window, both ends on the same superbatch."""

    rate: float  # [loss/step], positive while the loss falls
    stderr: float  # [loss/step] of the paired differences over the minibatches; NaN with fewer than two


def loss_drop(start: Sequence[float], end: Sequence[float], steps: int) -> LossDrop:
    """The loss-drop rate from per-minibatch losses at both ends of a window.

    Args:
        start: losses where the window began, shape ``(m,)``.
        end: losses of the same minibatches where it ended, shape ``(m,)``.
        steps: optimizer steps between the two.

    Raises:
        ValueError: unequal or empty sequences, or no step in between.

    Example:
        >>> loss_drop(start=[2.0, 3.0], end=[1.0, 2.0], steps=10)
        LossDrop(rate=0.1, stderr=0.0)
    """
    if len(start) != len(end) or not start or steps < 1:
        raise ValueError(
            f"A loss-drop rate needs the same minibatches at both ends of one or more steps; got {len(start)} and "
            f"{len(end)} minibatches, {steps} steps."
        )
    drops = (np.asarray(start, dtype=np.float64) - np.asarray(end, dtype=np.float64)) / steps
    stderr = float(drops.std(ddof=1)) / math.sqrt(len(drops)) if len(drops) > 1 else math.nan
    return LossDrop(rate=float(drops.mean()), stderr=stderr)


def check_saturation(
    rate: float, *, began: float, threshold: float, absolute: float | None
) -> tuple[bool, float | None]:
    """Is the current learning rate saturated, and what is the absolute threshold from here on?

    Until the first crossing the test is relative: ``began / rate > threshold``. From the first crossing on, the rate at
    which it lay, ``began / threshold``, is the absolute threshold: saturated means a rate below it.

    Differs from the paper, which takes the rate measured at the first crossing. Measured over one window that rate is
    mostly noise, often near or below zero, and as a threshold it is then never crossed again: docs/method.md.

    Returns:
        ``(saturated, absolute)``.

    Example:
        >>> check_saturation(0.5, began=1.0, threshold=100, absolute=None)
        (False, None)
        >>> check_saturation(-0.2, began=1.0, threshold=100, absolute=None)
        (True, 0.01)
        >>> check_saturation(0.5, began=0.7, threshold=100, absolute=0.01)
        (False, 0.01)
    """
    if absolute is not None:
        return rate < absolute, absolute
    if began <= 0:  # this LR never earned anything to be compared with
        return rate <= 0, None
    crossing = began / threshold
    return (True, crossing) if rate < crossing else (False, None)
