"""The experiment of part 2.1: what short explores come to, and how wide their minima are."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from scipy import stats

from autolr.report.drawing import BLUE, new_figure, style, to_png
from autolr_lab.paper.tables import ResultTable
from autolr_lab.runner.experiment import Rendered, RunSpec
from autolr_lab.runner.markdown import figure
from autolr_lab.runner.store import Find


@dataclass(frozen=True)
class Hypothesis(ResultTable):
    """Part 2.1: many short explores, the distribution of what they come to, and how wide the minima are."""

    width: str = "loss_rise"

    def render(self, spec: RunSpec, find: Find) -> Rendered:
        """The table; the distribution; the rank correlation of accuracy and width."""
        rendered = ResultTable.render(self, spec, find)
        rows = next(iter(self.rows(spec, find).values()), [])
        column = next(c for c in self.columns if c.key != "train_loss")
        pairs = [pair for row in rows if not any(map(math.isnan, pair := (column.of(row), figure(row, self.width))))]
        if len(pairs) < 3:
            told = f"- {len(pairs)} runs: too few for a distribution.\n"
            return Rendered({**rendered.parts, "distribution": told}, rendered.csv)
        accuracy, rise = zip(*pairs, strict=True)
        quartiles = " / ".join(f"{q:.2f}" for q in statistics.quantiles(accuracy, n=4))
        rank = stats.spearmanr(accuracy, rise)
        told = (
            f"- {column.title}: least {min(accuracy):.2f}, quartiles {quartiles}, most {max(accuracy):.2f}; the "
            "paper's 20 runs: mean 90.92, one of them 91.71.\n"
            "- Rise of the training loss when each filter is moved by a twentieth of its norm (narrower: larger): "
            f"{min(rise):.3g} to {max(rise):.3g}. Spearman's rank correlation with {column.title}: "
            f"{rank.statistic:+.2f} (p = {rank.pvalue:.2g}, n = {len(pairs)}); the hypothesis says it is negative.\n"
        )
        pictures = {f"{self.name}.png": partial(_scatter, accuracy, rise, column.title)}
        return Rendered({**rendered.parts, "distribution": told}, rendered.csv, pictures)


def _scatter(accuracy: Sequence[float], rise: Sequence[float], title: str) -> bytes:
    drawn = new_figure(2, 1, width=3.6)
    left, right = drawn.subplots(1, 2)
    left.hist(accuracy, bins=min(10, len(accuracy)), color=BLUE)
    left.set(xlabel=title, ylabel="runs")
    right.plot(rise, accuracy, "o", color=BLUE)
    right.set(xlabel="rise of the training loss (narrower: larger)", ylabel=title)
    for axes in (left, right):
        style(axes)
    return to_png(drawn)
