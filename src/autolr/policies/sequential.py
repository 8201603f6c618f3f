"""What a probe says to do: the parabola's answer taken at its word, as in the paper, or only where it is sure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from autolr.numerics.quadratic import Quadratic
from autolr.numerics.significance import FIRST, critical
from autolr.policies.base import Trigger
from autolr.policies.window_state import ProbeFit

CONFIDENCE = 0.9  # that a probe's verdict has the right sign: docs/method.md, "Error bars"
LEAST = 0.1  # in multiples of the LR, as all eps; a smaller change is not worth finding
HALF = -0.5  # eps_min where the loss has stopped falling. docs/method.md, "The half law"
HOPEFUL = 8  # observations after which an exploring probe without a rise in sight is given up


@dataclass(frozen=True, slots=True)
class Advice:
    """A change of the LR, and why."""

    asked: float | None  # in multiples of the LR; infinite: as far as the bounds allow; None: no change
    trigger: Trigger
    numbers: Mapping[str, float] = field(default_factory=dict)
    final: bool = True  # whether there is no need to see more


def at_its_word(fit: Quadratic, *, exploring: bool) -> Advice:
    """Whatever the parabola answers; in explore no decrease."""
    asked = fit.minimum
    if asked is None:
        return Advice(None, Trigger.NO_MINIMUM)
    if exploring and asked <= 0:
        return Advice(None, Trigger.DECREASE_REFUSED, {"asked": asked})
    return Advice(asked, Trigger.FIT_ASKS, {"asked": asked})


def if_sure(probe: ProbeFit, fit: Quadratic, *, confidence: float, least: float, exploring: bool) -> Advice:
    """The parabola's answer where its sign is beyond doubt. A straight line has a sign and no minimum.

    Why the probe was begun decides how long it goes on:

    - exploring: for a rise and nothing else. It is given up early, without being sure, also where it has outlasted
      explore: a rise that was missed is there at the next probe, and forwards are not.
    - saturated: the loss has stopped falling at this LR. Then nothing is gained along a step on average, its two ends
      are level, and the minimum lies in the middle: what a hundred observations would say is known beforehand (48 of 48
      verdicts: docs/method.md, "The half law"). A few are enough to see that they do not surely ask for more.

    Args:
        probe: that the fit belongs to.
        fit: the parabola, with its errors over two observations or more.
        confidence: that a change has the right sign, over all of the probe's checks.
        least: the smallest change worth finding, in multiples of the LR.
        exploring: a decrease is refused.
    """
    sure = critical(confidence, probe.checks, fit.observations)
    seen = _numbers(fit)
    margin = fit.margin(0)
    if margin > sure:
        return Advice(math.inf if fit.minimum is None else fit.minimum, Trigger.SURELY_MORE, seen)
    if exploring or probe.why is Trigger.EXPLORING:
        return _hoping(fit, sure, least, exploring=exploring)
    if probe.why is Trigger.SATURATED and fit.observations >= FIRST:
        return Advice(HALF, Trigger.NOT_SURELY_MORE, seen)
    if margin < -sure:
        return _less(fit)
    if fit.margin(least) < -sure and fit.margin(-least) > sure:
        return Advice(None, Trigger.NO_CHANGE, seen)
    return Advice(None, Trigger.UNDECIDED, seen, final=False)


def _hoping(fit: Quadratic, sure: float, least: float, *, exploring: bool) -> Advice:
    """Of a probe for a rise that has found none yet: whether to go on."""
    seen = _numbers(fit)
    if fit.margin(0) < -sure:
        return Advice(None, Trigger.DECREASE_REFUSED, seen) if exploring else _less(fit)
    margin = fit.margin(least)
    if fit.observations >= HOPEFUL and margin < 0:
        return Advice(None, Trigger.NO_RISE, seen)
    if margin < -sure:
        return Advice(None, Trigger.NO_CHANGE, seen)
    return Advice(None, Trigger.UNDECIDED, seen, final=False)


def _less(fit: Quadratic) -> Advice:
    return Advice(-math.inf if fit.minimum is None else fit.minimum, Trigger.SURELY_LESS, _numbers(fit))


def _numbers(fit: Quadratic) -> dict[str, float]:
    found = {"asked": fit.minimum, "stderr": fit.stderr, "observations": float(fit.observations)}
    return {name: value for name, value in found.items() if value is not None}
