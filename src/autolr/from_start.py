"""Would another peak have come further by now? So many steps from where the run began, and both are judged alike.

What the steps do to model, optimizer and data is undone, as in a search.
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
from autolr.measure.put_back import WayBack, certainly
from autolr.measure.short_run import ShortRunner
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
    to_start: Callable[[], None], lrs: Sequence[float],
    train_step: TrainStep | None = None, clip: float | None = None, evaluation: Iterable[Any] | None = None,
    also: Iterable[Any] = (), accumulation: int = 1, seed: int = 0,
) -> tuple[Losses, Losses, float]:  # fmt: skip
    """Losses here, and after so many steps from the start, on the same minibatches; and the cost.

    Args:
        model: as for `autolr.find_peak`, and so are those that are not told of.
        optimizer: likewise.
        loss_fn: likewise.
        batches: likewise.
        to_start: puts model and optimizer where the run began.
        lrs: rates of the optimizer steps to take there.
        train_step: see `autolr.find_peak`.
        clip: likewise.
        evaluation: likewise.
        also: likewise.
        accumulation: likewise.
        seed: likewise.

    Returns:
        losses here and there, infinite where the steps diverged, and forward equivalents.
    """
    here, place = EverythingKept(model, optimizer, also, loss_fn, train_step), Place(batches, evaluation)

    def measure() -> tuple[Losses, Losses, float]:
        place.begin()
        runner = ShortRunner(  # which sees its judging minibatches here
            model, optimizer, loss_fn, batches, _Start(here.begin(), optimizer, to_start),
            longest=len(lrs), train_step=train_step, clip=clip, evaluation=evaluation, minibatches=MANY,
            accumulation=accumulation, seed=seed,
        )  # fmt: skip
        with contextlib.closing(runner):
            told = runner.follow(lrs)
        return runner.start, told.losses or (math.inf,) * len(runner.start), runner.cost + told.cost

    return certainly(measure, WayBack([here.back, place.back]))
