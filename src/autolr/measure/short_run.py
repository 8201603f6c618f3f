"""Short runs: real optimizer steps to a peak rate and down to zero, from one start, on the same minibatches and masks.

What a short run does to model and optimizer is undone before the next one: see `whole_state`.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Generator, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, IterableDataset

from autolr.measure.evaluated import LossFunction
from autolr.measure.judges import Judges
from autolr.measure.peekable_loader import PeekableLoader
from autolr.measure.refused import FAILURES, is_alone
from autolr.measure.replayed import Replayed
from autolr.measure.snapshot import seed_all
from autolr.measure.sources import Batches, Kept, Made
from autolr.measure.superbatch import Superbatches, prepares
from autolr.measure.training_step import TrainingStep, TrainStep, counted
from autolr.measure.whole_state import held_tensors
from autolr.numerics.bracket import ShortRun
from autolr.numerics.cost import FORWARDS_PER_STEP
from autolr.numerics.shape import SHORT_WARM_UP, shape
from autolr.runtime.distributed import rank, smallest
from autolr.runtime.param_group_lrs import ParamGroupLRs

T = TypeVar("T")
OnStep = Callable[[int, int], None]  # told of the steps taken before and after each pass of the user's training step

RUINED = 10.0  # times the start's level or range: a loss so far above all at the start does not come back in time
PATIENCE = 2  # such losses in a row before the evaluation minibatch is asked
REFUSED = 4  # one minibatch of so many may be refused, and two more
MOST_STILL = 16  # steps at the start that may move nothing
TRAINING = 1  # number of the draw: training goes on with 2, 3, ... where a pass ends


class Start(Protocol):
    """Where short runs begin: a `WholeState`, or something like it."""

    def restore(self) -> None:
        """Go there."""

    def moved(self) -> bool:
        """Whether any parameter has another value than there."""


class _RuinedError(Exception):
    """The run under way has diverged."""


class _RefusedError(Exception):
    """The run under way has met a minibatch that is to be skipped."""


class ShortRunner:
    """Runs short runs inside `everything_kept`.

    Args:
        model: that ``loss_fn`` is called with.
        optimizer: the user's own, with the state that it has.
        loss_fn: mean loss of a minibatch.
        batches: where training's minibatches come from.
        state: to go back to before each run.
        longest: steps of the longest run that may come.
        train_step: the user's own function for a minibatch, up to ``optimizer.step()``; in place of forward pass,
            backward pass and clipping here.
        clip: largest norm of the gradient.
        evaluation: minibatches to judge by; drawn from ``batches`` where there are none.
        minibatches: to judge by, where there are so many.
        candidates: looked at for each of them.
        accumulation: minibatches of a step.
        seed: of every draw and mask.
    """

    def __init__(
        self, model: nn.Module, optimizer: Optimizer, loss_fn: LossFunction, batches: Batches, state: Start, *,
        longest: int, train_step: TrainStep | None = None, clip: float | None = None,
        evaluation: Batches | None = None, minibatches: int = 8, candidates: int = 1, accumulation: int = 1,
        seed: int = 0,
    ) -> None:  # fmt: skip
        self._optimizer, self._state, self._seed = optimizer, state, seed + rank()
        self._step = TrainingStep(model, optimizer, loss_fn, train_step, clip, accumulation)
        self._each = accumulation
        self._batches = Superbatches(batches, 1, self._seed)
        known = self._batches.available
        self._minibatches = Replayed(self._drawing)
        self._still: int | None = None  # steps at the start that move nothing; None until the first run tells
        self._switch("eval")
        if evaluation is None and known is not None:  # most are left to train with
            candidates = max(1, min(candidates, known // (2 * minibatches)))
        candidates = smallest(candidates)
        self.judges = Judges(
            model, loss_fn, batches if evaluation is None else evaluation, minibatches, candidates, self._seed
        )
        # The same number at every draw: some samplers' order depends on it.
        judging = 0 if evaluation is not None else minibatches * candidates
        wanted = judging + longest * accumulation
        self._drawn = wanted if known is None else min(known, wanted)
        self._skipped = 0 if _shuffles(batches) else judging
        self.start = start = self.judges.start
        self._ceiling = max(start) + RUINED * max(abs(math.fsum(start) / len(start)), max(start) - min(start))
        self.cost = self.judges.looked_at / self._each  # [forward equivalents] of all minibatches of a step
        self._lowest_alive = math.inf  # [lr] of a run that came to its end
        self._refused = set[int]()  # places of minibatches that are skipped
        # Of the run under way: its rate, minibatches, and the losses of the last one.
        self._lr, self._trained, self._seen = 0.0, 0, list[float]()

    def run(self, length: int, lr: float) -> ShortRun:
        """``length`` optimizer steps from the start, with the peak rate ``lr``: see `follow`."""
        return self.follow([lr * shape(step, length, SHORT_WARM_UP) for step in range(1, length + 1)], lr)

    def follow(self, lrs: Sequence[float], peak: float | None = None, *, on_step: OnStep = lambda *_: None) -> ShortRun:
        """An optimizer step at each of these rates, from the start; ``on_step`` is told of each.

        A loss function may raise where weights are ruined: such a run has diverged. A minibatch that it refuses at the
        start, too, is skipped, as users' loops skip it. What is raised otherwise is raised on.
        """
        lr = max(lrs) if peak is None else peak
        self._lr, self._trained = lr, 0
        while True:
            self._seen = []
            try:
                told = self._run(lr, lrs, on_step)
                break
            except _RuinedError:
                return ShortRun(len(lrs), lr, (), FORWARDS_PER_STEP * self._trained / self._each)
            except _RefusedError:
                continue  # anew, without that minibatch
        self._lowest_alive = min(self._lowest_alive, math.inf if told.diverged else lr)
        return told

    def close(self) -> None:
        """No more runs: the workers that load for them end."""
        self._minibatches.close()

    def _losses(self, batch: Any, place: int, *, first: bool) -> list[float]:
        """Of one minibatch, whose gradient is added; NaN where it is refused."""
        if place in self._refused:
            return [math.nan]
        seed_all(self._seed, TRAINING, place)
        torch.clear_autocast_cache()
        self._trained += 1
        self._seen = self._unless_ruined(self._step.gradient, batch, first=first, place=place)
        return self._seen

    def _unless_ruined(
        self, measure: Callable[..., T], *arguments: Any, place: int | None = None, **settings: Any
    ) -> T:
        """What the user's own code gives, or raises where it is neither for the rate nor for the minibatch."""
        try:
            return measure(*arguments, **settings)
        except FAILURES as error:
            alone = is_alone(error)
            if alone and self._is_ruined():
                raise _RuinedError from error
            if alone and place is not None and self._refuses(arguments[0], place):
                raise _RefusedError from error
            if alone and self._lr > self._lowest_alive:
                raise _RuinedError from error
            if hasattr(error, "add_note"):  # from Python 3.11 on
                error.add_note(f"Raised in a short run of a search for the peak rate, at a rate of {self._lr:.3g}.")
            raise

    def _is_ruined(self) -> bool:
        finite = all(bool(torch.isfinite(p.detach()).all()) for p in held_tensors(self._optimizer))
        return not finite or self._above(self._seen)

    def _refuses(self, batch: Any, place: int) -> bool:
        """Whether a minibatch raises at the start, too: a corrupt sample. A quarter of them are no samples' fault."""
        if REFUSED * (len(self._refused) + 1) > place + 2 * REFUSED:
            return False
        self._to_start()
        seed_all(self._seed, TRAINING, place)
        self._trained += 1
        try:
            self._step.gradient(batch, first=True)
        except FAILURES:
            self._refused.add(place)
            return True
        return False

    def _to_start(self) -> None:
        self._state.restore()
        self._step.begin()
        self._switch("train")

    def _run(self, lr: float, lrs: Sequence[float], on_step: OnStep) -> ShortRun:
        self._to_start()
        rates = ParamGroupLRs(self._optimizer)
        drawn = taken = suspicious = checks = still = 0
        with contextlib.closing(self._minibatches()) as minibatches, counted(self._optimizer) as calls:
            while taken < len(lrs):
                before = taken
                rates.set(lrs[taken])
                losses: list[float] = []
                for place in range(self._each if self._step.own is None else 1):
                    losses += self._losses(next(minibatches), drawn, first=place == 0)
                    drawn += 1
                if self._step.own is None:
                    self._unless_ruined(self._step.update, losses)
                suspicious = suspicious + 1 if self._above(losses) else 0
                # A train_step may accumulate gradients, or its scaler skip a step: calls of `step` count. A step that
                # is skipped here, as users' loops skip it, is one of the schedule.
                taken = drawn // self._each if self._step.own is None else calls.count
                still = self._still_steps(taken, still)
                taken -= still
                calls.check(drawn)
                if taken > before:
                    on_step(before, taken)
                if suspicious >= PATIENCE:
                    suspicious, checks = 0, checks + 1
                    if self._above(self._unless_ruined(self.judges.first_losses)):
                        return ShortRun(len(lrs), lr, (), (FORWARDS_PER_STEP * self._trained + checks) / self._each)
        self._step.check_gradient(self._trained)
        self._switch("eval")
        ended = self._unless_ruined(self.judges.losses)
        cost = (FORWARDS_PER_STEP * self._trained + checks + len(self.judges)) / self._each
        return ShortRun(len(lrs), lr, ended if all(map(math.isfinite, ended)) else (), cost)

    def _still_steps(self, taken: int, still: int) -> int:
        """How many of the first ``taken`` steps were still, and are none of the run's; told by the search's first run.

        SOAP and ADOPT only fill their state in the first step, and others gather gradients over several.
        """
        if self._still is None and taken > still:
            if taken > MOST_STILL or smallest(0 if self._state.moved() else 1) == 0:  # of shards, any rank's
                self._still = still if taken <= MOST_STILL else 0
            else:
                still = taken
        return still if self._still is None else min(taken, self._still)

    def _switch(self, mode: str) -> None:
        """To the weights that train, or to those that are judged, where the optimizer has both (schedule-free)."""
        if mode == "eval" and not self._optimizer.state:
            return  # before its first step both are the same, and some cannot switch yet
        if callable(switch := getattr(self._optimizer, mode, None)):
            switch()

    def _above(self, losses: Sequence[float]) -> bool:
        return any(not loss <= self._ceiling for loss in losses)

    def _drawing(self) -> Generator[Any, None, None]:
        for number in itertools.count(TRAINING):
            for place, batch in enumerate(self._batches.draw(number, self._drawn)):
                if number > TRAINING or place >= self._skipped or self._drawn <= self._skipped:
                    yield batch


def _shuffles(batches: Batches) -> bool:
    """Whether each draw is another order; otherwise the first minibatches are always the evaluation's."""
    if isinstance(batches, PeekableLoader):
        batches = batches.loader
    if isinstance(batches, DataLoader):
        return not isinstance(batches.dataset, IterableDataset) and not prepares(batches)
    return isinstance(batches, Sequence | Made | Kept)
