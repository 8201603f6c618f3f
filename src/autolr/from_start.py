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
from autolr.measure.whole_state import EverythingKept
from autolr.numerics.plan import MANY

Losses = tuple[float, ...]


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

    def kept() -> EverythingKept:
        return EverythingKept(model, optimizer, also, loss_fn, train_step)

    here, place = kept(), Place(batches, evaluation)

    def measure() -> tuple[Losses, Losses, float]:
        place.begin()
        state = here.begin()
        to_start()
        start = kept().begin()  # to go there again; the way back is that of ``here``
        state.restore()  # the judging minibatches are seen here first
        runner = ShortRunner(
            model, optimizer, loss_fn, batches, start,
            longest=len(lrs), train_step=train_step, clip=clip, evaluation=evaluation, minibatches=MANY,
            accumulation=accumulation, seed=seed,
        )  # fmt: skip
        with contextlib.closing(runner):
            told = runner.follow(lrs)
        return runner.start, told.losses or (math.inf,) * len(runner.start), runner.cost + told.cost

    return certainly(measure, WayBack([here.back, place.back]))
