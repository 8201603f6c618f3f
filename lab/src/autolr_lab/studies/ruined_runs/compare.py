"""Each situation with a cosine set by hand, a customary fixed rate, and AutoLR; and what came of it."""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import autolr
from autolr_lab.studies.ruined_runs.case import Case, cosine, seed_everything

ERRORS = 2.0  # standard errors of the difference within which two results cannot be told apart


@dataclass(frozen=True)
class Outcome:
    """One run."""

    error: float  # infinite where it is not a number, or the run stopped
    told: tuple[str, ...] = ()  # warnings, and what stopped it
    peak: float = math.nan  # [lr]
    rolled_back: int = 0


def by_hand(case: Case, seed: int) -> Outcome:
    """A warm-up and a cosine from a peak that was set by hand."""
    seed_everything(seed)
    setup = case.make(case.steps)
    optimizer = case.optimizer(setup.model.parameters(), case.cosine)
    schedule = cosine(optimizer, case.steps)
    return _run(lambda: case.loop(setup, optimizer, schedule.step, case.steps), setup.error)


def fixed(case: Case, seed: int) -> Outcome:
    """The customary rate, never changed."""
    seed_everything(seed)
    setup = case.make(case.steps)
    optimizer = case.optimizer(setup.model.parameters(), case.fixed)
    return _run(lambda: case.loop(setup, optimizer, lambda: None, case.steps), setup.error)


def tuned(case: Case, seed: int) -> Outcome:
    """AutoLR, from the customary rate."""
    seed_everything(seed)
    setup = case.make(case.steps)
    base = case.optimizer(setup.model.parameters(), case.fixed)
    made = []

    def train() -> None:
        optimizer = autolr.AutoLR(base, setup.model, setup.loss, setup.data, case.steps, policy=case.policy, seed=seed)
        made.append(optimizer)
        case.loop(setup, optimizer, lambda: None, case.steps)

    outcome = _run(train, setup.error)
    history = made[0].history if made else []
    peak = next((record.lr_after for record in history if record.phase == "search"), math.nan)
    back = sum(record.verdict == "roll back" for record in history)
    return Outcome(outcome.error, outcome.told, peak, back)


def _run(train: Callable[[], object], error: Callable[[], float]) -> Outcome:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        stopped: tuple[str, ...] = ()
        try:
            train()
        except Exception as problem:  # whatever stops a run belongs into the table
            stopped = (f"{type(problem).__name__}: {problem}",)
    told = tuple(dict.fromkeys(str(warning.message) for warning in caught))
    value = error() if not stopped else math.inf
    return Outcome(value if math.isfinite(value) else math.inf, stopped + told)


def verdict(by_hand: Sequence[float], ours: Sequence[float]) -> str:
    """Which of the two is lower by more than the noise of their means; each situation by itself.

    "Within noise" is no proof that they are equal.
    """
    if not all(map(math.isfinite, (*by_hand, *ours))):
        return "ruined" if not all(map(math.isfinite, ours)) else "better"
    difference = statistics.fmean(ours) - statistics.fmean(by_hand)
    noise = math.sqrt(sum(statistics.variance(x) / len(x) for x in (by_hand, ours))) if len(ours) > 1 else 0.0
    if abs(difference) <= ERRORS * noise:
        return "within noise"
    return "worse" if difference > 0 else "better"


def values(outcomes: Sequence[Outcome]) -> str:
    """Mean and each seed's."""
    each = [outcome.error for outcome in outcomes]
    return f"{statistics.fmean(each):.3g} ({', '.join(f'{x:.3g}' for x in each)})"
