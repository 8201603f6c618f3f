r"""What the looks asked for over a run: :math:`\epsilon_{min}` in multiples of the LR, with its standard error."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from autolr.report.drawing import BLUE, GREEN, INK, ORANGE, RED, array, new_figure, style
from autolr.runtime.decision_log import Record

# Linear from -1, where the step should not have been taken, to 1, where it should have been twice as long;
# logarithmic beyond, since a look far below the right rate asks for a hundred times as much.
LINEAR = 1.0
LEAST, MOST = 2.0, 100.0  # how far the axis goes to either side
COLOURS = {
    "raise": BLUE,
    "lower": ORANGE,
    "keep": INK,
    "look": GREEN,
    "undo": ORANGE,
    "go back": ORANGE,
    "start over": ORANGE,
    "go on": BLUE,
    "roll back": RED,
}


def draw_advice(looks: Sequence[Record]) -> Figure | None:
    """One point a look; None where no look has a minimum. What lies beyond the axis is a triangle at its edge."""
    looks = [look for look in looks if look.eps_min is not None and look.lr_before > 0]
    if not looks:
        return None
    figure = new_figure(1, 1, width=9.0, height=2.6)
    axes = figure.subplots()
    limit = axis_limit(looks)
    for verdict in dict.fromkeys(look.verdict for look in looks):
        _draw_looks(axes, [look for look in looks if look.verdict == verdict], COLOURS[verdict], limit)
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.axhline(-1, color=INK, linewidth=0.8, linestyle=":")
    axes.set_yscale("symlog", linthresh=LINEAR)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_ylim(-1.6 * limit, 1.6 * limit)
    axes.set_xlim(0, 1.03 * max(look.step for look in looks))
    axes.set_xlabel("step")
    axes.set_ylabel(r"$\epsilon_\mathrm{min}$ / LR")
    style(axes)
    figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return figure


def asked(look: Record) -> float:
    """``eps_min`` in multiples of the learning rate."""
    assert look.eps_min is not None, "only looks with a minimum are drawn"
    return look.eps_min / look.lr_before


def axis_limit(looks: Sequence[Record]) -> float:
    """How far the axis goes to either side of 0."""
    return min(MOST, max(LEAST, *(abs(asked(look)) for look in looks)))


def _draw_looks(axes: Axes, looks: Sequence[Record], colour: str, limit: float) -> None:
    inside = [look for look in looks if abs(asked(look)) <= limit]
    stderr = array(look.eps_min_stderr for look in inside) / array(look.lr_before for look in inside)
    axes.errorbar(
        [look.step for look in inside],
        [asked(look) for look in inside],
        yerr=stderr,
        fmt="o",
        color=colour,
        markersize=4.5,
        elinewidth=1.0,
        capsize=2.5,
        label=f"verdict: {looks[0].verdict}",
    )
    for look in looks:
        if (value := asked(look)) and look not in inside:
            edge = float(np.clip(value, -limit, limit))
            axes.plot(look.step, edge, "^" if value > 0 else "v", color=colour, markersize=7, markerfacecolor="none")
