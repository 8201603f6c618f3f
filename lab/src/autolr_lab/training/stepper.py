"""What moves the parameters after each backward pass, and what that costs beside training.

An optimizer with a schedule is the plain case. A method that goes through a minibatch more than once, averages the
weights, or passes over data before an evaluation is a `Stepper` of its own: AutoLR here, others in
`autolr_lab.baselines`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from autolr import AutoLR
from autolr.measure.evaluated import LossFunction
from autolr.measure.forward_state import ForwardState
from autolr.measure.rng import random_state, set_random_state

if TYPE_CHECKING:  # baselines are steppers themselves
    from autolr_lab.baselines.schedules import Schedule


class ReplayBatch:
    """A minibatch to go through again with the dropout masks of the training pass. Make it before that pass.

    Each replay puts running statistics and random generators back to where the training pass left them.
    """

    def __init__(self, model: nn.Module, loss: LossFunction, batch: Any) -> None:
        self._model, self._loss, self._batch = model, loss, batch
        self._before = random_state()

    def loss(self) -> float:
        """The loss at the present parameters: one forward pass."""
        with torch.no_grad(), self._as_before():
            return float(self._loss(self._model, self._batch).double())

    def gradients(self) -> float:
        """Replace the gradients by those at the present parameters; three forward equivalents."""
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
    """An optimizer and the schedule that moves its rate.

    Args:
        optimizer: takes the steps.
        schedule: moves the rate after each step; None where the optimizer does so itself, or nothing does.
    """

    replays = False  # whether `step` needs a `ReplayBatch`
    carried: tuple[str, ...] = ()  # attributes that a checkpoint needs beside the optimizer's and the schedule's state
    reserve = 0  # [forwards] what the last evaluation costs beside the evaluation itself
    least = 0  # [forwards] the least that a step costs beside training
    clips = True  # whether gradients are clipped where the workload does; not where they are compared with losses

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
        return ""

    def step(self, loss: Tensor, replay: ReplayBatch | None) -> None:  # noqa: ARG002 - for those that need them
        """Move the parameters, whose gradients are there.

        Args:
            loss: of the minibatch, before the step.
            replay: the minibatch once more, where `replays`.
        """
        self.optimizer.step()
        if self.schedule is not None:
            self.schedule.step()

    def epoch(self, loss: float) -> None:
        """After an epoch, with the loss on the evaluation data."""
        if self.schedule is not None:
            self.schedule.epoch(loss)

    @contextlib.contextmanager
    def evaluation(self, model: nn.Module) -> Iterator[nn.Module]:
        """The model to evaluate or to keep; training goes on afterwards."""
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
        """A checkpoint is read to the host: move its tensors to where the parameters are."""
        if isinstance(value, Tensor):
            return value.to(self.optimizer.param_groups[0]["params"][0].device)
        if isinstance(value, dict):
            return {name: self._here(held) for name, held in value.items()}
        return [self._here(held) for held in value] if isinstance(value, list) else value


class Tuned(Stepper):
    """AutoLR: it sets the rate itself and keeps account of what it spends."""

    optimizer: AutoLR

    @property
    def forwards(self) -> int:
        """Everything but discarded steps, which are among the run's steps already."""
        return self.optimizer.cost.beside_steps

    @property
    def phase(self) -> str:
        return self.optimizer.phase
