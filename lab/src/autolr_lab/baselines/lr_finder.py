"""A range test before training (Smith 2017), by torch-lr-finder; then the rate that it suggests."""

from __future__ import annotations

import contextlib
import functools
import io
import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from autolr.measure.rng import random_state, set_random_state
from autolr.numerics.cost import FORWARDS_PER_STEP
from autolr_lab.baselines.baseline import Baseline, TrainingRun, every
from autolr_lab.baselines.schedules import make_schedule
from autolr_lab.training.stepper import Stepper

START, END, STEPS = 1e-7, 100.0, 100  # the README's


class _Whole(nn.Module):
    """A model whose output is its loss: what the package calls inputs and labels is the minibatch here."""

    def __init__(self, run: TrainingRun) -> None:
        super().__init__()
        self.model = run.model
        self._run = run

    def forward(self, batch: Any) -> Tensor:
        return self._run.loss(self.model, batch)


@dataclass(frozen=True)
class RangeTest:
    """A range test's curve, and the rate where it falls most steeply."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]  # smoothed, as the package does
    rate: float


def suggested(run: TrainingRun) -> tuple[float, int]:
    """The rate that a range test suggests, and the steps that it took; raises as `range_test` does."""
    found = range_test(run)
    return found.rate, len(found.rates)


def range_test(run: TrainingRun) -> RangeTest:
    """Train with a rate that grows from step to step, until the loss diverges.

    Model and generators are as before afterwards.

    Raises:
        ValueError: the test's losses show no place where they fall.
    """
    from matplotlib.figure import Figure
    from torch_lr_finder import LRFinder, TrainDataLoaderIter

    class Minibatches(TrainDataLoaderIter):  # type: ignore[misc]
        def inputs_labels_from_batch(self, batch_data: Any) -> tuple[Any, Any]:
            return batch_data, ()

    here = random_state()
    finder = LRFinder(_Whole(run), run.base(START), lambda loss, _: loss, device=next(run.model.parameters()).device)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        finder.range_test(Minibatches(run.batches()), end_lr=END, num_iter=STEPS)
        try:
            found = finder.plot(ax=Figure().subplots(), suggest_lr=True)
        except RuntimeError as error:  # it diverged after a few steps
            found = error
    finder.reset()
    set_random_state(here)
    rate = float(found[1]) if isinstance(found, tuple) else math.nan
    rates, losses = (tuple(float(value) for value in finder.history[name]) for name in ("lr", "loss"))
    if not (math.isfinite(rate) and rate > 0):
        raise ValueError(
            f"The range test suggests no rate: {len(rates)} steps from {START:g} to {END:g}, got {found!r}."
        )
    return RangeTest(rates, losses, rate)


def _build(run: TrainingRun, schedule: str) -> Stepper:
    rate, steps = suggested(run)
    left = run.total_steps - steps if run.budgeted else run.total_steps
    optimizer = run.base(rate)
    made = Stepper(optimizer, make_schedule(schedule, optimizer, max(left, 1)))
    made.spent = FORWARDS_PER_STEP * steps
    return made


def _baseline(name: str, schedule: str, then: str) -> Baseline:
    return Baseline(
        name=name,
        title=f"Range test, {schedule}",
        source="Smith 2017, arXiv 1506.01186; the package torch-lr-finder",
        usage=f"100 steps from 1e-7 to 100, the steepest point as `plot(suggest_lr=True)` has it, then {then}.",
        limits=(
            "It trains for its answer, in steps that are thrown away. Beside a loss that is not a number it finds the "
            "steepest point, far too high."
        ),
        build=functools.partial(_build, schedule=schedule),
        package="torch-lr-finder",
        module="torch_lr_finder",
        rates=every(START),
    )


LR_FINDER = _baseline("lr-finder", "fixed", "that rate throughout")
LR_FINDER_ONE_CYCLE = _baseline("lr-finder-one-cycle", "one-cycle", "one-cycle to that peak")
