"""Which short run comes next, and where the losses of those at one length have their bottom: ask and tell.

Rates stand on a lattice of factor 2 about the first one tried: a run at ``place`` k has the rate first * 2^k. At each
length the best place is enclosed: first in strides of factor 4, then of factor 2, until it has on either side a run
that is surely worse. Plain numbers in and out: the same code plans a real search and one that replays a table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from autolr.numerics.verdict import difference

SURE = 2.0  # standard errors from which one run is worse than another, or better than the start
STRIDE = 2  # places between the first runs: factor 4
DAMAGE = 0.1  # of the start's level, above which a run was surely damaged by its rate
LEAP = 0.02  # of the start's loss; far less is gained only at rates that are far too low, or on a plateau
LOWERED = 4  # runs in which rates are lowered because the lowest does harm, where none gains
REACH = 60  # places from the first one, either way: factor 1e18


@dataclass(frozen=True, slots=True)
class ShortRun:
    """A short run and how it ended."""

    length: int  # [steps]
    lr: float  # the peak rate
    losses: tuple[float, ...]  # at its end, one for each evaluation minibatch; empty where it diverged
    cost: float  # [forward equivalents]

    @property
    def diverged(self) -> bool:
        """Whether it left the numbers, or was broken off on its way there."""
        return not self.losses

    @property
    def loss(self) -> float:
        """The mean over the evaluation minibatches; infinite where it diverged."""
        return math.fsum(self.losses) / len(self.losses) if self.losses else math.inf


@dataclass(frozen=True, slots=True)
class Bottom:
    """Where the losses of one length are least, in places of the lattice, and its standard error."""

    length: int
    place: float
    stderr: float
    share: float  # of the start's loss that the best run gained


Tried = Mapping[int, ShortRun]


def ask(tried: Tried, start: Sequence[float], center: int, strides: Sequence[int] = (STRIDE, 1)) -> int | None:
    """The place to try next at one length; None where the best is enclosed, or where nothing gains.

    Args:
        tried: by place, all of one length.
        start: losses where every run starts.
        center: the place to begin with.
        strides: places between runs, [octaves], wide ones first; the last is how closely the best is enclosed.
    """
    if not tried:
        return center
    alive = [k for k in tried if not ruins(tried[k], start)]
    if not alive:
        return _within(min(tried) - _widening(len(tried)))
    best = best_of(tried, start)
    if not gains(tried[best], start):
        return _ask_where_nothing_gains(tried, start, alive)
    for stride in strides:
        missing = [k for k in (_beyond(tried, best, 1, stride), _beyond(tried, best, -1, stride)) if k is not None]
        if best == max(tried):
            return _within(best + max(stride, _leap(tried[best], start)))
        if missing:
            return _within(missing[0] if stride > 1 else min(missing, key=lambda k: _promise(tried, start, best, k)))
    return None


def _leap(run: ShortRun, start: Sequence[float]) -> int:
    """[octaves] How far a rate may rise at once: low ones gain in proportion, so that so much higher gains `LEAP`."""
    share = -level(run, start) / (abs(math.fsum(start) / len(start)) or 1.0)
    return min(math.floor(math.log2(LEAP / share)), REACH // 2) if share > 0 else 0


def _within(place: int) -> int | None:
    return place if abs(place) <= REACH else None


def _widening(failures: int) -> int:
    return STRIDE * min(failures, 4)


def _ask_where_nothing_gains(tried: Tried, start: Sequence[float], alive: Sequence[int]) -> int | None:
    # Too low and too noisy look alike: higher rates decide, up to where runs are ruined. Not lower ones, as noise would
    # draw the answer down to where nothing happens at all, unless the lowest does harm: then it is too high.
    low = min(tried)
    scale = abs(math.fsum(start) / len(start))
    if level(tried[low], start) > DAMAGE / 2 * scale and len(tried) < LOWERED:
        return _within(low - _widening(len(tried)))
    top = max(alive)
    ruined = [k for k in tried if k > top]
    if not ruined:
        return _within(top + _widening(len(alive)))
    middle = (top + min(ruined)) // 2
    return middle if middle not in tried else None


def _beyond(tried: Tried, best: int, side: int, stride: int) -> int | None:
    """The place to try on one side of the best; None where a surely worse run is reached in hops of ``stride``."""
    here = best
    for k in sorted((k for k in tried if (k - best) * side > 0), key=lambda k: abs(k - best)):
        if abs(k - here) > stride:
            break
        if _worse(tried[k], tried[best]):
            return None
        here = k  # as good as the best: the enclosure has to reach beyond it
    return here + side * stride


def _worse(run: ShortRun, best: ShortRun) -> bool:
    return run.diverged or difference(run.losses, best.losses).surely_above(SURE)


def level(run: ShortRun, start: Sequence[float]) -> float:
    """How far above the start a run ended: the trimmed mean or the plain one, whichever is higher.

    The trimmed mean alone is blind to what few minibatches suffer for the others, as rare examples of great weight do;
    the plain one alone follows one outlier. Where they disagree, the worse is believed: too high a peak costs most.
    """
    if run.diverged:
        return math.inf
    return max(difference(run.losses, start).mean, run.loss - math.fsum(start) / len(start))


def _promise(tried: Tried, start: Sequence[float], best: int, place: int) -> float:
    """The level of the known neighbour on that side: the bottom lies rather towards the lower one."""
    side = 1 if place > best else -1
    beyond = [k for k in tried if (k - place) * side >= 0]
    return level(tried[min(beyond, key=lambda k: abs(k - place))], start) if beyond else -math.inf


def best_of(tried: Tried, start: Sequence[float]) -> int:
    """The place of the lowest level, among the runs that surely gain where there are any."""
    return min(sorted(tried), key=lambda k: (not gains(tried[k], start), level(tried[k], start)))


def gains(run: ShortRun, start: Sequence[float]) -> bool:
    """Whether a run ended surely below the start, by more than rounding, and not at a few minibatches' expense."""
    return level(run, start) < 0 and difference(start, run.losses).surely_above(SURE)


