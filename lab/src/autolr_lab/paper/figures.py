"""The paper's figures, drawn from runs."""

from __future__ import annotations

import math
from dataclasses import dataclass
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
    notices,
    pick,
    seeds,
)
from autolr_lab.runner.store import as_run
from autolr_lab.paper.tables import ResultTable
from autolr.report.curves import draw_curves
from autolr.report.drawing import BLUE, ORANGE, array, new_figure, style, to_png
from autolr.report.fits import choose, draw_fits, looks_of
from autolr.report.groups import Group
from autolr_lab.training.runs import Settings

PAPERS = ("baseline", "AutoLR")  # the methods that the paper's figures show


@dataclass(frozen=True)
class Curves(Experiment):
    """Loss, metrics and learning rate over the epochs, of a table's runs with one optimizer (Figures 8 to 19)."""

    table: ResultTable
    optimizer: str

    @property
    def labels(self) -> tuple[str, ...]:
        """Of its table's methods."""
        return self.table.labels

    @property
    def has_small(self) -> bool:
        """Whether its table has a small setting."""
        return self.table.has_small

    @property
    def optimizers_of(self) -> tuple[str, ...]:
        """The one that it shows."""
        return (self.optimizer,)

    def _methods(self, ask: Ask) -> list[Method]:
        """The paper's two of a table that has more, unless others are asked for."""
        if not ask.wants_optimizer(self.optimizer):
            return []
        papers = [m for m in self.table.methods if m.label in PAPERS]
        return [m for m in (self.table.methods if ask.methods else papers or self.table.methods) if ask.wants(m.label)]

    def cells(self, ask: Ask) -> list[Settings]:
        """Those of the table."""
        return [
            self.table.settings(ask, self.optimizer, method, seed)
            for seed in seeds(ask, self.table.papers_seeds)
            for method in self._methods(ask)
        ]

    def groups(self, ask: Ask, find: Find) -> list[Group]:
        """The runs there are, a group for each method."""
        found = []
        for method in self._methods(ask):
            wanted = [self.table.settings(ask, self.optimizer, method, s) for s in seeds(ask, self.table.papers_seeds)]
            runs = tuple(as_run(row) for s in wanted if (row := find(s)) is not None)
            if runs:
                found.append(Group(method.label, runs))
        return found

    def show(self, ask: Ask, find: Find) -> Shown:
        """One picture."""
        groups = self.groups(ask, find)
        if not groups:
            return Shown("No run of it is there yet.\n")
        workload = pick(self.table.workload, self.table.small, ask)
        rows = [
            {
                "settings": {"epochs": run.settings.epochs},
                "provenance": run.provenance,
                "resumed": run.resumed,
                "result": run.result,
            }
            for group in groups
            for run in group.runs
        ]
        told = certificate(workload, rows, pick(self.table.workload, self.table.workload, ask).epochs)
        return Shown(told, _curve_lines(groups), {f"{self.name}.png": to_png(draw_curves(groups))})


def _curve_lines(groups: list[Group]) -> list[dict[str, Any]]:
    lines = [
        {"method": group.name, "seed": run.settings.seed, **epoch}
        for group in groups
        for run in group.runs
        for epoch in run.epochs
    ]
    keys = list(dict.fromkeys(key for line in lines for key in line))
    return [{key: line.get(key) for key in keys} for line in lines]


@dataclass(frozen=True)
class Panels(Experiment):
    """Figure 4: one metric and the learning rate of four workloads."""

    parts: tuple[tuple[Curves, str], ...]  # and the metric

    def cells(self, ask: Ask) -> list[Settings]:
        """Those of its parts."""
        return [cell for part, _ in self.parts for cell in part.cells(ask)]

    def show(self, ask: Ask, find: Find) -> Shown:
        """Baseline orange, AutoLR blue; the rate dashed, on the right. The first seed of each."""
        figure = new_figure(len(self.parts), 1, width=3.6)
        grid = figure.subplots(1, len(self.parts), squeeze=False)[0]
        told: list[str] = []
        rows: list[Row] = []
        for axes, (part, metric) in zip(grid, self.parts, strict=True):
            workload = pick(part.table.workload, part.table.small, ask).name
            axes.set_title(f"{workload}, {part.optimizer}")
            rates = axes.twinx()
            groups = part.groups(ask, find)
            rows += [row for cell in part.cells(ask) if (row := find(cell)) is not None]
            for group in groups:
                run, colour = group.runs[0], BLUE if group.name == "AutoLR" else ORANGE
                epochs = array(row["epoch"] for row in run.epochs)
                axes.plot(epochs, array(row.get(metric) for row in run.epochs), color=colour, label=group.name)
                rates.plot(epochs, array(row["lr"] for row in run.epochs), color=colour, linestyle="--", linewidth=0.9)
            axes.set_ylabel(metric.replace("_", " "))
            axes.set_xlabel("epoch")
            style(axes)
            if not groups:
                axes.text(0.5, 0.5, "not run yet", transform=axes.transAxes, ha="center")
                told.append(f"- {workload}: not run yet.\n")
        return Shown(notices(rows) + "".join(told), (), {f"{self.name}.png": to_png(figure)})


