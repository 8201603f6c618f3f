"""Loss, test metrics and learning rate over a run, in the form of the paper's Figures 8 to 19.

The blue line is AutoLR, the orange one the baseline. A second row shows the later half with its own y range,
where the first epochs would hide it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from autolr.report.drawing import BLUE, INK, ORANGE, OTHERS, RED, Array, array, log_scale, new_figure, style
from autolr.report.groups import Group
from autolr.report.lines import Line, Ruler, mean_line, measure, rate_line
from autolr_lab.training.runs import Run

EPOCHS_TO_SPLIT = 10  # from so many epochs on, the later half has a row of its own
EPOCHS_FOR_A_CURVE = 3  # with fewer, the training loss is drawn from the steps
MARGIN = 0.03  # of the x axis, to the right of the last step
TAIL = 0.02  # the share of a run that a decay towards 0 may take without stretching the axis


def metrics_of(runs: Iterable[Run]) -> list[str]:
    """The metrics of evaluation that the runs have, in order of appearance."""
    keys = (key for run in runs for row in run.epochs[:1] for key in row if key.startswith(("test_", "valid_")))
    return list(dict.fromkeys(keys))


def draw_curves(groups: Sequence[Group]) -> Figure:
    """Draw runs of one workload and optimizer over each other: a colour a group, and a bold mean if it is many."""
    runs = [run for group in groups for run in group.runs]
    ruler = measure(runs)
    panels = ["train_loss", *metrics_of(runs), "lr"]
    split = max((len(run.epochs) for run in runs), default=0) >= EPOCHS_TO_SPLIT
    figure = new_figure(len(panels), 1 + split)
    grid = figure.subplots(1 + split, len(panels), squeeze=False)
    end = max((float(x) for run in runs for x in rate_line(run, ruler).x[-1:]), default=1.0)
    for row, start in zip(grid, [0.0, end / 2], strict=False):
        for axes, panel in zip(row, panels, strict=True):
            _draw_panel(axes, panel, groups, ruler, start)
            axes.set_xlim(start, end + MARGIN * (end - start))
            axes.set_xlabel(ruler.unit + (", later half" if start else ""))
            style(axes)
    settings = runs[0].settings
    figure.suptitle(f"{settings.workload}, {settings.optimizer}", fontsize=11)
    handles = _legend(groups)
    figure.legend(handles=handles, loc="outside lower center", ncols=max(1, len(panels) - 1), fontsize=8, frameon=False)
    return figure


def colours(groups: Sequence[Group]) -> list[str]:
    """Blue for the first AutoLR group, `Auto` or not, and orange for the first other one, as in the paper."""
    tuned = [group.runs[0].settings.schedule in {"autolr", "auto"} for group in groups]
    firsts = {tuned.index(kind): colour for kind, colour in ((True, BLUE), (False, ORANGE)) if kind in tuned}
    others = itertools.cycle(OTHERS)
    return [firsts.get(i) or next(others) for i in range(len(groups))]


def _draw_panel(axes: Axes, panel: str, groups: Sequence[Group], ruler: Ruler, start: float) -> None:
    fine = max((len(run.epochs) for group in groups for run in group.runs), default=0) < EPOCHS_FOR_A_CURVE
    line_of = _source(panel, ruler, fine)
    drawn: list[Line] = []
    for group, colour in zip(groups, colours(groups), strict=True):
        many = len(group.runs) > 1
        lines = [line_of(run).since(start) for run in group.runs]
        for line in lines:
            # A line of one point is no line: show the point.
            axes.plot(line.x, line.y, color=colour, linewidth=0.8 if many else 1.6, alpha=0.5 if many else 1.0,
                      marker="o" if line.x.size == 1 else "", markersize=4)  # fmt: skip
        if len(group.averaged) > 1:
            mean = mean_line([line_of(run) for run in group.averaged]).since(start)
            axes.plot(mean.x, mean.y, color=colour, linewidth=2.2)
        drawn += lines
        if panel == "lr":
            _mark_decisions(axes, group, colour, ruler, start)
    _finish_panel(axes, panel, drawn)


def _source(panel: str, ruler: Ruler, fine: bool) -> Callable[[Run], Line]:
    """What a panel draws for a run."""
    if panel == "lr":
        return lambda run: rate_line(run, ruler)
    if panel == "train_loss" and fine:
        return lambda run: Line(ruler.place(run, [r["step"] for r in run.steps]), array(r["loss"] for r in run.steps))
    return lambda run: Line(ruler.place(run, [r["step"] for r in run.epochs]), array(r.get(panel) for r in run.epochs))


def _finish_panel(axes: Axes, panel: str, lines: Sequence[Line]) -> None:
    axes.set_title(title(panel))
    values = np.concatenate([array([]), *(line.y for line in lines)])
    if panel == "lr":
        log_scale(axes, _without_tails(lines))
        _clip_tails(axes, lines)
    elif panel.endswith(("loss", "perplexity")):
        log_scale(axes, values)
    elif "accuracy" in panel:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    if not np.isfinite(values).any():
        axes.text(0.5, 0.5, "nothing logged yet", transform=axes.transAxes, ha="center", color=INK, fontsize=8)


def _without_tails(lines: Sequence[Line]) -> Array:
    kept = [line.y[line.x <= (1 - TAIL) * line.x[-1]] if line.x.size else line.y for line in lines]
    return np.concatenate([array([]), *kept])


def _clip_tails(axes: Axes, lines: Sequence[Line]) -> None:
    """A schedule that ends at 0 would stretch a log axis without end: the last steps may leave the picture."""
    values = _without_tails(lines)
    values = values[np.isfinite(values) & (values > 0)]
    if axes.get_yscale() == "log" and values.size:
        axes.set_ylim(bottom=values.min() / 1.3)


def _mark_decisions(axes: Axes, group: Group, colour: str, ruler: Ruler, start: float) -> None:
    for run in group.runs:
        rollbacks = [d for d in run.decisions if d.verdict == "roll back"]
        at = Line(ruler.place(run, [d.step for d in rollbacks]), array(d.lr_before for d in rollbacks)).since(start)
        axes.scatter(at.x, at.y, marker="X", s=34, color=RED, edgecolors="white", linewidths=0.6, zorder=4)
    changes = {float(x) for run in group.runs for x in ruler.place(run, [step for step, _ in phase_changes(run)])}
    for x in sorted(changes):
        if x >= start:
            axes.axvline(x, color=colour, linestyle=":", linewidth=1.2, alpha=0.8)


def phase_changes(run: Run) -> list[tuple[int, str]]:
    """The steps after which a decision was the first of a new phase, and from which phase to which."""
    return [(b.step, f"{a.phase} → {b.phase}") for a, b in itertools.pairwise(run.decisions) if a.phase != b.phase]


def _legend(groups: Sequence[Group]) -> list[Line2D]:
    handles = [
        Line2D([], [], color=colour, linewidth=2, label=_legend_text(group))
        for group, colour in zip(groups, colours(groups), strict=True)
    ]
    runs = [run for group in groups for run in group.runs]
    if any(d.verdict == "roll back" for run in runs for d in run.decisions):
        handles.append(
            Line2D([], [], color=RED, marker="X", linestyle="", markeredgecolor="white", label="rolled back")
        )
    if changes := dict.fromkeys(change for run in runs for _, change in phase_changes(run)):
        handles.append(Line2D([], [], color=INK, linestyle=":", label=", ".join(changes)))
    return handles


def _legend_text(group: Group) -> str:
    return f"{group.name}, {group.seeds}" + (" (bold: mean)" if len(group.averaged) > 1 else "")


def title(key: str) -> str:
    """``train_loss`` as a heading: ``train loss``."""
    return {"lr": "learning rate"}.get(key, key.replace("_", " "))
