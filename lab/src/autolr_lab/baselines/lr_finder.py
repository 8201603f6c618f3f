"""A range test before training (Smith 2017), by torch-lr-finder; then the rate that it suggests."""

from __future__ import annotations

import contextlib
import io
import math
from typing import Any

from torch import Tensor, nn

from autolr.numerics.cost import FORWARDS_PER_STEP
from autolr_lab.training.optimizers import OPTIMIZERS
from autolr_lab.baselines.peer import ADAM, SGD, Peer, Task
from autolr.measure.rng import random_state, set_random_state
from autolr_lab.baselines.schedules import make_schedule
from autolr_lab.training.stepper import Stepper

START, END, STEPS = 1e-7, 100.0, 100  # the README's


class _Whole(nn.Module):
    """A model whose output is its loss: what the package calls inputs and labels is the minibatch here."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.model = task.model
        self._task = task

    def forward(self, batch: Any) -> Tensor:
        return self._task.loss(self._task.called, batch)


def suggested(task: Task) -> tuple[float, int]:
    """The rate where the smoothed loss falls most steeply, and the steps that the test took.

    Model and generators are as before afterwards.

    Raises:
        ValueError: the test's losses show no such place.
    """
    from matplotlib.figure import Figure
    from torch_lr_finder import LRFinder, TrainDataLoaderIter

    class Minibatches(TrainDataLoaderIter):  # type: ignore[misc]
        def inputs_labels_from_batch(self, batch_data: Any) -> tuple[Any, Any]:
            return batch_data, ()

    here = random_state()
    optimizer = OPTIMIZERS[task.optimizer](task.model.parameters(), START, **task.options)
    finder = LRFinder(_Whole(task), optimizer, lambda loss, _: loss, device=next(task.model.parameters()).device)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        finder.range_test(Minibatches(task.batches()), end_lr=END, num_iter=STEPS)
        try:
            found = finder.plot(ax=Figure().subplots(), suggest_lr=True)
        except RuntimeError as error:  # it diverged after a few steps
            found = error
    finder.reset()
    set_random_state(here)
    rate = float(found[1]) if isinstance(found, tuple) else math.nan
    steps = len(finder.history["lr"])
    if not (math.isfinite(rate) and rate > 0):
        raise ValueError(f"The range test suggests no rate: {steps} steps from {START:g} to {END:g}, got {found!r}.")
    return rate, steps


def _build(task: Task, schedule: str) -> Stepper:
    rate, steps = suggested(task)
    left = task.total_steps - steps if task.budgeted else task.total_steps
    optimizer = OPTIMIZERS[task.optimizer](task.model.parameters(), rate, **task.options)
    made = Stepper(optimizer, make_schedule(schedule, optimizer, max(left, 1)))
    made.spent = FORWARDS_PER_STEP * steps
    return made


def _fixed(task: Task) -> Stepper:
    return _build(task, "fixed")


def _one_cycle(task: Task) -> Stepper:
    return _build(task, "one-cycle")


def _peer(name: str, title: str, then: str, build: Any) -> Peer:
    return Peer(
        name=name,
        title=title,
        source="Smith 2017, arXiv 1506.01186; the package torch-lr-finder",
        usage=f"100 steps from 1e-7 to 100, the steepest point as `plot(suggest_lr=True)` has it, then {then}.",
        limits=(
            "It trains for its answer, in steps that are thrown away. Beside a loss that is not a number it finds the "
            "steepest point, far too high."
        ),
        build=build,
        package="torch-lr-finder",
        module="torch_lr_finder",
        rates=dict.fromkeys((*SGD, *ADAM), START),
    )


LR_FINDER = _peer("lr-finder", "Range test, fixed", "that rate throughout", _fixed)
LR_FINDER_ONE_CYCLE = _peer("lr-finder-one-cycle", "Range test, one-cycle", "one-cycle to that peak", _one_cycle)
