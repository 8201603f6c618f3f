"""Search the peak rate before the first step, follow the schedule to zero, and bring back a run that diverges.

The search is `autolr.find_peak`. From there on the rate is the peak times one shape: warm-up, hold, a line to zero
(`autolr.numerics.shape`). A few times in the run the loss of four minibatches, always the same, tells whether the run
still lives; if not, it goes back to where it last did, with a lower peak.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from autolr.numerics.cost import FORWARDS_PER_STEP
from autolr.numerics.shape import WARM_UP, shape
from autolr.policies.base import (
    Decision,
    Evidence,
    ForeignRate,
    Gradients,
    ProbeRequest,
    ProbeResult,
    Progress,
    Run,
    Search,
    Trigger,
)
from autolr.policies.dead_units import Suspicion
from autolr.policies.divergence import has_diverged, has_gained, improvement, is_stuck, judged, not_finite, stands_still
from autolr.policies.settings import as_plain, check_flag, check_range

JUDGES = 4  # minibatches of a divergence check
JUDGED = 0  # number of their superbatch
CHECKS_SHARE = 0.01  # of the training's cost, for the checks and their snapshots
FEWEST_CHECKS, MOST_CHECKS = 4, 40
BACK = 3.0  # by which the peak is lowered where the run diverged
LOWERINGS = 5  # at most: a run that diverges at 1/243 of its peak does not do so for its learning rate

Awaiting = Literal["", "snapshot", "verdict"]
Next = tuple["PeakSearchState", Decision | None]


@dataclass(frozen=True, slots=True)
class PeakSearchState:
    """What the policy remembers; plain values, so that it goes into a checkpoint as it is."""

    peak: float = 0.0  # [lr] of the run; 0 before the search
    floor: float = 0.0  # [loss] half of what the best short run gained, which the run must gain too
    floor_from: int = 0  # the step from which on it must have
    since: int = 0  # the step after which the present climb to the peak began
    lowerings: int = 0
    start: tuple[float, ...] = ()  # losses of the judging minibatches before the first step
    best: tuple[float, ...] = ()  # where the run was best
    saved: tuple[float, ...] = ()  # where the last snapshot was taken
    now: tuple[float, ...] = ()  # in the check under way
    units: Suspicion = field(default_factory=Suspicion)  # whether some died
    awaiting: Awaiting = ""  # what the check under way still needs
    checked: tuple[int, int] = (-1, 0)  # `Progress.step` and `Progress.idle` of the last check
    cooldown: tuple[int, int, float] | None = None  # its first and last step, and the share of the peak there


@dataclass(frozen=True, kw_only=True)
class PeakSearch:
    """Finds the peak rate by itself, and ends at zero with the run. It asks for the number of steps and nothing else.

    The rate that the optimizer was given is where the search begins; with several parameter groups their ratios stay.

    Long because it answers all that a policy is asked, for the schedule and for the guard.

    Args:
        peak: [lr] of the run, where it is known already: nothing is searched.
        budget: share of the run's cost that the search may take; None for `autolr.find_peak`'s own.
        clip: the largest gradient norm, where training clips: short runs do so too.
        decay: whether the rate falls to zero over the second half of the run. Without, it is held until
            `AutoLR.start_cooldown`: for a run whose end is not known, ``total_steps`` being the most it may take.
        guard: whether the run is checked for divergence, and brought back. It takes a copy of the parameters and the
            optimizer's state, on the host.

    Raises:
        TypeError, ValueError: a setting is of the wrong kind or out of range.
    """

    peak: float | None = None
    budget: float | None = None
    clip: float | None = None
    decay: bool = True
    guard: bool = True
    foreign_rate: ClassVar[ForeignRate] = "overwritten"

    def __post_init__(self) -> None:
        for name in ("peak", "clip"):
            if getattr(self, name) is not None:
                check_range(name, getattr(self, name), above=0)
        if self.budget is not None:
            check_range("budget", self.budget, above=0, high=1)
        check_flag("decay", self.decay)
        check_flag("guard", self.guard)
        as_plain(self)

    def begin(self, run: Run) -> PeakSearchState:  # noqa: ARG002
        """The state at the start of a run."""
        return PeakSearchState(peak=self.peak or 0.0)

    def restore(self, state: dict[str, Any]) -> PeakSearchState:
        """The state again, from ``dataclasses.asdict`` of it."""
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in state.items()}
        return PeakSearchState(**values | {"units": Suspicion.restored(values["units"])})

    def concern(self, run: Run) -> str | None:  # noqa: ARG002
        """None: what a search has to say comes with it."""
        return None

    def phase(self, state: PeakSearchState, now: Progress) -> str:
        """``"search"``, ``"warm-up"``, ``"hold"`` or ``"decay"``."""
        if not state.peak:
            return "search"
        if state.cooldown is not None:
            return "decay"
        if now.step < min(state.since + _warm(now.total_steps), now.total_steps):
            return "warm-up"
        return "decay" if self.decay and now.step > now.total_steps // 2 else "hold"

    def rate(self, state: PeakSearchState, now: Progress) -> float | None:
        """[lr] of the coming step."""
        if not state.peak:
            return None
        share = _cooling(state, now)
        if share is None:
            share = self._share(state, now.step + 1, now.total_steps)
        return share * _peak(state)

    def _share(self, state: PeakSearchState, step: int, total_steps: int) -> float:
        """Of the peak; after a rollback it climbs once more."""
        climbed = min(1.0, (step - state.since) / _warm(total_steps))
        whole = shape(step, total_steps)
        if not self.decay and step > total_steps // 2:
            whole = 1.0
        return min(whole, climbed)

    def check(self, state: PeakSearchState, now: Progress) -> ProbeRequest | None:
        """The search; the judging minibatches where the run begins; then each divergence check."""
        if not state.peak:
            return ProbeRequest("search", clip=self.clip, budget=self.budget)
        return self._guarded(state, now) if self.guard else None

    def _guarded(self, state: PeakSearchState, now: Progress) -> ProbeRequest | None:
        if state.awaiting == "verdict":
            return ProbeRequest("at snapshot", JUDGED, JUDGES, purpose="divergence")
        if state.awaiting == "snapshot":
            return ProbeRequest("here", JUDGED, 0, snapshot=True)
        if state.checked != (now.step, now.idle) and (now.idle or not state.start or self._due(now)):
            asked: Gradients = "zero" if state.start else "zero or none"  # between steps: as `zero_grad` left them
            return ProbeRequest("here", JUDGED, JUDGES, gradients="" if now.idle else asked, purpose="divergence")
        if state.units.suspects and not now.idle and state.units.looked != now.step:
            return ProbeRequest("here", JUDGED, 0, gradients="zero", purpose="divergence")
        return None

    def _due(self, now: Progress) -> bool:
        checks = round(CHECKS_SHARE * FORWARDS_PER_STEP * now.total_steps / (JUDGES + 1))
        checks = min(max(checks, FEWEST_CHECKS), MOST_CHECKS, now.total_steps)
        return now.step * checks // now.total_steps > (now.step - 1) * checks // now.total_steps

    def may_probe(self, state: PeakSearchState, now: Progress) -> bool:  # noqa: ARG002
        """Never: one step's parabola cannot tell the peak of a run (docs/method.md, "The half law")."""
        return False

    def along(self, state: PeakSearchState, now: Progress) -> ProbeRequest | None:  # noqa: ARG002
        """Nothing."""
        return None

    def decide(self, state: PeakSearchState, result: ProbeResult) -> Next:
        """Take the peak that was found; compare the loss with the best so far."""
        if result.search is not None:
            return self._found(state, result.search, result.now)
        if result.request.snapshot:
            return replace(state, awaiting="", saved=state.now), None
        if not result.request.minibatches:
            return self._look(state, result), None
        here = tuple(result.here)
        if state.start and len(here) != len(state.start):
            return self._begin_anew(state, here, result.now)
        return self._verdict(state, here, result.now) if state.awaiting == "verdict" else self._check(state, result)

    def _begin_anew(self, state: PeakSearchState, here: tuple[float, ...], now: Progress) -> Next:
        """A list of minibatches has grown or shrunk: there is nothing to compare with."""
        state = replace(state, now=here, checked=(now.step, now.idle), start=here, best=here, floor=0.0)
        return replace(state, awaiting="snapshot"), self._said("keep", Trigger.OTHER_DATA, state, now)

    def _check(self, state: PeakSearchState, result: ProbeResult) -> Next:
        """Does the run live?"""
        here, step = tuple(result.here), result.now.step
        state = replace(state, now=here, checked=(step, result.now.idle))
        if not state.start:
            units = Suspicion(result.without_gradient)
            return replace(state, start=here, best=here, units=units, awaiting="snapshot"), None
        if self.phase(state, result.now) != "decay" and stands_still(state.start, here):
            state = replace(state, units=state.units.roused(result.without_gradient, step))
        floor = state.floor if step >= state.floor_from else 0.0
        if has_diverged(state.start, state.best, here, floor):
            return replace(state, awaiting="verdict"), None
        if improvement(state.start, here) > improvement(state.start, state.best):
            state = replace(state, best=here)
        # A place where nothing is gained yet is no better than the start, and the units of its net may be dead.
        kept: Awaiting = "snapshot" if has_gained(state.start, here) else ""
        stuck = 2 * step >= result.now.total_steps and is_stuck(state.start, here, state.floor)
        return replace(state, awaiting=kept), self._said("keep", Trigger.HEALTHY, state, result.now, stuck=float(stuck))

    def _look(self, state: PeakSearchState, result: ProbeResult) -> PeakSearchState:
        """Have the suspects still no gradient? At the end of the run there is nothing to go back for."""
        units, step = state.units.looked_again(result.without_gradient, result.now.step), result.now.step
        if units.dead and step < result.now.total_steps:
            return replace(state, units=units, awaiting="verdict")
        return replace(state, units=units.dropped() if units.dead else units)

    def _found(self, state: PeakSearchState, search: Search, now: Progress) -> Next:
        runs = search.details.get("runs", ())
        longest = max((run["length"] for run in runs), default=0)
        gained = search.start_loss - search.best_loss
        state = replace(
            state, peak=search.lr, since=now.step, floor_from=now.step + 2 * longest,
            floor=gained if search.found and math.isfinite(gained) else 0.0,
        )  # fmt: skip
        numbers = {
            "peak": search.lr, "low": search.low, "high": search.high, "runs": float(len(runs)),
            "share": search.cost / (FORWARDS_PER_STEP * now.total_steps),
        }  # fmt: skip
        seen = Evidence("search", now.lr or search.lr, loss=search.start_loss, search=search.details)
        verdict: Literal["keep", "raise", "lower"] = "keep"
        if now.lr and search.lr != now.lr:
            verdict = "raise" if search.lr > now.lr else "lower"
        trigger = Trigger.PEAK_FOUND if search.found else Trigger.NO_PEAK
        return state, Decision(verdict, search.lr, trigger, numbers=numbers, evidence=seen)

    def _verdict(self, state: PeakSearchState, there: tuple[float, ...], now: Progress) -> Next:
        """The loss is bad. Where it is at the last good place too, the objective changed, or going back is in vain."""
        units = state.units
        state = replace(state, awaiting="", units=units.dropped())
        if not_finite(state.start, there):
            return state, self._said("keep", Trigger.LOST, state, now)
        if has_diverged(state.start, state.saved, there):
            shift = tuple(s + t - b for s, t, b in zip(state.start, there, state.saved, strict=True))
            told = self._said("keep", Trigger.OBJECTIVE_CHANGED, state, now, there=judged(state.start, there))
            state = replace(state, start=shift, best=state.now, floor=0.0, awaiting="snapshot")
            return state, told
        floor = state.floor if now.step >= state.floor_from else 0.0
        trigger = Trigger.DIED if units.dead else Trigger.DIVERGED
        told = self._said("roll back", trigger, state, now, dead=float(units.dead), floor=floor, peak=_peak(state))
        state = replace(
            state, since=now.step, floor_from=now.step + state.floor_from - state.since,
            lowerings=min(state.lowerings + 1, LOWERINGS),
            units=units.returned(now.step) if units.dead else state.units,
        )  # fmt: skip
        return state, replace(told, lr=_peak(state), diverged=True)

    def _said(
        self, verdict: Literal["keep", "roll back"], trigger: Trigger, state: PeakSearchState, now: Progress,
        **numbers: float,
    ) -> Decision:  # fmt: skip
        """A decision, with the losses that it rests on."""
        losses = {"loss": state.now, "best": state.best, "start": state.start}
        numbers |= {name: judged(state.start, values) for name, values in losses.items()}
        seen = Evidence(self.phase(state, now), now.lr or state.peak, loss=numbers["loss"])
        return Decision(verdict, seen.lr, trigger, numbers=numbers, evidence=seen)

    def reset(self, state: PeakSearchState) -> PeakSearchState:
        """A check under way is left; the next one comes at its time."""
        return replace(state, awaiting="", units=state.units.dropped())

    def cooldown(self, state: PeakSearchState, now: Progress, steps: int) -> PeakSearchState:
        """The rate falls on a straight line to zero over the next ``steps``.

        Raises:
            ValueError: before the first step, or more steps than are left.
        """
        left = now.total_steps - now.step
        if not state.peak or now.step == 0:
            raise ValueError("start_cooldown needs a run that has begun: take a step first.")
        if steps > left:
            raise ValueError(f"start_cooldown must end within total_steps: {left} steps are left; got {steps}.")
        top = (self.rate(state, now) or 0.0) / _peak(state)
        return replace(state, cooldown=(now.step, now.step + steps, top))


def _peak(state: PeakSearchState) -> float:
    return state.peak / BACK**state.lowerings  # [lr] which the rate is a share of


def _cooling(state: PeakSearchState, now: Progress) -> float | None:
    """The share of the peak in a cooldown; after a rollback in it, it climbs once more."""
    if state.cooldown is None:
        return None
    first, end, top = state.cooldown
    end = min(end, now.total_steps)  # the run may have become shorter since
    climbed = (now.step + 1 - state.since) / _warm(now.total_steps) if state.since > first else 1.0
    return top * min(1.0, climbed) * max(1, end - now.step) / (end - first)


def _warm(total_steps: int) -> int:
    return max(1, round(WARM_UP * total_steps))
