"""What methods that need no sweep lose to the sweep, over the tasks of the zoo.

Regret is the log of a run's final loss over that of the best rate of the full grid, same seed, same length. A loss is
never taken below `FLOOR` of its start, where a run has solved its task, and never above its start, where it broke off.
Tasks are the sample: a task's pairs and lengths are averaged first, intervals are a bootstrap over tasks.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from autolr.report.drawing import to_png
from autolr_lab.benchmark.inference import CONFIDENCE, holm
from autolr_lab.benchmark.zoo_methods import MethodRow
from autolr_lab.runner.experiment import Rendered
from autolr_lab.zoo.store import Row, from_json, unpack

FLOOR = 1e-4  # share of the start's loss below which nobody is better than another
RESAMPLES = 10_000
DIGITS = 6  # of a difference of regrets: what lies below them is rounding, and has no sign to count

Cell = tuple[str, str, int, int]  # task, optimizer, seed, steps


@dataclass(frozen=True)
class Losses:
    """Before and after a run."""

    before: float
    after: float

    @property
    def level(self) -> float:
        """Log of the final loss, bounded as the module says."""
        if not math.isfinite(self.after) or self.after > self.before:
            return math.log(self.before)
        return math.log(max(self.after, FLOOR * self.before))


def sweep_best(grid: Iterable[Row], *, train: bool) -> dict[Cell, float]:
    """The level of the best rate of each cell."""
    best: dict[Cell, float] = {}
    for row in grid:
        losses = _losses(row.eval_before, row.eval_loss)
        if train:
            losses = _losses(statistics.fmean(row.before), row.train_loss)
        cell = (row.task, row.optimizer, row.seed, row.steps)
        best[cell] = min(best.get(cell, math.inf), losses.level)
    return best


def regrets(rows: Iterable[MethodRow], best: Mapping[Cell, float], *, train: bool) -> dict[str, dict[Cell, float]]:
    """By method, the regret of each cell that the grid has."""
    found: dict[str, dict[Cell, float]] = defaultdict(dict)
    for row in rows:
        cell = (row.task, row.optimizer, row.seed, row.steps)
        losses = _losses(row.train_before, row.train_loss) if train else _losses(row.eval_before, row.eval_loss)
        if cell in best:
            found[row.method][cell] = losses.level - best[cell]
    return dict(found)


def _losses(before: float, after: float) -> Losses:
    return Losses(before, after)


def by_task(cells: Mapping[Cell, float]) -> dict[str, float]:
    """The mean over each task's pairs and lengths."""
    groups: dict[str, list[float]] = defaultdict(list)
    for cell, value in cells.items():
        groups[cell[0]].append(value)
    return {task: statistics.fmean(values) for task, values in groups.items()}


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Of the mean, by a bootstrap (percentiles), at `CONFIDENCE`."""
    draws = np.random.default_rng(0).choice(np.asarray(values), (RESAMPLES, len(values))).mean(axis=1)
    low, high = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def table(found: Mapping[str, Mapping[Cell, float]], ours: str = "find-peak") -> str:
    """Markdown: a row a method, best mean first; the difference to ours over common cells, paired by task."""
    names = sorted(found, key=lambda name: statistics.fmean(by_task(found[name]).values()))
    paired, p_values = {}, {}
    for name in names:
        common = found[name].keys() & found[ours].keys()
        ahead = by_task({cell: found[name][cell] - found[ours][cell] for cell in common})
        paired[name] = [round(value, DIGITS) for value in ahead.values()]
        if name != ours and len(set(paired[name])) > 1:
            p_values[name] = float(stats.wilcoxon(paired[name]).pvalue)
    adjusted = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    lines = [
        "| method | cells (tasks) | mean regret | 95 % interval | median | over .1 | over .3 | worst | "
        "behind find-peak, paired | p (Holm) |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in names:
        values, tasks = sorted(found[name].values()), by_task(found[name])
        low, high = interval(list(tasks.values()))
        behind = "" if name == ours else f"{statistics.fmean(paired[name]):+.3f}"
        p = f"{adjusted[name]:.2g}" if name in adjusted else ""
        lines.append(
            f"| {name} | {len(values)} ({len(tasks)}) | {statistics.fmean(tasks.values()):.3f} | "
            f"{low:.3f} to {high:.3f} | {statistics.median(values):.3f} | {_share(values, 0.1)} | "
            f"{_share(values, 0.3)} | {values[-1]:.2f} | "
            f"{behind} | {p} |"
        )
    return "\n".join(lines)


def _share(values: Sequence[float], bound: float) -> str:
    return f"{100 * sum(value > bound for value in values) / len(values):.0f} %"


def worst(cells: Mapping[Cell, float], count: int = 12) -> str:
    """Markdown: where the method loses most."""
    lines = ["| task | optimizer | steps | regret |", "|---|---|---|---|"]
    for cell, value in sorted(cells.items(), key=lambda item: -item[1])[:count]:
        lines.append(f"| {cell[0]} | {cell[1]} | {cell[3]} | {value:.2f} |")
    return "\n".join(lines)


def profile(found: Mapping[str, Mapping[Cell, float]]) -> bytes:
    """A PNG: the share of cells in which a method's regret is at most so much."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), dpi=150, layout="constrained")
    axes = figure.subplots()
    styles = ("-", "--", "-.", ":")
    names = sorted(found, key=lambda name: statistics.fmean(found[name].values()))
    for place, name in enumerate(names):
        values = np.sort(np.maximum(list(found[name].values()), 1e-3))
        shares = np.arange(1, len(values) + 1) / len(values)
        width = 2.5 if name == "find-peak" else 1.2
        axes.step(values, shares, where="post", label=name, lw=width, ls=styles[place % len(styles)])
    axes.set(xscale="log", xlim=(1e-3, 5), ylim=(0, 1), xlabel="regret: log(final loss / best of the sweep)")
    axes.set_ylabel("share of runs with at most this regret")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, ncols=2)
    return to_png(figure)


