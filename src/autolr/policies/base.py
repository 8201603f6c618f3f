"""What a policy is told and what it answers: plain numbers both ways, so that it can be tested without a model.

A policy is a frozen dataclass of settings. Its state is another frozen dataclass of plain values, which the controller
carries from call to call and into checkpoints. The controller asks the policy, in this order at each step:

1. ``check``: what it wants measured where the parameters are now. Asked again until it wants nothing.
2. ``rate``: the learning rate of the coming step.
3. ``may_probe``: whether it may want losses along the coming step, so that a copy is made before it.
4. after the step ``check`` again, then ``along``: what it wants measured along the step just taken.

Each measurement comes back through ``decide``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal, Protocol

from autolr.numerics.quadratic import Quadratic

Verdict = Literal["keep", "look", "raise", "lower", "roll back"]


class Trigger(str, Enum):
    """Why a decision was taken. `wording.explain` renders it; no code branches on the words."""

    EXPLORING = "exploring"  # the window belongs to the explore phase
    SATURATED = "saturated"  # the loss-drop rate fell below its threshold
    NOT_SATURATED = "not saturated"
    MONITORING = "monitoring"  # every window ends with a probe, which changes nothing
    LOSS_NOT_FINITE = "loss not finite"
    LOSS_ROSE = "loss rose"  # beyond its noise
    RATE_FELL = "rate fell"  # the loss-drop rate, after a change: the paper's own reason to roll back
    COLLAPSED = "collapsed"  # the loss is nearly where the run began
    SAMPLE_NOT_FINITE = "sample not finite"
    NO_MINIMUM = "no minimum"  # the parabola opens downwards, or not surely upwards
    FIT_ASKS = "fit asks"  # the parabola's minimum, taken at its word
    DECREASE_REFUSED = "decrease refused"  # in explore the rate may only rise
    SURELY_MORE = "surely more"
    SURELY_LESS = "surely less"
    NOT_SURELY_MORE = "not surely more"  # saturated, and the fit does not surely ask for more
    NO_RISE = "no rise"  # in explore, no rise worth making in sight
    NO_CHANGE = "no change"  # surely no change worth making
    NO_ROOM = "no room"  # eq. 3 allows no change at all: the loss is not above 0
    AT_FLOOR = "at floor"  # it would be lowered, and is as low as it may become
    UNDECIDED = "undecided"
    RUN_ENDED = "run ended"  # before a verdict
    PEAK_FOUND = "peak found"
    NO_PEAK = "no peak"  # no rate surely gains enough in a short run
    HEALTHY = "healthy"  # a divergence check passed
    DIVERGED = "diverged"
    TOO_HIGH = "too high"  # the run has hardly got further than its short run, and a lower peak gets further
    STANDS = "stands"  # likewise, and a lower peak gets no further
    DIED = "died"  # weights without a gradient, and nothing gained
    OBJECTIVE_CHANGED = "objective changed"  # the loss is higher at the last good place too
    OTHER_DATA = "other data"  # there are more or fewer minibatches than there were: none of before to compare with
    LOST = "lost"  # the loss is not finite, and going back does not help


@dataclass(frozen=True, slots=True)
class Run:
    """What a policy is told of the run before it starts."""

    total_steps: int
    batches: int | None = None  # minibatches that can be drawn, the fewest over ranks; None where nobody knows
    low_precision: bool = False  # parameters in bfloat16 or float16


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the run is."""

    run: Run
    step: int  # optimizer steps taken
    lr: float  # the largest over the groups; 0 where there is none that can be scaled
    spent: int = 0  # [forward equivalents] on everything that AutoLR did so far
    idle: int = 0  # calls of ``zero_grad`` since the last step, where there are suspiciously many; else 0
    undone: int = 0  # of ``step``, by rollbacks: in ``spent`` too

    @property
    def total_steps(self) -> int:
        """Of the run."""
        return self.run.total_steps


Kind = Literal["here", "along", "search", "at snapshot", "from snapshot"]
Gradients = Literal["", "zero", "zero or none"]
ForeignRate = Literal["ignored", "adopted", "overwritten"]


@dataclass(frozen=True, slots=True)
class ProbeRequest:
    """What a policy wants measured.

    ``here``: the loss where the parameters are. ``along``: at points of the step just taken. ``at snapshot``: where the
    last snapshot was taken. ``search``: a peak search from here (only ``clip`` and ``budget`` have a meaning). ``from
    snapshot``: after some steps from here, and after some from where the last snapshot was taken; all are undone.
    """

    kind: Kind
    superbatch: int = 0  # its number: the same number is the same minibatches
    minibatches: int = 0  # of it, on each rank; 0 measures nothing
    eps: tuple[float, ...] = ()  # of the fit, in multiples of the step: 0 is the step as taken, -1 undoes it
    validation_eps: tuple[float, ...] = ()  # likewise, kept from the fit
    gradients: Gradients = ""  # which parameters to tell that have such a gradient
    snapshot: bool = False  # save the place, to roll back to
    report: bool = True  # whether the answer is wanted now; else it may stay on the device until one that is
    purpose: Literal["drop_rate", "divergence"] = "drop_rate"  # what a measurement at one point is charged to
    from_here: tuple[float, ...] = ()  # [lr] of each step from here, to be undone
    from_there: tuple[float, ...] = ()  # [lr] of each step from the last snapshot, likewise
    keep_after: int = 0  # so many of these the place is kept, for `Decision.to_kept`
    clip: float | None = None  # of a search, or of those steps: the largest gradient norm
    budget: float | None = None  # of a search: share of the run's cost; None for `autolr.find_peak`'s own


