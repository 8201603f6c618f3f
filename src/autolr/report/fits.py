r"""Probes: losses along a step, the parabola through them and its minimum, as in the paper's Figures 1, 5 and 6.

Paper -> picture: orange triangles are the samples of the fit, green squares were kept from it, the blue line is
:math:`k_0 + k_1 \epsilon + k_2 \epsilon^2`, the red circle its minimum, the purple triangle the true loss there, where
it was sampled. The dashed line, not in the paper, is the change that was made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from autolr.policies.wording import number
from autolr.report.drawing import BLUE, GREEN, INK, ORANGE, PURPLE, RED, array, new_figure, style
from autolr.report.findings import probe_finding
from autolr.report.training_record import outcome
from autolr.runtime.decision_log import DecisionRecord

AT_MOST = 9
COLUMNS = 3
NEAR = 0.5  # of the sampled range: a minimum so far outside still stretches the axis
PAD = 0.07
AT_MINIMUM: dict[str, Any] = {"marker": "^", "color": PURPLE, "markersize": 6}


def choose(probes: Sequence[DecisionRecord], at_most: int = AT_MOST) -> list[DecisionRecord]:
    """At most so many, evenly spread, the first and the last among them."""
    if len(probes) <= at_most:
        return list(probes)
    return [probes[round(i)] for i in np.linspace(0, len(probes) - 1, at_most)]


def draw_fits(probes: Sequence[DecisionRecord]) -> Figure:
    """One panel a probe; at least one probe is needed."""
    columns = min(COLUMNS, len(probes))
    rows = math.ceil(len(probes) / columns)
    figure = new_figure(columns, rows, width=3.7 if columns > 1 else 5.5, height=2.9)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for i, (axes, probe) in enumerate(zip(grid, probes, strict=False)):
        _draw_probe(axes, probe)
        if i + columns >= len(probes):
            axes.set_xlabel(r"$\epsilon$, in multiples of the step")
        if i % columns == 0:
            axes.set_ylabel("loss")
        style(axes)
    for axes in grid[len(probes) :]:
        axes.set_axis_off()
    handles = _legend(
        kept=any(probe.validation_eps for probe in probes),
        at_minimum=any(probe.eps_min in probe.validation_eps for probe in probes),
    )
    figure.legend(handles=handles, loc="outside lower center", ncols=max(2, columns), fontsize=10, frameon=False)
    return figure


def _draw_probe(axes: Axes, probe: DecisionRecord) -> None:
    low, high = _drawn_range(probe)
    if probe.k0 is not None and probe.k1 is not None and probe.k2 is not None:
        x = np.linspace(low, high, 200)
        axes.plot(x, probe.k0 + probe.k1 * x + probe.k2 * x**2, color=BLUE, linewidth=1.5)
        if probe.eps_min is not None and low <= probe.eps_min <= high:
            bottom = probe.k0 + probe.k1 * probe.eps_min + probe.k2 * probe.eps_min**2
            axes.plot(probe.eps_min, bottom, "o", color=RED, markersize=8, zorder=3)
    for eps, loss in zip(probe.validation_eps, probe.validation_losses, strict=True):
        at_minimum = eps == probe.eps_min
        look: dict[str, Any] = AT_MINIMUM if at_minimum else {"marker": "s", "color": GREEN, "markersize": 5}
        axes.plot(array([eps]), array([loss]), linestyle="", zorder=6 if at_minimum else 4, **look)
    axes.plot(array(probe.eps), array(probe.losses), "^", color=ORANGE, markersize=7, zorder=5)
    change = probe.lr_after / probe.lr_before - 1 if probe.lr_before else 0.0
    if change and low <= change <= high:
        axes.axvline(change, color=INK, linestyle="--", linewidth=1.0, zorder=1)
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.set_title(f"step {probe.step:,}, LR {number(probe.lr_before)}: {outcome(probe)}\n{probe_finding(probe)}")


def _drawn_range(probe: DecisionRecord) -> tuple[float, float]:
    """From the first to the last sample, and as far as the minimum where that is near."""
    sampled = [*probe.eps, *probe.validation_eps]
    low, high = min(sampled), max(sampled)
    reach = NEAR * (high - low)
    if probe.eps_min is not None and low - reach <= probe.eps_min <= high + reach:
        low, high = min(low, probe.eps_min), max(high, probe.eps_min)
    pad = PAD * (high - low) or 1.0  # 1: a log from elsewhere may have one sample
    return low - pad, high + pad


def _legend(*, kept: bool, at_minimum: bool) -> list[Line2D]:
    handles = [Line2D([], [], color=ORANGE, marker="^", linestyle="", label="samples of the fit")]
    if kept:
        handles.append(Line2D([], [], color=GREEN, marker="s", linestyle="", label="samples kept from the fit"))
    if at_minimum:
        handles.append(Line2D([], [], linestyle="", label="true loss at the minimum", **AT_MINIMUM))
    return [
        *handles,
        Line2D([], [], color=BLUE, label="fitted parabola"),
        Line2D([], [], color=RED, marker="o", linestyle="", markersize=8, label="its minimum"),
        Line2D([], [], color=INK, linestyle="--", linewidth=1.0, label="change that was made"),
    ]
