"""What a few seeds can tell: paired differences with Student's interval, and verdicts that allow for their number.

Two questions have an answer of their own: whether two methods differ (a paired t test), and whether they are as good as
each other (two one-sided tests against a margin that nobody would mind: Schuirmann 1987). A difference that is not sure
is no proof of equality, and with three seeds most pairs are neither. All verdicts of a table are one family, in which
the chance of a single false one stays below ``1 - CONFIDENCE`` (Holm 1979).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

CONFIDENCE = 0.95  # of every interval and verdict of the lab

Verdict = Literal["higher", "lower", "as good", "cannot tell"]


@dataclass(frozen=True)
class Difference:
    """Paired differences, seed by seed, in a metric's unit."""

    values: tuple[float, ...]  # infinite where a run diverged

    @property
    def mean(self) -> float:
        """Infinite where one is."""
        return statistics.fmean(self.values)

    @property
    def half(self) -> float:
        """Half of Student's interval; NaN where there is none: a single pair, or a run that diverged."""
        if len(self.values) < 2 or not math.isfinite(self.mean):
            return math.nan
        return float(stats.t.ppf((1 + CONFIDENCE) / 2, len(self.values) - 1) * stats.sem(self.values))


def verdicts(differences: Sequence[Difference], margin: float | Sequence[float]) -> list[Verdict]:
    """What each difference says, all of them being asked at once.

    Args:
        differences: those of fewer than two pairs, or with a run that diverged, can tell nothing here.
        margin: up to which a difference is as good as none, of all or of each.
    """
    margins = [margin] * len(differences) if isinstance(margin, (int, float)) else list(margin)
    asked = [i for i, d in enumerate(differences) if len(d.values) > 1 and math.isfinite(d.mean)]
    differ = holm([_different(differences[i]) for i in asked])
    equal = holm([_equivalent(differences[i], margins[i]) for i in asked])
    found: list[Verdict] = ["cannot tell"] * len(differences)
    for i, p_differ, p_equal in zip(asked, differ, equal, strict=True):
        if p_equal < 1 - CONFIDENCE:
            found[i] = "as good"
        elif p_differ < 1 - CONFIDENCE:
            found[i] = "higher" if differences[i].mean > 0 else "lower"
    return found


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjustment: each may be held against the level as if it were the only one."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    raised = np.maximum.accumulate([(len(p_values) - place) * p_values[i] for place, i in enumerate(order)])
    adjusted = dict(zip(order, np.minimum(raised, 1.0), strict=True))
    return [float(adjusted[i]) for i in range(len(p_values))]


def _different(difference: Difference) -> float:
    """P value of a mean of 0."""
    if _constant(difference):
        return 0.0 if difference.mean else 1.0
    return float(stats.ttest_1samp(difference.values, 0.0).pvalue)


def _equivalent(difference: Difference, margin: float) -> float:
    """P value of a mean beyond the margin: the larger one of the two one-sided tests."""
    if _constant(difference):
        return 0.0 if abs(difference.mean) < margin else 1.0
    above = stats.ttest_1samp(difference.values, -margin, alternative="greater").pvalue
    below = stats.ttest_1samp(difference.values, margin, alternative="less").pvalue
    return float(max(above, below))


def _constant(difference: Difference) -> bool:
    """Whether there is no scatter beyond rounding: a t test would divide by it."""
    return max(difference.values) - min(difference.values) <= 1e-12 * max(1.0, abs(difference.mean))
