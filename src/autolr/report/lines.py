"""The points of a curve: where a step lies on the x axis, the learning rate with its jumps, the mean of several."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from autolr.report.drawing import Array, array
from autolr_lab.training.runs import Run

TINY = 1e-9  # of x


@dataclass(frozen=True)
class Line:
    """Points of one curve."""

    x: Array
    y: Array

    def since(self, start: float) -> Line:
        """The part from ``start`` on."""
        late = self.x >= start
        return Line(self.x[late], self.y[late])


@dataclass(frozen=True)
class Ruler:
    """How steps become a position on the x axis."""

    unit: str
    steps: dict[int, float]  # batch size -> steps in one unit

    def place(self, run: Run, steps: Iterable[int]) -> Array:
        """Positions of ``steps``."""
        return array(steps) / self.steps[run.settings.batch_size]


def measure(runs: Sequence[Run]) -> Ruler:
    """Epochs where every run tells how long one is, or another of its batch size does; else steps."""
    known = {run.settings.batch_size: row["step"] / row["epoch"] for run in runs for row in run.epochs[:1]}
    sizes = {run.settings.batch_size for run in runs}
    return Ruler("epoch", known) if sizes <= known.keys() else Ruler("step", dict.fromkeys(sizes, 1.0))


def rate_line(run: Run, ruler: Ruler) -> Line:
    """The learning rate as logged every few steps, with the jumps of the decisions where they were taken."""
    points = [(row["step"], row["lr"]) for row in run.steps or run.epochs]
    points += [(d.step, lr) for d in run.decisions for lr in (d.lr_before, d.lr_after)]
    points.sort(key=lambda point: point[0])  # stable: before stays ahead of after
    return Line(ruler.place(run, [step for step, _ in points]), array(lr for _, lr in points))


def mean_line(lines: Sequence[Line]) -> Line:
    """The mean over the range that all lines cover; a gap in one is a gap in the mean."""
    covered = [line for line in lines if line.x.size]
    if not covered or len(covered) < len(lines):
        return Line(array([]), array([]))
    start, end = max(line.x[0] for line in covered), min(line.x[-1] for line in covered)
    x = np.unique(np.concatenate([line.x for line in covered]))
    # A jump has two points at one x: just before and just after, the mean keeps it a jump.
    x = np.unique(np.concatenate([x * (1 - TINY), x * (1 + TINY)]).clip(start, end))
    return Line(x, np.mean([np.interp(x, line.x, line.y) for line in covered], axis=0))
