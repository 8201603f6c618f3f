r"""One run, nothing to set: measure how long a step may be, rise to it, stay, and fall to zero.

The paper's explore rule, "rise while eps_min > 0", asked of steps that are not taken yet. The *reach* is the rate at
which the loss along the coming step would be level with its beginning at twice the step: there the parabola has its
bottom at the step's end (s* = 1, eps_min = 0). It is measured from far below, while the network has not yet settled to
its rate: afterwards s* is near 1/2 at every rate, good or bad, and tells nothing (the half law). Then Knee (Iyer et al.
2020): the peak, and a line to zero.

All constants are the same for every model and optimizer; docs/method.md, "Auto", says what set each.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from autolr.cost import FORWARDS_PER_STEP
from autolr.policies.protocol import Decision, Look, Sighting, Window
from autolr.policies.sampling import check_range
from autolr.policies.wording import number

LOWEST, HIGHEST = 1e-7, 10.0  # [lr] of the first step, and the most there is
SCOUTS = 2  # first steps that are looked along decades ahead
AHEAD = 1e3  # where the next scout is: so far below what the first one saw. At `LOWEST` little of a step is left in
# float32, and what is seen may be rounding's direction
NEGLIGIBLE = 1e-3  # a loss above its beginning by less than this share of it counts as level to a scout
BELOW, ABOVE = 30.0, 2.0  # the rise begins so far below the reach, and ends at the peak, so far above it
RISE = 0.05  # share of the run that it takes
FEWEST, MOST, LONGEST = 12, 0.06, 2000  # steps of it at least, but never more than this share of the run, and at most
LOOKS, UNTIL = 30, 3.0  # of it, at most; only while the rate is so far below the reach
GAIN = 0.4  # decades by which one look moves the reach at first; less with each turn (Kesten 1958)
WATCHES, RARE = 8, 0.01  # of the time at the peak, at most, and never more than this share of the run's steps
LOST, SPREADS = 0.1, 6.0  # share of what was gained that a run has left which died; in standard deviations, its least
BACK = 3.0  # by which the peak is lowered then


@dataclass(frozen=True, slots=True)
class AutoState:
    """What the policy remembers; plain values, so that it goes into a checkpoint as it is."""

    scouts: int = 0  # that are done
    scout: float = LOWEST  # [lr] of the next one
    reach: float = LOWEST  # [lr] as the last look left it
    trail: tuple[float, ...] = ()  # [lr] as each look of the rise left it
    tilt: float = 0.0  # that the last look saw
    turns: int = 0  # how often it changed its sign
    before: tuple[float, ...] = ()  # losses before steps of the rise: of a run that has hardly begun
    lowest: float = math.inf  # loss that a watch saw
    lowered: float = 1.0  # by which the peak was lowered
    finish: tuple[int, int] | None = None  # steps between which the rate falls to zero, where that was said
    spent: int = 0  # forward equivalents of looks and snapshots

    @property
    def peak(self) -> float:
        """[lr] ``ABOVE`` times the reach: its geometric mean over the later half of the looks."""
        late = self.trail[len(self.trail) // 2 :] or (self.reach,)
        return min(HIGHEST, ABOVE * math.exp(statistics.fmean(map(math.log, late)))) / self.lowered


@dataclass(frozen=True, slots=True)
class Auto:
    """Finds the peak rate by itself, and ends at zero with the run. It asks for the number of steps and nothing else.

    The rate that the optimizer was given does not matter (with several parameter groups, their ratios do).

    Args:
        hold: share of the run that ends the time at the peak; from there a straight line to 0. Knee's authors' default.
            With 1 the peak is held until `AutoLR.finish`: for a run whose end is not known, ``total_steps`` being the
            most it may take.
        within: whether what looks cost comes out of the run's steps: the rate is at 0 as many steps earlier as they are
            worth, and one for the trial before the first. For comparisons at equal cost.
        rollback: whether a run that dies at its peak is brought back to where it last lived, and goes on at a third of
            it. Takes a copy of the parameters and the optimizer's state, on the host.
    """

    hold: float = 0.5
    within: bool = False
    rollback: bool = True
    # What a window-wise policy is asked: there are no windows here.
    eps = (-1.0, 0.0, 1.0)
    spread = 1
    confidence = None

    def __post_init__(self) -> None:
        check_range("hold", self.hold, low=0, high=1)

    def begin(self) -> AutoState:
        """The state at the start of a run."""
        return AutoState()

    def phase(self, step: int, total_steps: int) -> str:
        """``"rise"``, ``"hold"`` or ``"decay"``."""
        if step <= SCOUTS + rise_steps(total_steps):
            return "rise"
        return "hold" if step <= self.hold * total_steps else "decay"

    def stage(self, state: AutoState, step: int, total_steps: int) -> str:
        """The phase, of a run that may have been told to finish."""
        return self.phase(step, total_steps) if state.finish is None else "decay"

    def judge(self, state: AutoState, window: Window) -> tuple[AutoState, Decision]:
        """Never asked."""
        raise NotImplementedError

    def decide(self, state: AutoState, look: Look) -> tuple[AutoState, Decision]:
        """Never asked."""
        raise NotImplementedError

    def rate(self, state: AutoState, step: int, total_steps: int) -> float:
        """[lr] of the step that is the ``step``-th, counted from 1."""
        if state.scouts < SCOUTS:
            return state.scout
        share = _risen(step, total_steps)
        if share < ABOVE:
            # The reach of the last look; where there are no more looks, of them all.
            reach = state.reach / state.lowered if share * UNTIL < 1 else state.peak / ABOVE
            return min(HIGHEST, reach * share)
        if state.finish is not None:
            begin, end = state.finish
        else:
            end = total_steps - (math.ceil(state.spent / FORWARDS_PER_STEP) + 1 if self.within else 0)
            begin = min(end, int(self.hold * end))
        return state.peak * min(1.0, max(1, end - step + 1) / max(1, end - begin))

    def looks(self, state: AutoState, step: int, total_steps: int) -> tuple[float, ...]:
        """Where to sample the loss along the coming step, in multiples of it; empty: nowhere."""
        if state.scouts < SCOUTS:
            # The first only says where the second is to be: every other decade is enough.
            decades, stride = (math.log10(AHEAD) + 2, 1) if state.scouts else (math.log10(HIGHEST / LOWEST), 2)
            return (*(10.0**k for k in range(round(decades), 0, -stride)), 0.0)
        if _risen(step, total_steps) * UNTIL < 1:
            rising = rise_steps(total_steps) * math.log(BELOW / UNTIL) / math.log(BELOW * ABOVE)
            if (step - SCOUTS - 1) % max(1, round(rising / LOOKS)) == 0:
                reach = state.reach / state.lowered / self.rate(state, step, total_steps)
                return (0.0, reach, 2 * reach)
        return (1.0,) if self.rollback and step in self._watched(state, total_steps) else ()

    def see(self, state: AutoState, sighting: Sighting) -> tuple[AutoState, Decision]:
        """After a step that was looked along: "look" on; "keep", where it is well to come back to; or "roll back"."""
        state = replace(state, spent=state.spent + len(sighting.losses))
        if state.scouts < SCOUTS:
            state, decision = _scout(state, sighting)
        elif len(sighting.losses) > 1:
            state, decision = _look(state, sighting, rollback=self.rollback)
        else:
            state, decision = _watch(state, sighting)
        if decision.verdict == "keep" and self.rollback:
            state = replace(state, spent=state.spent + 1)  # a snapshot counts as a forward pass
        return state, decision

    def finish(self, state: AutoState, step: int, steps: int, total_steps: int) -> AutoState:
        """Let the rate fall to zero from ``step``, the last one taken, over so many ``steps``.

        Raises:
            ValueError: the rise is not over, or the run does not have so many steps left.
        """
        if self.phase(step, total_steps) == "rise":
            raise ValueError(
                f"finish can be called once the rate has risen to its peak, after step "
                f"{SCOUTS + rise_steps(total_steps)}; this is step {step}."
            )
        if step + steps > total_steps:
            raise ValueError(
                f"finish must end within total_steps: {total_steps - step} steps are left of {total_steps}; got "
                f"{steps}. total_steps is the most that a run may take: give more at the start."
            )
        return replace(state, finish=(step, step + steps))

    def _watched(self, state: AutoState, total_steps: int) -> tuple[int, ...]:
        """Steps after which it is watched whether the run lives: often at first, up to the end of the hold."""
        risen, end = SCOUTS + rise_steps(total_steps), round(self.hold * total_steps)
        if state.finish is not None or end <= risen:
            return ()
        number = max(1, min(WATCHES, round(RARE * total_steps)))
        return tuple(risen + math.ceil((end - risen) / 2**k) for k in range(number))


def _risen(step: int, total_steps: int) -> float:
    """What share of the reach the rate is at: `BELOW` to `ABOVE` it, by one factor a step."""
    return math.pow(BELOW * ABOVE, (step - SCOUTS) / rise_steps(total_steps)) / BELOW


def _scout(state: AutoState, sighting: Sighting) -> tuple[AutoState, Decision]:
    """Decades ahead along one step: where is the loss above its beginning for the first time?"""
    lr, first = sighting.lr, not state.scouts
    *far, (_, here) = zip(sighting.scales, sighting.losses, strict=True)
    level, too_long = here + NEGLIGIBLE * abs(here), far[0][0] * (100 if first else 10)
    for scale, loss in reversed(far):
        if not loss <= level:
            too_long = scale
            break
    # Between two samples, and level at twice the reach.
    reach = lr * too_long / (10.0 if first else math.sqrt(10)) / 2
    reach = min(max(reach, LOWEST), HIGHEST)
    scout = min(max(lr, reach / AHEAD), HIGHEST)
    state = replace(state, scouts=state.scouts + 1, scout=scout, reach=reach)
    told = f"scouting, at {number(lr)}: steps are too long from about {number(2 * reach)}"
    return state, Decision("look" if first else "keep", lr, told)


def _look(state: AutoState, sighting: Sighting, *, rollback: bool) -> tuple[AutoState, Decision]:
    """Up to twice the reach along one step: further where the loss falls on the way, less far where it rises."""
    lr, losses = sighting.lr, sighting.losses
    if not math.isfinite(losses[0]):
        state = replace(state, lowered=state.lowered * BACK)
        why = "the loss is not finite any more"
        if rollback:
            return state, Decision("roll back", lr / BACK, f"rolled back: {why}", died=True)
        return state, Decision("lower", lr / BACK, f"lowered: {why}, and there is no place to go back to")
    seen = tilt(losses) if all(map(math.isfinite, losses)) else 1.0
    turns = state.turns + (seen * state.tilt < 0)
    reach = state.reach * 10 ** (-GAIN * seen / (1 + turns / 2))
    reach = min(max(reach, LOWEST), HIGHEST)
    state = replace(
        state, reach=reach, turns=turns, tilt=seen, trail=(*state.trail, reach), before=(*state.before, losses[0])
    )
    told = f"rising, at {number(lr)}: a tilt of {number(seen, signed=True)}, the reach is {number(reach)}"
    return state, Decision("look", lr, f"{told}, the peak {number(state.peak)}")


def _watch(state: AutoState, sighting: Sighting) -> tuple[AutoState, Decision]:
    """Whether the run lives: it died where it lost, beyond doubt, almost all that it had gained."""
    (loss,), peak = sighting.losses, state.peak
    before = statistics.fmean(state.before) if state.before else loss
    doubt = SPREADS * statistics.stdev(state.before) if len(state.before) > 1 else math.inf
    gained = before - state.lowest
    if not math.isfinite(loss) or loss > before + doubt or (gained > doubt and loss > before - LOST * gained):
        state = replace(state, lowered=state.lowered * BACK)
        told = f"rolled back: the loss is {number(loss)}, after {number(before)} at first"
        return state, Decision("roll back", state.peak, f"{told} and {number(state.lowest)} at best", died=True)
    state = replace(state, lowest=min(loss, state.lowest))
    return state, Decision("keep", sighting.lr, f"peak kept at {number(peak)}: the loss is {number(loss)}")


def rise_steps(total_steps: int) -> int:
    """Steps that the rise takes, after the scouts'."""
    return max(1, min(LONGEST, round(min(max(RISE * total_steps, FEWEST), MOST * total_steps))))


def tilt(losses: Sequence[float]) -> float:
    """Whether the loss falls (-1) or rises (+1) from before a step to twice as far, in between where it does both.

    0 where both ends are level: a parabola then has its bottom in the middle (s* = 1, eps_min = 0). It is the loss's
    difference in units of its way, so that each look counts by its shape: past the reach losses grow without bound.

    Example:
        >>> tilt([3.0, 2.0, 1.0]), tilt([3.0, 2.0, 3.0]), tilt([3.0, 2.0, 6.0])
        (-1.0, 0.0, 0.6)
    """
    before, here, beyond = losses
    way = abs(here - before) + abs(beyond - here)
    return (beyond - before) / way if way else 0.0
