"""The search for the peak: how the short runs of each length ended, by their peak rate, and the peak chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes

from autolr.policies.wording import number
from autolr.report.drawing import BLUE, GREEN, INK, ORANGE, RED, plain_log, style
from autolr.report.search_data import ends_of, interval, lowered_by, start_loss

LENGTHS = ((BLUE, "o", "-"), (ORANGE, "s", "--"), (GREEN, "D", "-."))  # colour, marker and line; the shortest first
ROOM = 0.4  # above the start's loss, as a share of what lies between it and the lowest


def draw_search_on(axes: Axes, search: Mapping[str, Any]) -> None:
    """Draw on axes that are there: a marker a short run, a line through those of a length, one at the peak."""
    ends = ends_of(search)
    losses = [loss for runs in ends.values() for _, loss in runs if loss is not None]
    told = start_loss(search)
    start = max(losses, default=1.0) if told is None else told
    low = min([start, *losses])
    top = start + ROOM * (start - low or 1.0)
    for (length, runs), (colour, marker, line) in zip(ends.items(), LENGTHS, strict=False):
        inside = [(rate, loss) for rate, loss in runs if loss is not None and loss < top]
        axes.plot(*zip(*inside, strict=True) if inside else ([], []), line, marker=marker, color=colour, markersize=7,
                  linewidth=1.4, label=f"runs of {length:,} steps")  # fmt: skip
        above = [rate for rate, loss in runs if loss is None or loss >= top]
        axes.plot(above, [top] * len(above), "^", color=colour, markersize=9, markerfacecolor="none", clip_on=False)
    axes.axhline(start, color=INK, linestyle=":", linewidth=1.2, label="loss at the start")
    factor = lowered_by(search)
    why = f", {factor:.2g} times lower: first steps are shorter" if factor > 1 else ""
    axes.axvline(search["lr"], color=RED, linewidth=2, label=f"chosen peak {number(search['lr'])}{why}")
    low_end, high_end = interval(search)
    if low_end < high_end:  # else nothing could be told
        said = f"where the best peak is believed: {number(low_end)} to {number(high_end)}"
        axes.axvspan(low_end, high_end, color=RED, alpha=0.1, linewidth=0, label=said)
    rates = [search["lr"], *(rate for runs in ends.values() for rate, _ in runs)]
    axes.set(xscale="log", ylim=(low - 0.08 * (top - low), top), xlabel="peak learning rate",
             ylabel="loss at the end of a short run")  # fmt: skip
    plain_log(axes.xaxis, min(rates), 1.01 * max(rates))
    style(axes)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, fontsize=10, frameon=False)
