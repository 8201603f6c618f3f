"""From short runs to the peak of a long one: the rate of the least expected loss.

The losses of short runs over the log of their rate are a curve. The long run's has the same shape, roughly, but lies
elsewhere: best rates move with length, up on some problems and down on others, by a distance that the short runs do not
tell. So the curve is shifted by a normal distribution, and the rate is taken whose loss is least on the average. Too
high a rate mostly costs more than too low a one, and the average leans to the low side by as much as this curve does:
far where a cliff is near, little on a plain.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from autolr.numerics.bracket import STRIDE, Tried, bottom, level

# From the learning half of the zoo, 60 pairs: lab notebook, "How far does the curve move?".
MOVE = 1.75  # [octaves] standard deviation between a short run's best rate and a long one's
# Log of the loss over the start's that a ruined run counts as: so much, and at most twice what the best run gained.
RUIN, RUIN_GAINS = 0.25, 2.0
LITTLE = 0.01  # of the start's loss; where no rate is expected to gain it, short runs tell too little to choose by
CONFIDENCE = 0.95

LEAST = 1e-4  # of the start's loss; lower ones count as this
STEP = 0.125  # [octaves] between the rates that are compared
SPREADS = 4.0  # standard deviations to either side that are averaged over

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Choice:
    """The peak for the long run, and where its best one may lie, in octaves of the first rate tried."""

    place: float
    low: float
    high: float
    shortfall: float = 0.0  # [octaves] by which it was lowered for that: `numerics.build_up`

    def lowered(self, octaves: float) -> Choice:
        """The same where the short runs' steps were too short by so much."""
        return Choice(self.place - octaves, self.low - octaves, self.high - octaves, octaves)


def choose(tried: Tried, start: Sequence[float]) -> Choice | None:
    """The place of the least expected loss; None where no run surely gains, or no rate is expected to gain `LITTLE`.

    Args:
        tried: by place, all of one length.
        start: losses where every run starts, one for each minibatch.

    Example:
        >>> from autolr.numerics.bracket import ShortRun
        >>> losses = {-2: 0.6, 0: 0.5, 2: 0.6}
        >>> told = choose({k: ShortRun(20, 2.0**k, (v,), 61) for k, v in losses.items()}, [1.0])
        >>> told.place < 0, round(told.high, 2)
        (True, 3.43)
    """
    lowest = bottom(tried, start)
    if lowest is None:
        return None
    spread = math.hypot(MOVE, lowest.stderr)
    place, expected = _least(tried, start, spread)
    if expected > math.log(1 - LITTLE):  # as on a plateau, or where one run gains between others that lose
        return None
    half = spread * NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    return Choice(place, lowest.place - half, lowest.place + half)


def guess(tried: Tried, start: Sequence[float]) -> float | None:
    """The place where there is no choice, but some run gains on the average, as on a plateau; None where none does.

    It lies half-way between the first rate, which somebody gave, and the place of the least expected loss, which is
    noise to a good part; and not below the first: where little is gained at any rate, less is gained at a lower one.
    Nor is it lowered for steps that are too short, as choices are: on plateaus that ended worse.
    """
    if not any(level(run, start) < 0 for run in tried.values()):
        return None
    return max(0.0, _least(tried, start, MOVE)[0] / 2)


def _least(tried: Tried, start: Sequence[float], spread: float) -> tuple[float, float]:
    """Where the expected loss is least, and the log of it over the start's."""
    places = np.arange(min(tried) - SPREADS * spread, max(tried) + SPREADS * spread, STEP)
    expected = [_average(tried, start, place, spread) for place in places]
    least = int(np.argmin(expected))
    return float(places[least]), expected[least]


def _average(tried: Tried, start: Sequence[float], place: float, spread: float) -> float:
    """The expected loss of a rate where the curve may have moved either way."""
    moved = np.arange(-SPREADS, SPREADS + 1e-9, STEP)
    weight = np.exp(-(moved**2) / 2)
    return float(weight @ curve(tried, start, place + spread * moved) / weight.sum())


def curve(tried: Tried, start: Sequence[float], places: Floats) -> Floats:
    """Log of the loss over the start's: between short runs straight lines, and a ruined run's height at most.

    Below the lowest rate the gain is in proportion to the rate. From the highest one on it climbs to ruin within a
    stride.
    """
    gained = {k: -level(run, start) for k, run in tried.items() if not run.diverged}
    scale = max(abs(math.fsum(start) / len(start)), *gained.values(), 0.0)  # losses may be negative

    def log_loss(gain: float) -> float:
        return math.log(max(1 - gain / scale, LEAST))

    ruin = min(RUIN, -RUIN_GAINS * log_loss(max(gained.values(), default=0.0)))
    known = np.array(sorted(tried), dtype=float)
    heights = [min(log_loss(gained[k]), ruin) if k in gained else ruin for k in sorted(tried)]
    between = np.interp(places, [*known, known[-1] + STRIDE], [*heights, ruin])
    lowest = max(gained.get(int(known[0]), 0.0), 0.0)
    proportional = lowest * np.exp2(np.minimum(places - known[0], 0.0))
    return np.where(places < known[0], np.log(np.maximum(1 - proportional / scale, LEAST)), between)
