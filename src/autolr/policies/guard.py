"""Does the run live? If not, it goes back to where it last did, with a lower peak.

A few times in the run the loss of four minibatches, always the same, is compared with what it was. Three things are no
life: more than half of the improvement is lost (`divergence`); units died (`dead_units`); or the run, `LONGER` times as
long as its longest short run, has hardly got further than that, and would have at a ninth of its peak. Then the short
runs were too short to tell that it is too high: in a dozen steps a Transformer learns how frequent words are, and at
high rates never more than that. Whether it would have is tried, since on a plateau, or where little is left to gain, a
lower peak gets no further either.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

from autolr.numerics.cost import FORWARDS_PER_STEP
from autolr.policies.base import Gradients, ProbeRequest, ProbeResult, Progress, Search, Trigger
from autolr.policies.dead_units import Suspicion
from autolr.policies.divergence import (
    has_diverged,
    has_gained,
    improvement,
    is_stuck,
    judged,
    not_finite,
    stands_still,
    surely_above,
)
from autolr.policies.settings import as_plain, check_range

JUDGES = 4  # minibatches of a check
JUDGED = 0  # number of their superbatch
CHECKS_SHARE = 0.01  # of the training's cost, for the checks and their snapshots
FEWEST_CHECKS, MOST_CHECKS = 4, 40
BACK = 3.0  # by which the peak is lowered where the run goes back
LOWERINGS = 5  # at most: a run that diverges at 1/243 of its peak does not do so for its learning rate
LONGER = 8  # times as long as its short runs, the run must have got further
LOWER = 2  # lowerings at once where a lower peak gets further
AHEAD = 0.05  # share of the short runs' gain by which a lower peak must surely be ahead: less is training's scatter
SOON = 0.25  # share of the steps that are left, in which it must come to that: later, too few would be left

Losses = tuple[float, ...]  # of the judging minibatches


@dataclass(frozen=True, slots=True)
class ShortRuns:
    """What a search's short runs came to, which the run has to surpass.

    Raises:
        TypeError, ValueError: no finite losses, or no number of steps.
    """

    start: float  # [loss] where they began
    best: float  # [loss] where the best of them ended
    steps: int  # of the longest

    def __post_init__(self) -> None:
        check_range("start", self.start)
        check_range("best", self.best)
        check_range("steps", self.steps, low=1)
        as_plain(self)

    @classmethod
    def of(cls, search: Search) -> ShortRuns | None:
        """Those of a search."""
        lengths = [run["length"] for run in search.details.get("runs", ())]
        return cls.told(search.start_loss, search.best_loss, lengths, found=search.found)

    @classmethod
    def told(cls, start: float, best: float, lengths: Sequence[int], *, found: bool) -> ShortRuns | None:
        """None where none surely gained."""
        told = found and lengths and math.isfinite(start - best)
        return cls(start, best, max(lengths)) if told else None

    @property
    def gained(self) -> float:
        """[loss] By the best."""
        return self.start - self.best


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found, and whether the run goes back for it."""

    trigger: Trigger
    numbers: dict[str, float] = field(default_factory=dict)
    back: bool = False
    to_kept: bool = False  # to where the steps of a comparison came, which need not be taken again


