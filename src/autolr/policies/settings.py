"""What a policy's settings may be. Each check raises TypeError for the wrong kind and ValueError out of range."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import fields
from numbers import Integral, Real
from typing import Any, SupportsIndex

LARGEST = 2**63 - 1  # of a whole number


def check_eps(eps: Sequence[float]) -> None:
    """Refuse samples that no probe can use.

    Raises:
        TypeError: not a sequence of numbers.
        ValueError: fewer than three distinct values, not symmetric about 0, or a value below -1 (before the step).
    """
    if not _numbers(eps):
        raise TypeError(f"eps must be a sequence of numbers, in multiples of the learning rate; got {eps!r}.")
    values = sorted(set(eps))
    symmetric = all(math.isclose(a, -b) for a, b in zip(values, reversed(values), strict=True))
    if len(values) < 3 or not symmetric or values[-1] > 1 or 0.0 not in values:
        raise ValueError(
            f"eps must hold 0 and at least one pair +-e with 0 < e <= 1, in multiples of the learning rate; got "
            f"{tuple(eps)}. Take for instance eps=(-0.5, -0.25, 0.0, 0.25, 0.5)."
        )


def check_validation_eps(eps: Any) -> None:
    """Refuse samples that cannot be taken.

    Raises:
        TypeError: not a sequence of numbers.
        ValueError: one that is not finite, or below -1, before the step.
    """
    if not _numbers(eps):
        raise TypeError(
            f"validation_eps must be a sequence of numbers, in multiples of the learning rate; got {eps!r}."
        )
    if not all(math.isfinite(e) and e >= -1 for e in eps):
        raise ValueError(f"validation_eps must be finite and at least -1, which is before the step; got {eps!r}.")


def check_overhead(overhead: float | None) -> None:
    """Refuse a share of the training's cost that is none; None and infinity are allowed.

    Raises:
        TypeError: not a number.
        ValueError: not above 0, or NaN.
    """
    if overhead is None:
        return
    if not _is_number(overhead):
        raise TypeError(f"overhead must be a number above 0, for instance 0.02, or math.inf; got {overhead!r}.")
    if not _as_float(overhead) > 0:
        raise ValueError(
            f"overhead must be above 0; got {overhead}. 0.02 lets AutoLR take 2 % of the training's own cost, "
            "math.inf all that it asks for."
        )


def check_count(name: str, value: SupportsIndex, low: int = 1) -> int:
    """``value`` if it is a whole number of at least ``low``.

    Raises:
        TypeError: not a whole number.
        ValueError: below ``low``.
    """
    try:
        count = operator.index(value)  # numpy's whole numbers too
    except TypeError:
        count = None
    if count is None or isinstance(value, bool):
        raise TypeError(f"{name} must be a whole number, at least {low}; got {value!r}.")
    if not low <= count <= LARGEST:
        raise ValueError(f"{name} must be at least {low} and at most {LARGEST:,}; got {value!r:.40}.")
    return count


def check_flag(name: str, value: Any) -> None:
    """Refuse a setting that is neither True nor False.

    Raises:
        TypeError: it is something else.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False; got {value!r:.60}.")


def check_range(
    name: str, value: float, *, above: float | None = None, low: float | None = None, high: float | None = None
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
    if not _is_number(value):
        raise TypeError(f"{name} must be a number {allowed}; got {value!r}.")
    size = _as_float(value)
    fits = (above is None or size > above) and (low is None or size >= low) and (high is None or size <= high)
    if not (math.isfinite(size) and fits):
        raise ValueError(f"{name} must be {allowed}; got {value!r:.40}.")


def as_plain(settings: Any) -> None:
    """Make the numbers of a frozen dataclass Python's own: a checkpoint takes no other, and compares them as texts."""
    for field in fields(settings):
        object.__setattr__(settings, field.name, _plain(getattr(settings, field.name)))


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(map(_plain, value))
    if not _is_number(value):
        return value
    return int(value) if isinstance(value, Integral) else float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)  # numpy's too


def _numbers(values: Any) -> bool:
    if not isinstance(values, Sequence) or isinstance(values, (str, bytes, bytearray)):
        return False
    return all(isinstance(e, Real) and not (isinstance(e, Integral) and abs(int(e)) > LARGEST) for e in values)


def _as_float(value: float) -> float:
    """Infinite, where a whole number is larger than any float."""
    try:
        return float(value)
    except OverflowError:
        return math.copysign(math.inf, value > 0 or -1)
