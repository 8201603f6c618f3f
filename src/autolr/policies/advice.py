"""What a look says to do: the parabola's answer taken at its word, as in the paper, or only where it is sure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from autolr.confidence import critical
from autolr.policies.protocol import Look
from autolr.policies.wording import number
from autolr.quadratic import Quadratic

HOPEFUL = 8  # observations after which an exploring look without a rise in sight is given up


@dataclass(frozen=True, slots=True)
class Advice:
    """A change of the LR, and why."""

    asked: float | None  # [lr] infinite: as far as the bounds allow; None: no change
    told: str
    sure: bool = True  # whether seeing more could not alter it


def at_its_word(fit: Quadratic, *, exploring: bool) -> Advice:
    """Whatever the parabola answers; in explore no decrease."""
    asked = fit.minimum
    if asked is None:
        return Advice(None, "the fit has no minimum")
    if exploring and asked <= 0:
        return Advice(None, f"the fit asks for a decrease ({number(asked, signed=True)})")
    return Advice(asked, f"the fit asks for {number(asked, signed=True)}")


def if_sure(look: Look, fit: Quadratic, *, confidence: float, least: float, exploring: bool) -> Advice:
    """The parabola's answer where its sign is beyond doubt. A straight line has a sign and no minimum.

    Args:
        look: that the fit belongs to.
        fit: the parabola, with its errors over two observations or more.
        confidence: that a change has the right sign, over all of the look's checks.
        least: the smallest change worth finding, in multiples of the LR.
        exploring: a decrease is refused, so that a rise is all there is to find. The search is given up early, without
            being sure: a rise that was missed is there at the next look, and forwards are not.
    """
    sure = critical(confidence, look.checks, fit.observations)
    told = f"{_with_error(fit)} over {fit.observations} observations"
    margin = fit.margin(0)
    if margin > sure:
        return Advice(math.inf if fit.minimum is None else fit.minimum, f"the fit surely asks for more: {told}")
    if margin < -sure and exploring:
        return Advice(None, f"the fit surely asks for a decrease: {told}")
    if margin < -sure:
        return Advice(-math.inf if fit.minimum is None else fit.minimum, f"the fit surely asks for less: {told}")
    worth = least * look.lr
    if exploring and fit.observations >= HOPEFUL and fit.margin(worth) < 0:
        return Advice(None, f"the fit sees no rise worth making: {told}")
    if fit.margin(worth) < -sure and (exploring or fit.margin(-worth) > sure):
        return Advice(None, f"the fit surely asks for no change worth making: {told}")
    return Advice(None, f"the fit is undecided: {told}", sure=False)


def _with_error(fit: Quadratic) -> str:
    if fit.minimum is None:
        return "no minimum in sight"
    if fit.stderr is None:
        return number(fit.minimum, signed=True)
    return f"{number(fit.minimum, signed=True)} +- {number(fit.stderr)}"
