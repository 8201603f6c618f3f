"""Appendix C: what AutoLR costs, measured against its formula."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from autolr.numerics.cost import FORWARDS_PER_STEP
from autolr_lab.paper.tables import ResultTable
from autolr_lab.runner.code_identity import SEARCHES
from autolr_lab.runner.experiment import Experiment, Rendered, RunSpec
from autolr_lab.runner.markdown import markdown_table, mean_and_sd, origins
from autolr_lab.runner.results import Row
from autolr_lab.runner.store import Find
from autolr_lab.training.policies import make_policy
from autolr_lab.training.runs import Settings


@dataclass(frozen=True)
class Costs(Experiment):
    """Appendix C: the cost of probes by its formula, samples x superbatch / (3 x window), and as measured."""

    tables: tuple[ResultTable, ...]  # whose AutoLR runs it is measured on

    def runs(self, spec: RunSpec) -> list[Settings]:  # noqa: ARG002
        """None of its own: it accounts for the runs of the tables."""
        return []

    def shown_runs(self, spec: RunSpec, find: Find) -> list[Settings]:
        """Those of the tables that AutoLR tuned."""
        wanted = [settings for table in self.tables for settings in table.runs(spec)]
        return [s for s in wanted if (row := find(s)) is not None and row["result"].get("cost")]

    def render(self, spec: RunSpec, find: Find) -> Rendered:
        """A line for each workload, optimizer and method with a policy of AutoLR's that was run."""
        lines, csv = [], []
        accounted: list[Row] = []
        for table in self.tables:
            for (optimizer, label), some in table.rows(spec, find).items():
                rows = [row for row in some if row["result"].get("cost")]
                if not rows:
                    continue
                accounted += rows
                name, shares = table.trained(spec).name, [_shares(row) for row in rows]
                means = [mean_and_sd([each[key] for each in shares], "{:.1f}") for key in shares[0] if key != "seconds"]
                means.append(f"{statistics.median(each['seconds'] for each in shares):.1f}")
                lines.append([name, optimizer, label, str(len(rows)), *means])
                csv += [
                    {"workload": name, "optimizer": optimizer, "method": label, "seed": row["settings"]["seed"], **each}
                    for row, each in zip(rows, shares, strict=True)
                ]
        head = [
            "workload", "optimizer", "method", "n", "formula, if each window probes, %", "probes, %",
            "drop-rate and divergence checks, %", "search, %", "snapshots, undone steps, %", "in all, %",
            "in all, % of seconds, median",
        ]  # fmt: skip
        notes = (
            "Of training's own forward equivalents, 3 a step; the last column of training's own seconds. The paper: "
            "5 samples, superbatch 100, window 1,000: 16.6 %, an upper bound, drop-rate checks not counted.\n\n"
        )
        return Rendered({"table": markdown_table(head, lines), "notes": notes + origins(accounted)}, csv)


def _shares(row: Row) -> dict[str, float]:
    """[%] Of the training's own cost; NaN where a policy has no windows for the formula."""
    result, cost = row["result"], row["result"]["cost"]
    own = FORWARDS_PER_STEP * result["steps"]
    undone = cost.get("snapshots", 0) + FORWARDS_PER_STEP * cost["discarded_steps"]
    return {
        "formula": _formula(row),
        "probes": 100 * cost["probes"] / own,
        "checks": 100 * (cost["drop_rate"] + cost.get("divergence", 0) + cost.get("first", 0)) / own,
        "search": 100 * _search(row) / own,
        "snapshots": 100 * undone / own,
        "all": 100 * result["cost_share"],
        "seconds": 100 * result["cost_seconds"] / result["own_seconds"],
    }


def _formula(row: Row) -> float:
    result = row["result"]
    if not result.get("window"):
        return math.nan
    policy = make_policy(row["settings"]["schedule"], Settings.from_dict(row["settings"]).policy)
    samples = len(policy.eps)  # type: ignore[attr-defined]
    return float(100 * samples * result["superbatch"] / (FORWARDS_PER_STEP * result["window"]))


def _search(row: Row) -> int:
    """[forward equivalents] Of a search; older runs of other policies have the first forward pass under its name."""
    return int(row["result"]["cost"].get("search", 0)) if row["settings"]["schedule"] in SEARCHES else 0
