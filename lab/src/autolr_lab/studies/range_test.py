"""A range test and `find_peak` on one picture, with the whole sweep that both stand in for.

``python -m autolr_lab.studies.range_test`` runs both on a pair of the zoo, takes the sweep's losses from the zoo's own
grid, and draws ``docs/img/range-test.png``.
"""

from __future__ import annotations

import argparse
import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from autolr import Peak, find_peak
from autolr_lab.baselines.lr_finder import RangeTest, range_test
from autolr_lab.benchmark.zoo_methods import Job
from autolr_lab.runner.results import RESULTS
from autolr_lab.studies.docs_tables import ROOT
from autolr_lab.zoo.registry import BY_NAME, Pair
from autolr_lab.zoo.store import Row, unpack
from autolr_lab.zoo.training import start

PICTURE = ROOT / "docs" / "img" / "range-test.png"
GRID = RESULTS / "zoo" / "grid.csv.gz"
RED, BLUE = "#d62728", "#1f77b4"


@dataclass(frozen=True)
class Compared:
    """What both say of one run, and the sweep."""

    pair: Pair
    steps: int
    tested: RangeTest
    peak: Peak
    sweep: tuple[Row, ...]  # the grid's runs of that length, by rate

    @property
    def best(self) -> Row:
        """The sweep's lowest held-out loss."""
        return min((row for row in self.sweep if math.isfinite(row.eval_loss)), key=lambda row: row.eval_loss)

    def at(self, rate: float) -> float:
        """The sweep's held-out loss at the nearest rate; infinite where that run diverged."""
        row = min(self.sweep, key=lambda row: abs(math.log(row.peak / rate)))
        return row.eval_loss if math.isfinite(row.eval_loss) else math.inf


def compared(pair: Pair, steps: int, seed: int, grid: Sequence[Row]) -> Compared:
    """Run both, from the customary rate.

    Raises:
        ValueError: the grid has no run of the pair, length and seed.
    """
    cell = (pair.task.name, pair.optimizer, seed, steps)
    sweep = sorted((r for r in grid if (r.task, r.optimizer, r.seed, r.steps) == cell), key=lambda row: row.octave)
    if not sweep:
        raise ValueError(f"The grid has no runs of {pair.name} with {steps} steps and seed {seed}. It has others.")
    begun = start(pair.task, seed)
    jobs = [Job(pair, begun, steps, copy.deepcopy(begun.model).train()) for _ in range(2)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tested = range_test(jobs[0].run())
        peak = find_peak(
            jobs[1].model, jobs[1].optimizer(pair.customary), pair.task.loss, pair.task.minibatches(seed + 1000), steps,
            progress=False,
        )  # fmt: skip
    return Compared(pair, steps, tested, peak, tuple(sweep))


def draw(found: Compared, path: Path) -> None:
    """Above the range test, below short runs and the sweep, over the same axis of rates."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = Figure(figsize=(8.0, 8.0), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 3))
    suggestion = found.tested.rate
    above.plot(found.tested.rates, found.tested.losses, color=BLUE, label="range test: loss while the rate grows")
    above.axvline(found.peak.lr, color=RED, label=f"find_peak: {found.peak.lr:.2g}")
    above.set(ylabel="loss")
    found.peak.plot(below)
    shown = [row for row in found.sweep if math.isfinite(row.eval_loss) and row.eval_loss < found.peak.start_loss]
    below.plot(
        [row.peak for row in shown], [row.eval_loss for row in shown], "s-", color="black", markersize=4, linewidth=0.8,
        label=f"sweep: held-out loss after {found.steps} steps",
    )  # fmt: skip
    for axes in (above, below):
        axes.axvline(suggestion, color=BLUE, linestyle="--", label=f"range test's suggestion: {suggestion:.2g}")
        axes.axvline(suggestion / 10, color=BLUE, linestyle=":", label="a tenth of it")
        axes.set(ylim=(0, 1.25 * found.peak.start_loss), xlim=(1e-6, 10.0))
        axes.xaxis.set_major_locator(LogLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.legend(fontsize=8, loc="lower left")
    figure.suptitle(f"{found.pair.task.name}, {found.pair.optimizer}, {found.steps} steps")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, bbox_inches="tight")


def told(found: Compared) -> str:
    """In one line of Markdown a way to the rate: the rate, and what the sweep came to there."""
    ways = {
        "sweep's best": found.best.peak, "find_peak": found.peak.lr, "range test": found.tested.rate,
        "range test / 10": found.tested.rate / 10,
    }  # fmt: skip
    return "\n".join(f"{name}: {rate:.3g}, held-out loss there {found.at(rate):.4g}" for name, rate in ways.items())


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="autolr_lab.studies.range_test", description=__doc__)
    parser.add_argument("--task", choices=list(BY_NAME), default="names-gpt")
    parser.add_argument("--optimizer", default="adamw")
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", type=Path, default=PICTURE)
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    found = compared(Pair(BY_NAME[asked.task], asked.optimizer), asked.steps, asked.seed, unpack(GRID))
    draw(found, asked.picture)
    print(told(found))


if __name__ == "__main__":
    main()
