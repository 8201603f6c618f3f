"""The paper's tables of results: ours beside its own."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from autolr_lab.runner.experiment import (
    Ask,
    Experiment,
    Find,
    Method,
    Row,
    Shown,
    certificate,
    markdown_table,
    pick,
    seeds,
    spread,
    value,
)
from autolr_lab.training.runs import Settings


@dataclass(frozen=True)
class Column:
    """One figure of a run's result."""

    key: str
    title: str
    form: str = "{:.2f}"
    percent: bool = False  # the result is a share, the table a percentage

    def of(self, row: Row) -> float:
        """The figure as the table has it."""
        return value(row, self.key) * (100 if self.percent else 1)


TRAIN_LOSS = Column("train_loss", "training loss", "{:.4g}")
ACCURACY = Column("test_accuracy", "test accuracy, %", percent=True)


@dataclass(frozen=True)
class ResultTable(Experiment):
    """Methods against metrics, over seeds."""

    workload: str
    small: str
    optimizers: tuple[str, ...]
    methods: tuple[Method, ...]
    columns: tuple[Column, ...]
    papers_seeds: int
    # (optimizer, method, column) -> as the paper prints it.
    paper: Mapping[tuple[str, str, str], str] = field(default_factory=dict)
    # (optimizer, method's label) -> what stands under that label with this optimizer.
    instead: Mapping[tuple[str, str], Method] = field(default_factory=dict)
    remark: str = ""  # in what it differs from the paper's table

    @property
    def has_small(self) -> bool:
        """Whether it has a small setting that is another workload."""
        return self.small != self.workload

    @property
    def optimizers_of(self) -> tuple[str, ...]:
        """Its optimizers."""
        return self.optimizers

    @property
    def labels(self) -> tuple[str, ...]:
        """Of its methods."""
        return tuple(method.label for method in self.methods)

    def settings(self, ask: Ask, optimizer: str, method: Method, seed: int) -> Settings:
        """One run."""
        method = self.instead.get((optimizer, method.label), method)
        return method.settings(pick(self.workload, self.small, ask), optimizer, seed, ask)

    def wanted(self, ask: Ask) -> list[tuple[str, Method]]:
        """The table's lines."""
        chosen = [o for o in self.optimizers if ask.wants_optimizer(o)]
        return [(o, m) for o in chosen for m in self.methods if ask.wants(m.label)]

    def cells(self, ask: Ask) -> list[Settings]:
        """Seed by seed, so that a part of them is a table already."""
        return [
            self.settings(ask, optimizer, method, seed)
            for seed in seeds(ask, self.papers_seeds)
            for optimizer, method in self.wanted(ask)
        ]

    def rows(self, ask: Ask, find: Find) -> dict[tuple[str, str], list[Row]]:
        """The runs there are, by line."""
        return {
            (optimizer, method.label): [
                row
                for seed in seeds(ask, self.papers_seeds)
                if (row := find(self.settings(ask, optimizer, method, seed))) is not None
            ]
            for optimizer, method in self.wanted(ask)
        }

    def show(self, ask: Ask, find: Find) -> Shown:
        """A line for each optimizer and method: ours, and beside each figure the paper's where it has such a table."""
        found = self.rows(ask, find)
        lines, csv = [], []
        for (optimizer, label), some in found.items():
            line = [optimizer, label, str(len(some))]
            for column in self.columns:
                values = [column.of(row) for row in some]
                papers = self.paper.get((optimizer, label, column.key), "")
                line += [spread(values, column.form), papers] if self.paper else [spread(values, column.form)]
                csv.append(_csv_line(self.name, optimizer, label, column, values, papers))
            shares = [100 * row["result"].get("cost_share", 0.0) for row in some]
            line.append(spread(shares, "{:.1f}"))
            lines.append(line)
        head = ["optimizer", "method", "n"]
        for column in self.columns:
            head += [column.title, f"the paper's (n = {self.papers_seeds})"] if self.paper else [column.title]
        head.append("cost, % of training's forward equivalents")
        every = [row for some in found.values() for row in some]
        workload = pick(self.workload, self.small, ask)
        told = certificate(workload, every, pick(self.workload, self.workload, ask).epochs)
        if self.remark:
            told += f"- {self.remark}\n"
        missing = [f"{o}, {label}" for (o, label), some in found.items() if not some]
        if missing:
            told += f"- Not run: {'; '.join(missing)}.\n"
        return Shown(f"{markdown_table(head, lines)}\n{told}", csv)


def _csv_line(
    table: str, optimizer: str, method: str, column: Column, values: list[float], papers: str
) -> dict[str, Any]:
    known = [v for v in values if not math.isnan(v)]
    return {
        "table": table,
        "optimizer": optimizer,
        "method": method,
        "metric": column.title,
        "n": len(values),
        "mean": statistics.fmean(known) if known else None,
        "sd": statistics.stdev(known) if len(known) > 1 else None,
        "values": " ".join(f"{v:.6g}" for v in values),
        "paper": papers,
    }
