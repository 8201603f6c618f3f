"""A step of training within a short run: forward pass, backward pass, clipping and the optimizer's step."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from autolr.measure.evaluated import LossFunction, check_loss, fresh
from autolr.measure.forward_state import modules_of
from autolr.measure.graphs import cut_graphs
from autolr.measure.whole_state import held_tensors
from autolr.runtime.distributed import gather_minibatches, smallest

TrainStep = Callable[[Any], Any]

STALLED = 100  # calls of train_step without an optimizer step


class TrainingStep:
    """The plain one of most loops, or the user's own.

    Args:
        model: that ``loss_fn`` is called with.
        optimizer: that steps.
        loss_fn: mean loss of a minibatch.
        own: ``train_step(batch)`` in the place of all that.
        clip: largest norm of the gradient.
        accumulation: minibatches of a step.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        loss_fn: LossFunction,
        own: TrainStep | None,
        clip: float | None,
        accumulation: int,
    ) -> None:
        self._model, self._optimizer, self._loss_fn, self.own = model, optimizer, loss_fn, own
        self._clip, self._each, self._modules = clip, accumulation, modules_of(model)
        self._has_gradient = False  # whether any minibatch's loss had one

    def begin(self) -> None:
        """A run starts without gradients, and without the graphs that training's last step has left."""
        cut_graphs(self._modules)
        for parameter in self._model.parameters():
            parameter.grad = None

    def gradient(self, batch: Any, *, first: bool) -> list[float]:
        """The gradient of a minibatch; its losses on all ranks."""
        if self.own is not None:
            loss = self.own(fresh(batch))
            given = loss.detach().double().reshape(1, 1) if isinstance(loss, Tensor) and loss.numel() == 1 else None
            return [] if given is None else gather_minibatches(given)[0]
        if first:
            self._optimizer.zero_grad()
        cut_graphs(self._modules)  # as loops do that carry a state from step to step
        loss = check_loss(self._loss_fn(self._model, fresh(batch)))
        losses = gather_minibatches(loss.detach().double().reshape(1, 1))[0]
        # The same on every rank, so that all enter the backward pass or none, and all raise or none.
        has_gradient = bool(smallest(int(loss.requires_grad)))
        self._has_gradient = self._has_gradient or has_gradient
        if all(map(math.isfinite, losses)) and has_gradient:
            (loss / self._each).backward()  # type: ignore[no-untyped-call]
        return losses

    def update(self, losses: Sequence[float]) -> None:
        """The optimizer's step, where all of its losses and gradients are finite."""
        if all(map(math.isfinite, losses)):
            moved = held_tensors(self._optimizer)
            if self._clip is not None:
                torch.nn.utils.clip_grad_norm_(moved, self._clip)
            if all(bool(torch.isfinite(p.grad).all()) for p in moved if p.grad is not None and not p.grad.is_sparse):
                self._optimizer.step()

    def check_gradient(self, minibatches: int) -> None:
        """Minibatches without a gradient are left out, but a loss that never has one is a mistake.

        Raises:
            ValueError: none of the run's ``minibatches`` had one.
        """
        if self.own is None and not self._has_gradient:
            raise ValueError(
                f"loss_fn(model, batch) has no gradient on any of {minibatches} minibatches: it is detached, or "
                "computed under torch.no_grad(). Return the loss that training calls backward() on."
            )


@dataclass
class Calls:
    """Of the optimizer's ``step``, so far."""

    count: int = 0

    def check(self, minibatches: int) -> None:
        """Whether there were any.

        Raises:
            ValueError: none in so many ``minibatches``.
        """
        if minibatches >= STALLED and self.count == 0:
            raise ValueError(
                f"{minibatches} minibatches of a short run led to no step of the optimizer. A train_step must do "
                "forward pass, backward pass and optimizer.step() of the optimizer that find_peak is given; without "
                "one, no minibatch had a finite loss and gradient."
            )


@contextlib.contextmanager
def counted(optimizer: Optimizer) -> Iterator[Calls]:
    """Counts the optimizer's steps inside."""
    calls = Calls()

    def count(*_: Any) -> None:
        calls.count += 1

    handle = optimizer.register_step_post_hook(count)
    try:
        yield calls
    finally:
        handle.remove()