def ruins(run: ShortRun, start: Sequence[float]) -> bool:
    """Whether a rate is far too high: with some optimizers none is so high that the numbers overflow.

    A run that ends only a little above the start, however surely, is none: that may be its minibatches' doing, and at
    lower and lower rates it would be a little less above, down to where nothing happens.
    """
    scale = abs(math.fsum(start) / len(start))
    above = level(run, start)
    return above > max(scale, max(start) - min(start)) or (
        above > DAMAGE * scale and difference(run.losses, start).surely_above(SURE)
    )


def bottom(tried: Tried, start: Sequence[float]) -> Bottom | None:
    """Where the parabola through the best place and its neighbours is lowest; None where nothing gains.

    The standard error is a jackknife's over the minibatches, and half of the distance to a neighbour that is missing.
    """
    if not any(gains(run, start) for run in tried.values()):
        return None
    best = best_of(tried, start)
    count = len(start)
    whole = _vertex(tried, start, best, range(count))
    stderr = 0.0
    if count > 1:
        parts = [_vertex(tried, start, best, [i for i in range(count) if i != left]) for left in range(count)]
        stderr = math.sqrt((count - 1) / count * math.fsum((part - whole) ** 2 for part in parts))
    open_sides = sum(not any((k - best) * side > 0 for k in tried) for side in (1, -1))
    scale = abs(math.fsum(start) / count)
    gained = -level(tried[best], start) / scale if scale else 1.0
    return Bottom(tried[best].length, whole, math.hypot(stderr, open_sides), gained)


def _vertex(tried: Tried, start: Sequence[float], best: int, kept: Sequence[int]) -> float:
    """The bottom of the parabola through the lowest of three neighbouring places, of the minibatches ``kept``."""
    ceiling = [start[i] for i in kept]

    def height(k: int) -> float:
        losses = tried[k].losses and tuple(tried[k].losses[i] for i in kept)
        return min(0.0, level(replace(tried[k], losses=losses), ceiling))

    near = [k for k in tried if abs(k - best) <= STRIDE]
    middle = min(near, key=height)
    lower, higher = [k for k in tried if k < middle], [k for k in tried if k > middle]
    if not lower or not higher:
        return float(middle)
    x = np.array([max(lower) - middle, 0, min(higher) - middle], dtype=float)
    y = np.array([height(max(lower)), height(middle), height(min(higher))])
    left, right = (y[0] - y[1]) / x[0], (y[2] - y[1]) / x[2]  # slopes of the chords
    bend = (right - left) / (x[2] - x[0])
    if bend <= 0:
        return float(middle)
    return float(middle + np.clip((-left / bend + x[0]) / 2, x[0] / 2, x[2] / 2))
