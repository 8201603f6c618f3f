"""The paper's method read literally: what "the paper" means in a table. `ExploreExploit` is the same with repairs.

One step a probe; the drop rate measured at the first crossing is the absolute threshold from there on; a change that
leads to any lower drop rate is rolled back; eq. 3 alone bounds a change; probes twice an epoch, on 100 minibatches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from autolr.numerics.quadratic import FLOAT32_RESOLUTION, epsilon_threshold
from autolr.policies.base import Decision, Run, Trigger
from autolr.policies.explore_exploit import TABLE_7, ExploreExploit, ExploreExploitState, Preset
from autolr.policies.sequential import at_its_word
from autolr.policies.window_plan import LARGEST_SUPERBATCH, LONGEST_WINDOW
from autolr.policies.window_state import ProbeFit, WindowResult


@dataclass(frozen=True, kw_only=True)
class LiteralExploreExploit(ExploreExploit):
    """The paper's sentences, one for one. Where they say nothing, the least is done.

    A window whose loss is not finite is rolled back if it followed a change, and left alone otherwise. An answer that
    leaves no rate beyond rounding is not followed. The defaults cost up to 85 % of the training's own where an epoch is
    short: ``window=1000`` is the paper's for CIFAR-10, 16.6 %.

    The settings are `ExploreExploit`'s; ``factor``, ``floor``, ``least`` and ``confidence`` have no meaning here.
    """

    spread: int = 1

    @classmethod
    def from_paper(cls, name: Preset, **settings: Any) -> LiteralExploreExploit:
        """The hyperparameters of Table 7 for one of the paper's data sets; ``settings`` beside them.

        Raises:
            ValueError: a name that Table 7 does not have.
        """
        if name not in TABLE_7:
            raise ValueError(f"Table 7 has {', '.join(TABLE_7)}; got {name!r}.")
        return cls(**{**TABLE_7[name], **settings})

    def usual_window(self, run: Run) -> int:
        """Twice an epoch; of data without a length, the paper's 1,000 steps; half of a run shorter than that."""
        window = LONGEST_WINDOW if run.batches is None else run.batches // 2
        return max(1, min(window, run.total_steps // 2))

    def usual_superbatch(self, run: Run, window: int) -> int:  # noqa: ARG002
        """100 minibatches, or all that there are."""
        return min(run.batches or LARGEST_SUPERBATCH, LARGEST_SUPERBATCH)

    def judge(self, own: ExploreExploitState, window: WindowResult) -> tuple[ExploreExploitState, Decision]:
        """Roll back a change that made the drop rate worse; look in explore, or where this LR is saturated."""
        rate = -math.inf if window.drop is None else window.drop.rate
        changed, before = own.changed_from, own.rate_before
        if self.rollback and changed is not None and before is not None and rate < before:
            own = replace(own, began=None, changed_from=None, rate_before=None)
            numbers = {"end": window.end_loss, "start": window.start_loss, "rate_before": before, "rate": rate}
            trigger = Trigger.LOSS_NOT_FINITE if window.drop is None else Trigger.RATE_FELL
            return own, Decision("roll back", changed, trigger, numbers=numbers, diverged=window.drop is None)
        if window.drop is None:
            return own, Decision("keep", window.lr, Trigger.LOSS_NOT_FINITE, numbers={"end": window.end_loss})
        began = rate if own.began is None else own.began
        saturated, absolute = self._saturated(rate, began, own.absolute)
        own = replace(own, began=began, absolute=absolute, changed_from=None, rate_before=rate)
        if self.phase_at(window.step, window.total_steps) == "explore":
            return own, Decision("look", window.lr, Trigger.EXPLORING)
        numbers = {"rate": rate, **({"began": began} if absolute is None else {"threshold": absolute})}
        if saturated:
            return own, Decision("look", window.lr, Trigger.SATURATED, numbers=numbers)
        return own, Decision("keep", window.lr, Trigger.NOT_SATURATED, numbers=numbers)

    def _saturated(self, rate: float, began: float, absolute: float | None) -> tuple[bool, float | None]:
        """Whether this LR has served its purpose, and the absolute threshold, once one has been crossed."""
        if absolute is not None:
            return rate < absolute, absolute
        crossed = rate <= 0 or began / rate > self.saturation
        return crossed, rate if crossed else None

    def advise(self, own: ExploreExploitState, fit: ProbeFit) -> tuple[ExploreExploitState, Decision]:
        """Follow the parabola as far as eq. 3 allows; in explore, refuse a decrease."""
        if fit.quadratic is None:
            return own, Decision("keep", fit.lr, Trigger.SAMPLE_NOT_FINITE, fit.why)
        advice = at_its_word(fit.quadratic, exploring=self.phase_at(fit.step, fit.total_steps) == "explore")
        if advice.asked is None:
            return own, Decision("keep", fit.lr, advice.trigger, fit.why, advice.numbers)
        bound, change = epsilon_threshold(fit.loss, self.epsilon), advice.asked * fit.lr
        numbers = dict(advice.numbers)
        if bound == 0:
            return own, Decision("keep", fit.lr, Trigger.NO_ROOM, fit.why, {**numbers, "loss": fit.loss})
        if abs(change) > bound:
            change = math.copysign(bound, change)
            numbers |= {"held": change / fit.lr, "epsilon": self.epsilon}
        lr = fit.lr + change
        if not FLOAT32_RESOLUTION * fit.lr < lr < math.inf or lr == fit.lr:
            return own, Decision("keep", fit.lr, advice.trigger, fit.why, numbers)
        own = replace(own, began=None, changed_from=fit.lr)
        return own, Decision("raise" if change > 0 else "lower", lr, advice.trigger, fit.why, numbers)