@dataclass(frozen=True, slots=True)
class Search:
    """What a peak search found."""

    lr: float
    low: float  # [lr] ends of the interval
    high: float
    start_loss: float  # mean over the evaluation minibatches, before any step
    best_loss: float  # the lowest at the end of a short run
    cost: int  # [forward equivalents]
    found: bool  # False: no rate surely gained enough, and ``lr`` is a guess or the one that was given
    details: Mapping[str, Any] = field(default_factory=dict)  # `Peak.to_dict`, for the log


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What was measured."""

    request: ProbeRequest
    now: Progress
    # For each step probed since the last report, for each eps (those of the fit, then validation's), the loss of each
    # minibatch, all ranks side by side.
    losses: tuple[tuple[tuple[float, ...], ...], ...] = ()
    search: Search | None = None
    without_gradient: tuple[int, ...] = ()  # numbers of the parameters that were asked for, alike on all ranks

    @property
    def here(self) -> list[float]:
        """Losses of a request at one point."""
        return list(self.losses[0][0]) if self.losses else []

    @property
    def there(self) -> list[float]:
        """Losses after the steps from a snapshot, on the minibatches of `here`, which are after those from here."""
        return list(self.losses[0][1])


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a decision rests on, for the log. Losses are means over the superbatch."""

    phase: str
    lr: float  # before the decision
    loss: float | None = None
    drop_rate: float | None = None  # [loss/step]
    drop_rate_stderr: float | None = None
    eps: tuple[float, ...] = ()  # in multiples of the step, as in `ProbeRequest`
    losses: tuple[float, ...] = ()
    validation_eps: tuple[float, ...] = ()
    validation_losses: tuple[float, ...] = ()
    observations: int = 0
    fit: Quadratic | None = None
    search: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict, the learning rate from here on, and why: a trigger and its numbers.

    A policy of one's own may have a text in place of the trigger, which is its words then; and leave the evidence out.
    """

    verdict: Verdict
    lr: float
    trigger: Trigger | str
    because: Trigger | None = None  # why it was probed at all
    numbers: Mapping[str, float] = field(default_factory=dict)  # that the trigger's words tell: `wording.WORDS`
    diverged: bool = False  # a rollback without which the run is lost: made whatever the budget says
    to_kept: bool = False  # a rollback not to the last snapshot, but to the place that was kept on the way from there
    evidence: Evidence | None = None


class Policy(Protocol):
    """Asked for the rate of a step, for what it wants measured there, and for its decision on what was seen."""

    @property
    def foreign_rate(self) -> ForeignRate:
        """What becomes of a rate that somebody else sets; unless it is ignored, the user is warned."""

    def begin(self, run: Run) -> Any:
        """The state at the start of a run: a frozen dataclass of plain values, which goes into checkpoints.

        Raises:
            ValueError: its settings do not fit the run.
        """

    def restore(self, state: dict[str, Any]) -> Any:
        """The state again, from ``dataclasses.asdict`` of it."""

    def concern(self, run: Run) -> str | None:
        """What the user should be told before the run starts."""

    def phase(self, state: Any, now: Progress) -> str:
        """The name of the phase that the run is in."""

    def rate(self, state: Any, now: Progress) -> float | None:
        """[lr] of the coming step, above 0; None leaves it as it is."""

    def check(self, state: Any, now: Progress) -> ProbeRequest | None:
        """What to measure before anything else happens; None: nothing."""

    def may_probe(self, state: Any, now: Progress) -> bool:
        """Whether `along` may ask for the coming step."""

    def along(self, state: Any, now: Progress) -> ProbeRequest | None:
        """What to measure along the step just taken; None: nothing."""

    def decide(self, state: Any, result: ProbeResult) -> tuple[Any, Decision | None]:
        """The next state, and what to do about the learning rate; None: nothing to write down."""

    def reset(self, state: Any) -> Any:
        """Forget what is under way: a measurement failed, or the optimizer has other groups now."""

    def cooldown(self, state: Any, now: Progress, steps: int) -> Any:
        """The state of a run that is to end in so many ``steps``.

        Raises:
            TypeError: the policy does not set the rate of every step.
            ValueError: more steps than are left.
        """