@dataclass(frozen=True, slots=True)
class Guard:
    """What is remembered of a run; plain values, so that it goes into a checkpoint as it is."""

    short: ShortRuns | None = None  # None: there is nothing to surpass
    since: int = 0  # the step after which the present climb to the peak began
    awaited: int = 0  # the step at which the run must have got further than its short runs; 0: it need not, or has
    lowerings: int = 0  # of the peak
    start: Losses = ()  # before the first step
    best: Losses = ()  # where the run was best
    saved: Losses = ()  # where the last snapshot, or the steps to it, began; none, where there was no memory for any
    now: Losses = ()  # in the check under way
    units: Suspicion = field(default_factory=Suspicion)  # whether some died
    charge: Trigger | None = None  # what the check under way suspects
    keeps: bool = False  # whether it ends with a snapshot
    checked: tuple[int, int] = (-1, 0)  # `Progress.step` and `Progress.idle` of the last check

    @classmethod
    def restored(cls, state: dict[str, Any]) -> Guard:
        """From ``dataclasses.asdict``."""
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in state.items()}
        charge = None if values["charge"] is None else Trigger(values["charge"])
        short = None if values["short"] is None else ShortRuns(**values["short"])
        return cls(**values | {"units": Suspicion.restored(values["units"]), "charge": charge, "short": short})

    @classmethod
    def after(cls, short: ShortRuns | None, now: Progress) -> Guard:
        """That of a run whose peak is known from now on, by such short runs."""
        return cls(short, since=now.step)._awaiting(now)

    def reset(self) -> Guard:
        """A check under way is left; the next one comes at its time. What was saved may be no start any more."""
        return replace(self, charge=None, keeps=False, units=self.units.dropped(), awaited=0)

    def settled(self) -> Guard:
        """Nothing is awaited of the run any more."""
        return replace(self, awaited=0)

    def forgotten(self) -> Guard:
        """Without losses that can be compared with none from here on: it begins anew where the run is now."""
        return replace(self.reset(), short=None, start=(), best=(), saved=(), now=(), checked=(-1, 0))

    def request(self, now: Progress) -> ProbeRequest | None:
        """What the check under way needs, or the next one."""
        if self.charge is Trigger.TOO_HIGH:  # the policy knows the rates
            return ProbeRequest("from snapshot", purpose="divergence")
        if self.charge is not None:
            return ProbeRequest("at snapshot", JUDGED, JUDGES, purpose="divergence")
        if self.keeps:
            return ProbeRequest("here", JUDGED, 0, snapshot=True)
        if self.checked != (now.step, now.idle) and (now.idle or not self.start or self._due(now)):
            asked: Gradients = "zero" if self.start else "zero or none"  # between steps: as `zero_grad` left them
            return ProbeRequest("here", JUDGED, JUDGES, gradients="" if now.idle else asked, purpose="divergence")
        if self.units.suspects and not now.idle and self.units.looked != now.step:
            return ProbeRequest("here", JUDGED, 0, gradients="zero", purpose="divergence")
        return None

    def _due(self, now: Progress) -> bool:
        return _in_turn(now) or 0 < self.awaited == now.step

    def seen(self, result: ProbeResult, *, decaying: bool) -> tuple[Guard, Finding | None]:
        """What was measured, and what is found by it."""
        if result.request.snapshot:
            return replace(self, keeps=False, saved=self.now), None
        if result.request.kind == "from snapshot":
            return self._compared(result)
        if not result.request.minibatches:
            return self._look(result), None
        here = tuple(result.here)
        if self.start and len(here) != len(self.start):
            return self._begin_anew(here, result.now)
        return self._back(here, result.now) if self.charge else self._check(result, decaying=decaying)

    def _begin_anew(self, here: Losses, now: Progress) -> tuple[Guard, Finding]:
        """A list of minibatches has grown or shrunk: there is nothing to compare with."""
        anew = replace(self.forgotten(), now=here, checked=(now.step, now.idle), start=here, best=here, keeps=True)
        return anew, anew._found(Trigger.OTHER_DATA)

    def _check(self, result: ProbeResult, *, decaying: bool) -> tuple[Guard, Finding | None]:
        """Does the run live?"""
        here, now = tuple(result.here), result.now
        seen = replace(self, now=here, checked=(now.step, now.idle))
        if not seen.start:
            return replace(seen, start=here, best=here, units=Suspicion(result.without_gradient), keeps=True), None
        if not seen.saved:  # the start is not kept, and nothing can be tried from there
            seen = seen.settled()
        if not decaying and stands_still(seen.start, here):
            seen = replace(seen, units=seen.units.roused(result.without_gradient, now.step))
        if has_diverged(seen.start, seen.best, here, seen._floor(now)):
            # A look out of turn is no ground to go back, which costs all steps so far: the next one in turn tells.
            goes_back = seen.saved and (now.idle or _in_turn(now))
            return replace(seen, charge=Trigger.DIVERGED) if goes_back else seen, None
        if improvement(seen.start, here) > improvement(seen.start, seen.best):
            seen = replace(seen, best=here)
        stuck = seen.short is not None and is_stuck(seen.start, here, seen.short.start, seen.short.best)
        if 0 < seen.awaited <= now.step:
            seen = replace(seen, awaited=0)
            if stuck:
                return replace(seen, charge=Trigger.TOO_HIGH), None
        # A place where nothing is gained yet is no better than the start, and the units of its net may be dead. And the
        # start is kept for as long as it may be wanted.
        seen = replace(seen, keeps=has_gained(seen.start, here) and not seen.awaited)
        return seen, seen._found(Trigger.HEALTHY, stuck=float(stuck and 2 * now.step >= now.total_steps))

    def _floor(self, now: Progress) -> float:
        """[loss] Half of this the run must have gained: what the best short run did, whose rate was about its own."""
        if self.short is None or now.step < self.since + 2 * self.short.steps * BACK**self.lowerings:
            return 0.0
        return self.short.gained

    def _look(self, result: ProbeResult) -> Guard:
        """Have the suspects still no gradient? At the end of the run there is nothing to go back for."""
        units, step = self.units.looked_again(result.without_gradient, result.now.step), result.now.step
        if units.dead and self.saved and step < result.now.total_steps:
            return replace(self, units=units, charge=Trigger.DIED)
        return replace(self, units=units.dropped() if units.dead else units)

    def _back(self, there: Losses, now: Progress) -> tuple[Guard, Finding]:
        """The loss is bad. Where it is at the last good place too, the objective changed, or going back is in vain."""
        charge, units = self.charge, self.units
        assert charge is not None
        left = replace(self, charge=None, units=units.dropped())
        if not_finite(self.start, there):
            return left, left._found(Trigger.LOST)
        if has_diverged(self.start, self.saved, there):
            found = left._found(Trigger.OBJECTIVE_CHANGED, there=judged(self.start, there))
            shift = tuple(s + t - b for s, t, b in zip(self.start, there, self.saved, strict=True))
            return replace(left, start=shift, best=self.now, short=None, awaited=0, keeps=True), found
        found = left._found(charge, dead=float(units.dead), floor=self._floor(now))
        back = replace(left, since=now.step, best=there, lowerings=min(self.lowerings + 1, LOWERINGS))
        back = replace(back, units=units.returned(now.step)) if units.dead else back
        return back._awaiting(now) if self.awaited else back, replace(found, back=True)

    def _compared(self, result: ProbeResult) -> tuple[Guard, Finding]:
        """The run has hardly got further than its short runs: would it have, with a lower peak?"""
        here, there, now = result.here, result.there, result.now
        assert self.short is not None
        least = AHEAD * self.short.gained
        # Brought down, the run may have diverged.
        lower = all(map(math.isfinite, there)) and (not_finite(there, here) or surely_above(there, here, least))
        numbers = {
            "loss": judged(self.start, self.now), "here": fmean(here), "there": fmean(there),
            "age": float(now.step - self.since),
            "length": float(self.short.steps), "short": self.short.best,
        }  # fmt: skip
        left = replace(self, charge=None)
        if not lower:
            return replace(left, keeps=has_gained(self.start, self.now)), Finding(Trigger.STANDS, numbers)
        # Those where it goes on, at a high rate still, are not known: those where the steps began stand for them.
        lowered = replace(left, best=self.saved, lowerings=self.lowerings + LOWER, units=self.units.dropped())
        return lowered, Finding(Trigger.TOO_HIGH, numbers, back=True, to_kept=True)

    def _awaiting(self, now: Progress) -> Guard:
        """The run must get further than its short run from here on, if there is time."""
        steps = LONGER * self.short.steps if self.short else 0
        soon = 0 < steps <= SOON * (now.total_steps - now.step) and self.lowerings + LOWER <= LOWERINGS
        return replace(self, awaited=now.step + steps if soon else 0)

    def _found(self, trigger: Trigger, **numbers: float) -> Finding:
        """With the losses that it rests on."""
        losses = {"loss": self.now, "best": self.best, "start": self.start}
        return Finding(trigger, numbers | {name: judged(self.start, values) for name, values in losses.items()})


def _in_turn(now: Progress) -> bool:
    checks = round(CHECKS_SHARE * FORWARDS_PER_STEP * now.total_steps / (JUDGES + 1))
    checks = min(max(checks, FEWEST_CHECKS), MOST_CHECKS, now.total_steps)
    return now.step * checks // now.total_steps > (now.step - 1) * checks // now.total_steps
