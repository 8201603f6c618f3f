r"""Looks: losses along a step, the parabola through them and its bottom, as in the paper's Figures 1, 5 and 6.

ExploreExploit -> picture: orange triangles are the samples of the fit, green ones were kept from it, the blue line is
:math:`k_0 + k_1 \epsilon + k_2 \epsilon^2`, the red circle its minimum. The dashed line, not in the paper, is the
change that was made. The paper's purple triangle, the true loss at the minimum, is not in the log.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from autolr.policies.wording import number
from autolr.report.drawing import BLUE, GREEN, INK, ORANGE, RED, array, new_figure, style
from autolr_lab.training.runs import Run
from autolr.runtime.decision_log import Record

AT_MOST = 9
COLUMNS = 3
NEAR = 0.5  # of the sampled range: a minimum so far outside still stretches the axis
PAD = 0.07


def looks_of(run: Run) -> list[Record]:
    """The decisions that sampled the loss along the step for a fit."""
    return [record for record in run.decisions if record.eps and record.observations]


def choose(looks: Sequence[Record], at_most: int = AT_MOST) -> list[Record]:
    """At most so many, evenly spread, the first and the last among them."""
    if len(looks) <= at_most:
        return list(looks)
    return [looks[round(i)] for i in np.linspace(0, len(looks) - 1, at_most)]


def draw_fits(looks: Sequence[Record]) -> Figure:
    """One panel a look; at least one look is needed."""
    columns = min(COLUMNS, len(looks))
    rows = math.ceil(len(looks) / columns)
    figure = new_figure(columns, rows, width=3.7 if columns > 1 else 5.0)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for i, (axes, look) in enumerate(zip(grid, looks, strict=False)):
        _draw_look(axes, look)
        if i // columns == rows - 1:
            axes.set_xlabel("$\\epsilon$, change of the LR")
        if i % columns == 0:
            axes.set_ylabel("loss")
        style(axes)
    for axes in grid[len(looks) :]:
        axes.set_axis_off()
    handles = _legend(any(look.validation_eps for look in looks))
    figure.legend(handles=handles, loc="outside lower center", ncols=max(2, 2 * columns - 1), fontsize=8, frameon=False)
    return figure


def drawn_range(look: Record) -> tuple[float, float]:
    """[lr] From the first to the last sample, and as far as the minimum where that is near."""
    sampled = [*look.eps, *look.validation_eps]
    low, high = min(sampled), max(sampled)
    reach = NEAR * (high - low)
    if look.eps_min is not None and low - reach <= look.eps_min <= high + reach:
        low, high = min(low, look.eps_min), max(high, look.eps_min)
    pad = PAD * (high - low)
    return low - pad, high + pad


def remark(look: Record) -> str | None:
    """What the panel has to say in words: there is no fit, no minimum, or it lies outside."""
    if look.k0 is None:
        return "no fit: a loss is not finite"
    if look.eps_min is None:
        return "the fit has no minimum"
    low, high = drawn_range(look)
    if look.eps_min < low:
        return f"← minimum at {number(look.eps_min, signed=True)}"
    return f"minimum at {number(look.eps_min, signed=True)} →" if look.eps_min > high else None


def _draw_look(axes: Axes, look: Record) -> None:
    low, high = drawn_range(look)
    if look.k0 is not None and look.k1 is not None and look.k2 is not None:
        x = np.linspace(low, high, 200)
        axes.plot(x, look.k0 + look.k1 * x + look.k2 * x**2, color=BLUE, linewidth=1.5)
        if look.eps_min is not None and low <= look.eps_min <= high:
            bottom = look.k0 + look.k1 * look.eps_min + look.k2 * look.eps_min**2
            axes.plot(look.eps_min, bottom, "o", color=RED, markersize=8, zorder=3)
    axes.plot(array(look.validation_eps), array(look.validation_losses), "^", color=GREEN, markersize=6, zorder=4)
    axes.plot(array(look.eps), array(look.losses), "^", color=ORANGE, markersize=7, zorder=5)
    change = look.lr_after - look.lr_before
    if change and low <= change <= high:
        axes.axvline(change, color=INK, linestyle="--", linewidth=1.0, zorder=1)
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_title(f"step {look.step}, LR {number(look.lr_before)}: {look.verdict}")
    _say(axes, look)


def _say(axes: Axes, look: Record) -> None:
    if (text := remark(look)) is None:
        return
    # A parabola falls towards its minimum: the corner above it is empty, and so is the ground below an arch.
    x, y, side = (0.03, 0.93, "left") if text.startswith("←") else (0.97, 0.93, "right")
    if not text.endswith("→") and side == "right":
        x, y, side = 0.5, 0.06, "center"
    axes.text(x, y, text, transform=axes.transAxes, ha=side, fontsize=8, color=RED, backgroundcolor="#ffffffcc")


def _legend(validation_eps: bool) -> list[Line2D]:
    handles = [Line2D([], [], color=ORANGE, marker="^", linestyle="", label="samples of the fit")]
    if validation_eps:
        handles.append(Line2D([], [], color=GREEN, marker="^", linestyle="", label="samples kept from the fit"))
    return [
        *handles,
        Line2D([], [], color=BLUE, label="fitted parabola"),
        Line2D([], [], color=RED, marker="o", linestyle="", markersize=8, label="its minimum"),
        Line2D([], [], color=INK, linestyle="--", linewidth=1.0, label="change of the LR that was made"),
    ]
