r"""The paper's explore-exploit policy: high rates first, then the parabola's advice, then only where it pays.

Paper -> code: explore epochs / total epochs -> ``explore``, saturation threshold -> ``saturation``, epsilon threshold r
-> ``epsilon`` (Table 7); :math:`\epsilon_{min}` -> ``quadratic.minimum``.

The order at the end of a window: (1) is the run alive, and has the loss not risen? if not, roll back;
(2) explore: look; exploit: look only if this LR is saturated; (3) clip the parabola's advice, and in explore refuse a
decrease.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

from autolr.policies.advice import at_its_word, if_sure
from autolr.policies.protocol import Decision, Look, Window
from autolr.policies.sampling import (
    CONFIDENCE,
    FIVE,
    LEAST,
    THREE,
    check_confidence,
    check_eps,
    check_range,
    check_spread,
)
from autolr.policies.wording import number, numbers
from autolr.quadratic import epsilon_threshold
from autolr.saturation import check_saturation

Preset = Literal["mnist", "fashion-mnist", "cifar10", "imagenet", "iwslt14", "squad"]

DONE = {"raise": "raised", "lower": "lowered"}
EXPLORING = "exploring: every window ends with a look"
REMEMBERED = 5  # windows whose movement tells what the loss does by itself: docs/method.md, "When is worse worse?"
GIVEN_BACK = 0.9  # share of all that the run had gained; at more than this it has collapsed
CERTAIN = 3.0  # standard errors beyond which a rise is a rise: the same experiment


@dataclass(frozen=True, slots=True)
class PaperState:
    """What the policy remembers between windows; plain values, so that it goes into a checkpoint as it is."""

    began: float | None = None  # [loss/step] loss-drop rate of this LR's first window
    absolute: float | None = None  # [loss/step] absolute saturation threshold, once it is known
    changed_from: float | None = None  # [lr] the LR before the change that awaits its verdict
    rate_before: float | None = None  # [loss/step] loss-drop rate of the window before that change
    first_loss: float | None = None  # [loss] where the run began
    moves: tuple[float, ...] = ()  # [loss] how much the loss moved over each of the last windows, unsigned


@dataclass(frozen=True, slots=True)
class Paper:
    """The policy of the paper, part 2.1.

    ``Paper()`` and its presets take a superbatch of fixed size and its answer at its word, as the paper does.
    `Paper.adaptive` looks on until it is sure in which direction to go, or that there is nowhere worth going.

    Args:
        explore: share of the run's steps in which the LR may only rise (the paper: 0.2-0.3; Table 7).
        saturation: relative saturation threshold, above 1: an LR's first loss-drop rate over its present one (Table 7).
        epsilon: relative error threshold r of eq. 3 (Table 7), absolute in LR units.
        factor: the LR is at most multiplied or divided by this at one look, above 1. Not in the paper: with r = 1e-3
            and Adam at 1e-3, eq. 3 alone allows 132 times the LR.
        eps: perturbations sampled at a look, in multiples of the LR. The paper takes 5 and does not say which.
        spread: optimizer steps that a look's superbatch is spread over; 1 is the paper's. The noise of one step's
            direction is larger than what a look is after, and no superbatch removes it: docs/method.md. With a
            ``confidence`` it has no meaning: each minibatch has a step of its own.
        rollback: return to where a window began when the loss rose in it beyond its noise, or is not finite.
        confidence: look on until the verdict is this sure, all the times together that it is asked for; None for the
            paper's fixed superbatch.
        least: with a ``confidence``, the smallest change worth finding, in multiples of the LR.
    """

    explore: float = 0.2
    saturation: float = 100.0
    epsilon: float = 1e-3
    factor: float = 2.0
    eps: tuple[float, ...] = FIVE
    spread: int = 20
    rollback: bool = True
    confidence: float | None = None
    least: float = LEAST

    def __post_init__(self) -> None:
        check_range("explore", self.explore, low=0, high=1)
        check_range("saturation", self.saturation, above=1)
        check_range("epsilon", self.epsilon, above=0)
        check_range("factor", self.factor, above=1)
        check_eps(self.eps)
        check_spread(self.spread)
        check_confidence(self.confidence)
        check_range("least", self.least, low=0, high=1)

    @classmethod
    def adaptive(cls, confidence: float = CONFIDENCE, **settings: Any) -> Paper:
        """Looks that go on until they are sure, of 3 samples each; ``settings`` as for `Paper`."""
        chosen: dict[str, Any] = {"eps": THREE, "confidence": confidence} | settings
        return cls(**chosen)

    @classmethod
    def preset(cls, name: Preset) -> Paper:
        """The hyperparameters of Table 7 for one of the paper's data sets.

        Raises:
            ValueError: a name that Table 7 does not have.
        """
        if name not in TABLE_7:
            raise ValueError(f"Table 7 has {', '.join(TABLE_7)}; got {name!r}.")
        return TABLE_7[name]

    def begin(self) -> PaperState:
        """The state at the start of a run."""
        return PaperState()

    def phase(self, step: int, total_steps: int) -> str:
        """``"explore"`` for the first ``explore`` share of the steps, then ``"exploit"``."""
        return "explore" if step < self.explore * total_steps else "exploit"

    def judge(self, state: PaperState, window: Window) -> tuple[PaperState, Decision]:
        """Roll back, look, or keep without a look."""
        if state.first_loss is None and math.isfinite(window.start_loss):
            state = replace(state, first_loss=window.start_loss)
        if self.rollback and (went_wrong := self._went_wrong(state, window)):
            wrong, died = went_wrong
            # A change goes back with the state. A window that died with nothing changed has only its LR to blame.
            lr = state.changed_from if state.changed_from is not None else window.lr / self.factor
            state = replace(state, began=None, changed_from=None, rate_before=None)
            reason = f"rolled back {window.steps} steps, LR {number(window.lr)} to {number(lr)}: {wrong}"
            return state, Decision("roll back", lr, reason, died=died)

        if window.drop is None:  # with rollback off there is nothing to decide on until the loss is finite again
            return state, Decision("keep", window.lr, f"LR kept at {number(window.lr)}: the loss is {window.end_loss}")
        rate = window.drop.rate
        began = rate if state.began is None else state.began
        saturated, absolute = check_saturation(rate, began=began, threshold=self.saturation, absolute=state.absolute)
        moves = (*state.moves, abs(rate) * window.steps)[-REMEMBERED:]
        state = replace(state, began=began, absolute=absolute, changed_from=None, rate_before=rate, moves=moves)
        if self.phase(window.step, window.total_steps) == "explore":
            return state, Decision("look", window.lr, EXPLORING)
        against = f"loss-drop rate {number(rate)} a step, " + (
            f"threshold {number(absolute)}" if absolute is not None else f"{number(began)} when this LR began"
        )
        if saturated:
            return state, Decision("look", window.lr, f"saturated ({against})")
        return state, Decision("keep", window.lr, f"LR kept at {number(window.lr)}: not saturated ({against})")

    def decide(self, state: PaperState, look: Look) -> tuple[PaperState, Decision]:
        """Clip the parabola's advice (eq. 3 and ``factor``); in explore, refuse a decrease."""
        phase = self.phase(look.step, look.total_steps)
        doing = "exploring" if phase == "explore" else look.why or "exploiting"
        if doing == EXPLORING:  # the look has outlasted the phase that it began in
            doing = "exploiting by now"
        if look.quadratic is None:
            return state, _keep(look.lr, f"{doing}, and a sampled loss is not finite")
        exploring = phase == "explore"
        if self.confidence is None:
            advice = at_its_word(look.quadratic, exploring=exploring)
        else:
            advice = if_sure(
                look, look.quadratic, confidence=self.confidence, least=self.least, exploring=exploring,
                why="hope" if look.why == EXPLORING else "used up" if look.why else "doubt",
            )  # fmt: skip
        if advice.asked is None:
            why = f"{doing}, and {advice.told}"
            return state, _keep(look.lr, why) if advice.final or look.last else Decision("look", look.lr, why)
        eps, clipped = self._clip(advice.asked, look)
        lr = max(look.lr + eps, look.lr / self.factor)  # above 0 whatever the rounding
        if lr == look.lr:
            return state, _keep(look.lr, f"{doing}, and {advice.told}{clipped}")
        verdict: Literal["raise", "lower"] = "raise" if eps > 0 else "lower"
        before, after = numbers(look.lr, lr)
        reason = f"LR {DONE[verdict]} from {before} to {after}: {doing}, and {advice.told}{clipped}"
        return replace(state, began=None, changed_from=look.lr), Decision(verdict, lr, reason)

    def _clip(self, asked: float, look: Look) -> tuple[float, str]:
        """Bound ``asked`` by eq. 3 and by ``factor``; say which of the two held it back."""
        cubic = epsilon_threshold(look.loss, self.epsilon)
        relative = look.lr * (self.factor - 1) if asked > 0 else look.lr * (1 - 1 / self.factor)
        bound, name = min((cubic, "the epsilon threshold"), (relative, f"factor {number(self.factor)}"))
        if abs(asked) <= bound:
            return asked, ""
        if bound == 0:
            name += ", which needs a loss above 0"
        return math.copysign(bound, asked), f", held to {number(math.copysign(bound, asked), signed=True)} by {name}"

    def _went_wrong(self, state: PaperState, window: Window) -> tuple[str, bool] | None:
        """Why this window must be undone, and whether the run is lost otherwise; None where nothing is wrong.

        Differs from the paper: a lower loss-drop rate than before is not enough, since the rate falls by itself as
        training goes on. The loss has to rise over the window, by more than ``CERTAIN`` times its noise: the standard
        error over minibatches, and how far the loss moves in an ordinary window. In a run's first windows the ordinary
        movement is the steep first fall, and would hide a collapse: a rise that gives back nearly all that the run had
        gained needs to exceed the standard error alone.
        """
        if window.drop is None:
            if not math.isfinite(window.start_loss):  # nothing better to go back to
                return None
            return f"the loss went from {number(window.start_loss)} to {window.end_loss}", True
        usual = statistics.median(state.moves) if state.moves else 0.0
        if math.isnan(window.drop.stderr) and not state.moves:  # one minibatch, one window: nothing to tell noise by
            return None
        stderr = 0.0 if math.isnan(window.drop.stderr) else window.drop.stderr * window.steps
        noise = math.hypot(usual, stderr)
        rise = -window.drop.rate * window.steps
        gained = 0.0 if state.first_loss is None else state.first_loss - window.start_loss
        # A gain below the largest movement's half may be the difference of two superbatches.
        decisive = gained > max(state.moves, default=math.inf) / 2
        collapsed = decisive and rise > max(GIVEN_BACK * gained, CERTAIN * stderr)
        if not (collapsed or rise > CERTAIN * noise):
            return None
        told = f"the loss rose by {number(rise)} to {number(window.end_loss)}, "
        told += "nearly to where the run began" if collapsed else f"noise {number(noise)}"
        if state.changed_from is not None and state.rate_before is not None and window.drop.rate < state.rate_before:
            told += (
                f", and the loss-drop rate fell from {number(state.rate_before)} to {number(window.drop.rate)} a step"
            )
        return told, collapsed


def _keep(lr: float, why: str) -> Decision:
    return Decision("keep", lr, f"LR kept at {number(lr)}: {why}")


# Table 7: explore epochs / total epochs, saturation threshold, epsilon threshold.
TABLE_7: Mapping[str, Paper] = MappingProxyType(
    {
        "mnist": Paper(explore=10 / 50, saturation=100, epsilon=1e-3),
        "fashion-mnist": Paper(explore=10 / 50, saturation=100, epsilon=1e-3),
        "cifar10": Paper(explore=50 / 200, saturation=100, epsilon=1e-3),
        "imagenet": Paper(explore=25 / 90, saturation=500, epsilon=1e-3),
        "iwslt14": Paper(explore=8 / 50, saturation=5, epsilon=1e-9),
        "squad": Paper(explore=0.45 / 2, saturation=2, epsilon=1e-12),
    }
)
