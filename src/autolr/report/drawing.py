"""What all pictures share: size, colours, axes, and how one becomes a PNG."""

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

from autolr.runtime.quiet import quiet

Array = npt.NDArray[np.float64]

DPI = 120
# Told apart by the colour-blind (Okabe and Ito), and of contrast 3 or more on white.
BLUE, ORANGE, GREEN, RED, PURPLE = "#0072b2", "#d55e00", "#009e73", "#a50026", "#aa4499"
OTHERS = (GREEN, PURPLE, "#8c564b", "#6a6a00", "#56698f", "#7f7f7f")
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
    with quiet("Glyph .* missing"):  # a name in a script that the font has not: boxes
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def to_svg(figure: Figure) -> str:
    """The figure as an SVG element, to stand in a page of HTML."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def style(axes: Axes) -> None:
    """A light grid and no box."""
    axes.grid(color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=10, colors=INK)
    axes.title.set_fontsize(11)
    axes.xaxis.label.set_fontsize(11)
    axes.yaxis.label.set_fontsize(11)


def array(values: Iterable[Any]) -> Array:
    """Floats; NaN, which no plot draws, where a log has null."""
    return np.array([math.nan if v is None else float(v) for v in values], dtype=np.float64)


def plain_log(axis: Any, low: float, high: float) -> None:
    """Ticks with plain numbers, as many as a logarithmic axis from ``low`` to ``high`` has room for."""
    decades = math.log10(high / low)
    subs = (1.0, 2.0, 3.0, 5.0) if decades < 1 else (1.0, 2.0, 5.0) if decades < 2 else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def log_scale(axes: Axes, values: Array) -> None:
    """A logarithmic y axis, where ``values`` are positive and far enough apart for one."""
    seen = values[np.isfinite(values) & (values > 0)]
    if seen.size and seen.max() >= NARROW * seen.min():
        axes.set_yscale("log", nonpositive="mask")
        plain_log(axes.yaxis, seen.min(), seen.max())
