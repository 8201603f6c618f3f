"""What moves the parameters after each backward pass of a training run, and what that costs beside the training.

An optimizer with a schedule is the plain case. Methods that go through a minibatch more than once, average the weights,
or pass over data before they evaluate are `Stepper`s of their own: AutoLR here, others in `autolr_lab.baselines`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from autolr.numerics.cost import FORWARDS_PER_STEP
from autolr.measure.forward_state import ForwardState
from autolr.measure.probe import LossFunction
from autolr.measure.rng import random_state, set_random_state
from autolr_lab.baselines.schedules import Schedule
from autolr.optimizer import AutoLR


class Again:
    """A minibatch once more, as the training pass sees it: the same dropout masks. To be made before that pass.

    Running statistics and generators are left as the training pass left them.
    """

    def __init__(self, model: nn.Module, loss: LossFunction, batch: Any) -> None:
        self._model, self._loss, self._batch = model, loss, batch
        self._before = random_state()
        self.forwards = 0  # spent, in forward equivalents

    def loss(self) -> float:
        """At the parameters as they are now: one forward pass."""
        self.forwards += 1
        with torch.no_grad(), self._as_before():
            return float(self._loss(self._model, self._batch).double())

    def gradients(self) -> float:
        """Writes the gradients at the parameters as they are now in place of those that are there; three forwards."""
        self.forwards += FORWARDS_PER_STEP
        for parameter in self._model.parameters():
            parameter.grad = None
        with self._as_before():
            loss = self._loss(self._model, self._batch)
            loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach().double())

    @contextlib.contextmanager
    def _as_before(self) -> Iterator[None]:
        after, state = random_state(), ForwardState(self._model)
        set_random_state(self._before)
        try:
            yield
        finally:
            state.restore()
            set_random_state(after)


class Stepper:
    """An optimizer, and the schedule that moves its rate.

    Args:
        optimizer: takes the steps.
        schedule: moves the rate after each; None where the optimizer does so itself, or nothing does.
    """

    goes_again = False  # whether `step` needs the minibatch `Again`
    carried: tuple[str, ...] = ()  # attributes that a checkpoint has to hold beside the optimizer's and the schedule's
    reserve = 0  # [forwards] what the last evaluation costs, beside the evaluation
    least = 0  # [forwards] what a step costs at least, beside the training's
    clips = True  # whether gradients are clipped, in a workload that does so; no where they are held against losses

    def __init__(self, optimizer: Optimizer, schedule: Schedule | None = None) -> None:
        self.optimizer, self.schedule = optimizer, schedule
        self.spent = 0

    @property
    def forwards(self) -> int:
        """Forward equivalents spent so far beside one forward and one backward pass a step."""
        return self.spent

    @property
    def rate(self) -> float:
        """The rate of the next step, the largest over the groups."""
        return max(float(group["lr"]) for group in self.optimizer.param_groups)

    @property
    def phase(self) -> str:
        """Where it is, for a progress bar."""
        return ""

    def step(self, loss: Tensor, again: Again | None) -> None:  # noqa: ARG002 - for those that need them
        """Move the parameters; their gradients are there.

        Args:
            loss: of the minibatch, before the step.
            again: the minibatch once more, where `goes_again`.
        """
        self.optimizer.step()
        if self.schedule is not None:
            self.schedule.step()

    def epoch(self, loss: float) -> None:
        """After an epoch, with the loss on the data that is evaluated."""
        if self.schedule is not None:
            self.schedule.epoch(loss)

    @contextlib.contextmanager
    def evaluation(self, model: nn.Module) -> Iterator[nn.Module]:
        """The model to evaluate, or to keep, inside; training goes on afterwards."""
        yield model

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values, for a checkpoint."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "schedule": None if self.schedule is None else self.schedule.state_dict(),
            "spent": self.spent,
            "carried": {name: getattr(self, name) for name in self.carried},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""
        self.optimizer.load_state_dict(state["optimizer"])
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])
        self.spent = state["spent"]
        for name, value in state["carried"].items():
            setattr(self, name, self._here(value))

    def _here(self, value: Any) -> Any:
        """With its tensors where the parameters are: a checkpoint is read to the host."""
        if isinstance(value, Tensor):
            return value.to(self.optimizer.param_groups[0]["params"][0].device)
        if isinstance(value, dict):
            return {name: self._here(held) for name, held in value.items()}
        return [self._here(held) for held in value] if isinstance(value, list) else value


class Tuned(Stepper):
    """AutoLR: it moves the rate itself and keeps account of its looks."""

    optimizer: AutoLR

    @property
    def forwards(self) -> int:
        """Of looks, drop-rate checks and snapshots; a discarded step is among the steps already."""
        cost = self.optimizer.cost
        return cost.forward_equivalents - FORWARDS_PER_STEP * cost.discarded_steps

    @property
    def phase(self) -> str:
        """Its policy's."""
        return self.optimizer.phase
