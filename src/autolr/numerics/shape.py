"""The shape of a run in shares of its peak: a warm-up, the peak held to half of the run, a line to zero."""

from __future__ import annotations

WARM_UP = 0.05  # share of the steps
# In a short run. A long run climbs in more steps than a short one has, and what it can bear at its peak depends on how
# slowly it climbed: lab notebook, "How should a short run climb?".
SHORT_WARM_UP = 0.4


def shape(step: int, total_steps: int, warm_up: float = WARM_UP) -> float:
    """The rate of a step over the peak's, 0 < shape <= 1; 0 after the last step.

    Args:
        step: from 1 to ``total_steps``.
        total_steps: of the run.
        warm_up: share of the steps in which the rate climbs to its peak.

    Examples:
        >>> [round(shape(step, 10), 2) for step in (1, 5, 6, 10, 11)]
        [1.0, 1.0, 0.83, 0.17, 0.0]
    """
    if step > total_steps:
        return 0.0
    warm = max(1, round(warm_up * total_steps))
    held = total_steps // 2
    return min(1.0, step / warm, (total_steps - step + 1) / (total_steps - held + 1))
