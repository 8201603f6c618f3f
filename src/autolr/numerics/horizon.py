"""From the bottoms of short runs to the peak of a long one: how the best rate drifts with length, and what to choose.

In octaves (log2 of the rate), the best peak at length n is taken as a + e log2(n), the exponent e being the family's
within ``spread``, and off that line at each length by ``scatter``. Short runs tell a and, less, e; what is left unknown
at the run's length is a normal distribution. Too high a rate costs more than too low a one, so the choice lies below
its middle.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from autolr.numerics.bracket import Bottom

# Log of the loss lost for each octave above, and below, the best peak: lab notebook, "Lopsided regret".
REGRET_ABOVE, REGRET_BELOW = 0.42, 0.10


@dataclass(frozen=True, slots=True)
class Prior:
    """What is known of the drift before any run."""

    exponent: float = -0.05  # of the best rate against the length, where the short runs gained all that there is
    spread: float = 0.2  # standard deviation of the exponent over problems
    scatter: float = 0.3  # [octaves] standard deviation at one length off a problem's own line
    early: float = -0.15  # added to the exponent where short runs gained nothing yet, in between in proportion


@dataclass(frozen=True, slots=True)
class Belief:
    """Where the best peak lies at the run's length, in octaves: a normal distribution."""

    mean: float
    stderr: float

    def choice(self) -> float:
        """Of the least expected regret: where regret is so much an octave, a quantile."""
        return self.quantile(REGRET_BELOW / (REGRET_ABOVE + REGRET_BELOW))

    def interval(self) -> tuple[float, float]:
        """Of 95 % probability."""
        return self.quantile(0.025), self.quantile(0.975)

    def quantile(self, probability: float) -> float:
        """Of the distribution."""
        if self.stderr == 0:
            return self.mean
        return NormalDist(self.mean, self.stderr).inv_cdf(probability)


def extrapolate(bottoms: Sequence[Bottom], total_steps: int, prior: Prior) -> Belief:
    """What the bottoms of short runs say of a run of ``total_steps``: generalised least squares with a prior on e.

    Args:
        bottoms: of one length or more, places in octaves.
        total_steps: of the run.
        prior: of its optimizer's family.

    Raises:
        ValueError: no bottom.

    Example:
        >>> round(extrapolate([Bottom(10, 3.0, 0.1, 1.0)], 160, Prior(exponent=-0.25)).mean, 6)
        2.0
    """
    if not bottoms:
        raise ValueError("An extrapolation needs the bottom of one length at least.")
    distance = np.array([math.log2(total_steps / bottom.length) for bottom in bottoms])
    design = np.stack([np.ones_like(distance), -distance], axis=1)  # unknown: place at the run's length, and e
    weight = np.array([1 / (bottom.stderr**2 + prior.scatter**2 + 1e-12) for bottom in bottoms])
    believed = 1 / (prior.spread**2 + 1e-12)
    precision = design.T @ (weight[:, None] * design) + np.diag([0.0, believed])
    exponent = prior.exponent + prior.early * (1 - min(max(bottoms[-1].share, 0.0), 1.0))
    places = np.array([bottom.place for bottom in bottoms])
    told = design.T @ (weight * places) + np.array([0.0, believed * exponent])
    covariance = np.linalg.inv(precision)
    mean = covariance @ told
    return Belief(float(mean[0]), math.sqrt(float(covariance[0, 0]) + prior.scatter**2))
