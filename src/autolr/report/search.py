"""The search of `Auto`: the loss along its first step, and where its trials ended, with the parabola through the best.

As the pictures of looks: orange triangles are samples, the blue line is the parabola, the red circle its minimum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from autolr.policies.trials import Trial
from autolr.policies.wording import number
from autolr.report.drawing import BLUE, INK, ORANGE, RED, new_figure, style
from autolr.trace import Record

GREY = "#aaaaaa"
FEW_TICKS = 300.0  # highest over lowest rate from which on a tick at each power of ten is enough
BEYOND = 1.5  # of the greatest gain along the first step: what is further above the start is cut off


@dataclass(frozen=True)
class Search:
    """What a log says of one."""

    first: Record  # the step that was looked along, and undone
    start: float  # loss where the trials began; NaN before it was seen
    lengths: Sequence[Sequence[Trial]]  # the trials by their length, the shortest first; infinite where one was lost
    peak: float | None  # [lr] that came of it; None in a run that was cut off before

    @property
    def trials(self) -> Sequence[Trial]:
        """The longest ones."""
        return self.lengths[-1]

    @property
    def shorter(self) -> Sequence[Trial]:
        """All others."""
        return [trial for trials in self.lengths[:-1] for trial in trials]

    @property
    def found(self) -> float | None:
        """[lr] that came of the shortest: the longer ones' first, or the peak."""
        longer = [trial for trials in self.lengths[1:] for trial in trials]
        return longer[0][0] if longer else self.peak


def search_of(decisions: Sequence[Record]) -> Search | None:
    """The search that the decisions tell of; None where there was none."""
    # Of several the last one: on the minibatch of those before, the loss was no number.
    first = next((record for record in reversed(decisions) if record.verdict == "undo"), None)
    if first is None:
        return None
    start, trial = math.nan, first.lr_after
    lengths: list[list[Trial]] = [[]]
    for record in decisions:
        if record.phase != "search":
            continue
        begun = [loss for eps, loss in zip(record.eps, record.losses, strict=True) if eps == -record.lr_before]
        if record.verdict == "look" and begun:
            start = math.nan if begun[0] is None else begun[0]
        if record.verdict in {"go back", "start over", "go on"}:
            end = math.inf if record.loss is None else record.loss
            lengths[-1].append((trial, end if end < start else math.inf))
            trial = record.lr_after
        if record.verdict == "start over":
            lengths.append([])
    over = any(record.verdict == "go on" for record in decisions)
    return Search(first, start, lengths, trial if over else None)


def draw_search(search: Search) -> Figure:
    """Two panels over the same rates: the first step, and the trials."""
    figure = new_figure(2, 1, width=4.6, height=2.9)
    left, right = figure.subplots(1, 2)
    _draw_first(left, search.first)
    _draw_trials(right, search)
    for axes, of in ((left, "LR of the step"), (right, "peak LR of the trial")):
        axes.set(xscale="log", xlabel=of)
        style(axes)
    low, high = right.get_xlim()
    right.xaxis.set_major_locator(LogLocator(subs=(1.0,) if high / low > FEW_TICKS else (1.0, 2.0, 5.0)))
    right.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: number(rate)))
    right.xaxis.set_minor_formatter(NullFormatter())
    handles = [
        Line2D([], [], color=ORANGE, marker="^", linestyle="", label="losses"),
        Line2D([], [], color=INK, linestyle=":", label="loss before"),
        Line2D([], [], color=INK, linestyle="--", linewidth=1.0, label="LR taken"),
    ]
    if _three(search):
        handles[2:2] = [
            Line2D([], [], color=BLUE, label="parabola through the best and its neighbours"),
            Line2D([], [], color=RED, marker="o", linestyle="", label="its minimum"),
        ]
    if search.shorter:
        handles.insert(1, Line2D([], [], color=GREY, marker="^", linestyle="", label="of shorter trials"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8, frameon=False)
    return figure


def _draw_first(axes: Axes, first: Record) -> None:
    """All decades along the first step; where they rise beyond the picture they are hollow, at its top."""
    at = {round(first.lr_before + eps, 12): loss for eps, loss in zip(first.eps, first.losses, strict=True)}
    here = at.pop(0.0)
    axes.set_title(f"along the first step, on one minibatch: {number(first.lr_after)} is tried first")
    if here is None:
        return
    known = {rate: loss for rate, loss in at.items() if loss is not None}
    gain = max((here - loss for loss in known.values()), default=0.0)
    top = here + BEYOND * (gain if gain > 0 else abs(here))
    axes.axhline(here, color=INK, linestyle=":")
    for rate in at:
        _mark(axes, rate, known.get(rate, math.inf), top)
    axes.axvline(first.lr_after, color=INK, linestyle="--", linewidth=1.0)
    axes.set_ylabel("loss")


def _draw_trials(axes: Axes, search: Search) -> None:
    """Those that ended above the start are hollow, at its height: how far above makes no difference."""
    count = len(search.trials)
    of_them = f"{count} trials" if not search.shorter else "the longer one" if count == 1 else f"{count} longer ones"
    told = "none is over yet" if search.peak is None else f"the peak is {number(search.peak)}"
    axes.set_title(f"where {of_them} ended: {told}")
    if not search.trials and not search.shorter:
        return
    axes.axhline(search.start, color=INK, linestyle=":")
    for rate, loss in search.shorter:
        _mark(axes, rate, loss, search.start, GREY)
    for rate, loss in search.trials:
        _mark(axes, rate, loss, search.start)
    if search.peak is not None:
        axes.axvline(search.peak, color=INK, linestyle="--", linewidth=1.0)
    if three := _three(search):
        _draw_parabola(axes, search.start, three)


def _three(search: Search) -> Sequence[Trial]:
    """The best of the shortest trials and its neighbours; none of them where what was found had been tried."""
    tried = sorted(search.lengths[0])
    if search.found is None or any(number(rate) == number(search.found) for rate, _ in tried):
        return []
    off = [abs(math.log(rate / search.found)) for rate, _ in tried]
    best = off.index(min(off))
    return tried[best - 1 : best + 2] if 0 < best < len(tried) - 1 else []


def _draw_parabola(axes: Axes, start: float, three: Sequence[Trial]) -> None:
    logs = np.log([rate for rate, _ in three])
    k2, k1, k0 = np.polyfit(logs, [min(loss, start) for _, loss in three], 2)
    x = np.linspace(logs[0], logs[-1], 100)
    axes.plot(np.exp(x), k0 + k1 * x + k2 * x**2, color=BLUE, linewidth=1.5)
    bottom = -k1 / (2 * k2) if k2 > 0 else math.nan
    if logs[0] <= bottom <= logs[-1]:
        axes.plot(math.exp(bottom), k0 + k1 * bottom + k2 * bottom**2, "o", color=RED, markersize=8, zorder=3)


def _mark(axes: Axes, rate: float, loss: float, top: float, colour: str = ORANGE) -> None:
    face = colour if loss < top else "none"
    axes.plot(rate, min(loss, top), "^", color=colour, markersize=7, markerfacecolor=face, zorder=5)
