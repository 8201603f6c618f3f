"""ExploreExploit, or the literal algorithm, against each other method of the tables, seed by seed."""

from __future__ import annotations

import math
from dataclasses import dataclass

from autolr_lab.benchmark.inference import CONFIDENCE, Difference, verdicts
from autolr_lab.benchmark.regret import by_seed
from autolr_lab.paper.tables import Column, ResultTable
from autolr_lab.runner.experiment import Experiment, Rendered, RunSpec
from autolr_lab.runner.markdown import markdown_table, origins
from autolr_lab.runner.results import Row
from autolr_lab.runner.store import Find
from autolr_lab.training.runs import Settings

READINGS = {"literal", "ExploreExploit"}
WORDS = {"higher": "gain", "lower": "loss"}


@dataclass(frozen=True)
class _Pair:
    """Two methods of a table, with the gains of ours."""

    workload: str
    optimizer: str
    against: str
    column: Column
    gains: Difference
    papers: str
    mixed: bool  # whether runs of one seed were on different kinds of machine


@dataclass(frozen=True)
class Differences(Experiment):
    """What a method gains over each other one, run by run at the same seed, beside what the paper's gains."""

    tables: tuple[tuple[ResultTable, str], ...]  # and the metric that decides
    method: str = "ExploreExploit"
    margin: float = 0.5  # points, of accuracy or BLEU: within it two methods are as good as each other

    def runs(self, spec: RunSpec) -> list[Settings]:  # noqa: ARG002
        """None of its own: it compares the runs of the tables."""
        return []

    def shown_runs(self, spec: RunSpec, find: Find) -> list[Settings]:  # noqa: ARG002
        """Those of the tables."""
        return [settings for table, _ in self.tables for settings in table.runs(spec)]

    def render(self, spec: RunSpec, find: Find) -> Rendered:
        """A line for each workload, optimizer and other method that has runs at two common seeds or more."""
        pairs = [pair for table, metric in self.tables for pair in self._pairs(table, metric, spec, find)]
        said = [WORDS.get(v, v) for v in verdicts([pair.gains for pair in pairs], self.margin)]
        head = [
            "workload", "optimizer", f"{self.method} against", "metric", "n", "gain",
            f"{100 * CONFIDENCE:g} % interval", "verdict", "the paper's gain",
        ]  # fmt: skip
        lines, csv = [], []
        for pair, verdict in zip(pairs, said, strict=True):
            gain, half, n = pair.gains.mean, pair.gains.half, len(pair.gains.values)
            lines.append([
                pair.workload, pair.optimizer, pair.against, pair.column.title, str(n), f"{gain:+.3f}",
                f"{gain - half:+.3f} to {gain + half:+.3f}", verdict, pair.papers,
            ])  # fmt: skip
            csv.append({
                "workload": pair.workload, "optimizer": pair.optimizer, "against": pair.against,
                "metric": pair.column.title, "n": n, "gain": gain, "low": gain - half, "high": gain + half,
                "verdict": verdict, "paper": pair.papers, "machines": "two kinds" if pair.mixed else "one kind",
            })  # fmt: skip
        compared = [row for table, _ in self.tables for some in table.rows(spec, find).values() for row in some]
        notes = (
            f"- A verdict allows for all {len(pairs)} comparisons (Holm, {100 * CONFIDENCE:g} % together). As good: "
            f"surely within {self.margin:g}.\n"
        )
        if mixed := [f"{pair.workload}, {pair.optimizer}, {pair.against}" for pair in pairs if pair.mixed]:
            notes += (
                f"- In {len(mixed)} comparisons the two runs of a seed were on different kinds of machine, which have "
                f"start and order in common and round differently: {'; '.join(mixed)}.\n"
            )
        return Rendered({"table": markdown_table(head, lines), "notes": notes + origins(compared)}, csv)

    def _pairs(self, table: ResultTable, metric: str, spec: RunSpec, find: Find) -> list[_Pair]:
        column = next(c for c in table.columns if c.key == metric)
        found, pairs = table.rows(spec, find), []
        for (optimizer, label), others in found.items():
            mine, theirs = by_seed(found.get((optimizer, self.method), [])), by_seed(others)
            gains = _gains(column, mine, theirs)
            if label != self.method and len(gains) > 1:
                papers = papers_gain(table, optimizer, self.method, label, metric)
                both = mine.keys() & theirs.keys()
                mixed = any(_machines(mine[seed]) != _machines(theirs[seed]) for seed in both)
                pairs.append(
                    _Pair(table.trained(spec).name, optimizer, label, column, Difference(gains), papers, mixed)
                )
        return pairs


def _machines(row: Row) -> set[tuple[str, ...]]:
    """All kinds that a run was on, each with its GPU and what it trained on."""
    every = (row["provenance"], *row.get("resumed", []))
    return {(str(one["machine"]), str(one.get("cuda")), str(row["settings"]["device"])) for one in every}


def _gains(column: Column, mine: dict[int, Row], theirs: dict[int, Row]) -> tuple[float, ...]:
    every = (column.of(mine[seed]) - column.of(theirs[seed]) for seed in sorted(mine.keys() & theirs.keys()))
    return tuple(gain for gain in every if not math.isnan(gain))


def papers_gain(table: ResultTable, optimizer: str, method: str, label: str, metric: str) -> str:
    """What the paper's own table gains; empty where it has not both, or has one figure for both readings of it."""
    if {method, label} == READINGS:
        return ""
    mine, other = (table.paper.get((optimizer, name, metric)) for name in (method, label))
    return f"{float(mine.split()[0]) - float(other.split()[0]):+.2f}" if mine and other else ""
