"""Short runs: real optimizer steps to a peak rate and down to zero, from one start, on the same minibatches and masks.

What a short run does to model and optimizer is undone before the next one: see `whole_state`.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, IterableDataset

from autolr.measure.evaluated import LossFunction, check_loss, fresh
from autolr.measure.judges import Judges
from autolr.measure.memory import ran_out_of_memory
from autolr.measure.peekable_loader import PeekableLoader
from autolr.measure.replayed import Replayed
from autolr.measure.snapshot import seed_all
from autolr.measure.sources import Batches, Kept, Made
from autolr.measure.superbatch import Superbatches, prepares
from autolr.measure.whole_state import WholeState, held_tensors
from autolr.numerics.bracket import ShortRun
from autolr.numerics.cost import FORWARDS_PER_STEP
from autolr.numerics.shape import SHORT_WARM_UP, shape
from autolr.runtime.distributed import gather_minibatches, rank, several, smallest
from autolr.runtime.param_group_lrs import ParamGroupLRs

T = TypeVar("T")
TrainStep = Callable[[Any], Any]

RUINED = 10.0  # times the start's level or range: a loss so far above all at the start does not come back in time
PATIENCE = 2  # such losses in a row before the evaluation minibatch is asked
STALLED = 100  # calls of train_step without an optimizer step
MOST_STILL = 16  # steps at the start that may move nothing
TRAINING = 1  # number of the draw: training goes on with 2, 3, ... where a pass ends


class _RuinedError(Exception):
    """The run under way has diverged."""


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
        self,
        model: nn.Module,
        optimizer: Optimizer,
        loss_fn: LossFunction,
        batches: Batches,
        state: WholeState,
        *,
        longest: int,
        train_step: TrainStep | None = None,
        clip: float | None = None,
        evaluation: Batches | None = None,
        minibatches: int = 8,
        candidates: int = 1,
        accumulation: int = 1,
        seed: int = 0,
    ) -> None:
        self._model, self._optimizer, self._loss_fn, self._state = model, optimizer, loss_fn, state
        self._train_step, self._clip, self._seed = train_step, clip, seed + rank()
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
        self._has_gradient = False  # whether any minibatch's loss had one
        # Of the run under way: its rate, minibatches, and the losses of the last one.
        self._lr, self._trained, self._seen = 0.0, 0, list[float]()

    def run(self, length: int, lr: float) -> ShortRun:
        """``length`` optimizer steps from the start, with the peak rate ``lr``.

        A loss function may raise where weights are ruined: a distribution of NaN, a matrix that is not definite. Such a
        run has diverged. What is raised otherwise is raised on.
        """
        self._lr, self._trained, self._seen = lr, 0, []
        try:
            told = self._run(length, lr)
        except _RuinedError:
            return ShortRun(length, lr, (), FORWARDS_PER_STEP * self._trained / self._each)
        if not told.diverged:
            self._lowest_alive = min(self._lowest_alive, lr)
        return told

    def close(self) -> None:
        """No more runs: the workers that load for them end."""
        self._minibatches.close()

    def _unless_ruined(self, measure: Callable[..., T], *arguments: Any, **settings: Any) -> T:
        """What the user's own code gives, or raises where it is not for the rate."""
        try:
            return measure(*arguments, **settings)
        except (RuntimeError, ValueError, ArithmeticError) as error:
            if self._is_of_its_rate(error):
                raise _RuinedError from error
            if hasattr(error, "add_note"):  # from Python 3.11 on
                error.add_note(f"Raised in a short run of a search for the peak rate, at a rate of {self._lr:.3g}.")
            raise

    def _is_of_its_rate(self, error: Exception) -> bool:
        """Whether an error comes of ruined weights, and not of a mistake that every rate would meet."""
        if several() or ran_out_of_memory(error):  # other ranks wait for what this one does not do
            return False
        ruined = not all(bool(torch.isfinite(p.detach()).all()) for p in held_tensors(self._optimizer))
        return ruined or self._ruined(self._seen) or self._lr > self._lowest_alive

    def _run(self, length: int, lr: float) -> ShortRun:
        self._state.restore()
        for parameter in self._model.parameters():
            parameter.grad = None
        rates = ParamGroupLRs(self._optimizer)
        drawn = taken = suspicious = checks = still = 0
        self._switch("train")
        with contextlib.closing(self._minibatches()) as minibatches, _counted(self._optimizer) as calls:
            while taken < length:
                rates.set(lr * shape(taken + 1, length, SHORT_WARM_UP))
                losses: list[float] = []
                for place in range(self._each if self._train_step is None else 1):
                    batch = next(minibatches)
                    seed_all(self._seed, TRAINING, drawn)
                    torch.clear_autocast_cache()
                    self._trained += 1
                    losses += self._unless_ruined(self._train, batch, first=place == 0)
                    drawn += 1
                self._seen = losses
                if self._train_step is None:
                    self._unless_ruined(self._update, losses)
                suspicious = suspicious + 1 if self._ruined(losses) else 0
                # A train_step may accumulate gradients, or its scaler skip a step: calls of `step` count. A step that
                # is skipped here, as users' loops skip it, is one of the schedule.
                taken = drawn // self._each if self._train_step is None else calls.count
                still = self._still_steps(taken, still)
                taken -= still
                _check_steps(drawn, calls.count)
                if suspicious >= PATIENCE:
                    suspicious, checks = 0, checks + 1
                    if self._ruined(self._unless_ruined(self.judges.first_losses)):
                        return ShortRun(length, lr, (), (FORWARDS_PER_STEP * drawn + checks) / self._each)
        self._check_gradient()
        self._switch("eval")
        ended = self._unless_ruined(self.judges.losses)
        cost = (FORWARDS_PER_STEP * drawn + checks + len(self.judges)) / self._each
        return ShortRun(length, lr, ended if all(map(math.isfinite, ended)) else (), cost)

    def _check_gradient(self) -> None:
        """Minibatches without a gradient are left out, but a loss that never has one is a mistake."""
        if self._train_step is None and not self._has_gradient:
            raise ValueError(
                f"loss_fn(model, batch) has no gradient on any of {self._trained} minibatches: it is detached, or "
                "computed under torch.no_grad(). Return the loss that training calls backward() on."
            )

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

    def _ruined(self, losses: Sequence[float]) -> bool:
        return any(not loss <= self._ceiling for loss in losses)

    def _train(self, batch: Any, *, first: bool) -> list[float]:
        """The gradient of a minibatch; its losses on all ranks."""
        if self._train_step is not None:
            loss = self._train_step(fresh(batch))
            given = loss.detach().double().reshape(1, 1) if isinstance(loss, Tensor) and loss.numel() == 1 else None
            return [] if given is None else gather_minibatches(given)[0]
        if first:
            self._optimizer.zero_grad()
        loss = check_loss(self._loss_fn(self._model, fresh(batch)))
        losses = gather_minibatches(loss.detach().double().reshape(1, 1))[0]
        # The same on every rank, so that all enter the backward pass or none, and all raise or none.
        has_gradient = bool(smallest(int(loss.requires_grad)))
        self._has_gradient = self._has_gradient or has_gradient
        if all(map(math.isfinite, losses)) and has_gradient:
            (loss / self._each).backward()  # type: ignore[no-untyped-call]
        return losses

    def _update(self, losses: Sequence[float]) -> None:
        """The optimizer's step, where all of its losses and gradients are finite."""
        if all(map(math.isfinite, losses)):
            moved = held_tensors(self._optimizer)
            if self._clip is not None:
                torch.nn.utils.clip_grad_norm_(moved, self._clip)
            if all(bool(torch.isfinite(p.grad).all()) for p in moved if p.grad is not None and not p.grad.is_sparse):
                self._optimizer.step()

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


@dataclass
class _Calls:
    count: int = 0


@contextlib.contextmanager
def _counted(optimizer: Optimizer) -> Iterator[_Calls]:
    """Counts the optimizer's steps inside."""
    calls = _Calls()

    def count(*_: Any) -> None:
        calls.count += 1

    handle = optimizer.register_step_post_hook(count)
    try:
        yield calls
    finally:
        handle.remove()


def _check_steps(minibatches: int, calls: int) -> None:
    if minibatches >= STALLED and calls == 0:
        raise ValueError(
            f"{minibatches} minibatches of a short run led to no step of the optimizer. A train_step must do forward "
            "pass, backward pass and optimizer.step() of the optimizer that find_peak is given; without one, no "
            "minibatch had a finite loss and gradient."
        )
