"""The paper's figures, drawn from runs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from autolr.report.curves import draw_curves
from autolr.report.drawing import BLUE, ORANGE, array, new_figure, style, to_png
from autolr_lab.paper.tables import ResultTable, pick, run_of
from autolr_lab.runner.experiment import Experiment, Method, Rendered, RunSpec
from autolr_lab.runner.markdown import markdown_table, origins, what_was_trained
from autolr_lab.runner.results import Row
from autolr_lab.runner.store import Find, as_training
from autolr_lab.training.runs import Settings
from autolr_lab.workloads import WORKLOADS

PAPERS = ("baseline", "literal", "ExploreExploit")  # what the paper's figures show, and its other reading


@dataclass(frozen=True)
class Curves(Experiment):
    """Loss, metrics and learning rate over a run, of a table's runs with one optimizer (Figures 8 to 19)."""

    table: ResultTable
    optimizer: str
    small_table: ResultTable | None = None  # in its place in the small setting

    @property
    def labels(self) -> tuple[str, ...]:
        """Of its table's methods."""
        return self.table.labels

    @property
    def has_small(self) -> bool:
        """Whether there is a small setting."""
        return self.table.has_small

    @property
    def optimizers_of(self) -> tuple[str, ...]:
        """The one that it shows."""
        return (self.optimizer,)

    def table_of(self, spec: RunSpec) -> ResultTable:
        """The one whose runs it shows."""
        return self.small_table if spec.small and self.small_table is not None else self.table

    def _methods(self, spec: RunSpec) -> list[Method]:
        """The paper's two of a table that has more, unless others are asked for."""
        if not spec.wants_optimizer(self.optimizer):
            return []
        methods = self.table_of(spec).methods
        if spec.methods:
            return [method for method in methods if spec.wants(method.label)]
        return [method for method in methods if method.label in PAPERS] or list(methods)

    def runs(self, spec: RunSpec) -> list[Settings]:
        """Those of the table."""
        table = self.table_of(spec)
        return [
            table.settings(spec, self.optimizer, method, seed)
            for seed in spec.range_of_seeds(table.papers_seeds)
            for method in self._methods(spec)
        ]

    def rows(self, spec: RunSpec, find: Find) -> list[tuple[str, Row]]:
        """The runs there are, with the label of their method, one method after the other."""
        table = self.table_of(spec)
        return [
            (method.label, row)
            for method in self._methods(spec)
            for seed in spec.range_of_seeds(table.papers_seeds)
            if (row := find(table.settings(spec, self.optimizer, method, seed))) is not None
        ]

    def render(self, spec: RunSpec, find: Find) -> Rendered:
        """One picture."""
        rows, table = self.rows(spec, find), self.table_of(spec)
        if not rows:
            return Rendered({"notes": "No run of it is there yet.\n"})
        epochs = WORKLOADS[table.workload].epochs
        notes = what_was_trained(table.trained(spec).name, [row for _, row in rows], epochs)
        lines = [
            {"method": label, "seed": row["settings"]["seed"], **seen} for label, row in rows for seen in row["epochs"]
        ]
        keys = list(dict.fromkeys(key for line in lines for key in line))
        csv = [{key: line.get(key) for key in keys} for line in lines]
        trainings = [as_training(row, label) for label, row in rows]
        return Rendered({"notes": notes}, csv, {f"{self.name}.png": lambda: to_png(draw_curves(trainings))})


