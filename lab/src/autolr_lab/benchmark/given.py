"""Does a search pay where the given rate is right already? By how far the given rate is from the best of the grid.

`find-peak`, which pays its search out of the run, beside `knee` at the customary rate: the same schedule over all of
the steps. Where the best rate lies is known from the grid afterwards, and to nobody beforehand.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

from autolr_lab.benchmark.beside import SEARCHED, USUAL
from autolr_lab.benchmark.zoo_methods import MethodRow
from autolr_lab.benchmark.zoo_report import Cell, Losses, by_task, interval, regrets, sweep_best
from autolr_lab.runner.markdown import markdown_table
from autolr_lab.zoo.store import Row

LENGTHS = ((100, 100), (200, 200), (300, 300), (1_200, 2_400), (6_000, 6_000))  # [steps] of a table's parts: from, to
PLACES = (  # octaves of the best rate above the given one: from, to
    ("more than an octave too high", -math.inf, -1.0), ("within an octave", -1.0, 1.0),
    ("one to three octaves too low", 1.0, 3.0), ("more than three too low", 3.0, math.inf),
)  # fmt: skip


def best_octaves(grid: Iterable[Row]) -> dict[Cell, int]:
    """The rate of the lowest held-out loss of each cell, in octaves; the lowest such rate where several are alike."""
    found: dict[Cell, tuple[float, int]] = {}
    for row in grid:
        cell = (row.task, row.optimizer, row.seed, row.steps)
        here = (Losses(row.eval_before, row.eval_loss).level, row.octave)
        found[cell] = min(found.get(cell, (math.inf, 0)), here)
    return {cell: octave for cell, (_, octave) in found.items()}


def table(grid: Sequence[Row], methods: Sequence[MethodRow]) -> str:
    """Markdown, by held-out loss: a line for each length and distance."""
    best, octaves = sweep_best(grid, train=False), best_octaves(grid)
    found = regrets(methods, best, train=False)
    given = {
        (row.task, row.optimizer, row.seed, row.steps): math.log2(row.peak) for row in methods if row.method == USUAL
    }
    lines = []
    for first, last in LENGTHS:
        for name, low, high in PLACES:
            cells = [
                cell for cell in sorted(given.keys() & found[SEARCHED].keys() & octaves.keys())
                if first <= cell[3] <= last and low <= octaves[cell] - given[cell] < high
            ]  # fmt: skip
            if cells:
                steps = f"{first:,}" if first == last else f"{first:,} to {last:,}"
                lines.append([steps, name, *_line(cells, found)])
    head = [
        "steps", "the given rate is", "cells (tasks)", "regret of find-peak", "regret of the given rate",
        "find-peak behind", "95 % interval", "behind in",
    ]  # fmt: skip
    return markdown_table(head, lines)


def _line(cells: Sequence[Cell], found: Mapping[str, Mapping[Cell, float]]) -> list[str]:
    of = {name: by_task({cell: found[name][cell] for cell in cells}) for name in (SEARCHED, USUAL)}
    behind = list(by_task({cell: found[SEARCHED][cell] - found[USUAL][cell] for cell in cells}).values())
    low, high = interval(behind)
    return [
        f"{len(cells)} ({len(behind)})", f"{statistics.fmean(of[SEARCHED].values()):.3f}",
        f"{statistics.fmean(of[USUAL].values()):.3f}", f"{statistics.fmean(behind):+.3f}",
        f"{low:+.3f} to {high:+.3f}" if len(behind) > 1 else "-",
        f"{sum(value > 0 for value in behind)} of {len(behind)}",
    ]  # fmt: skip
