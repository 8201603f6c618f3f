"""One run, nothing to set: try peak rates in small, take the best, warm up, stay, and fall to zero.

One step, looked along over eight decades and undone, says where to begin, to a factor of ten or so. From there *trials*
find the peak: a dozen steps each, a whole run in small, judged by where they end (`trials`). In a longer one the
network must get further at that peak, or lower ones are tried. From such an end it goes on, as Knee (Iyer et al. 2020):
up to the peak, there for half of the run, and a line to zero. One step's parabola cannot find it: once the network has
settled to its rate, s* is near 1/2 at every rate, good or bad (the half law).

All constants are the same for every model and optimizer; docs/method.md, "Auto", says what set each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from autolr.cost import FORWARDS_PER_STEP
from autolr.policies.protocol import Decision, Sighting, Sounding
from autolr.policies.sampling import check_range
from autolr.policies.trials import (
    EDGE,
    ENOUGH,
    Trial,
    best_rate,
    gone_on_from,
    in_small,
    low_end,
    lowest_loss,
    next_lower,
    next_rate,
    no_more,
    plateau,
    shape,
)
from autolr.policies.wording import number

LOWEST, HIGHEST = 1e-7, 10.0  # [lr] the range
SCOUT = 1e-3  # [lr] of the first step, which is undone: far enough that float32 has its direction
BEYOND = 4.0  # the first trial's peak, over the rate at which half of that step's greatest gain is made
NEGLIGIBLE = 1e-3  # a loss above the one before the step by less than this share of it counts as level
TRIAL, FEWEST, MOST, LONGEST = 0.015, 12, 0.1, 64  # share of the run that a trial takes; steps of it at least, but
# never more than this share of the run, and at most
EARLY = 0.3  # share of a trial after which one that has lost as much as the loss at the start is broken off
JUDGES = 4  # minibatches that trials are judged on, the same for all
BRACKET, SEARCH = 3, 0.2  # trials that there is always time for: the best, and one on either side; share of the run
# that more of them may take
LONGER = 4  # times as long is the trial in which the peak must bear that out, if two of them fit into that share
WARM = 0.05  # share of the run that the rate rises in
WATCHES, RARE = 8, 0.01  # of the time at the peak, at most, and never more than this share of the run's steps
LOST, ERRORS = 0.5, 2.0  # share of what was gained that a run has lost which died; in standard errors, its least
SURELY = 6.0  # standard errors, known from four minibatches, by which a watch's loss must be below all before to count
BACK = 3.0  # by which the peak is lowered then


@dataclass(frozen=True, slots=True)
class AutoState:
    """What the policy remembers; plain values, so that it goes into a checkpoint as it is."""

    since: int = 0  # the step after which the trial under way began, or the rise
    trial: float = 0.0  # [lr] the peak that is tried; 0 before the first trial
    trials: tuple[Trial, ...] = ()  # that were made, of those that are as long as the one under way
    times: int = 1  # as long as the first ones
    shorter: float = math.nan  # the lowest loss where a shorter one ended
    start: float = math.nan  # loss where all of them begin
    spread: float = math.inf  # of it, a standard deviation over minibatches
    found: float = 0.0  # [lr] the best peak; 0 while it is searched
    lowest: float = math.nan  # loss that the run surely came to, or its trial; NaN: there were no trials
    suspected: bool = False  # whether the last watch saw a loss of a run that died: on one minibatch, which may be bad,
    # so that the trials' own are asked
    lowered: float = 1.0  # by which the peak was lowered
    finish: tuple[int, int] | None = None  # steps between which the rate falls to zero, where that was said
    spent: int = 0  # forward equivalents of looks and snapshots

    @property
    def peak(self) -> float:
        """[lr] of the run."""
        return self.found / self.lowered


@dataclass(frozen=True, slots=True)
class Auto:
    """Finds the peak rate by itself, and ends at zero with the run. It asks for the number of steps and nothing else.

    It sees a dozen steps ahead, or 1.5 % of the run, and in a run of 700 steps or more four times that. What shows
    later is not seen: the peak of a Transformer that is trained from scratch to translate comes out within a factor of
    two of the best, and late (docs/benchmark.md, "Translation").

    The rate that the optimizer was given does not matter (with several parameter groups, their ratios do). The search
    takes a copy of the parameters and the optimizer's state, on the host.

    Args:
        hold: share of the run that ends the time at the peak; from there a straight line to 0. Knee's authors' default.
            With 1 the peak is held until `AutoLR.finish`: for a run whose end is not known, ``total_steps`` being the
            most it may take.
        within: whether what looks cost comes out of the run's steps, as the trials' steps do anyway: the rate is at 0
            as many steps earlier as they are worth, and one for the trial before the first. For comparisons at equal
            cost.
        rollback: whether a run that dies at its peak is brought back to where it last lived, and goes on at a third of
            it. Takes another copy now and then.
    """

    hold: float = 0.5
    within: bool = False
    rollback: bool = True

    def __post_init__(self) -> None:
        check_range("hold", self.hold, low=0, high=1)

    def begin(self) -> AutoState:
        """The state at the start of a run."""
        return AutoState()

    def stage(self, state: AutoState, step: int, total_steps: int) -> str:
        """``"search"``, ``"rise"``, ``"hold"`` or ``"decay"``."""
        if not state.found:
            return "search"
        if state.finish is None and step <= state.since + _warm(total_steps):
            return "rise"
        return "hold" if state.finish is None and step <= self.hold * total_steps else "decay"

    def rate(self, state: AutoState, step: int, total_steps: int) -> float:
        """[lr] of the step that is the ``step``-th, counted from 1."""
        if not state.trial:
            return SCOUT
        if not state.found:
            return state.trial * in_small(step - state.since, state.times * trial_steps(total_steps))
        if state.finish is not None:
            held, end = state.finish
        else:
            end = total_steps - (math.ceil(state.spent / FORWARDS_PER_STEP) + 1 if self.within else 0)
            held = min(end, int(self.hold * end))
        begun = state.since
        return state.peak * shape(step - begun, end - begun, _warm(total_steps), held - begun)

    def looks(self, state: AutoState, step: int, total_steps: int) -> Sounding | None:
        """Where to sample the loss along the coming step; None: nowhere."""
        if not state.trial:
            decades = range(round(math.log10(HIGHEST / SCOUT)), round(math.log10(LOWEST / SCOUT)) - 1, -1)
            return Sounding((0.0, *(10.0**k for k in decades)), undone=True)
        if not state.found:
            taken, steps = step - state.since, state.times * trial_steps(total_steps)
            first = (0.0,) if math.isnan(state.start) else ()
            last = (1.0,) if taken == steps else ()
            if first + last:
                return Sounding(first + last, JUDGES)
            return Sounding((1.0,)) if taken == max(2, round(EARLY * steps)) else None
        if state.suspected:
            return Sounding((1.0,), JUDGES)
        return Sounding((1.0,)) if self.rollback and step in self._watched(state, total_steps) else None

    def see(self, state: AutoState, sighting: Sighting) -> tuple[AutoState, Decision]:
        """After a step that was looked along.

        "undo" the first step, and keep the place; "look" on; "go back", a trial being over, or "go on" from the best
        one's end; "keep", where it is well to come back to; or "roll back".
        """
        state = replace(state, spent=state.spent + len(sighting.scales) * sighting.minibatches)
        if not state.trial:
            state, decision = _scout(state, sighting)
        elif not state.found:
            state, decision = _try(state, sighting)
        else:
            state, decision = _watch(state, sighting)
        if decision.best or decision.verdict in {"undo", "keep"}:
            state = replace(state, spent=state.spent + 1)  # a snapshot counts as a forward pass
        return state, decision

    def stuck(self, state: AutoState, step: int, total_steps: int) -> tuple[AutoState, Decision] | None:
        """A trial in which no step is taken any more is lost."""
        if state.found or math.isnan(state.start):
            return None
        lost = Sighting(step, total_steps, state.trial, (1.0,), (math.inf,), (math.inf,))
        return self.see(replace(state, spent=state.spent - 1), lost)  # nothing was looked at

    def finish(self, state: AutoState, step: int, steps: int, total_steps: int) -> AutoState:
        """Let the rate fall to zero from ``step``, the last one taken, over so many ``steps``.

        Raises:
            ValueError: the rate is not at its peak yet, or the run does not have so many steps left.
        """
        if self.stage(state, step, total_steps) in {"search", "rise"}:
            latest = 1 + int(BRACKET * MOST * total_steps) + _warm(total_steps)
            raise ValueError(
                "finish can be called once the rate has risen to its peak: when the optimizer's phase is no longer "
                f"'search' or 'rise', after step {latest} at the latest; this is step {step}."
            )
        if step + steps > total_steps:
            raise ValueError(
                f"finish must end within total_steps: {total_steps - step} steps are left of {total_steps}; got "
                f"{steps}. total_steps is the most that a run may take: give more at the start."
            )
        return replace(state, finish=(step, step + steps))

    def _watched(self, state: AutoState, total_steps: int) -> tuple[int, ...]:
        """Steps after which it is watched whether the run lives: often at first, up to the end of the hold."""
        risen, end = state.since + _warm(total_steps), round(self.hold * total_steps)
        if state.finish is not None or end <= risen:
            return ()
        number = max(1, min(WATCHES, round(RARE * total_steps)))
        return tuple(risen + math.ceil((end - risen) / 2**k) for k in range(number))


def _scout(state: AutoState, sighting: Sighting) -> tuple[AutoState, Decision]:
    """All decades along one step: at which rate is half of the greatest gain made?

    Along a parabola that is at 0.3 times its minimum. Where a network has something easy to learn first, the loss bends
    there, and falls on a little up to far longer steps: the minimum is theirs, and the half is the bend's.
    """
    here, *losses = sighting.losses
    if not math.isfinite(here) and sighting.step < FEWEST:  # as many tries as a trial has steps: no run waits for ever
        return state, Decision("undo", sighting.lr, "scouting: the loss is not finite on this minibatch; once more")
    rates = [scale * sighting.lr for scale in sighting.scales[1:]]
    gains = [here - loss if math.isfinite(loss) else -math.inf for loss in losses]
    half = max(gains) / 2
    told = f"scouting: half of what a step can gain, {number(2 * half)}, is gained at"
    if half > 0:
        place = max(place for place, gain in enumerate(gains) if gain >= half)  # from the right: the lowest rate
        rate = rates[place]
        if place + 1 < len(rates):
            missing = (gains[place] - half) / (gains[place] - gains[place + 1])
            rate *= (rates[place + 1] / rate) ** missing
    else:  # no gain on this minibatch
        told = "scouting: a step gains nothing, and the loss is level up to"
        level = [rate for rate, gain in zip(rates, gains, strict=True) if gain >= -NEGLIGIBLE * abs(here)]
        rate = max(level, default=LOWEST)
    trial = min(max(BEYOND * rate, LOWEST), HIGHEST)
    # Where there is no time for trials it is the peak.
    found = 0.0 if room(0, sighting.total_steps) else trial
    state = replace(state, since=sighting.step, trial=trial, found=found)
    return state, Decision("undo", trial, f"{told} {number(rate)}; now {number(trial)}")


def _try(state: AutoState, sighting: Sighting) -> tuple[AutoState, Decision]:
    """The start of all trials, or one's end, or both; or early in one, whether it is worth its end."""
    total = sighting.total_steps
    early = sighting.step - state.since < state.times * trial_steps(total)
    at = dict(zip(sighting.scales, sighting.losses, strict=True))
    told = ""
    if math.isfinite(at.get(0.0, math.nan)):
        state = replace(state, start=at[0.0], spread=sighting.deviations[sighting.scales.index(0.0)])
        told = f"trials begin at a loss of {number(state.start)}"
    elif 0.0 in at:
        told = "where trials begin the loss of some of these minibatches is not finite: others are drawn"
    if 1.0 not in at:
        return state, Decision("look", sighting.lr, told)
    if early and at[1.0] <= state.start + abs(state.start):
        return state, Decision(
            "look", sighting.lr, f"trying {number(state.trial)}: the loss is {number(at[1.0])} so far"
        )
    trials = (*state.trials, (state.trial, math.inf if early else at[1.0]))
    doubt = _standard_error(state, sighting)
    told = f"tried {number(state.trial)}: the loss went from {number(state.start)} to {number(at[1.0])}"
    told += ", at once" if early else ""
    return _next(replace(state, trials=trials, since=sighting.step), doubt, told, sighting.step, total)