@dataclass(frozen=True)
class Panels(Experiment):
    """Figure 4: one metric and the learning rate of four workloads."""

    parts: tuple[tuple[Curves, str], ...]  # and the metric

    def runs(self, spec: RunSpec) -> list[Settings]:
        """Those of its parts."""
        return [settings for part, _ in self.parts for settings in part.runs(spec)]

    def render(self, spec: RunSpec, find: Find) -> Rendered:
        """Baseline orange, ExploreExploit blue; the rate dashed, on the right. The first seed of each."""
        figure = new_figure(len(self.parts), 1, width=3.6)
        notes, rows = "", []
        for axes, (part, metric) in zip(figure.subplots(1, len(self.parts)), self.parts, strict=True):
            workload = part.table_of(spec).trained(spec).name
            axes.set(title=f"{workload}, {part.optimizer}", xlabel="epoch", ylabel=metric.replace("_", " "))
            style(axes)
            found = part.rows(spec, find)
            rows += [row for _, row in found]
            _draw_firsts(axes, metric, found)
            if not found:
                axes.text(0.5, 0.5, "not run yet", transform=axes.transAxes, ha="center")
                notes += f"- {workload}: not run yet.\n"
        return Rendered({"notes": origins(rows) + notes}, (), {f"{self.name}.png": lambda: to_png(figure)})


def _draw_firsts(axes: Any, metric: str, rows: list[tuple[str, Row]]) -> None:
    """The first run of each method."""
    rates = axes.twinx()
    for label, row in dict(reversed(rows)).items():
        seen, colour = row["epochs"], BLUE if label == "ExploreExploit" else ORANGE
        epochs = array(line["epoch"] for line in seen)
        axes.plot(epochs, array(line.get(metric) for line in seen), color=colour, label=label)
        rates.plot(epochs, array(line["lr"] for line in seen), color=colour, linestyle="--", linewidth=0.9)


@dataclass(frozen=True)
class OneRunEach(Experiment):
    """One method on several workloads, seed 0."""

    workloads: tuple[tuple[str, str, str], ...]  # workload, its small setting, optimizer
    method: Method

    def runs(self, spec: RunSpec) -> list[Settings]:
        """A run of each workload whose optimizer is wanted."""
        chosen = [(w, small, o) for w, small, o in self.workloads if spec.wants_optimizer(o)]
        return [run_of(self.method, pick(w, small, spec), o, 0, spec) for w, small, o in chosen]

    @property
    def has_small(self) -> bool:
        """Whether one of its workloads has a small setting."""
        return any(workload != small for workload, small, _ in self.workloads)

    @property
    def optimizers_of(self) -> tuple[str, ...]:
        """Those of its runs."""
        return tuple(optimizer for _, _, optimizer in self.workloads)


@dataclass(frozen=True)
class Superbatch(OneRunEach):
    """Figure 7: how the loss of a superbatch scatters, by its size."""

    def render(self, spec: RunSpec, find: Find) -> Rendered:
        """Standard deviation over 10 random superbatches, and what 1 / sqrt(size) makes of that of one minibatch."""
        wanted = self.runs(spec)
        if not wanted:
            return Rendered({"notes": "None of its optimizers was asked for.\n"})
        figure = new_figure(len(wanted), 1)
        csv: list[dict[str, Any]] = []
        rows: list[Row] = []
        for axes, settings in zip(figure.subplots(1, len(wanted), squeeze=False)[0], wanted, strict=True):
            axes.set(title=settings.workload, xlabel="superbatch, minibatches", ylabel="standard deviation of the loss")
            style(axes)
            row: Row | None = find(settings)
            if row is None:
                axes.text(0.5, 0.5, "not run yet", transform=axes.transAxes, ha="center")
                continue
            rows.append(row)
            scatter = {int(size): sd for size, sd in row["result"]["superbatch_sd"].items()}
            by_root = [scatter[1] / math.sqrt(size) for size in scatter]
            axes.loglog(list(scatter), list(scatter.values()), "o-", color=BLUE)
            axes.loglog(list(scatter), by_root, "--", color=ORANGE)
            csv += [
                {"workload": settings.workload, "superbatch": size, "sd": sd, "one minibatch's / sqrt(size)": root}
                for (size, sd), root in zip(scatter.items(), by_root, strict=True)
            ]
        head = ["workload", "superbatch", "standard deviation of the loss", "of one minibatch / sqrt(size)"]
        lines = [[f"{v:.4g}" if isinstance(v, float) else str(v) for v in line.values()] for line in csv]
        parts = {"table": markdown_table(head, lines), "notes": origins(rows)}
        return Rendered(parts, csv, {f"{self.name}.png": lambda: to_png(figure)})
