"""Which rates to try: powers of two, from the customary one outwards until both sides are clearly worse."""

import math
from collections.abc import Callable, Mapping

REACH = 14  # octaves to either side of the customary rate, at most
LOG_WORSE = 0.1  # a loss is clearly worse when it is 10 % above the best
GAIN_WORSE = 0.1  # or when it forgoes a tenth of what the best one gained
NEEDED = 2  # rates in a row on either side that must be clearly worse


def octave(rate: float) -> int:
    """The power of two nearest to a rate."""
    return round(math.log2(rate))


def clearly_worse(loss: float, best: float, initial: float) -> bool:
    """Whether a loss has no chance against the best one; one that is not finite never has."""
    if not math.isfinite(loss):
        return True
    return loss > best * (1 + LOG_WORSE) or loss - best > GAIN_WORSE * (initial - best)


def side_done(losses: Mapping[int, float], initial: float, direction: int) -> bool:
    """Whether the outermost rates on one side (direction 1: high, -1: low) are clearly worse than the best rate."""
    finite = {k: loss for k, loss in losses.items() if math.isfinite(loss)}
    outermost = sorted(losses, key=lambda k: -direction * k)[:NEEDED]
    if not finite:
        return direction > 0 and len(losses) >= NEEDED  # everything diverged: only lower rates can help
    best = min(finite, key=finite.__getitem__)
    return len(outermost) == NEEDED and all(
        (k - best) * direction > 0 and clearly_worse(losses[k], finite[best], initial) for k in outermost
    )


def bracket(attempt: Callable[[int], float], initial: float, first: int) -> None:
    """Try rates 2**k from ``first`` outwards until both sides are clearly worse.

    Args:
        attempt: trains with the rate 2**k and gives the loss.
        initial: the loss before training.
        first: where to begin.
    """
    tried = {first: attempt(first)}

    def edge(direction: int) -> int:
        return direction * max(direction * k for k in tried)

    while pending := [d for d in (1, -1) if not side_done(tried, initial, d) and abs(edge(d) - first) < REACH]:
        for direction in pending:
            if not side_done(tried, initial, direction):  # the other side may have moved the best
                beyond = edge(direction) + direction
                tried[beyond] = attempt(beyond)