def read_grid(folder: Path) -> list[Row]:
    """From the working file or, where there is none, the packed table."""
    file = folder / "rows.jsonl"
    if not file.exists():
        return unpack(folder / "grid.csv.gz")
    return [row for row in map(from_json, file.read_text().splitlines()) if row.run == "grid"]


def read_methods(folder: Path) -> list[MethodRow]:
    """Likewise: ``methods.jsonl``, or ``methods.jsonl.gz``."""
    file = folder / "methods.jsonl"
    return method_rows(file if file.exists() else Path(f"{file}.gz"))


def method_rows(file: Path) -> list[MethodRow]:
    """The rows of one file, packed or not."""
    text = gzip.decompress(file.read_bytes()).decode() if file.suffix == ".gz" else file.read_text()
    return [MethodRow(**json.loads(line)) for line in text.splitlines()]


def by_loss(folder: Path) -> dict[str, dict[str, dict[Cell, float]]]:
    """The regrets of all methods by their held-out and by their training loss."""
    rows, grid = read_methods(folder), read_grid(folder)
    losses = {"held-out": False, "training": True}
    return {name: regrets(rows, sweep_best(grid, train=train), train=train) for name, train in losses.items()}


def rendered(folder: Path) -> Rendered:
    """Markdown, by either loss, and the picture, as documents show them."""
    told = by_loss(folder)
    return Rendered(
        {name: table(found) + "\n" for name, found in told.items()},
        pictures={"zoo-profile.png": lambda: profile(told["held-out"])},
    )


def main() -> None:
    """The command line: prints the tables, by held-out and by training loss."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="with the grid and methods.jsonl")
    args = parser.parse_args()
    for name, found in by_loss(args.folder).items():
        print(f"\n**By the {name} loss**\n\n{table(found)}\n")
        print(f"Where find-peak loses most:\n\n{worst(found['find-peak'])}")


if __name__ == "__main__":
    main()