@dataclass(frozen=True)
class OneRunEach(Experiment):
    """One method on several workloads, seed 0."""

    workloads: tuple[tuple[str, str, str], ...]  # workload, its small setting, optimizer
    method: Method

    def cells(self, ask: Ask) -> list[Settings]:
        """A run of each workload whose optimizer is wanted."""
        chosen = [(w, small, o) for w, small, o in self.workloads if ask.wants_optimizer(o)]
        return [self.method.settings(pick(w, small, ask), o, 0, ask) for w, small, o in chosen]

    @property
    def has_small(self) -> bool:
        """Whether one of its workloads has a small setting."""
        return any(workload != small for workload, small, _ in self.workloads)

    @property
    def optimizers_of(self) -> tuple[str, ...]:
        """Those of its runs."""
        return tuple(optimizer for _, _, optimizer in self.workloads)


@dataclass(frozen=True)
class Fits(OneRunEach):
    """Looks of AutoLR runs, with losses kept from the fit (Figures 1, 5 and 6)."""

    def show(self, ask: Ask, find: Find) -> Shown:
        """A picture for each workload; how far the parabola is from the samples that it has not seen."""
        lines, pictures, told = [], {}, []
        rows: list[Row] = []
        for settings in self.cells(ask):
            row = find(settings)
            rows += [] if row is None else [row]
            looks = [] if row is None else [look for look in looks_of(as_run(row)) if look.validation_eps]
            if not looks:
                why = "not run yet" if row is None else "its run was too short for a look"
                told.append(f"- {settings.workload}: {why}.\n")
                continue
            pictures[f"{self.name}-{settings.workload}.png"] = to_png(draw_fits(choose(looks)))
            errors = [e for look in looks if (e := _held_out_error(look)) is not None]
            lines.append([
                settings.workload, settings.optimizer, str(len(looks)), str(sum(x.eps_min is not None for x in looks)),
                f"{100 * sorted(errors)[len(errors) // 2]:.2f} %" if errors else "-",
                f"{100 * max(errors):.2f} %" if errors else "-",
            ])  # fmt: skip
        head = ["workload", "optimizer", "looks", "with a minimum", "held-out error, median", "worst"]
        about = "\nHeld-out error: RMS misfit at samples kept from the fit, over the losses' range in that look.\n"
        return Shown(markdown_table(head, lines) + about + "\n" + notices(rows) + "".join(told), (), pictures)


def _held_out_error(look: Any) -> float | None:
    """RMS misfit of the parabola at the held-out samples, over how much the loss varies over all samples."""
    losses = [v for v in (*look.losses, *look.validation_losses) if v is not None]
    if look.k0 is None or len(losses) < len(look.eps) + len(look.validation_eps):
        return None
    k0, k1, k2 = look.k0, look.k1 or 0.0, look.k2 or 0.0
    squares = [
        (k0 + k1 * e + k2 * e**2 - loss) ** 2 for e, loss in zip(look.validation_eps, look.validation_losses, strict=True)
    ]
    varies = max(losses) - min(losses)
    return math.sqrt(sum(squares) / len(squares)) / varies if varies else None


@dataclass(frozen=True)
class Superbatch(OneRunEach):
    """Figure 7: how the loss of a superbatch scatters, by its size."""

    def show(self, ask: Ask, find: Find) -> Shown:
        """Standard deviation over 10 random superbatches, and what 1 / sqrt(size) makes of that of one minibatch."""
        cells = self.cells(ask)
        if not cells:
            return Shown("None of its optimizers was asked for.\n")
        figure = new_figure(len(cells), 1)
        grid = figure.subplots(1, len(cells), squeeze=False)[0]
        lines, csv = [], []
        rows: list[Row] = []
        for axes, settings in zip(grid, cells, strict=True):
            axes.set_title(settings.workload)
            axes.set_xlabel("superbatch, minibatches")
            axes.set_ylabel("standard deviation of the loss")
            style(axes)
            row: Row | None = find(settings)
            if row is None:
                axes.text(0.5, 0.5, "not run yet", transform=axes.transAxes, ha="center")
                continue
            rows.append(row)
            noise = {int(size): sd for size, sd in row["result"]["superbatch_sd"].items()}
            axes.loglog(list(noise), list(noise.values()), "o-", color=BLUE)
            axes.loglog(list(noise), [noise[1] / math.sqrt(size) for size in noise], "--", color=ORANGE)
            lines += [[settings.workload, str(size), f"{sd:.4g}", f"{noise[1] / math.sqrt(size):.4g}"]
                      for size, sd in noise.items()]  # fmt: skip
            csv += [{"workload": settings.workload, "superbatch": size, "sd": sd} for size, sd in noise.items()]
        head = ["workload", "superbatch", "standard deviation of the loss", "of one minibatch / sqrt(size)"]
        told = f"{markdown_table(head, lines)}\n{notices(rows)}"
        return Shown(told, csv, {f"{self.name}.png": to_png(figure)})
