"""A curve of at most so many points that looks like the whole one: extremes, gaps and both ends are kept."""

from __future__ import annotations

import math
from collections.abc import Sequence

Curve = Sequence[tuple[float, float | None]]  # (step, value) by step; None where the value was not finite

AT_MOST = 2000  # points: more than a screen has pixels across


def thinned(curve: Curve, at_most: int = AT_MOST) -> list[tuple[float, float | None]]:
    """Of each stretch of a curve that is too long, its ends, its least, its greatest, and a gap where there is one."""
    if len(curve) <= at_most:
        return list(curve)
    stretch = math.ceil(len(curve) / (at_most // 5))
    kept: list[tuple[float, float | None]] = []
    for begin in range(0, len(curve), stretch):
        part = range(begin, min(begin + stretch, len(curve)))
        values = {i: value for i in part if (value := curve[i][1]) is not None}
        extremes = {min(values, key=values.__getitem__), max(values, key=values.__getitem__)} if values else set()
        gap = {i for i in part if i not in values}
        kept += [curve[i] for i in sorted({part[0], part[-1], *extremes, *sorted(gap)[:1]})]
    return kept
