"""The one shape of a run, short or long, in shares of its peak: a warm-up, half of the run held, a line to zero."""

from __future__ import annotations

WARM_UP = 0.05  # share of the steps


def shape(step: int, total_steps: int) -> float:
    """The rate of a step over the peak's, 0 < shape <= 1; 0 after the last step.

    Args:
        step: from 1 to ``total_steps``.
        total_steps: of the run.

    Example:
        >>> [round(shape(step, 10), 2) for step in (1, 5, 6, 10, 11)]
        [1.0, 1.0, 0.83, 0.17, 0.0]
    """
    if step > total_steps:
        return 0.0
    warm = max(1, round(WARM_UP * total_steps))
    held = total_steps // 2
    return min(1.0, step / warm, (total_steps - step + 1) / (total_steps - held + 1))
