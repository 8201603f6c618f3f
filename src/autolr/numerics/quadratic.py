r"""The loss along one optimizer step, as a parabola in a perturbation of the learning rate.

Paper -> code: :math:`\epsilon` -> ``eps``, :math:`\hat L(\epsilon)` -> ``losses``, :math:`k_0, k_1, k_2` -> ``k0``,
``k1``, ``k2``, :math:`\epsilon_{min}` -> ``minimum``, r -> ``r``. ``eps`` is in multiples of the step, and so of its
learning rate: 0 is the step as taken, -1 undoes it. Only eq. 3 is in units of the learning rate.

Numbers only: this file is checked against algebra, not against training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autolr.numerics.significance import student_t

FLOAT32_RESOLUTION = 2.0**-23  # losses come out of float32 arithmetic; a smaller relative dip is rounding


@dataclass(frozen=True, slots=True)
class Quadratic:
    """A parabola fitted to the loss at a few perturbations of the learning rate (eq. 2)."""

    k0: float
    k1: float
    k2: float
    noise: float  # [loss] RMS misfit of the mean losses, never below their float32 resolution
    reach: float  # the largest |eps| that was sampled
    minimum: float | None  # eps of least predicted loss; None where there is no bottom to trust
    stderr: float | None  # standard error of ``minimum`` over the observations; None with fewer than two
    observations: int = 1  # minibatches or steps that the parabola is the mean of
    # Of the means k1 and k2 over the observations: variance, covariance, variance. All 0 with a single one.
    var_k1: float = 0.0
    cov_k12: float = 0.0
    var_k2: float = 0.0

    def __call__(self, eps: float) -> float:
        """The predicted loss at ``eps``."""
        return self.k0 + self.k1 * eps + self.k2 * eps**2

    def margin(self, eps: float) -> float:
        r"""By how many standard errors the loss still falls at ``eps``: positive where the minimum lies beyond it.

        The slope :math:`k_1 + 2 k_2 \epsilon` is a plain mean over observations, so that this is a t statistic, with no
        ratio in it (Fieller). It also answers for a straight line, whose minimum is nowhere. NaN with one observation.
        """
        if self.observations < 2:
            return math.nan
        slope = self.k1 + 2 * self.k2 * eps
        variance = max(0.0, self.var_k1 + 4 * eps * self.cov_k12 + 4 * eps**2 * self.var_k2)
        error = math.hypot(math.sqrt(variance), FLOAT32_RESOLUTION * abs(self.k0) / self.reach)
        return -slope / error if slope else 0.0

    def interval(self, confidence: float) -> tuple[float, float]:
        r"""The eps that the data cannot tell from the minimum, at ``confidence`` (both sides; Fieller).

        Infinite ends where the bend is not beyond its own noise, or there is one observation: the minimum may be
        anywhere. Steps of the optimizer count as independent: measured, its coverage is docs/method.md, "Error bars".
        """
        if self.observations < 2:
            return -math.inf, math.inf
        t = student_t(0.5 + confidence / 2, self.observations - 1)
        a = 4 * (self.k2**2 - t**2 * self.var_k2)
        b = 4 * (self.k1 * self.k2 - t**2 * self.cov_k12)
        c = self.k1**2 - t**2 * self.var_k1
        if a <= 0 or self.k2 <= 0:
            return -math.inf, math.inf
        half = math.sqrt(max(0.0, b**2 - 4 * a * c))
        return (-b - half) / (2 * a), (-b + half) / (2 * a)


def fit_quadratic(eps: Sequence[float], losses: Sequence[Sequence[float]]) -> Quadratic:
    r"""Fit :math:`\hat L(\epsilon) = k_0 + k_1 \epsilon + k_2 \epsilon^2` (eq. 2) by least squares.

    The bottom is :math:`\epsilon_{min} = -k_1 / (2 k_2)`. It is ``None`` where the parabola opens downwards or its
    bend over the sampled range is within the noise: a flat or straight line has a bottom by rounding alone.

    Args:
        eps: perturbations, shape ``(n,)``, three or more distinct values, in any one unit; so is the minimum.
        losses: shape ``(n, m)``: one column an observation, finite: the loss of a minibatch, the same one for every
            eps, along one step; or the mean loss along each of several steps.

    Returns:
        The parabola of the mean over observations. The fit is linear in the losses, so each observation has its own
        :math:`k_1, k_2`, and their scatter gives the variances, and ``stderr`` by the delta method for a ratio of two
        means. Minibatches along one step know nothing of the noise in its direction; steps do.

    Raises:
        ValueError: shapes that do not match, fewer than three distinct ``eps``, or a non-finite loss.

    Example:
        >>> fit = fit_quadratic(eps=[-0.5, 0.0, 0.5], losses=[[1.0], [0.5], [0.5]])
        >>> round(fit.minimum, 6)
        0.25
    """
    values = np.asarray(losses, dtype=np.float64)
    if values.ndim != 2 or len(values) != len(eps) or values.size == 0:
        raise ValueError(
            f"Every eps needs one row of minibatch losses; got {len(eps)} eps, losses of shape {values.shape}."
        )
    if len(set(eps)) < 3:
        raise ValueError(
            f"A parabola needs 3 distinct eps; got {len(set(eps))}: {sorted(set(eps))}. Add another sample."
        )
    if not (np.isfinite(values).all() and np.isfinite(eps).all()):
        raise ValueError("A parabola needs finite eps and losses; got NaN or infinity. Check them before the fit.")

    # In units of the largest eps its square cannot underflow.
    reach = max(abs(e) for e in eps)
    x = np.asarray(eps, dtype=np.float64) / reach
    design = np.stack([np.ones_like(x), x, x**2], axis=1)
    each, *_ = np.linalg.lstsq(design, values, rcond=None)  # (3, m): one parabola a minibatch
    a, b, c = each.mean(axis=1)
    mean = values.mean(axis=1)
    misfit = float(np.sqrt(np.mean((mean - design @ np.array([a, b, c])) ** 2)))
    noise = max(misfit, FLOAT32_RESOLUTION * float(np.abs(mean).max()))

    m = values.shape[1]
    (var_b, cov), (_, var_c) = np.cov(each[1], each[2]) / m if m > 1 else np.zeros((2, 2))
    minimum = stderr = None
    if c > noise:
        bottom = -b / (2 * c)
        minimum = float(bottom * reach)
        if m > 1:
            residual = (each[1] + 2 * bottom * each[2]) / (2 * c)
            stderr = float(reach * residual.std(ddof=1) / math.sqrt(m))
    return Quadratic(
        k0=float(a),
        k1=float(b / reach),
        k2=float(c / reach**2),
        noise=noise,
        reach=reach,
        minimum=minimum,
        stderr=stderr,
        observations=m,
        var_k1=float(var_b / reach**2),
        cov_k12=float(cov / reach**3),
        var_k2=float(var_c / reach**4),
    )


def epsilon_threshold(loss: float, r: float) -> float:
    r"""The largest :math:`|\epsilon|` with :math:`|\epsilon|^3 < r L` (eq. 3), in LR units; 0 for a loss of 0 or less.

    Example:
        >>> round(epsilon_threshold(loss=1.0, r=1e-3), 9)
        0.1
    """
    return float(np.cbrt(r * max(loss, 0.0)))
