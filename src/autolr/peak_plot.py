"""The picture of a search: losses of the short runs over their rates, and the peak between them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from autolr.numerics.bracket import ShortRun
    from autolr.peak import Peak

COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c")


def draw_peak(peak: Peak, axes: Any = None) -> Any:
    """Draw on ``axes``, or on new ones, and return them.

    Raises:
        ImportError: matplotlib is not installed.
    """
    if axes is None:
        try:
            from matplotlib import pyplot
        except ImportError as error:
            raise ImportError(
                "Peak.plot() needs matplotlib, which is not installed: pip install matplotlib. The numbers are in "
                "Peak.runs and Peak.to_json()."
            ) from error
        _, axes = pyplot.subplots(layout="constrained")
    top = max([peak.start_loss, *(run.loss for run in peak.runs if not run.diverged)])
    for colour, length in zip(COLOURS, sorted({run.length for run in peak.runs}), strict=False):
        runs = sorted((run for run in peak.runs if run.length == length), key=lambda run: run.lr)
        alive = [run for run in runs if not run.diverged]
        axes.plot([r.lr for r in alive], [r.loss for r in alive], "o", color=colour, label=f"{length} steps")
        axes.plot([r.lr for r in runs if r.diverged], [top for r in runs if r.diverged], "x", color=colour)
        axes.plot(*_parabola(alive), color=colour, linewidth=1)
    axes.axhline(peak.start_loss, color="#999999", linewidth=0.8, linestyle=":", label="start")
    axes.axvline(peak.lr, color="#d62728", label=f"peak {peak.lr:.2g}, for {peak.total_steps} steps")
    if peak.fallback is None:
        axes.axvspan(peak.low, peak.high, color="#d62728", alpha=0.1, linewidth=0)
    axes.set(xscale="log", xlabel="peak rate", ylabel="loss at the end of a short run (x: diverged)")
    axes.legend()
    return axes


def _parabola(runs: list[ShortRun]) -> tuple[list[float], list[float]]:
    """The curve through the lowest run and its neighbours in log rate; empty where it has not two."""
    lowest = min(range(len(runs)), key=lambda i: runs[i].loss, default=0)
    near = runs[max(lowest - 1, 0) : lowest + 2]
    if len(near) < 3:
        return [], []
    x = [math.log(run.lr) for run in near]
    fine = np.linspace(x[0], x[-1], 50)
    fitted = np.polyval(np.polyfit(np.array(x) - x[1], [run.loss for run in near], 2), fine - x[1])
    return [math.exp(v) for v in fine], fitted.tolist()
