"""Learning rate, losses and evaluation metrics over the steps, with the decisions marked on the rate."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, PercentFormatter

from autolr.report.drawing import BLUE, GREEN, INK, ORANGE, OTHERS, RED, Array, array, log_scale, new_figure, style
from autolr.report.training_record import Training, outcome
from autolr.report.words import label

LineStyle = dict[str, Any]

MARKS = {  # decision -> marker and colour
    "peak found": ("*", GREEN),
    "raised": ("^", INK),
    "lowered": ("v", INK),
    "rolled back": ("X", RED),
    "kept": (".", "#888888"),
}
FINE = {"train_loss": "loss"}  # drawn thin behind its mean
ENDS = 0.02, 0.1  # shares of a run at its two ends that do not make the rate's axis logarithmic: warm-up and decay
SPREAD = 20.0  # between the ends, what does


def draw_curves(trainings: Sequence[Training]) -> Figure:
    """Draw trainings over each other: a colour a name, and a panel for the rate, each loss and each metric."""
    metrics = list(dict.fromkeys(key for training in trainings for key in training.metrics))
    keys = {key for training in trainings for point in training.points for key in point}
    panels = ["lr", *(["train_loss"] if keys & {"loss", "train_loss"} else []), *metrics]
    figure = new_figure(1, len(panels), width=8.5, height=2.3)
    styles = line_styles(trainings)
    end = max(*(t.total_steps or t.last_step for t in trainings), 1)
    for axes, panel in zip(figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0], panels, strict=True):
        for training in trainings:
            (_draw_rate if panel == "lr" else _draw_metric)(axes, panel, training, styles[training.name])
        _scale(axes, panel, trainings)
        axes.set_title({"lr": "learning rate"}.get(panel, panel.replace("_", " ")), loc="left")
        axes.set_xlim(-0.015 * end, 1.02 * end)
        style(axes)
    axes.set_xlabel("optimizer steps")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
    handles = _legend(trainings, styles)
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=10, frameon=False, handlelength=3)
    return figure


def line_styles(trainings: Sequence[Training]) -> dict[str, LineStyle]:
    """By name: blue for the first that AutoLR tuned, orange for the first it did not; dashes beyond all colours."""
    tuned = {training.name: bool(training.records) for training in trainings}
    kinds = list(tuned.values())
    firsts = {kinds.index(kind): colour for kind, colour in ((True, BLUE), (False, ORANGE)) if kind in kinds}
    others = itertools.cycle(itertools.product(("-", "--", "-."), OTHERS))
    styles = [(("-", firsts[i]) if i in firsts else next(others)) for i in range(len(tuned))]
    return {name: {"linestyle": dash, "color": colour} for name, (dash, colour) in zip(tuned, styles, strict=True)}


def _draw_rate(axes: Axes, _: str, training: Training, line: LineStyle) -> None:
    if rates := training.rates():
        axes.plot(*_columns(rates), **line, linewidth=1.6)
    for kind, (marker, ink) in MARKS.items():
        marked = [r for r in training.records if outcome(r) == kind]
        at = [r.lr_before if kind == "rolled back" else r.lr_after for r in marked]
        edge = ink if marker == "." else "white"
        axes.plot([r.step for r in marked], at, marker, color=ink, markersize=13 if marker == "*" else 7,
                  markeredgecolor=edge, markeredgewidth=0.6, zorder=4)  # fmt: skip
    for before, after in itertools.pairwise(training.records):
        if before.phase != after.phase:
            axes.axvline(after.step, color=line["color"], linestyle=":", linewidth=1.2)


def _draw_metric(axes: Axes, panel: str, training: Training, line: LineStyle) -> None:
    points = training.curve(panel)
    if panel in FINE and (fine := training.curve(FINE[panel])):
        width, alpha = (0.8, 0.6) if points else (1.4, 1.0)
        axes.plot(*_columns(fine), **line, linewidth=width, alpha=alpha)
    if points:
        marker = "o" if len(points) < 40 else ""
        axes.plot(*_columns(points), **line, linewidth=1.8, marker=marker, markersize=3.5)


def _columns(points: Sequence[tuple[float, float | None]]) -> list[Array]:
    return [array(column) for column in zip(*points, strict=True)]


def _scale(axes: Axes, panel: str, trainings: Sequence[Training]) -> None:
    curves = [t.rates() if panel == "lr" else t.curve(panel) + t.curve(FINE.get(panel, panel)) for t in trainings]
    drawn = array(value for curve in curves for _, value in curve)
    if panel == "lr":
        _scale_rate(axes, trainings)
    elif panel.endswith(("loss", "perplexity")):
        log_scale(axes, drawn)
    elif panel.endswith(("accuracy", "acc")) and np.nanmax([0.0, *drawn]) <= 1:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    if not np.isfinite(drawn).any():
        axes.text(0.5, 0.5, "nothing finite was logged", transform=axes.transAxes, ha="center", color=INK)


def _scale_rate(axes: Axes, trainings: Sequence[Training]) -> None:
    """Logarithmic where the rate moves far between warm-up and decay, which would stretch such an axis without end."""
    kept = []
    for training in trainings:
        start, end = ENDS[0] * training.last_step, (1 - ENDS[1]) * training.last_step
        kept += [lr for step, lr in training.rates() if lr and lr > 0 and start <= step <= end]
    if kept and max(kept) > SPREAD * min(kept):
        log_scale(axes, array(kept))
        axes.set_ylim(bottom=min(kept) / 3)
    else:
        axes.set_ylim(bottom=0)


def _legend(trainings: Sequence[Training], styles: dict[str, LineStyle]) -> list[Line2D]:
    handles = [Line2D([], [], **line, linewidth=2.5, label=label(name)) for name, line in styles.items()]
    seen = {outcome(record) for training in trainings for record in training.records}
    for kind, (marker, ink) in MARKS.items():
        if kind in seen:
            handles.append(Line2D([], [], color=ink, marker=marker, linestyle="", markersize=9, label=kind))
    phases = [list(dict.fromkeys(record.phase for record in training.records)) for training in trainings]
    if changing := dict.fromkeys(label(" → ".join(names)) for names in phases if len(names) > 1):
        handles.append(Line2D([], [], color=INK, linestyle=":", label="; ".join(changing)))
    if any(training.curve("loss") and training.curve("train_loss") for training in trainings):
        handles.append(Line2D([], [], color=INK, linewidth=0.6, label="thin: loss of the last steps"))
    return handles
