"""What a search for the peak may spend, and which short run it takes next: the brackets of two or three lengths."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from autolr.numerics.bracket import Bottom, ShortRun, ask, bottom, gains, ruins
from autolr.numerics.cost import FORWARDS_PER_STEP
from autolr.numerics.horizon import Belief, Prior, extrapolate

# From the learning half of the zoo, 54 pairs: lab notebook, "Which lengths".
RATIO = 8  # between one length and the next
SHORTEST = 4  # [steps]
COARSE, FINE = (4, 2), (1,)  # [octaves] between runs, where longer ones follow, and where shorter ones went before
RUNS_FIRST, RUNS_NEXT = 5.0, 2.0  # short runs that a bracket takes: at the first length, and at each further one
FEW, MANY = 4, 8  # minibatches that judge a run
UNTOLD = 3.0  # [octaves] standard error from which nothing is believed
SMALL_BUDGET = 100.0  # [forward equivalents] below which few judge


def affordable_share(total_steps: int) -> float:
    """The share of the run's own cost that the search may take: 10 % to 1,000 steps, 5 % at 10,000, 1 % at 100,000.

    Example:
        >>> [round(affordable_share(steps), 3) for steps in (300, 1_000, 10_000, 100_000)]
        [0.1, 0.1, 0.05, 0.01]
    """
    decades = math.log10(max(total_steps, 1_000) / 1_000)
    return float(0.1 * 0.5 ** min(decades, 1.0) * 0.2 ** max(decades - 1.0, 0.0))


def affordable_minibatches(budget: float) -> int:
    """How many minibatches judge a short run."""
    return FEW if budget < SMALL_BUDGET else MANY


def affordable_lengths(budget: float, minibatches: int, total_steps: int) -> tuple[int, ...]:
    """Lengths a factor of 8 apart, three at most, whose brackets cost ``budget`` [forward equivalents] together.

    Example:
        >>> affordable_lengths(budget=3000, minibatches=8, total_steps=100_000)
        (6, 52, 419)
    """
    for count in (3, 2, 1):
        # Steps of all brackets, in steps of the shortest run.
        steps = RUNS_FIRST + RUNS_NEXT * sum(RATIO**i for i in range(1, count))
        judging = (RUNS_FIRST + RUNS_NEXT * (count - 1)) * minibatches
        shortest = (budget - judging) / (FORWARDS_PER_STEP * steps)
        if shortest >= SHORTEST or count == 1:
            lengths = [int(shortest * RATIO**i) for i in range(count)]
            return tuple(max(1, min(length, total_steps)) for length in lengths)
    raise AssertionError


@dataclass(frozen=True, slots=True)
class Plan:
    """A search, as a function of what has been seen so far."""

    given: float  # the rate to begin with, and the lattice's origin
    total_steps: int
    lengths: tuple[int, ...]
    budget: float  # [forward equivalents]
    minibatches: int  # that judge a run
    prior: Prior = field(default_factory=Prior)

    def next(self, start: Sequence[float], runs: Sequence[ShortRun]) -> tuple[int, float] | None:
        """Length and rate of the next short run; None where the search is over."""
        spent = math.fsum(run.cost for run in runs)
        for number, length in enumerate(self.lengths):
            tried = self._tried(runs, length)
            place = ask(tried, start, self._center(start, runs, number), self._strides(number))
            if place is not None:
                cost = FORWARDS_PER_STEP * length + self.minibatches
                return (length, self.given * 2.0**place) if spent + cost <= self.budget else None
        return None

    def _strides(self, number: int) -> tuple[int, ...]:
        first, last = number == 0, number == len(self.lengths) - 1
        return (COARSE if first else ()) + (FINE if last or not first else ())

    def _tried(self, runs: Sequence[ShortRun], length: int) -> dict[int, ShortRun]:
        return {round(math.log2(run.lr / self.given)): run for run in runs if run.length == length}

    def _center(self, start: Sequence[float], runs: Sequence[ShortRun], number: int) -> int:
        """Where the bracket of a length begins: where the shorter ones say that its bottom is."""
        if number == 0:
            return 0
        if known := self.bottoms(start, runs, number):
            return round(extrapolate(known, self.lengths[number], self.prior).mean)
        alive = [k for k, run in self._tried(runs, self.lengths[number - 1]).items() if not ruins(run, start)]
        return max(alive, default=0)

    def bottoms(self, start: Sequence[float], runs: Sequence[ShortRun], count: int | None = None) -> list[Bottom]:
        """The bottom of each length that has one, of the first ``count`` lengths."""
        found = [bottom(tried, start) for n in self.lengths[:count] if (tried := self._tried(runs, n))]
        return [place for place in found if place is not None]

    def belief(self, start: Sequence[float], runs: Sequence[ShortRun]) -> Belief | None:
        """Where the best peak of the whole run lies, in octaves of the given rate; None where nothing can be told."""
        if not (known := self.bottoms(start, runs)):
            return None
        told = extrapolate(known, self.total_steps, self.prior)
        return told if told.stderr < UNTOLD else None

    def gained(self, start: Sequence[float], runs: Sequence[ShortRun]) -> bool:
        """Whether any run ended surely below the start."""
        return any(gains(run, start) for run in runs)
