"""Where a look may sample the loss, and what else a policy's settings may be."""

from __future__ import annotations

import math
from collections.abc import Sequence

FIVE = (-0.5, -0.25, 0.0, 0.25, 0.5)  # the paper's number: docs/method.md, "Where and how often to sample"
THREE = (-0.5, 0.0, 0.5)  # a parabola's fewest: more steps are worth more than more samples of one
CONFIDENCE = 0.9  # that a look's verdict has the right sign: docs/method.md, "Error bars"
LEAST = 0.1  # share of the LR; a smaller change is not worth finding


def check_eps(eps: Sequence[float]) -> None:
    """Refuse samples that no look can use.

    Raises:
        TypeError: not a sequence of numbers.
        ValueError: fewer than three distinct values, not symmetric about 0, or a value below -1 (before the step).
    """
    if not isinstance(eps, Sequence) or not all(isinstance(e, (int, float)) for e in eps):
        raise TypeError(f"eps must be a sequence of numbers, in multiples of the learning rate; got {eps!r}.")
    values = sorted(set(eps))
    symmetric = all(math.isclose(a, -b) for a, b in zip(values, reversed(values), strict=True))
    if len(values) < 3 or not symmetric or values[-1] > 1 or 0.0 not in values:
        raise ValueError(
            f"eps must hold 0 and at least one pair +-e with 0 < e <= 1, in multiples of the learning rate; got "
            f"{tuple(eps)}. Take for instance eps=(-0.5, -0.25, 0.0, 0.25, 0.5)."
        )


def check_spread(spread: int) -> None:
    """Refuse a number of steps that is none.

    Raises:
        TypeError: not a whole number.
        ValueError: less than 1.
    """
    if isinstance(spread, bool) or not isinstance(spread, int):
        raise TypeError(f"spread must be a whole number of steps, at least 1; got {spread!r}.")
    if spread < 1:
        raise ValueError(f"spread must be at least 1 step; got {spread}.")


def check_confidence(confidence: float | None) -> None:
    """Refuse a confidence that is none.

    Raises:
        TypeError: neither a number nor None.
        ValueError: below 0.5, where a coin decides as well, or above 0.99, which no superbatch reaches.
    """
    if confidence is not None:
        check_range("confidence", confidence, low=0.5, high=0.99)


def check_range(
    name: str,
    value: float,
    *,
    above: float | None = None,
    low: float | None = None,
    high: float | None = None,
) -> None:
    """Refuse a setting that is not a number in its range (``above`` is exclusive).

    Raises:
        TypeError: not a number.
        ValueError: out of range or not finite.
    """
    bounds = [f"above {above:g}"] if above is not None else []
    bounds += [f"at least {low:g}"] if low is not None else []
    bounds += [f"at most {high:g}"] if high is not None else []
    allowed = " and ".join(bounds)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number {allowed}; got {value!r}.")
    fits = (above is None or value > above) and (low is None or value >= low) and (high is None or value <= high)
    if not (math.isfinite(value) and fits):
        raise ValueError(f"{name} must be {allowed}; got {value!r}.")
