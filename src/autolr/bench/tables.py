"""The paper's tables of results: ours beside its own."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from scipy import stats

from autolr.bench.experiment import (
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
    spread,
    value,
)
from autolr.cost import FORWARDS_PER_STEP
from autolr.policies import Paper
from autolr.policies.paper import TABLE_7
from autolr.runs import Settings


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
                pairs = _paired(found.get((optimizer, self.method), []), others)
                if label == self.method:
                    continue
                gains = [gain for mine, other in pairs if not math.isnan(gain := column.of(mine) - column.of(other))]
                if len(gains) < 2:
                    continue
                low, high = _interval(gains, self.confidence)
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


def _paired(mine: list[Row], others: list[Row]) -> list[tuple[Row, Row]]:
    by_seed = {row["settings"]["seed"]: row for row in others}
    return [(row, by_seed[row["settings"]["seed"]]) for row in mine if row["settings"]["seed"] in by_seed]


def _interval(gains: list[float], confidence: float) -> tuple[float, float]:
    """Of the mean, by Student's t over the seeds."""
    mean, error = statistics.fmean(gains), stats.sem(gains)
    if not error:
        return mean, mean
    low, high = stats.t.interval(confidence, len(gains) - 1, loc=mean, scale=error)
    return float(low), float(high)


def _papers_gain(table: ResultTable, optimizer: str, method: str, label: str, metric: str) -> str:
    mine, other = (table.paper.get((optimizer, name, metric)) for name in (method, label))
    return f"{float(mine.split()[0]) - float(other.split()[0]):+.2f}" if mine and other else ""


@dataclass(frozen=True)
class Presets(Experiment):
    """Table 7: the policy's settings, read from the presets that users get."""

    # preset -> explore epochs, total epochs, saturation threshold, epsilon threshold, as printed.
    paper: Mapping[str, tuple[float, float, float, float]]

    def cells(self, ask: Ask) -> list[Settings]:  # noqa: ARG002
        """None: nothing is trained."""
        return []

    def show(self, ask: Ask, find: Find) -> Shown:  # noqa: ARG002
        """The presets beside the paper's figures, and whether they agree."""
        lines, csv = [], []
        for name, (explore, total, saturation, epsilon) in self.paper.items():
            preset: Paper = TABLE_7[name]
            same = (preset.explore, preset.saturation, preset.epsilon) == (explore / total, saturation, epsilon)
            lines.append([
                name, f"{preset.explore:.3g}", f"{explore:g} / {total:g}", f"{preset.saturation:g}",
                f"{saturation:g}", f"{preset.epsilon:g}", f"{epsilon:g}", "yes" if same else "NO",
            ])  # fmt: skip
            csv.append({"preset": name, "explore": preset.explore, "saturation": preset.saturation,
                        "epsilon": preset.epsilon, "as the paper": same})  # fmt: skip
        head = ["preset", "explore share", "the paper's epochs", "saturation", "the paper's", "epsilon", "the paper's",
                "the same"]  # fmt: skip
        return Shown(markdown_table(head, lines), csv)


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
