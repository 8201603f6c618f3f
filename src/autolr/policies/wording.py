"""How a reason writes its numbers."""

from __future__ import annotations


def number(value: float, *, signed: bool = False) -> str:
    """A learning rate or loss as a reader wants it in a sentence: three digits, no trailing zeros."""
    return f"{value:+.3g}" if signed else f"{value:.3g}"


def numbers(before: float, after: float) -> tuple[str, str]:
    """Two that differ, with as many digits as it takes to see it."""
    pairs = ((f"{before:.{digits}g}", f"{after:.{digits}g}") for digits in range(3, 18))
    return next((a, b) for a, b in pairs if a != b)
