r"""The loss along one optimizer step, as a parabola in a perturbation of the learning rate.

Paper -> code: :math:`\epsilon` -> ``eps`` [lr], :math:`\hat L(\epsilon)` -> ``losses``, :math:`k_0, k_1, k_2` ->
``k0`` [loss], ``k1`` [loss/lr], ``k2`` [loss/lr^2], :math:`\epsilon_{min}` -> ``minimum`` [lr], r -> ``r``.

Numbers only: this file is checked against algebra, not against training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FLOAT32_RESOLUTION = 2.0**-23  # losses come out of float32 arithmetic; a smaller relative dip is rounding


@dataclass(frozen=True, slots=True)
class Quadratic:
    """A parabola fitted to the loss at a few perturbations of the learning rate (eq. 2)."""

    k0: float
    k1: float
    k2: float
    noise: float  # [loss] RMS misfit of the mean losses, never below their float32 resolution
    reach: float  # [lr] the largest |eps| that was sampled
    minimum: float | None  # [lr] eps of least predicted loss; None where there is no bottom to trust
    stderr: float | None  # [lr] standard error of ``minimum`` over the minibatches; None with fewer than two

    def __call__(self, eps: float) -> float:
        """The predicted loss at ``eps``."""
        return self.k0 + self.k1 * eps + self.k2 * eps**2


def fit_quadratic(eps: Sequence[float], losses: Sequence[Sequence[float]]) -> Quadratic:
    r"""Fit :math:`\hat L(\epsilon) = k_0 + k_1 \epsilon + k_2 \epsilon^2` (eq. 2) by least squares.

    The bottom is :math:`\epsilon_{min} = -k_1 / (2 k_2)`. It is ``None`` where the parabola opens downwards or its
    bend over the sampled range is within the noise: a flat or straight line has a bottom by rounding alone.

    Args:
        eps: perturbations of the learning rate, shape ``(n,)``, three or more distinct values.
        losses: shape ``(n, m)``: the loss of each of ``m`` minibatches, the same ones for every eps; finite.

    Returns:
        The parabola of the mean over minibatches. The fit is linear in the losses, so each minibatch has its own
        :math:`k_1, k_2`, and their scatter gives ``stderr`` by the delta method for a ratio of two means. It knows
        nothing of the noise in the step's own direction, which no superbatch removes.

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

    # Learning rates live anywhere in 1e-8..1e2: in units of the largest eps, its square cannot underflow.
    reach = max(abs(e) for e in eps)
    x = np.asarray(eps, dtype=np.float64) / reach
    design = np.stack([np.ones_like(x), x, x**2], axis=1)
    each, *_ = np.linalg.lstsq(design, values, rcond=None)  # (3, m): one parabola a minibatch
    a, b, c = each.mean(axis=1)
    mean = values.mean(axis=1)
    misfit = float(np.sqrt(np.mean((mean - design @ np.array([a, b, c])) ** 2)))
    noise = max(misfit, FLOAT32_RESOLUTION * float(np.abs(mean).max()))

    minimum = stderr = None
    if c > noise:
        bottom = -b / (2 * c)
        minimum = float(bottom * reach)
        if (m := values.shape[1]) > 1:
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
    )


def epsilon_threshold(loss: float, r: float) -> float:
    r"""The largest :math:`|\epsilon|` with :math:`|\epsilon|^3 < r L` (eq. 3), in LR units; 0 for a loss of 0 or less.

    Example:
        >>> round(epsilon_threshold(loss=1.0, r=1e-3), 9)
        0.1
    """
    return float(np.cbrt(r * max(loss, 0.0)))
