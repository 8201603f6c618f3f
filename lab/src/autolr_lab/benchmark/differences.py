"""AutoLR against each other method of the tables, seed by seed."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from autolr_lab.runner.experiment import (
    Ask,
    Experiment,
    Find,
    Shown,
    markdown_table,
    notices,
    pick,
)
from autolr_lab.benchmark.regret import by_seed, half_interval
from autolr_lab.paper.tables import ResultTable
from autolr_lab.training.runs import Settings


@dataclass(frozen=True)
class Differences(Experiment):
    """What AutoLR gains over each other method, run by run at the same seed, beside what the paper's gains."""

    tables: tuple[tuple[ResultTable, str], ...]  # and the metric that decides
    method: str = "AutoLR"
    confidence: float = 0.9

    def cells(self, ask: Ask) -> list[Settings]:  # noqa: ARG002
        """None of its own: it compares the runs of the tables."""
        return []

    def show(self, ask: Ask, find: Find) -> Shown:
        """A line for each workload, optimizer and other method that has runs at two common seeds or more."""
        lines, csv = [], []
        for table, metric in self.tables:
            column = next(c for c in table.columns if c.key == metric)
            found = table.rows(ask, find)
            for (optimizer, label), others in found.items():
                if label == self.method:
                    continue
                mine, theirs = by_seed(found.get((optimizer, self.method), [])), by_seed(others)
                every = [column.of(mine[seed]) - column.of(theirs[seed]) for seed in mine if seed in theirs]
                gains = [gain for gain in every if not math.isnan(gain)]
                if len(gains) < 2:
                    continue
                mean, half = statistics.fmean(gains), half_interval(gains, self.confidence)
                low, high = mean - half, mean + half
                papers = _papers_gain(table, optimizer, self.method, label, metric)
                told = "gain" if low > 0 else "loss" if high < 0 else "cannot tell"
                lines.append([
                    pick(table.workload, table.small, ask).name, optimizer, label, column.title, str(len(gains)),
                    f"{statistics.fmean(gains):+.3f}", f"{low:+.3f} to {high:+.3f}", told, papers,
                ])  # fmt: skip
                csv.append({"workload": lines[-1][0], "optimizer": optimizer, "against": label, "metric": column.title,
                            "n": len(gains), "gain": statistics.fmean(gains), "low": low, "high": high,
                            "paper": papers})  # fmt: skip
        head = ["workload", "optimizer", f"{self.method} against", "metric", "n", "gain",
                f"{100 * self.confidence:.0f} % interval", "verdict", "the paper's gain"]  # fmt: skip
        compared = [row for table, _ in self.tables for some in table.rows(ask, find).values() for row in some]
        return Shown(markdown_table(head, lines) + "\n" + notices(compared), csv)


def _papers_gain(table: ResultTable, optimizer: str, method: str, label: str, metric: str) -> str:
    mine, other = (table.paper.get((optimizer, name, metric)) for name in (method, label))
    return f"{float(mine.split()[0]) - float(other.split()[0]):+.2f}" if mine and other else ""
