"""What a look says to do: the parabola's answer taken at its word, as in the paper, or only where it is sure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from autolr.numerics.significance import FIRST, critical
from autolr.policies.base import Look
from autolr.policies.wording import number
from autolr.numerics.quadratic import Quadratic

Why = Literal["hope", "used up", "doubt"]
HALF = -0.5  # of the LR: eps_min where the loss has stopped falling. docs/method.md, "The half law"
HOPEFUL = 8  # observations after which an exploring look without a rise in sight is given up


@dataclass(frozen=True, slots=True)
class Advice:
    """A change of the LR, and why."""

    asked: float | None  # [lr] infinite: as far as the bounds allow; None: no change
    told: str
    final: bool = True  # whether there is no need to see more


def at_its_word(fit: Quadratic, *, exploring: bool) -> Advice:
    """Whatever the parabola answers; in explore no decrease."""
    asked = fit.minimum
    if asked is None:
        return Advice(None, "the fit has no minimum")
    if exploring and asked <= 0:
        return Advice(None, f"the fit asks for a decrease ({number(asked, signed=True)})")
    return Advice(asked, f"the fit asks for {number(asked, signed=True)}")


def if_sure(
    look: Look, fit: Quadratic, *, confidence: float, least: float, exploring: bool, why: Why = "doubt"
) -> Advice:
    """The parabola's answer where its sign is beyond doubt. A straight line has a sign and no minimum.

    Args:
        look: that the fit belongs to.
        fit: the parabola, with its errors over two observations or more.
        confidence: that a change has the right sign, over all of the look's checks.
        least: the smallest change worth finding, in multiples of the LR.
        exploring: a decrease is refused.
        why: the look was begun. "hope": in explore, for a rise and nothing else. It is given up early, without being
            sure, also where it has outlasted explore: a rise that was missed is there at the next look, and forwards
            are not.
            "used up": the loss has stopped falling at this LR. Then nothing is gained along a step on average, its two
            ends are level, and the minimum lies in the middle: what a hundred observations would say is known
            beforehand (48 of 48 verdicts: docs/method.md, "The half law"). A few are enough to see that they do not
            surely ask for more.
    """
    sure = critical(confidence, look.checks, fit.observations)
    told = f"{_with_error(fit)} over {fit.observations} observations"
    margin = fit.margin(0)
    if margin > sure:
        return Advice(math.inf if fit.minimum is None else fit.minimum, f"the fit surely asks for more: {told}")
    if exploring or why == "hope":
        return _hoping(look, fit, sure, least, told, exploring=exploring)
    if why == "used up" and fit.observations >= FIRST:
        return Advice(HALF * look.lr, f"the LR is used up, and the fit does not surely ask for more: {told}")
    if margin < -sure:
        return _less(fit, told)
    if fit.margin(least * look.lr) < -sure and fit.margin(-least * look.lr) > sure:
        return Advice(None, f"the fit surely asks for no change worth making: {told}")
    return Advice(None, f"the fit is undecided: {told}", final=False)


def _hoping(look: Look, fit: Quadratic, sure: float, least: float, told: str, *, exploring: bool) -> Advice:
    """Of a look for a rise that has found none yet: whether to look on."""
    if fit.margin(0) < -sure:
        return Advice(None, f"the fit surely asks for a decrease: {told}") if exploring else _less(fit, told)
    margin = fit.margin(least * look.lr)
    if fit.observations >= HOPEFUL and margin < 0:
        return Advice(None, f"the fit sees no rise worth making: {told}")
    if margin < -sure:
        return Advice(None, f"the fit surely asks for no change worth making: {told}")
    return Advice(None, f"the fit is undecided: {told}", final=False)


def _less(fit: Quadratic, told: str) -> Advice:
    return Advice(-math.inf if fit.minimum is None else fit.minimum, f"the fit surely asks for less: {told}")


def _with_error(fit: Quadratic) -> str:
    if fit.minimum is None:
        return "no minimum in sight"
    if fit.stderr is None:
        return number(fit.minimum, signed=True)
    return f"{number(fit.minimum, signed=True)} +- {number(fit.stderr)}"
