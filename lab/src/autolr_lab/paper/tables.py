"""The paper's tables of results: ours beside its own."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from autolr_lab.baselines import BASELINES
from autolr_lab.runner.experiment import Experiment, Method, Rendered, RunSpec
from autolr_lab.runner.markdown import figure, markdown_table, mean_and_sd, what_was_trained
from autolr_lab.runner.results import Row
from autolr_lab.runner.store import Find
from autolr_lab.training.runs import Settings
from autolr_lab.workloads import WORKLOADS
from autolr_lab.workloads.workload import Workload

NAMED = 12  # lines of a table that are missing; of more their number is enough


@dataclass(frozen=True)
class Column:
    """One figure of a run's result."""

    key: str
    title: str
    form: str = "{:.2f}"
    percent: bool = False  # the result is a share, the table a percentage

    def of(self, row: Row) -> float:
        """The figure as the table has it."""
        return figure(row, self.key) * (100 if self.percent else 1)


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

    def trained(self, spec: RunSpec) -> Workload:
        """The workload, or its small setting where that is asked for."""
        return pick(self.workload, self.small, spec)

    def settings(self, spec: RunSpec, optimizer: str, method: Method, seed: int) -> Settings:
        """One run."""
        return run_of(self.instead.get((optimizer, method.label), method), self.trained(spec), optimizer, seed, spec)

    def wanted(self, spec: RunSpec) -> list[tuple[str, Method]]:
        """The table's lines."""
        chosen = [o for o in self.optimizers if spec.wants_optimizer(o)]
        return [(o, m) for o in chosen for m in self.methods if spec.wants(m.label) and _stands_in(m, o)]

    def runs(self, spec: RunSpec) -> list[Settings]:
        """Seed by seed, so that a part of them is a table already."""
        return [
            self.settings(spec, optimizer, method, seed)
            for seed in spec.range_of_seeds(self.papers_seeds)
            for optimizer, method in self.wanted(spec)
        ]

    def rows(self, spec: RunSpec, find: Find) -> dict[tuple[str, str], list[Row]]:
        """The runs there are, by line."""
        return {
            (optimizer, method.label): [
                row
                for seed in spec.range_of_seeds(self.papers_seeds)
                if (row := find(self.settings(spec, optimizer, method, seed))) is not None
            ]
            for optimizer, method in self.wanted(spec)
        }

    def render(self, spec: RunSpec, find: Find) -> Rendered:
        """A line for each optimizer and method that was run, and beside each figure the paper's where it has one."""
        found = self.rows(spec, find)
        head = ["optimizer", "method", "n"]
        for column in self.columns:
            head += [column.title, f"the paper's (n = {self.papers_seeds})"] if self.paper else [column.title]
        head.append("cost, % of training's forward equivalents")
        lines = [self._line(optimizer, label, some) for (optimizer, label), some in found.items() if some]
        csv = [
            _csv_line(self.name, optimizer, label, column, some, self.paper.get((optimizer, label, column.key), ""))
            for (optimizer, label), some in found.items()
            if some
            for column in self.columns
        ]
        notes = what_was_trained(
            self.trained(spec).name, [row for some in found.values() for row in some], WORKLOADS[self.workload].epochs
        )
        notes += f"- {self.remark}\n" if self.remark else ""
        missing = [f"{optimizer}, {label}" for (optimizer, label), some in found.items() if not some]
        if missing:
            named = "; ".join(missing) if len(missing) <= NAMED else f"{len(missing)} of {len(found)} lines"
            notes += f"- Not run: {named}.\n"
        return Rendered({"table": markdown_table(head, lines), "notes": notes}, csv)

    def _line(self, optimizer: str, label: str, rows: list[Row]) -> list[str]:
        line = [optimizer, label, str(len(rows))]
        for column in self.columns:
            line.append(mean_and_sd([column.of(row) for row in rows], column.form))
            line += [self.paper.get((optimizer, label, column.key), "")] if self.paper else []
        shares = [100 * row["result"].get("cost_share", 0.0) for row in rows]
        return [*line, mean_and_sd(shares, "{:.1f}")]


def pick(workload: str, small: str, spec: RunSpec) -> Workload:
    """The workload, or its small setting where that is asked for."""
    return WORKLOADS[small if spec.small else workload]


def run_of(method: Method, workload: Workload, optimizer: str, seed: int, spec: RunSpec) -> Settings:
    """A run of a method at the workload's rate, or at its authors' where it has one, for its number of epochs."""
    rate, baseline = workload.rate(optimizer), BASELINES.get(method.schedule)
    return Settings(
        workload=workload.name,
        optimizer=optimizer,
        lr=(rate if baseline is None else baseline.rate(optimizer, rate)) * method.times,
        epochs=max(1, round(spec.scale * method.length * workload.epochs)),
        batch_size=workload.batch_size,
        seed=seed,
        device=spec.device,
        data_dir=None if spec.data_dir is None else str(spec.data_dir),
        precision=spec.precision,
        ranks=spec.ranks,
        workers=spec.workers,
        measure=method.measure,
        **method.of(workload),
    )


def _stands_in(method: Method, optimizer: str) -> bool:
    """Whether a method can be used in this optimizer's place."""
    return method.schedule not in BASELINES or optimizer in BASELINES[method.schedule].optimizers


def _csv_line(table: str, optimizer: str, method: str, column: Column, rows: list[Row], papers: str) -> dict[str, Any]:
    values = [column.of(row) for row in rows]
    finite = [v for v in values if not math.isnan(v)]
    return {
        "table": table,
        "optimizer": optimizer,
        "method": method,
        "metric": column.title,
        "n": len(values),
        "mean": statistics.fmean(finite) if finite else None,
        "sd": statistics.stdev(finite) if len(finite) > 1 else None,
        "values": " ".join(f"{v:.6g}" for v in values),
        "paper": papers,
    }