def _next(state: AutoState, doubt: float, told: str, step: int, total_steps: int) -> tuple[AutoState, Decision]:
    """After a trial: another one; or longer ones, in which a peak must bear out what shorter ones say; or the run."""
    trials, start, times = state.trials, state.start, state.times
    kept = gone_on_from(trials, start)
    here = kept == trials[-1]
    if times == 1:
        done, more = False, room(len(trials), total_steps)
        wanted = next_rate(trials, start, doubt, LOWEST, HIGHEST)
    else:
        done = not no_more(trials, state.shorter, start, doubt)
        more = room_for_longer(step, 1, times, len(trials), total_steps)
        wanted = None if done else next_lower(trials, start, LOWEST)
    if more and wanted is not None:
        return replace(state, trial=wanted), Decision("go back", wanted, f"{told}; now {number(wanted)}", best=here)
    longer = not done and room_for_longer(step, 2, LONGER * times, BRACKET, total_steps)
    # In a run too short for longer trials the parabola does better than a plateau's low end.
    if times > 1:
        found = low_end(trials, start, ENOUGH)
    elif longer and plateau(trials, start, doubt):
        found = low_end(trials, start, EDGE)
    else:
        found = best_rate(trials, start, doubt)
    if longer:
        steps = LONGER * times * trial_steps(total_steps)
        told += f"; trials of {steps} steps now, from {number(found)} down"
        shorter = lowest_loss(trials, start)
        state = replace(state, trial=found, trials=(), times=LONGER * times, shorter=shorter)
        return state, Decision("start over", found, told)
    whence = "the start" if kept is None else f"where {number(kept[0])} ended"
    told += f"; the peak is {number(found)}, from {whence} on"
    state = replace(state, found=found, lowest=start if kept is None else kept[1])
    return state, Decision("go on", found, told, best=here)


