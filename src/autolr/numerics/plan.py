"""What a search for the peak may spend, and which short run it takes next: a bracket at one length, or at two."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from autolr.numerics.bracket import Bottom, ShortRun, Tried, ask, best_of, bottom, ruins
from autolr.numerics.cost import FORWARDS_PER_STEP
from autolr.numerics.expected_loss import Choice, choose, guess

# From the learning half of the zoo, 60 pairs: lab notebook, "Which lengths".
RATIO = 8  # between one length and the next
LONG_ENOUGH = 20  # [steps] of which a short run tells most of what a longer one would
SHORTEST = 4  # [steps]
COARSE, FINE = (4, 2), (2,)  # [octaves] between runs, at the first length and where a shorter one went before
RUNS_FIRST, RUNS_NEXT = 5.0, 3.0  # short runs that a bracket takes: at the first length, and at each further one
FEW, MANY = 4, 8  # minibatches that judge a run
SMALL_BUDGET = 100.0  # [forward equivalents] below which few judge
CANDIDATES = 4  # minibatches that are looked at for each that judges
LOOKING = 1 / 8  # share of the budget that looking at them may take; else there are fewer
TENTH, AT_LEAST, AT_MOST = 0.1, 100, 1 / 3  # share of a run, [steps] where it is short, and the share then


def affordable_share(total_steps: int) -> float:
    """The share of the run's own cost that the search may take: 10 % at 1,000 steps, 5 % at 10,000, 1 % at 100,000.

    Shorter runs pay 100 steps, as fewer tell too little, but never more than a third.

    Example:
        >>> [round(affordable_share(steps), 3) for steps in (100, 500, 1_000, 10_000, 100_000)]
        [0.333, 0.2, 0.1, 0.05, 0.01]
    """
    decades = math.log10(max(total_steps, 1_000) / 1_000)
    share = TENTH * 0.5 ** min(decades, 1.0) * 0.2 ** max(decades - 1.0, 0.0)
    return float(min(max(share, AT_LEAST / total_steps), AT_MOST))


def affordable_minibatches(budget: float) -> int:
    """How many minibatches judge a short run."""
    return FEW if budget < SMALL_BUDGET else MANY


def affordable_candidates(budget: float, minibatches: int) -> int:
    """How many minibatches are looked at for each of those that judge.

    Example:
        >>> [affordable_candidates(budget, minibatches=8) for budget in (100, 200, 300)]
        [1, 3, 4]
    """
    return max(1, min(CANDIDATES, math.floor(LOOKING * budget / minibatches)))


def affordable_lengths(budget: float, minibatches: int, total_steps: int) -> tuple[int, ...]:
    """One length, or two or three a factor of 8 apart, whose brackets cost ``budget`` [forward equivalents] together.

    A shorter length only tells the longer ones where to begin. It pays where it is itself `LONG_ENOUGH`.

    Example:
        >>> affordable_lengths(budget=300, minibatches=8, total_steps=1_000)
        (17,)
        >>> affordable_lengths(budget=3000, minibatches=8, total_steps=100_000)
        (33, 269)
    """
    for count in (3, 2, 1):
        # Steps of all brackets, in steps of the shortest run.
        steps = RUNS_FIRST + RUNS_NEXT * sum(RATIO**i for i in range(1, count))
        judging = (RUNS_FIRST + RUNS_NEXT * (count - 1)) * minibatches
        shortest = (budget - judging) / (FORWARDS_PER_STEP * steps)
        if shortest >= LONG_ENOUGH or count == 1:
            lengths = [int(max(shortest, SHORTEST) * RATIO**i) for i in range(count)]
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
    shortfalls: tuple[float, ...] = ()  # [octaves] of each length, by which its steps are too short: `build_up`

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
        return COARSE if number == 0 else FINE

    def _tried(self, runs: Sequence[ShortRun], length: int) -> dict[int, ShortRun]:
        return {round(math.log2(run.lr / self.given)): run for run in runs if run.length == length}

    def _center(self, start: Sequence[float], runs: Sequence[ShortRun], number: int) -> int:
        """Where the bracket of a length begins: where the next shorter ones have it, but for its longer steps."""
        if number == 0:
            return 0
        if known := self.bottoms(start, runs, number):
            shorter = known[-1]
            return round(shorter.place - self._shortfall(shorter.length) + self._shortfall(self.lengths[number]))
        alive = [k for k, run in self._tried(runs, self.lengths[number - 1]).items() if not ruins(run, start)]
        return max(alive, default=0)

    def bottoms(self, start: Sequence[float], runs: Sequence[ShortRun], count: int | None = None) -> list[Bottom]:
        """The bottom of each length that has one, of the first ``count`` lengths."""
        found = [bottom(tried, start) for n in self.lengths[:count] if (tried := self._tried(runs, n))]
        return [place for place in found if place is not None]

    def choice(self, start: Sequence[float], runs: Sequence[ShortRun]) -> Choice | None:
        """The peak for the whole run, in octaves of the given rate, by the longest runs that tell it; or None.

        A length whose lowest run has no neighbour on one side, as where the budget ended, comes after those that have.
        """
        lengths = sorted(self._longest_first(runs), key=lambda pair: not _enclosed(pair[0], start))
        told = ((choose(tried, start), less) for tried, less in lengths)
        return next((choice.lowered(less) for choice, less in told if choice is not None), None)

    def guess(self, start: Sequence[float], runs: Sequence[ShortRun]) -> float:
        """[octaves of the given rate] The peak where there is no choice, by the longest runs; 0 where none gained."""
        guesses = (guess(tried, start) for tried, _ in self._longest_first(runs))
        return next((place for place in guesses if place is not None), 0.0)

    def _longest_first(self, runs: Sequence[ShortRun]) -> Iterator[tuple[dict[int, ShortRun], float]]:
        """What was tried at each length, and by how many octaves the long run's peak lies lower."""
        for length in reversed(self.lengths):
            if tried := self._tried(runs, length):
                yield tried, self._shortfall(length)

    def _shortfall(self, length: int) -> float:
        return dict(zip(self.lengths, self.shortfalls, strict=False)).get(length, 0.0)


def _enclosed(tried: Tried, start: Sequence[float]) -> bool:
    best = best_of(tried, start)
    return min(tried) < best < max(tried)
