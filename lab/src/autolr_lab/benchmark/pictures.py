"""The benchmark's pictures: regrets, what a sweep's runs buy, seed rates, and performance profiles."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from autolr.report.drawing import BLUE, INK, ORANGE, OTHERS, RED, new_figure, style, to_png
from autolr_lab.benchmark.methods import LABELS_OF_OURS
from autolr_lab.benchmark.regret import Result, expected_best
from autolr_lab.benchmark.search import SWEEP
from autolr_lab.benchmark.tasks import Metric

COLUMNS = 3
FAINT, NAMED = "#c8c8c8", 6  # methods of a profile that are named beside ours and the sweep
MARKS = ("o", "s", "^", "v", "D", "P", "X", "<", ">", "*")


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


def draw_rates(tasks: Sequence[Drawn], rates: Sequence[float]) -> bytes:
    """A panel a task: the regret of each method that takes a rate, from rates four decades apart."""
    figure, panels = _panels(len(tasks))
    labels = dict.fromkeys(s.label for task in tasks for s in task.results if s.from_rates)
    for axes, task in zip(panels, tasks, strict=True):
        seen = []
        for number, label in enumerate(labels):
            heights = next((s.from_rates for s in task.results if s.label == label), ())
            if heights:
                finite = [v if math.isfinite(v) else math.nan for v in heights]
                ours = label in LABELS_OF_OURS
                axes.plot(
                    rates, finite, color=RED if ours else OTHERS[number % len(OTHERS)], label=label, markersize=4,
                    marker=MARKS[number % len(MARKS)], linewidth=1.8 if ours else 0.9,
                    linestyle="--" if "," in label else "-",
                )  # fmt: skip
                seen += finite
        axes.set_xscale("log")
        axes.set(title=task.name, xlabel="seed rate, times the method's own")
        _regret_axis(axes, task.metric, seen)
    return _finished(figure, panels)


def draw_profile(curves: Mapping[str, Sequence[tuple[float, float]]]) -> bytes:
    """The share of problems in which each method is within tau of the cheapest to the tuned staircase's quality."""
    figure = new_figure(1, 1, width=6.5, height=4.0)
    axes = figure.subplots()
    last = max((tau for curve in curves.values() for tau, _ in curve), default=1.0) * 1.05
    order = sorted(curves, key=lambda name: -curves[name][-1][1] if curves[name] else 0.0)
    others = [label for label in order if _colour(label) == INK]
    for label in order:
        end = curves[label][-1][1] if curves[label] else 0.0
        curve = [(1.0, 0.0), *curves[label], (last, end)]
        named = label not in others[NAMED:]
        colour = OTHERS[others.index(label) % len(OTHERS)] if label in others[:NAMED] else _colour(label)
        axes.step(
            [tau for tau, _ in curve], [share for _, share in curve], where="post",
            color=colour if named else FAINT, label=label if named else "the others", zorder=3 if named else 1,
            linewidth=2.2 if label in LABELS_OF_OURS else 1.1, linestyle="--" if "," in label else "-",
        )  # fmt: skip
    axes.set(xlabel="tau: cost, in that of the cheapest", ylabel="share of problems", ylim=(-0.02, 1.02))
    axes.set_xlim(0.98, last)
    style(axes)
    return _finished(figure, [axes])


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