def _watch(state: AutoState, sighting: Sighting) -> tuple[AutoState, Decision]:
    """Whether the run lives: it died where half of what it had gained is lost, also on the trials' minibatches."""
    (loss,), peak = sighting.losses, state.peak
    lost, gained = loss - state.lowest, state.start - state.lowest
    error = _standard_error(state, sighting)
    if not math.isfinite(loss) or (lost > LOST * gained and lost > ERRORS * error):
        told = f"the loss is {number(loss)}, after {number(state.start)} at first and {number(state.lowest)} at best"
        if not state.suspected:
            told += ": the trials' minibatches are asked"
            return replace(state, suspected=True), Decision("look", sighting.lr, told)
        state = replace(state, lowered=state.lowered * BACK, suspected=False)
        return state, Decision("roll back", state.peak, f"rolled back: {told}", died=True)
    # The lowest of several minibatches is below what the run has come to: only what it surely has counts.
    state = replace(state, lowest=min(state.lowest, loss + SURELY * error), suspected=False)
    return state, Decision("keep", sighting.lr, f"peak kept at {number(peak)}: the loss is {number(loss)}")


def _standard_error(state: AutoState, sighting: Sighting) -> float:
    """Of a mean loss over as many minibatches; 0 where there is only the one, the whole of the data."""
    return state.spread / math.sqrt(sighting.minibatches) if math.isfinite(state.spread) else 0.0


def trial_steps(total_steps: int) -> int:
    """Steps that each trial takes, of the first ones."""
    return max(1, min(LONGEST, round(max(TRIAL * total_steps, FEWEST)), int(MOST * total_steps)))


def room(made: int, total_steps: int) -> bool:
    """Whether there is time for another trial after those that were ``made``."""
    return (made + 1) * trial_steps(total_steps) <= _share(made) * total_steps


def room_for_longer(step: int, number: int, times: int, made: int, total_steps: int) -> bool:
    """Whether there is time for a ``number`` of trials ``times`` as long as the first ones.

    Args:
        step: after which they would begin.
        number: of them.
        times: as long as the first ones.
        made: how many of that length there are; of the first `BRACKET` there is more time for one.
        total_steps: of the run.
    """
    return step + number * times * trial_steps(total_steps) <= _share(made) * total_steps


def _share(made: int) -> float:
    """Of the run, in which another trial has to fit in when so many of its length were made."""
    return BRACKET * MOST if made < BRACKET else SEARCH


def _warm(total_steps: int) -> int:
    """Steps that the rate rises in."""
    return max(1, round(WARM * total_steps))
