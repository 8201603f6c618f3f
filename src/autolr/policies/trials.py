"""Runs in small: a few steps at a peak rate, from warm-up to zero, each from the same start; which peak serves best?

What a run's peak is good for shows within a dozen steps, if they end as the run will end: at a rate of zero, so that
what noise holds up is not held against it. The search goes by factors, in the direction that lowers the loss, until it
has a best rate between two worse ones, and takes the bottom of the parabola through the three. A longer trial shows
whether a network learns on at that peak, or is stuck with what it learns at any: then lower ones are tried.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

FACTOR = 4.0  # between the rates of two trials
WARM, HOLD = 0.2, 0.5  # shares of a trial that end its warm-up, and its time at the peak
GAINED, ABOVE = 0.8, 0.1  # share of another one's gain from which on, and of its loss up to which above it, a trial is
# level with it
STUCK = 0.77  # share of a longer trial's gain from which on a shorter one came as far
EDGE, ENOUGH = 0.9, 0.95  # shares of the best one's gain with which a plateau begins, and a peak serves nearly as well

Trial = tuple[float, float]  # [lr] its peak; the loss where it ended, NaN or infinity where it diverged


def shape(step: int, steps: int, warm: int, held: int) -> float:
    """What share of the peak the rate of a run's ``step`` is, counted from 1: a line up, the peak, a line to zero.

    Args:
        step: 1 to ``steps``; the last one has a little left.
        steps: of the run.
        warm: the step that is the first at the peak.
        held: the last one at it.

    Example:
        >>> [round(shape(step, 8, warm=2, held=4), 2) for step in range(1, 9)]
        [0.5, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25]
    """
    return min(1.0, step / warm, max(1, steps - step + 1) / max(1, steps - held))


def in_small(step: int, steps: int) -> float:
    """What share of its peak the rate of a trial's ``step`` is, counted from 1."""
    return shape(step, steps, max(1, round(WARM * steps)), round(HOLD * steps))


def next_rate(trials: Sequence[Trial], start: float, doubt: float, lowest: float, highest: float) -> float | None:
    """[lr] the peak to try next; None where it is known between which two rates the best lies.

    Args:
        trials: that were made, one at least.
        start: the loss where all of them began.
        doubt: a gain that is none; losses that differ by no more are equal.
        lowest: [lr] there is no trial below it.
        highest: [lr] nor above it.
    """
    tried = sorted(trials)
    best, loss = tried[_best(tried, start, doubt)]
    up, down = tried[-1][0] * FACTOR, tried[0][0] / FACTOR
    if best == tried[-1][0] and loss < start and up <= highest:
        return up
    # Nothing gained, by all that were tried: the network died in each, in some by way of a lower loss than in others.
    if (best == tried[0][0] or not start - loss > doubt) and down >= lowest:
        return down
    return None


def best_rate(trials: Sequence[Trial], start: float, doubt: float) -> float:
    """[lr] the parabola's minimum, through the best of the peaks that were tried and its two neighbours.

    No further from the best one than half way to a neighbour; it never is, where that one has the lowest loss of them.
    """
    tried = sorted(trials)
    place = _best(tried, start, doubt)
    rate = tried[place][0]
    if not 0 < place < len(tried) - 1:
        return rate
    below, here, above = (_capped(loss, start) for _, loss in tried[place - 1 : place + 2])
    bend = below - 2 * here + above
    steps = (below - above) / (2 * bend) if bend > 0 else 0.0
    return float(rate * FACTOR ** min(max(steps, -0.5), 0.5))


def lowest_loss(trials: Sequence[Trial], start: float) -> float:
    """Where the best trial ended; the start, where none gained."""
    return min(_capped(loss, start) for _, loss in trials)


def plateau(trials: Sequence[Trial], start: float, doubt: float) -> bool:
    """Whether three trials or more are level with the best, and not for want of a gain that could tell them apart.

    A factor of 16 in the rate makes no difference where they see no more than what is learned at any rate. A longer run
    will see more.
    """
    best = lowest_loss(trials, start)
    level = [_level(_capped(loss, start), best, start, GAINED) for _, loss in trials]
    return (1 - GAINED) * (start - best) > doubt and sum(level) >= 3


def low_end(trials: Sequence[Trial], start: float, share: float) -> float:
    """[lr] from where on rates are high enough: the lowest peak that gains such a ``share`` of the best one's gain.

    Between two trials losses lie on a line, over the rate's logarithm. It is no lower than all that were tried.
    """
    tried = sorted(trials)
    losses = [_capped(loss, start) for _, loss in tried]
    best = min(losses)
    most = min(start - share * (start - best), best + ABOVE * abs(best))
    place = next((place for place, loss in enumerate(losses) if loss <= most), losses.index(best))  # no start, no gain
    rate = tried[place][0]
    if place == 0:
        return rate
    missing = (most - losses[place]) / (losses[place - 1] - losses[place])
    return float(rate * (tried[place - 1][0] / rate) ** missing)


def next_lower(trials: Sequence[Trial], start: float, lowest: float) -> float | None:
    """[lr] the peak to try next, where only lower ones may be better; None where it is known how low is too low.

    Args:
        trials: that were made, one at least.
        start: the loss where all of them began.
        lowest: [lr] there is no trial below it.
    """
    tried = min(rate for rate, _ in trials)
    down = tried / FACTOR
    return down if low_end(trials, start, ENOUGH) == tried and down >= lowest else None


def no_more(trials: Sequence[Trial], shorter: float, start: float, doubt: float) -> bool:
    """Whether trials came no further than shorter ones, and not for want of a gain that could tell.

    At such a rate a network has learned what there is to learn at any, and is stuck.

    Args:
        trials: at peaks that shorter ones found.
        shorter: the `lowest_loss` of those.
        start: the loss where all of them began.
        doubt: a gain that is none.
    """
    loss = lowest_loss(trials, start)
    return loss == start or ((1 - STUCK) * (start - loss) > doubt and _level(shorter, loss, start, STUCK))


def gone_on_from(trials: Sequence[Trial], start: float) -> Trial | None:
    """Whose end is the best place to go on from, of trials in the order they were made; None where none gained.

    Of two that are level it is the lower rate's, at which less can have been broken. It is the last one's or was it
    before, so that one place is kept at a time.
    """
    kept: Trial | None = None
    for trial in trials:
        rate, loss = trial[0], _capped(trial[1], start)
        if loss == start:
            continue
        if kept is not None and rate < kept[0]:
            better = _level(loss, kept[1], start, GAINED)
        else:
            better = kept is None or not _level(kept[1], loss, start, GAINED)
        if better:
            kept = trial
    return kept


def _level(loss: float, other: float, start: float, share: float) -> bool:
    """That ``share`` was gained of what the ``other`` did, nor is much more left: half of a small loss is no detail."""
    return start - loss >= share * (start - other) and loss - other <= ABOVE * abs(other)


def _best(tried: Sequence[Trial], start: float, doubt: float) -> int:
    """The highest rate of those that gained, and ended no further above the lowest loss than doubt goes.

    Too low a rate is lost for all of the run, and a dozen steps like low rates better than the run will.
    Where none gained it is the lowest.
    """
    losses = [_capped(loss, start) for _, loss in tried]
    lowest = min(losses)
    if not lowest < start:
        return 0
    return max(place for place, loss in enumerate(losses) if loss < start and loss <= lowest + doubt)


def _capped(loss: float, start: float) -> float:
    """A trial that lost has gained nothing; how much it lost says nothing about how far off its rate is."""
    return min(loss, start) if math.isfinite(loss) else start
