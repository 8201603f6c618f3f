"""GeN, the generalized Newton method (Bu and Xu 2025): the rate from a parabola along the step, by its authors."""

from __future__ import annotations

import contextlib
import io
import itertools
import warnings
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from autolr.measure.rng import random_state, set_random_state
from autolr.numerics.cost import FORWARDS_PER_STEP
from autolr_lab.baselines.baseline import Baseline, TrainingRun
from autolr_lab.training.stepper import ReplayBatch, Stepper

LAZY = 8  # steps between parabolas: the paper's; the README asks for 4 or more
FORWARDS = 3  # of a parabola: at -1, 1 and 0 times the step


def steps_left(budget: int) -> int:
    """Steps that a budget of so many pays for, each eighth with its parabola.

    Example:
        >>> steps_left(900)
        800
    """
    return max(1, int(budget / (1 + FORWARDS / FORWARDS_PER_STEP / LAZY)))


class _Movable:
    """What the package calls inputs or targets: it asks them only to go to a device, and all is there already."""

    def __init__(self, held: Any) -> None:
        self.held = held

    def to(self, _: Any) -> Any:
        return self.held


class _Whole(nn.Module):
    """A model whose output is its loss."""

    def __init__(self, run: TrainingRun) -> None:
        super().__init__()
        self.model = run.model
        self._run = run

    def forward(self, batch: Any) -> Tensor:
        return self._run.loss(self.model, batch)


class Gen(Stepper):
    """Each eighth step: rate = 0.9 rate + 0.1 scale min(max(b / a, rate / 2), 2 rate), with scale = 1 - t / T.

    a x^2 / 2 - b x is the change of the loss of another minibatch at -rate, 0 and rate along the step; where it opens
    downwards or rises, the rate stays. The package takes the optimizer's step for a direction and goes back, so that
    averages in the optimizer's state see that gradient twice.
    """

    carried = ("_steps",)

    def __init__(self, run: TrainingRun) -> None:
        super().__init__(run.base())
        self._run, self._whole = run, _Whole(run)
        self._total = steps_left(run.total_steps) if run.budgeted else run.total_steps
        self._steps = 0
        self._drawn = self._draws()

    def _draws(self) -> Iterator[Any]:
        batches = self._run.batches()
        return itertools.chain.from_iterable(itertools.repeat(batches))

    def step(self, loss: Tensor, replay: ReplayBatch | None) -> None:
        self._steps += 1
        if self._steps % LAZY == 0:
            self._tune(1 - min(self._steps, self._total) / self._total)
        super().step(loss, replay)

    def _tune(self, scale: float) -> None:
        from GeN import lr_parabola

        batch = (_Movable(self._next()), _Movable(None))
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():  # it prints what it could not fit
            warnings.simplefilter("ignore")
            lr_parabola(
                self._whole, self.optimizer, criterion=lambda found, _: found, tr_iter=iter([batch]), device="",
                task="image_cls", scale=scale,
            )  # fmt: skip
        self.spent += FORWARDS

    def _next(self) -> Any:
        here = random_state()  # a loader may draw from training's generator
        batch = next(self._drawn)
        set_random_state(here)
        return batch

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._drawn = self._draws()
        for _ in range(self._steps // LAZY):
            self._next()


def _build(run: TrainingRun) -> Stepper:
    return Gen(run)


GEN = Baseline(
    name="gen", title="GeN", source="Bu and Xu, ICLR 2025, arXiv 2407.02772; the authors' package gen-optim",
    usage=(
        "`lr_parabola` before each eighth step (the paper's), from the optimizer's rate, `scale` falling from 1 to 0: "
        "their horizon-aware form."
    ),
    limits=(
        "A rate to begin with: it moves by a factor between 0.95 and 1.1 at each parabola. Where the fit fails, it "
        "halves the rate."
    ),
    build=_build, package="gen-optim", module="GeN", seeded=True,
)  # fmt: skip
