"""The experiment of part 2.1: what short explores come to, and how wide their minima are."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from scipy import stats

from autolr_lab.runner.experiment import (
    Ask,
    Find,
    Shown,
    value,
)
from autolr_lab.paper.tables import ResultTable


@dataclass(frozen=True)
class Hypothesis(ResultTable):
    """Part 2.1: many short explores, the distribution of what they come to, and how wide the minima are."""

    width: str = "loss_rise"

    def show(self, ask: Ask, find: Find) -> Shown:
        """The table; the distribution; the rank correlation of accuracy and width."""
        shown = ResultTable.show(self, ask, find)
        some = next(iter(self.rows(ask, find).values()), [])
        column = next(c for c in self.columns if c.key != "train_loss")
        every = [(column.of(row), value(row, self.width)) for row in some]
        pairs = [pair for pair in every if not any(map(math.isnan, pair))]
        if len(pairs) < 3:
            return Shown(shown.markdown + f"- {len(pairs)} runs: too few for a distribution.\n", shown.csv)
        accuracy, rise = zip(*pairs, strict=True)
        quantiles = statistics.quantiles(accuracy, n=4)
        rank = stats.spearmanr(accuracy, rise)
        told = (
            f"- {column.title}: least {min(accuracy):.2f}, quartiles {' / '.join(f'{q:.2f}' for q in quantiles)}, "
            f"most {max(accuracy):.2f}; the paper's 20 runs: mean 90.92, one of them 91.71.\n"
            "- Rise of the training loss when each filter is moved by a twentieth of its norm (narrower: larger): "
            f"{min(rise):.3g} to {max(rise):.3g}. Spearman's rank correlation with {column.title}: "
            f"{rank.statistic:+.2f} (p = {rank.pvalue:.2g}, n = {len(pairs)}); negative is what the hypothesis says.\n"
        )
        return Shown(shown.markdown + told, shown.csv, {f"{self.name}.png": _scatter(accuracy, rise, column.title)})


def _scatter(accuracy: tuple[float, ...], rise: tuple[float, ...], title: str) -> bytes:
    from autolr.report.drawing import BLUE, new_figure, style, to_png

    figure = new_figure(2, 1, width=3.6)
    left, right = figure.subplots(1, 2)
    left.hist(accuracy, bins=min(10, len(accuracy)), color=BLUE)
    left.set_xlabel(title)
    left.set_ylabel("runs")
    right.plot(rise, accuracy, "o", color=BLUE)
    right.set_xlabel("rise of the training loss (narrower: larger)")
    right.set_ylabel(title)
    for axes in (left, right):
        style(axes)
    return to_png(figure)
