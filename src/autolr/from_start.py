"""Would another peak have come further by now? Some steps on from here, some from where the run began: which is lower?

What the steps do to model, optimizer and data is undone, as in a search. On the way from the start the caller may keep
a place: a run that goes back goes on from there, and need not take these steps again.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from autolr.measure.evaluated import LossFunction
from autolr.measure.place import Place
from autolr.measure.put_back import certainly
from autolr.measure.refused import MISTAKES, TrialFailedError, is_alone
from autolr.measure.short_run import OnStep, ShortRunner, Start
from autolr.measure.sources import Batches
from autolr.measure.training_step import TrainStep
from autolr.measure.whole_state import EverythingKept, WholeState
from autolr.numerics.plan import MANY

Losses = tuple[float, ...]


class _Start:
    """Where the run began: as here, but for what was saved there. Another copy of it on the device is not needed.

    Rates, and their ratios, are those of here: before its first step a scheduler may have set 0.
    """

    def __init__(self, here: WholeState, optimizer: Optimizer, to_start: Callable[[], None]) -> None:
        self._here, self._optimizer, self._to_start = here, optimizer, to_start

    def restore(self) -> None:
        """Go there."""
        self._here.restore()
        rates = [group["lr"] for group in self._optimizer.param_groups]
        self._to_start()
        for group, rate in zip(self._optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

    def moved(self) -> bool:
        """True: nobody has kept where the parameters were."""
        return True


def compare_from_start(
    model: nn.Module, optimizer: Optimizer, loss_fn: LossFunction, batches: Batches, *,
    to_start: Callable[[], None], from_here: Sequence[float], from_there: Sequence[float],
    keep_after: int = 0, keep: Callable[[], None] = lambda: None,
    train_step: TrainStep | None = None, clip: float | None = None, evaluation: Iterable[Any] | None = None,
    also: Iterable[Any] = (), accumulation: int = 1, seed: int = 0,
) -> tuple[Losses, Losses, float]:  # fmt: skip
    """Losses after steps from here and after steps from the start, on the same minibatches; and the cost.

    Args:
        model: as for `autolr.find_peak`, and so are those that are not told of.
        optimizer: likewise.
        loss_fn: likewise.
        batches: likewise.
        to_start: puts model and optimizer where the run began.
        from_here: rates of the optimizer steps to take from here.
        from_there: and of those from the start.
        keep_after: so many of these ``keep`` is called, where model and optimizer are then.
        keep: see there; it may be called again, where the steps had to be taken anew.
        train_step: see `autolr.find_peak`.
        clip: likewise.
        evaluation: likewise.
        also: likewise.
        accumulation: likewise.
        seed: likewise.

    Returns:
        losses after both, infinite where the steps diverged, and forward equivalents.

    Raises:
        TrialFailedError: the steps raised, in one process; likewise all is put back.
    """
    here = EverythingKept(model, optimizer, also, loss_fn, train_step)

    def after(start: Start, lrs: Sequence[float], on_step: OnStep) -> tuple[Losses, float]:
        place = Place(batches, evaluation)  # put back after each: a source that counts gives both the same

        def run() -> tuple[Losses, float]:
            place.begin()
            runner = ShortRunner(  # which sees its judging minibatches here
                model, optimizer, loss_fn, batches, start,
                longest=max(len(from_here), len(from_there)), train_step=train_step, clip=clip, evaluation=evaluation,
                minibatches=MANY, accumulation=accumulation, seed=seed,
            )  # fmt: skip
            with contextlib.closing(runner):
                told = runner.follow(lrs, on_step=on_step)
            return told.losses or (math.inf,) * len(runner.start), runner.cost + told.cost

        return certainly(run, place.back)

    def passing(before: int, taken: int) -> None:
        if before < keep_after <= taken:  # a user's train_step may take several
            keep()

    def compare() -> tuple[Losses, Losses, float]:
        state = here.begin()
        gone_on, cost = after(state, from_here, lambda *_: None)
        state.restore()
        begun_anew, more = after(_Start(state, optimizer, to_start), from_there, passing)
        return gone_on, begun_anew, cost + more

    def measure() -> tuple[Losses, Losses, float]:
        try:
            return compare()
        except MISTAKES as error:
            if not is_alone(error):
                raise
            raise TrialFailedError from error

    return certainly(measure, here.back)  # what the way back raises is raised
