r"""One run, nothing to set: the rate rises from far below until a step no longer pays, stays, and falls to zero.

The paper's own explore rule, "rise while eps_min > 0", taken often and with an error bar. No seed rate: the rise begins
at `LOWEST` whatever the optimizer was given, is the warm-up, and ends at the peak, where the parabola along the step
has its bottom at the step as taken (s* = 1, eps_min = 0). Then Knee (Iyer et al. 2020): the peak, and a line to zero.

All constants are the same for every model and optimizer; docs/method.md, "Auto", says what set each.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from autolr.policies.protocol import Decision, Look, Sighting, Window
from autolr.policies.sampling import check_range
from autolr.policies.wording import number

LOWEST, HIGHEST = 1e-7, 10.0  # [lr] where the rise begins, and where it ends at the latest
NEGLIGIBLE, JUMP = 1e-4, 10.0  # while twice the step moves the loss by less than this share of it, the rate is jumped
DECADES = 4.0  # that are then risen through, by the same factor each step
RISE = 0.05  # share of the run that these take
FEWEST, MOST = 60, 0.1  # steps of it at least, but never more than this share of the run
PER_DECADE = 15  # sightings; in a longer rise some steps are passed over
POOL, ENOUGH = 0.5, 4  # decades of sightings that are judged together, and how many at least
SURE = 2.0  # standard errors by which their mean tilt has to be above 0
FAR, RARE = -0.9, 3  # while it is below the first, so many times fewer sightings, in a rise of `FEWEST` steps or more
LOST = 4.0  # times the first loss: a step of twice the length that ends above it ends the rise


@dataclass(frozen=True, slots=True)
class AutoState:
    """What the policy remembers; plain values, so that it goes into a checkpoint as it is."""

    lr: float = LOWEST  # [lr] of the step `at`, in the rise; of those after it, by a factor each more
    at: int = 1
    seen: tuple[tuple[float, float], ...] = ()  # (lr, tilt), of the last POOL decades
    first_loss: float | None = None
    crossed: float | None = None  # [lr] where the pooled tilt came above 0, and has been since
    far: bool = False  # whether the pooled tilt is below FAR
    peak: float | None = None  # [lr] once it is known
    sightings: int = 0  # all there were


@dataclass(frozen=True, slots=True)
class Auto:
    """Finds the peak rate by itself, and ends at zero with the run. It asks for the number of steps and nothing else.

    The rate that the optimizer was given does not matter (with several parameter groups, their ratios do).

    Args:
        hold: share of the run that ends the time at the peak; from there a straight line to 0. Knee's authors' default.
        within: whether what looks cost comes out of the run's steps: the rate is at 0 as many steps earlier as they are
            worth, a step for each look, and one for the trial before the first. For comparisons at equal cost.
    """

    hold: float = 0.5
    within: bool = False
    # What a window-wise policy is asked: there are no windows here.
    eps = (-1.0, 0.0, 1.0)
    spread = 1
    confidence = None
    rollback = False

    def __post_init__(self) -> None:
        check_range("hold", self.hold, low=0, high=1)

    def begin(self) -> AutoState:
        """The state at the start of a run."""
        return AutoState()

    def phase(self, step: int, total_steps: int) -> str:
        """``"hold"`` or ``"decay"``; whether the rise is over, only the state knows."""
        return "hold" if step <= self.hold * total_steps else "decay"

    def stage(self, state: AutoState, step: int, total_steps: int) -> str:
        """``"rise"``, ``"hold"`` or ``"decay"``."""
        return "rise" if state.peak is None else self.phase(step, total_steps)

    def judge(self, state: AutoState, window: Window) -> tuple[AutoState, Decision]:
        """Never asked."""
        raise NotImplementedError

    def decide(self, state: AutoState, look: Look) -> tuple[AutoState, Decision]:
        """Never asked."""
        raise NotImplementedError

    def rate(self, state: AutoState, step: int, total_steps: int) -> float:
        """[lr] of the step that is the ``step``-th, counted from 1."""
        if state.peak is None:
            return min(HIGHEST, state.lr * 10 ** (DECADES * (step - state.at) / rise_steps(total_steps)))
        end = total_steps - (state.sightings + 1 if self.within else 0)
        left = max(1, end - step + 1) / max(1.0, (1 - self.hold) * end)
        return state.peak * min(1.0, left)

    def looks(self, state: AutoState, step: int, total_steps: int) -> bool:
        """Whether the coming step is to be looked along."""
        if state.peak is not None:
            return False
        steps = rise_steps(total_steps)
        apart = max(1, round(steps / (DECADES * PER_DECADE)))
        return (step - 1) % (apart * (RARE if state.far and steps >= FEWEST else 1)) == 0

    def see(self, state: AutoState, sighting: Sighting) -> tuple[AutoState, Decision]:
        """After a step that was looked along: "look" on, or "keep" or "lower" to the peak."""
        lr, losses = sighting.lr, sighting.losses
        state = replace(state, sightings=state.sightings + 1)
        if not all(map(math.isfinite, losses)) or losses[-1] > LOST * (state.first_loss or math.inf):
            return self._found(state, lr, state.crossed or lr / 2, "twice the step loses all that was gained")
        if state.first_loss is None:
            state = replace(state, first_loss=losses[0])
        if abs(losses[-1] - losses[0]) < NEGLIGIBLE * abs(losses[0]) and lr < HIGHEST:
            state = replace(state, lr=lr * JUMP, at=sighting.step + 1)
            return state, Decision("look", lr, f"rising, at {number(lr)}: the step makes hardly a difference")
        recent = len([one for one in state.seen if one[0] >= lr / 10**POOL])
        seen = (*state.seen[-max(recent, ENOUGH - 1) :], (lr, tilt(losses)))
        state = replace(state, seen=seen)
        if len(seen) < ENOUGH:
            return state, Decision("look", lr, f"rising, at {number(lr)}: {len(seen)} sightings are too few to judge")
        tilts = [one for _, one in seen]
        mean, error = statistics.fmean(tilts), statistics.stdev(tilts) / math.sqrt(len(tilts))
        crossed = None if mean <= 0 else state.crossed or lr
        state = replace(state, crossed=crossed, far=mean < FAR)
        told = f"the loss along the step has a tilt of {number(mean, signed=True)} +- {number(error)}"
        if crossed is not None and mean > SURE * error:
            return self._found(state, lr, crossed, f"{told}, surely upwards")
        if lr >= HIGHEST:
            return self._found(state, lr, lr, f"{told}, and the range ends here")
        return state, Decision("look", lr, f"rising, at {number(lr)}: {told}")

    @staticmethod
    def _found(state: AutoState, lr: float, peak: float, why: str) -> tuple[AutoState, Decision]:
        found = replace(state, peak=peak, seen=())
        verdict: Any = "lower" if peak < lr else "keep"
        return found, Decision(verdict, peak, f"peak found at {number(peak)}: {why}")


def rise_steps(total_steps: int) -> int:
    """Steps that the rise through `DECADES` takes."""
    return max(1, round(min(max(RISE * total_steps, FEWEST), MOST * total_steps)))


def tilt(losses: Sequence[float]) -> float:
    """Whether the loss falls (-1) or rises (+1) from before a step to twice as far, in between where it does both.

    0 where both ends are level: a parabola then has its bottom in the middle, at the step as taken (s* = 1, eps_min =
    0). It is the loss's difference in units of its way, so that each sighting counts by its shape: near the peak the
    last one would outweigh all others by its size.

    Example:
        >>> tilt([3.0, 2.0, 1.0]), tilt([3.0, 2.0, 3.0]), tilt([3.0, 2.0, 6.0])
        (-1.0, 0.0, 0.6)
    """
    before, here, beyond = losses
    way = abs(here - before) + abs(beyond - here)
    return (beyond - before) / way if way else 0.0
