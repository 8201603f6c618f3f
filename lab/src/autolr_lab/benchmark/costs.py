"""Appendix C: what AutoLR costs, measured against its formula."""

from __future__ import annotations

from dataclasses import dataclass

from autolr_lab.runner.experiment import (
    Ask,
    Experiment,
    Find,
    Row,
    Shown,
    markdown_table,
    notices,
    pick,
    spread,
)
from autolr_lab.paper.tables import ResultTable
from autolr.numerics.cost import FORWARDS_PER_STEP
from autolr_lab.training.runs import Settings


@dataclass(frozen=True)
class Costs(Experiment):
    """Appendix C: the cost of looks by its formula, samples x superbatch / (3 x window), and as measured."""

    tables: tuple[ResultTable, ...]  # whose AutoLR runs it is measured on

    def cells(self, ask: Ask) -> list[Settings]:  # noqa: ARG002
        """None of its own: it accounts for the runs of the tables."""
        return []

    def show(self, ask: Ask, find: Find) -> Shown:
        """A line for each workload, optimizer and AutoLR method that was run."""
        lines, csv = [], []
        accounted: list[Row] = []
        for table in self.tables:
            for (optimizer, label), some in table.rows(ask, find).items():
                costed = [row for row in some if row["result"].get("cost")]
                if not costed:
                    continue
                accounted += costed
                line = [pick(table.workload, table.small, ask).name, optimizer, label, str(len(costed))]
                figures = [_cost_figures(row) for row in costed]
                line += [spread([f[key] for f in figures], "{:.1f}") for key in figures[0]]
                lines.append(line)
                csv += [
                    {"workload": line[0], "optimizer": optimizer, "method": label, "seed": row["settings"]["seed"], **f}
                    for row, f in zip(costed, figures, strict=True)
                ]
        head = ["workload", "optimizer", "method", "n", "formula, if each window looks, %", "looks, %",
                "drop-rate checks, %", "snapshots, undone steps, %", "in all, %", "in all, % of seconds"]  # fmt: skip
        told = (
            "\nOf training's own forward equivalents, 3 a step; the last column of training's own seconds. The paper: "
            "5 samples, superbatch 100, window 1,000: 16.6 %, an upper bound, drop-rate checks not counted.\n"
        )
        return Shown(markdown_table(head, lines) + told + "\n" + notices(accounted), csv)


def _cost_figures(row: Row) -> dict[str, float]:
    result, cost = row["result"], row["result"]["cost"]
    own = FORWARDS_PER_STEP * result["steps"]
    samples = len(row["settings"]["policy"]["eps"])
    undone = cost.get("snapshots", 0) + FORWARDS_PER_STEP * cost["discarded_steps"]
    return {
        "formula": 100 * samples * result["superbatch"] / (FORWARDS_PER_STEP * result["window"]),
        "looks": 100 * cost["looks"] / own,
        "checks": 100 * (cost["drop_rate"] + cost.get("trial", 0)) / own,
        "snapshots": 100 * undone / own,
        "all": 100 * result["cost_share"],
        "seconds": 100 * result["cost_seconds"] / result["own_seconds"],
    }
