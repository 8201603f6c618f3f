r"""What the looks asked for over a run: :math:`\epsilon_{min}` in multiples of the learning rate, with its standard error."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from autolr.report.drawing import BLUE, INK, ORANGE, Array, array, new_figure, style
from autolr.trace import Record

USUAL = 85  # percentile of |eps_min / LR| that the axis is made for
ROOM = 1.5  # times that much is drawn
LEAST = 1.25  # the axis always shows -1, where the step should not have been taken
COLOURS = {"raise": BLUE, "lower": ORANGE, "keep": INK}


def draw_advice(looks: Sequence[Record]) -> Figure | None:
    """One point a look that has a minimum, or None where no look has one. What the axis leaves out sits at its edge."""
    looks = [look for look in looks if look.eps_min is not None and look.lr_before > 0]
    if not looks:
        return None
    figure = new_figure(1, 1, width=9.0, height=2.4)
    axes = figure.subplots()
    rates = array(look.lr_before for look in looks)
    asked, stderr = (
        array(look.eps_min for look in looks) / rates,
        array(look.eps_min_stderr for look in looks) / rates,
    )
    limit = axis_limit(asked)
    steps = array(look.step for look in looks)
    for verdict, colour in COLOURS.items():
        chosen = np.array([look.verdict == verdict for look in looks])
        if chosen.any():
            _draw_points(axes, steps[chosen], asked[chosen], stderr[chosen], limit, colour, verdict)
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.axhline(-1, color=INK, linewidth=0.8, linestyle=":")
    axes.set_ylim(-limit * 1.08, limit * 1.08)
    axes.set_xlabel("step")
    axes.set_ylabel("ε_min / LR")
    style(axes)
    figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return figure


def axis_limit(asked: Array) -> float:
    """How far the axis goes to either side: a few wild looks must not flatten the others."""
    sizes = np.abs(asked)
    return max(LEAST, min(float(sizes.max()), ROOM * float(np.percentile(sizes, USUAL))))


def _draw_points(
    axes: Axes, steps: Array, asked: Array, stderr: Array, limit: float, colour: str, verdict: str
) -> None:
    inside = np.abs(asked) <= limit
    axes.errorbar(steps[inside], asked[inside], yerr=stderr[inside], fmt="o", color=colour, markersize=4.5,
                  elinewidth=1.0, capsize=2.5, label=f"then: {verdict}")  # fmt: skip
    for outside, marker in ((asked > limit, "^"), (asked < -limit, "v")):
        axes.plot(steps[outside], np.clip(asked[outside], -limit, limit), marker, color=colour, markersize=7,
                  markerfacecolor="none", clip_on=False)  # fmt: skip
