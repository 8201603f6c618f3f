"""Search the peak rate before the first step, follow the schedule to zero, and bring back a run that diverges.

The search is `autolr.find_peak`. From there on the rate is the peak times one shape: warm-up, hold, a line to zero
(`autolr.numerics.shape`). A few times in the run it is checked whether it still lives (`autolr.policies.guard`); if
not, it goes back to where it last did, with a lower peak.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from autolr.numerics.cost import FORWARDS_PER_STEP
from autolr.numerics.shape import WARM_UP, shape
from autolr.policies.base import (
    Decision,
    Evidence,
    ForeignRate,
    ProbeRequest,
    ProbeResult,
    Progress,
    Run,
    Search,
    Trigger,
)
from autolr.policies.guard import BACK, LOWER, Finding, Guard, ShortRuns
from autolr.policies.settings import as_plain, check_flag, check_range

Next = tuple["PeakSearchState", Decision | None]


@dataclass(frozen=True, slots=True)
class PeakSearchState:
    """What the policy remembers; plain values, so that it goes into a checkpoint as it is."""

    peak: float = 0.0  # [lr] that was found; 0 before the search
    guard: Guard = field(default_factory=Guard)
    cooldown: tuple[int, int, float] | None = None  # its first and last step, and the share of the peak there


@dataclass(frozen=True, kw_only=True)
class PeakSearch:
    """Finds the peak rate by itself, and ends at zero with the run. It asks for the number of steps and nothing else.

    The rate that the optimizer was given is where the search begins; with several parameter groups their ratios stay.

    Args:
        peak: [lr] of the run, where it is known already: nothing is searched.
        budget: share of the run's cost that the search may take; None for `autolr.find_peak`'s own.
        clip: the largest gradient norm, where training clips: short runs do so too.
        decay: whether the rate falls to zero over the second half of the run. Without, it is held until
            `AutoLR.start_cooldown`: for a run whose end is not known, ``total_steps`` being the most it may take.
        guard: whether the run is checked for divergence, and brought back. It takes a copy of the parameters and the
            optimizer's state, on the host.
        short_runs: what the run has to surpass, where ``peak`` was searched before: `autolr.Peak.policy` gives both.

    Raises:
        TypeError, ValueError: a setting is of the wrong kind or out of range.
    """

    peak: float | None = None
    budget: float | None = None
    clip: float | None = None
    decay: bool = True
    guard: bool = True
    short_runs: ShortRuns | None = None
    foreign_rate: ClassVar[ForeignRate] = "overwritten"

    def __post_init__(self) -> None:
        for name in ("peak", "clip"):
            if getattr(self, name) is not None:
                check_range(name, getattr(self, name), above=0)
        if self.budget is not None:
            check_range("budget", self.budget, above=0, high=1)
        check_flag("decay", self.decay)
        check_flag("guard", self.guard)
        if self.short_runs is not None and not isinstance(self.short_runs, ShortRuns):
            raise TypeError(f"short_runs comes with a searched peak, from Peak.policy(); got {self.short_runs!r:.60}.")
        as_plain(self)

    def begin(self, run: Run) -> PeakSearchState:
        """The state at the start of a run."""
        guard = Guard.after(self.short_runs, Progress(run, 0, 0.0)) if self.peak else Guard()
        return PeakSearchState(self.peak or 0.0, guard)

    def restore(self, state: dict[str, Any]) -> PeakSearchState:
        """The state again, from ``dataclasses.asdict`` of it."""
        cooldown = state["cooldown"]
        return PeakSearchState(
            state["peak"], Guard.restored(state["guard"]), None if cooldown is None else tuple(cooldown)
        )

    def concern(self, run: Run) -> str | None:  # noqa: ARG002
        """None: what a search has to say comes with it."""
        return None

    def phase(self, state: PeakSearchState, now: Progress) -> str:
        """``"search"``, ``"warm-up"``, ``"hold"`` or ``"decay"``."""
        if not state.peak:
            return "search"
        if state.cooldown is not None:
            return "decay"
        if now.step < min(state.guard.since + _warm(now.total_steps), now.total_steps):
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
        climbed = min(1.0, (step - state.guard.since) / _warm(total_steps))
        whole = shape(step, total_steps)
        if not self.decay and step > total_steps // 2:
            whole = 1.0
        return min(whole, climbed)

    def check(self, state: PeakSearchState, now: Progress) -> ProbeRequest | None:
        """The search; the judging minibatches where the run begins; then each divergence check."""
        if not state.peak:
            return ProbeRequest("search", clip=self.clip, budget=self.budget)
        request = state.guard.request(now) if self.guard else None
        if request is None or request.kind != "from snapshot":
            return request
        return self._comparison(request, state, now)

    def _comparison(self, request: ProbeRequest, state: PeakSearchState, now: Progress) -> ProbeRequest:
        """The rates that the run has had, with a lower peak, from the start; then down to zero, there and here.

        At a high rate a loss stands above what it falls to with the rate, which is no ground to lower the peak.
        """
        assert state.guard.short is not None
        had = [self.rate(state, replace(now, step=step)) or 0.0 for step in range(state.guard.since, now.step)]
        steps = state.guard.short.steps
        down = [had[-1] * left / (steps + 1) for left in range(steps, 0, -1)]
        there = tuple(rate / BACK**LOWER for rate in (*had, *down))
        return replace(request, from_here=tuple(down), from_there=there, keep_after=len(had), clip=self.clip)

    def may_probe(self, state: PeakSearchState, now: Progress) -> bool:  # noqa: ARG002
        """Never: one step's parabola cannot tell the peak of a run (docs/method.md, "The half law")."""
        return False

    def along(self, state: PeakSearchState, now: Progress) -> ProbeRequest | None:  # noqa: ARG002
        """Nothing."""
        return None

    def decide(self, state: PeakSearchState, result: ProbeResult) -> Next:
        """Take the peak that was found; go back where the guard says so."""
        now = result.now
        if result.search is not None:
            return self._found(state, result.search, now)
        guard, finding = state.guard.seen(result, decaying=self.phase(state, now) == "decay")
        after = replace(state, guard=guard)
        return after, None if finding is None else self._told(finding, state, after, now)

    def _found(self, state: PeakSearchState, search: Search, now: Progress) -> Next:
        state = replace(state, peak=search.lr, guard=Guard.after(ShortRuns.of(search), now))
        numbers = {
            "peak": search.lr, "low": search.low, "high": search.high,
            "runs": float(len(search.details.get("runs", ()))),
            "share": search.cost / (FORWARDS_PER_STEP * now.total_steps),
        }  # fmt: skip
        seen = Evidence("search", now.lr or search.lr, loss=search.start_loss, search=search.details)
        verdict: Literal["keep", "raise", "lower"] = "keep"
        if now.lr and search.lr != now.lr:
            verdict = "raise" if search.lr > now.lr else "lower"
        trigger = Trigger.PEAK_FOUND if search.found else Trigger.NO_PEAK
        return state, Decision(verdict, search.lr, trigger, numbers=numbers, evidence=seen)

    def _told(self, finding: Finding, before: PeakSearchState, after: PeakSearchState, now: Progress) -> Decision:
        """What the guard found, as a decision: the rate of one that goes back is the peak from there on."""
        numbers = finding.numbers | ({"peak": _peak(before)} if finding.back else {})
        seen = Evidence(self.phase(before, now), now.lr or before.peak, loss=numbers["loss"])
        if not finding.back:
            return Decision("keep", seen.lr, finding.trigger, numbers=numbers, evidence=seen)
        return Decision(
            "roll back", _peak(after), finding.trigger, numbers=numbers, diverged=True, to_kept=finding.to_kept,
            evidence=seen,
        )  # fmt: skip

    def reset(self, state: PeakSearchState) -> PeakSearchState:
        """A check under way is left; the next one comes at its time."""
        return replace(state, guard=state.guard.reset())

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
        return replace(state, guard=state.guard.settled(), cooldown=(now.step, now.step + steps, top))


def _peak(state: PeakSearchState) -> float:
    return state.peak / BACK**state.guard.lowerings  # [lr] which the rate is a share of


def _cooling(state: PeakSearchState, now: Progress) -> float | None:
    """The share of the peak in a cooldown; after a rollback in it, it climbs once more."""
    if state.cooldown is None:
        return None
    first, end, top = state.cooldown
    end = min(end, now.total_steps)  # the run may have become shorter since
    climbed = (now.step + 1 - state.guard.since) / _warm(now.total_steps) if state.guard.since > first else 1.0
    return top * min(1.0, climbed) * max(1, end - now.step) / (end - first)


def _warm(total_steps: int) -> int:
    return max(1, round(WARM_UP * total_steps))
