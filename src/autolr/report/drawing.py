"""What all pictures share: size, colours, number formats, and how one becomes a PNG."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

Array = npt.NDArray[np.float64]

DPI = 120
BLUE, ORANGE, GREEN, RED = "#1f77b4", "#ff7f0e", "#2ca02c", "#d62728"  # as the paper's figures name them
OTHERS = (GREEN, "#9467bd", "#8c564b", "#e377c2", "#17becf", "#bcbd22", "#7f7f7f")
INK, FAINT = "#333333", "#dddddd"
NARROW = 3.0  # a log axis over less than this ratio has hardly a tick to read it by


def new_figure(columns: int, rows: int, *, width: float = 3.3, height: float = 2.6) -> Figure:
    """An empty figure for ``columns`` x ``rows`` panels of a size in inches, with room for a legend below."""
    figure = Figure(figsize=(width * columns, height * rows + 0.6), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def to_png(figure: Figure) -> bytes:
    """The figure as a PNG; the same bytes for the same figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def style(axes: Axes) -> None:
    """A light grid, no box, small print."""
    axes.grid(color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8, colors=INK)
    axes.title.set_fontsize(9)
    axes.xaxis.label.set_fontsize(8)
    axes.yaxis.label.set_fontsize(8)


def array(values: Iterable[Any]) -> Array:
    """Floats; NaN, which no plot draws, where a log has null."""
    return np.array([math.nan if v is None else float(v) for v in values], dtype=np.float64)


def log_scale(axes: Axes, values: Array) -> None:
    """A logarithmic y axis with plain numbers, where ``values`` are positive and far enough apart for one."""
    seen = values[np.isfinite(values) & (values > 0)]
    if not seen.size or seen.max() < NARROW * seen.min():
        return
    axes.set_yscale("log", nonpositive="mask")
    decades = math.log10(seen.max() / seen.min())
    subs = (1.0, 2.0, 3.0, 5.0) if decades < 1 else (1.0, 2.0, 5.0) if decades < 2.5 else (1.0,)
    axes.yaxis.set_major_locator(LogLocator(subs=subs))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
