"""The search for the peak as numbers to be drawn: how the short runs ended, and the parabola through the best ones."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from typing import Any

from autolr.numerics.bracket import STRIDE, ShortRun, best_of, gains, level

Ends = list[tuple[float, float | None]]  # peak rate, loss; None where the run diverged

POINTS = 41  # of a drawn parabola
SEEN = 1.05  # a factor from which the chosen peak is seen to lie elsewhere


def ends_of(search: Mapping[str, Any]) -> dict[int, Ends]:
    """By length, how its short runs ended, in the order of their rates.

    Args:
        search: as in `DecisionRecord.search`, of the form of `Peak.to_json`.

    Raises:
        KeyError, TypeError, ValueError: it is not of that form.
    """
    if not 0 < float(search["lr"]) < math.inf:
        raise ValueError("the rate of the search is not above 0")
    ends: dict[int, Ends] = {}
    for run in search["runs"]:
        losses = run.get("losses") or [run.get("loss")]
        finite = [float(loss) for loss in losses if loss is not None and math.isfinite(loss)]
        loss = statistics.fmean(finite) if len(finite) == len(losses) else None
        ends.setdefault(int(run["length"]), []).append((float(run["lr"]), loss))
    return {length: sorted(ends[length], key=lambda end: end[0]) for length in sorted(ends)}


def start_loss(search: Mapping[str, Any]) -> float | None:
    """The mean loss where every short run starts; None where it was not kept."""
    losses = [loss for loss in search.get("start_losses") or () if loss is not None]
    return statistics.fmean(losses) if losses else None


def lowered_by(search: Mapping[str, Any]) -> float:
    """The factor by which the peak is lower than the short runs alone tell; 1 where that is next to nothing."""
    factor = 2.0 ** float(search.get("shortfall") or 0.0)
    return factor if factor >= SEEN else 1.0


def interval(search: Mapping[str, Any]) -> tuple[float, float]:
    """[lr] Between which the best peak is believed; both are the chosen rate where nothing could be told."""
    low, high = search["low"], search["high"]
    known = low and high is not None and high < math.inf
    return (float(low), float(high)) if known else (float(search["lr"]), float(search["lr"]))


def parabola(search: Mapping[str, Any], length: int) -> list[tuple[float, float]] | None:
    """(rate, loss) along the parabola that tells the bottom of one length, between the neighbours of its best run.

    It goes through levels, as `numerics.bracket.bottom` has them, which differ from mean losses where few minibatches
    decide the mean. None where no run gained, or the best has no neighbour on one side.
    """
    losses = search.get("start_losses") or ()
    start = () if None in losses else tuple(map(float, losses))
    runs = {float(run["lr"]): _short_run(run, len(start)) for run in search["runs"] if int(run["length"]) == length}
    if not start or not any(gains(run, start) for run in runs.values()):
        return None
    first = min(runs)
    tried = {round(math.log2(lr / first)): run for lr, run in runs.items()}
    best = best_of(tried, start)
    height = {k: min(0.0, level(tried[k], start)) for k in tried}
    middle = min((k for k in tried if abs(k - best) <= STRIDE), key=height.__getitem__)
    lower, higher = [k for k in tried if k < middle], [k for k in tried if k > middle]
    if not lower or not higher:
        return None
    left, right = max(lower) - middle, min(higher) - middle
    slopes = [(height[middle + x] - height[middle]) / x for x in (left, right)]
    bend = (slopes[1] - slopes[0]) / (right - left)
    if bend <= 0:
        return None
    base, mean = tried[middle].lr, statistics.fmean(start) + height[middle]
    places = [left + (right - left) * i / (POINTS - 1) for i in range(POINTS)]
    return [(base * 2**x, mean + x * (slopes[0] + bend * (x - left))) for x in places]


def bottoms_of(search: Mapping[str, Any]) -> dict[int, tuple[float, float, float]]:
    """By length, the rate at which its losses are least, and one standard error to either side."""
    given = search.get("given")
    if not given:
        return {}
    found = {int(b["length"]): (float(b["place"]), float(b["stderr"])) for b in search.get("bottoms") or ()}
    return {
        n: (given * 2**place, given * 2 ** (place - se), given * 2 ** (place + se)) for n, (place, se) in found.items()
    }


def _short_run(run: Mapping[str, Any], count: int) -> ShortRun:
    """One whose losses do not match the start's, or are not finite, diverged."""
    losses = tuple(run.get("losses") or ())
    told = len(losses) == count and all(loss is not None and math.isfinite(loss) for loss in losses)
    return ShortRun(int(run["length"]), float(run["lr"]), losses if told else (), float(run.get("cost") or 0.0))
