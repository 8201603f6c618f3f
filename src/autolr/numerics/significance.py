"""How sure is sure: the quantile of Student's t, and when a probe that goes on until it is sure asks whether it is."""

from __future__ import annotations

import math
from statistics import NormalDist

FIRST = 4  # observations before a probe is first asked: below it, one chance agreement decides


def student_t(probability: float, df: int) -> float:
    """The quantile of Student's t distribution with ``df`` degrees of freedom, for a probability of 0.5 to 0.999.

    By the expansion of Abramowitz and Stegun, 26.7.5: within 2 % from 3 degrees of freedom on (torch and numpy have no
    such quantile, and the library needs nothing else).

    Example:
        >>> round(student_t(0.95, df=19), 3)
        1.729
    """
    assert 0.5 <= probability < 1, f"a quantile at probability {probability}"
    assert df >= 1, f"{df} degrees of freedom"
    if probability == 0.5:
        return 0.0
    z = NormalDist().inv_cdf(probability)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + math.fsum(term / df**power for power, term in enumerate(terms, start=1))


def checkpoints(most: int) -> tuple[int, ...]:
    """The numbers of observations at which an open probe asks for a verdict: doubling, and ``most`` as the last.

    Each time is a chance to be wrong. Doubling keeps them few, so that little confidence has to be shared out.

    Example:
        >>> checkpoints(100)
        (4, 8, 16, 32, 64, 100)
    """
    counts = []
    count = FIRST
    while count < most:
        counts.append(count)
        count *= 2
    return (*counts, most)


def critical(confidence: float, checks: int, observations: int) -> float:
    """Standard errors beyond which a verdict is sure, ``checks`` times asked, to ``confidence`` in all (Bonferroni).

    Example:
        >>> critical(0.9, checks=1, observations=20) == student_t(0.9, df=19)
        True
    """
    return student_t(1 - (1 - confidence) / checks, max(1, observations - 1))
