"""The benchmark's pictures: regrets, and what a sweep's runs buy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from autolr.report.drawing import BLUE, INK, ORANGE, RED, new_figure, style, to_png
from autolr_lab.benchmark.methods import LABELS_OF_OURS
from autolr_lab.benchmark.regret import Result, expected_best
from autolr_lab.benchmark.search import SWEEP
from autolr_lab.benchmark.tasks import Metric

COLUMNS = 3


@dataclass(frozen=True)
class Drawn:
    """What the pictures show of a task."""

    name: str
    metric: Metric
    results: Sequence[Result]
    grid: Sequence[float]  # regret of each run of the sweep's grid, with the first seed
    trials: Sequence[float]  # of Optuna's, in their order; empty where it was not run


def draw_regrets(tasks: Sequence[Drawn]) -> bytes:
    """A panel a task, a line a method: its regret and the 95 % interval, the best on top."""
    most = max(len(task.results) for task in tasks)
    figure, panels = _panels(len(tasks), width=3.8, height=0.4 + 0.17 * most)
    for axes, task in zip(panels, tasks, strict=True):
        shown = [s for s in task.results if s.regret is not None]
        for place, s in enumerate(reversed(shown)):
            assert s.regret is not None
            colour = _colour(s.label)
            if math.isfinite(s.regret.mean):
                half = 0.0 if math.isnan(s.regret.half) else s.regret.half
                axes.errorbar(s.regret.mean, place, xerr=half, color=colour, marker="o", markersize=4, linewidth=1)
            else:
                axes.annotate("diverged", (0.98, place), xycoords=("axes fraction", "data"), ha="right", fontsize=7)
        axes.set_yticks(range(len(shown)), [s.label for s in reversed(shown)], fontsize=7)
        axes.set_xscale("symlog", linthresh=_near([s.regret.mean for s in shown if s.regret is not None]))
        axes.axvline(0, color=BLUE, linewidth=0.8)
        axes.set(title=task.name, xlabel=f"regret, {task.metric.unit}: worse to the right")
        style(axes)
        axes.tick_params(axis="y", labelsize=7)
    return to_png(figure)


def draw_costs(tasks: Sequence[Drawn]) -> bytes:
    """A panel a task: the regret that so many runs of a sweep buy, beside every method's single run.

    The sweep's curve is the best of so many of its grid's points, drawn at random, in expectation.
    """
    figure, panels = _panels(len(tasks))
    for axes, task in zip(panels, tasks, strict=True):
        numbers = np.arange(1, len(task.grid) + 1)
        axes.plot(numbers, expected_best(task.grid), color=BLUE, linewidth=1.5, label="sweep, best so far")
        if task.trials:
            best = np.minimum.accumulate(np.asarray(task.trials))
            axes.plot(np.arange(1, len(best) + 1), best, color=ORANGE, linewidth=1.5, label="Optuna, best so far")
        for s in task.results:
            if s.regret is not None and math.isfinite(s.regret.mean) and s.cost < 1.5:
                ours = s.label in LABELS_OF_OURS
                axes.plot(
                    s.cost, s.regret.mean, color=RED if ours else INK, marker=">" if ours else "_", linestyle="none",
                    markersize=7, label="ours" if ours else "another method",
                )  # fmt: skip
        axes.set_xscale("log")
        axes.set(title=task.name, xlabel="cost, in plain runs")
        _regret_axis(axes, task.metric, [s.regret.mean for s in task.results if s.regret is not None])
    return _finished(figure, panels)


def _panels(count: int, *, width: float = 3.6, height: float = 3.0) -> tuple[Figure, list[Axes]]:
    columns = min(COLUMNS, count)
    rows = -(-count // columns)
    figure = new_figure(columns, rows, width=width, height=height)
    made = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in made[count:]:
        axes.remove()
    return figure, made[:count]


def _colour(label: str) -> str:
    return RED if label in LABELS_OF_OURS else BLUE if label == SWEEP else INK


def _near(regrets: Sequence[float]) -> float:
    """Where a scale goes from linear, about 0, to logarithmic: some methods are lost far out.

    A power of ten: ticks within the linear part would lie on each other.
    """
    finite = sorted(abs(r) for r in regrets if math.isfinite(r))
    middle = finite[len(finite) // 2] if finite else 1.0
    return float(10.0 ** round(math.log10(max(middle, 1e-9))))


def _regret_axis(axes: Axes, metric: Metric, regrets: Sequence[float]) -> None:
    axes.set_yscale("symlog", linthresh=_near(regrets))
    axes.axhline(0, color=BLUE, linewidth=0.6)
    axes.set_ylabel(f"regret, {metric.unit}")
    style(axes)


def _finished(figure: Figure, panels: Sequence[Axes]) -> bytes:
    handles = {label: h for axes in panels for h, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    if handles:
        columns = min(4, len(handles))
        figure.legend(
            list(handles.values()), list(handles), loc="outside lower center", ncols=columns, fontsize=7, frameon=False
        )
    return to_png(figure)
